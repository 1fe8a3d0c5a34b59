//! Sites that tell of garbage collections: when one starts and ends, what the runtime
//! recorded of it, how goroutines assisted, and how long the world was stopped for
//! whatever reason.
//!
//! Functions and arguments from runtime/mgc.go, mgcpacer.go and proc.go of Go 1.19 to 1.27.

use iced_x86::{FlowControl, Instruction};

use super::{CostClass, Place, Purpose, Site, alloc, probed, site};
use crate::binary::flow::{Flow, RAX, RDI, Reg, Value};
use crate::binary::{Binary, Function};

/// A place that the runtime passes once for what is to be told, and what its lack costs.
struct Passed {
    function: &'static str,
    place: At,
    /// An argument worth reading, by the register it comes in if the function takes any.
    argument: Option<Reg>,
    purpose: fn(Place) -> Purpose,
    without: &'static str,
}

/// Where in a function a site is to stand.
enum At {
    /// Where every call comes along.
    Start,
    /// The same, behind the calls of this function.
    Behind(&'static str),
    /// The only call of this function.
    Call(&'static str),
    /// Right after that, before any branch.
    AfterCall(&'static str),
}

/// Once a cycle or assist each, and for all stops of the world together.
///
/// `gcMarkTermination` has recorded everything when it comes to print it, and holds the next
/// cycle up until it returns. Only `userForced` may be set for the next one meanwhile: so
/// that it is what the runtime prints, it is read right behind that, printed or not.
const PASSED: [Passed; 7] = [
    Passed {
        function: "runtime.gcSweep",
        place: At::Start,
        argument: None,
        purpose: |_| Purpose::GcEpoch,
        without: "GC cycles are not counted",
    },
    Passed {
        function: "runtime.(*gcControllerState).startCycle",
        place: At::Start,
        argument: Some(RDI),
        purpose: |trigger| Purpose::GcStart { trigger },
        without: "what triggered a GC cycle is not known",
    },
    Passed {
        function: "runtime.gcMarkTermination",
        place: At::Behind("runtime.printlock"),
        argument: None,
        purpose: |_| Purpose::GcRecord,
        without: NO_TIMELINE,
    },
    Passed {
        function: "runtime.gcAssistAlloc1",
        place: At::Call("runtime.gcDrainN"),
        argument: None,
        purpose: |_| Purpose::AssistBegin,
        without: NO_ASSISTS,
    },
    Passed {
        function: "runtime.gcAssistAlloc1",
        place: At::AfterCall("runtime.gcDrainN"),
        argument: None,
        purpose: |_| Purpose::AssistEnd,
        without: NO_ASSISTS,
    },
    Passed {
        function: "runtime.stopTheWorldWithSema",
        place: At::Start,
        argument: Some(RAX),
        purpose: |reason| Purpose::StwBegin { reason },
        without: NO_STW,
    },
    Passed {
        function: "runtime.startTheWorldWithSema",
        place: At::Start,
        argument: None,
        purpose: |_| Purpose::StwEnd,
        without: NO_STW,
    },
];

/// What a capture lacks without the runtime's records of its cycles.
pub(super) const NO_TIMELINE: &str = "the GC timeline is missing";
const NO_ASSISTS: &str = "which sites had to assist the GC is not known";
const NO_STW: &str = "how long the world was stopped is not known";

/// The sites that are found, and notes on the others.
pub(super) fn sites(binary: &Binary) -> (Vec<Site>, Vec<String>) {
    let (mut sites, mut notes) = (Vec::new(), Vec::new());
    for passed in &PASSED {
        match find(binary, passed) {
            Ok(site) => sites.push(site),
            Err(why) => notes.push(format!("{}: no site found ({why}): {}", passed.function, passed.without)),
        }
    }
    (sites, notes)
}

fn find(binary: &Binary, passed: &Passed) -> Result<Site, &'static str> {
    let functions = binary.functions().map_err(|_| "no function table")?;
    let function: Function<'_> = functions.by_name(passed.function).ok_or("no such function")?;
    let flow = probed(binary, &function).ok_or("its machine code could not be analysed")?;
    let is_call = |name: &str, i: &Instruction| {
        i.is_call_near() && binary.name_at(i.near_branch_target()) == Some(name)
    };
    let address = match passed.place {
        At::Start => alloc::passage(&flow),
        At::Behind(name) => alloc::passage_behind(&flow, |i| is_call(name, i)),
        At::Call(name) => only_call(&flow, |i| is_call(name, i)),
        At::AfterCall(name) => {
            only_call(&flow, |i| is_call(name, i)).and_then(|call| next_emulated(&flow, call))
        }
    };
    let address = address.ok_or("no instruction is passed just once for it")?;
    let takes_any = binary.line_table().and_then(|t| t.argument_bytes(function.start)) != Some(0);
    let argument = passed.argument.filter(|_| takes_any);
    let place = argument.map_or(Place::None, |reg| argument_at(&flow, address, reg));
    site(binary, &function, &flow, address, (passed.purpose)(place)).ok_or("it is not in the file")
}

fn only_call(flow: &Flow, is_call: impl Fn(&Instruction) -> bool) -> Option<u64> {
    let mut calls = flow.reachable().filter(|i| is_call(i)).map(Instruction::ip);
    let call = calls.next()?;
    (calls.next().is_none() && !flow.reaches(call, call)).then_some(call)
}

/// The first emulated instruction that can only be come to from `address`, and surely is.
fn next_emulated(flow: &Flow, address: u64) -> Option<u64> {
    let after = flow.reachable().filter(|i| i.ip() > address);
    let found = after
        .take_while(|i| flow.dominates(address, i.ip()))
        .find(|i| alloc::cost_class(i) == CostClass::Emulated || i.flow_control() != FlowControl::Next)?;
    (alloc::cost_class(found) == CostClass::Emulated).then_some(found.ip())
}

/// Where an argument lies at an instruction.
fn argument_at(flow: &Flow, address: u64, reg: Reg) -> Place {
    flow.before(address).map_or(Place::None, |state| alloc::place(&state, Value::Arg(reg)))
}
