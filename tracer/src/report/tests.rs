//! How events become sites: trimming, merging, types and sizes learnt late, notes.

use super::*;
use crate::event::{
    self, Alloc, Counters, Event, Frame, Inferred, SiteId, StackId, Start, Tripped, TypeInfo, UNKNOWN_SLOT,
};

fn symbol(pc: u64, functions: &[&str]) -> Event {
    let last = functions.len().saturating_sub(1);
    let frames = functions
        .iter()
        .enumerate()
        .map(|(i, f)| Frame { function: (*f).into(), line: pc as u32, inlined: i < last, ..Frame::default() })
        .collect();
    Event::Symbol { pc, frames }
}

fn stack(id: u64, pcs: &[u64]) -> Event {
    Event::Stack { id: StackId(id), pcs: pcs.to_vec() }
}

fn alloc(stack: u64, type_addr: u64, size: u64, slot: u64) -> Event {
    Event::Alloc(Alloc { time_ns: 15, stack: StackId(stack), type_addr, size, slot, ..Alloc::default() })
}

fn named(addr: u64, name: &str) -> Event {
    Event::Type { addr, info: TypeInfo { name: name.into(), ..TypeInfo::default() } }
}

fn report(events: &[Event]) -> Report {
    let mut state = State::default();
    events.iter().for_each(|e| state.apply(e));
    Report::build(&state)
}

fn functions(site: &Site) -> Vec<&str> {
    site.frames.iter().map(|f| f.function.as_str()).collect()
}

#[test]
fn the_runtimes_innermost_frames_and_goexit_are_hidden() {
    let report = report(&[
        symbol(1, &["runtime.newobject"]),
        symbol(2, &["runtime.inlined", "main.f"]),
        symbol(3, &["runtime.main"]),
        symbol(4, &["runtime.goexit"]),
        stack(1, &[1, 2, 3, 4]),
        stack(2, &[1, 3, 4]),
        alloc(1, 0, 8, 8),
        alloc(2, 0, 8, 8),
    ]);
    let mut stacks: Vec<_> = report.sites.iter().map(|s| (functions(s), s.kind)).collect();
    stacks.sort();
    assert_eq!(
        stacks,
        [
            (vec!["main.f", "runtime.main"], Kind::Runtime),
            (vec!["runtime.newobject", "runtime.main"], Kind::Runtime),
        ]
    );
}

