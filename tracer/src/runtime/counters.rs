//! The runtime's own allocation counters, read from outside: what `MemStats.Mallocs` and
//! `MemStats.TotalAlloc` would say.
//!
//! Source: runtime/mstats.go `readMemStats_m` and runtime/mcache.go `refill`,
//! `releaseAll`, alike in Go 1.19 to 1.27. Allocations are counted in three places: in
//! `memstats.heapStats`; per P in its mcache, for tiny objects; and in each span that an
//! mcache holds, as the growth of its `allocCount` since the mcache took it.

use std::collections::BTreeMap;

use super::globals::Global;
use super::layout::{HeapStatsDelta, Layout};
use super::size_class::CLASS_TO_SIZE;
use crate::base::{Error, Noted, Result, monotonic_ns};
use crate::binary::Binary;
use crate::event::Counters;
use crate::memory::{ProcessMemory, words};

/// Reads the counters of one process, again and again.
#[derive(Debug, Clone)]
pub struct CounterReader {
    layout: Layout,
    /// Run-time addresses.
    allp: u64,
    heap_stats: u64,
    sweepgen: u64,
}

/// More Ps than GOMAXPROCS can reach on any machine; a larger number is damage.
const MAX_PS: u64 = 4096;
/// Size classes, each with and without pointers (runtime/mheap.go `numSpanClasses`).
const SPAN_CLASSES: usize = 2 * CLASS_TO_SIZE.len();
/// An mcache's spans stand at 40 or 48, an mspan is 144 to 168 bytes (Go 1.19 to 1.27);
/// together with `MAX_PS` these bound what is read.
const MAX_MCACHE: u64 = 4096;
const MAX_MSPAN: usize = 512;
/// `heapStats.stats`: the current one, the previous one, and one being cleared.
const DELTAS: usize = 3;
/// Reads tried until one meets no refill of an mcache.
const ATTEMPTS: usize = 20;

impl CounterReader {
    /// `load_bias` is the run-time minus the link-time address of the executable.
    ///
    /// # Errors
    /// Failed when one of the runtime's variables cannot be found.
    pub fn new(binary: &Binary, layout: &Layout, load_bias: u64) -> Result<CounterReader> {
        if layout.mcache.alloc > MAX_MCACHE || span_len(layout) > MAX_MSPAN {
            return Err(Error::failed(
                "the program's DWARF makes no sense: its mcache or mspan is too large",
            ));
        }
        let locate = |global: Global| Ok::<_, Error>(global.locate(binary, layout)?.wrapping_add(load_bias));
        Ok(CounterReader {
            allp: locate(Global::Allp)?,
            heap_stats: locate(Global::Memstats)?.wrapping_add(layout.memstats.heap_stats),
            sweepgen: locate(Global::Mheap)?.wrapping_add(layout.mheap_sweepgen),
            layout: layout.clone(),
        })
    }

    /// Reads the counters; exact but for what is being allocated meanwhile. A note says
    /// when mcaches changed in every attempt, which can miscount some hundred objects.
    ///
    /// # Errors
    /// Failed when the process is gone or its memory makes no sense.
    pub fn read(&self, memory: &impl ProcessMemory) -> Result<Noted<Counters>> {
        self.read_and(memory, || Ok(()))
    }

    /// As `read`, and does something as soon as the memory was read, before anything is made of it:
    /// once more with each further attempt.
    ///
    /// # Errors
    /// As `read`, and that of what is done.
    pub fn read_and(
        &self,
        memory: &impl ProcessMemory,
        then: impl FnMut() -> Result<()>,
    ) -> Result<Noted<Counters>> {
        let Noted { value: (counts, begin_ns, end_ns), notes } = self.counts(memory, then)?;
        let by_slot = counts.by_slot.into_iter().filter(|(_, objects)| *objects > 0).collect();
        let Counts { objects, bytes, large_bytes, .. } = counts;
        let counters = Counters { begin_ns, end_ns, objects, bytes, by_slot, large_bytes };
        Ok(Noted { value: counters, notes })
    }

