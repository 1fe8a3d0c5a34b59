//! The runtime's heap profile: what `/debug/pprof/heap` is made of, read from outside.
//!
//! Source: runtime/mprof.go `bucket`, `memRecord`, `memProfileInternal` (`MemProfile` up
//! to Go 1.22), and runtime/pprof/protomem.go `writeHeapProto`, Go 1.19 to 1.27. Buckets
//! are made once and stay, each new one at the head of the list.

use std::collections::HashSet;

use super::counters::u64_at;
use super::globals::Global;
use super::layout::{Layout, Profile};
use crate::base::{Error, Noted, Result};
use crate::binary::Binary;
use crate::memory::{ProcessMemory, words};

/// The heap profile at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeapProfile {
    /// `runtime.MemProfileRate`: one sample for so many bytes allocated. 0: it is off.
    pub rate: i64,
    /// In the order of the runtime's list: the newest first.
    pub buckets: Vec<Bucket>,
    /// Whether pprof takes `internal/runtime/` for the runtime, too.
    pub hides_internal_runtime: bool,
}

/// Samples of one size from one stack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Where it stands, and stays.
    pub addr: u64,
    /// Return addresses, innermost first; one for each inlined call, too.
    pub pcs: Vec<u64>,
    /// Of each object: its slot, in bytes.
    pub size: u64,
    /// As of the end of the last GC cycle, allocations and frees matched.
    pub published: Record,
    /// What came since, and shows after the next two cycles.
    pub pending: Record,
}

impl Bucket {
    /// All there is, published or not.
    #[must_use]
    pub fn all(&self) -> Record {
        self.published.plus(self.pending)
    }
}

/// Samples since the program started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    pub allocs: u64,
    pub frees: u64,
    pub alloc_bytes: u64,
    pub free_bytes: u64,
}

impl Record {
    #[must_use]
    pub fn plus(self, other: Record) -> Record {
        Record {
            allocs: self.allocs.wrapping_add(other.allocs),
            frees: self.frees.wrapping_add(other.frees),
            alloc_bytes: self.alloc_bytes.wrapping_add(other.alloc_bytes),
            free_bytes: self.free_bytes.wrapping_add(other.free_bytes),
        }
    }

    /// What these samples stand for when one was taken every `rate` bytes.
    pub fn unsampled(&self, rate: i64) -> Amounts {
        let (alloc_objects, alloc_bytes) = scale(self.allocs as i64, self.alloc_bytes as i64, rate);
        let inuse = self.allocs.wrapping_sub(self.frees) as i64;
        let (inuse_objects, inuse_bytes) =
            scale(inuse, self.alloc_bytes.wrapping_sub(self.free_bytes) as i64, rate);
        Amounts { alloc_objects, alloc_bytes, inuse_objects, inuse_bytes }
    }
}

/// The four values of a heap profile. Signed as in pprof: a torn read may show an
/// object's end before its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    pub alloc_objects: i64,
    pub alloc_bytes: i64,
    pub inuse_objects: i64,
    pub inuse_bytes: i64,
}

/// runtime/pprof/protomem.go `scaleHeapSample`: a sample of size S is taken with
/// probability 1-exp(-S/rate).
fn scale(count: i64, bytes: i64, rate: i64) -> (i64, i64) {
    if count == 0 || bytes == 0 {
        return (0, 0);
    }
    if rate <= 1 {
        return (count, bytes);
    }
    let average = bytes as f64 / count as f64;
    let scale = 1.0 / (1.0 - (-average / rate as f64).exp());
    ((count as f64 * scale) as i64, (bytes as f64 * scale) as i64)
}

impl HeapProfile {
    /// What the program's own `/debug/pprof/heap` shows of a bucket: the state after the
    /// last GC cycle; before the first, all there is.
    pub fn shown(&self) -> impl Iterator<Item = (&Bucket, Record)> {
        let nothing_yet = self.buckets.iter().all(|b| b.published.allocs == 0 && b.published.frees == 0);
        self.buckets
            .iter()
            .map(move |bucket| (bucket, if nothing_yet { bucket.all() } else { bucket.published }))
    }
}

