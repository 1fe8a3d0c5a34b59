//! What happens during a recording, as it happens, and what each second of it adds up to.
//!
//! Pure, as all reports: the caller says when a summary is due and what time it is.

use hashbrown::HashMap;
use serde::Serialize;

use super::gc::{GcCycle, Survivors};
use super::{Breaker, Kind, Report, Site, Target, Totals, rfc3339, target};
use crate::event::{EndReason, Event};
use crate::model::State;

/// One line of a stream: docs/json.md.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Seconds since the capture began.
    pub time_s: f64,
    #[serde(flatten)]
    pub what: What,
}

/// What a line tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    Start(Start),
    Gc(GcCycle),
    Stw(Stw),
    Deaths(Deaths),
    Mark(Passed),
    Breaker(Breaker),
    Note { text: String },
    Summary(Summary),
    End { reason: EndReason, totals: Totals },
}

/// Who is recorded, and how.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Start {
    pub heaptap_version: String,
    pub mode: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    pub target: Target,
}

/// One stop of the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stw {
    /// In the runtime's words; `None` before Go 1.21, which names none.
    pub reason: Option<String>,
    pub duration_ns: u64,
}

/// A mark that was passed, or a region that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Passed {
    pub name: String,
    pub goroutine: u64,
    /// `None`: it is no region.
    pub duration_ns: Option<u64>,
}

/// What a GC cycle did to the objects that are followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deaths {
    /// As of the cycle's own line.
    pub epoch: u32,
    /// Slots whose objects were found dead since the cycle judged before.
    pub slots: u64,
    pub survivors: Survivors,
}

/// What has come since the summary before.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    pub interval_s: f64,
    /// Lines left out since the summary before, as the reader was too slow.
    pub dropped_lines: u64,
    /// Allocation events received, and lost.
    pub events: u64,
    pub lost: u64,
    /// Of estimates these may be negative: they are revised.
    pub alloc_objects: i64,
    pub alloc_bytes: i64,
    pub gc_cycles: u64,
    /// Survivors of the latest GC cycle that was judged; `None`: there was none.
    pub live_objects: Option<u64>,
    pub live_bytes: Option<u64>,
    /// As of now; `None`: not known.
    pub goroutines: Option<u64>,
    pub rss_bytes: Option<u64>,
    /// Share of the target's processor time that traps took; `None`: not known.
    pub target_cpu_percent: Option<f64>,
    /// Where most was allocated and where live bytes changed most.
    pub sites: Vec<SiteChange>,
}

/// What a site has done since the summary before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SiteChange {
    /// As of the site in a report.
    pub id: String,
    #[serde(rename = "type")]
    pub type_name: String,
    pub kind: Kind,
    /// Of the innermost frame.
    pub function: String,
    pub file: String,
    pub line: u32,
    pub alloc_objects: i64,
    pub alloc_bytes: i64,
    /// All that are alive, and how many more or less than before.
    pub live_objects: Option<u64>,
    pub live_bytes: Option<u64>,
    pub live_objects_delta: i64,
    pub live_bytes_delta: i64,
}

/// Sites that a summary names for each of the two reasons.
const SITES: usize = 10;

/// Makes lines of what a recording does.
#[derive(Debug, Default)]
pub struct Stream {
    start_ns: u64,
    /// Slots found dead in the cycle that is being judged.
    dead_slots: u64,
    /// Different notes told.
    notes: usize,
    /// What the summary before was made of.
    told: Told,
}

/// A capture as of one summary.
#[derive(Debug, Default)]
pub struct Told {
    time_ns: u64,
    events: u64,
    lost: u64,
    gc_cycles: u64,
    totals: Totals,
    /// Traps and processor time, in nanoseconds.
    cost: Option<(u64, u64)>,
    sites: HashMap<String, Amounts>,
}

/// Objects and bytes that a site has allocated, and has alive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Amounts {
    alloc: (u64, u64),
    live: (u64, u64),
}

impl Stream {
    /// The line of an event, if it has one, once `state` has taken it into account.
    pub fn line(&mut self, event: &Event, state: &State) -> Option<Line> {
        let (time_ns, what) = match event {
            Event::Start(start) => {
                self.start_ns = start.time_ns;
                self.told.time_ns = start.time_ns;
                let what = Start {
                    heaptap_version: start.heaptap_version.clone(),
                    mode: start.mode.clone(),
                    started_at: rfc3339(start.unix_ns),
                    target: target(start.target.clone()),
                };
                (start.time_ns, What::Start(what))
            }
            Event::GcCycle(cycle) => {
                let row = GcCycle::of(cycle, self.start_ns);
                (cycle.end_ns, What::Gc(row))
            }
            Event::Stw(stop) => {
                let duration_ns = stop.end_ns.saturating_sub(stop.begin_ns);
                (stop.begin_ns, What::Stw(Stw { reason: stop.reason.clone(), duration_ns }))
            }
            Event::Deaths { slots, .. } => {
                self.dead_slots += slots.len() as u64;
                return None;
            }
            Event::Judged(judged) => {
                let survivors = super::gc::survivors_of(state, judged.epoch)?;
                let slots = std::mem::take(&mut self.dead_slots);
                (judged.time_ns, What::Deaths(Deaths { epoch: judged.epoch, slots, survivors }))
            }
            Event::Mark(_) => {
                let passed = state.marks.latest?;
                let what = Passed {
                    name: state.marks.all.get(passed.mark)?.info.name.clone(),
                    goroutine: passed.goroutine,
                    duration_ns: passed.end_ns.map(|end_ns| end_ns.saturating_sub(passed.begin_ns)),
                };
                (passed.begin_ns, What::Mark(what))
            }
            Event::Tripped(tripped) => (tripped.time_ns, What::Breaker(super::overhead::breaker(state)?)),
            // The same thing is told once, as it is kept.
            Event::Note(text) if state.notes.len() > self.notes => {
                self.notes = state.notes.len();
                (state.latest_ns, What::Note { text: text.clone() })
            }
            Event::End(end) => {
                let totals = Report::build(state).totals;
                (end.time_ns, What::End { reason: end.reason, totals })
            }
            _ => return None,
        };
        Some(Line { time_s: self.seconds(time_ns), what })
    }

