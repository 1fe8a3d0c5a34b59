//! Type and size of an allocation from the machine code of its callers.
//!
//! From Go 1.27 compiled code calls size-specialised functions whose cheap site no longer
//! has size and type at hand; but the caller loaded them as constants, or was itself
//! handed them. So follow the argument registers up the stack, through the dataflow of
//! each caller, until a constant (or a generic function's read-only dictionary) is met.

use std::collections::HashMap;

use iced_x86::Instruction;

use super::leaf;
use crate::binary::flow::{Flow, Program, RAX, RBX, Reg, Value};
use crate::binary::{Binary, Function};

/// Callers looked at before giving up: the longest real chain is newobject's or
/// makeslice's, three deep; reflection adds a few.
const MAX_DEPTH: usize = 12;

/// Analysed functions kept; past it the cache starts anew.
const MAX_CACHED: usize = 512;

/// Answers by return address, for one executable.
pub struct CallSites<'a> {
    binary: &'a Binary,
    variable: Box<dyn Fn(u64) -> Option<u64> + 'a>,
    flows: HashMap<u64, Option<Flow<'a>>>,
}

/// What the callers' code says of an allocation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// Bytes asked for, when a constant.
    pub size: Option<u64>,
    /// Link-time address of the `*_type`, 0 for untyped memory, when a constant.
    pub type_addr: Option<u64>,
}

impl<'a> CallSites<'a> {
    /// `variable` reads the pointer that the running program has at a link-time address;
    /// as a link-time address too, and `None` while it is nil.
    pub fn new(binary: &'a Binary, variable: impl Fn(u64) -> Option<u64> + 'a) -> CallSites<'a> {
        CallSites { binary, variable: Box::new(variable), flows: HashMap::new() }
    }

    /// What was passed to an allocation function with `mallocgc`'s arguments (size in rax,
    /// type in rbx), given its stack as link-time return addresses, innermost first.
    pub fn passed(&mut self, return_addresses: &[u64]) -> Passed {
        let mut chain = Chain {
            sites: self,
            stack: &return_addresses[..return_addresses.len().min(MAX_DEPTH)],
            known: HashMap::new(),
        };
        Passed { size: chain.argument(0, RAX), type_addr: chain.argument(0, RBX) }
    }

    /// The same, given a stack that was taken further in, where the allocation function has
    /// its object sampled.
    pub fn passed_before_sampling(&mut self, return_addresses: &[u64]) -> Passed {
        let within = |pc: &u64| holding(self.binary, *pc).is_some_and(|f| leaf::is_probed(f.name));
        // The profiler's own stacks do not always reach in that far.
        let outside = return_addresses.iter().take(MAX_DEPTH).position(within).map_or(0, |n| n + 1);
        self.passed(&return_addresses[outside..])
    }

    /// The return address that the runtime has left out of a stack of its heap profile, whose
    /// innermost one is given; `None`: it has not, or it is not known.
    ///
    /// Up to Go 1.25 it leaves out the allocation function and the one that has called it
    /// (runtime/mprof.go `mProf_Malloc`). Where that one makes several such calls, the address
    /// given tells nothing but the function.
    pub fn left_out(&mut self, return_address: u64) -> Option<u64> {
        let binary = self.binary;
        let caller = holding(binary, return_address).filter(|caller| !leaf::is_probed(caller.name))?;
        let call = self.flow(&caller)?.call_returning_to(return_address)?;
        let target = call.is_call_near().then(|| call.near_branch_target())?;
        let left_out = binary.functions().ok()?.containing(target)?;
        if leaf::is_probed(left_out.name) {
            return None;
        }
        let allocates = |call: &&Instruction| {
            call.is_call_near() && binary.name_at(call.near_branch_target()).is_some_and(leaf::is_probed)
        };
        let mut calls = self.flow(&left_out)?.reachable().filter(allocates).map(Instruction::next_ip);
        match (calls.next()?, calls.next()) {
            (only, None) => Some(only),
            _ => Some(left_out.start + 1),
        }
    }

    fn flow(&mut self, function: &Function<'_>) -> Option<&Flow<'a>> {
        let binary = self.binary;
        if self.flows.len() > MAX_CACHED {
            self.flows.clear();
        }
        self.flows.entry(function.start).or_insert_with(|| analyse(binary, function)).as_ref()
    }
}

