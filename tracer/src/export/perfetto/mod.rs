//! Reports as Perfetto traces, for <https://ui.perfetto.dev>: counters and slices over time.

mod proto;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use prost::Message;

use self::proto::{
    CLOCK_MONOTONIC, CLOCK_REALTIME, Clock, ClockSnapshot, CounterDescriptor, DebugAnnotation,
    ProcessDescriptor, Trace, TracePacket, TrackDescriptor, TrackEvent, Type, Unit,
};
use super::put;
use crate::base::{Fnv1a, Result};
use crate::event::{Gauges, GcTrigger};
use crate::report::Report;
use crate::report::gc::{GcCycle, GcRecord};
use crate::report::timeline::{Kept, Reading, Timeline};

/// Writes what happened when: counters of the heap and of goroutines, GC cycles with their phases, stops of the
/// world, assists by goroutine, phases of a session, marks.
///
/// # Errors
/// When `out` does not take it; a closed pipe is no error.
pub fn write(report: &Report, timeline: &Timeline, out: &mut impl Write) -> Result<()> {
    let mut builder = Builder::new(report, timeline);
    builder.clocks(report.capture.started_unix_ns);
    builder.process(report);
    builder.capture(report);
    let cycles: Vec<Cycle<'_>> = report.gc.iter().filter_map(|row| Cycle::of(row, timeline)).collect();
    builder.heap(&cycles);
    builder.rates(&timeline.readings.first);
    builder.gauges(&timeline.gauges.first);
    builder.cycles(&cycles);
    builder.stops(timeline);
    builder.assists(timeline);
    builder.phases(report);
    builder.marks(report, timeline);
    put(out, &builder.trace)
}

/// All packets are of one writer, as the format calls it.
const SEQUENCE: u32 = 1;

/// A trace under way.
struct Builder {
    /// Encoded: messages of which a field is repeated may be written one after the other.
    trace: Vec<u8>,
    /// Of the tracks, which are numbered from here: no two traces share any.
    process: u64,
    tracks: u64,
    start_ns: u64,
}

/// A cycle whose record makes sense, with its instants on the clock of the trace.
struct Cycle<'r> {
    row: &'r GcCycle,
    record: &'r GcRecord,
    /// The world is to be stopped, marking begins, ends, and the cycle has ended.
    times: [u64; 4],
}

impl<'r> Cycle<'r> {
    fn of(row: &'r GcCycle, timeline: &Timeline) -> Option<Cycle<'r>> {
        let record = row.record.as_ref()?;
        let relative = [record.start_ns, record.mark_start_ns, row.mark_end_ns, record.end_ns];
        let times = relative.map(|ns| timeline.start_ns.saturating_add_signed(ns));
        times.is_sorted().then_some(Cycle { row, record, times })
    }

    fn facts(&self) -> Vec<DebugAnnotation> {
        let record = self.record;
        let trigger = match record.trigger {
            Some(GcTrigger::Heap) => "heap",
            Some(GcTrigger::Time) => "time",
            Some(GcTrigger::Cycle) => "cycle",
            None => "unknown",
        };
        let mut facts = vec![
            text("trigger", trigger),
            number("heap_before", record.heap_before),
            number("heap_after", record.heap_after),
            number("heap_live", record.heap_live),
            number("heap_goal", record.heap_goal),
            number("assist_ns", record.assist_ns),
            number("dedicated_ns", record.dedicated_ns),
            number("fractional_ns", record.fractional_ns),
            number("idle_ns", record.idle_ns),
            number("cpu_percent", record.cpu_percent.into()),
        ];
        if let Some(survivors) = self.row.survivors {
            facts.push(number("survivors_objects", survivors.objects));
            facts.push(number("survivors_bytes", survivors.bytes));
        }
        facts
    }
}

impl Builder {
    fn new(report: &Report, timeline: &Timeline) -> Builder {
        let mut hash = Fnv1a::default();
        hash.add(b"heaptap");
        hash.add(&report.target.pid.to_le_bytes());
        hash.add(&timeline.start_ns.to_le_bytes());
        Builder { trace: Vec::new(), process: hash.hash(), tracks: 0, start_ns: timeline.start_ns }
    }

    fn packet(&mut self, packet: TracePacket) {
        let packet = TracePacket { trusted_packet_sequence_id: Some(SEQUENCE), ..packet };
        self.trace.extend(Trace { packet: vec![packet] }.encode_to_vec());
    }

    /// Times are those of the capture, so that another trace of the same machine fits.
    fn clocks(&mut self, unix_ns: u64) {
        let clock = |clock_id, timestamp| Clock { clock_id: Some(clock_id), timestamp: Some(timestamp) };
        let snapshot = ClockSnapshot {
            clocks: vec![clock(CLOCK_MONOTONIC, self.start_ns), clock(CLOCK_REALTIME, unix_ns)],
            primary_trace_clock: Some(CLOCK_MONOTONIC),
        };
        self.packet(TracePacket { clock_snapshot: Some(snapshot), ..TracePacket::default() });
    }

