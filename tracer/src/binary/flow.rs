//! Forward dataflow over one function's x86-64 code: what each register and stack slot holds.
//!
//! Written for the code Go's compiler emits (ABIInternal since Go 1.17,
//! cmd/compile/abi-internal.md): every general register but rsp, rbp and r14 is
//! clobbered by a call, stack slots of the frame are not. Stores through pointers that
//! are not derived from rsp are taken not to reach the frame; slots whose address is
//! taken are never trusted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, MemorySize, Mnemonic,
    OpAccess, OpKind, Register,
};

/// A general register by its x86-64 encoding number (0 rax, 1 rcx, 2 rdx, 3 rbx, …).
pub type Reg = u8;

pub const RAX: Reg = 0;
pub const RBX: Reg = 3;
pub const RSP: Reg = 4;
pub const RBP: Reg = 5;
/// Go keeps the current goroutine's `*g` here.
pub const R14: Reg = 14;

/// Where a value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Loc {
    Reg(Reg),
    /// Eight bytes at this offset from rsp on entry (0: the return address).
    Slot(i64),
}

/// What a location holds. Equal values are the same run-time value.
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
    /// The u64 at an argument plus a displacement, as a generic function reads its dictionary.
    Field {
        arg: Reg,
        disp: i32,
    },
    /// The u64 at a link-time address.
    Global(u64),
}

/// What every location holds at one point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    regs: [Value; 16],
    slots: BTreeMap<i64, Value>,
}

impl State {
    fn entry() -> State {
        let mut regs = [Value::Const(0); 16];
        for (r, v) in regs.iter_mut().enumerate() {
            *v = Value::Arg(r as Reg);
        }
        regs[RSP as usize] = Value::Sp(0);
        State { regs, slots: BTreeMap::new() }
    }

    pub fn reg(&self, reg: Reg) -> Value {
        self.regs[reg as usize & 15]
    }

    /// Every location that holds `value`, registers first.
    pub fn locations(&self, value: Value) -> impl Iterator<Item = Loc> + '_ {
        let regs = (0..16u8).filter(move |r| self.regs[*r as usize] == value).map(Loc::Reg);
        let slots = self.slots.iter().filter(move |(_, v)| **v == value).map(|(o, _)| Loc::Slot(*o));
        regs.chain(slots)
    }

    fn get(&self, loc: Loc) -> Option<Value> {
        match loc {
            Loc::Reg(r) => Some(self.reg(r)),
            Loc::Slot(o) => self.slots.get(&o).copied(),
        }
    }

    fn set_reg(&mut self, reg: Reg, value: Value) {
        self.regs[reg as usize & 15] = value;
    }

    fn kill_slots(&mut self, at: i64, len: i64) {
        let dead: Vec<i64> =
            self.slots.range(at.saturating_sub(7)..at.saturating_add(len)).map(|(o, _)| *o).collect();
        for o in dead {
            self.slots.remove(&o);
        }
    }
}

/// A straight run of instructions, by index into `Flow::instructions`.
#[derive(Debug, Clone)]
struct Block {
    first: usize,
    last: usize,
    successors: Vec<usize>,
    predecessors: Vec<usize>,
}

/// One function, analysed.
pub struct Flow {
    instructions: Vec<Instruction>,
    blocks: Vec<Block>,
    entry_states: Vec<Option<State>>,
    taken: BTreeSet<i64>,
}

/// Longest function analysed, in bytes: generated code past this is left alone.
const MAX_CODE: usize = 1 << 20;

/// Passes over the blocks after which an analysis that has not settled is given up.
const MAX_PASSES: usize = 64;

impl Flow {
    /// Analyses `code`, the bytes of one function linked at `start`.
    ///
    /// `no_return` says whether a direct call to an address never comes back
    /// (`runtime.throw`, `runtime.morestack`, …): what follows is not its successor.
    /// `None` when the code is too long or the analysis does not settle.
    pub fn analyse(code: &[u8], start: u64, no_return: &dyn Fn(u64) -> bool) -> Option<Flow> {
        if code.len() > MAX_CODE {
            return None;
        }
        let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
        let mut instructions = Vec::with_capacity(code.len() / 4);
        while decoder.can_decode() {
            instructions.push(decoder.decode());
        }
        if instructions.is_empty() {
            return None;
        }
        let blocks = blocks(&instructions, no_return);
        let entry_states = vec![None; blocks.len()];
        let mut flow = Flow { instructions, blocks, entry_states, taken: BTreeSet::new() };
        flow.settle().then_some(flow)
    }

