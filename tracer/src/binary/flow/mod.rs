//! Forward dataflow over one function's x86-64 code: what each register and stack slot holds.
//!
//! Written for the code Go's compiler emits (ABIInternal since Go 1.17,
//! cmd/compile/abi-internal.md). Slots whose address may be known to other code are not
//! followed.

mod graph;
mod state;
mod step;
#[cfg(test)]
mod tests;

use iced_x86::{Instruction, OpAccess};

use graph::Graph;
use state::Escaped;
pub use state::{Loc, R14, RAX, RBP, RBX, RCX, RDI, RSP, Reg, State, Value};
use step::Step;

/// What the analysis asks about the program around a function.
pub trait Program {
    /// Whether a call to this address never comes back (`runtime.throw`,
    /// `runtime.morestack`, …): what follows it is not its successor.
    fn never_returns(&self, target: u64) -> bool;

    /// How many bytes of its caller's frame, from rsp upwards, a function may write: its
    /// stack-assigned arguments and results, and the spill space of the others. `None`
    /// when unknown.
    fn argument_bytes(&self, target: u64) -> Option<u32>;

    /// The u64 at a link-time address, when the program cannot change it.
    fn read_only_u64(&self, address: u64) -> Option<u64>;
}

/// One function, analysed.
pub struct Flow<'p> {
    graph: Graph,
    entry_states: Vec<Option<State>>,
    escaped: Escaped,
    program: &'p dyn Program,
}

/// Instructions applied and locations compared after which an analysis is given up.
const MAX_WORK: usize = 1 << 24;

/// Passes over all blocks before values that still change are given up: two merges can
/// each wait for what the other says.
const FREE_PASSES: usize = 8;

/// Values followed back through merges.
const MAX_ORIGINS: usize = 64;

impl<'p> Flow<'p> {
    /// Analyses `code`, the bytes of one function linked at `start`.
    ///
    /// `None` when the code is too much, or goes where the analysis cannot follow.
    pub fn analyse(code: &[u8], start: u64, program: &'p dyn Program) -> Option<Flow<'p>> {
        let graph = Graph::of(code, start, program)?;
        let mut flow = Flow { graph, entry_states: Vec::new(), escaped: Escaped::NOTHING, program };
        let mut work = 0;
        let mut found = flow.settle(&mut work)?;
        // Slots were followed that are not safe. A second look can find more of them, as
        // addresses that went through those slots; then no slot is followed.
        for unsafe_slots in [found, Escaped::EVERYTHING] {
            if found == flow.escaped {
                break;
            }
            flow.escaped = unsafe_slots;
            found = flow.settle(&mut work)?;
        }
        Some(flow)
    }

    /// Iterates to a fixed point; gives the slots that turned out to be unsafe.
    fn settle(&mut self, work: &mut usize) -> Option<Escaped> {
        let mut exits = vec![None; self.graph.blocks.len()];
        self.entry_states = exits.clone();
        let mut step = Step::new(self.program, self.escaped);
        for pass in 0.. {
            let mut settled = true;
            for &block in &self.graph.order {
                let mut entry = self.entry(block, &exits, work)?;
                if *work > MAX_WORK {
                    return None;
                }
                if pass >= FREE_PASSES
                    && let Some(before) = &self.entry_states[block]
                {
                    entry.widen(self.graph.address_of(block), before);
                }
                if self.entry_states[block].as_ref() == Some(&entry) {
                    continue;
                }
                settled = false;
                let mut state = entry.clone();
                self.entry_states[block] = Some(entry);
                let instructions = self.graph.instructions_of(block);
                instructions.iter().for_each(|i| step.apply(i, &mut state));
                *work += instructions.len();
                exits[block] = Some(state);
            }
            if settled {
                break;
            }
        }
        Some(step.seen_to_escape())
    }

    /// What holds on entry to a block, given what holds at the ends of others.
    fn entry(&self, block: usize, exits: &[Option<State>], work: &mut usize) -> Option<State> {
        let start = State::entry();
        let predecessors = self.graph.blocks[block].predecessors.iter();
        let mut arriving: Vec<&State> = predecessors.filter_map(|p| exits[*p].as_ref()).collect();
        if block == 0 {
            arriving.push(&start);
        }
        *work += arriving.iter().map(|state| state.size()).sum::<usize>();
        State::merge(self.graph.address_of(block), &arriving)
    }
}

impl Flow<'_> {
    /// The instructions that can be reached, in address order.
    pub fn reachable(&self) -> impl Iterator<Item = &Instruction> {
        let blocks = self.entry_states.iter().enumerate().filter(|(_, state)| state.is_some());
        blocks.flat_map(|(block, _)| self.graph.instructions_of(block))
    }

