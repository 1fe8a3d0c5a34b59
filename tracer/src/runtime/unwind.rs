//! Unwinds a goroutine's stack as the runtime itself does: by gopclntab, not by frame
//! pointers, which assembly and C code may not keep.
//!
//! Source: runtime/traceback.go `unwinder` of Go 1.21 to 1.27, `gentraceback` of 1.19.

use std::collections::HashMap;

use crate::binary::LineTable;
use crate::memory::ProcessMemory;

/// Frames of one stack that are followed; Go's own limit of 1 GiB of stack allows more,
/// but such a stack repeats itself.
const MAX_FRAMES: usize = 10_000;

/// Read at once beyond what was read before, in bytes.
const WINDOW: usize = 64 << 10;

/// Where unwinding begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) pc: u64,
    pub(super) sp: u64,
    /// Saved at the entry to a system call or C code.
    pub(super) in_syscall: bool,
}

/// A stack's memory from the stack pointer up, more of it read when it is needed.
pub(super) struct StackBytes<'a, M> {
    pub(super) memory: &'a M,
    /// Address of the first byte of `bytes`.
    pub(super) start: u64,
    /// The end of the stack.
    pub(super) end: u64,
    pub(super) bytes: Vec<u8>,
}

impl<M: ProcessMemory> StackBytes<'_, M> {
    /// The word at `addr`, which lies at or behind those asked for before.
    fn word(&mut self, addr: u64) -> Option<u64> {
        if let Some(word) = self.held(addr) {
            return Some(word);
        }
        if addr < self.start || addr > self.end.checked_sub(8)? {
            return None;
        }
        let len = usize::try_from(self.end - addr).ok()?.min(WINDOW);
        self.bytes = self.memory.read_vec(addr, len).ok()?;
        self.start = addr;
        self.held(addr)
    }

    fn held(&self, addr: u64) -> Option<u64> {
        let at = usize::try_from(addr.checked_sub(self.start)?).ok()?;
        Some(u64::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?))
    }
}

/// One stack, innermost frame first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Stack {
    /// For each function that was not inlined, a run-time address inside the call it
    /// makes, where its source line is looked up: the return address less one.
    pub addresses: Vec<u64>,
    /// Whether it was followed to its outermost frame.
    pub is_whole: bool,
}

/// Unwinds the stacks of one program; knows each address after it was met once.
pub(super) struct Unwinder<'a> {
    table: &'a LineTable,
    load_bias: u64,
    steps: HashMap<u64, Option<Step>>,
}

/// What unwinding past a program counter takes.
#[derive(Debug, Clone, Copy)]
struct Step {
    is_entry: bool,
    /// From the stack pointer to the return address, in bytes; `None`: not unwound.
    delta: Option<u64>,
    is_outermost: bool,
    writes_sp: bool,
    /// Called where no call stands, by a signal or a debugger.
    is_injected: bool,
}

impl<'a> Unwinder<'a> {
    pub(super) fn new(table: &'a LineTable, load_bias: u64) -> Unwinder<'a> {
        Unwinder { table, load_bias, steps: HashMap::new() }
    }

    /// Total on any memory: the stack pointer only ever rises, and frames are limited.
    pub(super) fn unwind(&mut self, start: Start, stack: &mut StackBytes<'_, impl ProcessMemory>) -> Stack {
        let mut found = Stack::default();
        let (mut pc, mut sp) = (start.pc, start.sp);
        let mut after_injected = false;
        while found.addresses.len() < MAX_FRAMES {
            let Some(step) = self.step(pc) else { break };
            let Some(delta) = step.delta else { break };
            let is_innermost = found.addresses.is_empty();
            // Behind a trap, and where nothing has run yet, `pc` is not behind a call.
            let is_called = !after_injected && !step.is_entry;
            found.addresses.push(if is_called { pc.wrapping_sub(1) } else { pc });
            if step.is_outermost {
                found.is_whole = true;
                break;
            }
            // A system call's wrapper moves the stack only after it saved where it was.
            if step.writes_sp && !(is_innermost && start.in_syscall) {
                break;
            }
            let Some(return_at) = sp.checked_add(delta) else { break };
            let Some(return_pc) = stack.word(return_at) else { break };
            (pc, sp) = (return_pc, return_at.wrapping_add(8));
            after_injected = step.is_injected;
        }
        found
    }

    fn step(&mut self, pc: u64) -> Option<Step> {
        let (table, linked) = (self.table, pc.wrapping_sub(self.load_bias));
        *self.steps.entry(pc).or_insert_with(|| {
            let unwind = table.unwind(linked)?;
            Some(Step {
                is_entry: unwind.entry == linked,
                delta: unwind.sp_delta.and_then(|delta| u64::try_from(delta).ok()),
                is_outermost: unwind.is_outermost,
                // It keeps both stacks it switches between fit for unwinding.
                writes_sp: unwind.writes_sp && unwind.function != b"runtime.cgocallback",
                is_injected: INJECTED.contains(&unwind.function),
            })
        })
    }
}

/// runtime/traceback.go `isInjectedCall`.
const INJECTED: [&[u8]; 3] = [b"runtime.sigpanic", b"runtime.asyncPreempt", b"runtime.debugCallV2"];
