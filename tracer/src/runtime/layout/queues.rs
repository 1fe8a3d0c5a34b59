//! Where the runtime keeps what waits to be run: timers, finalizers, cleanups.

use super::At;

/// `None`: it is not there, or not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queues {
    pub timers: Option<Timers>,
    pub finalizers: Option<FinalizerBlock>,
    /// From Go 1.25 on; before, cleanups stood among the finalizers.
    pub cleanups: Option<CleanupQueue>,
}

/// Numbers of `runtime.p`, a u32 each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timers {
    /// In its heap, those included that were stopped and not yet taken out.
    pub count: u64,
    pub stopped: u64,
}

/// `runtime.finBlock` (`finblock` before Go 1.25): finalizers to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalizerBlock {
    /// The next of all blocks.
    pub next: u64,
    /// How many it holds, a u32.
    pub count: u64,
}

/// Numbers since the program started, a u64 each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanupQueue {
    /// `runtime.cleanupQueue`: those of Ps that are no more
    pub queued: u64,
    pub executed: u64,
    /// `runtime.p`
    pub queued_by_p: u64,
}

impl Queues {
    pub(super) fn from_offsets(at: &impl At) -> Queues {
        Queues {
            timers: Timers::from_offsets(at).ok(),
            finalizers: FinalizerBlock::from_offsets(at).ok(),
            cleanups: CleanupQueue::from_offsets(at).ok(),
        }
    }
}

impl Timers {
    fn from_offsets(at: &impl At) -> Result<Timers, String> {
        let p = |name| at("runtime.p", name);
        // They have a struct of their own from Go 1.23 on.
        match p("numTimers") {
            Ok(count) => Ok(Timers { count, stopped: p("deletedTimers")? }),
            Err(_) => Ok(Timers {
                count: p("timers")? + at("runtime.timers", "len")?,
                stopped: p("timers")? + at("runtime.timers", "zombies")?,
            }),
        }
    }
}

impl FinalizerBlock {
    fn from_offsets(at: &impl At) -> Result<FinalizerBlock, String> {
        let field = |name| at("runtime.finBlock", name).or_else(|_| at("runtime.finblock", name));
        Ok(FinalizerBlock { next: field("alllink")?, count: field("cnt")? })
    }
}

impl CleanupQueue {
    fn from_offsets(at: &impl At) -> Result<CleanupQueue, String> {
        let field = |name| at("runtime.cleanupQueue", name);
        Ok(CleanupQueue {
            queued: field("queued")?,
            executed: field("executed")?,
            queued_by_p: at("runtime.p", "cleanupsQueued")?,
        })
    }
}
