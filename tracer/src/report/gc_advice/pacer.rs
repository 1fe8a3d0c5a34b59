//! A model of the runtime's GC pacer: what other settings would have made of the same program.

use crate::event::{GcCycle, GcTrigger};
use crate::model::State;

/// How large the heap may grow, as the program was told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Settings {
    /// `None`: off.
    pub(super) gogc: Option<i32>,
    /// `None`: none.
    pub(super) memory_limit: Option<u64>,
}

impl Settings {
    pub(super) fn of(cycle: &GcCycle) -> Settings {
        Settings {
            gogc: Some(cycle.gc_percent).filter(|percent| *percent >= 0),
            memory_limit: u64::try_from(cycle.memory_limit).ok().filter(|limit| *limit < i64::MAX as u64),
        }
    }

    /// The goal that GOGC alone sets to a heap of which `live` bytes were marked, with
    /// `extra` bytes of stacks and globals; infinite: GOGC is off.
    fn gogc_goal(self, live: f64, extra: f64) -> f64 {
        let Some(gogc) = self.gogc.map(f64::from) else { return f64::INFINITY };
        let least = HEAP_MINIMUM * gogc / 100.0;
        (live + (live + extra) * gogc / 100.0).max(least)
    }
}

/// What came of some settings, or would have.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Outcome {
    /// The latest one as far as it had come.
    pub(super) cycles: f64,
    pub(super) peak_heap: f64,
    pub(super) gc_cpu_ns: f64,
    /// It would have been more, but that the runtime itself limits it.
    pub(super) is_limited: bool,
}

/// The heap's least goal, at a GOGC of 100 (runtime/mgcpacer.go `defaultHeapMinimum`).
const HEAP_MINIMUM: f64 = (4 << 20) as f64;
/// A program with GOGC on has a cycle after so long (runtime/proc.go `forcegcperiod`).
const FORCED_AFTER_NS: f64 = 120e9;
/// Of a memory limit the heap leaves so much alone (runtime/mgcpacer.go
/// `memoryLimitHeapGoalHeadroomPercent`).
const LIMIT_HEADROOM: f64 = 0.03;
/// Most of all processor time that the runtime lets the GC have (runtime/mgclimit.go).
const GC_CPU_LIMIT: f64 = 0.5;

/// From the end of a GC cycle to the end of the next one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) from: GcCycle,
    pub(super) to: GcCycle,
}

impl Segment {
    /// Bytes of objects, by size class.
    pub(super) fn allocated(&self) -> f64 {
        self.to.heap_after.saturating_sub(self.from.heap_marked) as f64
    }

    pub(super) fn duration_ns(&self) -> f64 {
        self.to.end_ns.saturating_sub(self.from.end_ns) as f64
    }

    /// Processor time that the program could have had.
    pub(super) fn capacity_ns(&self) -> f64 {
        self.duration_ns() * f64::from(self.to.max_procs)
    }

    /// Processor time of the GC that the program would have had else, as in gctrace's share:
    /// without that of Ps that had nothing to do.
    pub(super) fn gc_cpu_ns(&self) -> f64 {
        self.mark_ns() + self.stopped_ns()
    }

    pub(super) fn mark_ns(&self) -> f64 {
        let GcCycle { assist_ns, dedicated_ns, fractional_ns, .. } = self.to;
        assist_ns as f64 + dedicated_ns as f64 + fractional_ns as f64
    }

    fn stopped_ns(&self) -> f64 {
        let GcCycle { sweep_term_ns, mark_ns, mark_term_ns, end_ns, stw_procs, .. } = self.to;
        let stopped =
            mark_ns.saturating_sub(sweep_term_ns) as f64 + end_ns.saturating_sub(mark_term_ns) as f64;
        stopped * f64::from(stw_procs)
    }

    fn is_forced(&self) -> bool {
        self.to.trigger == Some(GcTrigger::Cycle) || (self.to.trigger.is_none() && self.to.forced)
    }

    /// Bytes marked half way.
    fn live(&self) -> f64 {
        (self.from.heap_marked as f64 + self.to.heap_marked as f64) / 2.0
    }

    fn extra(&self) -> f64 {
        self.to.stack_scan as f64 + self.to.globals_scan as f64
    }

    /// Whether GOMEMLIMIT, not GOGC, set the goal.
    pub(super) fn is_held_by_limit(&self) -> bool {
        let settings = Settings::of(&self.from);
        let goal = settings.gogc_goal(self.from.heap_marked as f64, self.extra());
        settings.memory_limit.is_some() && (self.to.heap_goal as f64) < 0.95 * goal
    }
}

/// What was learnt of the program from the cycles that were seen.
#[derive(Debug, Clone)]
pub(super) struct Pacer {
    pub(super) segments: Vec<Segment>,
    /// How much of the way to its goal the heap had grown when marking ended.
    reach: f64,
    /// Processor time per byte to mark, and of the stops of a cycle.
    ns_per_byte: f64,
    stops_ns: f64,
    /// Bytes allocated while a cycle marks.
    during_mark: f64,
    /// Bytes of memory that count towards a limit and are no part of the heap.
    pub(super) overhead: f64,
}

