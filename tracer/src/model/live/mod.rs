//! The live heap as a shadow of Go's: which of the objects seen are still alive.
//!
//! Objects are kept by the page their slot begins in, two to four bytes each; a GC
//! cycle is an AND of their bits with Go's mark bits, page by page. Nothing here reads
//! memory: the session hands in what became of each page ([`Fate`]), gets the dead, and
//! puts them into the event stream, from which alone the state changes.

mod cohorts;
mod growth;
mod page;
mod place;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use hashbrown::HashMap;

use cohorts::{Cohort, Cohorts};
use growth::{Bytes, History};
pub use growth::{LivePoint, median_slope};
pub use page::Fate;
use page::{Object, PAGE, Page};
pub use place::Placed;
use table::PageTable;

use super::calls::of_call;
use super::windows::Weights;
use crate::event::{Alloc, Counted, UNKNOWN_SLOT};

/// Bytes of a block that tiny objects share (runtime/malloc.go `maxTinySize`).
const TINY_BLOCK: u64 = 16;
/// Slots above this may begin with a header of 8 bytes, before which no pointer points;
/// they are multiples of 64 bytes (runtime/malloc.go `minSizeForMallocHeader`,
/// runtime/sizeclasses.go).
const MAX_WITHOUT_HEADER: u64 = 512;
/// The least slot (runtime/sizeclasses.go).
const MIN_SLOT: u64 = 8;

/// Ranges of age in GC cycles that objects are counted by: 0, 1, 2 to 3, 4 to 7, … and
/// 64 or more.
pub const AGES: usize = 8;

/// Objects by their age.
pub type ByAge = [u64; AGES];

fn age_range(cycles: u32) -> usize {
    cycles.checked_ilog2().map_or(0, |log| log as usize + 1).min(AGES - 1)
}

/// What became of one call's objects that died.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Died {
    pub objects: u64,
    pub bytes: u64,
    /// Objects, by the GC cycles they had survived.
    pub after: ByAge,
}

/// Bytes alive by call and the epoch they were born in, ascending.
#[derive(Debug, Default)]
pub struct Births(HashMap<u32, Vec<(u32, u64)>>);

/// Objects of one call that are not known to be dead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Alive {
    /// Survivors of the latest cycle that was judged.
    pub objects: u64,
    pub bytes: u64,
    /// Survivors, by the GC cycles they have survived.
    pub after: ByAge,
    /// Allocated since that cycle ended its marking: nobody has looked at them yet.
    pub new_objects: u64,
    pub new_bytes: u64,
}

/// Everything that is followed.
#[derive(Debug)]
pub struct Live {
    /// By address divided by `PAGE`.
    pages: PageTable,
    /// Bytes that the pages refer to.
    page_memory: usize,
    population: Population,
    history: History,
    /// Epoch begun by the latest cycle that was judged in full.
    judged: Option<u32>,
    /// Objects not followed, as their slot's size is not known.
    unslotted: u64,
    max_memory: usize,
    /// Bytes from which on objects are sampled.
    thin_at: usize,
}

impl Live {
    /// Follows objects in at most `max_memory` bytes; what cannot be followed in these is
    /// sampled, those calls first that have most objects.
    ///
    /// `in_windows`: objects are seen in windows, and each counts as the weight of its own.
    pub(super) fn new(max_memory: u64, in_windows: bool) -> Live {
        let max_memory = usize::try_from(max_memory).unwrap_or(usize::MAX);
        Live {
            pages: PageTable::default(),
            page_memory: 0,
            population: Population { cohorts: Cohorts::new(in_windows), ..Population::default() },
            history: History::default(),
            judged: None,
            unslotted: 0,
            max_memory,
            thin_at: max_memory,
        }
    }

    /// The window under way has ended, whose objects stand for so many.
    pub(super) fn window_ended(&mut self, weights: Weights) {
        self.population.cohorts.window_ended(weights);
    }

