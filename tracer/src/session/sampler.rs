//! The target's own heap profiler, whose samples a recording may consist of.

use crate::base::{Error, Result};
use crate::memory::ProcessMemory;
use crate::runtime::{Layout, ProfileReader};
use crate::target::Identity;

pub(super) struct Sampler {
    reader: ProfileReader,
    /// Bytes per sample, as the recording began.
    pub(super) rate: u64,
}

impl Sampler {
    /// # Errors
    /// Usage when the profiler is off.
    pub(super) fn new(target: &Identity, layout: &Layout, memory: &impl ProcessMemory) -> Result<Sampler> {
        let reader = ProfileReader::new(&target.binary, layout, target.target.load_bias)?;
        match u64::try_from(reader.rate(memory)?) {
            Ok(rate @ 1..) => Ok(Sampler { reader, rate }),
            _ => Err(Error::usage(
                "the program's heap profiler is off (MemProfileRate 0): there are no samples to record",
            )
            .hint("record every allocation with --mode exact")),
        }
    }

    /// What to tell the user when the program has another rate by now.
    pub(super) fn changed(&self, memory: &impl ProcessMemory) -> Option<String> {
        // That the process is gone is seen elsewhere.
        let now = self.reader.rate(memory).ok()?;
        (u64::try_from(now) != Ok(self.rate)).then(|| {
            format!(
                "the program changed MemProfileRate from {} to {now}: estimates from samples taken since then \
                 are wrong",
                self.rate
            )
        })
    }
}
