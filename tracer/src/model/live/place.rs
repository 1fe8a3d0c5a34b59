//! Where followed objects are, and what is known of the one at an address.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::page::PAGE;
use super::{Live, slot_address};

/// Where an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// By the page in which it begins, as in [`crate::event::Event::Deaths`].
    pub slot: u64,
    pub size: u64,
}

impl Live {
    /// Of each group of calls at most `most` objects that are alive, given the group of each call:
    /// those first that have survived more than one GC cycle, of these any.
    pub fn some_of(&self, groups: &HashMap<u32, usize>, most: usize) -> HashMap<usize, Vec<Placed>> {
        let judged = self.judged.unwrap_or(0);
        let mut found: HashMap<usize, BTreeSet<(bool, u64, Placed)>> = HashMap::new();
        for number in self.pages.numbers() {
            let Some(page) = self.pages.get(number) else { continue };
            for (slot, object) in page.objects() {
                let cohort = self.population.cohorts.get(object.cohort);
                let Some(&group) = groups.get(&cohort.call).filter(|_| cohort.epoch < judged) else {
                    continue;
                };
                let slot = slot_address(number, slot, page.size);
                let is_young = judged - cohort.epoch < 2;
                // Scattered over the heap, and the same each time.
                let order = (slot >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
                let of_group = found.entry(group).or_default();
                let key = (is_young, order, Placed { slot, size: page.size });
                if of_group.len() < most || of_group.last().is_some_and(|last| key < *last) {
                    of_group.insert(key);
                    if of_group.len() > most {
                        of_group.pop_last();
                    }
                }
            }
        }
        let placed =
            |of_group: BTreeSet<(bool, u64, Placed)>| of_group.into_iter().map(|key| key.2).collect();
        found.into_iter().map(|(group, of_group)| (group, placed(of_group))).collect()
    }

    /// The call that allocated what is in the slot that begins at this address; `None`: it is not
    /// known, or there are several.
    pub fn call_at(&self, base: u64, size: u64) -> Option<u32> {
        let page = self.pages.get(base / PAGE).filter(|page| page.size == size)?;
        let slot = page.slot(base);
        let mut calls = page.objects().filter(|(at, _)| *at == slot).map(|(_, object)| object.cohort);
        let call = self.population.cohorts.get(calls.next()?).call;
        calls.all(|cohort| self.population.cohorts.get(cohort).call == call).then_some(call)
    }
}
