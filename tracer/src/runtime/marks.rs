//! Mark bits: which slots of the heap's spans the latest GC cycle found alive.
//!
//! Source: runtime/mgcsweep.go `sweepLocked.sweep`, alike in Go 1.19 to 1.27: sweeping a
//! span makes the bits of the finished cycle its `allocBits`, which then stay as they are
//! until the sweep of the next cycle, whatever is allocated meanwhile. A span whose
//! `sweepgen` is that of the heap has been swept, one that is three ahead has been swept
//! and then cached by a P (runtime/mheap.go `mspan.sweepgen`); others are asked again
//! later. (Their marks stand in `gcmarkBits`, under Green Tea partly in the span itself;
//! but sweeping still revives what has a finalizer.)

use super::size_class::PAGE_SIZE;
use super::spans::{Found, Span, SpanReader};
use crate::base::Result;
use crate::memory::{ProcessMemory, gather};

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

#[derive(Debug, Clone, PartialEq, Eq)]
struct Marked {
    span: Span,
    /// Where in `words` its bits begin; `None`: it is not swept yet.
    bits: Option<usize>,
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

    /// What is known of the page at this address, one of those that were wanted.
    pub fn page(&self, addr: u64) -> PageMarks<'_> {
        let at = self.spans.partition_point(|marked| marked.span.base <= addr);
        let Some(marked) = at.checked_sub(1).and_then(|at| self.spans.get(at)) else {
            return self.without_span();
        };
        let span = &marked.span;
        if addr - span.base >= span.bytes() {
            return self.without_span();
        }
        let Some(words) = marked.bits.and_then(|from| self.words.get(from..from + words_of(span))) else {
            return PageMarks::Unknown;
        };
        let first = (addr - span.base).div_ceil(span.elem_size) as usize;
        PageMarks::Swept { slot_size: span.elem_size, first, bits: words }
    }

    fn without_span(&self) -> PageMarks<'static> {
        // It might belong to one that was not understood.
        if self.torn > 0 { PageMarks::Unknown } else { PageMarks::NoSpan }
    }
}

/// Objects of one span at most: a page of the least ones (runtime/sizeclasses.go).
const MAX_SLOTS: u64 = PAGE_SIZE / 8;

fn words_of(span: &Span) -> usize {
    span.nelems.div_ceil(64) as usize
}

/// Where the bits are, in whole words: so the runtime allocates them (runtime/mheap.go
/// `newMarkBits`).
fn bits_of(span: &Span) -> (u64, usize) {
    (span.alloc_bits, 8 * words_of(span))
}

impl SpanReader {
    /// The marks of the latest cycle in spans with a page that is wanted (by its address).
    ///
    /// # Errors
    /// Failed when the process is gone or its memory makes no sense.
    pub fn marks(&self, memory: &impl ProcessMemory, wanted: impl Fn(u64) -> bool) -> Result<Marks> {
        let mut marks = Marks { sweepgen: self.sweepgen(memory)?, ..Marks::default() };
        for found in self.found(memory)? {
            match found {
                Found::Span(span) if span.nelems > MAX_SLOTS => marks.torn += 1,
                Found::Span(span) if span.is_user_arena_chunk => marks.user_arenas += 1,
                Found::Span(span) => {
                    let mut pages = (0..span.pages).map(|page| span.base + page * PAGE_SIZE);
                    // A large object begins in its first page.
                    let holds = if span.nelems == 1 { wanted(span.base) } else { pages.any(&wanted) };
                    if holds {
                        marks.spans.push(Marked { span, bits: None });
                    }
                }
                Found::NotHeap => {}
                Found::Torn => marks.torn += 1,
            }
        }
        marks.spans.sort_unstable_by_key(|marked| marked.span.base);
        // Two spans at one place: one was read before, one after it was freed.
        let before = marks.spans.len();
        marks.spans.dedup_by_key(|marked| marked.span.base);
        marks.torn += (before - marks.spans.len()) as u64;
        self.read_bits(memory, &mut marks)?;
        marks.waiting = marks.spans.iter().filter(|marked| marked.bits.is_none()).count() as u64;
        Ok(marks)
    }

    /// Reads the bits of swept spans, and which of these have not changed meanwhile.
    fn read_bits(&self, memory: &impl ProcessMemory, marks: &mut Marks) -> Result<()> {
        let swept = |span: &Span| [0, 3].contains(&span.sweepgen.wrapping_sub(marks.sweepgen));
        let mut order: Vec<usize> = (0..marks.spans.len()).filter(|&i| swept(&marks.spans[i].span)).collect();
        order.sort_unstable_by_key(|&i| marks.spans[i].span.alloc_bits);
        let ranges: Vec<(u64, usize)> = order.iter().map(|&i| bits_of(&marks.spans[i].span)).collect();
        let bytes = gather(memory, &ranges)?;
        let (words, _) = bytes.as_chunks::<8>();
        marks.words = words.iter().map(|word| u64::from_le_bytes(*word)).collect();

        let mut from = 0;
        let starts: Vec<usize> = order
            .iter()
            .map(|&i| {
                let start = from;
                from += words_of(&marks.spans[i].span);
                start
            })
            .collect();
        let mut again: Vec<(usize, usize)> = order.into_iter().zip(starts).collect();
        again.sort_unstable_by_key(|&(i, _)| marks.spans[i].span.addr);
        let addrs: Vec<u64> = again.iter().map(|&(i, _)| marks.spans[i].span.addr).collect();
        for ((i, start), found) in again.into_iter().zip(self.read(memory, &addrs)?) {
            let marked = &mut marks.spans[i];
            if matches!(found, Found::Span(now) if is_same(&now, &marked.span)) {
                marked.bits = Some(start);
            }
        }
        Ok(())
    }
}

