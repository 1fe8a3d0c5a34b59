//! How many goroutines, threads and processors (G, M and P) a runtime has.
//!
//! Source: runtime/proc.go `gcount`, `mcount`, and `gomaxprocs`, Go 1.19 to 1.27.

use serde::Serialize;

use super::globals::Global;
use super::layout::Layout;
use crate::base::{Error, Result};
use crate::binary::Binary;
use crate::memory::{ProcessMemory, words};

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
        let ps = processors(memory, self.allp)?;
        let mut other = u64::from(memory.read_u32(self.sched.wrapping_add(sched.ngsys))?);
        for free in &sched.free_goroutines {
            other += u64::from(memory.read_u32(self.sched.wrapping_add(*free))?);
        }
        for p in &ps {
            other += u64::from(memory.read_u32(p.wrapping_add(self.layout.p.free_goroutines))?);
        }
        let [next, freed] =
            [sched.mnext, sched.nmfreed].map(|at| memory.read_u64(self.sched.wrapping_add(at)));
        Ok(SchedulerCounts {
            goroutines: memory.read_u64(self.allglen)?.saturating_sub(other),
            threads: next?.saturating_sub(freed?),
            processors: ps.len() as u64,
        })
    }
}

/// The address of each P, given that of `allp`.
///
/// # Errors
/// Failed when the process is gone or its memory makes no sense.
pub(super) fn processors(memory: &impl ProcessMemory, allp: u64) -> Result<Vec<u64>> {
    let count = memory.read_u64(allp.wrapping_add(8))?;
    if count > MAX_PS {
        return Err(Error::failed(format!("the runtime's list of Ps makes no sense: {count}")));
    }
    let list = memory.read_vec(memory.read_u64(allp)?, count as usize * 8)?;
    Ok(words(&list).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::FakeMemory;

    const SCHED: u64 = 0x1000;
    const ALLP: u64 = 0x8000;
    const ALLGLEN: u64 = 0x8100;
    const LIST: u64 = 0x8200;
    const P: u64 = 0x1_0000;

    fn reader(go: &str) -> SchedulerReader {
        let layout = Layout::measured(go).expect(go);
        SchedulerReader { layout, sched: SCHED, allp: ALLP, allglen: ALLGLEN }
    }

    /// Two Ps, seven threads of which one has ended, and 100 goroutines: 5 of the
    /// runtime, and 1, 2 and 4 dead.
    fn process(reader: &SchedulerReader) -> FakeMemory {
        let mut memory = FakeMemory::new();
        let sched = &reader.layout.sched;
        memory.write(SCHED, &[0; 0x1000]).write_u64(ALLP, LIST).write_u64(ALLP + 8, 2);
        memory.write_u64(ALLGLEN, 100).write_u64(LIST, P).write_u64(LIST + 8, P + 0x8000);
        memory.write_u64(SCHED + sched.mnext, 7).write_u64(SCHED + sched.nmfreed, 1);
        memory.write(SCHED + sched.ngsys, &5u32.to_le_bytes());
        for (p, dead) in [(P, 1u32), (P + 0x8000, 2)] {
            memory.write(p + reader.layout.p.free_goroutines, &dead.to_le_bytes());
        }
        let last = sched.free_goroutines[sched.free_goroutines.len() - 1];
        memory.write(SCHED + last, &4u32.to_le_bytes());
        memory
    }

    #[test]
    fn only_goroutines_of_the_program_count() {
        for go in ["go1.19.8", "go1.24.11", "go1.25.5", "go1.27.3"] {
            let reader = reader(go);
            let counts = reader.read(&process(&reader)).expect(go);
            assert_eq!((counts.goroutines, counts.threads, counts.processors), (88, 6, 2), "{go}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let reader = reader("go1.26.6");
        for (at, value) in [(ALLP + 8, u64::MAX), (ALLP, 8), (LIST, 8), (LIST, u64::MAX)] {
            let mut memory = process(&reader);
            memory.write_u64(at, value);
            assert!(reader.read(&memory).is_err(), "{at:#x}");
        }
    }

    proptest! {
        #[test]
        fn counts_never_run_below_nothing(dead in any::<u32>(), ended in any::<u64>(), all in any::<u64>()) {
            let reader = reader("go1.26.6");
            let mut memory = process(&reader);
            memory.write_u64(ALLGLEN, all).write_u64(SCHED + reader.layout.sched.nmfreed, ended);
            memory.write(P + reader.layout.p.free_goroutines, &dead.to_le_bytes());
            let counts = reader.read(&memory).expect("counts");
            prop_assert!(counts.goroutines <= all && counts.threads <= 7);
        }
    }
}
