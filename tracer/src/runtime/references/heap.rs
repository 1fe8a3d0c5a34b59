//! The heap by address: which slot of which span a word lies in or points into.

use crate::base::Result;
use crate::memory::ProcessMemory;
use crate::runtime::layout::Layout;
use crate::runtime::size_class::PAGE_SIZE;
use crate::runtime::spans::{Span, SpanReader};

/// Memory of one object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    pub base: u64,
    pub size: u64,
}

impl Slot {
    pub(super) fn end(self) -> u64 {
        self.base.saturating_add(self.size)
    }
}

/// The spans of the GC heap as they were at one time.
#[derive(Debug)]
pub(super) struct Heap {
    /// By address; those of user arenas, whose objects have no slots, are left out.
    spans: Vec<Span>,
    malloc_headers: bool,
    large_type: Option<u64>,
}

/// Up to this size the objects of a span carry no header (runtime/malloc.go
/// `minSizeForMallocHeader`).
const MAX_WITHOUT_HEADER: u64 = 512;
const HEADER: u64 = 8;

impl Heap {
    pub(super) fn read(reader: &SpanReader, memory: &impl ProcessMemory, layout: &Layout) -> Result<Heap> {
        let mut spans = reader.all(memory)?.value;
        spans.retain(|span| !span.is_user_arena_chunk && span.alloc_count > 0);
        spans.sort_unstable_by_key(|span| span.base);
        spans.dedup_by_key(|span| span.base);
        Ok(Heap { spans, malloc_headers: layout.malloc_headers, large_type: layout.large_type })
    }

    /// Those whose objects may hold pointers.
    pub(super) fn pointerful(&self) -> impl Iterator<Item = &Span> {
        self.spans.iter().filter(|span| !span.is_noscan())
    }

    fn span_at(&self, addr: u64) -> Option<&Span> {
        let after = self.spans.partition_point(|span| span.base <= addr);
        let span = self.spans.get(after.checked_sub(1)?)?;
        (addr - span.base < span.nelems * span.elem_size).then_some(span)
    }

    /// The slot that holds this address.
    pub(super) fn slot_at(&self, addr: u64) -> Option<Slot> {
        let span = self.span_at(addr)?;
        let base = addr - (addr - span.base) % span.elem_size;
        Some(Slot { base, size: span.elem_size })
    }

    /// The slot that a shadow of the heap names so, which knows no spans: by the page in which it
    /// begins, plus its size times its place among the slots that begin there.
    pub(super) fn named(&self, name: u64, size: u64) -> Option<Slot> {
        let page = name - name % PAGE_SIZE;
        let span = self.span_at(name).or_else(|| self.span_at(page)).filter(|span| span.elem_size == size)?;
        let first = page.saturating_sub(span.base).div_ceil(size);
        let base = span.base.checked_add(first.checked_add(name % PAGE_SIZE / size)?.checked_mul(size)?)?;
        self.slot_at(base).filter(|slot| slot.base == base)
    }

    /// Where an object begins in its slot.
    pub(super) fn start(&self, slot: Slot) -> u64 {
        let has_header = self.malloc_headers
            && slot.size > MAX_WITHOUT_HEADER
            && self.span_at(slot.base).is_some_and(|span| !span.is_noscan() && span.size_class() > 0);
        if has_header { slot.base.saturating_add(HEADER) } else { slot.base }
    }

    /// Where the address of the type of what is in a slot stands, if it does.
    pub(super) fn type_word(&self, slot: Slot) -> Option<u64> {
        let span = self.span_at(slot.base).filter(|span| !span.is_noscan())?;
        match span.size_class() {
            0 => Some(span.addr.wrapping_add(self.large_type?)),
            _ => (self.start(slot) != slot.base).then_some(slot.base),
        }
    }

    /// What is known of the slot since its span was swept, the latest time; where that cannot be
    /// read it is said to have survived.
    pub(super) fn use_of(&self, memory: &impl ProcessMemory, slot: Slot) -> Use {
        let Some(span) = self.span_at(slot.base) else { return Use::Free };
        let index = (slot.base - span.base) / span.elem_size;
        let word = memory.read_u64(span.alloc_bits.wrapping_add(index / 64 * 8));
        match word {
            Ok(word) if word >> (index % 64) & 1 == 0 && index < span.free_index => Use::New,
            Ok(word) if word >> (index % 64) & 1 == 0 => Use::Free,
            _ => Use::Survived,
        }
    }
}

/// Whether there is an object in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Free,
    /// Taken since: it may be dead already.
    New,
    Survived,
}
