//! The followed objects whose slots begin in one page of the target's heap.

use crate::base::set_bits;

/// Bytes of a page of the Go heap (runtime/sizeclasses.go `pageShift`).
pub(super) const PAGE: u64 = 8192;

/// What became of the slots that begin in one page, in one GC cycle.
#[derive(Debug, Clone, Copy)]
pub enum Fate<'a> {
    /// Not known yet.
    Unknown,
    /// The page is no part of the heap any more.
    Gone,
    /// It belongs to a span of slots of `size` bytes; bit `first + i` of `bits` says whether
    /// the i-th slot that begins in the page was marked. Bits beyond the end are 0.
    Marked { size: u64, first: usize, bits: &'a [u64] },
}

/// An object: which cohort it belongs to, and whether it fitted into a block that another
/// one had opened (so that it takes no bytes of its own).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) cohort: u32,
    pub(super) fits: bool,
}

/// Which cohort of the page's an object belongs to, in two bytes: a page holds some thousand
/// objects at most, of few cohorts. The top bit says that it fitted into a block.
type Colour = u16;

const FITS: Colour = 1 << 15;

/// Cohorts of a page from which on those without objects are worth dropping.
const PALETTE: usize = 8;

/// Four bytes for one object of a sparse page.
#[derive(Debug, Clone, Copy)]
struct Entry {
    slot: u16,
    colour: Colour,
}

/// The objects of one page, by the index of their slot among those that begin in it.
#[derive(Debug)]
pub(super) struct Page {
    /// Bytes of a slot.
    pub(super) size: u64,
    /// The first object of each slot, once that takes less room than `few`.
    dense: Option<Box<Dense>>,
    /// All others, by slot: while there are few, and tiny objects in one block.
    few: Vec<Entry>,
    /// The cohorts that colours stand for.
    palette: Vec<u32>,
}

/// Two bytes and a bit for each slot, whether there is an object in it or not.
#[derive(Debug)]
struct Dense {
    /// A bit for each slot that holds an object.
    held: Box<[u64]>,
    colours: Box<[Colour]>,
}

impl Dense {
    fn new(slots: usize) -> Dense {
        let held = vec![0; slots.div_ceil(64)].into_boxed_slice();
        Dense { held, colours: vec![0; slots].into_boxed_slice() }
    }

    fn get(&self, slot: usize) -> Option<Colour> {
        let held = self.held.get(slot / 64)? >> (slot % 64) & 1 == 1;
        if held { self.colours.get(slot).copied() } else { None }
    }

    /// Whether the slot was free and now holds the object.
    fn put(&mut self, slot: usize, new: Colour) -> bool {
        let (Some(held), Some(colour)) = (self.held.get_mut(slot / 64), self.colours.get_mut(slot)) else {
            return false;
        };
        let bit = 1 << (slot % 64);
        let free = *held & bit == 0;
        if free {
            *held |= bit;
            *colour = new;
        }
        free
    }

    fn clear(&mut self, slot: usize) {
        if let Some(held) = self.held.get_mut(slot / 64) {
            *held &= !(1 << (slot % 64));
        }
    }

    /// Bytes of memory that one for so many slots takes.
    fn memory(slots: usize) -> usize {
        size_of::<Dense>() + 8 * slots.div_ceil(64) + size_of::<Colour>() * slots
    }
}

/// The object that a colour stands for.
fn object(palette: &[u32], colour: Colour) -> Object {
    // Each colour is an index of the palette: this module alone makes them.
    let cohort = palette.get(usize::from(colour & !FITS)).copied().unwrap_or_default();
    Object { cohort, fits: colour & FITS != 0 }
}

impl Page {
    pub(super) fn new(size: u64) -> Page {
        Page { size, dense: None, few: Vec::new(), palette: Vec::new() }
    }

    /// Slots that can begin in it.
    fn slots(&self) -> usize {
        PAGE.div_ceil(self.size) as usize
    }

    /// The index of the slot that begins at this address.
    pub(super) fn slot(&self, addr: u64) -> usize {
        (addr % PAGE / self.size) as usize
    }

    /// Bytes of memory that it refers to.
    pub(super) fn memory(&self) -> usize {
        let dense = self.dense.as_deref().map_or(0, |dense| Dense::memory(dense.colours.len()));
        dense + size_of::<Entry>() * self.few.capacity() + size_of::<u32>() * self.palette.capacity()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.few.is_empty() && self.dense.as_ref().is_none_or(|d| d.held.iter().all(|word| *word == 0))
    }

