//! What a capture says, as plain data: the JSON contract of docs/json.md (tier 4).
//!
//! Pure: built from a [`State`] alone, sorted, so that the same capture gives the same
//! bytes.

mod baseline;
mod c;
pub mod diff;
mod finding;
pub mod gc;
pub mod gc_advice;
pub mod goroutines;
mod kind;
mod life;
mod marks;
mod notes;
mod overhead;
mod phases;
mod sampling;
mod sites;
mod size_classes;
pub mod snapshot;
pub mod stream;
mod table;
#[cfg(test)]
mod tests;
pub mod timeline;
mod windows;

use std::time::{Duration, UNIX_EPOCH};

use regex::Regex;
use serde::Serialize;

pub use c::CSite;
pub use finding::{Evidence, Finding, LeakKind, Outcome, Series, Severity, Stage, StageName, Verdict};
pub use kind::Kind;
pub use life::{Life, LivePoint, Survival};
pub use marks::{Mark, Region};
pub use overhead::{Breaker, Cost};
pub use phases::Phase;
pub use sampling::{ErrorBytes, Sampling};
pub use sites::{Frame, Site};
pub use size_classes::SizeClass;
pub use table::{Grouping, Row, place, rows};
pub use windows::WindowSampling;

use crate::event::Mapping;
use crate::model::State;
use sampling::Estimator;
use sites::Sums;
use snapshot::Profile;

/// One capture, summed up.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    pub target: Target,
    pub capture: Capture,
    pub totals: Totals,
    pub sites: Vec<Site>,
    /// What C allocates; `None`: it was not followed.
    pub c_sites: Option<Vec<CSite>>,
    /// What was alive before the capture, as the runtime's own heap profiler had sampled
    /// it; `None`: it had not.
    pub before_attach: Option<Profile>,
    /// `None`: the runtime's counters were not read twice.
    pub size_classes: Option<Vec<SizeClass>>,
    pub gc: Vec<gc::GcCycle>,
    /// How long the world was stopped, by reason.
    pub stw: Vec<gc::Stops>,
    /// How long allocations had to wait for GC assists, by stack.
    pub assists: Vec<gc::Assists>,
    /// `None`: too few cycles were seen.
    pub gc_advice: Option<gc_advice::GcAdvice>,
    /// Of a session, else empty.
    pub phases: Vec<Phase>,
    /// What the user has marked.
    pub marks: Vec<Mark>,
    /// What the detectors say, which stand above this tier; `None`: nobody has asked them.
    pub verdict: Option<Verdict>,
    pub findings: Vec<Finding>,
}

/// The process that was captured.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Target {
    pub pid: u32,
    pub exe: String,
    pub build_id: Option<String>,
    pub go_version: String,
    pub arch: String,
    pub stripped: bool,
    pub pie: bool,
    pub cgo: bool,
    /// For pprof, which wants addresses explained; no part of the JSON.
    #[serde(skip)]
    pub maps: Vec<Mapping>,
}

/// How, when and how completely it was captured.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Capture {
    pub mode: String,
    /// `None`: every object was seen, and numbers are no estimates.
    pub sampling: Option<Sampling>,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// The same in nanoseconds since the Unix epoch; no part of the JSON.
    #[serde(skip)]
    pub started_unix_ns: u64,
    pub duration_s: f64,
    /// Allocation events received; where objects are sampled, samples.
    pub events: u64,
    /// Allocation events lost, all CPUs.
    pub lost: u64,
    /// GC cycles that were seen to finish marking during the capture.
    pub gc_cycles: u64,
    /// Cycles of which an event was lost.
    pub missed_gc_cycles: u64,
    /// `None` when the runtime's counters were not read twice.
    pub coverage: Option<Coverage>,
    /// `None`: objects were not followed after their allocation.
    pub following: Option<Following>,
    /// `None` when what a trap costs could not be measured.
    pub cost: Option<Cost>,
    /// `None` when allocations were recorded to the end.
    pub breaker: Option<Breaker>,
    pub notes: Vec<String>,
}

/// Seen over counted by the runtime itself, between the two readings of its counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Coverage {
    pub objects: f64,
    pub bytes: f64,
}

/// What it took to know which objects are alive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Following {
    /// GC cycles whose marks were read in full: as of the latest of them objects are alive.
    pub judged_gc_cycles: u64,
    /// Processor time that reading and comparing the marks of one cycle took, at most.
    pub longest_judgement_ns: u64,
    /// Objects followed at the end, and the memory that takes.
    pub objects: u64,
    pub memory_bytes: u64,
}

/// Sums over all sites, shown or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub alloc_objects: u64,
    /// By size class.
    pub alloc_bytes: u64,
    /// As asked for.
    pub requested_bytes: u64,
    /// Survivors of the latest GC cycle that was judged; `None`: there was none.
    pub live_objects: Option<u64>,
    pub live_bytes: Option<u64>,
}

/// What sites are ordered and measured by: objects, or bytes by size class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    #[default]
    AllocBytes,
    AllocObjects,
    /// What is not known to be alive counts as 0.
    LiveBytes,
    LiveObjects,
}

impl Measure {
    pub const ALL: [Measure; 4] =
        [Measure::AllocObjects, Measure::AllocBytes, Measure::LiveObjects, Measure::LiveBytes];

