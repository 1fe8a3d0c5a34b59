//! Sites in one allocation function: instructions every completed object passes once.
//!
//! A return of the function *completes* an object unless what it returns is a constant
//! (`zerobase`), off-heap memory, or the result of another probed function. For the
//! completing returns we look for instructions, if possible such as the kernel emulates,
//! that dominate them, cannot run twice, and lead to nothing else, and at which the value
//! that will be returned lies in a register or stack slot.

use iced_x86::{FlowControl, Instruction, Mnemonic, Register};

use super::{CostClass, Place, Readable, Recipe, leaf};
use crate::binary::flow::{Flow, Loc, R14, RAX, RBP, RBX, RSP, Reg, State, Value};

/// A site found in a function, before it has a name and a place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) address: u64,
    pub(super) recipe: Recipe,
}

/// Names the function a direct call goes to.
pub(super) type Callee<'a> = dyn Fn(u64) -> Option<&'a str> + 'a;

/// More returns than this complete no object: real functions have one or two.
const MAX_RETURNS: usize = 8;

/// The sites of an allocation function, or why there are none.
pub(super) fn sites(flow: &Flow, function: &str, callee: &Callee<'_>) -> Result<Vec<Found>, &'static str> {
    let returns = Returns::of(flow, callee);
    if returns.completing.is_empty() {
        return Err("no return that completes an object was recognised");
    }
    if returns.mixed {
        return Err(
            "it returns its own and other functions' objects by one way, as after profile-guided inlining",
        );
    }
    if returns.completing.len() > MAX_RETURNS {
        return Err("it returns in too many ways");
    }
    // A dear site is better than none: profile-guided layouts can leave a way without a
    // branch or call.
    let candidates = [CostClass::Emulated, CostClass::SingleStepped]
        .map(|dearest| Candidate::up_to(dearest, flow, &returns));
    let chosen = candidates
        .iter()
        .find_map(|candidates| cover(candidates, returns.completing.len()))
        .ok_or("no instruction lies on every path of a completed object and on no other")?;
    Ok(chosen.into_iter().map(|c| c.found(flow, function, &returns, callee)).collect())
}

/// Every place where an instruction can read what `sites` chooses one of each from.
pub(super) fn readable(flow: &Flow, address: u64, callee: &Callee<'_>) -> Option<Readable> {
    let state = flow.before(address)?;
    let returns = Returns::of(flow, callee);
    let reached = returns.completing.iter().filter(|(end, _)| flow.reaches(address, *end));
    let mut pointers = reached.map(|(_, value)| places(&state, *value));
    let mut ptr = pointers.next()?;
    pointers.for_each(|others| ptr.retain(|place| others.contains(place)));
    Some(Readable { ptr, size: places(&state, Value::Arg(RAX)), type_: places(&state, Value::Arg(RBX)) })
}

/// The first emulated instruction that every call runs exactly once, for functions that
/// are probed only to learn that they run, and with what arguments.
pub(super) fn passage(flow: &Flow) -> Option<u64> {
    passages(flow).next()
}

/// As `passage`, but the first one behind the calls that `is_call` tells.
pub(super) fn passage_behind(flow: &Flow, is_call: impl Fn(&Instruction) -> bool) -> Option<u64> {
    let calls: Vec<u64> = flow.reachable().filter(|i| is_call(i)).map(Instruction::ip).collect();
    let behind: Vec<u64> =
        passages(flow).filter(|p| calls.iter().any(|call| flow.reaches(*call, *p))).collect();
    behind.iter().copied().find(|p| !behind.iter().any(|other| flow.reaches(*other, *p)))
}

/// The emulated instructions that every call runs exactly once.
///
/// Not before the frame is being built: a call whose stack has to grow runs the check for
/// that twice.
pub(super) fn passages(flow: &Flow) -> impl Iterator<Item = u64> {
    let ends: Vec<u64> = flow.reachable().filter(|i| flow.leaves(i)).map(Instruction::ip).collect();
    let mut framed = None;
    flow.visit(|i, state| {
        if framed.is_none() && (begins_frame(i) || has_frame(state)) {
            framed = Some(i.ip());
        }
    });
    let candidates = flow.reachable().filter(|i| cost_class(i) == CostClass::Emulated).map(Instruction::ip);
    candidates.filter(move |p| {
        let dominated = flow.dominated_by(*p);
        framed.is_some_and(|framed| flow.dominates(framed, *p))
            && !flow.reaches(*p, *p)
            && !ends.is_empty()
            && ends.iter().all(|end| dominated(*end))
    })
}

/// What a trap on this instruction costs on x86-64 (arch/x86/kernel/uprobes.c
/// `branch_setup_xol_ops`, `push_setup_xol_ops`): relative calls and jumps, one-byte nops
/// and pushes of registers are emulated, the rest is single-stepped.
pub(super) fn cost_class(i: &Instruction) -> CostClass {
    let emulated = match i.flow_control() {
        FlowControl::ConditionalBranch => i.is_jcc_short_or_near(),
        FlowControl::UnconditionalBranch => i.is_jmp_short_or_near(),
        FlowControl::Call => i.is_call_near(),
        _ => i.mnemonic() == Mnemonic::Push && i.op0_register().is_gpr64(),
    };
    if emulated { CostClass::Emulated } else { CostClass::SingleStepped }
}

/// The ways control leaves a function, told apart by what is returned.
struct Returns {
    /// Address of the return and the pointer it returns.
    completing: Vec<(u64, Value)>,
    other: Vec<u64>,
    /// Some return is both, by the path taken to it.
    mixed: bool,
}

impl Returns {
    fn of(flow: &Flow, callee: &Callee<'_>) -> Returns {
        let mut returns = Returns { completing: Vec::new(), other: Vec::new(), mixed: false };
        flow.visit(|i, state| {
            if !flow.leaves(i) {
                return;
            }
            let value = state.reg(RAX);
            // A jump to another function returns what that one returns.
            let (ours, others) = match i.flow_control() {
                FlowControl::Return => completes(flow, value, callee),
                _ => (false, true),
            };
            returns.mixed |= ours && others;
            if ours {
                returns.completing.push((i.ip(), value));
            } else {
                returns.other.push(i.ip());
            }
        });
        returns
    }
}

/// Whether a returned value can be an object this function has to report, and whether it
/// can be something else: `zerobase`, off-heap memory, an object reported elsewhere.
fn completes(flow: &Flow, value: Value, callee: &Callee<'_>) -> (bool, bool) {
    let Some(origins) = flow.origins(value) else { return (true, true) };
    let is_ours = |origin: &Value| match *origin {
        Value::Const(_) | Value::Arg(_) => false,
        Value::Result { call, .. } => match called(flow, call) {
            // An indirect call of mallocgc goes through the tables of specialised functions.
            None => false,
            Some(target) => {
                callee(target).is_some_and(|name| !leaf::is_probed(name) && !leaf::is_off_heap(name))
            }
        },
        _ => true,
    };
    // Nil stands for "none free" and is replaced before it is returned.
    let mut returned = origins.iter().filter(|origin| **origin != Value::Const(0));
    (returned.clone().any(is_ours), !returned.all(is_ours))
}

fn called(flow: &Flow, call: u64) -> Option<u64> {
    flow.instruction(call).filter(|i| i.is_call_near()).map(Instruction::near_branch_target)
}

/// An instruction that could be probed, and the completing returns it stands for.
struct Candidate {
    address: u64,
    /// Indices into `Returns::completing`.
    covers: Vec<usize>,
    ptr: Place,
    size: Place,
    type_: Place,
}

impl Candidate {
    fn up_to(dearest: CostClass, flow: &Flow, returns: &Returns) -> Vec<Candidate> {
        let mut found = Vec::new();
        flow.visit(|i, state| {
            if cost_class(i) <= dearest {
                found.extend(Candidate::at(flow, i.ip(), state, returns));
            }
        });
        found
    }

    fn at(flow: &Flow, address: u64, state: &State, returns: &Returns) -> Option<Candidate> {
        if !has_frame(state) {
            return None;
        }
        let covers = covered(flow, address, returns)?;
        let ptr = place(state, returns.completing[*covers.first()?].1);
        let same = covers.iter().all(|n| place(state, returns.completing[*n].1) == ptr);
        (same && ptr != Place::None).then(|| Candidate {
            address,
            covers,
            ptr,
            size: place(state, Value::Arg(RAX)),
            type_: place(state, Value::Arg(RBX)),
        })
    }

    /// What is worth most first: size and type known, then few memory reads. Among equals
    /// the later one wins: there the object is complete.
    fn score(&self) -> (usize, i32) {
        let places = [self.ptr, self.size, self.type_];
        let known = places.iter().filter(|p| **p != Place::None).count();
        let reads = places.iter().filter(|p| matches!(p, Place::Frame(_) | Place::Stack(_))).count();
        (known, -(reads as i32))
    }

    fn found(&self, flow: &Flow, function: &str, returns: &Returns, callee: &Callee<'_>) -> Found {
        let slot = self.slot(flow, function, returns, callee);
        Found {
            address: self.address,
            recipe: Recipe { ptr: self.ptr, size: self.size, type_: self.type_, slot },
        }
    }

    fn slot(&self, flow: &Flow, function: &str, returns: &Returns, callee: &Callee<'_>) -> Place {
        if let Some(place) = self.slot_result(flow, returns, callee) {
            return place;
        }
        if self.fits_tiny_block(flow, returns, callee) {
            return Place::Const(0);
        }
        match leaf::slot_size(function) {
            Some(size) => Place::Const(size),
            None => Place::None,
        }
    }

    /// From Go 1.24 the functions behind `mallocgc` return the slot size beside the pointer.
    fn slot_result(&self, flow: &Flow, returns: &Returns, callee: &Callee<'_>) -> Option<Place> {
        let pointer = returns.completing[self.covers[0]].1;
        let calls = results(flow, pointer, RAX)?;
        let inner = |call: &u64| called(flow, *call).and_then(callee).is_some_and(leaf::is_inner);
        if !calls.iter().all(inner) {
            return None;
        }
        let state = flow.before(self.address)?;
        let beside = |r: &Reg| {
            let value = state.reg(*r);
            meet_together(pointer, value) && results(flow, value, RBX).as_ref() == Some(&calls)
        };
        (0..16u8).find(beside).map(Place::Reg)
    }

    /// A tiny object that fits its P's current block takes no new slot: its path comes to
    /// the return without the barrier that publishes a new one.
    fn fits_tiny_block(&self, flow: &Flow, returns: &Returns, callee: &Callee<'_>) -> bool {
        let barriers: Vec<u64> =
            flow.reachable().filter(|i| is_publication(i, callee)).map(Instruction::ip).collect();
        let mut ends = self.covers.iter().map(|n| returns.completing[*n].0);
        !barriers.is_empty() && ends.all(|end| !barriers.iter().any(|b| flow.reaches(*b, end)))
    }
}

/// The completing returns that `address` stands for: those it dominates, where it can
/// lead to no other end and to itself never again.
fn covered(flow: &Flow, address: u64, returns: &Returns) -> Option<Vec<usize>> {
    let reached = flow.reached_from(address);
    if reached(address) || returns.other.iter().any(|end| *end == address || reached(*end)) {
        return None;
    }
    let dominated = flow.dominated_by(address);
    let ends = returns.completing.iter().enumerate();
    let (covers, beside): (Vec<_>, Vec<_>) = ends.partition(|(_, (end, _))| dominated(*end));
    let only = !beside.iter().any(|(_, (end, _))| reached(*end));
    only.then(|| covers.into_iter().map(|(n, _)| n).collect())
}

/// The calls of which a value is the result in `reg`, if it is nothing else.
fn results(flow: &Flow, value: Value, reg: Reg) -> Option<Vec<u64>> {
    let result = |origin: Value| match origin {
        Value::Result { call, reg: of } if of == reg => Some(call),
        _ => None,
    };
    let mut calls = flow.origins(value)?.into_iter().map(result).collect::<Option<Vec<u64>>>()?;
    calls.sort_unstable();
    Some(calls).filter(|calls| !calls.is_empty())
}

/// Whether two values come from one call, or are merged at one place: then of several
/// calls they come from the same.
fn meet_together(a: Value, b: Value) -> bool {
    match (a, b) {
        (Value::Phi { at: a, .. }, Value::Phi { at: b, .. }) => a == b,
        (Value::Result { call: a, .. }, Value::Result { call: b, .. }) => a == b,
        _ => false,
    }
}

fn is_publication(i: &Instruction, callee: &Callee<'_>) -> bool {
    i.flow_control() == FlowControl::Call
        && callee(i.near_branch_target()).is_some_and(|name| name.starts_with("runtime.publicationBarrier"))
}

/// The cheapest set of candidates that together stand for every completing return once.
fn cover(candidates: &[Candidate], returns: usize) -> Option<Vec<&Candidate>> {
    let mut best: Option<Vec<&Candidate>> = None;
    let mut pending: Vec<(usize, Vec<&Candidate>)> = vec![(0, Vec::new())];
    while let Some((next, chosen)) = pending.pop() {
        if next == returns {
            let better = best.as_ref().is_none_or(|b| rank(&chosen) > rank(b));
            if better {
                best = Some(chosen);
            }
            continue;
        }
        if chosen.iter().any(|c| c.covers.contains(&next)) {
            pending.push((next + 1, chosen));
            continue;
        }
        // Of the candidates that stand for the same returns only the best matters.
        for covers in distinct_covers(candidates, next, &chosen) {
            let choice =
                candidates.iter().filter(|c| c.covers == covers).max_by_key(|c| (c.score(), c.address));
            let mut chosen = chosen.clone();
            chosen.extend(choice);
            pending.push((next + 1, chosen));
        }
    }
    best
}

fn distinct_covers(candidates: &[Candidate], next: usize, chosen: &[&Candidate]) -> Vec<Vec<usize>> {
    let mut covers: Vec<Vec<usize>> = candidates
        .iter()
        .filter(|c| c.covers.contains(&next))
        .filter(|c| !chosen.iter().any(|other| other.covers.iter().any(|n| c.covers.contains(n))))
        .map(|c| c.covers.clone())
        .collect();
    covers.sort();
    covers.dedup();
    covers
}

/// Knowing more is worth an extra site; after that, fewer sites are better.
fn rank(chosen: &[&Candidate]) -> (usize, std::cmp::Reverse<usize>) {
    let least_known = chosen.iter().map(|c| c.score().0).min().unwrap_or(0);
    (least_known, std::cmp::Reverse(chosen.len()))
}

/// Where a value is best read at a site: in a register if it can be had, else in the
/// frame, else relative to rsp.
pub(super) fn place(state: &State, value: Value) -> Place {
    places(state, value).first().copied().unwrap_or(Place::None)
}

/// Every place where a value can be read at a site, a stack slot by each base.
fn places(state: &State, value: Value) -> Vec<Place> {
    let mut places = Vec::new();
    for loc in state.locations(value) {
        match loc {
            Loc::Reg(r) if !matches!(r, RSP | RBP | R14) => places.push(Place::Reg(r)),
            Loc::Reg(_) => {}
            Loc::Slot(offset) => {
                let relative = |base: Reg| match state.reg(base) {
                    Value::Sp(at) => i32::try_from(offset - at).ok(),
                    _ => None,
                };
                places.extend(relative(RBP).map(Place::Frame));
                places.extend(relative(RSP).map(Place::Stack));
            }
        }
    }
    places
}

pub(super) fn begins_frame(i: &Instruction) -> bool {
    i.mnemonic() == Mnemonic::Push && i.op0_register() == Register::RBP
}

/// Whether rbp points at the saved rbp right below the return address, so that a walk of
/// the frame pointers meets the direct caller first.
pub(super) fn has_frame(state: &State) -> bool {
    state.reg(RBP) == Value::Sp(-8) && state.locations(Value::Arg(RBP)).any(|l| l == Loc::Slot(-8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binary::flow::Program;

    struct Nothing;

    impl Program for Nothing {
        fn never_returns(&self, _: u64) -> bool {
            false
        }

        fn argument_bytes(&self, _: u64) -> Option<u32> {
            None
        }

        fn read_only_u64(&self, _: u64) -> Option<u64> {
            None
        }
    }

    /// An allocation function that returns `zerobase` for no bytes, else what a function
    /// at 0x8000 returns.
    #[rustfmt::skip]
    const FUNCTION: &[u8] = &[
        0x55,                                     // 1000 push %rbp
        0x48, 0x89, 0xe5,                         // 1001 mov %rsp,%rbp
        0x48, 0x83, 0xec, 0x10,                   // 1004 sub $0x10,%rsp
        0x48, 0x89, 0x44, 0x24, 0x20,             // 1008 mov %rax,0x20(%rsp)
        0x48, 0x85, 0xc0,                         // 100d test %rax,%rax
        0x74, 0x15,                               // 1010 je 1027
        0x48, 0xff, 0xc9,                         // 1012 dec %rcx
        0x75, 0xfb,                               // 1015 jne 1012
        0xe8, 0xe4, 0x6f, 0x00, 0x00,             // 1017 call 8000
        0x85, 0xd2,                               // 101c test %edx,%edx
        0x74, 0x01,                               // 101e je 1021
        0x90,                                     // 1020 nop
        0x48, 0x83, 0xc4, 0x10,                   // 1021 add $0x10,%rsp
        0x5d,                                     // 1025 pop %rbp
        0xc3,                                     // 1026 ret
        0x48, 0x8d, 0x05, 0xd2, 0x0f, 0x00, 0x00, // 1027 lea zerobase(%rip),%rax
        0x48, 0x83, 0xc4, 0x10,                   // 102e add $0x10,%rsp
        0x5d,                                     // 1032 pop %rbp
        0xc3,                                     // 1033 ret
    ];

    fn sites_of(code: &[u8], callee: &'static str) -> Result<Vec<Found>, &'static str> {
        let flow = Flow::analyse(code, 0x1000, &Nothing).expect("a function that can be followed");
        sites(&flow, "runtime.mallocgc", &|target| (target == 0x8000).then_some(callee))
    }

    #[test]
    fn a_site_is_passed_once_by_every_completed_object_and_by_nothing_else() {
        // Not the jump that zerobase takes too, not the one in the loop, not the call
        // before which there is no pointer.
        let recipe = Recipe {
            ptr: Place::Reg(RAX),
            size: Place::Frame(16),
            type_: Place::None,
            slot: Place::Reg(RBX),
        };
        let site = Found { address: 0x101e, recipe };
        assert_eq!(sites_of(FUNCTION, "runtime.mallocgcLarge"), Ok(vec![site]));
    }

    #[test]
    fn where_nothing_is_emulated_a_dear_site_is_taken() {
        let mut code = FUNCTION.to_vec();
        code[0x1c..0x20].fill(0x90); // no branch behind the call
        let found = sites_of(&code, "runtime.mallocgcLarge").expect("a site");
        // The last instruction with the frame still there.
        assert_eq!(found.iter().map(|f| f.address).collect::<Vec<_>>(), [0x1025]);
    }

    #[test]
    fn objects_of_other_probed_functions_are_theirs() {
        assert!(sites_of(FUNCTION, "runtime.mallocgcTinySlowPath").is_err());
        assert!(sites_of(FUNCTION, "runtime.persistentalloc").is_err());
    }

    #[test]
    fn a_jump_to_another_function_is_an_end_like_others() {
        let mut code = FUNCTION.to_vec();
        code[0x1f] = 0x40; // je to behind the end
        let found = sites_of(&code, "runtime.mallocgcLarge").expect("a site");
        // Behind it, not on it.
        assert_eq!(found.iter().map(|f| f.address).collect::<Vec<_>>(), [0x1025]);
    }

    #[test]
    fn a_passage_is_run_once_by_every_call() {
        let flow = Flow::analyse(FUNCTION, 0x1000, &Nothing).expect("followed");
        assert_eq!(passage(&flow), Some(0x1000));
        // Not without a frame, and not where the loop comes back.
        let flow = Flow::analyse(&FUNCTION[0x12..], 0x1012, &Nothing).expect("followed");
        assert_eq!(passage(&flow), None);
    }

    #[test]
    fn a_passage_behind_a_call_is_passed_without_the_call_too() {
        #[rustfmt::skip]
        const PRINTS: &[u8] = &[
            0x55,                                     // 1000 push %rbp
            0x48, 0x89, 0xe5,                         // 1001 mov %rsp,%rbp
            0x85, 0xc0,                               // 1004 test %eax,%eax
            0x74, 0x05,                               // 1006 je 100d
            0xe8, 0xf3, 0x6f, 0x00, 0x00,             // 1008 call 8000
            0x85, 0xc9,                               // 100d test %ecx,%ecx
            0x74, 0x01,                               // 100f je 1012
            0x90,                                     // 1011 nop
            0xe8, 0xe9, 0x7f, 0x00, 0x00,             // 1012 call 9000
            0x5d,                                     // 1017 pop %rbp
            0xc3,                                     // 1018 ret
        ];
        let flow = Flow::analyse(PRINTS, 0x1000, &Nothing).expect("followed");
        let behind = |target| passage_behind(&flow, |i| i.near_branch_target() == target);
        assert_eq!(behind(0x8000), Some(0x100f));
        assert_eq!(behind(0x9000), None);
        assert_eq!(behind(0x7000), None);
    }
}