/// Reads the heap profile of one process, again and again.
#[derive(Debug, Clone)]
pub struct ProfileReader {
    layout: Profile,
    /// Run-time addresses.
    mbuckets: u64,
    rate: u64,
    cycle: u64,
}

/// More buckets than any program's profile has; a longer list is damage.
const MAX_BUCKETS: usize = 1 << 20;
/// Frames of a stack (`maxProfStackDepth`).
const MAX_FRAMES: u64 = 1024;
/// `memProfile`, among the bucket types.
const TYPE_HEAP: u64 = 1;
/// Samples still to be published, by GC cycle (`memRecord.future`).
const FUTURES: u64 = 3;
/// Reads tried until one meets no end of a GC cycle.
const ATTEMPTS: usize = 3;

impl ProfileReader {
    /// `load_bias` is the run-time minus the link-time address of the executable.
    ///
    /// # Errors
    /// Failed when one of the runtime's variables cannot be found.
    pub fn new(binary: &Binary, layout: &Layout, load_bias: u64) -> Result<ProfileReader> {
        let locate = |global: Global| Ok::<_, Error>(global.locate(binary, layout)?.wrapping_add(load_bias));
        Ok(ProfileReader {
            mbuckets: locate(Global::Mbuckets)?,
            rate: locate(Global::MemProfileRate)?,
            cycle: locate(Global::MProfCycle)?,
            layout: layout.profile.clone(),
        })
    }

    /// Address of `runtime.MemProfileRate`, a word.
    pub fn rate_address(&self) -> u64 {
        self.rate
    }

    /// Reads `runtime.MemProfileRate`; 0: the profiler is off.
    ///
    /// # Errors
    /// Failed when the process is gone.
    pub fn rate(&self, memory: &impl ProcessMemory) -> Result<i64> {
        Ok(memory.read_u64(self.rate)? as i64)
    }

    /// Reads the profile. Notes say when it changed meanwhile, or is damaged.
    ///
    /// # Errors
    /// Failed when the process is gone.
    pub fn read(&self, memory: &impl ProcessMemory) -> Result<Noted<HeapProfile>> {
        let mut cycle = memory.read_u32(self.cycle)?;
        let mut last = Noted::default();
        for _ in 0..ATTEMPTS {
            last = self.walk(memory, cycle)?;
            let now = memory.read_u32(self.cycle)?;
            if now == cycle {
                return Ok(last);
            }
            cycle = now;
        }
        last.notes.push("GC cycles ended while the heap profile was read: its parts differ in age".into());
        Ok(last)
    }

    fn walk(&self, memory: &impl ProcessMemory, cycle: u32) -> Result<Noted<HeapProfile>> {
        let mut profile = Noted::new(HeapProfile {
            rate: self.rate(memory)?,
            buckets: Vec::new(),
            hides_internal_runtime: self.layout.hides_internal_runtime,
        });
        // The lowest bit says whether the cycle is published (`mProfCycleHolder`).
        let cycle = u64::from(cycle >> 1);
        let mut next = memory.read_u64(self.mbuckets)?;
        let mut seen = HashSet::new();
        while next != 0 {
            if seen.len() >= MAX_BUCKETS || !seen.insert(next) {
                profile.notes.push("the list of heap profile buckets has no end: cut off".into());
                break;
            }
            match self.bucket(memory, next, cycle) {
                Some((bucket, after)) => {
                    profile.value.buckets.push(bucket);
                    next = after;
                }
                None => {
                    profile.notes.push(format!("the heap profile is damaged at {next:#x}: cut off there"));
                    break;
                }
            }
        }
        Ok(profile)
    }