    pub fn of(self, site: &Site) -> u64 {
        match self {
            Measure::AllocBytes => site.alloc_bytes,
            Measure::AllocObjects => site.alloc_objects,
            Measure::LiveBytes => site.live_bytes.unwrap_or(0),
            Measure::LiveObjects => site.live_objects.unwrap_or(0),
        }
    }

    /// Of the whole capture.
    pub fn total(self, totals: &Totals) -> u64 {
        match self {
            Measure::AllocBytes => totals.alloc_bytes,
            Measure::AllocObjects => totals.alloc_objects,
            Measure::LiveBytes => totals.live_bytes.unwrap_or(0),
            Measure::LiveObjects => totals.live_objects.unwrap_or(0),
        }
    }

    pub fn is_bytes(self) -> bool {
        matches!(self, Measure::AllocBytes | Measure::LiveBytes)
    }
}

impl Report {
    /// Sums up everything in `state`, sites with most bytes first.
    pub fn build(state: &State) -> Report {
        let estimator = Estimator::of(state);
        let (sites, sums) = sites::build(state, &estimator);
        let start = state.start.clone().unwrap_or_default();
        let end_ns = state.end.map_or(state.latest_ns, |end| end.time_ns);
        let coverage = coverage(state, &sums);
        let mut report = Report {
            capture: Capture {
                mode: start.mode,
                sampling: Sampling::of(&estimator, state),
                started_at: rfc3339(start.unix_ns),
                started_unix_ns: start.unix_ns,
                duration_s: end_ns.saturating_sub(start.time_ns) as f64 / 1e9,
                events: state.events,
                lost: state.lost.values().fold(0, |sum: u64, (events, _)| sum.saturating_add(*events)),
                gc_cycles: state.gc_epochs.len() as u64,
                missed_gc_cycles: gc::missed(state),
                coverage,
                following: following(state),
                cost: overhead::cost(state),
                breaker: overhead::breaker(state),
                notes: Vec::new(),
            },
            target: target(start.target),
            totals: Totals {
                alloc_objects: sums.objects,
                alloc_bytes: sums.bytes,
                requested_bytes: sums.requested,
                live_objects: sums.live.map(|(objects, _)| objects),
                live_bytes: sums.live.map(|(_, bytes)| bytes),
            },
            sites,
            c_sites: c::build(state, start.time_ns),
            before_attach: baseline::build(state),
            size_classes: size_classes::build(state),
            gc: gc::timeline(state, &estimator, start.time_ns),
            stw: gc::stops(state),
            assists: gc::assists(state),
            gc_advice: gc_advice::build(state, start.time_ns),
            phases: phases::build(state, start.time_ns, end_ns),
            marks: marks::build(state),
            verdict: None,
            findings: Vec::new(),
        };
        report.capture.notes = notes::all(state, &report, &sums);
        report.sort_by(Measure::AllocBytes);
        report
    }

    /// Keeps the sites with a function that matches in any frame; totals stay.
    pub fn retain(&mut self, function: &Regex) {
        self.sites.retain(|site| names(&site.frames, function));
    }

    /// Puts the sites with most of `measure` first; equal ones in a fixed order.
    pub fn sort_by(&mut self, measure: Measure) {
        self.sites.sort_by(|a, b| {
            let key = |s: &Site| (measure.of(s), s.alloc_bytes, s.alloc_objects);
            key(b).cmp(&key(a)).then_with(|| a.frames.cmp(&b.frames)).then_with(|| a.id.cmp(&b.id))
        });
    }
}

/// Whether a function of the stack matches.
pub fn names(frames: &[Frame], function: &Regex) -> bool {
    frames.iter().any(|frame| function.is_match(&frame.function))
}

fn target(target: crate::event::Target) -> Target {
    Target {
        pid: target.pid,
        exe: target.exe,
        build_id: target.build_id,
        go_version: target.go_version,
        arch: target.arch,
        stripped: target.stripped,
        pie: target.pie,
        cgo: target.cgo,
        maps: target.maps,
    }
}

fn rfc3339(unix_ns: u64) -> String {
    // u64 nanoseconds end in the year 2554, within what RFC 3339 can write.
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_nanos(unix_ns)).to_string()
}

fn following(state: &State) -> Option<Following> {
    let live = state.live.as_ref()?;
    Some(Following {
        judged_gc_cycles: state.judged.len() as u64,
        longest_judgement_ns: state.judged.values().map(|cycle| cycle.judged.took_ns).max().unwrap_or(0),
        objects: live.objects(),
        memory_bytes: live.memory() as u64,
    })
}

fn coverage(state: &State, sums: &Sums) -> Option<Coverage> {
    let (first, last) = state.counters.as_ref()?;
    let objects = last.objects.checked_sub(first.objects)?;
    let bytes = last.bytes.checked_sub(first.bytes)?;
    if first.end_ns >= last.begin_ns {
        return None;
    }
    let ratio = |seen: u64, counted: u64| match (seen, counted) {
        (0, 0) => 1.0,
        _ => seen as f64 / counted as f64,
    };
    // Nothing counted though something was seen cannot be put as a ratio.
    let ratios =
        Coverage { objects: ratio(sums.counted_objects, objects), bytes: ratio(sums.counted_bytes, bytes) };
    (ratios.objects.is_finite() && ratios.bytes.is_finite()).then_some(ratios)
}
