//! The pages that hold followed objects, found by their number.
//!
//! Two levels, as the runtime's own (runtime/mheap.go `heapArena`): the heap lies in few
//! arenas, so that a look-up stays in the cache, and pages are visited in order.

use hashbrown::HashMap;

use super::page::Page;

/// Pages of one arena: 4 MiB. Larger ones make no difference to speed, but to what a hostile
/// capture can make us allocate with one event.
const ARENA: u64 = 512;

#[derive(Debug)]
struct Arena {
    /// For each page one more than its place in `PageTable::pages`; 0: not there.
    places: Box<[u32]>,
    used: u32,
}

#[derive(Debug, Default)]
pub(super) struct PageTable {
    /// By page number divided by `ARENA`.
    arenas: HashMap<u64, Arena>,
    pages: Vec<Page>,
    /// Places of pages that are gone.
    free: Vec<u32>,
}

impl PageTable {
    fn place(&self, number: u64) -> Option<usize> {
        let place = *self.arenas.get(&(number / ARENA))?.places.get((number % ARENA) as usize)?;
        (place as usize).checked_sub(1)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Page> {
        self.pages.get(self.place(number)?)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Page> {
        let place = self.place(number)?;
        self.pages.get_mut(place)
    }

    /// The page with this number, made by `new` if it is not there.
    pub(super) fn get_or_insert(&mut self, number: u64, new: impl FnOnce() -> Page) -> &mut Page {
        let place = match self.place(number) {
            Some(place) => place,
            None => {
                let place = match self.free.pop() {
                    Some(place) => place as usize,
                    None => self.pages.len(),
                };
                let arena = self
                    .arenas
                    .entry(number / ARENA)
                    .or_insert_with(|| Arena { places: vec![0; ARENA as usize].into(), used: 0 });
                arena.places[(number % ARENA) as usize] = place as u32 + 1;
                arena.used += 1;
                if place == self.pages.len() {
                    self.pages.push(new());
                } else {
                    self.pages[place] = new();
                }
                place
            }
        };
        &mut self.pages[place]
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Page> {
        let place = self.place(number)?;
        let arena = self.arenas.get_mut(&(number / ARENA))?;
        arena.places[(number % ARENA) as usize] = 0;
        arena.used -= 1;
        if arena.used == 0 {
            self.arenas.remove(&(number / ARENA));
        }
        self.free.push(place as u32);
        Some(std::mem::replace(self.pages.get_mut(place)?, Page::new(1)))
    }

    /// The numbers of all pages, ascending.
    pub(super) fn numbers(&self) -> Vec<u64> {
        let mut arenas: Vec<(&u64, &Arena)> = self.arenas.iter().collect();
        arenas.sort_unstable_by_key(|(arena, _)| **arena);
        let pages = |(arena, of): (&u64, &Arena)| {
            let first = arena * ARENA;
            let there = of.places.iter().zip(first..).filter(|(place, _)| **place != 0);
            there.map(|(_, number)| number).collect::<Vec<u64>>()
        };
        arenas.into_iter().flat_map(pages).collect()
    }

    /// Bytes of memory it takes, without what the pages refer to.
    pub(super) fn memory(&self) -> usize {
        self.arenas.len() * ARENA as usize * size_of::<u32>()
            + self.pages.capacity() * size_of::<Page>()
            + self.free.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_an_ordered_map(
            steps in prop::collection::vec((any::<bool>(), 0..40_u64, 1..9_u64), 0..200)
        ) {
            let mut table = PageTable::default();
            let mut model: BTreeMap<u64, u64> = BTreeMap::new();
            for (insert, key, size) in steps {
                // Some far apart, some side by side.
                let number = key % 8 + key / 8 * (u64::MAX / 40);
                if insert {
                    table.get_or_insert(number, || Page::new(8 * size));
                    model.entry(number).or_insert(8 * size);
                } else {
                    prop_assert_eq!(table.remove(number).map(|page| page.size), model.remove(&number));
                }
            }
            prop_assert_eq!(table.numbers(), model.keys().copied().collect::<Vec<_>>());
            for (number, size) in &model {
                prop_assert_eq!(table.get(*number).map(|page| page.size), Some(*size));
            }
            prop_assert_eq!(table.arenas.is_empty(), model.is_empty());
        }
    }
}
