//! The heap's spans: `runtime.mspan` structs, read in batches and checked.
//!
//! Source: runtime/mheap.go `mspan`, `mheap.allspans`, alike in Go 1.19 to 1.27 but for
//! where the fields lie and how wide they are (`Layout`).

use super::arenas::ArenaReader;
use super::globals::Global;
use super::layout::{Layout, Mspan};
use super::size_class::{CLASS_TO_SIZE, PAGE_SIZE};
use crate::base::{Error, Noted, Result};
use crate::binary::Binary;
use crate::memory::{ProcessMemory, gather, words};

/// One span as it was read: its values agree with each other, but the target may have
/// gone on since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Of the `mspan` struct, which the runtime uses again for other spans.
    pub addr: u64,
    pub base: u64,
    pub pages: u64,
    /// End of the slots; less than the span's end where its tail holds something else.
    pub limit: u64,
    /// Slots below this are not free.
    pub free_index: u64,
    /// Slots.
    pub nelems: u64,
    /// Slots in use: objects that were alive at the last sweep of this span, and those
    /// allocated since.
    pub alloc_count: u64,
    /// Of one slot, in bytes.
    pub elem_size: u64,
    pub sweepgen: u32,
    pub span_class: u8,
    pub is_user_arena_chunk: bool,
    /// Run-time addresses of the bitmaps.
    pub alloc_bits: u64,
    pub gcmark_bits: u64,
}

impl Span {
    /// 0 for large objects.
    pub fn size_class(&self) -> usize {
        usize::from(self.span_class >> 1)
    }

    /// Whether its objects hold no pointers.
    pub fn is_noscan(&self) -> bool {
        self.span_class & 1 == 1
    }

    /// In bytes, whole pages.
    pub fn bytes(&self) -> u64 {
        self.pages * PAGE_SIZE
    }
}

/// Reads the spans of one process, again and again.
#[derive(Debug, Clone)]
pub struct SpanReader {
    layout: Mspan,
    /// Run-time addresses.
    allspans: u64,
    sweepgen: u64,
    arenas: ArenaReader,
}

/// The spans of one page each that a heap of 1 TiB has; a larger number is damage.
pub(super) const MAX_SPANS: u64 = 1 << 27;
/// Spans whose structs are read with one call.
const BATCH: usize = 64 << 10;
/// Reads of the list of spans, which moves when it grows.
const ATTEMPTS: usize = 5;
/// `mSpanInUse`: a span of the GC heap (runtime/mheap.go `mSpanState`).
const STATE_IN_USE: u8 = 1;
/// Pages of 47 bits of address space.
const MAX_PAGES: u64 = 1 << 34;

impl SpanReader {
    /// `load_bias` is the run-time minus the link-time address of the executable.
    ///
    /// # Errors
    /// Failed when the runtime's heap cannot be found.
    pub fn new(binary: &Binary, layout: &Layout, load_bias: u64) -> Result<SpanReader> {
        let mheap = Global::Mheap.locate(binary, layout)?.wrapping_add(load_bias);
        Ok(SpanReader {
            layout: layout.mspan.clone(),
            allspans: mheap.wrapping_add(layout.mheap_allspans),
            sweepgen: mheap.wrapping_add(layout.mheap_sweepgen),
            arenas: ArenaReader::new(&layout.arenas, mheap),
        })
    }

    /// `mheap_.sweepgen`: grows by 2 with each GC cycle.
    ///
    /// # Errors
    /// Failed when the process is gone.
    pub fn sweepgen(&self, memory: &impl ProcessMemory) -> Result<u32> {
        memory.read_u32(self.sweepgen)
    }

    /// Every span of the GC heap, in the order of their creation; stacks and the
    /// runtime's own spans are left out. A note says how many were being changed.
    ///
    /// # Errors
    /// Failed when the process is gone or its memory makes no sense.
    pub fn all(&self, memory: &impl ProcessMemory) -> Result<Noted<Vec<Span>>> {
        let mut read = Noted::new(Vec::new());
        let mut torn = 0u64;
        self.visit(memory, |found| match found {
            Found::Span(span) => read.value.push(span),
            Found::NotHeap => {}
            Found::Torn => torn += 1,
        })?;
        if torn > 0 {
            read.notes.push(format!("{torn} spans were being changed while they were read: left out"));
        }
        Ok(read)
    }

