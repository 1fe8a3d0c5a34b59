//! What was told of the runtime's samples, and what a reading adds to it.

use std::collections::HashMap;

use crate::base::Fnv1a;
use crate::event::{Alloc, Counted, Event, SiteId, StackId};
use crate::model::slot_name;
use crate::runtime::{Bucket, SampledObject};

/// The site of a plan for samples, which is not probed here.
const SITE: SiteId = SiteId(0);

/// An object that was found alive and is missing from so many readings is dead; from fewer, its
/// span may just have been changed when it was read.
const MISSED: u32 = 2;

/// When a reading took place.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) time_ns: u64,
    pub(super) epoch: u32,
    /// The epoch begun by the cycle that objects have survived of which the reading says so.
    pub(super) survived: u32,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Readings so far; the first one tells what was there before.
    readings: u32,
    /// Objects found alive, by their slots as in [`Event::Deaths`].
    alive: HashMap<u64, Known>,
    /// By the address of the bucket.
    told: HashMap<u64, Told>,
}

/// An object.
#[derive(Debug, Clone, Copy)]
struct Known {
    bucket: u64,
    /// The reading that has found it last.
    reading: u32,
}

/// What was told of a bucket.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    samples: u64,
    /// `None`: not even its stack.
    stack: Option<StackId>,
}

impl Ledger {
    /// Whether nothing was read so far.
    pub(super) fn is_empty(&self) -> bool {
        self.readings == 0
    }

    /// Objects in these slots have died: whoever is found there is new.
    pub(super) fn forget(&mut self, slots: &[u64]) {
        for slot in slots {
            self.alive.remove(slot);
        }
    }

    /// Takes a reading: the buckets, and the objects that were alive soon after. The events that
    /// tell what is new; of the first reading, nothing is. `calls` is asked for the return
    /// addresses that those of a bucket stand for.
    pub(super) fn take(
        &mut self,
        buckets: &[Bucket],
        objects: &[SampledObject],
        at: At,
        mut calls: impl FnMut(&[u64]) -> Vec<u64>,
    ) -> Vec<Event> {
        let is_first = self.is_empty();
        self.readings += 1;
        for bucket in buckets {
            self.told.entry(bucket.addr).or_default();
        }
        let mut found = self.found(objects);
        let mut events = Vec::new();
        let mut died = Vec::new();
        for bucket in buckets {
            let found = found.remove(&bucket.addr).unwrap_or_default();
            let Some(told) = self.told.get_mut(&bucket.addr) else { continue };
            // Objects that came after the buckets were read are counted when they are found; and a
            // bucket that was being changed may have shown too many before.
            let more = bucket.all().allocs.saturating_sub(told.samples).max(found.len() as u64);
            told.samples += more;
            if is_first || more == 0 {
                continue;
            }
            let stack = *told.stack.get_or_insert_with(|| {
                let pcs = calls(&bucket.pcs);
                let id = id(&pcs);
                events.push(Event::Stack { id, pcs });
                id
            });
            events.extend(found.iter().map(|object| alloc(object, bucket, stack, at)));
            let objects = more - found.len() as u64;
            if objects > 0 {
                let slot = bucket.size;
                died.push(Counted { site: SITE, stack, slot, objects, died: true, ..Counted::default() });
            }
        }
        events.extend(Event::counted(&died));
        events
    }

    /// Those that were not known to be alive, by bucket. If that came after the buckets were read,
    /// they are left to the next reading.
    fn found<'o>(&mut self, objects: &'o [SampledObject]) -> HashMap<u64, Vec<&'o SampledObject>> {
        let reading = self.readings;
        let mut found: HashMap<u64, Vec<&SampledObject>> = HashMap::new();
        for object in objects.iter().filter(|object| self.told.contains_key(&object.bucket)) {
            let known = Known { bucket: object.bucket, reading };
            let before = self.alive.insert(slot_name(object.addr, object.slot), known);
            if before.is_none_or(|before| before.bucket != object.bucket) {
                found.entry(object.bucket).or_default().push(object);
            }
        }
        self.alive.retain(|_, known| reading - known.reading < MISSED);
        found
    }
}

fn alloc(object: &SampledObject, bucket: &Bucket, stack: StackId, at: At) -> Event {
    Event::Alloc(Alloc {
        time_ns: at.time_ns,
        ptr: object.addr,
        slot: bucket.size,
        stack,
        site: SITE,
        // When it was allocated, nobody knows: not before the cycle that it has survived, if any, else
        // as of now, so that no earlier cycle's marks are held against it.
        epoch: if object.has_survived { at.survived.saturating_sub(1) } else { at.epoch },
        ..Alloc::default()
    })
}