    /// The bucket at an address, and the address of the one after it.
    fn bucket(&self, memory: &impl ProcessMemory, addr: u64, cycle: u64) -> Option<(Bucket, u64)> {
        let layout = &self.layout;
        let head = memory.read_vec(addr, layout.bucket_size as usize).ok()?;
        let word = |offset: u64| u64_at(&head, offset as usize);
        let frames = word(layout.nstk)?;
        // Goroutine and lock profiles have their own lists.
        if word(layout.typ)? != TYPE_HEAP || frames > MAX_FRAMES {
            return None;
        }
        let record = frames * 8;
        let len = record + layout.record_future + FUTURES * layout.cycle_size;
        let rest = memory.read_vec(addr.checked_add(layout.bucket_size)?, len as usize).ok()?;
        let size = word(layout.size)?;
        let future = |n: u64| {
            let at = record + layout.record_future + (n % FUTURES) * layout.cycle_size;
            self.record(&rest, at, size)
        };
        let bucket = Bucket {
            addr,
            pcs: words(rest.get(..record as usize)?).collect(),
            size,
            // Either the one or the other holds the current cycle, published or about to be.
            published: self.record(&rest, record, size)?.plus(future(cycle)?),
            pending: future(cycle + 1)?.plus(future(cycle + 2)?),
        };
        Some((bucket, word(layout.allnext)?))
    }