    /// An object of the call with this index.
    pub(super) fn born(&mut self, call: u32, alloc: &Alloc) {
        if alloc.slot == UNKNOWN_SLOT {
            self.unslotted += 1;
            return;
        }
        let fits = alloc.slot == 0;
        let size = if fits { TINY_BLOCK } else { alloc.slot.max(MIN_SLOT) };
        let aligned = size == TINY_BLOCK || size > MAX_WITHOUT_HEADER;
        let addr = if aligned { alloc.ptr & !15 } else { alloc.ptr };
        let number = addr / PAGE;
        // Who was there before is dead: the whole page when its slots had another size.
        match self.pages.get(number) {
            Some(page) if page.size != size => self.bury_page(number, alloc.epoch),
            Some(_) if !fits => self.bury_slot(number, addr, alloc.epoch),
            _ => {}
        }
        let slot = (addr % PAGE / size) as usize;
        if !is_followed(slot_address(number, slot, size), self.population.level(call)) {
            return;
        }
        let Some(cohort) = self.population.cohorts.join(call, alloc.epoch, counted_bytes(fits, size)) else {
            return;
        };
        let page = self.pages.get_or_insert(number, || Page::new(size));
        let before = page.memory();
        page.add(slot, Object { cohort, fits });
        self.page_memory = self.page_memory + page.memory() - before;
        if self.of_objects() > self.thin_at {
            self.thin_out();
        }
    }

    /// Objects of the call with this index have died before they could be followed: they count as
    /// having survived no GC cycle.
    pub(super) fn died_unseen(&mut self, call: u32, counted: &Counted) {
        let died = of_call(&mut self.population.died, call);
        died.objects = died.objects.wrapping_add(counted.objects);
        died.bytes = died.bytes.wrapping_add(counted.slot.wrapping_mul(counted.objects));
        died.after[0] = died.after[0].wrapping_add(counted.objects);
    }

    /// Bytes that depend on how many objects are followed.
    fn of_objects(&self) -> usize {
        self.pages.memory() + self.page_memory + self.population.cohorts.memory()
    }

    fn bury_page(&mut self, number: u64, epoch: u32) {
        let Some(mut page) = self.pages.remove(number) else { return };
        self.page_memory -= page.memory();
        let size = page.size;
        page.retain(|_, _| false, |object| self.population.bury(object, size, epoch));
    }

    fn bury_slot(&mut self, number: u64, addr: u64, epoch: u32) {
        let Some(page) = self.pages.get_mut(number) else { return };
        let size = page.size;
        page.empty_slot(page.slot(addr), |object| self.population.bury(object, size, epoch));
    }