/// Names a stack.
fn id(pcs: &[u64]) -> StackId {
    let mut hash = Fnv1a::default();
    pcs.iter().for_each(|pc| hash.add(&pc.to_le_bytes()));
    StackId(hash.hash())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Record;

    const PAGE: u64 = 8192;

    const AT: At = At { time_ns: 7, epoch: 5, survived: 4 };

    fn bucket(addr: u64, allocs: u64) -> Bucket {
        let pending = Record { allocs, ..Record::default() };
        Bucket { addr, pcs: vec![addr + 1, addr + 2], size: 48, pending, ..Bucket::default() }
    }

    fn object(addr: u64, bucket: u64) -> SampledObject {
        SampledObject { addr, slot: 48, bucket, has_survived: false }
    }

    /// The stacks, objects and counts told of a reading.
    fn told(events: &[Event]) -> (usize, Vec<(u64, u32)>, u64) {
        let stacks = events.iter().filter(|event| matches!(event, Event::Stack { .. })).count();
        let objects = events.iter().filter_map(|event| match event {
            Event::Alloc(alloc) => Some((alloc.ptr, alloc.epoch)),
            _ => None,
        });
        let died = events.iter().flat_map(|event| match event {
            Event::Counted(rows) => rows.clone(),
            _ => Vec::new(),
        });
        (stacks, objects.collect(), died.map(|row| row.objects).sum())
    }

    fn take(
        ledger: &mut Ledger,
        objects: &[SampledObject],
        buckets: &[Bucket],
    ) -> (usize, Vec<(u64, u32)>, u64) {
        told(&ledger.take(buckets, objects, AT, <[u64]>::to_vec))
    }

    #[test]
    fn what_is_new_has_died_or_is_found() {
        let mut ledger = Ledger::default();
        assert_eq!(take(&mut ledger, &[object(0x100, 1)], &[bucket(1, 10)]), (0, vec![], 0), "from before");
        let survivor = SampledObject { has_survived: true, ..object(0x300, 1) };
        let alive = [object(0x100, 1), object(0x200, 1), survivor];
        let read = take(&mut ledger, &alive, &[bucket(2, 3), bucket(1, 15)]);
        assert_eq!(read, (2, vec![(0x200, 5), (0x300, 3)], 3 + 3));
        let (stacks, objects, died) = take(&mut ledger, &alive, &[bucket(2, 3), bucket(1, 16)]);
        assert_eq!((stacks, objects.len(), died), (0, 0, 1), "nothing twice");
    }

    #[test]
    fn an_object_that_one_reading_misses_is_not_new_in_the_next() {
        let mut ledger = Ledger::default();
        let alive = [object(0x100, 1)];
        take(&mut ledger, &[], &[bucket(1, 0)]);
        assert_eq!(take(&mut ledger, &alive, &[bucket(1, 1)]).1.len(), 1);
        assert_eq!(take(&mut ledger, &[], &[bucket(1, 1)]), (0, vec![], 0));
        assert_eq!(take(&mut ledger, &alive, &[bucket(1, 1)]), (0, vec![], 0));
        // A slot that was free in two of them holds another one.
        take(&mut ledger, &[], &[bucket(1, 1)]);
        take(&mut ledger, &[], &[bucket(1, 1)]);
        assert_eq!(take(&mut ledger, &alive, &[bucket(1, 2)]), (0, vec![(0x100, 5)], 0));
        // As does one that another bucket's object was in; but that is not known yet.
        assert_eq!(take(&mut ledger, &[object(0x100, 2)], &[]), (0, vec![], 0));
        assert_eq!(take(&mut ledger, &[object(0x100, 2)], &[bucket(2, 1)]).1.len(), 1);
    }

    #[test]
    fn in_the_slot_of_a_dead_object_there_is_another() {
        let mut ledger = Ledger::default();
        take(&mut ledger, &[], &[bucket(1, 0)]);
        // The second slot that begins in its page, 16 bytes behind the first one's end.
        let alive = [object(PAGE + 16 + 48, 1)];
        assert_eq!(take(&mut ledger, &alive, &[bucket(1, 1)]).1.len(), 1);
        ledger.forget(&[PAGE]);
        assert_eq!(take(&mut ledger, &alive, &[bucket(1, 2)]), (0, vec![], 1));
        ledger.forget(&[PAGE + 48]);
        assert_eq!(take(&mut ledger, &alive, &[bucket(1, 3)]).1.len(), 1);
    }

    #[test]
    fn what_a_torn_bucket_says_evens_out() {
        let mut ledger = Ledger::default();
        take(&mut ledger, &[], &[bucket(1, 10)]);
        // Ten too many, then none until there are as many.
        let counts = [25, 15, 20, 27].map(|allocs| take(&mut ledger, &[], &[bucket(1, allocs)]).2);
        assert_eq!(counts, [15, 0, 0, 2]);
        // One found before it was counted.
        let (_, objects, died) = take(&mut ledger, &[object(0x100, 1)], &[bucket(1, 27)]);
        assert_eq!((objects.len(), died), (1, 0));
        assert_eq!(take(&mut ledger, &[object(0x100, 1)], &[bucket(1, 28)]), (0, vec![], 0));
    }
}
