//! Captures with censuses of programs that leak, and of such that only look like it.

use crate::detect;
use crate::event::{
    Census, Event, FinalizerCensus, Frame, GoroutineCensus, GoroutineGroup, MemoryCensus, SizeClassCensus,
    StackId, Start,
};
use crate::model::State;
use crate::report::{Finding, LeakKind};

/// What is found in sixty censuses, two seconds apart, of a program in which goroutines that
/// `main.serve` creates stand in these functions, innermost first.
fn found(functions: &[&str], census: impl Fn(u64) -> Census) -> Vec<Finding> {
    let mut state = State::default();
    state.apply(&Event::Start(Start { time_ns: 1_000_000_000, ..Start::default() }));
    for (pc, function) in (1..).zip(["main.serve"].iter().chain(functions)) {
        let frame =
            Frame { function: (*function).into(), file: "main.go".into(), line: 7, ..Frame::default() };
        state.apply(&Event::Symbol { pc, frames: vec![frame] });
    }
    let pcs = (2..2 + functions.len() as u64).collect();
    state.apply(&Event::Stack { id: StackId(9), pcs });
    for n in 0..60 {
        let begin_ns = (1 + 2 * n) * 1_000_000_000;
        state.apply(&Event::Census(Census { begin_ns, end_ns: begin_ns + 1_000_000, ..census(n) }));
    }
    detect::report(&state).findings
}

/// So many goroutines in one group, the oldest of which has waited for so long.
fn goroutines(count: u64, state: &str, wait_s: u64) -> GoroutineCensus {
    let group = GoroutineGroup {
        go_pc: 1,
        state: state.into(),
        stack: Some(StackId(9)),
        count,
        stack_bytes: count * 4096,
        largest_stack_bytes: 4096,
        oldest_wait_ns: Some(wait_s * 1_000_000_000),
    };
    GoroutineCensus { count, stack_bytes: count * 4096, groups: vec![group] }
}

fn of_goroutines(count: u64, wait_s: u64) -> Census {
    Census { goroutines: Some(goroutines(count, "chan receive", wait_s)), ..Census::default() }
}

#[test]
fn goroutines_that_never_end_are_named_with_what_they_wait_for() {
    let stack = ["runtime.gopark", "runtime.chanrecv1", "main.await"];
    let [leak] = &found(&stack, |n| of_goroutines(10 + 6 * n, 2 * n))[..] else { panic!("one leak") };
    assert_eq!((leak.kind, leak.frames[0].function.as_str()), (LeakKind::Goroutine, "main.await"));
    assert!(leak.summary.contains("main.serve creates never end: 3.0 more each second wait in main.await"));
    assert!(leak.summary.contains("(chan receive)") && leak.advice.contains("close the channel"));
    assert!(leak.confidence > 0.9, "{}", leak.confidence);
    assert!((leak.growth_bytes_per_s - 3.0 * 4096.0).abs() < 1.0);
    // Each turn of a loop makes them wait anew.
    let [unsure] = &found(&stack, |n| of_goroutines(10 + 6 * n, 1))[..] else { panic!("one leak") };
    assert!(unsure.confidence < 0.8 * leak.confidence);
}

#[test]
fn goroutines_that_come_and_go_with_load_are_none() {
    let healthy: [fn(u64) -> u64; 6] = [
        |_| 5000,
        // Up, and down again, at random.
        |n| 300 + (n * 7919) % 200,
        // Steps, up and down, and up only.
        |n| [100, 400, 800, 400, 200, 100][n as usize / 10],
        |n| [100, 100, 400, 400, 800, 800][n as usize / 10],
        // A pool that fills.
        |n| (100 + 20 * n).min(500),
        // Few.
        |n| n / 5,
    ];
    for (number, count) in healthy.iter().enumerate() {
        assert_eq!(found(&["main.await"], |n| of_goroutines(count(n), 2 * n)), [], "{number}");
    }
    // The runtime's own.
    assert_eq!(
        found(&["runtime.gcBgMarkWorker"], |n| Census {
            goroutines: Some(GoroutineCensus {
                groups: vec![],
                ..goroutines(10 + 6 * n, "GC worker (idle)", 1)
            }),
            ..Census::default()
        }),
        []
    );
}

#[test]
fn connections_whose_body_nobody_closes_are_told_from_idle_ones() {
    let stack = ["runtime.gopark", "runtime.selectgo", "net/http.(*persistConn).readLoop"];
    let census = |state: &'static str| {
        move |n| Census { goroutines: Some(goroutines(10 + 6 * n, state, 2 * n)), ..Census::default() }
    };
    let [leak] = &found(&stack, census("select"))[..] else { panic!("one leak") };
    assert_eq!(leak.kind, LeakKind::HttpBody, "{}", leak.summary);
    assert!(found(&stack, census("IO wait")).iter().all(|idle| idle.kind != LeakKind::HttpBody));
}

#[test]
fn a_stuck_finalizer_is_named() {
    let queue = |n: u64| {
        let runners = goroutines(1, "chan send", 2 * n).groups;
        FinalizerCensus { finalizers: 10, queued: Some(100 * n), runners, ..FinalizerCensus::default() }
    };
    let stack = ["runtime.gopark", "main.(*file).close", "runtime.runFinalizers"];
    let census = |n| Census { finalizers: Some(queue(n)), ..Census::default() };
    let [leak] = &found(&stack, census)[..] else { panic!("one leak") };
    assert_eq!(leak.kind, LeakKind::Finalizer);
    assert!(leak.summary.contains("stuck in main.(*file).close: 50.0 more"), "{}", leak.summary);
    // Bursts that are worked off.
    let census = |n| Census { finalizers: Some(queue(n % 7)), ..Census::default() };
    assert_eq!(found(&stack, census), []);
}

#[test]
fn stacks_grow_by_depth_and_not_by_number() {
    let deep = |n: u64| {
        let mut all = goroutines(40, "sleep", 0);
        all.stack_bytes = (1 << 20) + n * (128 << 10);
        all.groups[0].largest_stack_bytes = 64 << 10;
        Census { goroutines: Some(all), ..Census::default() }
    };
    let stack = ["time.Sleep", "main.wait", "main.walk", "main.walk", "main.walk"];
    let [leak] = &found(&stack, deep)[..] else { panic!("one leak") };
    assert_eq!((leak.kind, leak.frames[0].function.as_str()), (LeakKind::StackGrowth, "main.walk"));
    let more = |n: u64| {
        let mut all = goroutines(40 + 5 * (n / 20), "sleep", 0);
        all.stack_bytes = all.count * (64 << 10);
        all.groups[0].largest_stack_bytes = 64 << 10;
        Census { goroutines: Some(all), ..Census::default() }
    };
    assert_eq!(found(&stack, more), []);
}

#[test]
fn sparse_spans_are_fragmentation_and_room_for_garbage_is_none() {
    let census = |in_use: u64| {
        move |_| Census {
            memory: Some(MemoryCensus {
                heap_inuse: in_use << 20,
                next_gc: 20 << 20,
                ..MemoryCensus::default()
            }),
            size_classes: vec![SizeClassCensus {
                slot_size: 256,
                spans: 640,
                bytes: 640 << 13,
                objects: 700,
                slots: 20480,
            }],
            ..Census::default()
        }
    };
    let [leak] = &found(&[], census(90))[..] else { panic!("one leak") };
    assert_eq!(leak.kind, LeakKind::Fragmentation);
    assert!(leak.evidence[1].what.starts_with("640 spans of 256-byte slots hold 700 objects"), "{leak:?}");
    assert_eq!(found(&[], census(24)), []);
}