    fn process(&mut self, report: &Report) {
        let name = report.target.exe.rsplit('/').next().unwrap_or_default();
        let process = ProcessDescriptor {
            pid: i32::try_from(report.target.pid).ok(),
            process_name: Some(name.to_owned()),
        };
        self.describe(TrackDescriptor {
            uuid: Some(self.process),
            process: Some(process),
            ..TrackDescriptor::default()
        });
    }

    fn describe(&mut self, track: TrackDescriptor) {
        self.packet(TracePacket { track_descriptor: Some(track), ..TracePacket::default() });
    }

    /// A track of the process, or of a group of its tracks.
    fn track(&mut self, name: &str, parent: u64, counter: Option<Unit>) -> u64 {
        self.tracks += 1;
        let uuid = self.process.wrapping_add(self.tracks);
        self.describe(TrackDescriptor {
            uuid: Some(uuid),
            name: Some(name.to_owned()),
            parent_uuid: Some(parent),
            counter: counter.map(|unit| CounterDescriptor { unit: Some(unit.into()) }),
            ..TrackDescriptor::default()
        });
        uuid
    }

    fn event(&mut self, track: u64, time_ns: u64, of: Type, event: TrackEvent) {
        let event = TrackEvent { r#type: Some(of.into()), track_uuid: Some(track), ..event };
        self.packet(TracePacket {
            timestamp: Some(time_ns),
            timestamp_clock_id: Some(CLOCK_MONOTONIC),
            track_event: Some(event),
            ..TracePacket::default()
        });
    }

    fn begin(&mut self, track: u64, time_ns: u64, name: &str, facts: Vec<DebugAnnotation>) {
        self.event(track, time_ns, Type::SliceBegin, named(name, facts));
    }

    fn end(&mut self, track: u64, time_ns: u64) {
        self.event(track, time_ns, Type::SliceEnd, TrackEvent::default());
    }

    fn instant(&mut self, track: u64, time_ns: u64, name: &str, facts: Vec<DebugAnnotation>) {
        self.event(track, time_ns, Type::Instant, named(name, facts));
    }

    fn value(&mut self, track: u64, time_ns: u64, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        let event = TrackEvent { counter_value: Some(value), ..TrackEvent::default() };
        self.event(track, time_ns, Type::Counter, event);
    }

    /// How it was captured, and what to know before trusting it.
    fn capture(&mut self, report: &Report) {
        let track = self.track("heaptap", self.process, None);
        let capture = &report.capture;
        let mut facts = vec![text("mode", &capture.mode), text("go_version", &report.target.go_version)];
        facts.extend(capture.notes.iter().map(|note| text("note", note)));
        self.instant(track, self.start_ns, "capture begins", facts);
        if let Some(breaker) = capture.breaker {
            let after_ns = (breaker.tripped_at_s * 1e9) as u64;
            let what = "probes on allocations removed (--max-overhead)";
            self.instant(track, self.start_ns.saturating_add(after_ns), what, Vec::new());
        }
        let ended_ns = self.start_ns.saturating_add((capture.duration_s * 1e9) as u64);
        self.instant(track, ended_ns, "capture ends", Vec::new());
    }

    /// What is known of the heap's size: at the ends of the phases of each cycle.
    fn heap(&mut self, cycles: &[Cycle<'_>]) {
        let live = self.track("heap live", self.process, Some(Unit::SizeBytes));
        let goal = self.track("heap goal", self.process, Some(Unit::SizeBytes));
        let mut since = None;
        for cycle in cycles {
            let [begin, _, marked, end] = cycle.times;
            self.value(live, begin, cycle.record.heap_before);
            self.value(live, marked, cycle.record.heap_after);
            self.value(live, end, cycle.record.heap_live);
            // It was set when the cycle before had ended.
            self.value(goal, since.unwrap_or(begin), cycle.record.heap_goal);
            since = Some(end);
        }
    }

    /// What the runtime counted from one reading of its counters to the next.
    fn rates(&mut self, readings: &[Reading]) {
        let bytes = self.track("allocated bytes per second", self.process, Some(Unit::SizeBytes));
        let objects = self.track("allocated objects per second", self.process, Some(Unit::Count));
        for pair in readings.windows(2) {
            let [from, to] = pair else { continue };
            let length = to.time_ns.saturating_sub(from.time_ns);
            if length == 0 {
                continue;
            }
            let rate = |more: u64| (more as f64 * 1e9 / length as f64).round() as u64;
            self.value(bytes, from.time_ns, rate(to.bytes.saturating_sub(from.bytes)));
            self.value(objects, from.time_ns, rate(to.objects.saturating_sub(from.objects)));
        }
    }

    fn gauges(&mut self, gauges: &[Gauges]) {
        let resident = self.track("resident memory", self.process, Some(Unit::SizeBytes));
        let goroutines = self.track("goroutines", self.process, Some(Unit::Count));
        for gauge in gauges {
            for (track, value) in [(resident, gauge.rss_bytes), (goroutines, gauge.goroutines)] {
                if let Some(value) = value {
                    self.value(track, gauge.time_ns, value);
                }
            }
        }
    }

    fn cycles(&mut self, cycles: &[Cycle<'_>]) {
        let track = self.track("GC cycles", self.process, None);
        for cycle in cycles {
            let [begin, .., end] = cycle.times;
            let number = cycle.row.cycle.map_or_else(|| "GC".to_owned(), |number| format!("GC {number}"));
            self.begin(track, begin, &number, cycle.facts());
            let phases = ["sweep termination", "mark", "mark termination"];
            for (phase, times) in phases.iter().zip(cycle.times.windows(2)) {
                let [from, to] = times else { continue };
                self.begin(track, *from, phase, Vec::new());
                self.end(track, *to);
            }
            self.end(track, end);
        }
    }

    fn stops(&mut self, timeline: &Timeline) {
        let track = self.track("stop the world", self.process, None);
        for stop in &timeline.stops.first {
            let reason = stop.reason.as_deref().unwrap_or("stop the world");
            self.begin(track, stop.begin_ns, reason, Vec::new());
            self.end(track, stop.end_ns.max(stop.begin_ns));
        }
        self.left_out(track, &timeline.stops, |stop| stop.end_ns);
    }

    /// Assists, on a track for each goroutine.
    fn assists(&mut self, timeline: &Timeline) {
        let assists = &timeline.assists;
        if assists.first.is_empty() {
            return;
        }
        let group = self.track("GC assists", self.process, None);
        let tracks = self.tracks_of(group, assists.first.iter().map(|assist| assist.goroutine));
        for assist in &assists.first {
            let Some(&track) = tracks.get(&assist.goroutine) else { continue };
            self.begin(track, assist.begin_ns, "assist", Vec::new());
            self.end(track, assist.end_ns.max(assist.begin_ns));
        }
        self.left_out(group, assists, |assist| assist.end_ns);
    }

    fn phases(&mut self, report: &Report) {
        if report.phases.is_empty() {
            return;
        }
        let track = self.track("phases", self.process, None);
        let at = |seconds: f64| (seconds * 1e9) as u64;
        for phase in &report.phases {
            self.begin(track, self.start_ns.saturating_add(at(phase.begin_s)), &phase.name, Vec::new());
            self.end(track, self.start_ns.saturating_add(at(phase.end_s)));
        }
    }

    /// Marks, on a track for each goroutine that has passed any.
    fn marks(&mut self, report: &Report, timeline: &Timeline) {
        let marks = &timeline.marks;
        if marks.first.is_empty() {
            return;
        }
        let group = self.track("marks", self.process, None);
        let tracks = self.tracks_of(group, marks.first.iter().map(|passed| passed.goroutine));
        for passed in &marks.first {
            let (Some(&track), Some(mark)) = (tracks.get(&passed.goroutine), report.marks.get(passed.mark))
            else {
                continue;
            };
            match passed.end_ns {
                Some(end_ns) => {
                    self.begin(track, passed.begin_ns, &mark.name, Vec::new());
                    self.end(track, end_ns.max(passed.begin_ns));
                }
                None => self.instant(track, passed.begin_ns, &mark.name, Vec::new()),
            }
        }
        self.left_out(group, marks, |passed| passed.end_ns.unwrap_or(passed.begin_ns));
    }

    /// A track for each goroutine among these.
    fn tracks_of(&mut self, group: u64, goroutines: impl Iterator<Item = u64>) -> BTreeMap<u64, u64> {
        let goroutines: BTreeSet<u64> = goroutines.collect();
        let named = |&goroutine: &u64| match goroutine {
            // A descriptor's address, as there is no number that large.
            address if address >> 32 != 0 => format!("goroutine {address:#x}"),
            number => format!("goroutine {number}"),
        };
        goroutines.iter().map(|goroutine| (*goroutine, self.track(&named(goroutine), group, None))).collect()
    }

    /// Says where a track ends for want of room.
    fn left_out<T>(&mut self, track: u64, kept: &Kept<T>, end_ns: impl Fn(&T) -> u64) {
        if let (Some(last), 1..) = (kept.first.last(), kept.left_out) {
            let facts = vec![number("left_out", kept.left_out)];
            self.instant(track, end_ns(last), "there are more: left out from here on", facts);
        }
    }
}

fn named(name: &str, facts: Vec<DebugAnnotation>) -> TrackEvent {
    TrackEvent { name: Some(name.to_owned()), debug_annotations: facts, ..TrackEvent::default() }
}

fn text(name: &str, value: &str) -> DebugAnnotation {
    DebugAnnotation {
        string_value: Some(value.to_owned()),
        name: Some(name.to_owned()),
        ..Default::default()
    }
}

fn number(name: &str, value: u64) -> DebugAnnotation {
    DebugAnnotation { uint_value: Some(value), name: Some(name.to_owned()), ..Default::default() }
}
