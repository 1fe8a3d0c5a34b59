//! The objects that the runtime's heap profiler has sampled and not yet seen die.
//!
//! Source: runtime/mprof.go `mProf_Malloc`, runtime/mheap.go `setprofilebucket`, Go 1.19 to 1.27:
//! a sampled object has a special in the list of its span that names its bucket, from when
//! it is allocated until the sweep that frees it.

use super::layout::Special;
use super::marks::is_small;
use super::spans::{Found, Span, SpanReader, is_swept};
use super::specials::{self, Listed, Wanted};
use crate::base::Result;
use crate::memory::{ProcessMemory, gather};

/// One sampled object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampledObject {
    /// Of its slot.
    pub addr: u64,
    /// The size of that, in bytes.
    pub slot: u64,
    /// Where the bucket stands that counts it ([`super::Bucket::addr`]), if it was read in one piece.
    pub bucket: u64,
    /// Whether it is known to have been alive when the latest GC cycle ended its marking: where its span
    /// is not swept yet, that is not known.
    pub has_survived: bool,
}

/// What one reading found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Samples {
    /// `mheap_.sweepgen` of that cycle.
    pub sweepgen: u32,
    /// In no particular order.
    pub objects: Vec<SampledObject>,
    /// Spans of which something was being changed: some of their objects may be missing.
    pub torn: u64,
}

/// Spans whose lists are followed together.
const BATCH: usize = 1 << 16;
/// How often it is tried to follow a list: sweeping its span, or allocating there, changes it.
const ATTEMPTS: usize = 5;

impl SpanReader {
    /// Every sampled object of the heap.
    ///
    /// # Errors
    /// Failed when the process is gone or its memory makes no sense.
    pub fn samples(&self, memory: &impl ProcessMemory, layout: &Special) -> Result<Samples> {
        let sweepgen = self.sweepgen(memory)?;
        let mut reading = Reading {
            layout,
            sweepgen,
            samples: Samples { sweepgen, ..Samples::default() },
            marks: Vec::new(),
        };
        let mut spans: Vec<Listing> = Vec::new();
        self.visit_special(memory, |found| reading.sort(found, &mut spans))?;
        for _ in 0..ATTEMPTS {
            let mut changing = Vec::new();
            for batch in spans.chunks(BATCH) {
                changing.extend(self.follow(memory, batch, &mut reading)?);
            }
            spans.clear();
            for batch in changing.chunks(BATCH) {
                let found = self.read(memory, batch)?;
                found.into_iter().for_each(|found| reading.sort(found, &mut spans));
            }
            if spans.is_empty() {
                break;
            }
        }
        let Reading { mut samples, mut marks, .. } = reading;
        samples.torn += spans.len() as u64;
        marks.sort_unstable();
        let ranges: Vec<(u64, usize)> = marks.iter().map(|&(word, _, _)| (word, 8)).collect();
        let words = gather(memory, &ranges)?;
        // Marks stay where they are until the next cycle.
        if self.sweepgen(memory)? == sweepgen {
            for ((_, bit, object), word) in marks.into_iter().zip(words.words()) {
                samples.objects[object].has_survived = word >> bit & 1 == 1;
            }
        }
        Ok(samples)
    }

    /// Follows the lists of these spans. Returns the addresses of those that were changing, of whose
    /// objects none is kept.
    fn follow(
        &self,
        memory: &impl ProcessMemory,
        spans: &[Listing],
        reading: &mut Reading<'_>,
    ) -> Result<Vec<u64>> {
        let wanted: Vec<Wanted> = spans.iter().map(|span| span.wanted).collect();
        let mut sampled = Vec::new();
        let mut is_kept = specials::walk(memory, reading.layout, &wanted, |special| {
            if special.kind == reading.layout.profile_kind {
                sampled.push(special);
            }
        })?;
        // The runtime uses structs again for other spans.
        let mut holders: Vec<usize> = sampled.iter().map(|special| special.span).collect();
        holders.sort_unstable();
        holders.dedup();
        let addrs: Vec<u64> = holders.iter().map(|span| spans[*span].wanted.addr).collect();
        for (span, found) in holders.into_iter().zip(self.read(memory, &addrs)?) {
            is_kept[span] &= matches!(found, Found::Span(now) if spans[span].is_same(&now));
        }
        for special in sampled.into_iter().filter(|special| is_kept[special.span]) {
            reading.keep(&spans[special.span], special);
        }
        let changing = spans.iter().zip(is_kept).filter(|(_, is_kept)| !is_kept);
        Ok(changing.map(|(span, _)| span.wanted.addr).collect())
    }
}

