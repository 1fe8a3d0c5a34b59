//! Specials: which objects of a span the runtime's heap profiler has sampled and not yet
//! seen die.
//!
//! Source: runtime/mheap.go `special`, `addspecial`, `setprofilebucket`, and runtime/mgcsweep.go
//! `sweepLocked.sweep`, Go 1.19 to 1.27: a sampled object has a special of its own, which the
//! sweep that frees the object takes away. So it tells the object's death also when another
//! object took the slot before anybody read the marks. The list is in the order of (offset,
//! kind), and changes while it is read: what is out of order was read in the middle of that.

use super::layout::Special;
use crate::base::Result;
use crate::memory::{ProcessMemory, gather};

/// A span whose specials are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Of its struct.
    pub(super) addr: u64,
    /// In bytes.
    pub(super) len: u64,
    pub(super) slot_size: u64,
}

/// The slots of one span with a sampled object, ascending; `None`: the list could not be
/// followed to its end.
pub(super) type Slots = Option<Vec<u32>>;

/// Specials of one span at most: an object of the least span's thousand has few.
const MAX_LENGTH: usize = 1 << 13;

/// Reads the lists of some spans, side by side: one read for the first of each, one for
/// the second, and so on.
///
/// # Errors
/// Failed when a span's struct cannot be read.
pub(super) fn sampled(memory: &impl ProcessMemory, layout: &Special, spans: &[Wanted]) -> Result<Vec<Slots>> {
    let heads: Vec<(u64, usize)> =
        spans.iter().map(|span| (span.addr.wrapping_add(layout.first), 8)).collect();
    let heads = gather(memory, &heads)?;
    let mut slots: Vec<Slots> = vec![Some(Vec::new()); spans.len()];
    let mut open: Vec<Open> = heads
        .iter()
        .enumerate()
        .map(|(span, head)| Open { span, special: word(head, 0), latest: None })
        .filter(|open| open.special != 0)
        .collect();
    for _ in 0..MAX_LENGTH {
        if open.is_empty() {
            return Ok(slots);
        }
        let read = read(memory, layout, &open);
        open = open
            .into_iter()
            .zip(read)
            .filter_map(|(open, bytes)| open.step(layout, bytes.as_deref(), spans, &mut slots))
            .collect();
    }
    open.iter().for_each(|open| slots[open.span] = None);
    Ok(slots)
}

/// A list that has not been read to its end.
struct Open {
    span: usize,
    /// The next one's address.
    special: u64,
    /// Offset and kind of the one before.
    latest: Option<(u64, u8)>,
}

impl Open {
    /// Takes note of a special; what is left of the list.
    fn step(
        self,
        layout: &Special,
        bytes: Option<&[u8]>,
        spans: &[Wanted],
        slots: &mut [Slots],
    ) -> Option<Open> {
        let span = spans[self.span];
        let decoded = bytes.map(|bytes| {
            let wide = word(bytes, layout.offset);
            let offset = if layout.is_offset_narrow { wide & 0xffff } else { wide };
            let kind = bytes.get(layout.kind as usize).copied().unwrap_or(0);
            (word(bytes, layout.next), (offset, kind))
        });
        let Some((next, place)) =
            decoded.filter(|(_, place)| place.0 < span.len && Some(*place) > self.latest)
        else {
            slots[self.span] = None;
            return None;
        };
        if place.1 == layout.profile_kind
            && let Some(slots) = &mut slots[self.span]
        {
            slots.push((place.0 / span.slot_size) as u32);
        }
        (next != 0).then_some(Open { special: next, latest: Some(place), ..self })
    }
}

