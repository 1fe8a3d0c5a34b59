//! Type and size of an allocation from the machine code of its callers.
//!
//! From Go 1.27 compiled code calls size-specialised functions whose cheap site no longer
//! has size and type at hand; but the caller loaded them as constants, or was itself
//! handed them. So follow the argument registers up the stack, through the dataflow of
//! each caller, until a constant (or a generic function's read-only dictionary) is met.

use std::collections::HashMap;

use super::leaf;
use crate::binary::Binary;
use crate::binary::flow::{Flow, RAX, RBX, Reg, Value};

/// Callers looked at before giving up: the longest real chain is newobject's or
/// makeslice's, three deep; reflection adds a few.
const MAX_DEPTH: usize = 12;

/// Analysed functions kept; past it the cache starts anew.
const MAX_CACHED: usize = 512;

/// Answers by return address, for one executable.
pub struct CallSites<'a> {
    binary: &'a Binary,
    flows: HashMap<u64, Option<Flow>>,
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
    pub fn new(binary: &'a Binary) -> CallSites<'a> {
        CallSites { binary, flows: HashMap::new() }
    }

    /// What was passed to an allocation function with `mallocgc`'s arguments (size in rax,
    /// type in rbx), given its stack as link-time return addresses, innermost first.
    pub fn passed(&mut self, return_addresses: &[u64]) -> Passed {
        Passed { size: self.argument(return_addresses, RAX), type_addr: self.argument(return_addresses, RBX) }
    }

    fn argument(&mut self, return_addresses: &[u64], reg: Reg) -> Option<u64> {
        let mut reg = reg;
        // Memory reads still to be done once a base is known, outermost last.
        let mut fields = Vec::new();
        for pc in return_addresses.iter().take(MAX_DEPTH) {
            let base = match self.before_call(*pc, reg)? {
                Value::Arg(up) => {
                    reg = up;
                    continue;
                }
                Value::Field { arg, disp } => {
                    fields.push(disp);
                    reg = arg;
                    continue;
                }
                Value::Const(value) => value,
                Value::Global(address) => self.binary.read_only_u64(address)?,
                _ => return None,
            };
            return fields.iter().rev().try_fold(base, |base, disp| {
                self.binary.read_only_u64(base.wrapping_add_signed(i64::from(*disp)))
            });
        }
        None
    }

    fn before_call(&mut self, return_address: u64, reg: Reg) -> Option<Value> {
        let binary = self.binary;
        let function = binary.functions().ok()?.containing(return_address.checked_sub(1)?)?;
        if self.flows.len() > MAX_CACHED {
            self.flows.clear();
        }
        let flow =
            self.flows.entry(function.start).or_insert_with(|| analyse(binary, function.start, function.end));
        let flow = flow.as_ref()?;
        let call = flow.call_returning_to(return_address)?.ip();
        Some(flow.before(call)?.reg(reg))
    }
}

/// The dataflow of the function linked at `start..end`.
pub(super) fn analyse(binary: &Binary, start: u64, end: u64) -> Option<Flow> {
    let code = binary.read(start, usize::try_from(end.checked_sub(start)?).ok()?)?;
    let functions = binary.functions().ok()?;
    let no_return = |target: u64| functions.containing(target).is_some_and(|f| leaf::is_no_return(f.name));
    Flow::analyse(code, start, &no_return)
}
