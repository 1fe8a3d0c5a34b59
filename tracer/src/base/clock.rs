//! The clock of all events.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_MONOTONIC, which the Go runtime and the eBPF program read, too.
pub fn monotonic_ns() -> u64 {
    // It fails only for clocks that do not exist.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| Duration::from(time).as_nanos() as u64)
}
