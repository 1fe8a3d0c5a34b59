//! Allocations summed by call: what was allocated where, and how much of it between
//! two readings of the runtime's counters.

use std::ops::{AddAssign, Sub};

use hashbrown::HashMap;

use crate::event::{Alloc, Counted, SiteId, StackId, UNKNOWN_SLOT};

/// What is summed up together. Types and sizes that the trap could not read may still
/// be learnt, so they are resolved when a report is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    pub stack: StackId,
    /// As in [`Alloc::type_addr`].
    pub type_addr: u64,
    pub site: SiteId,
    /// Of a sampled capture the size of the slots, on which depends how many objects each
    /// sample stands for; else 0: all sizes together.
    pub sampled_slot: u64,
}

/// Sums over allocations of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub objects: u64,
    /// Bytes asked for, of the objects whose size is known.
    pub requested: u64,
    /// Bytes of the slots taken; where the slot is not known, of the size asked for.
    pub bytes: u64,
    /// Objects whose size is not known, and the bytes of the slots they took.
    pub unsized_objects: u64,
    pub unsized_bytes: u64,
    /// Objects whose slot is not known.
    pub unslotted_objects: u64,
}

impl Tally {
    fn of(alloc: &Alloc) -> Tally {
        let unslotted = alloc.slot == UNKNOWN_SLOT;
        let bytes = if unslotted { alloc.size } else { alloc.slot };
        let without_size = alloc.size == 0;
        Tally {
            objects: 1,
            requested: alloc.size,
            bytes,
            unsized_objects: u64::from(without_size),
            unsized_bytes: if without_size { bytes } else { 0 },
            unslotted_objects: u64::from(unslotted),
        }
    }

    fn of_counted(counted: &Counted) -> Tally {
        let unslotted = counted.slot == UNKNOWN_SLOT;
        let slots = counted.slot.wrapping_mul(counted.objects);
        let bytes = if unslotted { counted.requested } else { slots };
        let without_size = counted.requested == 0;
        let if_so = |is: bool, amount: u64| if is { amount } else { 0 };
        Tally {
            objects: counted.objects,
            requested: counted.requested,
            bytes,
            unsized_objects: if_so(without_size, counted.objects),
            unsized_bytes: if_so(without_size, bytes),
            unslotted_objects: if_so(unslotted, counted.objects),
        }
    }

    fn merge(self, other: Tally, with: fn(u64, u64) -> u64) -> Tally {
        Tally {
            objects: with(self.objects, other.objects),
            requested: with(self.requested, other.requested),
            bytes: with(self.bytes, other.bytes),
            unsized_objects: with(self.unsized_objects, other.unsized_objects),
            unsized_bytes: with(self.unsized_bytes, other.unsized_bytes),
            unslotted_objects: with(self.unslotted_objects, other.unslotted_objects),
        }
    }
}

impl AddAssign for Tally {
    /// Sizes come from the target: sums wrap rather than stop the collector.
    fn add_assign(&mut self, other: Tally) {
        *self = self.merge(other, u64::wrapping_add);
    }
}

impl Sub for Tally {
    type Output = Tally;

    fn sub(self, other: Tally) -> Tally {
        self.merge(other, u64::wrapping_sub)
    }
}

/// What is kept of a call with this index, among that of all.
pub(super) fn of_call<T: Clone + Default>(all: &mut Vec<T>, call: u32) -> &mut T {
    let index = call as usize;
    if index >= all.len() {
        all.resize(index + 1, T::default());
    }
    &mut all[index]
}

/// The tallies as they stood at one reading of the runtime's counters.
#[derive(Debug, Clone)]
struct Reading {
    time_ns: u64,
    /// By index of the call; calls first seen later are missing.
    tallies: Vec<Tally>,
}

impl Reading {
    /// Counts an allocation from before the reading that came after it.
    fn late(&mut self, call: u32, alloc: &Alloc, tally: Tally) {
        if alloc.time_ns <= self.time_ns {
            *of_call(&mut self.tallies, call) += tally;
        }
    }

    fn tally(&self, index: usize) -> Tally {
        self.tallies.get(index).copied().unwrap_or_default()
    }
}

/// All calls of a capture.
#[derive(Debug, Default)]
pub struct Calls {
    index: HashMap<Call, u32>,
    /// By index of the call.
    sampled_slots: Vec<u64>,
    tallies: Vec<Tally>,
    /// At the first and at the latest reading of the counters.
    readings: Option<(Reading, Reading)>,
}

impl Calls {
    /// Counts an allocation, one of all or a sampled one; returns the index of its call.
    pub(super) fn add(&mut self, alloc: &Alloc, is_sampled: bool) -> u32 {
        let tally = Tally::of(alloc);
        let sampled_slot = if is_sampled { alloc.slot } else { 0 };
        let call = Call { stack: alloc.stack, type_addr: alloc.type_addr, site: alloc.site, sampled_slot };
        let index = self.tally(call, tally);
        if let Some((first, last)) = &mut self.readings {
            first.late(index, alloc, tally);
            last.late(index, alloc, tally);
        }
        index
    }

    /// Adds up allocations that were counted since the counters were last read; returns the
    /// index of their call.
    pub(super) fn add_counted(&mut self, counted: &Counted, is_sampled: bool) -> u32 {
        let Counted { stack, type_addr, site, .. } = *counted;
        let sampled_slot = if is_sampled { counted.slot } else { 0 };
        self.tally(Call { stack, type_addr, site, sampled_slot }, Tally::of_counted(counted))
    }

    /// Adds to what a call has allocated; returns the index of the call.
    fn tally(&mut self, call: Call, tally: Tally) -> u32 {
        let next = self.tallies.len();
        let index = *self.index.entry(call).or_insert(next as u32);
        if index as usize == next {
            self.sampled_slots.push(call.sampled_slot);
            self.tallies.push(Tally::default());
        }
        self.tallies[index as usize] += tally;
        index
    }

    /// The counters were read at `time_ns`, after everything added so far.
    pub(super) fn reading(&mut self, time_ns: u64) {
        let now = Reading { time_ns, tallies: self.tallies.clone() };
        self.readings = Some(match self.readings.take() {
            Some((first, _)) => (first, now),
            None => (now.clone(), now),
        });
    }

    /// `Call::sampled_slot` of the call with this index.
    pub(super) fn sampled_slot(&self, index: u32) -> u64 {
        self.sampled_slots.get(index as usize).copied().unwrap_or(0)
    }

    /// Each call with its sums, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = CallSums> {
        self.index.iter().map(|(call, &index)| {
            let at = index as usize;
            let counted = match &self.readings {
                Some((first, last)) => last.tally(at) - first.tally(at),
                None => Tally::default(),
            };
            CallSums { call: *call, index, all: self.tallies[at], counted }
        })
    }
}

/// What is known of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallSums {
    pub call: Call,
    /// By which the live heap knows it.
    pub index: u32,
    /// Of the whole capture.
    pub all: Tally,
    /// Between the first and the latest reading of the runtime's counters.
    pub counted: Tally,
}
