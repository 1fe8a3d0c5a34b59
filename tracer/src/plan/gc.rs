//! Sites that tell of garbage collections: when one starts and ends, what the runtime
//! recorded of it, and how long the world was stopped for whatever reason.
//!
//! Functions and arguments from runtime/mgc.go, mgcpacer.go and proc.go of Go 1.19 to 1.27.

use super::{Place, Purpose, Site, alloc, probed, site};
use crate::binary::flow::{Flow, RAX, RDI, Reg, Value};
use crate::binary::{Binary, Function};

/// A function that the runtime runs once for what is to be told, and what its lack costs.
struct Passed {
    function: &'static str,
    /// An argument worth reading, by the register it comes in if the function takes any.
    argument: Option<Reg>,
    /// The site is to stand behind the calls of this function.
    behind: Option<&'static str>,
    purpose: fn(Place) -> Purpose,
    without: &'static str,
}

/// Once a cycle each, and for all stops of the world together.
///
/// `gcMarkTermination` has recorded everything when it comes to print it, and holds the next
/// cycle up until it returns. Only `userForced` may be set for the next one meanwhile: so
/// that it is what the runtime prints, it is read right behind that, printed or not.
const PASSED: [Passed; 5] = [
    Passed {
        function: "runtime.gcSweep",
        argument: None,
        behind: None,
        purpose: |_| Purpose::GcEpoch,
        without: "GC cycles are not counted",
    },
    Passed {
        function: "runtime.(*gcControllerState).startCycle",
        argument: Some(RDI),
        behind: None,
        purpose: |trigger| Purpose::GcStart { trigger },
        without: "what triggered a GC cycle is not known",
    },
    Passed {
        function: "runtime.gcMarkTermination",
        argument: None,
        behind: Some("runtime.printlock"),
        purpose: |_| Purpose::GcRecord,
        without: NO_TIMELINE,
    },
    Passed {
        function: "runtime.stopTheWorldWithSema",
        argument: Some(RAX),
        behind: None,
        purpose: |reason| Purpose::StwBegin { reason },
        without: NO_STW,
    },
    Passed {
        function: "runtime.startTheWorldWithSema",
        argument: None,
        behind: None,
        purpose: |_| Purpose::StwEnd,
        without: NO_STW,
    },
];

/// What a capture lacks without the runtime's records of its cycles.
pub(super) const NO_TIMELINE: &str = "the GC timeline is missing";
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
    let address = match passed.behind {
        None => alloc::passage(&flow),
        Some(name) => alloc::passage_behind(&flow, |i| {
            i.is_call_near() && binary.name_at(i.near_branch_target()) == Some(name)
        }),
    };
    let address = address.ok_or("no instruction is run once by every call")?;
    let takes_any = binary.line_table().and_then(|t| t.argument_bytes(function.start)) != Some(0);
    let argument = passed.argument.filter(|_| takes_any);
    let place = argument.map_or(Place::None, |reg| argument_at(&flow, address, reg));
    site(binary, &function, &flow, address, (passed.purpose)(place)).ok_or("it is not in the file")
}

/// Where an argument lies at an instruction.
fn argument_at(flow: &Flow, address: u64, reg: Reg) -> Place {
    flow.before(address).map_or(Place::None, |state| alloc::place(&state, Value::Arg(reg)))
}
