//! The shadow of a heap whose truth is known.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Calls and sizes of what is allocated, each in spans of its own.
const SIZES: [u64; 6] = [8, 16, 48, 640, 9472, 40960];
/// Slots of each.
const SLOTS: u64 = 40;

/// A heap: per size an array of slots, in each the call and epoch of what lives there.
#[derive(Debug, Default)]
struct Heap {
    slots: BTreeMap<u64, (u32, u32)>,
    epoch: u32,
}

fn base(size: usize) -> u64 {
    0xc0_0000_0000 + ((size as u64) << 22)
}

fn addr(size: usize, slot: u64) -> u64 {
    // A header lies before what is allocated.
    base(size) + slot * SIZES[size] + if SIZES[size] == 640 { 8 } else { 0 }
}

fn alloc(size: usize, slot: u64, epoch: u32) -> Alloc {
    Alloc { ptr: addr(size, slot), slot: SIZES[size], epoch, ..Alloc::default() }
}

impl Heap {
    /// The mark bits of the array of one size.
    fn bits(&self, size: usize) -> Vec<u64> {
        let mut bits = vec![0; 2];
        for slot in (0..SLOTS).filter(|&slot| self.slots.contains_key(&addr(size, slot))) {
            bits[slot as usize / 64] |= 1 << (slot % 64);
        }
        bits
    }

    fn judge(&self, live: &mut Live, known: impl Fn(u64) -> bool) {
        let bits: Vec<Vec<u64>> = (0..SIZES.len()).map(|size| self.bits(size)).collect();
        let dead = live.dead(self.epoch, |page| {
            let size = ((page - base(0)) >> 22) as usize;
            let first = (page - base(size)).div_ceil(SIZES[size]) as usize;
            match known(page) {
                true => Fate::Marked { size: SIZES[size], first, bits: &bits[size] },
                false => Fate::Unknown,
            }
        });
        assert!(dead.is_sorted(), "{dead:x?}");
        live.deaths(self.epoch, &dead);
    }

    /// By call: objects from before the current epoch, and from it.
    fn truth(&self) -> BTreeMap<u32, (u64, u64)> {
        let mut truth: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for (call, epoch) in self.slots.values() {
            let (old, new) = truth.entry(*call).or_default();
            *(if *epoch < self.epoch { old } else { new }) += 1;
        }
        truth
    }
}

fn seen(live: &Live) -> BTreeMap<u32, (u64, u64)> {
    live.alive().into_iter().map(|(call, alive)| (call, (alive.objects, alive.new_objects))).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Alloc {
        size: usize,
        slot: u64,
        call: u32,
    },
    /// A cycle finds one in so many alive; of how many pages it is known at once.
    Collect {
        keep: u64,
        known: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..SIZES.len(), 0..SLOTS, 0..5_u32)
            .prop_map(|(size, slot, call)| Step::Alloc { size, slot, call }),
        1 => (1..4_u64, 1..4_u64).prop_map(|(keep, known)| Step::Collect { keep, known }),
    ]
}

proptest! {
    #[test]
    fn what_lives_is_known_after_each_cycle(steps in prop::collection::vec(step(), 0..400)) {
        let mut heap = Heap::default();
        let mut live = Live::new(u64::MAX, false);
        let (mut born, mut missed) = (0_u64, false);
        for step in steps {
            match step {
                Step::Alloc { size, slot, call } => {
                    heap.slots.insert(addr(size, slot), (call, heap.epoch));
                    live.born(call, &alloc(size, slot, heap.epoch));
                    born += 1;
                }
                Step::Collect { keep, known } => {
                    let mut n = 0;
                    heap.slots.retain(|_, _| { n += 1; n % keep == 0 });
                    heap.epoch += 1;
                    // In part first: what is found then must not disturb the rest.
                    heap.judge(&mut live, |page| page / 8192 % known == 0);
                    missed = known == 3;
                    if !missed {
                        heap.judge(&mut live, |_| true);
                        let survivors = live.judged(heap.epoch, 0, |_| 7);
                        let (objects, bytes) = survivors.get(&7).copied().unwrap_or_default();
                        prop_assert_eq!(objects, heap.slots.len() as u64);
                        let size_of = |at: &u64| SIZES[((at - base(0)) >> 22) as usize];
                        prop_assert_eq!(bytes, heap.slots.keys().map(size_of).sum::<u64>());
                    }
                }
            }
        }
        if !missed {
            prop_assert_eq!(seen(&live), heap.truth());
        }
        let died: u64 = (0..5).map(|call| live.died(call).objects).sum();
        prop_assert_eq!(died + live.objects(), born);
        let ages: u64 = (0..5).flat_map(|call| live.died(call).after).sum();
        prop_assert_eq!(ages, died);
    }

    /// Whatever a capture says, the sums stay sums and memory stays bounded.
    #[test]
    fn hostile_events_do_no_harm(
        events in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u32>(), 0..5_u8), 0..300)
    ) {
        let mut live = Live::new(20_000, false);
        for (a, b, c, kind) in events {
            match kind {
                0 => live.deaths(c, &[a, b, a]),
                1 => { live.judged(c, a, u64::from); }
                2 => live.born(c % 7, &Alloc { ptr: a, slot: b % 40, epoch: c % 3, ..Alloc::default() }),
                _ => live.born(c % 7, &Alloc { ptr: a % (1 << 20), slot: b, epoch: c, ..Alloc::default() }),
            }
        }
        let alive: u64 = live.population.cohorts.iter().map(|cohort| cohort.objects).sum();
        let pages = || live.pages.numbers().into_iter().filter_map(|number| live.pages.get(number));
        let held: usize = pages().map(|page| page.objects().count()).sum();
        prop_assert_eq!(alive, held as u64);
        let memory: usize = pages().map(Page::memory).sum();
        prop_assert_eq!(memory, live.page_memory);
    }
}

