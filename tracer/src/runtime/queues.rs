//! How much waits to be run: timers, finalizers, cleanups.
//!
//! Source: runtime/time.go `addtimer`, `timers` (1.23 on); runtime/mfinal.go `queuefinalizer`,
//! `runFinalizers`, which counts a block down while it calls what is in it; runtime/mcleanup.go
//! `cleanupQueue.readQueueStats`.

use super::counters::{u32_at, u64_at};
use super::globals::Global;
use super::layout::{Layout, Queues};
use super::scheduler::processors;
use crate::base::{Error, Result};
use crate::binary::Binary;
use crate::memory::{ProcessMemory, gather};

/// Reads the lengths of one process's queues, again and again.
#[derive(Debug, Clone)]
pub(super) struct QueueReader {
    layout: Queues,
    /// Run-time addresses; `None`: not found, or not there.
    allp: Option<u64>,
    allfin: Option<u64>,
    gc_cleanups: Option<u64>,
}

/// Blocks of finalizers that are followed: of ten million of them.
const MAX_BLOCKS: usize = 100_000;
/// A block of 4 KiB holds 101.
const MAX_BLOCK: u32 = 256;

impl QueueReader {
    /// `load_bias` is the run-time minus the link-time address of the executable.
    pub(super) fn new(binary: &Binary, layout: &Layout, load_bias: u64) -> QueueReader {
        let locate = |global: Global| Some(global.locate(binary, layout).ok()?.wrapping_add(load_bias));
        QueueReader {
            layout: layout.queues.clone(),
            allp: locate(Global::Allp),
            allfin: locate(Global::Allfin),
            gc_cleanups: layout.queues.cleanups.as_ref().and_then(|_| locate(Global::GcCleanups)),
        }
    }

    /// One that finds nothing.
    #[cfg(test)]
    pub(super) fn nowhere(layout: &Layout) -> QueueReader {
        QueueReader { layout: layout.queues.clone(), allp: None, allfin: None, gc_cleanups: None }
    }

    /// How many timers are set.
    ///
    /// # Errors
    /// Failed when they cannot be found, or read.
    pub(super) fn timers(&self, memory: &impl ProcessMemory) -> Result<u64> {
        let unknown = || Error::failed("the program's timers cannot be found");
        let (allp, timers) = self.allp.zip(self.layout.timers.as_ref()).ok_or_else(unknown)?;
        let ps = processors(memory, allp)?;
        let mut sum = 0;
        for p in ps {
            let [count, stopped] =
                [timers.count, timers.stopped].map(|at| memory.read_u32(p.wrapping_add(at)));
            sum += u64::from(count?.saturating_sub(stopped?));
        }
        Ok(sum)
    }

    /// How many finalizers and cleanups of dead objects were not called yet.
    ///
    /// # Errors
    /// Failed when they cannot be found, or read.
    pub(super) fn finalizers(&self, memory: &impl ProcessMemory) -> Result<u64> {
        let unknown = || Error::failed("the queue of finalizers cannot be found");
        let (allfin, block) = self.allfin.zip(self.layout.finalizers.as_ref()).ok_or_else(unknown)?;
        let mut next = memory.read_u64(allfin)?;
        let mut sum = 0;
        for _ in 0..MAX_BLOCKS {
            if next == 0 {
                return Ok(sum + self.cleanups(memory)?);
            }
            let bytes = memory.read_vec(next, (block.next.max(block.count) + 8).min(MAX_HEAD) as usize)?;
            let count = u32_at(&bytes, block.count as usize).filter(|count| *count <= MAX_BLOCK);
            let senseless = || Error::failed("the queue of finalizers makes no sense");
            sum += u64::from(count.ok_or_else(senseless)?);
            next = u64_at(&bytes, block.next as usize).unwrap_or(0);
        }
        Err(Error::failed("the queue of finalizers does not end"))
    }

    fn cleanups(&self, memory: &impl ProcessMemory) -> Result<u64> {
        let Some(queue) = &self.layout.cleanups else { return Ok(0) };
        let unknown = || Error::failed("the queue of cleanups cannot be found");
        let (allp, cleanups) = self.allp.zip(self.gc_cleanups).ok_or_else(unknown)?;
        // First, so that none is counted as called that was not yet counted as queued.
        let executed = memory.read_u64(cleanups.wrapping_add(queue.executed))?;
        let mut queued = memory.read_u64(cleanups.wrapping_add(queue.queued))?;
        let ps = processors(memory, allp)?;
        let of_ps: Vec<(u64, usize)> = ps.iter().map(|p| (p.wrapping_add(queue.queued_by_p), 8)).collect();
        for p in gather(memory, &of_ps)?.iter() {
            queued = queued.wrapping_add(u64_at(p, 0).unwrap_or(0));
        }
        Ok(queued.saturating_sub(executed))
    }
}