    /// Which of the followed objects from before `epoch` are dead, by their slots as in
    /// [`crate::event::Event::Deaths`]. `fate` says what became of the page at an address;
    /// it is asked of each once, in ascending order.
    pub fn dead<'a>(&self, epoch: u32, mut fate: impl FnMut(u64) -> Fate<'a>) -> Vec<u64> {
        let mut dead = Vec::new();
        for number in self.pages.numbers() {
            let Some(page) = self.pages.get(number) else { continue };
            page.dead(
                fate(number * PAGE),
                |cohort| self.population.cohorts.get(cohort).epoch < epoch,
                |slot| {
                    let slot = slot_address(number, slot, page.size);
                    if dead.last() != Some(&slot) {
                        dead.push(slot);
                    }
                },
            );
        }
        dead
    }

    /// Whether any object is followed whose slot begins in the page at this address.
    pub fn follows(&self, addr: u64) -> bool {
        self.pages.get(addr / PAGE).is_some()
    }

    /// Objects in these slots from before `epoch` have died.
    pub(super) fn deaths(&mut self, epoch: u32, slots: &[u64]) {
        for of_page in slots.chunk_by(|a, b| a / PAGE == b / PAGE) {
            let Some(number) = of_page.first().map(|addr| addr / PAGE) else { continue };
            let Some(page) = self.pages.get_mut(number) else { continue };
            let before = page.memory();
            let size = page.size;
            let mut dead: Vec<usize> = of_page.iter().map(|&addr| page.slot(addr)).collect();
            // Ascending in a capture of ours.
            dead.sort_unstable();
            let mut gone: Vec<Object> = Vec::new();
            let cohorts = &self.population.cohorts;
            let lives = |slot: usize, object: Object| {
                cohorts.get(object.cohort).epoch >= epoch || dead.binary_search(&slot).is_err()
            };
            page.retain(lives, |object| gone.push(object));
            for object in gone {
                self.population.bury(object, size, epoch);
            }
            if page.is_empty() {
                self.page_memory -= before;
                self.pages.remove(number);
            } else {
                page.shrink();
                self.page_memory = self.page_memory + page.memory() - before;
            }
        }
    }

    /// The cycle before `epoch` was judged in full. Returns objects and bytes of the
    /// survivors, by the group that a call belongs to.
    pub(super) fn judged(
        &mut self,
        epoch: u32,
        time_ns: u64,
        group: impl Fn(u32) -> u64,
    ) -> BTreeMap<u64, (u64, u64)> {
        self.judged = Some(epoch);
        let mut survivors: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let mut bytes: Vec<Bytes> = Vec::new();
        for cohort in self.population.cohorts.iter().filter(|cohort| cohort.epoch < epoch) {
            let (more_objects, more_bytes) = self.population.count(cohort);
            of_call(&mut bytes, cohort.call).add(more_bytes, cohort.epoch, epoch);
            let (objects, total) = survivors.entry(group(cohort.call)).or_default();
            *total = total.wrapping_add(more_bytes);
            *objects = objects.wrapping_add(more_objects);
        }
        self.history.add(epoch, time_ns, &bytes);
        survivors
    }

    /// Epoch begun by the latest cycle that was judged in full; until there is one,
    /// nothing is known of what is alive.
    pub fn latest_judged(&self) -> Option<u32> {
        self.judged
    }

    /// What is alive of each call that has any such objects, by its index.
    pub fn alive(&self) -> HashMap<u32, Alive> {
        let judged = self.judged.unwrap_or(0);
        let mut calls: HashMap<u32, Alive> = HashMap::new();
        for cohort in self.population.cohorts.iter() {
            let (objects, bytes) = self.population.count(cohort);
            let alive = calls.entry(cohort.call).or_default();
            if cohort.epoch < judged {
                alive.objects = alive.objects.wrapping_add(objects);
                alive.bytes = alive.bytes.wrapping_add(bytes);
                let age = &mut alive.after[age_range(judged - cohort.epoch)];
                *age = age.wrapping_add(objects);
            } else {
                alive.new_objects = alive.new_objects.wrapping_add(objects);
                alive.new_bytes = alive.new_bytes.wrapping_add(bytes);
            }
        }
        calls
    }

    /// Of each call how many objects are alive of which window, by its index and the
    /// window's, counted from 0.
    pub fn alive_by_window(&self) -> HashMap<u32, Vec<(u32, u64)>> {
        let judged = self.judged.unwrap_or(0);
        let mut calls: HashMap<u32, Vec<(u32, u64)>> = HashMap::new();
        for cohort in self.population.cohorts.iter().filter(|cohort| cohort.epoch < judged) {
            let (objects, _) = self.population.count(cohort);
            calls.entry(cohort.call).or_default().push((cohort.window, objects));
        }
        // The places of cohorts have no meaning, but sums of fractions depend on their order.
        calls.values_mut().for_each(|windows| windows.sort_unstable());
        calls
    }

    /// What of a call's objects has died: of those that were seen, also where each stands
    /// for more.
    pub fn died(&self, call: u32) -> Died {
        self.population.died.get(call as usize).copied().unwrap_or_default()
    }

    /// How many bytes of some calls together were alive after up to 64 of the judged cycles, evenly
    /// spread over all of them, given what each object of a call counts for.
    pub fn history(&self, calls: &[(u32, f64)], births: &Births) -> Vec<LivePoint> {
        let mut points = self.history.of(calls);
        for (call, weight) in calls {
            let mut kept = 0;
            let mut born = births.0.get(call).into_iter().flatten().peekable();
            for point in &mut points {
                while let Some((_, bytes)) = born.next_if(|(epoch, _)| *epoch < point.epoch) {
                    kept = u64::wrapping_add(kept, *bytes);
                }
                point.kept_bytes += kept as f64 * weight;
            }
        }
        points
    }

    /// Of what epoch the survivors of the latest judged cycle are.
    pub fn births(&self) -> Births {
        let judged = self.judged.unwrap_or(0);
        let mut births = Births::default();
        for cohort in self.population.cohorts.iter().filter(|cohort| cohort.epoch < judged) {
            let (_, bytes) = self.population.count(cohort);
            births.0.entry(cohort.call).or_default().push((cohort.epoch, bytes));
        }
        births.0.values_mut().for_each(|born| born.sort_unstable());
        births
    }

    /// Calls of which not each object is followed, and the fewest that are: one in so many.
    pub fn sampled(&self) -> Option<(usize, u64)> {
        let levels = &self.population.levels;
        let worst = *levels.iter().max().filter(|level| **level > 0)?;
        Some((levels.iter().filter(|level| **level > 0).count(), 1 << worst))
    }

    /// Objects that were not followed, as their slot's size is not known.
    pub fn unslotted(&self) -> u64 {
        self.unslotted
    }

    /// Objects followed at present.
    pub fn objects(&self) -> u64 {
        self.population.cohorts.iter().map(|cohort| cohort.objects).sum()
    }

    /// Bytes of memory it all takes, without the allocator's own overhead.
    pub fn memory(&self) -> usize {
        self.of_objects() + size_of::<Died>() * self.population.died.capacity() + self.history.memory()
    }

    /// Of a call's objects one in so many is followed.
    pub fn followed_one_in(&self, call: u32) -> u64 {
        1 << self.population.level(call)
    }

    /// Follows half as many objects of the calls that have most, until there is room again.
    fn thin_out(&mut self) {
        // Room for cohorts is used again, but not given back.
        while self.of_objects() > self.max_memory / 4 * 3 && self.page_memory > self.max_memory / 4 {
            let mut followed: HashMap<u32, u64> = HashMap::new();
            for cohort in self.population.cohorts.iter() {
                *followed.entry(cohort.call).or_default() += cohort.objects;
            }
            let Some(most) = followed.values().copied().max() else { break };
            for (&call, _) in followed.iter().filter(|(_, objects)| **objects > most / 2) {
                let level = of_call(&mut self.population.levels, call);
                // An estimate must still fit 64 bits.
                *level = (*level + 1).min(MAX_LEVEL);
            }
            if self.population.levels.contains(&MAX_LEVEL) {
                break;
            }
            self.drop_unfollowed();
        }
        let now = self.of_objects();
        self.thin_at = self.max_memory.max(now + now / 4);
    }

    fn drop_unfollowed(&mut self) {
        for number in self.pages.numbers() {
            let Some(page) = self.pages.get_mut(number) else { continue };
            let size = page.size;
            let mut dropped = Vec::new();
            let population = &self.population;
            let keep = |slot: usize, object: Object| {
                let call = population.cohorts.get(object.cohort).call;
                is_followed(slot_address(number, slot, size), population.level(call))
            };
            let before = page.memory();
            page.retain(keep, |object| dropped.push(object));
            page.shrink();
            self.page_memory = self.page_memory + page.memory() - before;
            if page.is_empty() {
                self.pages.remove(number);
            }
            for object in dropped {
                self.population.cohorts.leave(object.cohort, counted_bytes(object.fits, size));
            }
        }
    }
}

