//! Whether the heap was so near to GOMEMLIMIT that the GC could not rest.

use serde::Serialize;

use super::pacer::{Segment, Settings};
use crate::base::units::{format_bytes, format_count};

/// Cycles back to back, each with next to nothing to free, because of GOMEMLIMIT.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DeathSpiral {
    pub cycles: u64,
    /// Seconds since the capture began.
    pub begin_s: f64,
    pub end_s: f64,
    /// Bytes marked in the latest of the cycles.
    pub live_bytes: u64,
    pub memory_limit: u64,
    /// The GC's share of all processor time meanwhile.
    pub gc_cpu_percent: f64,
    /// That is about half, the most the runtime lets it have: the program goes over its limit.
    pub cpu_limited: bool,
}

/// Cycles in a row that are no accident.
const LEAST_CYCLES: usize = 5;
/// Share of processor time from which on the runtime's limit of one half is taken to hold.
const LIMITED_PERCENT: f64 = 45.0;

impl DeathSpiral {
    pub(super) fn sentence(&self) -> String {
        let limited = if self.cpu_limited {
            "; that is all the runtime lets it have, so that the heap outgrows the limit"
        } else {
            ""
        };
        format!(
            "GOMEMLIMIT of {} is too tight for the {} that are alive: {} GC cycles back to back took {:.0}% of \
             the processor time for {:.1} s{limited}; raise the limit, or find what holds the memory",
            format_bytes(self.memory_limit),
            format_bytes(self.live_bytes),
            format_count(self.cycles),
            self.gc_cpu_percent,
            self.end_s - self.begin_s
        )
    }
}

/// The longest of them, in cycles; the latest of equal ones.
pub(super) fn longest(segments: &[Segment], origin_ns: u64) -> Option<DeathSpiral> {
    let runs = segments.chunk_by(|a, b| is_breathless(a) && is_breathless(b) && a.to.cycle == b.from.cycle);
    let run = runs.filter(|run| run.len() >= LEAST_CYCLES).max_by_key(|run| run.len())?;
    let (first, last) = (run.first()?, run.last()?);
    let at = |ns: u64| ns.wrapping_sub(origin_ns) as i64 as f64 / 1e9;
    let share = run.iter().map(Segment::gc_cpu_ns).sum::<f64>()
        / run.iter().map(Segment::capacity_ns).sum::<f64>().max(1.0);
    Some(DeathSpiral {
        cycles: run.len() as u64,
        begin_s: at(first.from.end_ns),
        end_s: at(last.to.end_ns),
        live_bytes: last.to.heap_marked,
        memory_limit: Settings::of(&last.to).memory_limit?,
        gc_cpu_percent: 100.0 * share,
        cpu_limited: 100.0 * share >= LIMITED_PERCENT,
    })
}

/// Whether the limit left less than a tenth of what is alive to allocate, and the GC was at
/// work for more than half of the time.
fn is_breathless(segment: &Segment) -> bool {
    let room = segment.to.heap_goal.saturating_sub(segment.from.heap_marked);
    let worked = segment.to.end_ns.saturating_sub(segment.to.sweep_term_ns) as f64;
    segment.is_held_by_limit() && room < segment.from.heap_marked / 10 && worked > segment.duration_ns() / 2.0
}
