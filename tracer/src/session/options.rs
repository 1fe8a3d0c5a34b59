//! What a recording is to be: which allocations, for how long, at what cost.

use std::time::Duration;

use crate::plan::Mark;

use super::overhead::{OVER, OVER_WINDOWS};

/// How to record.
#[derive(Debug, Clone)]
pub struct Options {
    pub mode: Mode,
    /// Why this mode, where the user did not name it.
    pub chosen: Option<String>,
    /// With `Mode::Runtime`, the `MemProfileRate` to set for the time of the recording;
    /// `None`: the program's own stays.
    pub set_rate: Option<u64>,
    /// `None`: until Ctrl-C, SIGTERM or the target's end.
    pub duration: Option<Duration>,
    pub ring_bytes: u64,
    pub max_depth: u32,
    pub bpf_log: bool,
    /// With `Mode::Exact`: allocations are only counted, in the kernel, and none is followed.
    pub counts_only: bool,
    /// Bytes that following objects may take; 0: they are not followed.
    pub max_memory: u64,
    /// Most that traps may take of the target's processor time, in percent; beyond it the
    /// probes on allocation sites are taken off. `None`: as the mode has it.
    pub max_overhead: Option<f64>,
    /// Most that traps of `Mode::Burst` may take of it on average, in percent.
    pub budget: f64,
    /// Whether a census of the process is taken every few seconds, and looked who holds what grows.
    pub evidence: bool,
    /// Whether what C allocates is followed, too.
    pub cgo: bool,
    /// Functions and lines to be told of.
    pub marks: Vec<Mark>,
}

impl Options {
    /// What holds where the user does not say, on the command line or in a session file.
    pub const RING_BYTES: u64 = 64 << 20;
    pub const MAX_DEPTH: u32 = 128;
    pub const MAX_MEMORY: u64 = 1 << 30;
    /// In percent.
    pub const BUDGET: f64 = 1.0;

    /// Percent of the target's processor time, and of which time that is.
    pub(super) fn limit(&self) -> Option<(f64, Duration)> {
        let (usual, over) = match self.mode {
            Mode::Exact => (None, OVER),
            Mode::Runtime => (Some(LIMIT), OVER),
            // What a single window costs is a matter of the budget.
            Mode::Burst => (Some((BUDGETS * self.budget).clamp(LIMIT, 100.0)), OVER_WINDOWS),
        };
        // All that C allocates is seen, as it was asked for.
        let usual = usual.filter(|_| !self.cgo);
        Some((self.max_overhead.or(usual)?, over))
    }
}

/// Most that sampling may cost where no other limit is given, in percent; and in budgets.
const LIMIT: f64 = 5.0;
const BUDGETS: f64 = 5.0;

/// Which allocations are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every one.
    Exact,
    /// Those that the runtime's own heap profiler samples.
    Runtime,
    /// Every one in short windows of time.
    Burst,
}

impl Mode {
    /// As captures and reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Exact => "exact",
            Mode::Runtime => "runtime",
            Mode::Burst => "burst",
        }
    }
}