/// A reading under way.
struct Reading<'a> {
    layout: &'a Special,
    sweepgen: u32,
    samples: Samples,
    /// Of objects in swept spans: the word that their mark is in, which bit of it that is, and the
    /// object's place in `samples`.
    marks: Vec<(u64, u64, usize)>,
}

impl Reading<'_> {
    fn sort(&mut self, found: Found, spans: &mut Vec<Listing>) {
        match found {
            Found::Span(span) if !is_small(&span) => self.samples.torn += 1,
            // The profiler does not know what is allocated in these.
            Found::Span(span) if span.is_user_arena_chunk => {}
            Found::Span(span) => spans.push(Listing::new(&span, self.sweepgen)),
            Found::NotHeap => {}
            Found::Torn => self.samples.torn += 1,
        }
    }

    fn keep(&mut self, span: &Listing, special: Listed) {
        let Listing { wanted: Wanted { slot_size: slot, .. }, base, marks, .. } = *span;
        // Behind its header, an object does not begin where its slot does.
        let number = special.offset / slot;
        if let Some(marks) = marks {
            self.marks.push((marks.wrapping_add(number / 64 * 8), number % 64, self.samples.objects.len()));
        }
        let (addr, bucket) = (base + number * slot, special.behind);
        self.samples.objects.push(SampledObject { addr, slot, bucket, has_survived: false });
    }
}

/// A span whose list is to be followed.
#[derive(Debug, Clone, Copy)]
struct Listing {
    wanted: Wanted,
    base: u64,
    alloc_bits: u64,
    /// The same, if these are the marks of the latest cycle: the span is swept.
    marks: Option<u64>,
}

impl Listing {
    /// Whether it is still the same span, swept or not as before.
    fn is_same(&self, now: &Span) -> bool {
        (now.alloc_bits, now.elem_size, now.bytes(), now.base)
            == (self.alloc_bits, self.wanted.slot_size, self.wanted.len, self.base)
    }

