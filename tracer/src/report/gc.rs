//! The GC timeline: one row per cycle, the stops of the world by reason, and assists by site.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::sampling::Estimator;
use super::sites::{Frame, Stacks};
use crate::event::{self, GcTrigger};
use crate::model::{Durations, JudgedCycle, State};

/// One GC cycle. Instants are nanoseconds from the start of the capture, negative before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GcCycle {
    /// The runtime's number for it, from 1 at the start of the program; `None` when no
    /// cycle's record was read.
    pub cycle: Option<u32>,
    /// Counted from the start of the capture.
    pub epoch: u32,
    /// When the world was to be stopped to end marking; without a record, when it was.
    pub mark_end_ns: i64,
    /// What survived of the objects allocated during the capture; `None`: not judged.
    pub survivors: Option<Survivors>,
    #[serde(flatten)]
    pub record: Option<GcRecord>,
}

/// Objects that are followed and were found alive; bytes by size class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Survivors {
    pub objects: u64,
    pub bytes: u64,
}

/// What the runtime recorded of a cycle; see [`event::GcCycle`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GcRecord {
    pub start_ns: i64,
    pub mark_start_ns: i64,
    pub end_ns: i64,
    /// The two stops of the world, before and after marking.
    pub stw_ns: [u64; 2],
    pub assist_ns: u64,
    pub dedicated_ns: u64,
    pub fractional_ns: u64,
    pub idle_ns: u64,
    pub heap_before: u64,
    pub heap_after: u64,
    /// Bytes marked in this cycle.
    pub heap_live: u64,
    pub heap_goal: u64,
    pub trigger: Option<GcTrigger>,
    pub forced: bool,
    pub leak_check: bool,
    pub stack_bytes: u64,
    pub globals_bytes: u64,
    /// GOGC in force; `None`: off.
    pub gogc: Option<i32>,
    /// GOMEMLIMIT in force; `None`: none.
    pub memory_limit: Option<i64>,
    pub cpu_percent: u32,
    pub stw_procs: u32,
    pub procs: u32,
}

/// How often and how long the world was stopped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stops {
    /// In the runtime's words; `None` before Go 1.21, which names none.
    pub reason: Option<String>,
    pub count: u64,
    pub total_ns: u64,
    pub longest_ns: u64,
}

/// How often and how long the allocations of one stack had to wait while their goroutine
/// helped marking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Assists {
    pub count: u64,
    pub total_ns: u64,
    pub longest_ns: u64,
    /// As a site's, innermost first.
    pub frames: Vec<Frame>,
}

impl GcCycle {
    /// The row of a cycle, its times as of `origin_ns`.
    pub fn of(cycle: &event::GcCycle, origin_ns: u64) -> GcCycle {
        let at = |ns| since(origin_ns, ns);
        GcCycle {
            cycle: Some(cycle.cycle),
            epoch: cycle.epoch,
            mark_end_ns: at(cycle.mark_term_ns),
            survivors: None,
            record: Some(GcRecord {
                start_ns: at(cycle.sweep_term_ns),
                mark_start_ns: at(cycle.mark_ns),
                end_ns: at(cycle.end_ns),
                stw_ns: [
                    cycle.mark_ns.saturating_sub(cycle.sweep_term_ns),
                    cycle.end_ns.saturating_sub(cycle.mark_term_ns),
                ],
                assist_ns: cycle.assist_ns,
                dedicated_ns: cycle.dedicated_ns,
                fractional_ns: cycle.fractional_ns,
                idle_ns: cycle.idle_ns,
                heap_before: cycle.heap_before,
                heap_after: cycle.heap_after,
                heap_live: cycle.heap_marked,
                heap_goal: cycle.heap_goal,
                trigger: cycle.trigger,
                forced: cycle.forced,
                leak_check: cycle.leak_check,
                stack_bytes: cycle.stack_scan,
                globals_bytes: cycle.globals_scan,
                gogc: Some(cycle.gc_percent).filter(|percent| *percent >= 0),
                memory_limit: Some(cycle.memory_limit).filter(|limit| *limit != i64::MAX),
                cpu_percent: cycle.cpu_percent,
                stw_procs: cycle.stw_procs,
                procs: cycle.max_procs,
            }),
        }
    }
}

