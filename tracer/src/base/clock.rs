//! The clock of all events, and what the collector itself takes.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_MONOTONIC, which the Go runtime and the eBPF program read, too.
pub fn monotonic_ns() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Nanoseconds of processor time that this thread has used.
pub fn thread_cpu_ns() -> u64 {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: ClockId) -> u64 {
    // It fails only for clocks that do not exist.
    clock_gettime(clock).map_or(0, |time| Duration::from(time).as_nanos() as u64)
}
