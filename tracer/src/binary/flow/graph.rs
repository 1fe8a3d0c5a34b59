//! A function's instructions and blocks, and where control can go between them.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register,
};

use super::{Program, writes};

/// Longest function analysed, in bytes: generated code past this is left alone.
const MAX_CODE: usize = 1 << 20;

/// Most blocks analysed.
const MAX_BLOCKS: usize = 1 << 14;

/// Most cases of all jump tables.
const MAX_CASES: usize = 1 << 14;

/// Instructions looked back from a jump through a table for its address.
const TABLE_DISTANCE: usize = 16;

/// A straight run of instructions, by index into `Graph::instructions`.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) successors: Vec<usize>,
    pub(super) predecessors: Vec<usize>,
}

/// The control flow of one function.
#[derive(Debug)]
pub(super) struct Graph {
    instructions: Vec<Instruction>,
    pub(super) blocks: Vec<Block>,
    /// The blocks that can be reached, each before its successors but for loops.
    pub(super) order: Vec<usize>,
}

/// The cases of a jump through a table.
struct Table {
    /// The instruction that loads the table's address.
    loaded: usize,
    /// Indices of the instructions it leads to.
    cases: Vec<usize>,
}

impl Graph {
    /// `None` when the code is empty or too much, or control can go where we cannot
    /// follow: into the middle of an instruction, to an unknown instruction, or through
    /// a pointer.
    pub(super) fn of(code: &[u8], start: u64, program: &dyn Program) -> Option<Graph> {
        start.checked_add(code.len() as u64)?;
        if code.len() > MAX_CODE {
            return None;
        }
        let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
        let mut instructions = Vec::with_capacity(code.len() / 4);
        while decoder.can_decode() {
            instructions.push(decoder.decode());
        }
        let mut graph = Graph { instructions, blocks: Vec::new(), order: Vec::new() };
        let tables = graph.jump_tables(program);
        graph.split(&tables, program)?;
        let successors: Vec<_> =
            (0..graph.blocks.len()).map(|b| graph.leads_to(b, &tables, program)).collect();
        graph.connect(successors)?;
        Some(graph)
    }

    /// The index of the instruction that begins at `address`.
    pub(super) fn index(&self, address: u64) -> Option<usize> {
        self.instructions.binary_search_by_key(&address, Instruction::ip).ok()
    }

    pub(super) fn instruction(&self, index: usize) -> &Instruction {
        &self.instructions[index]
    }

    pub(super) fn block_of(&self, index: usize) -> usize {
        self.blocks.partition_point(|b| b.last < index)
    }

    pub(super) fn address_of(&self, block: usize) -> u64 {
        self.instructions[self.blocks[block].first].ip()
    }

    pub(super) fn instructions_of(&self, block: usize) -> &[Instruction] {
        &self.instructions[self.blocks[block].first..=self.blocks[block].last]
    }

    /// The call whose return address is `address`.
    pub(super) fn call_returning_to(&self, address: u64) -> Option<&Instruction> {
        let after = self.instructions.partition_point(|i| i.next_ip() < address);
        self.instructions.get(after).filter(|i| i.next_ip() == address && is_call(i))
    }

    /// Whether control leaves the function for good at this instruction: it returns,
    /// jumps to another function or runs off the end.
    pub(super) fn leaves(&self, i: &Instruction) -> bool {
        let jumps_out = jump_target(i).is_some_and(|target| !self.holds(target));
        i.flow_control() == FlowControl::Return || jumps_out || (falls_through(i) && !self.holds(i.next_ip()))
    }

    /// The blocks that can be reached from `from`, itself included, without entering
    /// `avoiding`: for each block whether it is one.
    pub(super) fn walk(&self, from: &[usize], avoiding: Option<usize>) -> Vec<bool> {
        let mut seen = vec![false; self.blocks.len()];
        let mut pending = from.to_vec();
        while let Some(b) = pending.pop() {
            if Some(b) != avoiding && !seen[b] {
                seen[b] = true;
                pending.extend(&self.blocks[b].successors);
            }
        }
        seen
    }

    fn holds(&self, address: u64) -> bool {
        let ends = self.instructions.first().zip(self.instructions.last());
        ends.is_some_and(|(first, last)| (first.ip()..last.next_ip()).contains(&address))
    }

    /// Sets the blocks, not yet connected; `None` when there are none or too many.
    fn split(&mut self, tables: &BTreeMap<usize, Table>, program: &dyn Program) -> Option<()> {
        let mut leaders: BTreeSet<usize> = tables.values().flat_map(|t| t.cases.iter().copied()).collect();
        leaders.insert(0);
        for (n, i) in self.instructions.iter().enumerate() {
            leaders.extend(jump_target(i).and_then(|target| self.index(target)));
            if ends_block(i, program) && n + 1 < self.instructions.len() {
                leaders.insert(n + 1);
            }
        }
        if self.instructions.is_empty() || leaders.len() > MAX_BLOCKS {
            return None;
        }
        let lasts = leaders.iter().skip(1).map(|n| n - 1).chain([self.instructions.len() - 1]);
        let block = |(&first, last)| Block { first, last, successors: Vec::new(), predecessors: Vec::new() };
        self.blocks = leaders.iter().zip(lasts).map(block).collect();
        Some(())
    }