    /// Hands over what each `mspan` struct holds that was ever made.
    pub(super) fn visit(&self, memory: &impl ProcessMemory, mut visitor: impl FnMut(Found)) -> Result<()> {
        for batch in self.addresses(memory)?.chunks(BATCH) {
            self.read(memory, batch)?.into_iter().for_each(&mut visitor);
        }
        Ok(())
    }

    /// The same for spans with specials alone, without a look at the others' structs.
    pub(super) fn visit_special(
        &self,
        memory: &impl ProcessMemory,
        mut visitor: impl FnMut(Found),
    ) -> Result<()> {
        self.arenas.special(memory, |spans| {
            for batch in spans.chunks(BATCH) {
                let addrs: Vec<u64> = batch.iter().map(|&(addr, _)| addr).collect();
                for (&(_, base), found) in batch.iter().zip(self.read(memory, &addrs)?) {
                    // Else it was freed meanwhile, with all that had a special.
                    if !matches!(found, Found::Span(span) if span.base != base) {
                        visitor(found);
                    }
                }
            }
            Ok(())
        })
    }

    /// The spans whose structs are at these addresses, one for each.
    ///
    /// # Errors
    /// Failed when the process is gone; an address that cannot be read is `Torn`.
    pub fn read(&self, memory: &impl ProcessMemory, addrs: &[u64]) -> Result<Vec<Found>> {
        let len = self.layout.len();
        // They lie side by side in chunks of 16 KiB (runtime/mfixalloc.go).
        let ranges: Vec<(u64, usize)> = addrs.iter().map(|&addr| (addr, len)).collect();
        match gather(memory, &ranges) {
            Ok(structs) => {
                Ok(addrs.iter().zip(structs.iter()).map(|(&addr, b)| self.layout.decode(addr, b)).collect())
            }
            Err(_) => {
                // Whether the process is there at all.
                memory.read_u32(self.sweepgen)?;
                Ok(addrs.iter().map(|&addr| self.read_one(memory, addr)).collect())
            }
        }
    }

    /// One by one, as a wild address fails all that are read together.
    fn read_one(&self, memory: &impl ProcessMemory, addr: u64) -> Found {
        let bytes = memory.read_vec(addr, self.layout.len());
        bytes.map_or(Found::Torn, |bytes| self.layout.decode(addr, &bytes))
    }

    /// The contents of `mheap_.allspans`.
    fn addresses(&self, memory: &impl ProcessMemory) -> Result<Vec<u64>> {
        let mut failure = None;
        for _ in 0..ATTEMPTS {
            let array = memory.read_u64(self.allspans)?;
            let count = memory.read_u64(self.allspans.wrapping_add(8))?;
            if count > MAX_SPANS {
                failure = Some(Error::failed(format!("the heap's list of spans makes no sense: {count}")));
                continue;
            }
            match read_words(memory, array, count) {
                Ok(addrs) => return Ok(addrs),
                Err(e) => failure = Some(e),
            }
        }
        Err(failure.unwrap_or_else(|| Error::failed("the heap's list of spans cannot be read")))
    }
}

/// Whether a span has been swept after the latest GC cycle, given its `sweepgen` and that of the heap;
/// if a P has cached it since, it is three ahead (runtime/mheap.go `mspan.sweepgen`).
pub(super) fn is_swept(span: u32, heap: u32) -> bool {
    [0, 3].contains(&span.wrapping_sub(heap))
}

/// `count` words, read in pieces that `read_vec` takes.
pub(super) fn read_words(memory: &impl ProcessMemory, addr: u64, count: u64) -> Result<Vec<u64>> {
    const PIECE: u64 = 1 << 20;
    let mut read = Vec::new();
    let mut done = 0;
    while done < count {
        let n = PIECE.min(count - done);
        let bytes = memory.read_vec(addr.wrapping_add(8 * done), 8 * n as usize)?;
        read.extend(words(&bytes));
        done += n;
    }
    Ok(read)
}

/// What an `mspan` struct holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A span of the GC heap.
    Span(Span),
    /// A stack, the runtime's own, or free.
    NotHeap,
    /// Values that contradict each other: read in the middle of a change.
    Torn,
}