fn fill(live: &mut Live, objects: u64, size: u64) {
    for i in 0..objects {
        // Two calls of the same weight, and a rare one.
        let call = if i % 1000 == 0 { 2 } else { (i % 2) as u32 };
        let ptr = base(2) + i / (8192 / size) * 8192 + i % (8192 / size) * size;
        live.born(call, &Alloc { ptr, slot: size, ..Alloc::default() });
    }
}

#[test]
fn ten_million_objects_take_at_most_eight_bytes_each() {
    for (size, objects) in [(16, 1_000_000), (48, 10_000_000), (128, 1_000_000)] {
        let mut live = Live::new(u64::MAX, false);
        fill(&mut live, objects, size);
        assert_eq!(live.objects(), objects);
        assert!(live.memory() as u64 <= 8 * objects, "{size} B: {}", live.memory());
    }
}

#[test]
fn beyond_the_limit_the_busiest_calls_are_sampled() {
    let mut live = Live::new(2 << 20, false);
    fill(&mut live, 1_000_000, 64);
    assert!(live.of_objects() <= 2 << 20, "{}", live.of_objects());
    let (calls, rarest) = live.sampled().expect("sampled");
    assert!(calls == 2 && rarest >= 2, "{calls} calls, one in {rarest}");
    live.judged(1, 0, |_| 0);
    let alive = live.alive();
    for (call, want) in [(0, 499_000_f64), (1, 500_000.0)] {
        let estimate = alive[&call].objects as f64;
        assert!((estimate / want - 1.0).abs() < 0.05, "call {call}: {estimate} of {want}");
    }
    assert_eq!(alive[&2].objects, 1000, "what is rare is followed one by one");
}

#[test]
fn tiny_objects_share_the_fate_of_their_block() {
    let mut live = Live::new(u64::MAX, false);
    let block = base(1);
    live.born(0, &Alloc { ptr: block, slot: 16, ..Alloc::default() });
    for offset in [4, 8, 12] {
        live.born(1, &Alloc { ptr: block + offset, slot: 0, ..Alloc::default() });
    }
    let alive = live.alive();
    assert_eq!((alive[&0].new_bytes, alive[&1].new_objects, alive[&1].new_bytes), (16, 3, 0));
    live.deaths(1, &[block]);
    assert_eq!((live.objects(), live.died(1).objects, live.died(0).bytes), (0, 3, 16));
}

#[test]
fn a_new_object_proves_the_old_one_dead() {
    let mut live = Live::new(u64::MAX, false);
    live.born(0, &alloc(2, 0, 0));
    live.born(1, &alloc(2, 0, 2));
    assert_eq!((live.died(0).objects, live.died(0).after[1]), (1, 1));
    // A span of other slots took the page.
    live.born(2, &Alloc { ptr: base(2) + 4096, slot: 4096, epoch: 9, ..Alloc::default() });
    assert_eq!((live.died(1).objects, live.died(1).after[3]), (1, 1));
    assert_eq!(live.objects(), 1);
}

#[test]
fn an_object_as_young_as_the_epoch_is_not_judged() {
    let mut live = Live::new(u64::MAX, false);
    live.born(0, &alloc(2, 0, 1));
    assert!(live.dead(1, |_| Fate::Gone).is_empty());
    live.deaths(1, &[base(2)]);
    assert_eq!(live.objects(), 1);
    assert_eq!(live.dead(2, |_| Fate::Gone), [base(2)]);
}

#[test]
fn objects_are_found_by_call_and_calls_by_address() {
    let mut live = Live::new(u64::MAX, false);
    for i in 0..100 {
        // Slots of 9472 bytes: each begins in another page.
        live.born(i % 2, &Alloc { ptr: base(1) + u64::from(i) * 9472, slot: 9472, ..Alloc::default() });
    }
    live.born(0, &Alloc { ptr: base(900), slot: 48, epoch: 5, ..Alloc::default() });
    let groups = HashMap::from([(0, 7)]);
    assert!(live.some_of(&groups, 8).is_empty(), "nothing was judged");
    live.judged(5, 0, |_| 0);
    let found = live.some_of(&groups, 8);
    assert_eq!(found.keys().collect::<Vec<_>>(), [&7]);
    assert_eq!((found[&7].len(), found[&7].iter().all(|at| at.size == 9472)), (8, true));
    assert_eq!(found, live.some_of(&groups, 8));
    assert_eq!(live.some_of(&groups, 1000)[&7].len(), 50);
    assert_eq!(live.call_at(base(1) + 3 * 9472, 9472), Some(1));
    assert_eq!(live.call_at(base(1) + 3 * 9472, 48), None);
    assert_eq!((live.call_at(base(900), 48), live.call_at(base(900) + 48, 48)), (Some(0), None));
}