/// One stack, and what has been found out on the way up.
struct Chain<'s, 'a> {
    sites: &'s mut CallSites<'a>,
    stack: &'s [u64],
    known: HashMap<(usize, Reg), Option<u64>>,
}

impl Chain<'_, '_> {
    /// What the `depth`-th call of the stack passes in `reg`, when a constant.
    fn argument(&mut self, depth: usize, reg: Reg) -> Option<u64> {
        if let Some(known) = self.known.get(&(depth, reg)) {
            return *known;
        }
        let value = self.find(depth, reg);
        self.known.insert((depth, reg), value);
        value
    }

    fn find(&mut self, depth: usize, reg: Reg) -> Option<u64> {
        let mut values = self.origins(depth, reg)?.into_iter().map(|origin| self.constant(depth, origin));
        let first = values.next()??;
        values.all(|value| value == Some(first)).then_some(first)
    }

    /// The run-time value of what the function that makes the `depth`-th call holds.
    fn constant(&mut self, depth: usize, value: Value) -> Option<u64> {
        let binary = self.sites.binary;
        match value {
            Value::Const(value) => Some(value),
            Value::Global { address, .. } if self.boxes(depth) => (self.sites.variable)(address),
            Value::Global { address, .. } => binary.read_only_u64(address),
            Value::Arg(reg) => self.argument(depth + 1, reg),
            Value::Field { arg, disp, .. } => {
                let base = self.argument(depth + 1, arg)?;
                binary.read_only_u64(base.wrapping_add_signed(i64::from(disp)))
            }
            _ => None,
        }
    }

    /// Whether the `depth`-th call is made by a function that puts a number, string or
    /// slice into an interface: these read the type from a variable that is set once,
    /// before the program starts (runtime/iface.go `uint64Type` and others).
    fn boxes(&self, depth: usize) -> bool {
        let caller = self.stack.get(depth).and_then(|pc| holding(self.sites.binary, *pc));
        caller.is_some_and(|f| f.name.starts_with("runtime.convT"))
    }

    /// What `reg` can hold at the `depth`-th call.
    fn origins(&mut self, depth: usize, reg: Reg) -> Option<Vec<Value>> {
        let return_address = *self.stack.get(depth)?;
        let caller = holding(self.sites.binary, return_address)?;
        let callee = match depth.checked_sub(1) {
            None => None,
            Some(inner) => Some(holding(self.sites.binary, self.stack[inner])?),
        };
        let binary = self.sites.binary;
        let flow = self.sites.flow(&caller)?;
        let call = flow.call_returning_to(return_address)?;
        let target = call.is_call_near().then(|| call.near_branch_target());
        // A function in between that only jumps on may have changed the arguments.
        let calls_it = match (target, callee) {
            (Some(target), Some(callee)) => target == callee.start,
            (Some(target), None) => binary.name_at(target).is_some_and(leaf::is_probed),
            (None, callee) => callee.is_none() && leaf::is_probed(caller.name),
        };
        calls_it.then(|| flow.origins(flow.before(call.ip())?.reg(reg)))?
    }
}

/// The function that made the call which returns to this address.
fn holding(binary: &Binary, return_address: u64) -> Option<Function<'_>> {
    binary.functions().ok()?.containing(return_address.checked_sub(1)?)
}

/// The dataflow of a function.
pub(super) fn analyse<'a>(binary: &'a Binary, function: &Function<'_>) -> Option<Flow<'a>> {
    let len = usize::try_from(function.end.checked_sub(function.start)?).ok()?;
    Flow::analyse(binary.read(function.start, len)?, function.start, binary)
}

impl Program for Binary {
    fn never_returns(&self, target: u64) -> bool {
        self.name_at(target).is_some_and(leaf::is_no_return)
    }

    fn argument_bytes(&self, target: u64) -> Option<u32> {
        self.line_table()?.argument_bytes(target)
    }

    fn read_only_u64(&self, address: u64) -> Option<u64> {
        Binary::read_only_u64(self, address)
    }
}
