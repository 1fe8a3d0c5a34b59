//! What the events add up to: allocations by call, the live heap, GC epochs, loss (tier 2).
//!
//! [`State::apply`] is all there is to it: no I/O, no clock, so the same events give
//! the same state. It keeps ids and addresses; `report` joins them with names.

mod c;
mod calls;
mod censuses;
mod holding;
mod live;
mod marks;
#[cfg(test)]
mod tests;
mod windows;

use std::collections::BTreeMap;

use hashbrown::HashMap;

pub use c::CHeap;
pub use calls::{Call, CallSums, Calls, Tally};
pub use censuses::Censuses;
pub use holding::{HeldTrack, Holding, Track};
pub use live::{AGES, Alive, Births, ByAge, Died, Fate, Live, LivePoint, Placed, median_slope, slot_name};
pub use marks::{Marked, Marks, Passed};
pub use windows::{Batch, Told, Windows};

use crate::event::{
    Alloc, Assist, Baseline, Cost, Counters, End, Event, Frame, Gauges, GcCycle, Inferred, Judged, Phase,
    SiteId, SiteInfo, StackId, Start, Tripped, TypeInfo,
};

/// Everything known after some events of a capture.
#[derive(Debug, Default)]
pub struct State {
    pub start: Option<Start>,
    pub end: Option<End>,
    pub sites: Vec<SiteInfo>,
    pub calls: Calls,
    pub stacks: HashMap<StackId, Box<[u64]>>,
    pub symbols: HashMap<u64, Vec<Frame>>,
    pub types: HashMap<u64, TypeInfo>,
    pub inferred: HashMap<(SiteId, StackId), Inferred>,
    /// When marking finished, CLOCK_MONOTONIC nanoseconds, by the epoch that then began.
    pub gc_epochs: BTreeMap<u32, u64>,
    /// What the runtime recorded of its cycles, by their number.
    pub gc_cycles: BTreeMap<u32, GcCycle>,
    /// How long the world was stopped, by the runtime's reason for it.
    pub stops: BTreeMap<Option<String>, Durations>,
    /// How long allocations had to wait for their goroutine to assist the GC, by stack.
    pub assists: HashMap<StackId, Durations>,
    /// Assists of goroutines whose next allocation is still to come.
    assisting: HashMap<u64, Durations>,
    /// What the user has marked.
    pub marks: Marks,
    /// The objects still alive; `None`: they are not followed.
    pub live: Option<Live>,
    /// GC cycles judged in full, by the epoch that then began.
    pub judged: BTreeMap<u32, JudgedCycle>,
    /// Phases of the session that has recorded, in order.
    pub phases: Vec<Phase>,
    /// Cumulative (events, stacks) lost, by CPU.
    pub lost: BTreeMap<u32, (u64, u64)>,
    /// The first and the latest reading of the runtime's counters.
    pub counters: Option<(Counters, Counters)>,
    /// How things stood with the process when that was last read.
    pub gauges: Option<Gauges>,
    /// What else there was in the process, at times.
    pub census: Censuses,
    /// Windows in which objects were seen; `None`: they were seen all the time.
    pub windows: Option<Windows>,
    /// What the probes cost as of the latest reading; `None`: it is not known.
    pub cost: Option<Cost>,
    /// From when on, and why, no allocation was recorded.
    pub tripped: Option<Tripped>,
    /// Who holds objects, and the largest maps and channels; empty while nobody has looked.
    pub holding: Holding,
    /// What was alive before the capture; `None`: it was not looked at.
    pub baseline: Option<Baseline>,
    /// What C allocates; `None`: it is not followed.
    pub c: Option<CHeap>,
    pub notes: Vec<String>,
    /// Allocations applied.
    pub events: u64,
    /// Of these, tiny objects that fitted an existing block.
    pub tiny_fits: u64,
    /// The latest time of any event, CLOCK_MONOTONIC nanoseconds; 0: none.
    pub latest_ns: u64,
    /// The highest epoch known: every allocation of an earlier one has been applied, as
    /// the world was stopped in between.
    pub latest_epoch: u32,
}

/// How often something took place and how long it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durations {
    pub count: u64,
    pub total_ns: u64,
    pub longest_ns: u64,
}

impl Durations {
    fn add(&mut self, begin_ns: u64, end_ns: u64) {
        let length = end_ns.saturating_sub(begin_ns);
        self.merge(&Durations { count: 1, total_ns: length, longest_ns: length });
    }

    /// Adds those of another.
    pub fn merge(&mut self, other: &Durations) {
        self.count += other.count;
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
        self.longest_ns = self.longest_ns.max(other.longest_ns);
    }
}

/// A GC cycle of which is known what survived it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedCycle {
    pub judged: Judged,
    /// Objects and bytes that survived, of those followed, by `Call::sampled_slot`.
    pub live: BTreeMap<u64, (u64, u64)>,
}

