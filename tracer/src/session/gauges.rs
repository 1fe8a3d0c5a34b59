//! What can be read of a process each second without any probe: goroutines, resident memory.

use procfs::process::Process;

use crate::base::monotonic_ns;
use crate::event::Gauges;
use crate::memory::LiveMemory;
use crate::runtime::{Layout, SchedulerReader};
use crate::target::Identity;

pub(super) struct GaugeReader {
    /// `None`: it has just ended.
    process: Option<Process>,
    /// `None`: how many goroutines there are is unknown.
    scheduler: Option<SchedulerReader>,
}

impl GaugeReader {
    pub(super) fn new(Identity { binary, target }: &Identity, layout: &Layout) -> GaugeReader {
        GaugeReader {
            process: Process::new(target.pid as i32).ok(),
            scheduler: SchedulerReader::new(binary, layout, target.load_bias).ok(),
        }
    }

    pub(super) fn read(&self, memory: &LiveMemory) -> Gauges {
        let counts = self.scheduler.as_ref().and_then(|reader| reader.read(memory).ok());
        let pages = self.process.as_ref().and_then(|process| process.statm().ok());
        Gauges {
            time_ns: monotonic_ns(),
            goroutines: counts.map(|counts| counts.goroutines),
            rss_bytes: pages
                .filter(|pages| pages.resident > 0)
                .map(|pages| pages.resident * procfs::page_size()),
        }
    }
}