/// Whether a span still has the marks it had: only what the mutator moves may differ, and
/// whether a P caches it.
fn is_same(now: &Span, before: &Span) -> bool {
    let cached = |span: &Span| span.sweepgen % 2 == 1;
    let generation = |span: &Span| if cached(span) { span.sweepgen.wrapping_sub(3) } else { span.sweepgen };
    let what = |span: &Span| (span.base, span.pages, span.elem_size, span.nelems, span.alloc_bits);
    what(now) == what(before) && generation(now) == generation(before)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::spans::tests::{memory_of, reader, span};
    use super::*;

    const SWEEPGEN: u32 = 10;

    /// Two spans of 48-byte slots and one large object, all swept or not as said.
    fn spans(sweepgens: [u32; 3]) -> Vec<Span> {
        let small = |base: u64, sweepgen| Span {
            base,
            limit: base + 8160,
            nelems: 170,
            elem_size: 48,
            span_class: 10,
            alloc_bits: 0x9000 + (base & 0xf000),
            sweepgen,
            ..span(0)
        };
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
        vec![small(0xc000_0000, sweepgens[0]), small(0xc000_2000, sweepgens[1]), large]
    }

    fn marks(sweepgens: [u32; 3]) -> Marks {
        let reader = reader("go1.27.3");
        let mut memory = memory_of(&reader, &spans(sweepgens));
        memory.write(0x9000, &[0xaa; 24]).write(0xb000, &[0x55; 24]).write(0x9800, &[1, 0, 0, 0, 0, 0, 0, 0]);
        reader.marks(&memory, |_| true).expect("readable")
    }

    #[test]
    fn swept_spans_tell_and_others_are_waited_for() {
        // Swept; swept and cached; unswept, unswept and cached, being swept.
        for unswept in [SWEEPGEN - 2, SWEEPGEN + 1, SWEEPGEN - 1] {
            let marks = marks([SWEEPGEN, SWEEPGEN + 3, unswept]);
            assert_eq!((marks.sweepgen, marks.spans(), marks.waiting, marks.torn), (SWEEPGEN, 3, 1, 0));
            let PageMarks::Swept { slot_size: 48, first: 0, bits } = marks.page(0xc000_0000) else {
                panic!("{:?}", marks.page(0xc000_0000));
            };
            assert_eq!(bits, [0xaaaa_aaaa_aaaa_aaaa; 3]);
            assert!(matches!(
                marks.page(0xc000_2000),
                PageMarks::Swept { bits: &[0x5555_5555_5555_5555, ..], .. }
            ));
            assert_eq!(marks.page(0xc010_0000), PageMarks::Unknown);
            assert_eq!(marks.page(0xc000_4000), PageMarks::NoSpan);
            assert_eq!(marks.page(0), PageMarks::NoSpan);
        }
    }

    #[test]
    fn a_large_object_is_one_bit() {
        let marks = marks([SWEEPGEN; 3]);
        assert_eq!(marks.page(0xc010_0000), PageMarks::Swept { slot_size: 40960, first: 0, bits: &[1] });
        // Nothing begins in its later pages.
        assert_eq!(marks.page(0xc010_2000), PageMarks::Swept { slot_size: 40960, first: 1, bits: &[1] });
    }

    #[test]
    fn what_was_torn_may_have_been_anywhere() {
        let reader = reader("go1.27.3");
        let mut all = spans([SWEEPGEN; 3]);
        all[1].alloc_count = 2000;
        let mut memory = memory_of(&reader, &all);
        memory.write(0x9000, &[0; 24]).write(0x9800, &[0; 8]);
        let marks = reader.marks(&memory, |_| true).expect("readable");
        assert_eq!((marks.torn, marks.page(0xc000_2000)), (1, PageMarks::Unknown));
    }

    #[test]
    fn only_spans_with_wanted_pages_are_read() {
        let reader = reader("go1.27.3");
        let mut memory = memory_of(&reader, &spans([SWEEPGEN; 3]));
        memory.write(0xb000, &[0x55; 24]);
        let marks =
            reader.marks(&memory, |page| page == 0xc000_2000).expect("the others' bits are not there");
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
            if let Ok(marks) = reader.marks(&memory, |_| true) {
                for page in [0, 0xc000_0000, 0xc000_2000, 0xc010_0000, !8191] {
                    if let PageMarks::Swept { slot_size, bits, .. } = marks.page(page) {
                        prop_assert!(slot_size > 0 && bits.len() <= 16);
                    }
                }
            }
        }
    }
}