    /// The instructions that can be reached, in address order.
    pub fn reachable(&self) -> impl Iterator<Item = &Instruction> {
        self.blocks
            .iter()
            .zip(&self.entry_states)
            .filter(|(_, state)| state.is_some())
            .flat_map(|(block, _)| &self.instructions[block.first..=block.last])
    }

    /// What everything holds just before the instruction at `address` runs.
    pub fn before(&self, address: u64) -> Option<State> {
        let index = self.index(address)?;
        let block = self.block_of(index);
        let mut state = self.entry_states[block].clone()?;
        let mut step = Step::new(&self.taken);
        for instruction in &self.instructions[self.blocks[block].first..index] {
            step.apply(instruction, &mut state);
        }
        Some(state)
    }

    /// The call whose return address is `address`.
    pub fn call_returning_to(&self, address: u64) -> Option<&Instruction> {
        let after = self.instructions.partition_point(|i| i.next_ip() < address);
        self.instructions.get(after).filter(|i| {
            i.next_ip() == address
                && matches!(i.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
        })
    }

    pub fn instruction(&self, address: u64) -> Option<&Instruction> {
        self.index(address).map(|i| &self.instructions[i])
    }

    /// The values that can arrive in `value` through merges; itself when it is no merge.
    pub fn origins(&self, value: Value) -> Vec<Value> {
        let mut seen = Vec::new();
        let mut pending = vec![value];
        while let Some(v) = pending.pop() {
            if seen.contains(&v) || seen.len() > 256 {
                continue;
            }
            seen.push(v);
            if let Value::Phi { at, loc } = v {
                pending.extend(self.arriving(at, loc));
            }
        }
        seen.retain(|v| !matches!(v, Value::Phi { .. }));
        seen
    }

    fn arriving(&self, at: u64, loc: Loc) -> Vec<Value> {
        let Some(block) = self.index(at).map(|i| self.block_of(i)) else { return Vec::new() };
        let exits = self.blocks[block].predecessors.iter().filter_map(|p| self.exit_state(*p));
        exits.filter_map(|state| state.get(loc)).collect()
    }

    /// Whether every path from the function's entry to `to` passes `through`.
    pub fn dominates(&self, through: u64, to: u64) -> bool {
        let (Some(a), Some(b)) = (self.index(through), self.index(to)) else { return false };
        let (ba, bb) = (self.block_of(a), self.block_of(b));
        if ba == bb {
            return a <= b;
        }
        ba == 0 || !self.walk(0, Some(ba)).contains(&bb)
    }

    /// Whether control can come from `from` (having run) to `to`.
    pub fn reaches(&self, from: u64, to: u64) -> bool {
        let (Some(a), Some(b)) = (self.index(from), self.index(to)) else { return false };
        let (ba, bb) = (self.block_of(a), self.block_of(b));
        (ba == bb && a < b) || self.blocks[ba].successors.iter().any(|s| self.walk(*s, None).contains(&bb))
    }

    /// Blocks that can be reached from `from` without entering `avoiding`.
    fn walk(&self, from: usize, avoiding: Option<usize>) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let mut pending = vec![from];
        while let Some(b) = pending.pop() {
            if Some(b) != avoiding && seen.insert(b) {
                pending.extend(&self.blocks[b].successors);
            }
        }
        seen
    }

    fn index(&self, address: u64) -> Option<usize> {
        self.instructions.binary_search_by_key(&address, Instruction::ip).ok()
    }

    fn block_of(&self, index: usize) -> usize {
        self.blocks.partition_point(|b| b.last < index)
    }

    fn exit_state(&self, block: usize) -> Option<State> {
        let mut state = self.entry_states[block].clone()?;
        let mut step = Step::new(&self.taken);
        for instruction in &self.instructions[self.blocks[block].first..=self.blocks[block].last] {
            step.apply(instruction, &mut state);
        }
        Some(state)
    }