    /// As `read_and`: the counts, and between which instants they were read.
    pub(super) fn counts(
        &self,
        memory: &impl ProcessMemory,
        mut then: impl FnMut() -> Result<()>,
    ) -> Result<Noted<(Counts, u64, u64)>> {
        let mcaches = self.mcaches(memory)?;
        let mut last = Default::default();
        for _ in 0..ATTEMPTS {
            let begin_ns = monotonic_ns();
            let mut end_ns = begin_ns;
            let attempt = self.attempt(memory, &mcaches, || {
                end_ns = monotonic_ns();
                then()
            })?;
            let consistent = attempt.consistent;
            last = (attempt.counts, begin_ns, end_ns);
            if consistent {
                return Ok(Noted::new(last));
            }
        }
        let note = "the runtime's allocation counters changed while they were read; \
                    coverage may be off by some hundred objects";
        Ok(Noted { value: last, notes: vec![note.to_owned()] })
    }

    /// The word at this offset of each P's mcache.
    ///
    /// # Errors
    /// When the process's memory cannot be read.
    pub fn mcache_words(&self, memory: &impl ProcessMemory, offset: u64) -> Result<Vec<u64>> {
        let fields = self.mcaches(memory)?.into_iter().map(|mcache| mcache.wrapping_add(offset));
        read_words(memory, fields)
    }

    /// The mcache of each P that has one. They stay while the number of Ps does.
    fn mcaches(&self, memory: &impl ProcessMemory) -> Result<Vec<u64>> {
        let len = memory.read_u64(self.allp.wrapping_add(8))?;
        if len > MAX_PS {
            return Err(Error::failed(format!("the runtime's list of Ps makes no sense: {len} of them")));
        }
        let ps = memory.read_vec(memory.read_u64(self.allp)?, len as usize * 8).or_else(|e| {
            // Before the scheduler has started there is no list yet.
            if len == 0 { Ok(Vec::new()) } else { Err(e) }
        })?;
        let fields = words(&ps).map(|p| p.wrapping_add(self.layout.p.mcache));
        let mut mcaches = read_words(memory, fields)?;
        mcaches.retain(|mcache| *mcache != 0);
        Ok(mcaches)
    }

    /// Adds up the counters once. Consistent: no mcache was refilled or emptied between
    /// the first and the last read, which would have moved counts from the spans to
    /// `heapStats`.
    fn attempt(
        &self,
        memory: &impl ProcessMemory,
        mcaches: &[u64],
        then: impl FnOnce() -> Result<()>,
    ) -> Result<Attempt> {
        let stats_len = self.layout.memstats.delta.size as usize * DELTAS;
        let mcache_len = self.layout.mcache.alloc as usize + SPAN_CLASSES * 8;
        let mut stats = vec![0; stats_len];
        let mut caches = vec![0; mcache_len * mcaches.len()];
        let mut reads: Vec<(u64, &mut [u8])> = vec![(self.heap_stats, &mut stats)];
        reads.extend(mcaches.iter().copied().zip(caches.chunks_exact_mut(mcache_len)));
        memory.read_many(&mut reads)?;

        let spans = self.cached_spans(caches.chunks_exact(mcache_len));
        let span_len = span_len(&self.layout);
        let (mut stats_after, mut sweepgen) = (vec![0; stats_len], [0; 4]);
        let mut contents = vec![0; span_len * spans.len()];
        let mut reads: Vec<(u64, &mut [u8])> =
            spans.keys().copied().zip(contents.chunks_exact_mut(span_len)).collect();
        reads.push((self.sweepgen, &mut sweepgen));
        reads.push((self.heap_stats, &mut stats_after));
        memory.read_many(&mut reads)?;
        then()?;

        let mut attempt = Attempt { counts: Counts::default(), consistent: stats == stats_after };
        attempt.counts.add_heap_stats(&stats, &self.layout.memstats.delta);
        for cache in caches.chunks_exact(mcache_len) {
            attempt.counts.add_tiny(u64_at(cache, self.layout.mcache.tiny_allocs as usize).unwrap_or(0));
        }
        let sweepgen = u32::from_le_bytes(sweepgen);
        for (content, class) in contents.chunks_exact(span_len).zip(spans.values()) {
            match self.allocated_since_cached(content, sweepgen) {
                Some(objects) => attempt.counts.add(objects, *class),
                None => attempt.consistent = false,
            }
        }
        Ok(attempt)
    }