/// What stands at each; `None` for those that cannot be read.
fn read(memory: &impl ProcessMemory, layout: &Special, open: &[Open]) -> Vec<Option<Vec<u8>>> {
    let len = layout.kind as usize + 8;
    let ranges: Vec<(u64, usize)> = open.iter().map(|open| (open.special, len)).collect();
    match gather(memory, &ranges) {
        Ok(read) => read.iter().map(|bytes| Some(bytes.to_vec())).collect(),
        // One wild address fails all that are read together.
        Err(_) => ranges.iter().map(|&(addr, len)| memory.read_vec(addr, len).ok()).collect(),
    }
}

/// The word at `offset`; 0 beyond the end.
fn word(bytes: &[u8], offset: u64) -> u64 {
    let at = bytes.get(offset as usize..).and_then(|bytes| bytes.first_chunk());
    at.map_or(0, |word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::layout::Layout;
    use super::*;
    use crate::memory::FakeMemory;

    const SPANS: [Wanted; 2] = [
        Wanted { addr: 0x1000, len: 8192, slot_size: 48 },
        Wanted { addr: 0x2000, len: 40960, slot_size: 40960 },
    ];
    const AT: u64 = 0x8000;

    fn layout(go: &str) -> Special {
        Layout::measured(go).expect(go).special
    }

    /// The first span has specials of these (offset, kind), the other has none.
    fn memory(layout: &Special, specials: &[(u64, u8)]) -> FakeMemory {
        let mut memory = FakeMemory::new();
        let first = if specials.is_empty() { 0 } else { AT };
        memory.write_u64(SPANS[0].addr + layout.first, first).write_u64(SPANS[1].addr + layout.first, 0);
        for (i, &(offset, kind)) in (0..).zip(specials) {
            let at = AT + 0x40 * i;
            let next = if i + 1 < specials.len() as u64 { at + 0x40 } else { 0 };
            memory.write(at, &[0; 0x40]).write_u64(at + layout.next, next);
            memory.write(at + layout.offset, &offset.to_le_bytes()[..2]).write(at + layout.kind, &[kind]);
        }
        memory
    }

    fn slots(go: &str, specials: &[(u64, u8)]) -> Vec<Slots> {
        let layout = layout(go);
        sampled(&memory(&layout, specials), &layout, &SPANS).expect("readable")
    }

    #[test]
    fn sampled_objects_are_told_from_finalized_ones() {
        for (go, finalizer, profile) in
            [("go1.19.8", 1, 2), ("go1.23.9", 1, 3), ("go1.24.11", 1, 3), ("go1.27.3", 2, 4)]
        {
            let specials = [(48, finalizer), (48, profile), (96, finalizer), (152, profile)];
            assert_eq!(slots(go, &specials), [Some(vec![1, 3]), Some(vec![])], "{go}");
            assert_eq!(slots(go, &[]), [Some(vec![]), Some(vec![])], "{go}");
        }
    }

    #[test]
    fn a_list_in_the_middle_of_a_change_says_nothing() {
        for wrong in [[(96, 4), (48, 4)], [(48, 4), (48, 4)], [(48, 4), (8192, 4)]] {
            assert_eq!(slots("go1.27.3", &wrong), [None, Some(vec![])], "{wrong:?}");
        }
        let layout = layout("go1.27.3");
        let mut memory = memory(&layout, &[(48, 4)]);
        memory.write_u64(AT + layout.next, 0xdead_0000);
        assert_eq!(sampled(&memory, &layout, &SPANS).expect("the spans"), [None, Some(vec![])]);
    }

    proptest! {
        #[test]
        fn hostile_lists_end(damage in prop::collection::vec((0..0x200_u64, any::<u64>()), 1..20)) {
            let layout = layout("go1.24.11");
            let mut memory = memory(&layout, &[(48, 3), (96, 3), (144, 3), (192, 3)]);
            for (at, value) in damage {
                memory.write_u64(AT + at, value);
            }
            for slots in sampled(&memory, &layout, &SPANS).expect("the spans").into_iter().flatten() {
                prop_assert!(slots.iter().all(|slot| u64::from(*slot) < 8192 / 48 + 1));
            }
        }
    }
}
