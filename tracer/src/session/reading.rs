//! Readings of the runtime's counters that allocations can be held against.

use std::time::{Duration, Instant};

use crate::base::{Noted, Result};
use crate::event::Counters;
use crate::memory::LiveMemory;
use crate::runtime::CounterReader;
use crate::source::live::LiveSource;

/// How long a reading of the counters takes at most if nothing is in its way, and how often it is
/// tried.
const PROMPT: Duration = Duration::from_millis(1);
const READINGS: u32 = 8;

/// Reads the counters, and has later allocations told from earlier ones. Until they are, what the
/// target allocates counts as of before: where this thread was kept waiting in between, or in the
/// reading itself, it reads again.
pub(super) fn prompt_reading(
    reader: &CounterReader,
    memory: &LiveMemory,
    source: &mut LiveSource,
) -> Result<Result<Noted<Counters>>> {
    let mut attempts = READINGS;
    loop {
        let begin = Instant::now();
        let read = reader.read(memory);
        source.turn()?;
        attempts -= 1;
        if attempts == 0 || read.is_err() || begin.elapsed() < PROMPT {
            return Ok(read);
        }
    }
}
