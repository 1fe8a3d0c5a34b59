//! What happened when, beyond what a report sums up: for exporters that draw it.
//!
//! Pure, built from events alone, and bounded: of what comes too often the rest is counted.

use crate::event::{Assist, Event, Gauges, Stw};
use crate::model::{Marks, Passed};

/// Events kept of each kind; a few MiB of each.
const MOST: usize = 1 << 17;

/// Instants of CLOCK_MONOTONIC in nanoseconds, each kind in the order of the capture.
#[derive(Debug, Default)]
pub struct Timeline {
    /// When the capture began.
    pub start_ns: u64,
    pub stops: Kept<Stw>,
    pub assists: Kept<Assist>,
    pub readings: Kept<Reading>,
    pub gauges: Kept<Gauges>,
    /// Marks that were passed and regions that have ended, in the order of their ends.
    pub marks: Kept<Passed>,
    /// To tell which begin an end belongs to.
    matching: Marks,
}

/// The runtime's own counters at one time: cumulative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    pub time_ns: u64,
    pub objects: u64,
    pub bytes: u64,
}

/// The first of a kind, and how many more there were.
#[derive(Debug)]
pub struct Kept<T> {
    pub first: Vec<T>,
    pub left_out: u64,
}

impl<T> Default for Kept<T> {
    fn default() -> Kept<T> {
        Kept { first: Vec::new(), left_out: 0 }
    }
}

impl<T> Kept<T> {
    fn add(&mut self, another: T) {
        if self.first.len() < MOST {
            self.first.push(another);
        } else {
            self.left_out += 1;
        }
    }
}

impl Timeline {
    /// Takes one event into account.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Start(start) => self.start_ns = start.time_ns,
            Event::Stw(stop) => self.stops.add(stop.clone()),
            Event::Assist(assist) => self.assists.add(*assist),
            Event::Counters(counters) => self.readings.add(Reading {
                time_ns: counters.begin_ns.midpoint(counters.end_ns),
                objects: counters.objects,
                bytes: counters.bytes,
            }),
            Event::Gauges(gauges) => self.gauges.add(*gauges),
            Event::Marks(infos) => self.matching.define(infos),
            Event::Mark(mark) => {
                self.matching.passed(mark);
                if let Some(passed) = self.matching.latest {
                    self.marks.add(passed);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_too_often_is_counted() {
        let mut timeline = Timeline::default();
        for begin_ns in 0..MOST as u64 + 7 {
            timeline.apply(&Event::Assist(Assist { goroutine: 1, begin_ns, end_ns: begin_ns }));
        }
        let assists = &timeline.assists;
        assert_eq!((assists.first.len(), assists.left_out), (MOST, 7));
        assert_eq!(assists.first.last().map(|assist| assist.begin_ns), Some(MOST as u64 - 1));
        assert!(timeline.stops.first.is_empty());
    }
}