    pub(super) fn add(&mut self, slot: usize, object: Object) {
        let Some(colour) = self.colour(object) else { return };
        if self.dense.as_mut().is_some_and(|dense| dense.put(slot, colour)) {
            return;
        }
        let entry = Entry { slot: slot as u16, colour };
        let at = match self.few.last() {
            // Spans are mostly filled from the front.
            Some(last) if last.slot > entry.slot => self.few.partition_point(|e| e.slot <= entry.slot),
            _ => self.few.len(),
        };
        if self.few.len() == self.few.capacity() {
            self.few.reserve_exact(self.few.len() / 4 + 2);
        }
        self.few.insert(at, entry);
        if self.dense.is_none() && size_of::<Entry>() * self.few.len() > Dense::memory(self.slots()) {
            self.make_dense();
        }
    }

    /// `None`: there are more cohorts than a page holds objects.
    fn colour(&mut self, object: Object) -> Option<Colour> {
        // Neighbours are mostly of one cohort, the latest.
        let index = match self.palette.iter().rposition(|cohort| *cohort == object.cohort) {
            Some(index) => index,
            None if self.palette.len() >= usize::from(FITS) => return None,
            None => {
                if self.palette.len() == self.palette.capacity() {
                    self.palette.reserve_exact(self.palette.len() / 2 + 1);
                }
                self.palette.push(object.cohort);
                self.palette.len() - 1
            }
        };
        Some(index as Colour | if object.fits { FITS } else { 0 })
    }

    fn make_dense(&mut self) {
        let mut dense = Dense::new(self.slots());
        self.few.retain(|e| !dense.put(usize::from(e.slot), e.colour));
        self.few.shrink_to_fit();
        self.dense = Some(Box::new(dense));
    }

    /// Every object, in no particular order.
    pub(super) fn objects(&self) -> impl Iterator<Item = (usize, Object)> {
        let dense = self.dense.iter().flat_map(|dense| {
            set_bits(dense.held.iter().copied()).filter_map(|slot| Some((slot, dense.get(slot)?)))
        });
        let few = self.few.iter().map(|e| (usize::from(e.slot), e.colour));
        dense.chain(few).map(|(slot, colour)| (slot, object(&self.palette, colour)))
    }

    /// Drops the objects that are not to be kept, each handed to `dropped`.
    pub(super) fn retain(
        &mut self,
        mut keep: impl FnMut(usize, Object) -> bool,
        mut dropped: impl FnMut(Object),
    ) {
        let palette = &self.palette;
        let mut kept = |slot: usize, colour: Colour| {
            let object = object(palette, colour);
            let kept = keep(slot, object);
            if !kept {
                dropped(object);
            }
            kept
        };
        if let Some(dense) = &mut self.dense {
            let all: Vec<usize> = set_bits(dense.held.iter().copied()).collect();
            for slot in all {
                if dense.get(slot).is_some_and(|colour| !kept(slot, colour)) {
                    dense.clear(slot);
                }
            }
        }
        self.few.retain(|e| kept(usize::from(e.slot), e.colour));
    }

    /// Takes all objects out of a slot.
    pub(super) fn empty_slot(&mut self, slot: usize, mut dropped: impl FnMut(Object)) {
        if let Some(dense) = &mut self.dense
            && let Some(colour) = dense.get(slot)
        {
            dense.clear(slot);
            dropped(object(&self.palette, colour));
        }
        let from = self.few.partition_point(|e| usize::from(e.slot) < slot);
        let to = self.few.partition_point(|e| usize::from(e.slot) <= slot);
        for entry in self.few.drain(from..to) {
            dropped(object(&self.palette, entry.colour));
        }
    }

    /// Gives back room that objects took which are no longer there.
    pub(super) fn shrink(&mut self) {
        let held = |dense: &Dense| dense.held.iter().map(|word| word.count_ones() as usize).sum::<usize>();
        let count = self.few.len() + self.dense.as_deref().map_or(0, held);
        // Well below the size at which it would be made dense again.
        let sparse = 4 * size_of::<Entry>() * count < 3 * Dense::memory(self.slots());
        if (self.dense.is_some() && sparse) || self.palette.len() > PALETTE {
            let mut all: Vec<(usize, Object)> = self.objects().collect();
            all.sort_by_key(|(slot, _)| *slot);
            *self = Page::new(self.size);
            if sparse {
                self.few.reserve_exact(all.len());
            } else {
                self.make_dense();
            }
            for (slot, object) in all {
                self.add(slot, object);
            }
        }
        self.few.shrink_to_fit();
    }