impl Mspan {
    /// Bytes of the struct that hold all that is read.
    fn len(&self) -> usize {
        let words = [self.start_addr, self.npages, self.freeindex, self.nelems, self.alloc_bits]
            .into_iter()
            .chain([self.gcmark_bits, self.sweepgen, self.alloc_count, self.spanclass, self.state])
            .chain([self.elemsize, self.limit])
            .chain(self.is_user_arena_chunk);
        // None of the fields is wider than a word.
        words.max().unwrap_or(0) as usize + 8
    }

    fn decode(&self, addr: u64, bytes: &[u8]) -> Found {
        let word = |offset| number::<8>(bytes, offset);
        let index = |offset| if self.narrow_indices { number::<2>(bytes, offset) } else { word(offset) };
        match number::<1>(bytes, self.state) as u8 {
            STATE_IN_USE => {}
            0 | 2 => return Found::NotHeap,
            _ => return Found::Torn,
        }
        let span = Span {
            addr,
            base: word(self.start_addr),
            pages: word(self.npages),
            limit: word(self.limit),
            free_index: index(self.freeindex),
            nelems: index(self.nelems),
            alloc_count: number::<2>(bytes, self.alloc_count),
            elem_size: word(self.elemsize),
            sweepgen: number::<4>(bytes, self.sweepgen) as u32,
            span_class: number::<1>(bytes, self.spanclass) as u8,
            is_user_arena_chunk: self.is_user_arena_chunk.is_some_and(|at| number::<1>(bytes, at) != 0),
            alloc_bits: word(self.alloc_bits),
            gcmark_bits: word(self.gcmark_bits),
        };
        if span.is_plausible() { Found::Span(span) } else { Found::Torn }
    }
}

impl Span {
    /// Whether its values agree with each other, so that they can be computed with.
    fn is_plausible(&self) -> bool {
        let size = CLASS_TO_SIZE.get(self.size_class());
        self.base.is_multiple_of(PAGE_SIZE)
            && self.base > 0
            && (1..=MAX_PAGES).contains(&self.pages)
            && self.base.checked_add(self.bytes()).is_some_and(|end| self.limit <= end)
            && self.limit > self.base
            // A large object's slot is its span (in a user arena's chunk, nearly).
            && size.is_some_and(|&size| size == self.elem_size || size == 0)
            && self.elem_size > 0
            && self.nelems > 0
            && self.nelems.checked_mul(self.elem_size).is_some_and(|slots| slots <= self.bytes())
            && self.alloc_count <= self.nelems
            && self.free_index <= self.nelems
    }
}

