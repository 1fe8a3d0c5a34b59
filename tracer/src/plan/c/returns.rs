//! Where a call of a C function is over, and where its result is then.
//!
//! A return is single-stepped by the kernel, which is dear. So a branch before it is taken
//! instead where, whichever way it goes, all that is left to do is to return what is in rax.

use std::collections::{BTreeMap, HashSet};

use iced_x86::{
    Code, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};

use super::super::{CostClass, Place, alloc};
use super::{RAX, RDI, instructions};
use crate::binary::CLibrary;

/// Longer functions are none of an allocator's.
const MAX_INSTRUCTIONS: usize = 20_000;
/// From a branch to the returns behind it there are fewer.
const MAX_SETTLED: usize = 300;

/// How to read the result at an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) result: Place,
    /// By how many bytes the stack pointer is below where it was at the call.
    pub(super) depth: i64,
}

/// The instructions of which every call of a function comes to one, once its result is known:
/// of those that are come to behind it the eBPF program takes no notice. With `early` not only
/// its returns, and those of functions that it jumps to.
///
/// Of the functions that the loader chooses an implementation of, and that are jumped to by a
/// stub, an allocator may end with `memset` only, as `calloc` does: that returns its first
/// argument. Its own returns need no probe then.
pub(super) fn exits(
    library: &CLibrary,
    start: u64,
    early: bool,
) -> Result<BTreeMap<u64, Exit>, &'static str> {
    let mut info = InstructionInfoFactory::new();
    let (mut exits, mut seen, mut ways) = (BTreeMap::new(), HashSet::new(), vec![(start, Some(0_i64))]);
    while let Some((way, mut depth)) = ways.pop() {
        let mut call = Call::default();
        for instruction in instructions(library, way).ok_or("its code is not in the file")? {
            let ip = instruction.ip();
            if instruction.is_invalid() || !seen.insert(ip) {
                break;
            }
            if seen.len() > MAX_INSTRUCTIONS {
                return Err("it is too long");
            }
            if let Some(depth) = depth.filter(|_| early && is_branch(&instruction))
                && settles(library, &instruction)
            {
                exits.insert(ip, Exit { result: RAX, depth });
                break;
            }
            match instruction.flow_control() {
                FlowControl::ConditionalBranch => ways.push((instruction.near_branch_target(), depth)),
                FlowControl::UnconditionalBranch if is_stub(library, instruction.near_branch_target()) => {
                    exits.insert(ip, Exit { result: RDI, depth: 0 });
                    break;
                }
                FlowControl::UnconditionalBranch => {
                    ways.push((instruction.near_branch_target(), depth));
                    break;
                }
                FlowControl::IndirectBranch => return Err("where it jumps to is not known"),
                FlowControl::Return => {
                    exits.insert(ip, Exit { result: RAX, depth: 0 });
                    break;
                }
                FlowControl::Exception | FlowControl::Interrupt => break,
                _ if call.never_returns(library, &instruction) => break,
                _ => depth = depth.and_then(|depth| Some(depth + grown(&mut info, &instruction)?)),
            }
        }
    }
    Ok(exits)
}

/// Branches that the kernel emulates.
fn is_branch(instruction: &Instruction) -> bool {
    let branches = [FlowControl::ConditionalBranch, FlowControl::UnconditionalBranch];
    branches.contains(&instruction.flow_control()) && alloc::cost_class(instruction) == CostClass::Emulated
}