    /// Iterates to a fixed point; false when there is none within `MAX_PASSES`.
    fn settle(&mut self) -> bool {
        let mut exits: Vec<Option<State>> = vec![None; self.blocks.len()];
        for _ in 0..MAX_PASSES {
            let mut changed = false;
            for b in 0..self.blocks.len() {
                let entry = self.merge(b, &exits);
                if entry.is_none() || entry == self.entry_states[b] {
                    continue;
                }
                changed = true;
                self.entry_states[b] = entry;
                self.take_addresses(b);
                exits[b] = self.exit_state(b);
            }
            if !changed {
                return true;
            }
        }
        false
    }

    fn merge(&self, block: usize, exits: &[Option<State>]) -> Option<State> {
        let at = self.instructions[self.blocks[block].first].ip();
        let mut arriving = self.blocks[block].predecessors.iter().filter_map(|p| exits[*p].as_ref());
        let mut merged = if block == 0 { State::entry() } else { arriving.next()?.clone() };
        for state in arriving {
            for r in 0..16 {
                if merged.regs[r] != state.regs[r] {
                    merged.regs[r] = Value::Phi { at, loc: Loc::Reg(r as Reg) };
                }
            }
            merged.slots.retain(|o, _| state.slots.contains_key(o));
            for (o, v) in &mut merged.slots {
                if state.slots.get(o) != Some(v) {
                    *v = Value::Phi { at, loc: Loc::Slot(*o) };
                }
            }
        }
        Some(merged)
    }

    /// Notes the stack slots whose address this block puts into a register other than rsp, rbp.
    fn take_addresses(&mut self, block: usize) {
        let Some(mut state) = self.entry_states[block].clone() else { return };
        let mut step = Step::new(&self.taken);
        let mut found = Vec::new();
        for i in &self.instructions[self.blocks[block].first..=self.blocks[block].last] {
            step.apply(i, &mut state);
            if i.mnemonic() == Mnemonic::Lea
                && let Some(reg) = gpr(i.op0_register())
                && reg != RSP
                && reg != RBP
                && let Value::Sp(offset) = state.reg(reg)
            {
                found.push(offset);
            }
        }
        self.taken.extend(found);
    }
}

/// The transfer function of one instruction.
struct Step<'a> {
    taken: &'a BTreeSet<i64>,
    info: InstructionInfoFactory,
}