    /// Hands out the slots, ascending, of `old` objects that were not marked: some of them
    /// more than once.
    pub(super) fn dead(&self, fate: Fate<'_>, old: impl Fn(u32) -> bool, mut found: impl FnMut(usize)) {
        let (first, bits): (usize, &[u64]) = match fate {
            Fate::Unknown => return,
            Fate::Marked { size, first, bits } if size == self.size => (first, bits),
            // Slots of another size: the span is a new one.
            Fate::Marked { .. } | Fate::Gone => (0, &[]),
        };
        let old: Vec<bool> = self.palette.iter().map(|cohort| old(*cohort)).collect();
        let all_old = !old.contains(&false);
        let old = |colour: Colour| old.get(usize::from(colour & !FITS)).copied().unwrap_or_default();
        let unmarked = |slot: usize| word_at(bits, first + slot) & 1 == 0;
        let few = self.few.iter().filter(|e| unmarked(usize::from(e.slot)) && old(e.colour));
        let mut few = few.map(|e| usize::from(e.slot)).peekable();
        if let Some(dense) = &self.dense {
            for (i, &held) in dense.held.iter().enumerate() {
                let mut unmarked = held & !word_at(bits, first + 64 * i);
                while unmarked != 0 {
                    let slot = 64 * i + unmarked.trailing_zeros() as usize;
                    unmarked &= unmarked - 1;
                    if all_old || dense.colours.get(slot).is_some_and(|colour| old(*colour)) {
                        while let Some(before) = few.next_if(|before| *before < slot) {
                            found(before);
                        }
                        found(slot);
                    }
                }
            }
        }
        few.for_each(found);
    }
}

/// 64 bits from bit `at` on; 0 beyond the end.
fn word_at(bits: &[u64], at: usize) -> u64 {
    let word = |i: usize| bits.get(i).copied().unwrap_or(0);
    match at % 64 {
        0 => word(at / 64),
        shift => word(at / 64) >> shift | word(at / 64 + 1) << (64 - shift),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_takes_four_bytes() {
        assert_eq!(size_of::<Entry>(), 4);
    }

    #[test]
    fn words_are_taken_at_any_bit() {
        let bits = [0x8000_0000_0000_0001, 0x3];
        assert_eq!(word_at(&bits, 0), bits[0]);
        assert_eq!(word_at(&bits, 63), 0b111);
        assert_eq!(word_at(&bits, 65), 1);
        assert_eq!(word_at(&bits, 128), 0);
    }

    proptest! {
        /// However a page holds its objects, it behaves as a list of them would.
        #[test]
        fn a_page_is_a_multiset_of_objects(
            size in prop::sample::select(vec![8_u64, 16, 24, 48, 1024, 9472, 1 << 20]),
            steps in prop::collection::vec((any::<u16>(), any::<bool>(), 0..40_u32, 0..12_u8), 0..600),
            bits in prop::collection::vec(any::<u64>(), 20),
            first in 0..64_usize,
        ) {
            let mut page = Page::new(size);
            let mut model: BTreeMap<usize, Vec<Object>> = BTreeMap::new();
            for (addr, fits, cohort, action) in steps {
                let slot = page.slot(u64::from(addr));
                let object = Object { cohort, fits };
                match action {
                    0 => {
                        let mut out = Vec::new();
                        page.empty_slot(slot, |o| out.push(o));
                        let mut want = model.remove(&slot).unwrap_or_default();
                        let key = |o: &Object| (o.cohort, o.fits);
                        out.sort_by_key(key);
                        want.sort_by_key(key);
                        prop_assert_eq!(out, want);
                    }
                    1 => page.shrink(),
                    2 => {
                        let mut dropped = 0;
                        page.retain(|_, o| o.cohort != cohort, |_| dropped += 1);
                        let before: usize = model.values().map(Vec::len).sum();
                        model.values_mut().for_each(|of| of.retain(|o| o.cohort != cohort));
                        model.retain(|_, of| !of.is_empty());
                        prop_assert_eq!(dropped, before - model.values().map(Vec::len).sum::<usize>());
                    }
                    _ => {
                        page.add(slot, object);
                        model.entry(slot).or_default().push(object);
                    }
                }
            }
            prop_assert_eq!(page.is_empty(), model.is_empty());
            let marked = |slot: usize| {
                let at = slot + first;
                bits.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
            };
            let dead_of = |fate: Fate<'_>| {
                let mut dead = Vec::new();
                page.dead(fate, |cohort| cohort < 20, |slot| dead.push(slot));
                assert!(dead.is_sorted(), "{dead:?}");
                dead.dedup();
                dead
            };
            let old = |of: &Vec<Object>| of.iter().any(|o| o.cohort < 20);
            let want: Vec<usize> =
                model.iter().filter(|(slot, of)| !marked(**slot) && old(of)).map(|(slot, _)| *slot).collect();
            prop_assert_eq!(dead_of(Fate::Marked { size, first, bits: &bits }), want);
            let all: Vec<usize> = model.iter().filter(|(_, of)| old(of)).map(|(slot, _)| *slot).collect();
            prop_assert_eq!(dead_of(Fate::Marked { size: size + 8, first, bits: &bits }), all.clone());
            prop_assert_eq!(dead_of(Fate::Gone), all);
            prop_assert_eq!(dead_of(Fate::Unknown), Vec::<usize>::new());
        }
    }
}
