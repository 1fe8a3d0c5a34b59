//! Locations, values, and what each location holds at one point of a function.

use std::collections::BTreeMap;

/// A general register by its x86-64 encoding number (0 rax, 1 rcx, 2 rdx, 3 rbx, …).
pub type Reg = u8;

pub const RAX: Reg = 0;
pub const RCX: Reg = 1;
pub const RBX: Reg = 3;
pub const RSP: Reg = 4;
pub const RBP: Reg = 5;
pub const RDI: Reg = 7;
/// Go keeps the current goroutine's `*g` here.
pub const R14: Reg = 14;

/// Where a value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Loc {
    Reg(Reg),
    /// Eight bytes at this offset from rsp on entry (0: the return address).
    Slot(i64),
}

/// What a location holds. Equal values are the same run-time value: of what an
/// instruction computes more than once, the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Value {
    /// What the register held on entry.
    Arg(Reg),
    Const(u64),
    /// rsp on entry plus this.
    Sp(i64),
    /// What the call at this address left in a register.
    Result {
        call: u64,
        reg: Reg,
    },
    /// Computed by the instruction at this address.
    Def {
        at: u64,
        reg: Reg,
    },
    /// Different values meet at this block.
    Phi {
        at: u64,
        loc: Loc,
    },
    /// The u64 that the instruction at `at` read at an argument plus a displacement, as a
    /// generic function reads its dictionary.
    Field {
        at: u64,
        arg: Reg,
        disp: i32,
    },
    /// The u64 that the instruction at `at` read at a link-time address.
    Global {
        at: u64,
        address: u64,
    },
}

/// Slots followed at a time. Functions that spill more lose track of the rest.
const MAX_SLOTS: usize = 128;

/// Frames are smaller: Go's stacks end at 1 GB (runtime/proc.go `maxstacksize`).
const MAX_FRAME: i64 = 1 << 30;

/// The stack address `by` beyond `at`, both relative to rsp on entry.
pub(super) fn stack_address(at: i64, by: i64) -> Option<i64> {
    at.checked_add(by).filter(|sum| sum.abs() < MAX_FRAME)
}

/// Stack memory that may change without the function naming it: what lies from an
/// address that was put into a register upwards. A variable never spans the return
/// address, so the function's own frame and its caller's are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Escaped {
    /// Lowest such address in the frame; `i64::MAX` for none.
    local: i64,
    /// Likewise in the caller's, where it left room for arguments.
    incoming: i64,
}

impl Escaped {
    pub(super) const NOTHING: Escaped = Escaped { local: i64::MAX, incoming: i64::MAX };
    pub(super) const EVERYTHING: Escaped = Escaped { local: i64::MIN, incoming: i64::MIN };

    pub(super) fn add(&mut self, at: i64) {
        let lowest = if at < 0 { &mut self.local } else { &mut self.incoming };
        *lowest = at.min(*lowest);
    }

    /// As `add`, where the address may also lie below `at`.
    pub(super) fn add_around(&mut self, at: i64) {
        self.add(if at < 0 { i64::MIN } else { 0 });
    }

    fn holds(&self, slot: i64) -> bool {
        let lowest = if slot < 0 { self.local } else { self.incoming };
        slot.saturating_add(7) >= lowest
    }
}

/// What every location holds at one point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub(super) regs: [Value; 16],
    /// Empty while rsp is not known relative to its value on entry.
    pub(super) slots: BTreeMap<i64, Value>,
}

impl State {
    pub(super) fn entry() -> State {
        let mut regs = [Value::Sp(0); 16];
        for (value, reg) in regs.iter_mut().zip(0..).filter(|(_, reg)| *reg != RSP) {
            *value = Value::Arg(reg);
        }
        State { regs, slots: BTreeMap::new() }
    }

    pub fn reg(&self, reg: Reg) -> Value {
        self.regs[reg as usize & 15]
    }