impl Pacer {
    /// `None`: of fewer than three cycles in a row the records were read. `rss`: resident
    /// memory, where that is known.
    pub(super) fn of(state: &State, rss: Option<u64>) -> Option<Pacer> {
        let cycles = state.gc_cycles.values();
        let pairs = cycles.clone().zip(cycles.skip(1));
        let consecutive = pairs.filter(|(from, to)| from.cycle.checked_add(1) == Some(to.cycle));
        let segments: Vec<Segment> = consecutive.map(|(from, to)| Segment { from: *from, to: *to }).collect();
        if segments.len() < 2 {
            return None;
        }
        let sum = |of: fn(&Segment) -> f64| segments.iter().map(of).sum::<f64>();
        let runways = segments.iter().filter(|s| s.to.trigger == Some(GcTrigger::Heap)).filter_map(|s| {
            let runway = s.to.heap_goal.checked_sub(s.from.heap_marked).filter(|bytes| *bytes > 0)?;
            Some(s.allocated() / runway as f64)
        });
        let reach = median(runways.collect()).unwrap_or(1.0).clamp(0.25, 4.0);
        let grown = segments.iter().map(|s| s.to.heap_after.saturating_sub(s.to.heap_before) as f64);
        let peak = segments.iter().map(|s| s.to.heap_after).max().unwrap_or(0) as f64;
        let extra = segments.iter().map(Segment::extra).fold(0.0, f64::max);
        let held = segments.iter().rev().find(|s| s.is_held_by_limit());
        let inferred = held.and_then(|s| {
            let limit = Settings::of(&s.from).memory_limit? as f64;
            Some((limit - LIMIT_HEADROOM * limit - s.to.heap_goal as f64).max(0.0))
        });
        let beyond = rss.map_or(0.0, |rss| rss as f64 - peak).max(extra);
        Some(Pacer {
            reach,
            ns_per_byte: sum(Segment::mark_ns) / sum(|s| s.to.heap_marked as f64 + s.extra()).max(1.0),
            stops_ns: sum(Segment::stopped_ns) / segments.len() as f64,
            during_mark: median(grown.collect()).unwrap_or(0.0).max(4096.0),
            overhead: inferred.unwrap_or(beyond),
            segments,
        })
    }

    pub(super) fn seen(&self) -> Outcome {
        let peak = self.segments.iter().map(|s| s.to.heap_after.max(s.to.heap_before)).max();
        Outcome {
            cycles: self.segments.len() as f64,
            peak_heap: peak.unwrap_or(0) as f64,
            gc_cpu_ns: self.segments.iter().map(Segment::gc_cpu_ns).sum(),
            is_limited: false,
        }
    }

    /// What these settings would have made of it.
    ///
    /// From runtime/mgcpacer.go (Go 1.19 to 1.27): a cycle that marks *live* bytes sets the
    /// goal *live* + (*live* + stacks + globals) × GOGC / 100, at least 4 MiB × GOGC / 100 and
    /// at most what GOMEMLIMIT leaves for the heap, but no less than *live*. Assumed:
    ///
    /// - The program allocates the same, at the same speed, and as much of it stays alive.
    /// - Marking ends at the same share of the way to the goal as it did.
    /// - Marking takes processor time in proportion to what is marked, stops of the world the
    ///   same each time.
    /// - Cycles that the program asks for take place all the same; with GOGC on there is one
    ///   every two minutes at least.
    /// - When there is no way left to the goal cycles follow each other at once, with as much
    ///   allocated in each as was while marking; the runtime limits the GC to half of all
    ///   processor time.
    pub(super) fn outcome(&self, settings: Settings) -> Outcome {
        let mut outcome = Outcome::default();
        // Cycles since one that was asked for, and bytes since then.
        let (mut due, mut since) = (0.0, 0.0);
        for segment in &self.segments {
            let live = segment.live();
            let way = self.way(settings, live, segment.extra());
            let by_time = if settings.gogc.is_some() { segment.duration_ns() / FORCED_AFTER_NS } else { 0.0 };
            let mut cycles = (segment.allocated() / way).max(by_time);
            due += cycles;
            since += segment.allocated();
            let most_live = segment.from.heap_marked.max(segment.to.heap_marked) as f64;
            let most = self.way(settings, most_live, segment.extra()).min(since);
            outcome.peak_heap = outcome.peak_heap.max(most_live + most);
            if segment.is_forced() {
                // What had come of the next one is in vain.
                cycles += 1.0 - due.fract();
                (due, since) = (0.0, 0.0);
            }
            let cost = self.ns_per_byte * (live + segment.extra()) + self.stops_ns;
            let most_cpu = GC_CPU_LIMIT * segment.capacity_ns();
            outcome.is_limited |= cycles * cost > most_cpu;
            outcome.cycles += cycles;
            outcome.gc_cpu_ns += (cycles * cost).min(most_cpu);
        }
        outcome
    }

    /// Bytes that are allocated from the end of one cycle's marking to that of the next.
    fn way(&self, settings: Settings, live: f64, extra: f64) -> f64 {
        let by_limit = settings.memory_limit.map_or(f64::INFINITY, |limit| self.limit_goal(limit as f64));
        let goal = settings.gogc_goal(live, extra).min(by_limit);
        (self.reach * (goal - live)).max(self.during_mark)
    }

    /// What a limit leaves for the heap.
    fn limit_goal(&self, limit: f64) -> f64 {
        limit - self.overhead - LIMIT_HEADROOM * limit
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
