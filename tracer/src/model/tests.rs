//! What events add up to, and that their order across CPUs does not matter.

use proptest::prelude::*;

use super::*;
use crate::event::{Counted, UNKNOWN_SLOT};

fn alloc(time_ns: u64, size: u64, slot: u64) -> Event {
    Event::Alloc(Alloc { time_ns, size, slot, stack: StackId(1), ..Alloc::default() })
}

fn counters(at: u64, objects: u64) -> Event {
    Event::Counters(Counters {
        begin_ns: at - 1,
        end_ns: at + 1,
        objects,
        bytes: 16 * objects,
        ..Counters::default()
    })
}

fn state(events: &[Event]) -> State {
    let mut state = State::default();
    events.iter().for_each(|e| state.apply(e));
    state
}

fn sums(state: &State) -> Vec<(Call, Tally, Tally)> {
    let mut sums: Vec<_> = state.calls.iter().map(|sums| (sums.call, sums.all, sums.counted)).collect();
    sums.sort_by_key(|(call, ..)| *call);
    sums
}

#[test]
fn one_call_sums_what_was_asked_for_and_what_it_took() {
    let state = state(&[alloc(1, 10, 16), alloc(2, 4, 0), alloc(3, 0, 48)]);
    let sums = sums(&state);
    let want = Tally {
        objects: 3,
        requested: 14,
        bytes: 64,
        unsized_objects: 1,
        unsized_bytes: 48,
        unslotted_objects: 0,
    };
    assert_eq!(sums.len(), 1);
    assert_eq!(sums[0].1, want);
    assert_eq!((state.events, state.tiny_fits, state.latest_ns), (3, 1, 3));
}

#[test]
fn where_the_slot_is_unknown_the_size_counts() {
    let state = state(&[alloc(1, 17, UNKNOWN_SLOT), alloc(2, 0, UNKNOWN_SLOT), alloc(3, 25, 32)]);
    let tally = sums(&state)[0].1;
    assert_eq!((tally.objects, tally.requested, tally.bytes, tally.unslotted_objects), (3, 42, 49, 2));
}

#[test]
fn objects_that_were_counted_add_up_as_if_told_one_by_one() {
    // (slot, size): all of a row have one slot, and one size where that is not known.
    let rows: [(u64, &[u64]); 5] =
        [(16, &[10, 16]), (0, &[4, 3]), (48, &[0, 0]), (UNKNOWN_SLOT, &[17, 17]), (UNKNOWN_SLOT, &[0])];
    let told: Vec<Event> =
        rows.iter().flat_map(|(slot, sizes)| sizes.iter().map(|size| alloc(15, *size, *slot))).collect();
    let counted = |(slot, sizes): &(u64, &[u64])| Counted {
        slot: *slot,
        stack: StackId(1),
        objects: sizes.len() as u64,
        requested: sizes.iter().sum(),
        ..Counted::default()
    };
    let counted = Event::Counted(rows.iter().map(counted).collect());
    let told = state(&[&[counters(10, 100)], &told[..], &[counters(20, 109)]].concat());
    let counted = state(&[counters(10, 100), counted, counters(20, 109)]);
    assert_eq!(sums(&counted), sums(&told));
    assert_eq!((counted.events, counted.tiny_fits), (told.events, told.tiny_fits));
}

#[test]
fn what_died_unseen_is_counted_as_allocated_and_as_dead() {
    let start = Start { sampling_rate: Some(512), ..Start::default() };
    let row = |slot, objects, died| Counted { slot, objects, died, ..Counted::default() };
    let state = state(&[
        Event::Start(start),
        Event::Follow { max_memory: 1 << 20 },
        Event::Counted(vec![row(48, 3, true), row(48, 2, false), row(64, 5, true)]),
    ]);
    let live = state.live.as_ref().unwrap();
    let mut calls: Vec<_> = state.calls.iter().collect();
    calls.sort_by_key(|call| call.call.sampled_slot);
    let of_call = |call: &CallSums| {
        let died = live.died(call.index);
        (call.call.sampled_slot, call.all.objects, call.all.bytes, died.objects, died.bytes, died.after[0])
    };
    assert_eq!(
        calls.iter().map(of_call).collect::<Vec<_>>(),
        [(48, 5, 240, 3, 144, 3), (64, 5, 320, 5, 320, 5)]
    );
    assert!(live.alive().is_empty());
}

#[test]
fn coverage_counts_by_the_time_of_the_event_not_of_its_arrival() {
    let state = state(&[
        alloc(5, 16, 16),
        counters(10, 100),
        alloc(9, 16, 16),  // before the first reading, arrived late
        alloc(11, 16, 16), // between
        counters(20, 102),
        alloc(19, 16, 16), // between, arrived late
        alloc(21, 16, 16), // after the last reading
    ]);
    let (_, all, counted) = sums(&state)[0];
    assert_eq!((all.objects, counted.objects, counted.bytes), (5, 2, 32));
}

#[test]
fn a_later_reading_extends_the_interval() {
    let state = state(&[
        counters(10, 0),
        alloc(11, 16, 16),
        counters(20, 1),
        alloc(21, 16, 16),
        counters(30, 2),
        alloc(31, 16, 16),
    ]);
    assert_eq!(sums(&state)[0].2.objects, 2);
    let (first, last) = state.counters.unwrap();
    assert_eq!((first.objects, last.objects), (0, 2));
}

#[test]
fn loss_is_cumulative_and_notes_are_kept_once() {
    let note = || Event::Note("ring too small".into());
    let lost = |events| Event::Lost { cpu: 1, events, stacks: 0 };
    let state = state(&[lost(3), note(), lost(7), note()]);
    assert_eq!(state.lost[&1], (7, 0));
    assert_eq!(state.notes.len(), 1);
}

proptest! {
    #[test]
    fn order_between_readings_does_not_matter(
        times in prop::collection::vec((0..40u64, 1..100u64), 0..60), swaps: u64
    ) {
        let allocs: Vec<Event> = times.iter().map(|&(t, size)| alloc(t, size, UNKNOWN_SLOT)).collect();
        // The readings hold their place; an allocation may come at any later place.
        let in_order = |delay: &dyn Fn(usize, u64) -> u64| {
            let mut timed: Vec<(u64, u8, Event)> = allocs
                .iter()
                .zip(&times)
                .enumerate()
                .map(|(i, (event, (t, _)))| (delay(i, *t), 0, event.clone()))
                .collect();
            timed.push((10, 1, counters(10, 0)));
            timed.push((30, 1, counters(30, 0)));
            timed.sort_by_key(|(t, kind, _)| (*t, *kind));
            sums(&state(&timed.into_iter().map(|(.., e)| e).collect::<Vec<_>>()))
        };
        let late = |i: usize, t: u64| t + (swaps >> (i % 60)) % 25;
        prop_assert_eq!(in_order(&|_, t| t), in_order(&late));
    }
}