/// The little-endian number of `N` bytes at `offset`; 0 beyond the end.
fn number<const N: usize>(bytes: &[u8], offset: u64) -> u64 {
    let at = bytes.get(offset as usize..).and_then(|b| b.first_chunk::<N>());
    at.map_or(0, |b| b.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::FakeMemory;

    const LIST: u64 = 0x1000;
    const STRUCTS: u64 = 0x10_0000;
    const MHEAP: u64 = 0x100_0000;

    pub(in super::super) fn reader(go: &str) -> SpanReader {
        let layout = Layout::measured(go).expect(go);
        let arenas = ArenaReader::new(&layout.arenas, MHEAP);
        SpanReader { layout: layout.mspan, allspans: LIST, sweepgen: LIST + 16, arenas }
    }

    /// A span of eight-byte objects.
    pub(in super::super) fn span(addr: u64) -> Span {
        Span {
            addr,
            base: 0xc000_0000,
            pages: 1,
            limit: 0xc000_2000,
            free_index: 7,
            nelems: 1024,
            alloc_count: 5,
            elem_size: 8,
            sweepgen: 12,
            span_class: 3,
            is_user_arena_chunk: false,
            alloc_bits: 0x9000,
            gcmark_bits: 0x9100,
        }
    }

    /// A span of slots of 48 bytes.
    pub(in super::super) fn small_span(base: u64, sweepgen: u32) -> Span {
        Span {
            base,
            limit: base + 8160,
            nelems: 170,
            elem_size: 48,
            span_class: 10,
            alloc_bits: 0x9000 + (base & 0xf000),
            sweepgen,
            ..span(0)
        }
    }

    fn encode(layout: &Mspan, span: &Span) -> Vec<u8> {
        let mut bytes = vec![0; layout.len()];
        let mut put = |at: u64, len: usize, value: u64| {
            bytes[at as usize..][..len].copy_from_slice(&value.to_le_bytes()[..len]);
        };
        let index = if layout.narrow_indices { 2 } else { 8 };
        put(layout.start_addr, 8, span.base);
        put(layout.npages, 8, span.pages);
        put(layout.limit, 8, span.limit);
        put(layout.freeindex, index, span.free_index);
        put(layout.nelems, index, span.nelems);
        put(layout.alloc_count, 2, span.alloc_count);
        put(layout.elemsize, 8, span.elem_size);
        put(layout.sweepgen, 4, u64::from(span.sweepgen));
        put(layout.spanclass, 1, u64::from(span.span_class));
        put(layout.alloc_bits, 8, span.alloc_bits);
        put(layout.gcmark_bits, 8, span.gcmark_bits);
        put(layout.state, 1, u64::from(STATE_IN_USE));
        bytes
    }

    fn memory(structs: &[Vec<u8>]) -> FakeMemory {
        let mut memory = FakeMemory::new();
        memory.write_u64(LIST, 0x2000).write_u64(LIST + 8, structs.len() as u64).write_u64(LIST + 16, 10);
        for (i, bytes) in (0..).zip(structs) {
            memory.write_u64(0x2000 + 8 * i, STRUCTS + 0x100 * i).write(STRUCTS + 0x100 * i, bytes);
        }
        memory
    }

    /// A heap of these spans, all in use, with specials.
    pub(in super::super) fn memory_of(reader: &SpanReader, spans: &[Span]) -> FakeMemory {
        let mut memory = memory(&spans.iter().map(|span| encode(&reader.layout, span)).collect::<Vec<_>>());
        let listed = (0..).zip(spans).map(|(i, span)| (STRUCTS + 0x100 * i, span.base));
        list_special(&mut memory, reader, &listed.collect::<Vec<_>>());
        memory
    }

    /// From now on these have specials, by the addresses of their structs and their own.
    pub(in super::super) fn list_special(memory: &mut FakeMemory, reader: &SpanReader, spans: &[(u64, u64)]) {
        reader.arenas.fake(memory, spans);
    }

    #[test]
    fn spans_are_read_with_narrow_and_wide_fields() {
        for go in ["go1.19.8", "go1.21.13", "go1.22.10", "go1.27.3"] {
            let reader = reader(go);
            let mut free = encode(&reader.layout, &span(0));
            free[reader.layout.state as usize] = 0;
            let full = Span { alloc_count: 2000, ..span(0) };
            let structs = [encode(&reader.layout, &span(0)), free, encode(&reader.layout, &full)];
            let read = reader.all(&memory(&structs)).expect(go);
            assert_eq!(read.value, [span(STRUCTS)], "{go}");
            assert!(read.notes.iter().any(|note| note.starts_with("1 spans")), "{go} {:?}", read.notes);
            assert_eq!(reader.sweepgen(&memory(&structs)).ok(), Some(10));
        }
    }

    #[test]
    fn a_wild_pointer_costs_its_own_span_only() {
        let reader = reader("go1.26.6");
        let mut memory = memory(&[encode(&reader.layout, &span(0)), Vec::new()]);
        memory.write_u64(0x2008, 0xdead_beef);
        let read = reader.all(&memory).expect("the other span");
        assert_eq!((read.value.len(), read.notes.len()), (1, 1));
        memory.write_u64(LIST + 8, u64::MAX);
        assert!(reader.all(&memory).is_err());
    }

    proptest! {
        #[test]
        fn whatever_a_struct_holds_a_span_makes_sense(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            start in any::<u16>(),
            go in prop::sample::select(vec!["go1.19.8", "go1.27.3"]),
        ) {
            let layout = reader(go).layout;
            let mut bytes = bytes;
            if let Some(state) = bytes.get_mut(layout.state as usize) {
                *state = STATE_IN_USE;
            }
            if let Some(base) = bytes.get_mut(layout.start_addr as usize..) {
                let page = (u64::from(start) * PAGE_SIZE).to_le_bytes();
                base.iter_mut().zip(page).for_each(|(to, from)| *to = from);
            }
            if let Found::Span(span) = layout.decode(1, &bytes) {
                prop_assert!(span.alloc_count <= span.nelems && span.nelems * span.elem_size <= span.bytes());
                prop_assert!(span.base < span.limit && span.size_class() < CLASS_TO_SIZE.len());
            }
        }
    }
}
