//! What the model says of programs that are known.

use super::*;
use crate::event::{Event, GcCycle, GcTrigger};

const MIB: u64 = 1 << 20;
const MS: u64 = 1_000_000;

/// A cycle each 100 ms of a program on two Ps with 50 MiB alive: 10 ms of marking in 100 MiB.
fn cycle(number: u32) -> GcCycle {
    let at = u64::from(number) * 100 * MS;
    GcCycle {
        cycle: number,
        epoch: number,
        time_ns: at + 11 * MS,
        trigger: Some(GcTrigger::Heap),
        sweep_term_ns: at,
        mark_ns: at,
        mark_term_ns: at + 10 * MS,
        end_ns: at + 10 * MS,
        assist_ns: 5 * MS,
        dedicated_ns: 15 * MS,
        max_procs: 2,
        stw_procs: 2,
        heap_before: 95 * MIB,
        heap_after: 100 * MIB,
        heap_marked: 50 * MIB,
        heap_goal: 100 * MIB,
        gc_percent: 100,
        memory_limit: i64::MAX,
        ..GcCycle::default()
    }
}

fn advice(cycles: impl Iterator<Item = GcCycle>) -> Option<GcAdvice> {
    let mut state = State::default();
    cycles.for_each(|cycle| state.apply(&Event::GcCycle(cycle)));
    build(&state, 0)
}

fn scenario(advice: &GcAdvice, gogc: i32) -> Scenario {
    *advice.scenarios.iter().find(|s| s.gogc == Some(gogc)).expect("it was tried")
}

#[test]
fn twice_the_gogc_is_half_the_cycles() {
    let advice = advice((1..=11).map(cycle)).expect("cycles enough");
    assert_eq!((advice.seen.cycles, advice.seen.peak_heap_bytes), (10.0, 100 * MIB));
    assert!((advice.seen.gc_cpu_percent - 10.0).abs() < 1e-9, "{:?}", advice.seen);
    assert!((advice.fit - 1.0).abs() < 1e-9, "{advice:?}");
    assert_eq!(advice.assist_percent, 25.0);
    let (half, double) = (scenario(&advice, 50), scenario(&advice, 200));
    assert_eq!((half.cycles, half.peak_heap_bytes), (20.0, 75 * MIB));
    assert_eq!((double.cycles, double.peak_heap_bytes), (5.0, 150 * MIB));
    assert!((double.gc_cpu_percent - 5.0).abs() < 1e-9, "{double:?}");
    // A tenth above 100 MiB, less three percent that the runtime leaves alone.
    let limit = advice.scenarios.last().expect("one by limit");
    assert_eq!((limit.gogc, limit.memory_limit), (None, Some(110 * MIB)));
    assert!((limit.cycles - 500.0 / 56.7).abs() < 0.01, "{limit:?}");
    assert_eq!(advice.memory_limit.floor_bytes, 50 * MIB);
}

#[test]
fn cycles_that_were_asked_for_stay() {
    let forced = |number| GcCycle { trigger: Some(GcTrigger::Cycle), gc_percent: -1, ..cycle(number) };
    let advice = advice((1..=11).map(forced)).expect("cycles enough");
    // 50 MiB come between two of them: never enough for one at 100 or more.
    assert_eq!(scenario(&advice, 400).cycles, 10.0);
    assert_eq!(scenario(&advice, 50).cycles, 30.0);
}

#[test]
fn records_of_two_cycles_do_not_tell() {
    assert_eq!(advice((1..=2).map(cycle)), None);
    assert_eq!(advice([1, 2, 4, 6].into_iter().map(cycle)), None);
    let gap = advice((1..=5).chain(8..=12).map(cycle)).expect("cycles enough");
    assert_eq!((gap.seen.cycles, gap.allocated_bytes), (8.0, 400 * MIB));
}

#[test]
fn a_heap_at_its_limit_is_a_death_spiral() {
    let squeezed = |number| {
        let at = u64::from(number) * 12 * MS;
        GcCycle {
            sweep_term_ns: at,
            mark_ns: at,
            mark_term_ns: at + 10 * MS,
            end_ns: at + 10 * MS,
            heap_after: 52 * MIB,
            heap_before: 51 * MIB,
            heap_goal: 52 * MIB,
            memory_limit: 60 << 20,
            dedicated_ns: 6 * MS,
            ..cycle(number)
        }
    };
    let spiral = advice((1..=20).map(squeezed)).expect("cycles enough").death_spiral.expect("a spiral");
    assert_eq!((spiral.cycles, spiral.memory_limit, spiral.live_bytes), (19, 60 * MIB, 50 * MIB));
    assert!(spiral.cpu_limited, "{spiral:?}");
    // With room to its limit the same program is well.
    let roomy = |number| GcCycle { memory_limit: 600 << 20, ..cycle(number) };
    let advice = advice((1..=20).map(roomy)).expect("cycles enough");
    assert_eq!(advice.death_spiral, None);
    assert!(scenario(&advice, 50).cycles > 19.0);
}

#[test]
fn hostile_records_give_finite_numbers() {
    let odd = |number| GcCycle {
        cycle: number,
        epoch: number,
        heap_after: u64::MAX,
        end_ns: u64::MAX - u64::from(number),
        stw_procs: u32::MAX,
        mark_ns: u64::MAX,
        gc_percent: i32::MAX,
        memory_limit: i64::MIN,
        ..GcCycle::default()
    };
    let advice = advice((1..=9).map(odd)).expect("cycles enough");
    for s in advice.scenarios.iter().chain([&advice.seen]) {
        assert!(s.cycles.is_finite() && s.gc_cpu_percent.is_finite(), "{s:?}");
    }
    assert!(advice.fit.is_finite(), "{advice:?}");
}
