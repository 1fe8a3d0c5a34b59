//! One pass over all memory that may hold pointers, for words that point into given slots.
//!
//! Conservative, as Go's collector is not: an integer in the heap or on a stack may look like a
//! pointer.

use super::heap::{Heap, Slot, Use};
use crate::memory::ProcessMemory;

/// Memory that is scanned.
#[derive(Debug, Clone, Default)]
pub(super) struct Region {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) root: Option<Root>,
    /// Of each word a bit: whether the runtime takes it for a pointer. `None`: that is not known.
    pub(super) pointers: Option<Vec<u8>>,
}

impl Region {
    fn may_be_pointer(&self, word: u64) -> bool {
        let bit = |mask: &Vec<u8>| Some(mask.get(usize::try_from(word / 8).ok()?)? >> (word % 8) & 1 == 1);
        self.pointers.as_ref().is_none_or(|mask| bit(mask).unwrap_or(true))
    }
}

/// What keeps objects alive without being one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Root {
    /// A global variable.
    Global,
    /// The stack of the goroutine of this number.
    Stack(u64),
}

/// A word that points into one of the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hit {
    /// Index of the slot.
    pub(super) target: usize,
    /// Where the word stands.
    pub(super) at: u64,
    pub(super) value: u64,
    /// The two words behind it; 0 where the region ends.
    pub(super) next: [u64; 2],
    /// `None`: it stands in the heap.
    pub(super) root: Option<Root>,
    /// Nobody has looked yet whether it stands in a living object.
    pub(super) is_new: bool,
}

/// Read with one call, in bytes.
const PIECE: u64 = 1 << 20;

/// The slots that are looked for, by address.
pub(super) struct Targets {
    /// Start, end, index.
    slots: Vec<(u64, u64, usize)>,
    low: u64,
    high: u64,
    /// By a hash of the page: whether any slot may be there. Most words are settled by it.
    filter: Vec<u64>,
}

/// Bits of the filter.
const FILTER: u64 = 1 << 16;
const PAGE_SHIFT: u32 = 13;

impl Targets {
    pub(super) fn new(slots: &[Slot]) -> Targets {
        let mut sorted: Vec<(u64, u64, usize)> =
            slots.iter().enumerate().map(|(i, slot)| (slot.base, slot.end(), i)).collect();
        sorted.sort_unstable();
        let mut filter = vec![0; (FILTER / 64) as usize];
        for &(start, end, _) in &sorted {
            // More pages than bits set them all.
            let pages = (start >> PAGE_SHIFT..=end.saturating_sub(1) >> PAGE_SHIFT).take(FILTER as usize);
            pages.for_each(|page| filter[(page % FILTER / 64) as usize] |= 1 << (page % 64));
        }
        let low = sorted.first().map_or(0, |slot| slot.0);
        let high = sorted.iter().map(|slot| slot.1).max().unwrap_or(0);
        Targets { slots: sorted, low, high, filter }
    }

    /// The slot that a word points into.
    fn find(&self, word: u64) -> Option<usize> {
        if word < self.low || word >= self.high {
            return None;
        }
        let page = word >> PAGE_SHIFT;
        if self.filter.get((page % FILTER / 64) as usize)? >> (page % 64) & 1 == 0 {
            return None;
        }
        let after = self.slots.partition_point(|slot| slot.0 <= word);
        let (_, end, index) = *self.slots.get(after.checked_sub(1)?)?;
        (word < end).then_some(index)
    }
}

/// What a pass found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) hits: Vec<Hit>,
    /// By slot: how many words point into it, also beyond `most`.
    pub(super) counts: Vec<u64>,
    pub(super) bytes: u64,
}

/// Scans the regions. Of each slot the first `most` words are handed out that stand in used
/// memory outside itself.
pub(super) fn scan(
    memory: &impl ProcessMemory,
    heap: &Heap,
    regions: &[Region],
    slots: &[Slot],
    most: u64,
) -> Found {
    let targets = Targets::new(slots);
    let mut found = Found { counts: vec![0; slots.len()], ..Found::default() };
    let mut buffer = Vec::new();
    for region in regions {
        let mut done = 0;
        while done < region.len {
            let len = (region.len - done).min(PIECE);
            // The two words behind the last one, where they belong to it.
            let tail = (region.len - done - len).min(16);
            buffer.resize((len + tail) as usize, 0);
            let start = region.start.wrapping_add(done);
            // What has been unmapped meanwhile holds nothing.
            if memory.read(start, &mut buffer).is_ok() {
                found.bytes += len;
                let words = buffer.as_chunks::<8>().0;
                for (i, word) in words.iter().take((len / 8) as usize).enumerate() {
                    let value = u64::from_le_bytes(*word);
                    let Some(target) = targets.find(value) else { continue };
                    if !region.may_be_pointer(done / 8 + i as u64) {
                        continue;
                    }
                    let next = [1, 2].map(|n| words.get(i + n).map_or(0, |word| u64::from_le_bytes(*word)));
                    let at = start.wrapping_add(8 * i as u64);
                    let hit = Hit { target, at, value, next, root: region.root, is_new: false };
                    take(memory, heap, slots, hit, most, &mut found);
                }
            }
            done += len;
        }
    }
    found
}

fn take(memory: &impl ProcessMemory, heap: &Heap, slots: &[Slot], hit: Hit, most: u64, found: &mut Found) {
    let (Some(slot), Some(count)) = (slots.get(hit.target), found.counts.get_mut(hit.target)) else { return };
    let is_own = (slot.base..slot.end()).contains(&hit.at);
    if is_own {
        return;
    }
    if *count < most {
        let holder = if hit.root.is_some() { Use::Survived } else { use_of(memory, heap, hit.at) };
        // Freed memory keeps its pointers until it is used again.
        if holder == Use::Free {
            return;
        }
        found.hits.push(Hit { is_new: holder == Use::New, ..hit });
    }
    *count += 1;
}

fn use_of(memory: &impl ProcessMemory, heap: &Heap, at: u64) -> Use {
    heap.slot_at(at).map_or(Use::Free, |slot| heap.use_of(memory, slot))
}