    fn new(span: &Span, sweepgen: u32) -> Listing {
        Listing {
            wanted: Wanted { addr: span.addr, len: span.bytes(), slot_size: span.elem_size },
            base: span.base,
            alloc_bits: span.alloc_bits,
            marks: is_swept(span.sweepgen, sweepgen).then_some(span.alloc_bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::layout::Layout;
    use super::super::marks::PageMarks;
    use super::super::spans::tests::{list_special, memory_of, reader, small_span};
    use super::*;
    use crate::memory::FakeMemory;

    const SWEEPGEN: u32 = 10;
    const SPECIALS: u64 = 0x5000;

    /// Two spans of 48-byte slots, the second as swept as said, with objects in slots 1 and 2: sampled
    /// ones, the second with a finalizer, too.
    fn process(go: &str, sweepgen: u32) -> (FakeMemory, Special) {
        let layout = Layout::measured(go).expect(go).special;
        let spans = [small_span(0xc000_0000, SWEEPGEN), small_span(0xc000_2000, sweepgen)];
        let mut memory = memory_of(&reader(go), &spans);
        let structs = 0x10_0000;
        // What lies between is read along.
        for at in (structs..structs + 0x200).step_by(8) {
            if memory.read_u64(at).is_err() {
                memory.write_u64(at, 0);
            }
        }
        for (number, of_span) in [(0, structs), (1, structs + 0x100)] {
            let first = SPECIALS + 0x200 * number;
            memory.write_u64(of_span + layout.first, first);
            let kinds = [(48, layout.profile_kind), (96, layout.finalizer_kind), (96, layout.profile_kind)];
            for (i, (offset, kind)) in (0..).zip(kinds) {
                let at = first + 0x40 * i;
                let next = if i < 2 { at + 0x40 } else { 0 };
                memory.write(at, &[0; 0x40]).write_u64(at + layout.next, next);
                memory.write(at + layout.offset, &u64::to_le_bytes(offset)[..2]);
                memory.write(at + layout.kind, &[kind]);
                memory.write_u64(at + (layout.kind + 1).next_multiple_of(8), 0xb000 + number);
            }
        }
        // Of the first span, slot 2 is marked; of the other one, both.
        memory.write(0x9000, &[0; 24]).write_u64(0x9000, 1 << 2).write_u64(0xb000, 0b110);
        (memory, layout)
    }

    fn objects(go: &str, sweepgen: u32) -> Vec<(u64, u64, bool)> {
        let (memory, layout) = process(go, sweepgen);
        let samples = reader(go).samples(&memory, &layout).expect("readable");
        assert_eq!((samples.sweepgen, samples.torn), (SWEEPGEN, 0));
        let mut objects: Vec<_> =
            samples.objects.iter().map(|object| (object.addr, object.bucket, object.has_survived)).collect();
        objects.sort_unstable();
        objects
    }

    #[test]
    fn sampled_objects_have_buckets_and_marks() {
        for go in ["go1.19.8", "go1.23.9", "go1.24.11", "go1.27.3"] {
            let of_first = [(0xc000_0030, 0xb000, false), (0xc000_0060, 0xb000, true)];
            let of_second = |survived| [(0xc000_2030, 0xb001, survived), (0xc000_2060, 0xb001, survived)];
            assert_eq!(objects(go, SWEEPGEN + 3), [of_first, of_second(true)].concat(), "{go}: cached");
            assert_eq!(objects(go, SWEEPGEN - 2), [of_first, of_second(false)].concat(), "{go}: not swept");
        }
    }

    #[test]
    fn only_spans_with_specials_are_looked_at() {
        let reader = reader("go1.27.3");
        let (mut memory, layout) = process("go1.27.3", SWEEPGEN);
        // The first, and one whose struct is another span's by now.
        list_special(&mut memory, &reader, &[(0x10_0000, 0xc000_0000), (0x10_0100, 0xc000_6000)]);
        let samples = reader.samples(&memory, &layout).expect("readable");
        let addrs: Vec<u64> = samples.objects.iter().map(|object| object.addr).collect();
        assert_eq!((addrs, samples.torn), (vec![0xc000_0030, 0xc000_0060], 0));
        let marks = reader.marks(&memory, |_| true, Some(&layout)).expect("readable");
        let mut pages = marks.pages();
        let PageMarks::Swept { bits, .. } = pages.at(0xc000_0000) else { panic!("{marks:?}") };
        assert_eq!(bits[0], 1 << 2);
        assert_eq!(pages.at(0xc000_2000), PageMarks::NoSpan);
    }

    #[test]
    fn of_a_list_that_keeps_changing_nothing_is_told() {
        let (mut memory, layout) = process("go1.27.3", SWEEPGEN);
        memory.write_u64(SPECIALS + 0x240 + layout.next, SPECIALS + 0x200);
        let samples = reader("go1.27.3").samples(&memory, &layout).expect("the other one");
        assert_eq!((samples.objects.len(), samples.torn), (2, 1));
    }

    proptest! {
        #[test]
        fn hostile_memory_is_an_error_or_says_nothing_absurd(
            structs in prop::collection::vec((0..0x400_u64, any::<u64>()), 0..10),
            specials in prop::collection::vec((0..0x400_u64, any::<u64>()), 0..10),
        ) {
            let (mut memory, layout) = process("go1.26.6", SWEEPGEN);
            structs.iter().for_each(|(at, value)| _ = memory.write_u64(0x10_0000 + at, *value));
            specials.iter().for_each(|(at, value)| _ = memory.write_u64(SPECIALS + at, *value));
            if let Ok(samples) = reader("go1.26.6").samples(&memory, &layout) {
                prop_assert!(samples.objects.iter().all(|object| object.slot > 0));
            }
        }
    }
}