    /// The spans that mcaches hold, with their slot sizes in bytes.
    fn cached_spans<'c>(&self, caches: impl Iterator<Item = &'c [u8]>) -> BTreeMap<u64, u64> {
        let mut spans = BTreeMap::new();
        for cache in caches {
            let alloc = cache.get(self.layout.mcache.alloc as usize..).unwrap_or(&[]);
            // Large objects are not cached: their span class always holds `emptymspan`.
            let empty = u64_at(alloc, 0).unwrap_or(0);
            for (span_class, span) in words(alloc).enumerate() {
                if span != empty && span != 0 {
                    let size = CLASS_TO_SIZE.get(span_class >> 1).copied().unwrap_or(0);
                    spans.insert(span, size);
                }
            }
        }
        spans
    }

    /// Objects allocated in a span since an mcache took it; None when no mcache holds it
    /// any more, so that they may or may not be counted elsewhere already.
    fn allocated_since_cached(&self, span: &[u8], heap_sweepgen: u32) -> Option<u64> {
        let fields = &self.layout.mspan;
        let sweepgen = u32_at(span, fields.sweepgen as usize)?;
        // A cached span has h+3, or h+1 when it was cached before the last GC
        // (runtime/mheap.go, at `sweepgen`).
        let ahead = sweepgen.wrapping_sub(heap_sweepgen);
        if ahead != 3 && ahead != 1 {
            return None;
        }
        let count = u16_at(span, fields.alloc_count as usize)?;
        let before = u16_at(span, fields.alloc_count_before_cache as usize)?;
        Some(u64::from(count.checked_sub(before)?))
    }
}

/// Bytes at the start of an mspan that hold the fields read.
fn span_len(layout: &Layout) -> usize {
    let span = &layout.mspan;
    let last = span.sweepgen.max(span.alloc_count).max(span.alloc_count_before_cache);
    // The widest of these fields.
    last as usize + 4
}

#[derive(Debug)]
struct Attempt {
    counts: Counts,
    consistent: bool,
}

/// Objects and bytes allocated since the program started.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Tiny ones that share a block too.
    pub(super) objects: u64,
    pub(super) bytes: u64,
    /// Tiny ones that share a block.
    pub(super) tiny: u64,
    /// Objects by slot size; at 0 the tiny ones.
    by_slot: BTreeMap<u64, u64>,
    large_bytes: u64,
}

impl Counts {
    fn add(&mut self, objects: u64, size: u64) {
        self.objects = self.objects.wrapping_add(objects);
        self.bytes = self.bytes.wrapping_add(objects.wrapping_mul(size));
        let of_size = self.by_slot.entry(size).or_default();
        *of_size = of_size.wrapping_add(objects);
    }

    fn add_large(&mut self, objects: u64, bytes: u64) {
        self.objects = self.objects.wrapping_add(objects);
        self.bytes = self.bytes.wrapping_add(bytes);
        self.large_bytes = self.large_bytes.wrapping_add(bytes);
    }

    fn add_tiny(&mut self, objects: u64) {
        self.add(objects, 0);
        self.tiny = self.tiny.wrapping_add(objects);
    }

    /// Adds the three deltas, as `consistentHeapStats.unsafeRead` merges them.
    fn add_heap_stats(&mut self, stats: &[u8], layout: &HeapStatsDelta) {
        for delta in stats.chunks_exact((layout.size as usize).max(1)) {
            let field = |offset: u64| u64_at(delta, offset as usize).unwrap_or(0);
            self.add_tiny(field(layout.tiny_alloc_count));
            self.add_large(field(layout.large_alloc_count), field(layout.large_alloc));
            // Class 0 is that of large objects.
            for (class, size) in (0..).zip(CLASS_TO_SIZE).skip(1) {
                self.add(field(layout.small_alloc_count + 8 * class), size);
            }
        }
    }
}

