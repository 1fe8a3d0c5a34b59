//! Mark bits: which slots of the heap's spans the latest GC cycle found alive.
//!
//! Source: runtime/mgcsweep.go `sweepLocked.sweep`, alike in Go 1.19 to 1.27: sweeping a
//! span makes the bits of the finished cycle its `allocBits`, which then stay as they are
//! until the sweep of the next cycle, whatever is allocated meanwhile. A span whose
//! `sweepgen` is that of the heap has been swept, one that is three ahead has been swept
//! and then cached by a P (runtime/mheap.go `mspan.sweepgen`); others are asked again
//! later. (Their marks stand in `gcmarkBits`, under Green Tea partly in the span itself;
//! but sweeping still revives what has a finalizer.)

use super::layout::Special;
use super::size_class::PAGE_SIZE;
use super::spans::{Found, Span, SpanReader, is_swept};
use super::specials::{self, Wanted};
use crate::base::Result;
use crate::memory::{ProcessMemory, gather, words};

/// What one reading found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// `mheap_.sweepgen` of the cycle that these are the marks of.
    pub sweepgen: u32,
    /// Spans in use of which marks were wanted, by address.
    spans: Vec<Marked>,
    words: Vec<u64>,
    /// Of these spans not yet swept, or changed while they were read.
    pub waiting: u64,
    /// Spans read in the middle of a change, so that nothing is known of them.
    pub torn: u64,
    /// Chunks of user arenas, whose objects nobody sees.
    pub user_arenas: u64,
}

/// What is needed of a span, in few bytes: there may be hundreds of thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marked {
    /// Of its struct.
    addr: u64,
    base: u64,
    /// In bytes.
    len: u64,
    slot_size: u64,
    alloc_bits: u64,
    sweepgen: u32,
    slots: u32,
    /// Where in `words` its bits begin, plus one; 0: nothing is known of it yet.
    bits: u32,
}

impl Marked {
    fn new(span: &Span) -> Marked {
        Marked {
            addr: span.addr,
            base: span.base,
            len: span.bytes(),
            slot_size: span.elem_size,
            alloc_bits: span.alloc_bits,
            sweepgen: span.sweepgen,
            slots: span.nelems as u32,
            bits: 0,
        }
    }

    fn words(&self) -> usize {
        self.slots.div_ceil(64) as usize
    }

    /// Whether a later reading found the same marks: only what allocating moves may differ,
    /// and whether a P caches the span.
    fn is_same(&self, now: &Span) -> bool {
        let now = Marked::new(now);
        // A cached span is three ahead.
        let generation = |sweepgen: u32| if sweepgen % 2 == 1 { sweepgen.wrapping_sub(3) } else { sweepgen };
        generation(now.sweepgen) == generation(self.sweepgen)
            && Marked { sweepgen: 0, bits: 0, ..now } == Marked { sweepgen: 0, bits: 0, ..*self }
    }
}

/// What the marks say of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageMarks<'a> {
    /// Its span is not swept yet, or could not be read.
    Unknown,
    /// No span of the heap holds it.
    NoSpan,
    /// Its span has slots of `slot_size` bytes; `first` is the number of the first that
    /// begins in the page, and its bit's in `bits`.
    Swept { slot_size: u64, first: usize, bits: &'a [u64] },
}

impl Marks {
    pub fn spans(&self) -> u64 {
        self.spans.len() as u64
    }

    /// Clears the bits of objects in these spans that are not sampled; where that is not
    /// known, those of the span are.
    fn keep_sampled(&mut self, memory: &impl ProcessMemory, layout: &Special, swept: &[usize]) -> Result<()> {
        let wanted: Vec<Wanted> = swept
            .iter()
            .map(|&i| {
                let Marked { addr, len, slot_size, .. } = self.spans[i];
                Wanted { addr, len, slot_size }
            })
            .collect();
        for (&i, slots) in swept.iter().zip(specials::sampled(memory, layout, &wanted)?) {
            let Some(slots) = slots else {
                self.spans[i].bits = 0;
                continue;
            };
            let mut mask = vec![0_u64; self.spans[i].words()];
            for slot in slots {
                if let Some(word) = mask.get_mut(slot as usize / 64) {
                    *word |= 1 << (slot % 64);
                }
            }
            let from = self.spans[i].bits as usize - 1;
            self.words[from..].iter_mut().zip(mask).for_each(|(word, mask)| *word &= mask);
        }
        Ok(())
    }

    /// Ready to be asked about pages.
    pub fn pages(&self) -> Pages<'_> {
        Pages { marks: self, next: 0 }
    }
}

/// Tells what the marks say of pages, fastest in ascending order.
#[derive(Debug, Clone)]
pub struct Pages<'a> {
    marks: &'a Marks,
    /// The first span behind the page that was asked for last.
    next: usize,
}