/// The head of a block is shorter, in bytes.
const MAX_HEAD: u64 = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::FakeMemory;

    const ALLP: u64 = 0x1000;
    const ALLFIN: u64 = 0x1100;
    const CLEANUPS: u64 = 0x2000;
    const LIST: u64 = 0x3000;
    const P: u64 = 0x10_0000;
    const BLOCKS: u64 = 0x20_0000;

    fn reader(go: &str) -> QueueReader {
        let layout = Layout::measured(go).expect(go).queues;
        QueueReader { layout, allp: Some(ALLP), allfin: Some(ALLFIN), gc_cleanups: Some(CLEANUPS) }
    }

    /// Two Ps with 7 and 5 timers, of which one each is stopped; three blocks with 101, 0 and 3
    /// finalizers; 9 cleanups queued by Ps and 2 by one that is no more, 4 executed.
    fn process(reader: &QueueReader) -> FakeMemory {
        let mut memory = FakeMemory::new();
        memory
            .write_u64(ALLP, LIST)
            .write_u64(ALLP + 8, 2)
            .write_u64(LIST, P)
            .write_u64(LIST + 8, P + 0x8000);
        memory.write(CLEANUPS, &[0; 0x200]).write(P, &[0; 0x10000]).write(BLOCKS, &[0; 0x400]);
        let timers = reader.layout.timers.as_ref().expect("timers");
        for (p, count) in [(P, 7u32), (P + 0x8000, 5)] {
            memory
                .write(p + timers.count, &count.to_le_bytes())
                .write(p + timers.stopped, &1u32.to_le_bytes());
        }
        let block = reader.layout.finalizers.as_ref().expect("blocks");
        memory.write_u64(ALLFIN, BLOCKS);
        for (n, count) in [(0, 101u32), (1, 0), (2, 3)] {
            let at = BLOCKS + 0x100 * n;
            memory.write(at + block.count, &count.to_le_bytes());
            memory.write_u64(at + block.next, if n < 2 { at + 0x100 } else { 0 });
        }
        if let Some(queue) = &reader.layout.cleanups {
            memory.write_u64(CLEANUPS + queue.queued, 2).write_u64(CLEANUPS + queue.executed, 4);
            memory.write_u64(P + queue.queued_by_p, 8).write_u64(P + 0x8000 + queue.queued_by_p, 1);
        }
        memory
    }

    #[test]
    fn what_waits_is_counted() {
        for (go, cleanups) in [("go1.19.8", 0), ("go1.22.10", 0), ("go1.24.11", 0), ("go1.27.3", 7)] {
            let reader = reader(go);
            let memory = process(&reader);
            assert_eq!(reader.timers(&memory).ok(), Some(10), "{go}");
            assert_eq!(reader.finalizers(&memory).ok(), Some(104 + cleanups), "{go}");
        }
    }

    #[test]
    fn what_is_not_there_or_makes_no_sense_is_refused() {
        let whole = reader("go1.27.3");
        let memory = process(&whole);
        let nowhere = QueueReader { allp: None, ..whole.clone() };
        assert!(nowhere.timers(&memory).is_err() && nowhere.finalizers(&memory).is_err());
        let block = whole.layout.finalizers.as_ref().expect("blocks");
        for (at, value) in [(block.next, BLOCKS), (block.next, 8), (block.count, u64::MAX)] {
            let mut memory = memory.clone();
            memory.write_u64(BLOCKS + at, value);
            assert!(whole.finalizers(&memory).is_err(), "{at} {value:#x}");
        }
        let mut many = memory.clone();
        many.write_u64(ALLP + 8, u64::MAX);
        assert!(whole.timers(&many).is_err());
    }

    proptest! {
        #[test]
        fn whatever_memory_holds_reading_ends(
            words in prop::collection::vec((0..0x40u64, any::<u64>()), 0..20),
            go in prop::sample::select(vec!["go1.19.8", "go1.27.3"]),
        ) {
            let reader = reader(go);
            let mut memory = process(&reader);
            for (at, value) in words {
                memory.write_u64(BLOCKS + 8 * at, value);
            }
            if let Ok(queued) = reader.finalizers(&memory) {
                prop_assert!(queued <= 7 + MAX_BLOCKS as u64 * u64::from(MAX_BLOCK));
            }
        }
    }
}
