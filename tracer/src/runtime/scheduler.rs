//! How many goroutines, threads and processors (G, M and P) a runtime has.
//!
//! Source: runtime/proc.go `gcount`, `mcount`, and `gomaxprocs`, Go 1.19 to 1.27.

use serde::Serialize;

use super::counters::u64_at;
use super::globals::Global;
use super::layout::Layout;
use crate::base::{Error, Result};
use crate::binary::Binary;
use crate::memory::ProcessMemory;

/// What `runtime.NumGoroutine`, the thread profile and `runtime.GOMAXPROCS(0)` count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SchedulerCounts {
    /// Without the runtime's own.
    pub goroutines: u64,
    pub threads: u64,
    pub processors: u64,
}

/// Reads the counts of one process, again and again.
#[derive(Debug, Clone)]
pub struct SchedulerReader {
    layout: Layout,
    /// Run-time addresses.
    sched: u64,
    allp: u64,
    allglen: u64,
}

/// More Ps than GOMAXPROCS can reach on any machine; a larger number is damage.
const MAX_PS: u64 = 4096;

impl SchedulerReader {
    /// `load_bias` is the run-time minus the link-time address of the executable.
    ///
    /// # Errors
    /// Failed when one of the runtime's variables cannot be found.
    pub fn new(binary: &Binary, layout: &Layout, load_bias: u64) -> Result<SchedulerReader> {
        let locate = |global: Global| Ok::<_, Error>(global.locate(binary, layout)?.wrapping_add(load_bias));
        Ok(SchedulerReader {
            sched: locate(Global::Sched)?,
            allp: locate(Global::Allp)?,
            allglen: locate(Global::AllgLen)?,
            layout: layout.clone(),
        })
    }

    /// Reads the counts; a busy program changes them meanwhile, by a few.
    ///
    /// # Errors
    /// Failed when the process is gone or its memory makes no sense.
    pub fn read(&self, memory: &impl ProcessMemory) -> Result<SchedulerCounts> {
        let sched = &self.layout.sched;
        let processors = memory.read_u64(self.allp.wrapping_add(8))?;
        if processors > MAX_PS {
            return Err(Error::failed(format!("the runtime's list of Ps makes no sense: {processors}")));
        }
        let mut other = u64::from(memory.read_u32(self.sched.wrapping_add(sched.ngsys))?);
        for free in &sched.free_goroutines {
            other += u64::from(memory.read_u32(self.sched.wrapping_add(*free))?);
        }
        let list = memory.read_u64(self.allp)?;
        let ps = memory.read_vec(list, processors as usize * 8)?;
        for p in ps.chunks_exact(8).filter_map(|p| u64_at(p, 0)) {
            other += u64::from(memory.read_u32(p.wrapping_add(self.layout.p.free_goroutines))?);
        }
        let [next, freed] =
            [sched.mnext, sched.nmfreed].map(|at| memory.read_u64(self.sched.wrapping_add(at)));
        Ok(SchedulerCounts {
            goroutines: memory.read_u64(self.allglen)?.saturating_sub(other),
            threads: next?.saturating_sub(freed?),
            processors,
        })
    }
}