fn since(origin_ns: u64, ns: u64) -> i64 {
    ns.wrapping_sub(origin_ns) as i64
}

/// The cycles of which anything is known, in order.
pub(super) fn timeline(state: &State, estimator: &Estimator<'_>, origin_ns: u64) -> Vec<GcCycle> {
    // The two counts grow together.
    let ahead = state.gc_cycles.values().next().map(|c| c.cycle.wrapping_sub(c.epoch));
    let marked = state.gc_epochs.iter().map(|(&epoch, &time_ns)| GcCycle {
        cycle: ahead.map(|ahead| epoch.wrapping_add(ahead)),
        epoch,
        mark_end_ns: since(origin_ns, time_ns),
        survivors: None,
        record: None,
    });
    let recorded = state.gc_cycles.values().map(|cycle| GcCycle::of(cycle, origin_ns));
    let mut rows: BTreeMap<u32, GcCycle> = marked.chain(recorded).map(|row| (row.epoch, row)).collect();
    for (epoch, judged) in &state.judged {
        if let Some(row) = rows.get_mut(epoch) {
            row.survivors = Some(survivors(estimator, judged));
        }
    }
    rows.into_values().collect()
}

/// What the cycle before `epoch` left of the objects that are followed; `None`: not judged.
pub(super) fn survivors_of(state: &State, epoch: u32) -> Option<Survivors> {
    Some(survivors(&Estimator::of(state), state.judged.get(&epoch)?))
}

fn survivors(estimator: &Estimator<'_>, judged: &JudgedCycle) -> Survivors {
    let mut all = Survivors { objects: 0, bytes: 0 };
    for (slot, (objects, bytes)) in &judged.live {
        let weight = estimator.weight_alive(*slot);
        all.objects = all.objects.wrapping_add(weight.scale(*objects));
        all.bytes = all.bytes.wrapping_add(weight.scale(*bytes));
    }
    all
}

/// Cycles that took place though an event of them is missing: between those that were
/// seen, or known from a later allocation's epoch. The first one seen is the baseline,
/// and of the latest the record may still have been to come.
pub(super) fn missed(state: &State) -> u64 {
    // Epoch 0 is that of a cycle whose marking had ended before the capture began.
    let recorded: BTreeSet<u32> = state.gc_cycles.values().map(|c| c.epoch).filter(|e| *e > 0).collect();
    let first = recorded.first().into_iter().chain(state.gc_epochs.keys().next()).min();
    let last = recorded.last().into_iter().chain(state.gc_epochs.keys().next_back()).max();
    let (Some(&first), Some(&last)) = (first, last) else {
        return u64::from(state.latest_epoch);
    };
    let newest = last.max(state.latest_epoch);
    let read = |epoch| state.gc_cycles.is_empty() || recorded.contains(epoch) || *epoch == newest;
    let complete = state.gc_epochs.keys().filter(|epoch| read(epoch)).count() as u64;
    (u64::from(newest) + 1 - u64::from(first)).saturating_sub(complete)
}

/// The stops of the world, those that took most time first.
pub(super) fn stops(state: &State) -> Vec<Stops> {
    let mut stops: Vec<Stops> = state
        .stops
        .iter()
        .map(|(reason, s)| Stops {
            reason: reason.clone(),
            count: s.count,
            total_ns: s.total_ns,
            longest_ns: s.longest_ns,
        })
        .collect();
    stops.sort_by_key(|stops| std::cmp::Reverse(stops.total_ns));
    stops
}

/// Assists by what the user sees of the stack, those that took most time first.
pub(super) fn assists(state: &State) -> Vec<Assists> {
    let mut stacks = Stacks::new(state);
    let mut by_frames: BTreeMap<Vec<Frame>, Durations> = BTreeMap::new();
    for (stack, assists) in &state.assists {
        by_frames.entry(stacks.named(*stack)).or_default().merge(assists);
    }
    let assists = by_frames.into_iter().map(|(frames, a)| Assists {
        count: a.count,
        total_ns: a.total_ns,
        longest_ns: a.longest_ns,
        frames,
    });
    let mut assists: Vec<Assists> = assists.collect();
    assists.sort_by_key(|assists| std::cmp::Reverse(assists.total_ns));
    assists
}
