//! Allocations summed by call: what was allocated where, and how much of it between
//! two readings of the runtime's counters.

use std::ops::{AddAssign, Sub};

use hashbrown::HashMap;

use crate::event::{Alloc, SiteId, StackId, UNKNOWN_SLOT};

/// What is summed up together. Types and sizes that the trap could not read may still
/// be learnt, so they are resolved when a report is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    pub stack: StackId,
    /// As in [`Alloc::type_addr`].
    pub type_addr: u64,
    pub site: SiteId,
    /// `None`: the events told the slot sizes, and [`Tally::slot_bytes`] adds them up.
    /// `Some`: the slot size follows from this size, which is the one asked for rounded
    /// up to eight bytes (each size class is a multiple of eight, so the class is the
    /// same, and the number of calls stays bounded); 0 when it is not known either.
    pub unslotted: Option<u64>,
}

impl Call {
    fn of(alloc: &Alloc) -> Call {
        let unslotted = (alloc.slot == UNKNOWN_SLOT)
            .then(|| alloc.size.checked_next_multiple_of(8).unwrap_or(alloc.size));
        Call { stack: alloc.stack, type_addr: alloc.type_addr, site: alloc.site, unslotted }
    }
}

/// Sums over allocations of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub objects: u64,
    /// Bytes asked for, of the objects whose size is known.
    pub requested: u64,
    /// Bytes of the slots taken, of the objects whose slot size is known.
    pub slot_bytes: u64,
    /// Objects whose size is not known, and the slot bytes among `slot_bytes` they took.
    pub unsized_objects: u64,
    pub unsized_slot_bytes: u64,
}

impl Tally {
    fn of(alloc: &Alloc) -> Tally {
        let slot = if alloc.slot == UNKNOWN_SLOT { 0 } else { alloc.slot };
        let unsized_object = alloc.size == 0;
        Tally {
            objects: 1,
            requested: alloc.size,
            slot_bytes: slot,
            unsized_objects: u64::from(unsized_object),
            unsized_slot_bytes: if unsized_object { slot } else { 0 },
        }
    }
}

impl AddAssign for Tally {
    /// Sizes come from the target: sums wrap rather than stop the collector.
    fn add_assign(&mut self, other: Tally) {
        self.objects += other.objects;
        self.requested = self.requested.wrapping_add(other.requested);
        self.slot_bytes = self.slot_bytes.wrapping_add(other.slot_bytes);
        self.unsized_objects += other.unsized_objects;
        self.unsized_slot_bytes = self.unsized_slot_bytes.wrapping_add(other.unsized_slot_bytes);
    }
}

impl Sub for Tally {
    type Output = Tally;

    fn sub(self, other: Tally) -> Tally {
        Tally {
            objects: self.objects.wrapping_sub(other.objects),
            requested: self.requested.wrapping_sub(other.requested),
            slot_bytes: self.slot_bytes.wrapping_sub(other.slot_bytes),
            unsized_objects: self.unsized_objects.wrapping_sub(other.unsized_objects),
            unsized_slot_bytes: self.unsized_slot_bytes.wrapping_sub(other.unsized_slot_bytes),
        }
    }
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
    fn late(&mut self, index: usize, alloc: &Alloc, tally: Tally) {
        if alloc.time_ns > self.time_ns {
            return;
        }
        if index >= self.tallies.len() {
            self.tallies.resize(index + 1, Tally::default());
        }
        self.tallies[index] += tally;
    }

    fn tally(&self, index: usize) -> Tally {
        self.tallies.get(index).copied().unwrap_or_default()
    }
}

/// All calls of a capture.
#[derive(Debug, Default)]
pub struct Calls {
    index: HashMap<Call, u32>,
    tallies: Vec<Tally>,
    /// At the first and at the latest reading of the counters.
    readings: Option<(Reading, Reading)>,
}

impl Calls {
    pub(super) fn add(&mut self, alloc: &Alloc) {
        let tally = Tally::of(alloc);
        let next = self.tallies.len();
        let index = *self.index.entry(Call::of(alloc)).or_insert(next as u32) as usize;
        if index == next {
            self.tallies.push(Tally::default());
        }
        self.tallies[index] += tally;
        if let Some((first, last)) = &mut self.readings {
            first.late(index, alloc, tally);
            last.late(index, alloc, tally);
        }
    }

    /// The counters were read at `time_ns`, after everything added so far.
    pub(super) fn reading(&mut self, time_ns: u64) {
        let now = Reading { time_ns, tallies: self.tallies.clone() };
        self.readings = Some(match self.readings.take() {
            Some((first, _)) => (first, now),
            None => (now.clone(), now),
        });
    }

    /// Each call with its sums: of the whole capture, and between the first and the
    /// latest reading of the counters. In no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (Call, Tally, Tally)> {
        self.index.iter().map(|(call, &index)| {
            let index = index as usize;
            let counted = match &self.readings {
                Some((first, last)) => last.tally(index) - first.tally(index),
                None => Tally::default(),
            };
            (*call, self.tallies[index], counted)
        })
    }
}
