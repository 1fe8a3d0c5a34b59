//! What the capture cost the target, and whether that was too much.

use serde::Serialize;

use crate::model::State;

/// What the probes cost the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Traps of all probes.
    pub hits: u64,
    /// What one takes on the machine of the capture, measured before it began.
    pub trap_ns: u64,
    /// What all took of the processor time that the target used during the capture.
    pub target_cpu_percent: f64,
}

/// The probes on allocation sites came off, because they took more than `--max-overhead`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Breaker {
    /// Seconds after the start of the capture, when they were gone.
    pub tripped_at_s: f64,
    /// Share of the target's processor time that was measured just before, and the limit.
    pub overhead_percent: f64,
    pub limit_percent: f64,
}

pub(super) fn cost(state: &State) -> Option<Cost> {
    let cost = state.cost?;
    let share = match (cost.hits, cost.cpu_ns) {
        (0, _) => 0.0,
        // What was measured elsewhere may be more than what was used here.
        (hits, cpu_ns) => (hits as f64 * cost.trap_ns as f64 / cpu_ns as f64).min(1.0),
    };
    Some(Cost { hits: cost.hits, trap_ns: cost.trap_ns, target_cpu_percent: 100.0 * share })
}

pub(super) fn breaker(state: &State) -> Option<Breaker> {
    let tripped = state.tripped?;
    let start_ns = state.start.as_ref().map_or(0, |start| start.time_ns);
    Some(Breaker {
        tripped_at_s: tripped.time_ns.saturating_sub(start_ns) as f64 / 1e9,
        overhead_percent: tripped.overhead_percent,
        limit_percent: tripped.limit_percent,
    })
}

/// What a reader must know of a breaker that tripped.
pub(super) fn notes(breaker: Option<Breaker>, followed: bool) -> Vec<String> {
    let Some(Breaker { tripped_at_s, overhead_percent, limit_percent }) = breaker else {
        return Vec::new();
    };
    let mut notes = vec![format!(
        "the probes took {overhead_percent:.1}% of the target's processor time, more than the {limit_percent}% of \
         --max-overhead: from {tripped_at_s:.3} s on no allocation was recorded; coverage is that of the time before"
    )];
    if followed {
        notes.push(
            "of objects seen until then deaths are still told, but one that died in a GC cycle whose marks were \
             not read in full counts as alive if an object that was not recorded took its slot"
                .into(),
        );
    }
    notes
}