    /// Shows every instruction that can be reached, in address order, with what
    /// everything holds just before it runs.
    pub fn visit(&self, mut look: impl FnMut(&Instruction, &State)) {
        for (block, state) in self.entry_states.iter().enumerate() {
            let Some(mut state) = state.clone() else { continue };
            let mut step = Step::new(self.program, self.escaped);
            for instruction in self.graph.instructions_of(block) {
                look(instruction, &state);
                step.apply(instruction, &mut state);
            }
        }
    }

    /// What everything holds just before the instruction at `address` runs.
    pub fn before(&self, address: u64) -> Option<State> {
        let block = self.graph.block_of(self.graph.index(address)?);
        let mut state = self.entry_states[block].clone()?;
        let mut step = Step::new(self.program, self.escaped);
        for instruction in self.graph.instructions_of(block).iter().take_while(|i| i.ip() < address) {
            step.apply(instruction, &mut state);
        }
        Some(state)
    }

    /// The call whose return address is `address`.
    pub fn call_returning_to(&self, address: u64) -> Option<&Instruction> {
        self.graph.call_returning_to(address)
    }

    pub fn instruction(&self, address: u64) -> Option<&Instruction> {
        Some(self.graph.instruction(self.graph.index(address)?))
    }

    /// Whether control leaves the function for good at this instruction of it: it
    /// returns, jumps to another function or runs off the end.
    pub fn leaves(&self, instruction: &Instruction) -> bool {
        self.graph.leaves(instruction)
    }

    /// The values that can arrive in `value` through merges, itself when it is no merge;
    /// `None` when they are too many.
    pub fn origins(&self, value: Value) -> Option<Vec<Value>> {
        let mut seen = vec![value];
        let mut next = 0;
        while let Some(&value) = seen.get(next) {
            next += 1;
            let Value::Phi { at, loc } = value else { continue };
            for value in self.arriving(at, loc) {
                if !seen.contains(&value) {
                    seen.push(value);
                }
            }
            if seen.len() > MAX_ORIGINS {
                return None;
            }
        }
        seen.retain(|v| !matches!(v, Value::Phi { .. }));
        Some(seen)
    }

    /// What a location holds at the end of each block that leads to the one at `at`.
    fn arriving(&self, at: u64, loc: Loc) -> Vec<Value> {
        let Some(block) = self.graph.index(at).map(|i| self.graph.block_of(i)) else { return Vec::new() };
        let predecessors = self.graph.blocks[block].predecessors.iter();
        let start = (block == 0).then(State::entry);
        predecessors.filter_map(|p| self.at_end(*p)).chain(start).filter_map(|s| s.get(loc)).collect()
    }

    fn at_end(&self, block: usize) -> Option<State> {
        let mut state = self.entry_states[block].clone()?;
        let mut step = Step::new(self.program, self.escaped);
        self.graph.instructions_of(block).iter().for_each(|i| step.apply(i, &mut state));
        Some(state)
    }

    /// Whether every path from the function's entry to `to` passes `through`.
    pub fn dominates(&self, through: u64, to: u64) -> bool {
        self.dominated_by(through)(to)
    }

    /// Whether control can come from `from` (having run) to `to`.
    pub fn reaches(&self, from: u64, to: u64) -> bool {
        self.reached_from(from)(to)
    }

    /// For many ends at once: to which instructions every path passes `through`.
    pub fn dominated_by(&self, through: u64) -> impl Fn(u64) -> bool + '_ {
        let from = self.position(through);
        let around = from.map(|(block, _)| self.graph.walk(&[0], Some(block)));
        move |to| match (from, &around, self.position(to)) {
            (Some((a, first)), _, Some((b, second))) if a == b => first <= second,
            (Some(_), Some(around), Some((b, _))) => !around[b],
            _ => false,
        }
    }

    /// For many ends at once: to which instructions control can come from `from`.
    pub fn reached_from(&self, from: u64) -> impl Fn(u64) -> bool + '_ {
        let from = self.position(from);
        let after = from.map(|(block, _)| self.graph.walk(&self.graph.blocks[block].successors, None));
        move |to| match (from, &after, self.position(to)) {
            (Some((a, first)), Some(after), Some((b, second))) => (a == b && first < second) || after[b],
            _ => false,
        }
    }

    /// Block and index of the instruction at an address.
    fn position(&self, address: u64) -> Option<(usize, usize)> {
        let index = self.graph.index(address)?;
        Some((self.graph.block_of(index), index))
    }
}

/// How an instruction's use of a register or of memory may change it.
fn writes(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}
