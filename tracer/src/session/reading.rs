//! Readings of the runtime's counters that allocations can be held against.

use std::time::Duration;

use crate::base::{Noted, Result, monotonic_ns};
use crate::event::Counters;
use crate::memory::LiveMemory;
use crate::runtime::CounterReader;
use crate::source::live::LiveSource;

/// How long a reading takes at most if nothing is in its way and the program has few Ps, and how
/// often it is tried.
const PROMPT: Duration = Duration::from_micros(200);
const READINGS: u32 = 8;

/// Reads the counters, and has later allocations told from earlier ones.
#[derive(Debug, Clone)]
pub(super) struct PromptReader {
    pub(super) reader: CounterReader,
    /// The shortest time that a reading took; `None`: there was none.
    fastest: Option<Duration>,
}

impl PromptReader {
    pub(super) fn new(reader: CounterReader) -> PromptReader {
        PromptReader { reader, fastest: None }
    }

    /// From when the counters are read until allocations are told apart, those that happen count
    /// as of before: where this thread was kept waiting meanwhile, it reads again.
    pub(super) fn read(&mut self, memory: &LiveMemory, source: &mut LiveSource) -> Result<Noted<Counters>> {
        let prompt = self.fastest.map_or(PROMPT, |fastest| PROMPT.max(2 * fastest));
        let mut attempts = READINGS;
        loop {
            let mut turned_ns = 0;
            let read = self.reader.read_and(memory, || {
                source.turn()?;
                turned_ns = monotonic_ns();
                Ok(())
            })?;
            let took = Duration::from_nanos(turned_ns.saturating_sub(read.value.begin_ns));
            self.fastest = Some(self.fastest.map_or(took, |fastest| fastest.min(took)));
            attempts -= 1;
            if attempts == 0 || took < prompt {
                return Ok(read);
            }
        }
    }
}
