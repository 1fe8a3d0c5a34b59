//! What other values of GOGC and GOMEMLIMIT would have changed, from the GC cycles seen.

mod pacer;
mod spiral;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::base::units::format_bytes;
use crate::model::State;
use pacer::{Outcome, Pacer, Segment, Settings};
pub use spiral::DeathSpiral;

/// How the GC fared, and how it would have with other settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GcAdvice {
    /// From the first cycle of which the record was read to the latest, without gaps between
    /// cycles that do not follow each other.
    pub seconds: f64,
    /// Bytes allocated meanwhile, by size class.
    pub allocated_bytes: u64,
    /// Share of the processor time of marking that goroutines had to spend on it.
    pub assist_percent: f64,
    /// Cycles that the model expects with the settings in force, over those that were seen.
    pub fit: f64,
    /// What was in force after the latest cycle, and what came of it.
    pub seen: Scenario,
    pub scenarios: Vec<Scenario>,
    /// A limit that is no tighter than what the program used, and one that is too tight.
    pub memory_limit: MemoryLimit,
    pub death_spiral: Option<DeathSpiral>,
    /// What is worth trying, a sentence each, most urgent first.
    pub advice: Vec<String>,
}

/// Settings and what comes of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scenario {
    /// `None`: off.
    pub gogc: Option<i32>,
    /// `None`: none.
    pub memory_limit: Option<u64>,
    pub cycles: f64,
    pub peak_heap_bytes: u64,
    /// The GC's share of all processor time, as in gctrace.
    pub gc_cpu_percent: f64,
    /// The runtime keeps the GC to half of the processor time: the heap may outgrow its limit.
    pub cpu_limited: bool,
}

/// What to set GOMEMLIMIT to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryLimit {
    /// A tenth above the most memory that was used.
    pub suggested_bytes: u64,
    /// What was alive at most, and memory beyond the heap: near it the GC would never rest.
    pub floor_bytes: u64,
}

/// Values of GOGC that are tried.
const GOGC: [i32; 4] = [50, 100, 200, 400];
/// From this on, in percent, a share of processor time is worth a sentence.
const MUCH_GC: f64 = 10.0;
const MUCH_ASSIST: f64 = 25.0;
/// Below this, the heap may be kept smaller for little.
const LITTLE_GC: f64 = 2.0;

/// `None`: of fewer than three cycles in a row the records were read.
pub(super) fn build(state: &State, origin_ns: u64) -> Option<GcAdvice> {
    let pacer = Pacer::of(state, state.gauges.and_then(|gauges| gauges.rss_bytes))?;
    let latest = pacer.segments.last()?;
    let sum = |of: fn(&Segment) -> f64| pacer.segments.iter().map(of).sum::<f64>();
    let capacity_ns = sum(Segment::capacity_ns);
    let scenario = |settings: Settings, outcome: Outcome| Scenario {
        gogc: settings.gogc,
        memory_limit: settings.memory_limit,
        cycles: outcome.cycles,
        peak_heap_bytes: outcome.peak_heap as u64,
        gc_cpu_percent: percent(outcome.gc_cpu_ns, capacity_ns),
        cpu_limited: outcome.is_limited,
    };
    let now = Settings::of(&latest.to);
    let seen = pacer.seen();
    let memory_limit = limits(&pacer, seen);
    let others = GOGC.map(|gogc| Settings { gogc: Some(gogc), ..now });
    let by_limit = Settings { gogc: None, memory_limit: Some(memory_limit.suggested_bytes) };
    let tried = others.into_iter().chain([by_limit]).filter(|settings| *settings != now);
    let mut advice = GcAdvice {
        seconds: sum(Segment::duration_ns) / 1e9,
        allocated_bytes: sum(Segment::allocated) as u64,
        assist_percent: percent(sum(|s| s.to.assist_ns as f64), sum(Segment::mark_ns)),
        fit: pacer.outcome(now).cycles / seen.cycles,
        seen: scenario(now, seen),
        scenarios: tried.map(|settings| scenario(settings, pacer.outcome(settings))).collect(),
        memory_limit,
        death_spiral: spiral::longest(&pacer.segments, origin_ns),
        advice: Vec::new(),
    };
    advice.advice = sentences(&advice);
    Some(advice)
}

fn limits(pacer: &Pacer, seen: Outcome) -> MemoryLimit {
    const UNIT: u64 = 1 << 20;
    let live = pacer.segments.iter().map(|s| s.from.heap_marked.max(s.to.heap_marked)).max().unwrap_or(0);
    let up = |bytes: f64| (bytes as u64).div_ceil(UNIT).saturating_mul(UNIT);
    MemoryLimit {
        suggested_bytes: up(1.1 * (seen.peak_heap + pacer.overhead)),
        floor_bytes: up(live as f64 + pacer.overhead),
    }
}

fn sentences(advice: &GcAdvice) -> Vec<String> {
    let GcAdvice { seen, memory_limit, .. } = advice;
    let mut sentences: Vec<String> = advice.death_spiral.iter().map(DeathSpiral::sentence).collect();
    let at = |gogc: i32| advice.scenarios.iter().find(|s| s.gogc == Some(gogc));
    let change = |to: &Scenario| {
        format!(
            "the GC would have taken {:.1}% of the processor time instead of {:.1}%, with a heap of {} at its \
             peak instead of {}",
            to.gc_cpu_percent,
            seen.gc_cpu_percent,
            format_bytes(to.peak_heap_bytes),
            format_bytes(seen.peak_heap_bytes)
        )
    };
    let more = seen.gogc.and_then(|now| at(GOGC.into_iter().find(|gogc| *gogc > now)?));
    let less = seen.gogc.and_then(|now| at(GOGC.into_iter().rev().find(|gogc| *gogc < now)?));
    if let Some(more) = more.filter(|_| seen.gc_cpu_percent >= MUCH_GC) {
        sentences.push(format!("with GOGC={} {}", more.gogc.unwrap_or(0), change(more)));
    }
    if let Some(less) = less.filter(|less| seen.gc_cpu_percent < LITTLE_GC && less.gc_cpu_percent < MUCH_GC) {
        sentences.push(format!(
            "where memory is short: with GOGC={} {}",
            less.gogc.unwrap_or(0),
            change(less)
        ));
    }
    if advice.assist_percent >= MUCH_ASSIST && seen.gc_cpu_percent >= LITTLE_GC {
        sentences.push(format!(
            "goroutines that allocate did {:.0}% of the marking themselves: what they serve waits for it; a \
             higher GOGC or fewer allocations make that rarer",
            advice.assist_percent
        ));
    }
    if seen.memory_limit.is_none() {
        sentences.push(format!(
            "GOMEMLIMIT={}MiB would have left a tenth above what was used; near {} or below the GC would \
             never rest",
            memory_limit.suggested_bytes >> 20,
            format_bytes(memory_limit.floor_bytes)
        ));
    }
    sentences
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { 100.0 * part / whole } else { 0.0 }
}