impl<'a> Pages<'a> {
    /// What is known of the page at this address, one of those that were wanted.
    pub fn at(&mut self, addr: u64) -> PageMarks<'a> {
        let marks = self.marks;
        let begins_before = |i: usize| marks.spans.get(i).is_some_and(|span| span.base <= addr);
        if self.next > 0 && !begins_before(self.next - 1) {
            self.next = 0;
        }
        while begins_before(self.next) {
            self.next += 1;
        }
        let span = self.next.checked_sub(1).and_then(|at| marks.spans.get(at));
        let Some(span) = span.filter(|span| addr - span.base < span.len) else {
            // It might belong to one that was not understood.
            return if marks.torn > 0 { PageMarks::Unknown } else { PageMarks::NoSpan };
        };
        let from = (span.bits as usize).checked_sub(1);
        let Some(bits) = from.and_then(|from| marks.words.get(from..from + span.words())) else {
            return PageMarks::Unknown;
        };
        let first = (addr - span.base).div_ceil(span.slot_size) as usize;
        PageMarks::Swept { slot_size: span.slot_size, first, bits }
    }
}

/// Objects of one span at most: a page of the least ones (runtime/sizeclasses.go).
const MAX_SLOTS: u64 = PAGE_SIZE / 8;
/// Pages of a span of several objects at most (the same).
const MAX_SMALL_PAGES: u64 = 10;

/// Whether it has no more slots and pages than spans have; a large object has one slot.
pub(super) fn is_small(span: &Span) -> bool {
    span.nelems <= MAX_SLOTS && (span.nelems == 1 || span.pages <= MAX_SMALL_PAGES)
}

impl SpanReader {
    /// The marks of the latest cycle in spans with a page that is wanted (by its address);
    /// with `sampled` those of objects alone that the runtime's heap profiler has sampled.
    ///
    /// # Errors
    /// Failed when the process is gone or its memory makes no sense.
    pub fn marks(
        &self,
        memory: &impl ProcessMemory,
        wanted: impl Fn(u64) -> bool,
        sampled: Option<&Special>,
    ) -> Result<Marks> {
        let mut marks = Marks { sweepgen: self.sweepgen(memory)?, ..Marks::default() };
        let take = |found| match found {
            Found::Span(span) if !is_small(&span) => marks.torn += 1,
            Found::Span(span) if span.is_user_arena_chunk => marks.user_arenas += 1,
            Found::Span(span) => {
                let mut pages = (0..span.pages).map(|page| span.base + page * PAGE_SIZE);
                // A large object begins in its first page.
                let holds = if span.nelems == 1 { wanted(span.base) } else { pages.any(&wanted) };
                if holds {
                    marks.spans.push(Marked::new(&span));
                }
            }
            Found::NotHeap => {}
            Found::Torn => marks.torn += 1,
        };
        // What is sampled and alive has a special.
        match sampled {
            Some(_) => self.visit_special(memory, take)?,
            None => self.visit(memory, take)?,
        }
        self.read_bits(memory, &mut marks, sampled)?;
        marks.spans.sort_unstable_by_key(|span| span.base);
        // Two spans at one place: one was read before, one after it was freed.
        let before = marks.spans.len();
        marks.spans.dedup_by_key(|span| span.base);
        marks.torn += (before - marks.spans.len()) as u64;
        marks.waiting = marks.spans.iter().filter(|span| span.bits == 0).count() as u64;
        Ok(marks)
    }