#[test]
fn stacks_that_read_the_same_are_one_site() {
    let report = report(&[
        symbol(7, &["main.f"]),
        Event::Symbol {
            pc: 8,
            frames: vec![Frame { function: "main.f".into(), line: 7, ..Frame::default() }],
        },
        stack(1, &[7]),
        stack(2, &[8]),
        alloc(1, 0, 8, 8),
        alloc(2, 0, 8, 8),
        // What follows tells sites apart: type, then kind.
        named(0x10, "main.T"),
        named(0x20, "struct { F uintptr; X0 int }"),
        alloc(1, 0x10, 8, 8),
        alloc(1, 0x20, 8, 8),
    ]);
    let got: Vec<_> = report.sites.iter().map(|s| (s.type_name.as_str(), s.kind, s.alloc_objects)).collect();
    let closure = "struct { F uintptr; X0 int }";
    assert_eq!(got[0], ("", Kind::Makeslice, 2));
    assert!(got[1..].contains(&("main.T", Kind::Newobject, 1)), "{got:?}");
    assert!(got[1..].contains(&(closure, Kind::Closure, 1)), "{got:?}");
    let mut ids: Vec<_> = report.sites.iter().map(|s| &s.id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[test]
fn what_is_learnt_after_an_allocation_counts() {
    let inferred =
        |type_addr, size| Event::Inferred(Inferred { site: SiteId(0), stack: StackId(1), type_addr, size });
    let events = [symbol(7, &["main.f"]), stack(1, &[7]), alloc(1, 0, 0, 48), named(0x10, "main.T")];
    let with = |more: &[Event]| {
        let report = report(&[&events[..], more].concat());
        let site = &report.sites[0];
        let by_class = report.capture.notes.iter().any(|n| n.contains("by size class only"));
        (site.type_name.clone(), site.alloc_bytes, site.requested_bytes, by_class)
    };
    assert_eq!(with(&[]), (String::new(), 48, 48, true));
    assert_eq!(with(&[inferred(Some(0x10), Some(40))]), ("main.T".into(), 48, 40, false));
    assert_eq!(with(&[inferred(Some(0), None)]), (String::new(), 48, 48, true));
    assert_eq!(with(&[inferred(None, Some(40))]), ("?".into(), 48, 40, false));
}

#[test]
fn what_is_unknown_is_shown_and_said() {
    let report = report(&[stack(1, &[0x123]), alloc(1, 0x99, 20, UNKNOWN_SLOT), alloc(5, 0, 8, 8)]);
    let mut shown: Vec<_> = report.sites.iter().map(|s| (functions(s)[0], s.alloc_bytes)).collect();
    shown.sort();
    assert_eq!(shown, [("(stack lost)", 8), ("0x123", 20)]);
    let notes = report.capture.notes.join("\n");
    for said in [
        "its beginning is missing",
        "unknown size class",
        "type that could not be read: 1",
        "without a symbol",
        "stack is not in the capture: 1",
        "live (pprof: inuse) objects and bytes are not known",
    ] {
        assert!(notes.contains(said), "{said} in\n{notes}");
    }
    assert!(!notes.contains("tiny"), "{notes}");
}

#[test]
fn coverage_is_seen_over_counted_and_said_when_partial() {
    let counters = |at, objects, bytes| {
        Event::Counters(Counters { begin_ns: at, end_ns: at, objects, bytes, ..Counters::default() })
    };
    let seen = [stack(1, &[7]), counters(10, 5, 80), alloc(1, 0, 16, 16), alloc(1, 0, 16, 16)];
    let with = |last: Event| report(&[&seen[..], &[last]].concat()).capture;
    assert_eq!(with(counters(20, 7, 112)).coverage, Some(Coverage { objects: 1.0, bytes: 1.0 }));
    let half = with(counters(20, 9, 112));
    assert_eq!(half.coverage, Some(Coverage { objects: 0.5, bytes: 1.0 }));
    assert!(half.notes.iter().any(|n| n.starts_with("only 50.00% of the objects")), "{:?}", half.notes);
    // Torn or foolish counters give none rather than nonsense.
    assert_eq!(with(counters(20, 4, 80)).coverage, None);
    assert_eq!(with(counters(20, 5, 80)).coverage, None);
    assert_eq!(with(counters(10, 7, 112)).coverage, None);
}

#[test]
fn the_cost_is_a_share_of_the_targets_processor_time() {
    let cost = |hits, cpu_ns| event::Cost { hits, trap_ns: 900, cpu_ns };
    for (cost, percent) in [(cost(0, 0), 0.0), (cost(100, 1_800_000), 5.0), (cost(100, 10), 100.0)] {
        let capture = report(&[Event::Cost(event::Cost::default()), Event::Cost(cost)]).capture;
        assert_eq!(capture.cost, Some(Cost { hits: cost.hits, trap_ns: 900, target_cpu_percent: percent }));
    }
    assert_eq!(report(&[]).capture.cost, None);
}

#[test]
fn a_breaker_that_tripped_is_said_with_what_it_leaves_uncertain() {
    let tripped = Tripped { time_ns: 1_500_000_010, overhead_percent: 86.25, limit_percent: 5.0 };
    let start = Event::Start(Start { time_ns: 10, ..Start::default() });
    let capture = report(&[start.clone(), Event::Tripped(tripped)]).capture;
    let breaker = Breaker { tripped_at_s: 1.5, overhead_percent: 86.25, limit_percent: 5.0 };
    assert_eq!((capture.breaker, capture.duration_s), (Some(breaker), 1.5));
    let said = |notes: &[String], what: &str| notes.iter().any(|note| note.contains(what));
    assert!(
        said(&capture.notes, "more than the 5% of --max-overhead: from 1.500 s on"),
        "{:?}",
        capture.notes
    );
    assert!(!said(&capture.notes, "took its slot"), "nothing was followed: {:?}", capture.notes);
    let followed = report(&[start, Event::Follow { max_memory: 1 << 20 }, Event::Tripped(tripped)]).capture;
    assert!(said(&followed.notes, "took its slot"), "{:?}", followed.notes);
}

#[test]
fn cycles_that_were_missed_are_counted() {
    let epoch = |epoch| Event::GcEpoch { epoch, time_ns: 100 };
    let later = Event::Alloc(Alloc { epoch: 6, ..Alloc::default() });
    let start = Event::Start(Start { time_ns: 40, ..Start::default() });
    let report = report(&[start, epoch(2), epoch(3), epoch(5), later]);
    assert_eq!((report.capture.gc_cycles, report.capture.missed_gc_cycles), (3, 2));
    assert_eq!(
        report.gc[0],
        gc::GcCycle { cycle: None, epoch: 2, mark_end_ns: 60, survivors: None, record: None }
    );
    let said = |report: &Report| report.capture.notes.iter().any(|n| n.contains("2 GC cycles"));
    assert!(said(&report), "{:?}", report.capture.notes);
}

#[test]
fn cycles_are_numbered_by_the_runtime_and_a_lost_record_is_a_missed_cycle() {
    let epoch = |epoch| Event::GcEpoch { epoch, time_ns: 100 + u64::from(epoch) };
    let record = |cycle: u32| {
        Event::GcCycle(event::GcCycle { cycle, epoch: cycle - 7, mark_term_ns: 50, ..Default::default() })
    };
    let numbers =
        |report: &Report| report.gc.iter().map(|row| (row.cycle, row.record.is_some())).collect::<Vec<_>>();
    // The capture began when marking had ended, and ended before a cycle had.
    let whole = report(&[record(7), epoch(1), record(8), epoch(2), record(9), epoch(3)]);
    assert_eq!(numbers(&whole), [(Some(7), true), (Some(8), true), (Some(9), true), (Some(10), false)]);
    assert_eq!((whole.capture.gc_cycles, whole.capture.missed_gc_cycles), (3, 0));
    assert_eq!(whole.gc[3].mark_end_ns, 103);

    for (events, missed) in [
        (vec![epoch(1), record(8), epoch(2), epoch(3), record(10)], 1),
        (vec![epoch(1), record(8), epoch(3), record(10)], 1),
        (vec![epoch(1), record(8), epoch(2), record(10)], 2),
        (vec![record(8), epoch(2), record(9)], 1),
        (vec![record(7)], 0),
    ] {
        assert_eq!(report(&events).capture.missed_gc_cycles, missed, "{events:?}");
    }
}