impl State {
    /// Takes one event into account. Events of different CPUs may come out of order;
    /// [`Event::Counters`] says what its place in the stream means.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Alloc(alloc) => self.alloc(alloc),
            Event::Counted(all) => {
                for counted in all {
                    self.events = self.events.wrapping_add(counted.objects);
                    let fits = if counted.slot == 0 { counted.objects } else { 0 };
                    self.tiny_fits = self.tiny_fits.wrapping_add(fits);
                    let call = self.calls.add_counted(counted, self.is_sampled());
                    if counted.died
                        && let Some(live) = &mut self.live
                    {
                        live.died_unseen(call, counted);
                    }
                }
            }
            Event::FollowC { library } => self.c = Some(CHeap::new(library)),
            Event::CCounts(counts) => {
                self.latest_ns = self.latest_ns.max(counts.time_ns);
                if let Some(c) = &mut self.c {
                    c.add(counts);
                }
            }
            Event::Stack { id, pcs } => {
                self.stacks.insert(*id, pcs.as_slice().into());
            }
            Event::Symbol { pc, frames } => {
                self.symbols.insert(*pc, frames.clone());
            }
            Event::Type { addr, info } => {
                self.types.insert(*addr, info.clone());
            }
            Event::Inferred(inferred) => {
                self.inferred.insert((inferred.site, inferred.stack), *inferred);
            }
            Event::Start(start) => {
                self.latest_ns = self.latest_ns.max(start.time_ns);
                self.start = Some(start.clone());
                self.windows = start.budget_percent.map(|_| Windows::default());
            }
            Event::Sites(sites) => self.sites.clone_from(sites),
            Event::GcEpoch { epoch, time_ns } => {
                self.latest_ns = self.latest_ns.max(*time_ns);
                self.latest_epoch = self.latest_epoch.max(*epoch);
                self.gc_epochs.insert(*epoch, *time_ns);
            }
            Event::GcCycle(cycle) => {
                self.latest_ns = self.latest_ns.max(cycle.time_ns);
                self.gc_cycles.insert(cycle.cycle, *cycle);
            }
            Event::Assist(Assist { goroutine, begin_ns, end_ns }) => {
                self.latest_ns = self.latest_ns.max(*end_ns);
                self.assisting.entry(*goroutine).or_default().add(*begin_ns, *end_ns);
            }
            Event::Stw(stop) => {
                self.latest_ns = self.latest_ns.max(stop.end_ns);
                self.stops.entry(stop.reason.clone()).or_default().add(stop.begin_ns, stop.end_ns);
            }
            Event::Phase(phase) => {
                self.latest_ns = self.latest_ns.max(phase.begin_ns);
                self.phases.push(phase.clone());
            }
            Event::Marks(infos) => self.marks.define(infos),
            Event::Mark(mark) => {
                self.latest_ns = self.latest_ns.max(mark.time_ns);
                self.marks.passed(mark);
            }
            Event::Follow { max_memory } => {
                self.live = Some(Live::new(*max_memory, self.windows.is_some()));
            }
            Event::Deaths { epoch, slots } => {
                if let Some(live) = &mut self.live {
                    live.deaths(*epoch, slots);
                }
            }
            Event::Judged(judged) => {
                if let Some(live) = &mut self.live {
                    let calls = &self.calls;
                    let live = live.judged(judged.epoch, judged.time_ns, |call| calls.sampled_slot(call));
                    self.judged.insert(judged.epoch, JudgedCycle { judged: *judged, live });
                }
            }
            Event::Lost { cpu, events, stacks } => {
                let lost = self.lost.entry(*cpu).or_default();
                *lost = (lost.0.max(*events), lost.1.max(*stacks));
            }
            Event::Counters(counters) => {
                self.calls.reading(counters.begin_ns.midpoint(counters.end_ns));
                let first = self.counters.take().map_or_else(|| counters.clone(), |(first, _)| first);
                self.counters = Some((first, counters.clone()));
            }
            Event::Gauges(gauges) => {
                self.latest_ns = self.latest_ns.max(gauges.time_ns);
                self.gauges = Some(*gauges);
            }
            Event::Holders(holders) => {
                self.latest_ns = self.latest_ns.max(holders.time_ns);
                self.holding.add(holders);
            }
            Event::Census(census) => {
                self.latest_ns = self.latest_ns.max(census.end_ns);
                self.census.add(census);
            }
            Event::Window(window) => {
                self.latest_ns = self.latest_ns.max(window.end_ns);
                if let Some(windows) = &mut self.windows {
                    let weights = windows.ended(window, |call| self.calls.sampled_slot(call));
                    if let Some(live) = &mut self.live {
                        live.window_ended(weights);
                    }
                }
            }
            Event::Cost(cost) => self.cost = Some(*cost),
            Event::Tripped(tripped) => {
                self.latest_ns = self.latest_ns.max(tripped.time_ns);
                self.tripped = Some(*tripped);
            }
            Event::Baseline(baseline) => {
                let known = self.baseline.get_or_insert_default();
                known.rate = baseline.rate;
                known.rows.extend_from_slice(&baseline.rows);
            }
            // The same thing is worth saying once.
            Event::Note(note) if self.notes.contains(note) => {}
            Event::Note(note) => self.notes.push(note.clone()),
            Event::End(end) => {
                self.latest_ns = self.latest_ns.max(end.time_ns);
                self.end = Some(*end);
            }
        }
    }

    /// Whether each object seen stands for others.
    fn is_sampled(&self) -> bool {
        self.windows.is_some() || self.start.as_ref().is_some_and(|start| start.sampling_rate.is_some())
    }

    fn alloc(&mut self, alloc: &Alloc) {
        self.events += 1;
        self.tiny_fits += u64::from(alloc.slot == 0);
        self.latest_ns = self.latest_ns.max(alloc.time_ns);
        self.latest_epoch = self.latest_epoch.max(alloc.epoch);
        if !self.assisting.is_empty()
            && let Some(assists) = self.assisting.remove(&alloc.goroutine)
        {
            self.assists.entry(alloc.stack).or_default().merge(&assists);
        }
        let call = self.calls.add(alloc, self.is_sampled());
        if let Some(windows) = &mut self.windows {
            windows.seen(call);
        }
        if let Some(live) = &mut self.live {
            live.born(call, alloc);
        }
    }
}