/// Of a call thinned out so far, next to nothing is left to drop.
const MAX_LEVEL: u32 = 24;

/// Whether the object in this slot is among the one in 2 to the power of `level` that are
/// followed: a hash of the address decides, so that all in a slot share that fate.
fn is_followed(slot: u64, level: u32) -> bool {
    let hash = (slot >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    hash & ((1 << level) - 1) == 0
}

/// How [`crate::event::Event::Deaths`] names the slot of `size` bytes that begins at this address.
pub fn slot_name(addr: u64, size: u64) -> u64 {
    let size = size.max(1);
    slot_address(addr / PAGE, (addr % PAGE / size) as usize, size)
}

/// The address of a slot by its place among those that begin in a page.
fn slot_address(page: u64, slot: usize, size: u64) -> u64 {
    page * PAGE + slot as u64 * size
}

/// Bytes that an object takes by itself: none if it fitted a block that was there.
fn counted_bytes(fits: bool, size: u64) -> u64 {
    if fits { 0 } else { size }
}

/// Who is alive, and how many have died.
#[derive(Debug, Default)]
struct Population {
    cohorts: Cohorts,
    /// By call, as far as any have died.
    died: Vec<Died>,
    /// By call: of its objects one in 2 to this power is followed.
    levels: Vec<u32>,
}

impl Population {
    fn level(&self, call: u32) -> u32 {
        self.levels.get(call as usize).copied().unwrap_or(0)
    }

    /// How many objects and bytes a cohort stands for.
    fn count(&self, cohort: &Cohort) -> (u64, u64) {
        let (level, weight) = (self.level(cohort.call), self.cohorts.weight(cohort));
        let weighed = |amount: u64| match weight {
            1.0 => amount << level,
            weight => ((amount << level) as f64 * weight).round() as u64,
        };
        (weighed(cohort.objects), weighed(cohort.bytes))
    }

    /// Counts an object as dead that was judged at the beginning of `epoch`, or replaced in
    /// it.
    fn bury(&mut self, object: Object, size: u64, epoch: u32) {
        let bytes = counted_bytes(object.fits, size);
        let cohort = self.cohorts.leave(object.cohort, bytes);
        let level = self.level(cohort.call);
        let died = of_call(&mut self.died, cohort.call);
        died.objects = died.objects.wrapping_add(1 << level);
        died.bytes = died.bytes.wrapping_add(bytes << level);
        let survived = epoch.saturating_sub(cohort.epoch).saturating_sub(1);
        let age = &mut died.after[age_range(survived)];
        *age = age.wrapping_add(1 << level);
    }
}