    /// A `memRecordCycle`.
    fn record(&self, bytes: &[u8], offset: u64, size: u64) -> Option<Record> {
        let word = |at: u64| u64_at(bytes, (offset + at) as usize);
        let (allocs, frees) = (word(self.layout.allocs)?, word(self.layout.frees)?);
        let (alloc_bytes, free_bytes) = match self.layout.bytes {
            Some((alloc, free)) => (word(alloc)?, word(free)?),
            None => (allocs.wrapping_mul(size), frees.wrapping_mul(size)),
        };
        Some(Record { allocs, frees, alloc_bytes, free_bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::FakeMemory;

    const HEAD: u64 = 0x1000;
    const BUCKETS: u64 = 0x10_0000;

    fn reader(go: &str) -> ProfileReader {
        let layout = Layout::measured(go).expect(go).profile;
        ProfileReader { layout, mbuckets: HEAD, rate: HEAD + 8, cycle: HEAD + 16 }
    }

    /// A list of buckets with two frames each, at cycle 7; each counts, of objects of 48
    /// bytes, (allocs, frees) active and in the three cycles to come.
    fn process(reader: &ProfileReader, buckets: &[[(u64, u64); 4]]) -> FakeMemory {
        let layout = &reader.layout;
        let mut memory = FakeMemory::new();
        memory.write_u64(HEAD, if buckets.is_empty() { 0 } else { BUCKETS });
        memory.write_u64(HEAD + 8, 1).write(HEAD + 16, &(7u32 << 1).to_le_bytes());
        for (i, records) in (0..).zip(buckets) {
            let at = BUCKETS + 0x1000 * i;
            memory.write(at, &vec![0; 0x1000]);
            let next = if i + 1 < buckets.len() as u64 { at + 0x1000 } else { 0 };
            memory.write_u64(at + layout.allnext, next).write_u64(at + layout.typ, TYPE_HEAP);
            memory.write_u64(at + layout.size, 48).write_u64(at + layout.nstk, 2);
            let stack = at + layout.bucket_size;
            memory.write_u64(stack, 0x40_1001).write_u64(stack + 8, 0x40_2002);
            for (n, (allocs, frees)) in (0..).zip(records) {
                let cycle = stack + 16 + n * layout.cycle_size;
                memory.write_u64(cycle + layout.allocs, *allocs).write_u64(cycle + layout.frees, *frees);
                if let Some((alloc, free)) = layout.bytes {
                    memory.write_u64(cycle + alloc, allocs * 48).write_u64(cycle + free, frees * 48);
                }
            }
        }
        memory
    }

    #[test]
    fn generations_are_told_apart() {
        for go in ["go1.19.8", "go1.26.6", "go1.27.3"] {
            let reader = reader(go);
            // Cycle 7: the second to come is the current one.
            let memory = process(&reader, &[[(100, 40), (5, 0), (10, 3), (0, 2)], [(0, 0); 4]]);
            let read = reader.read(&memory).expect(go);
            assert_eq!((read.notes.len(), read.value.buckets.len()), (0, 2), "{go}");
            let (bucket, shown) = read.value.shown().next().expect("a bucket");
            assert_eq!(bucket.pcs, [0x40_1001, 0x40_2002]);
            let want = Record { allocs: 110, frees: 43, alloc_bytes: 110 * 48, free_bytes: 43 * 48 };
            assert_eq!((shown, bucket.published), (want, want), "{go}");
            assert_eq!((bucket.pending.allocs, bucket.pending.frees), (5, 2), "{go}");
            let amounts = shown.unsampled(1);
            assert_eq!((amounts.alloc_objects, amounts.inuse_bytes), (110, 67 * 48));
        }
    }

    #[test]
    fn before_the_first_cycle_all_is_shown() {
        let reader = reader("go1.25.5");
        let memory = process(&reader, &[[(0, 0), (5, 0), (0, 0), (1, 2)]]);
        let profile = reader.read(&memory).expect("profile").value;
        let shown: Vec<_> = profile.shown().map(|(_, record)| (record.allocs, record.frees)).collect();
        assert_eq!(shown, [(6, 2)]);
    }

    #[test]
    fn a_damaged_list_is_cut_off_and_said() {
        let reader = reader("go1.27.3");
        let whole = process(&reader, &[[(1, 0), (0, 0), (0, 0), (0, 0)]; 3]);
        let third = BUCKETS + 0x2000;
        for (at, value, left) in [
            (third + reader.layout.allnext, BUCKETS, 3),
            (third + reader.layout.allnext, 0xdead_beef, 3),
            (third + reader.layout.nstk, u64::MAX, 2),
            (third + reader.layout.typ, 2, 2),
        ] {
            let mut memory = whole.clone();
            memory.write_u64(at, value);
            let read = reader.read(&memory).expect("what there is");
            assert_eq!((read.value.buckets.len(), read.notes.len()), (left, 1), "{at:#x} {value:#x}");
        }
    }

    #[test]
    fn samples_are_scaled_as_pprof_does() {
        // Computed with runtime/pprof's scaleHeapSample of Go 1.26.
        assert_eq!(scale(1, 64, 524_288), (8192, 524_320));
        assert_eq!(scale(3, 3 * 1024, 524_288), (1537, 1_574_400));
        assert_eq!(scale(2, 2 << 20, 524_288), (2, 2_425_393));
        assert_eq!(scale(7, 70, 1), (7, 70));
        assert_eq!(scale(0, 70, 524_288), (0, 0));
    }

    proptest! {
        #[test]
        fn any_numbers_scale(count in any::<i64>(), bytes in any::<i64>(), rate in any::<i64>()) {
            let (objects, _) = scale(count, bytes, rate);
            prop_assert!(count == 0 || bytes == 0 || rate > 1 || objects == count);
        }

        #[test]
        fn any_buckets_are_read_to_an_end(noise in prop::collection::vec(any::<u64>(), 64)) {
            let reader = reader("go1.26.6");
            let mut memory = process(&reader, &[[(1, 0), (0, 0), (0, 0), (0, 0)]; 2]);
            for (i, word) in (0..).zip(&noise) {
                memory.write_u64(BUCKETS + 0x1000 + 8 * i, word % 0x20_0000);
            }
            let read = reader.read(&memory).expect("what there is");
            prop_assert!(read.value.buckets.iter().all(|b| b.pcs.len() as u64 <= MAX_FRAMES));
            prop_assert_eq!(read.value.buckets[0].pcs.len(), 2);
        }
    }
}