    /// Reads the bits of swept spans, and whether these have changed meanwhile.
    fn read_bits(
        &self,
        memory: &impl ProcessMemory,
        marks: &mut Marks,
        sampled: Option<&Special>,
    ) -> Result<()> {
        let generation = marks.sweepgen;
        let swept = |span: &Marked| is_swept(span.sweepgen, generation);
        // In the order of the structs, which is much that of their addresses.
        let swept: Vec<usize> = (0..marks.spans.len()).filter(|&i| swept(&marks.spans[i])).collect();
        let mut order: Vec<(u64, usize)> = swept.iter().map(|&i| (marks.spans[i].alloc_bits, i)).collect();
        order.sort_unstable();
        // Whole words: so the runtime allocates them (runtime/mheap.go `newMarkBits`).
        let ranges: Vec<(u64, usize)> =
            order.iter().map(|&(bits, i)| (bits, 8 * marks.spans[i].words())).collect();
        let bits = gather(memory, &ranges)?;
        for ((_, i), bits) in order.into_iter().zip(bits.iter()) {
            marks.spans[i].bits = marks.words.len() as u32 + 1;
            marks.words.extend(words(bits));
        }
        if let Some(layout) = sampled {
            marks.keep_sampled(memory, layout, &swept)?;
        }
        let addrs: Vec<u64> = swept.iter().map(|&i| marks.spans[i].addr).collect();
        for (i, found) in swept.into_iter().zip(self.read(memory, &addrs)?) {
            if !matches!(found, Found::Span(now) if marks.spans[i].is_same(&now)) {
                marks.spans[i].bits = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::spans::tests::{memory_of, reader, small_span, span};
    use super::*;

    const SWEEPGEN: u32 = 10;

    /// Two spans of 48-byte slots and one large object, all swept or not as said.
    fn spans(sweepgens: [u32; 3]) -> Vec<Span> {
        let large = Span {
            base: 0xc010_0000,
            pages: 5,
            limit: 0xc010_a000,
            nelems: 1,
            elem_size: 40960,
            span_class: 0,
            alloc_bits: 0x9800,
            free_index: 1,
            alloc_count: 1,
            sweepgen: sweepgens[2],
            ..span(0)
        };
        vec![small_span(0xc000_0000, sweepgens[0]), small_span(0xc000_2000, sweepgens[1]), large]
    }

    fn marks(sweepgens: [u32; 3]) -> Marks {
        let reader = reader("go1.27.3");
        let mut memory = memory_of(&reader, &spans(sweepgens));
        memory.write(0x9000, &[0xaa; 24]).write(0xb000, &[0x55; 24]).write(0x9800, &[1, 0, 0, 0, 0, 0, 0, 0]);
        reader.marks(&memory, |_| true, None).expect("readable")
    }

    #[test]
    fn swept_spans_tell_and_others_are_waited_for() {
        // Swept; swept and cached; unswept, unswept and cached, being swept.
        for unswept in [SWEEPGEN - 2, SWEEPGEN + 1, SWEEPGEN - 1] {
            let marks = marks([SWEEPGEN, SWEEPGEN + 3, unswept]);
            assert_eq!((marks.sweepgen, marks.spans(), marks.waiting, marks.torn), (SWEEPGEN, 3, 1, 0));
            let PageMarks::Swept { slot_size: 48, first: 0, bits } = marks.pages().at(0xc000_0000) else {
                panic!("{:?}", marks.pages().at(0xc000_0000));
            };
            assert_eq!(bits, [0xaaaa_aaaa_aaaa_aaaa; 3]);
            assert!(matches!(
                marks.pages().at(0xc000_2000),
                PageMarks::Swept { bits: &[0x5555_5555_5555_5555, ..], .. }
            ));
            assert_eq!(marks.pages().at(0xc010_0000), PageMarks::Unknown);
            assert_eq!(marks.pages().at(0xc000_4000), PageMarks::NoSpan);
            assert_eq!(marks.pages().at(0), PageMarks::NoSpan);
        }
    }

    #[test]
    fn a_large_object_is_one_bit() {
        let marks = marks([SWEEPGEN; 3]);
        assert_eq!(
            marks.pages().at(0xc010_0000),
            PageMarks::Swept { slot_size: 40960, first: 0, bits: &[1] }
        );
        // Nothing begins in its later pages.
        assert_eq!(
            marks.pages().at(0xc010_2000),
            PageMarks::Swept { slot_size: 40960, first: 1, bits: &[1] }
        );
    }

    #[test]
    fn what_was_torn_may_have_been_anywhere() {
        let reader = reader("go1.27.3");
        let mut all = spans([SWEEPGEN; 3]);
        all[1].alloc_count = 2000;
        let mut memory = memory_of(&reader, &all);
        memory.write(0x9000, &[0; 24]).write(0x9800, &[0; 8]);
        let marks = reader.marks(&memory, |_| true, None).expect("readable");
        assert_eq!((marks.torn, marks.pages().at(0xc000_2000)), (1, PageMarks::Unknown));
    }

    #[test]
    fn only_spans_with_wanted_pages_are_read() {
        let reader = reader("go1.27.3");
        let mut memory = memory_of(&reader, &spans([SWEEPGEN; 3]));
        memory.write(0xb000, &[0x55; 24]);
        let marks =
            reader.marks(&memory, |page| page == 0xc000_2000, None).expect("the others' bits are not there");
        assert_eq!((marks.spans(), marks.waiting), (1, 0));
    }

    proptest! {
        #[test]
        fn hostile_memory_is_an_error_or_says_nothing_absurd(
            damage in prop::collection::vec((0..0x400_u64, any::<u64>()), 1..20)
        ) {
            let reader = reader("go1.24.11");
            let mut memory = memory_of(&reader, &spans([SWEEPGEN; 3]));
            memory.write(0x9000, &[0xaa; 24]).write(0xb000, &[0x55; 24]).write(0x9800, &[1; 8]);
            for (at, value) in damage {
                memory.write_u64(0x10_0000 + at, value);
            }
            if let Ok(marks) = reader.marks(&memory, |_| true, None) {
                for page in [0, 0xc000_0000, 0xc000_2000, 0xc010_0000, !8191] {
                    if let PageMarks::Swept { slot_size, bits, .. } = marks.pages().at(page) {
                        prop_assert!(slot_size > 0 && bits.len() <= 16);
                    }
                }
            }
        }
    }
}
