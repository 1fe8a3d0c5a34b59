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