    /// Every location that holds `value`, registers first.
    pub fn locations(&self, value: Value) -> impl Iterator<Item = Loc> + '_ {
        let regs = (0..16u8).filter(move |r| self.reg(*r) == value).map(Loc::Reg);
        let slots = self.slots.iter().filter(move |(_, v)| **v == value).map(|(o, _)| Loc::Slot(*o));
        regs.chain(slots)
    }

    /// Locations with a value.
    pub(super) fn size(&self) -> usize {
        self.regs.len() + self.slots.len()
    }

    pub(super) fn get(&self, loc: Loc) -> Option<Value> {
        match loc {
            Loc::Reg(r) => Some(self.reg(r)),
            Loc::Slot(o) => self.slots.get(&o).copied(),
        }
    }

    pub(super) fn set_reg(&mut self, reg: Reg, value: Value) {
        self.regs[reg as usize & 15] = value;
        if reg == RSP {
            self.drop_below_rsp();
        }
    }

    /// Memory below rsp belongs to signal handlers and callees; where rsp is not known,
    /// no slot is.
    pub(super) fn drop_below_rsp(&mut self) {
        match self.reg(RSP) {
            Value::Sp(rsp) => self.slots.retain(|o, _| *o >= rsp),
            _ => self.slots.clear(),
        }
    }

    /// rsp relative to its value on entry.
    pub(super) fn rsp(&self) -> Option<i64> {
        match self.reg(RSP) {
            Value::Sp(rsp) => Some(rsp),
            _ => None,
        }
    }

    /// Notes that `len` bytes at `at` now hold `value`, or something unknown.
    pub(super) fn store(&mut self, at: i64, len: i64, value: Option<Value>, escaped: &Escaped) {
        let dead: Vec<i64> =
            self.slots.range(at.saturating_sub(7)..at.saturating_add(len)).map(|(o, _)| *o).collect();
        for o in dead {
            self.slots.remove(&o);
        }
        let Some(value) = value.filter(|_| len == 8) else { return };
        let followed = self.rsp().is_some_and(|rsp| at >= rsp) && self.slots.len() < MAX_SLOTS;
        if followed && (is_saved_frame_pointer(at, value) || !escaped.holds(at)) {
            self.slots.insert(at, value);
        }
    }

    /// Forgets what a write to somewhere around `at` may have changed.
    pub(super) fn forget_around(&mut self, at: i64) {
        self.slots.retain(|o, v| (*o < 0) != (at < 0) || is_saved_frame_pointer(*o, *v));
    }

    /// Forgets what a callee may have changed: the `bytes` above rsp that hold its
    /// arguments and results, or any of the frame where their number is not known.
    pub(super) fn forget_outgoing(&mut self, bytes: Option<u32>) {
        match (self.rsp(), bytes) {
            (Some(rsp), Some(bytes)) => self.slots.retain(|o, _| *o >= rsp + i64::from(bytes)),
            _ => self.forget_around(-1),
        }
    }

    /// What holds at `at`, where the states `arriving` meet; `None` if there are none.
    pub(super) fn merge(at: u64, arriving: &[&State]) -> Option<State> {
        let (first, rest) = arriving.split_first()?;
        let mut merged = State::clone(first);
        if rest.is_empty() {
            return Some(merged);
        }
        for (reg, value) in (0..).zip(&mut merged.regs) {
            *value = meet(at, Loc::Reg(reg), arriving.iter().map(|state| state.reg(reg)));
        }
        merged.slots.retain(|offset, _| rest.iter().all(|state| state.slots.contains_key(offset)));
        for (offset, value) in &mut merged.slots {
            *value =
                meet(at, Loc::Slot(*offset), arriving.iter().filter_map(|s| s.slots.get(offset).copied()));
        }
        merged.drop_below_rsp();
        Some(merged)
    }

    /// Gives up on what has changed since `before`, an earlier state at the same `at`: a
    /// value with a name of its own is always right.
    pub(super) fn widen(&mut self, at: u64, before: &State) {
        for ((reg, value), old) in (0..).zip(&mut self.regs).zip(&before.regs) {
            if value != old {
                *value = Value::Phi { at, loc: Loc::Reg(reg) };
            }
        }
        self.slots.retain(|offset, _| before.slots.contains_key(offset));
        for (offset, value) in &mut self.slots {
            if before.slots.get(offset) != Some(value) {
                *value = Value::Phi { at, loc: Loc::Slot(*offset) };
            }
        }
        self.drop_below_rsp();
    }
}

/// The one value of all, else a new one. Where it is the new one itself that arrives,
/// the location has not changed on the way round a loop.
fn meet(at: u64, loc: Loc, values: impl Iterator<Item = Value>) -> Value {
    let phi = Value::Phi { at, loc };
    let mut others = values.filter(|v| *v != phi);
    match others.next() {
        Some(first) if others.all(|v| v == first) => first,
        _ => phi,
    }
}

/// Whether a slot holds the caller's frame pointer: no variable lies there.
fn is_saved_frame_pointer(slot: i64, value: Value) -> bool {
    slot == -8 && value == Value::Arg(RBP)
}
