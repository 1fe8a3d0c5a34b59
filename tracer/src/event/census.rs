//! What a census of a process finds.

use serde::{Deserialize, Serialize};

use super::StackId;

/// What was read of the process at one time, without a probe and without stopping it. Each
/// part is as of a slightly different moment; `None`: it is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Census {
    /// It was read between these instants of CLOCK_MONOTONIC, in nanoseconds.
    pub begin_ns: u64,
    pub end_ns: u64,
    pub goroutines: Option<GoroutineCensus>,
    /// Timers that are set: in the heaps of the Ps, and not stopped. From Go 1.23 on a timer
    /// with a channel is among them only while somebody receives from it.
    pub timers: Option<u64>,
    pub finalizers: Option<FinalizerCensus>,
    pub memory: Option<MemoryCensus>,
    /// By slot size, ascending; large objects, of a span each, at 0. Empty: not known.
    pub size_classes: Vec<SizeClassCensus>,
}

/// The goroutines that are not dead, those of the runtime itself included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GoroutineCensus {
    pub count: u64,
    /// What their stacks take, used or not.
    pub stack_bytes: u64,
    /// The largest, and perhaps not all of them.
    pub groups: Vec<GoroutineGroup>,
}

/// Goroutines that were created at one place and stand at another, both the same for all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GoroutineGroup {
    /// The return address of the `go` statement.
    pub go_pc: u64,
    /// The wait reason in the runtime's words, else the status: as a goroutine dump prints it.
    pub state: String,
    /// Of a deep stack the frames at both ends. `None`: it is not known.
    pub stack: Option<StackId>,
    pub count: u64,
    pub stack_bytes: u64,
    /// Of one of them.
    pub largest_stack_bytes: u64,
    /// For how many nanoseconds one of them has been blocked at least: since the first GC
    /// cycle that found it so.
    pub oldest_wait_ns: Option<u64>,
}

/// What is called when objects die.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FinalizerCensus {
    /// Objects with a finalizer.
    pub finalizers: u64,
    /// Cleanups of objects (`runtime.AddCleanup`); 0 before Go 1.24.
    pub cleanups: u64,
    /// Finalizers and cleanups of dead objects, which were not called yet.
    pub queued: Option<u64>,
    /// How many objects of which type have a finalizer, by the address of the type: most first,
    /// and perhaps not all of them.
    pub types: Vec<(u64, u64)>,
    /// The goroutines that call finalizers and cleanups.
    pub runners: Vec<GoroutineGroup>,
}

/// Where the memory is, in bytes; names are those of `runtime.MemStats`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryCensus {
    /// Resident memory, and of that what is backed by no file (proc(5), `/proc/PID/status`).
    pub rss_bytes: Option<u64>,
    pub rss_anon_bytes: Option<u64>,
    pub heap_alloc: u64,
    pub heap_inuse: u64,
    pub heap_idle: u64,
    pub heap_released: u64,
    /// What the heap is to grow to before the next cycle.
    pub next_gc: u64,
    pub stack_inuse: u64,
    pub stack_sys: u64,
    /// The runtime's own: `MSpanSys`, `MCacheSys`, `BuckHashSys`, `GCSys` and `OtherSys`.
    pub other_sys: u64,
    /// All of it, with what was released.
    pub sys: u64,
}

/// The spans of one size class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SizeClassCensus {
    /// In bytes.
    pub slot_size: u64,
    pub spans: u64,
    pub bytes: u64,
    /// Slots in use: as of each span's latest sweep, and what was allocated since.
    pub objects: u64,
    pub slots: u64,
}