    /// Sums up what has come until `now_ns` since the summary before. That remains the one
    /// before, until [`Stream::told`] says that this one has reached the reader.
    pub fn summary(&self, state: &State, now_ns: u64, dropped_lines: u64) -> (Line, Told) {
        let report = Report::build(state);
        let now = Told::of(state, &report, now_ns);
        let before = &self.told;
        let gauges = state.gauges.unwrap_or_default();
        let summary = Summary {
            interval_s: now_ns.saturating_sub(before.time_ns) as f64 / 1e9,
            dropped_lines,
            events: now.events.saturating_sub(before.events),
            lost: now.lost.saturating_sub(before.lost),
            alloc_objects: difference(now.totals.alloc_objects, before.totals.alloc_objects),
            alloc_bytes: difference(now.totals.alloc_bytes, before.totals.alloc_bytes),
            gc_cycles: now.gc_cycles.saturating_sub(before.gc_cycles),
            live_objects: now.totals.live_objects,
            live_bytes: now.totals.live_bytes,
            goroutines: gauges.goroutines,
            rss_bytes: gauges.rss_bytes,
            target_cpu_percent: share(before.cost, now.cost),
            sites: self.changes(&report.sites),
        };
        (Line { time_s: self.seconds(now_ns), what: What::Summary(summary) }, now)
    }

    /// A summary was passed on: the next one begins where it ends.
    pub fn told(&mut self, told: Told) {
        self.told = told;
    }

    fn changes(&self, sites: &[Site]) -> Vec<SiteChange> {
        let mut changes: Vec<SiteChange> = sites
            .iter()
            .map(|site| SiteChange::of(site, self.told.sites.get(&site.id).copied().unwrap_or_default()))
            .filter(SiteChange::is_one)
            .collect();
        // Sites come in a fixed order, which a stable sort keeps among equals.
        changes.sort_by_key(|change| std::cmp::Reverse(change.alloc_bytes));
        let mut others = changes.split_off(changes.len().min(SITES));
        others.retain(|change| change.live_bytes_delta != 0);
        others.sort_by_key(|change| std::cmp::Reverse(change.live_bytes_delta.unsigned_abs()));
        others.truncate(SITES);
        changes.append(&mut others);
        changes
    }

    fn seconds(&self, time_ns: u64) -> f64 {
        time_ns.wrapping_sub(self.start_ns) as i64 as f64 / 1e9
    }
}

impl Told {
    fn of(state: &State, report: &Report, time_ns: u64) -> Told {
        Told {
            time_ns,
            events: report.capture.events,
            lost: report.capture.lost,
            gc_cycles: report.capture.gc_cycles,
            totals: report.totals,
            cost: state.cost.map(|cost| (cost.hits.saturating_mul(cost.trap_ns), cost.cpu_ns)),
            sites: report.sites.iter().map(|site| (site.id.clone(), Amounts::of(site))).collect(),
        }
    }
}

impl Amounts {
    fn of(site: &Site) -> Amounts {
        Amounts {
            alloc: (site.alloc_objects, site.alloc_bytes),
            live: (site.live_objects.unwrap_or(0), site.live_bytes.unwrap_or(0)),
        }
    }
}

impl SiteChange {
    fn of(site: &Site, before: Amounts) -> SiteChange {
        let now = Amounts::of(site);
        let innermost = site.frames.first();
        SiteChange {
            id: site.id.clone(),
            type_name: site.type_name.clone(),
            kind: site.kind,
            function: innermost.map_or_else(String::new, |frame| frame.function.clone()),
            file: innermost.map_or_else(String::new, |frame| frame.file.clone()),
            line: innermost.map_or(0, |frame| frame.line),
            alloc_objects: difference(now.alloc.0, before.alloc.0),
            alloc_bytes: difference(now.alloc.1, before.alloc.1),
            live_objects: site.live_objects,
            live_bytes: site.live_bytes,
            live_objects_delta: difference(now.live.0, before.live.0),
            live_bytes_delta: difference(now.live.1, before.live.1),
        }
    }

    fn is_one(&self) -> bool {
        [self.alloc_objects, self.alloc_bytes, self.live_objects_delta, self.live_bytes_delta] != [0; 4]
    }
}

fn difference(now: u64, before: u64) -> i64 {
    now.wrapping_sub(before) as i64
}

/// What traps took of the processor time used from one reading to the next, in percent.
fn share(before: Option<(u64, u64)>, now: Option<(u64, u64)>) -> Option<f64> {
    let (now, before) = (now?, before.unwrap_or_default());
    let (traps, cpu) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
    match (traps, cpu) {
        (0, _) => Some(0.0),
        // What was measured elsewhere may be more than what was used here.
        _ => Some(100.0 * (traps as f64 / cpu as f64).min(1.0)),
    }
}