/// `len` bytes from each address, one after the other.
fn read_words(memory: &impl ProcessMemory, addrs: impl Iterator<Item = u64>) -> Result<Vec<u64>> {
    let addrs: Vec<u64> = addrs.collect();
    let mut bytes = vec![0; addrs.len() * 8];
    let mut reads: Vec<(u64, &mut [u8])> = addrs.into_iter().zip(bytes.chunks_exact_mut(8)).collect();
    memory.read_many(&mut reads)?;
    Ok(words(&bytes).collect())
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::FakeMemory;

    const ALLP: u64 = 0x1000;
    const PS: u64 = 0x2000;
    const P: u64 = 0x3000;
    const MCACHE: u64 = 0x4000;
    const STATS: u64 = 0x1_0000;
    const SWEEPGEN: u64 = 0x2_0000;
    const EMPTY: u64 = 0x3_0000;
    const SPAN: u64 = 0x3_1000;

    fn reader() -> CounterReader {
        let layout = Layout::measured("go1.27.3").expect("layout");
        CounterReader { layout, allp: ALLP, heap_stats: STATS, sweepgen: SWEEPGEN }
    }

    /// One P, 7 tiny objects and one cached span of 48-byte slots in its mcache; in
    /// `heapStats` one large object of 40960 bytes and two small ones of 8 and 32768.
    fn process(span_sweepgen: u32) -> FakeMemory {
        let CounterReader { layout, .. } = reader();
        let delta = &layout.memstats.delta;
        let mut memory = FakeMemory::new();
        memory.write_u64(ALLP, PS).write_u64(ALLP + 8, 1).write_u64(PS, P);
        memory.write_u64(P + layout.p.mcache, MCACHE);
        let slots = vec![EMPTY.to_le_bytes(); SPAN_CLASSES].concat();
        memory.write(MCACHE, &[0; 48]).write(MCACHE + layout.mcache.alloc, &slots);
        memory.write_u64(MCACHE + layout.mcache.tiny_allocs, 7);
        // 48 bytes are class 5; the span class of those with pointers is twice that.
        memory.write_u64(MCACHE + layout.mcache.alloc + 8 * 10, SPAN);
        memory.write(STATS, &vec![0; delta.size as usize * DELTAS]);
        memory.write_u64(STATS + delta.large_alloc, 40960);
        memory.write_u64(STATS + delta.size + delta.large_alloc_count, 1);
        memory.write_u64(STATS + delta.small_alloc_count + 8, 1);
        memory.write_u64(STATS + 2 * delta.size + delta.small_alloc_count + 8 * 67, 1);
        memory.write(SWEEPGEN, &100u32.to_le_bytes());
        memory.write(SPAN, &[0; 160]).write(SPAN + layout.mspan.sweepgen, &span_sweepgen.to_le_bytes());
        memory.write(SPAN + layout.mspan.alloc_count, &30u16.to_le_bytes());
        memory.write(SPAN + layout.mspan.alloc_count_before_cache, &10u16.to_le_bytes());
        memory
    }

    #[test]
    fn objects_are_counted_by_slot_size() {
        let counters = reader().read(&process(103)).expect("counters").value;
        assert_eq!(counters.by_slot, [(0, 7), (8, 1), (48, 20), (32768, 1)]);
        assert_eq!(counters.large_bytes, 40960);
    }

    fn read(memory: &FakeMemory) -> (u64, u64, usize) {
        let Noted { value, notes } = reader().read(memory).expect("counters");
        (value.objects, value.bytes, notes.len())
    }

    #[test]
    fn all_places_are_added_up() {
        let bytes = 40960 + 8 + 32768;
        // Cached since the last sweep, and before it.
        assert_eq!(read(&process(103)), (7 + 20 + 3, 20 * 48 + bytes, 0));
        assert_eq!(read(&process(101)), (7 + 20 + 3, 20 * 48 + bytes, 0));
        // Given back: its objects are in `heapStats` or are about to be.
        assert_eq!(read(&process(100)), (7 + 3, bytes, 1));
    }

    #[test]
    fn a_program_that_has_not_started_has_allocated_nothing() {
        let mut memory = process(103);
        memory.write_u64(ALLP, 0).write_u64(ALLP + 8, 0).write(STATS, &[0; 3504]);
        assert_eq!(read(&memory), (0, 0, 0));
    }

    #[test]
    fn nonsense_is_refused() {
        for (at, value) in [(ALLP + 8, u64::MAX), (ALLP, 8), (PS, 8), (P + 56, 8)] {
            let mut memory = process(103);
            memory.write_u64(at, value);
            assert!(reader().read(&memory).is_err(), "{at:#x}");
        }
    }
}
