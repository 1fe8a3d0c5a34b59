//! What one instruction does to registers and stack slots.

use iced_x86::{
    FlowControl, Instruction, InstructionInfoFactory, MemorySize, Mnemonic, OpKind, Register, UsedMemory,
};

use super::state::{Escaped, R14, RBP, RSP, Reg, State, Value, stack_address};
use super::{Program, writes};

/// The transfer function.
pub(super) struct Step<'a> {
    program: &'a dyn Program,
    /// Slots that are not followed.
    escaped: Escaped,
    /// Stack addresses seen to leave rsp and rbp.
    found: Escaped,
    info: InstructionInfoFactory,
}

impl<'a> Step<'a> {
    pub(super) fn new(program: &'a dyn Program, escaped: Escaped) -> Step<'a> {
        Step { program, escaped, found: escaped, info: InstructionInfoFactory::new() }
    }

    /// The slots not followed, and those that should not have been.
    pub(super) fn seen_to_escape(&self) -> Escaped {
        self.found
    }

    pub(super) fn apply(&mut self, i: &Instruction, state: &mut State) {
        match i.mnemonic() {
            _ if i.flow_control() == FlowControl::Return => {}
            _ if matches!(i.flow_control(), FlowControl::Call | FlowControl::IndirectCall) => {
                self.call(i, state);
            }
            Mnemonic::Push if i.stack_pointer_increment() == -8 => self.push(i, state),
            Mnemonic::Pop if i.op0_register().is_gpr64() => pop(i, state),
            Mnemonic::Mov if moves_a_word(i) => self.mov(i, state),
            Mnemonic::Lea if i.op0_register().is_gpr64() => self.lea(i, state),
            Mnemonic::Xor if is_zeroing(i) => set_gpr(i, state, Value::Const(0)),
            Mnemonic::Add | Mnemonic::Sub if i.op0_register() == Register::RSP => shift_rsp(i, state),
            _ => self.other(i, state),
        }
    }

    /// ABIInternal has no callee-saved registers (cmd/compile/abi-internal.md): rsp, rbp
    /// and r14 come back as they were. The callee may write the lowest bytes of the
    /// caller's frame: stack-assigned arguments and results and the spill space of
    /// register arguments.
    fn call(&mut self, i: &Instruction, state: &mut State) {
        for reg in (0..16u8).filter(|r| !matches!(*r, RSP | RBP | R14)) {
            state.set_reg(reg, Value::Result { call: i.ip(), reg });
        }
        let target = i.is_call_near().then(|| i.near_branch_target());
        state.forget_outgoing(target.and_then(|target| self.program.argument_bytes(target)));
    }

    fn push(&mut self, i: &Instruction, state: &mut State) {
        let value = gpr(i.op0_register()).map(|r| state.reg(r));
        let top = state.rsp().and_then(|rsp| stack_address(rsp, -8));
        state.set_reg(RSP, top.map_or(Value::Def { at: i.ip(), reg: RSP }, Value::Sp));
        if let Some(top) = top {
            self.store(state, top, 8, value);
        }
    }

    fn mov(&mut self, i: &Instruction, state: &mut State) {
        let source = match i.op1_kind() {
            OpKind::Register => gpr(i.op1_register()).map(|r| narrow(i, state.reg(r))),
            OpKind::Memory => Some(load(i, state)),
            _ => i.try_immediate(1).ok().map(Value::Const),
        };
        if i.op0_kind() != OpKind::Memory {
            let reg = gpr(i.op0_register()).unwrap_or(RSP);
            let value = source.unwrap_or(Value::Def { at: i.ip(), reg });
            self.note(state, reg, value);
            state.set_reg(reg, value);
        } else if let Some(Value::Sp(at)) = address(i, state) {
            self.store(state, at, i.memory_size().size() as i64, source);
        } else {
            self.write_memory(i, state);
            source.inspect(|value| self.leak(*value));
        }
    }

    fn lea(&mut self, i: &Instruction, state: &mut State) {
        let Some(reg) = gpr(i.op0_register()) else { return };
        let value = match address(i, state) {
            Some(v @ (Value::Sp(_) | Value::Const(_))) => v,
            _ => {
                self.read_addresses(i, state);
                Value::Def { at: i.ip(), reg }
            }
        };
        self.note(state, reg, value);
        state.set_reg(reg, value);
    }

    /// Any other instruction: whatever it writes holds something new.
    fn other(&mut self, i: &Instruction, state: &mut State) {
        let compares = matches!(i.mnemonic(), Mnemonic::Cmp | Mnemonic::Test);
        if !compares && i.flow_control() == FlowControl::Next {
            self.read_addresses(i, state);
        }
        self.write_memory(i, state);
        for used in self.info.info(i).used_registers() {
            if writes(used.access())
                && let Some(reg) = gpr(used.register())
            {
                state.set_reg(reg, Value::Def { at: i.ip(), reg });
            }
        }
    }

    /// Forgets the slots that an instruction writes through its memory operands.
    ///
    /// Stores through pointers that do not come from rsp do not reach the frame: Go
    /// code holds no pointers into frames of functions that have not begun.
    fn write_memory(&mut self, i: &Instruction, state: &mut State) {
        let escaped = self.escaped;
        for used in self.info.info(i).used_memory().iter().filter(|used| writes(used.access())) {
            let Some(base) = gpr(used.base()) else { continue };
            match (state.reg(base), stack_address(0, used.displacement() as i64)) {
                (Value::Sp(at), Some(by)) if has_known_extent(i, used) => {
                    state.store(at.saturating_add(by), used.memory_size().size() as i64, None, &escaped);
                }
                (Value::Sp(at), _) => state.forget_around(at),
                _ if matches!(base, RSP | RBP) => state.slots.clear(),
                _ => {}
            }
        }
    }

    fn store(&mut self, state: &mut State, at: i64, len: i64, value: Option<Value>) {
        value.inspect(|value| self.leak(*value));
        state.store(at, len, value, &self.escaped);
    }

    /// Notes a stack address that is put into a register.
    fn note(&mut self, state: &State, reg: Reg, value: Value) {
        // Below rsp is no variable: the check of big frames computes such an address.
        let below = |at: i64| state.rsp().is_some_and(|rsp| at < rsp);
        if let Value::Sp(at) = value
            && !matches!(reg, RSP | RBP)
            && !below(at)
        {
            self.found.add(at);
        }
    }

    /// Notes a stack address that is put into memory.
    fn leak(&mut self, value: Value) {
        if let Value::Sp(at) = value {
            self.found.add(at);
        }
    }

    /// Notes the stack addresses an instruction computes with in ways not followed: the
    /// outcome may lie to either side.
    fn read_addresses(&mut self, i: &Instruction, state: &State) {
        let operands = (0..i.op_count()).map(|n| i.op_register(n));
        let address = [i.memory_base(), i.memory_index()];
        let computes = i.mnemonic() == Mnemonic::Lea;
        for register in operands.chain(address.into_iter().filter(|_| computes)) {
            if let Some(Value::Sp(at)) = gpr(register).map(|r| state.reg(r)) {
                self.found.add_around(at);
            }
        }
    }
}

fn pop(i: &Instruction, state: &mut State) {
    let Some(reg) = gpr(i.op0_register()) else { return };
    let unknown = Value::Def { at: i.ip(), reg };
    let top = state.rsp();
    let value = top.and_then(|top| state.slots.get(&top).copied()).unwrap_or(unknown);
    let above = top.and_then(|top| stack_address(top, 8));
    state.set_reg(RSP, above.map_or(Value::Def { at: i.ip(), reg: RSP }, Value::Sp));
    state.set_reg(reg, value);
}

fn shift_rsp(i: &Instruction, state: &mut State) {
    let by = i.try_immediate(1).ok().map(|by| by as i64);
    let by = if i.mnemonic() == Mnemonic::Add { by } else { by.and_then(i64::checked_neg) };
    let moved = state.rsp().zip(by).and_then(|(rsp, by)| stack_address(rsp, by));
    state.set_reg(RSP, moved.map_or(Value::Def { at: i.ip(), reg: RSP }, Value::Sp));
}

/// The value a `mov` loads from memory.
fn load(i: &Instruction, state: &State) -> Value {
    let unknown = Value::Def { at: i.ip(), reg: gpr(i.op0_register()).unwrap_or(0) };
    if i.memory_size() != MemorySize::UInt64 {
        return unknown;
    }
    match address(i, state) {
        Some(Value::Sp(at)) => state.slots.get(&at).copied().unwrap_or(unknown),
        Some(Value::Const(address)) => Value::Global { at: i.ip(), address },
        Some(field @ Value::Field { .. }) => field,
        _ => unknown,
    }
}

/// The address of the memory operand: a stack or link-time address, or (as `Field`,
/// not yet loaded) an argument plus displacement.
fn address(i: &Instruction, state: &State) -> Option<Value> {
    if i.memory_index() != Register::None || i.segment_prefix() != Register::None {
        return None;
    }
    if i.is_ip_rel_memory_operand() {
        return Some(Value::Const(i.ip_rel_memory_address()));
    }
    // A 32-bit base is cut off.
    let base = i.memory_base().is_gpr64().then(|| gpr(i.memory_base())).flatten()?;
    let disp = i.memory_displacement64();
    match state.reg(base) {
        Value::Sp(at) => stack_address(at, disp as i64).map(Value::Sp),
        Value::Const(at) => Some(Value::Const(at.wrapping_add(disp))),
        Value::Arg(arg) => Some(Value::Field { at: i.ip(), arg, disp: disp as i32 }),
        _ => None,
    }
}

/// What a register move of the instruction's width keeps of a value.
fn narrow(i: &Instruction, value: Value) -> Value {
    match (i.op1_register().size(), value) {
        (8, v) => v,
        (4, Value::Const(c)) => Value::Const(c & 0xffff_ffff),
        _ => Value::Def { at: i.ip(), reg: gpr(i.op0_register()).unwrap_or(0) },
    }
}

/// Whether a `mov` moves four or eight bytes between general registers, memory and
/// immediates; narrower ones merge with what was there.
fn moves_a_word(i: &Instruction) -> bool {
    let is_word = |r: Register| r.is_gpr64() || r.is_gpr32();
    match (i.op0_kind(), i.op1_kind()) {
        (OpKind::Register, OpKind::Register) => is_word(i.op0_register()) && is_word(i.op1_register()),
        (OpKind::Register, _) => is_word(i.op0_register()),
        (OpKind::Memory, OpKind::Register) => i.op1_register().is_gpr64(),
        (OpKind::Memory, _) => true,
        _ => false,
    }
}

fn is_zeroing(i: &Instruction) -> bool {
    let register = i.op0_register();
    i.op1_kind() == OpKind::Register
        && register == i.op1_register()
        && (register.is_gpr64() || register.is_gpr32())
}

fn set_gpr(i: &Instruction, state: &mut State, value: Value) {
    if let Some(reg) = gpr(i.op0_register()) {
        state.set_reg(reg, value);
    }
}

/// Whether a write ends where its operand does. Bit strings reach beyond it, and
/// sizes of 0 are those that depend on the machine (`xsave`).
fn has_known_extent(i: &Instruction, used: &UsedMemory) -> bool {
    let bit_string = matches!(i.mnemonic(), Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc);
    let repeated = i.has_rep_prefix() || i.has_repne_prefix();
    used.index() == Register::None
        && used.memory_size().size() > 0
        && !(bit_string && i.op1_kind() == OpKind::Register)
        && !(repeated && i.is_string_instruction())
}

/// The number of a general register of any width, `None` for others.
fn gpr(register: Register) -> Option<Reg> {
    (register.is_gpr()).then(|| register.full_register().number() as Reg)
}
