//! Specials: which objects of a span have a finalizer or a cleanup, and which the runtime's
//! heap profiler has sampled and not yet seen die.
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

/// Reads which objects are sampled in some spans.
///
/// # Errors
/// Failed when a span's struct cannot be read.
pub(super) fn sampled(memory: &impl ProcessMemory, layout: &Special, spans: &[Wanted]) -> Result<Vec<Slots>> {
    let mut slots: Vec<Vec<u32>> = vec![Vec::new(); spans.len()];
    let whole = walk(memory, layout, spans, |special| {
        if special.kind == layout.profile_kind {
            slots[special.span].push((special.offset / spans[special.span].slot_size) as u32);
        }
    })?;
    Ok(slots.into_iter().zip(whole).map(|(slots, whole)| whole.then_some(slots)).collect())
}

/// One of a span's list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed {
    /// Its own address.
    pub(super) addr: u64,
    /// Index of the span among those asked for.
    pub(super) span: usize,
    /// Of its object in the span, in bytes.
    pub(super) offset: u64,
    pub(super) kind: u8,
    /// The word behind it: of one that the heap profiler has made, the object's bucket
    /// (runtime/mheap.go `specialprofile`).
    pub(super) behind: u64,
}

/// Reads the lists of some spans, side by side: one read for the first of each, one for
/// the second, and so on. Says of each whether it was followed to its end.
///
/// # Errors
/// Failed when a span's struct cannot be read.
pub(super) fn walk(
    memory: &impl ProcessMemory,
    layout: &Special,
    spans: &[Wanted],
    mut visit: impl FnMut(Listed),
) -> Result<Vec<bool>> {
    let heads: Vec<(u64, usize)> =
        spans.iter().map(|span| (span.addr.wrapping_add(layout.first), 8)).collect();
    let heads = gather(memory, &heads)?;
    let mut whole = vec![true; spans.len()];
    let mut open: Vec<Open> = heads
        .words()
        .enumerate()
        .map(|(span, special)| Open { span, special, latest: None })
        .filter(|open| open.special != 0)
        .collect();
    for _ in 0..MAX_LENGTH {
        if open.is_empty() {
            return Ok(whole);
        }
        let read = read(memory, layout, &open);
        let mut longer = Vec::with_capacity(open.len());
        for (open, bytes) in open.into_iter().zip(read) {
            let decoded = bytes.and_then(|bytes| open.decode(layout, &bytes, spans[open.span].len));
            let Some((listed, next)) = decoded else {
                whole[open.span] = false;
                continue;
            };
            visit(listed);
            if next != 0 {
                longer.push(Open { special: next, latest: Some((listed.offset, listed.kind)), ..open });
            }
        }
        open = longer;
    }
    open.iter().for_each(|open| whole[open.span] = false);
    Ok(whole)
}

/// A list that has not been read to its end.
#[derive(Debug, Clone, Copy)]
struct Open {
    span: usize,
    /// The next one's address.
    special: u64,
    /// Offset and kind of the one before.
    latest: Option<(u64, u8)>,
}

impl Open {
    /// The special, and the address of the one behind it; `None` where it cannot be one.
    fn decode(&self, layout: &Special, bytes: &[u8], span_len: u64) -> Option<(Listed, u64)> {
        let wide = word(bytes, layout.offset);
        let offset = if layout.is_offset_narrow { wide & 0xffff } else { wide };
        let kind = bytes.get(layout.kind as usize).copied().unwrap_or(0);
        let behind = word(bytes, len(layout));
        let listed = Listed { addr: self.special, span: self.span, offset, kind, behind };
        let follows = offset < span_len && Some((offset, kind)) > self.latest;
        follows.then(|| (listed, word(bytes, layout.next)))
    }
}

/// Bytes of a `runtime.special`, which ends with its kind.
fn len(layout: &Special) -> u64 {
    (layout.kind + 1).next_multiple_of(8)
}

/// What stands at each, and the word behind it; `None` for those that cannot be read.
fn read(memory: &impl ProcessMemory, layout: &Special, open: &[Open]) -> Vec<Option<Vec<u8>>> {
    let len = len(layout) as usize + 8;
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