/// Whether behind a branch rax stays what it is until the function returns, or ends the program.
fn settles(library: &CLibrary, branch: &Instruction) -> bool {
    let mut info = InstructionInfoFactory::new();
    let (mut seen, mut returns) = (HashSet::new(), false);
    let mut ways = vec![branch.near_branch_target()];
    if branch.flow_control() == FlowControl::ConditionalBranch {
        ways.push(branch.next_ip());
    }
    while let Some(way) = ways.pop() {
        let Some(code) = instructions(library, way) else { return false };
        let mut call = Call::default();
        for instruction in code {
            if !seen.insert(instruction.ip()) {
                break;
            }
            let changes = instruction.is_invalid() || writes(&mut info, &instruction, Register::RAX);
            // What prepares a call that does not return does no harm.
            if changes && (instruction.is_invalid() || !call.ends_program(library, &instruction)) {
                return false;
            }
            match instruction.flow_control() {
                _ if seen.len() > MAX_SETTLED => return false,
                FlowControl::Return => {
                    returns = true;
                    break;
                }
                FlowControl::ConditionalBranch => ways.push(instruction.near_branch_target()),
                FlowControl::UnconditionalBranch => {
                    if is_stub(library, instruction.near_branch_target()) {
                        return false;
                    }
                    ways.push(instruction.near_branch_target());
                    break;
                }
                FlowControl::Exception | FlowControl::Interrupt => break,
                FlowControl::Call if call.never_returns(library, &instruction) => break,
                FlowControl::Next => {
                    call.never_returns(library, &instruction);
                }
                _ => return false,
            }
        }
    }
    returns
}

/// Instructions from where a call that does not return is prepared to that call, at most.
const MAX_PREPARED: usize = 8;

/// What precedes a call on the same way.
#[derive(Debug, Default, Clone)]
struct Call {
    /// The address of a constant was loaded into a register: of the text of a message.
    has_text: bool,
}

impl Call {
    /// Whether this is a call that does not return, as of `abort` with a message: nothing but
    /// padding follows it. Takes notice of what it is if not.
    fn never_returns(&mut self, library: &CLibrary, i: &Instruction) -> bool {
        if i.flow_control() != FlowControl::Call {
            let is_address = i.mnemonic() == Mnemonic::Lea && i.memory_base() == Register::RIP;
            self.has_text |= is_address;
            return false;
        }
        let next = instructions(library, i.next_ip()).and_then(|mut code| code.next());
        let is_padding = |next: Instruction| {
            let is_long_nop = next.mnemonic() == Mnemonic::Nop && next.len() > 1;
            next.is_invalid() || is_long_nop || next.code() == Code::Int3
        };
        std::mem::take(&mut self.has_text) && next.is_none_or(is_padding)
    }

    /// Whether the straight way from an instruction leads to such a call.
    fn ends_program(&self, library: &CLibrary, from: &Instruction) -> bool {
        let mut call = self.clone();
        let code = instructions(library, from.ip()).into_iter().flatten().take(MAX_PREPARED);
        let mut straight =
            code.take_while(|i| matches!(i.flow_control(), FlowControl::Next | FlowControl::Call));
        straight.find_map(|i| {
            let ends = call.never_returns(library, &i);
            (ends || i.flow_control() == FlowControl::Call).then_some(ends)
        }) == Some(true)
    }
}

/// By how much the instruction moves the stack pointer down; `None`: nobody knows.
fn grown(info: &mut InstructionInfoFactory, i: &Instruction) -> Option<i64> {
    let immediate = || match i.op1_kind() {
        OpKind::Immediate8to64 | OpKind::Immediate32to64 => Some(i.immediate(1) as i64),
        _ => None,
    };
    match i.mnemonic() {
        Mnemonic::Push | Mnemonic::Pop => Some(-i64::from(i.stack_pointer_increment())),
        Mnemonic::Sub if i.op0_register() == Register::RSP => immediate(),
        Mnemonic::Add if i.op0_register() == Register::RSP => immediate().map(|bytes| -bytes),
        _ if i.flow_control() == FlowControl::Call => Some(0),
        _ => (!writes(info, i, Register::RSP)).then_some(0),
    }
}

fn writes(info: &mut InstructionInfoFactory, i: &Instruction, register: Register) -> bool {
    info.info(i).used_registers().iter().any(|used| {
        let reads = matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
        !reads && used.register().full_register() == register
    })
}

/// Whether what is there only jumps to where the loader says (behind an `endbr64`, it may be).
fn is_stub(library: &CLibrary, address: u64) -> bool {
    let code = instructions(library, address).into_iter().flatten();
    code.take(2).any(|i| i.flow_control() == FlowControl::IndirectBranch)
}