    /// The blocks that can follow; `None` when that is not known.
    fn leads_to(
        &self,
        block: usize,
        tables: &BTreeMap<usize, Table>,
        program: &dyn Program,
    ) -> Option<Vec<usize>> {
        let Block { first, last, .. } = self.blocks[block];
        let end = &self.instructions[last];
        match end.flow_control() {
            FlowControl::IndirectBranch => {
                // Nothing may come in between the load of the table's address and its use.
                let table = tables.get(&last).filter(|table| table.loaded >= first)?;
                return Some(table.cases.iter().map(|n| self.block_of(*n)).collect());
            }
            FlowControl::XbeginXabortXend => return None,
            FlowControl::Exception if end.is_invalid() => return None,
            _ => {}
        }
        let mut next = Vec::new();
        if let Some(target) = jump_target(end).filter(|target| self.holds(*target)) {
            next.push(self.block_of(self.index(target)?));
        }
        if falls_through(end) && !is_final_call(end, program) && block + 1 < self.blocks.len() {
            next.push(block + 1);
        }
        Some(next)
    }

    /// Sets successors and predecessors of the blocks that can be reached, and their
    /// order; `None` when control can go astray.
    fn connect(&mut self, mut successors: Vec<Option<Vec<usize>>>) -> Option<()> {
        let mut seen = vec![false; self.blocks.len()];
        // Blocks on the path walked, each with the number of its successors looked at.
        let mut path = vec![(0, 0)];
        seen[0] = true;
        self.blocks[0].successors = successors[0].take()?;
        while let Some((block, looked_at)) = path.last_mut() {
            let block = *block;
            let Some(&next) = self.blocks[block].successors.get(*looked_at) else {
                self.order.push(block);
                path.pop();
                continue;
            };
            *looked_at += 1;
            self.blocks[next].predecessors.push(block);
            if !std::mem::replace(&mut seen[next], true) {
                self.blocks[next].successors = successors[next].take()?;
                path.push((next, 0));
            }
        }
        self.order.reverse();
        Some(())
    }

    fn jump_tables(&self, program: &dyn Program) -> BTreeMap<usize, Table> {
        let mut tables = BTreeMap::new();
        let mut room = MAX_CASES;
        for (n, i) in self.instructions.iter().enumerate() {
            if i.flow_control() == FlowControl::IndirectBranch
                && let Some(table) = self.jump_table(n, room, program)
            {
                room -= table.cases.len();
                tables.insert(n, table);
            }
        }
        tables
    }

    /// The table of `lea table(%rip), r; …; jmp *(r, index, 8)`, as the compiler writes
    /// a switch since Go 1.19 (cmd/compile/internal/amd64/ssa.go `BlockAMD64JUMPTABLE`):
    /// addresses in read-only data. What follows the table there may be read as more of
    /// it, which adds paths and hides none. `None` also for one of more than `room` cases.
    fn jump_table(&self, jump: usize, room: usize, program: &dyn Program) -> Option<Table> {
        let i = &self.instructions[jump];
        let base = i.memory_base();
        if i.op0_kind() != OpKind::Memory || !base.is_gpr64() || i.memory_displacement64() != 0 {
            return None;
        }
        if i.memory_index() == Register::None || i.memory_index_scale() != 8 {
            return None;
        }
        let loaded = self.last_write(jump, base)?;
        let load = &self.instructions[loaded];
        if load.mnemonic() != Mnemonic::Lea || !load.is_ip_rel_memory_operand() {
            return None;
        }
        let table = load.ip_rel_memory_address();
        let case = |n: u64| self.index(program.read_only_u64(table.checked_add(8 * n)?)?);
        let cases: Vec<usize> = (0..).map_while(case).take(room + 1).collect();
        (1..=room).contains(&cases.len()).then_some(Table { loaded, cases })
    }

    /// The last instruction before `before` that writes the register.
    fn last_write(&self, before: usize, register: Register) -> Option<usize> {
        let mut info = InstructionInfoFactory::new();
        let writes_it = |n: &usize| {
            let used = info.info(&self.instructions[*n]).used_registers();
            used.iter().any(|u| u.register().full_register() == register && writes(u.access()))
        };
        (before.saturating_sub(TABLE_DISTANCE)..before).rev().find(writes_it)
    }
}

fn is_call(i: &Instruction) -> bool {
    matches!(i.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
}

fn jump_target(i: &Instruction) -> Option<u64> {
    matches!(i.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch)
        .then(|| i.near_branch_target())
}

/// Whether this is a call that never comes back.
fn is_final_call(i: &Instruction, program: &dyn Program) -> bool {
    i.is_call_near() && program.never_returns(i.near_branch_target())
}

fn ends_block(i: &Instruction, program: &dyn Program) -> bool {
    !matches!(i.flow_control(), FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall)
        || is_final_call(i, program)
}

fn falls_through(i: &Instruction) -> bool {
    is_call(i) || matches!(i.flow_control(), FlowControl::Next | FlowControl::ConditionalBranch)
}