impl<'a> Step<'a> {
    fn new(taken: &'a BTreeSet<i64>) -> Step<'a> {
        Step { taken, info: InstructionInfoFactory::new() }
    }

    fn apply(&mut self, i: &Instruction, state: &mut State) {
        match i.flow_control() {
            FlowControl::Call | FlowControl::IndirectCall => return call(i, state),
            FlowControl::Next => {}
            _ => return,
        }
        match i.mnemonic() {
            Mnemonic::Push => self.push(i, state),
            Mnemonic::Pop => pop(i, state),
            Mnemonic::Mov if moves_a_word(i) => self.mov(i, state),
            Mnemonic::Lea => lea(i, state),
            Mnemonic::Xor if i.op0_kind() == OpKind::Register && i.op0_register() == i.op1_register() => {
                if let Some(reg) = gpr(i.op0_register()) {
                    state.set_reg(reg, Value::Const(0));
                }
            }
            Mnemonic::Add | Mnemonic::Sub if i.op0_register() == Register::RSP => shift_rsp(i, state),
            _ => self.other(i, state),
        }
    }

    fn push(&mut self, i: &Instruction, state: &mut State) {
        let value = gpr(i.op0_register()).map(|r| state.reg(r));
        let Value::Sp(rsp) = state.reg(RSP) else { return };
        state.set_reg(RSP, Value::Sp(rsp - 8));
        self.store(state, rsp - 8, 8, value);
    }

    fn mov(&mut self, i: &Instruction, state: &mut State) {
        let source = match i.op1_kind() {
            OpKind::Register => gpr(i.op1_register()).map(|r| narrow(i, state.reg(r))),
            OpKind::Memory => Some(load(i, state)),
            _ => Some(Value::Const(immediate(i))),
        };
        if i.op0_kind() == OpKind::Memory {
            if let Some(Value::Sp(at)) = address(i, state) {
                self.store(state, at, i.memory_size().size() as i64, source);
            }
        } else if let Some(reg) = gpr(i.op0_register()) {
            state.set_reg(reg, source.unwrap_or(Value::Def { at: i.ip(), reg }));
        }
    }

    fn store(&mut self, state: &mut State, at: i64, len: i64, value: Option<Value>) {
        state.kill_slots(at, len);
        if len == 8
            && let Some(value) = value
            && !self.taken.contains(&at)
        {
            state.slots.insert(at, value);
        }
    }

    /// Any other instruction: whatever it writes holds something new.
    fn other(&mut self, i: &Instruction, state: &mut State) {
        let info = self.info.info(i);
        for used in info.used_registers() {
            if writes(used.access())
                && let Some(reg) = gpr(used.register())
            {
                state.set_reg(reg, Value::Def { at: i.ip(), reg });
            }
        }
        for used in info.used_memory() {
            if writes(used.access())
                && let Some(base) = gpr(used.base())
                && let Value::Sp(at) = state.reg(base)
            {
                let known = used.index() == Register::None;
                let len = if known { used.memory_size().size().max(1) as i64 } else { i64::MAX / 4 };
                state.kill_slots(at.wrapping_add(used.displacement() as i64), len);
            }
        }
    }
}

fn call(i: &Instruction, state: &mut State) {
    for reg in 0..16u8 {
        if !matches!(reg, RSP | RBP | R14) {
            state.set_reg(reg, Value::Result { call: i.ip(), reg });
        }
    }
}

fn pop(i: &Instruction, state: &mut State) {
    let Value::Sp(rsp) = state.reg(RSP) else { return };
    state.set_reg(RSP, Value::Sp(rsp + 8));
    if let Some(reg) = gpr(i.op0_register()) {
        let value = state.slots.get(&rsp).copied();
        state.set_reg(reg, value.unwrap_or(Value::Def { at: i.ip(), reg }));
    }
}

fn lea(i: &Instruction, state: &mut State) {
    let Some(reg) = gpr(i.op0_register()) else { return };
    let value = match address(i, state) {
        Some(v @ (Value::Sp(_) | Value::Const(_))) if i.op0_register().size() == 8 => v,
        _ => Value::Def { at: i.ip(), reg },
    };
    state.set_reg(reg, value);
}

fn shift_rsp(i: &Instruction, state: &mut State) {
    let by = if i.op1_kind() == OpKind::Register { None } else { Some(immediate(i) as i64) };
    let value = match (state.reg(RSP), by) {
        (Value::Sp(at), Some(by)) if i.mnemonic() == Mnemonic::Add => Value::Sp(at.wrapping_add(by)),
        (Value::Sp(at), Some(by)) => Value::Sp(at.wrapping_sub(by)),
        _ => Value::Def { at: i.ip(), reg: RSP },
    };
    state.set_reg(RSP, value);
}

/// The value an 8- or 4-byte `mov` loads from memory.
fn load(i: &Instruction, state: &State) -> Value {
    let unknown = Value::Def { at: i.ip(), reg: gpr(i.op0_register()).unwrap_or(0) };
    if i.memory_size() != MemorySize::UInt64 {
        return unknown;
    }
    match address(i, state) {
        Some(Value::Sp(at)) => state.slots.get(&at).copied().unwrap_or(unknown),
        Some(Value::Const(at)) => Value::Global(at),
        Some(Value::Field { arg, disp }) => Value::Field { arg, disp },
        _ => unknown,
    }
}

/// The address of the memory operand: a stack or link-time address, or (as `Field`,
/// not yet loaded) an argument plus displacement.
fn address(i: &Instruction, state: &State) -> Option<Value> {
    if i.memory_index() != Register::None || i.segment_prefix() != Register::None {
        return None;
    }
    let disp = i.memory_displacement64();
    if i.is_ip_rel_memory_operand() {
        return Some(Value::Const(i.ip_rel_memory_address()));
    }
    match state.reg(gpr(i.memory_base())?) {
        Value::Sp(at) => Some(Value::Sp(at.wrapping_add(disp as i64))),
        Value::Const(at) => Some(Value::Const(at.wrapping_add(disp))),
        Value::Arg(arg) => Some(Value::Field { arg, disp: disp as i32 }),
        _ => None,
    }
}

/// What a register move of the instruction's width keeps of a value.
fn narrow(i: &Instruction, value: Value) -> Value {
    match (i.op0_register().size(), value) {
        (8, v) => v,
        (4, Value::Const(c)) => Value::Const(c & 0xffff_ffff),
        _ if i.op0_kind() == OpKind::Memory => value,
        _ => Value::Def { at: i.ip(), reg: gpr(i.op0_register()).unwrap_or(0) },
    }
}

/// Whether a `mov` moves four or eight bytes between general registers, memory and
/// immediates; narrower ones merge with what was there.
fn moves_a_word(i: &Instruction) -> bool {
    match i.op0_kind() {
        OpKind::Register => {
            matches!(i.op0_register().size(), 4 | 8)
                && gpr(i.op0_register()).is_some()
                && (i.op1_kind() != OpKind::Register || gpr(i.op1_register()).is_some())
        }
        OpKind::Memory => i.memory_size().size() == 8 || i.op1_kind() != OpKind::Register,
        _ => false,
    }
}

fn immediate(i: &Instruction) -> u64 {
    match i.op1_kind() {
        OpKind::Immediate8to64 => i.immediate8to64() as u64,
        OpKind::Immediate32to64 => i.immediate32to64() as u64,
        _ => i.immediate(1),
    }
}

fn writes(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

/// The number of a general register of any width, `None` for others.
fn gpr(register: Register) -> Option<Reg> {
    (register.is_gpr()).then(|| register.full_register().number() as Reg)
}

fn blocks(instructions: &[Instruction], no_return: &dyn Fn(u64) -> bool) -> Vec<Block> {
    let position: HashMap<u64, usize> = instructions.iter().enumerate().map(|(n, i)| (i.ip(), n)).collect();
    let mut leaders = BTreeSet::from([0]);
    let mut dispatches = false;
    for (n, i) in instructions.iter().enumerate() {
        if let Some(target) = jump_target(i).and_then(|t| position.get(&t)) {
            leaders.insert(*target);
        }
        dispatches |= i.flow_control() == FlowControl::IndirectBranch;
        if ends_block(i, no_return) && n + 1 < instructions.len() {
            leaders.insert(n + 1);
        }
    }
    let firsts: Vec<usize> = leaders.into_iter().collect();
    let lasts = firsts.iter().skip(1).map(|n| n - 1).chain([instructions.len() - 1]);
    let mut blocks: Vec<Block> = firsts
        .iter()
        .zip(lasts)
        .map(|(first, last)| Block { first: *first, last, successors: Vec::new(), predecessors: Vec::new() })
        .collect();
    let block_at = |n: usize| firsts.binary_search(&n).ok();
    for b in 0..blocks.len() {
        let last = &instructions[blocks[b].last];
        let mut next = Vec::new();
        next.extend(jump_target(last).and_then(|t| block_at(*position.get(&t)?)));
        if falls_through(last, no_return) && b + 1 < blocks.len() {
            next.push(b + 1);
        }
        blocks[b].successors = next;
    }
    if dispatches {
        connect_jump_tables(instructions, &mut blocks);
    }
    for b in 0..blocks.len() {
        for s in blocks[b].successors.clone() {
            blocks[s].predecessors.push(b);
        }
    }
    blocks
}

/// A switch jumps through a table we do not read: any block nothing else leads to may be
/// a case of it.
fn connect_jump_tables(instructions: &[Instruction], blocks: &mut [Block]) {
    let led_to: BTreeSet<usize> = blocks.iter().flat_map(|b| b.successors.clone()).collect();
    let cases: Vec<usize> = (1..blocks.len()).filter(|b| !led_to.contains(b)).collect();
    for block in blocks.iter_mut() {
        if instructions[block.last].flow_control() == FlowControl::IndirectBranch {
            block.successors.clone_from(&cases);
        }
    }
}

fn jump_target(i: &Instruction) -> Option<u64> {
    matches!(i.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch)
        .then(|| i.near_branch_target())
}

fn is_final_call(i: &Instruction, no_return: &dyn Fn(u64) -> bool) -> bool {
    i.flow_control() == FlowControl::Call && no_return(i.near_branch_target())
}

fn ends_block(i: &Instruction, no_return: &dyn Fn(u64) -> bool) -> bool {
    !matches!(i.flow_control(), FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall)
        || is_final_call(i, no_return)
}

fn falls_through(i: &Instruction, no_return: &dyn Fn(u64) -> bool) -> bool {
    match i.flow_control() {
        FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::IndirectCall => true,
        FlowControl::Call => !is_final_call(i, no_return),
        _ => false,
    }
}
