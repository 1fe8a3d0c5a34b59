//! Probes on C's allocator, and the sums of its objects as the eBPF program keeps them.

use std::path::PathBuf;

use aya::maps::Map;
use tracer_common::CCount;

use super::sums::Sums;
use crate::base::Result;
use crate::event::{CCounted, StackId};
use crate::plan::Site;

/// What to place on C's allocator.
#[derive(Debug, Clone)]
pub struct CProbes {
    /// The library, by a path that can be opened here.
    pub file: PathBuf,
    /// Run-time minus link-time address of the library.
    pub load_bias: u64,
    pub sites: Vec<Site>,
    /// `None`: goroutines that call into C are not known.
    pub goroutine: Option<GoroutineInC>,
}

/// How the goroutine is found that has called into C on a thread, besides
/// [`CurgOffsets`](super::CurgOffsets).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoroutineInC {
    /// What is to be added to the thread's FS base for where it keeps its runtime.g.
    pub tls: i64,
    /// Byte offset of `sched.bp` in runtime.g.
    pub sched_bp: u32,
    /// Byte offset of the FS base in the kernel's task_struct.
    pub fs_base: u32,
}

/// Threads that can be inside the allocator at once.
const CALLS: u32 = 1 << 13;
/// Objects that can be followed at once. Of more, allocations are left out. The map takes 38 MiB
/// of the kernel's memory (`memlock` in `/proc/PID/fdinfo`).
pub const OBJECTS: u32 = 1 << 19;
/// Stacks that are told apart; of more, allocations are left out, too.
const STACKS: u32 = 1 << 12;

/// How many entries the program's maps are to have.
pub(super) fn map_sizes(is_followed: bool) -> [(&'static str, u32); 3] {
    [("C_CALLS", CALLS), ("C_OBJECTS", OBJECTS), ("C_COUNTS", STACKS)]
        .map(|(map, entries)| (map, if is_followed { entries } else { 1 }))
}

/// The program's map C_COUNTS, by stack.
#[derive(Debug)]
pub(super) struct CCounts(Sums<u64, CCount>);

impl CCounts {
    pub(super) fn new(map: Map) -> CCounts {
        CCounts(Sums::new(map))
    }

    pub(super) fn read(&mut self) -> Result<Vec<CCounted>> {
        let counted = |(stack, before, now): (u64, CCount, CCount)| CCounted {
            stack: StackId(stack),
            objects: now.objects.wrapping_sub(before.objects),
            bytes: now.bytes.wrapping_sub(before.bytes),
            freed_objects: now.freed_objects.wrapping_sub(before.freed_objects),
            freed_bytes: now.freed_bytes.wrapping_sub(before.freed_bytes),
        };
        Ok(self.0.changes()?.into_iter().map(counted).collect())
    }
}
