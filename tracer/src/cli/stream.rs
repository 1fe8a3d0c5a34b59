//! `heaptap record --stream`: events and summaries of a recording as lines on stdout.

use std::io::Write;
use std::time::{Duration, Instant};

use super::note;
use crate::base::{Result, monotonic_ns};
use crate::event::Event;
use crate::export::stream::Lines;
use crate::model::State;
use crate::report::stream::{Line, Stream};

/// Between two summaries; with a margin, as seconds of the recording are not all equal.
const INTERVAL: Duration = Duration::from_millis(900);

/// A summary that takes a while, of very many sites, is the rarer for it.
const REST: u32 = 19;

/// Passes on what a recording does to whoever reads stdout.
pub(super) struct Streamer {
    stream: Stream,
    lines: Lines,
    /// Since the summary before.
    dropped: u64,
    /// Not before this is the next summary.
    next: Instant,
    /// The first failure, which ends the recording.
    failed: Result<()>,
}

impl Streamer {
    pub(super) fn start(out: impl Write + Send + 'static) -> Streamer {
        Streamer {
            stream: Stream::default(),
            lines: Lines::start(out),
            dropped: 0,
            next: Instant::now() + INTERVAL,
            failed: Ok(()),
        }
    }

    pub(super) fn event(&mut self, event: &Event, state: &State) {
        let Some(line) = self.stream.line(event, state) else { return };
        if matches!(event, Event::End(_)) {
            // So that the summaries add up to all there was.
            let (summary, _) = self.stream.summary(state, monotonic_ns(), self.dropped);
            let sent = self.lines.send_last(&summary).and_then(|()| self.lines.send_last(&line));
            return self.check(sent);
        }
        if !self.send(&line) {
            self.dropped += 1;
        }
    }

    /// Sums up what has come, if it is time to.
    pub(super) fn second(&mut self, state: &State) {
        let begin = Instant::now();
        if begin < self.next {
            return;
        }
        let (line, told) = self.stream.summary(state, monotonic_ns(), self.dropped);
        if self.send(&line) {
            self.stream.told(told);
            self.dropped = 0;
        } else {
            self.dropped += 1;
        }
        self.next = begin + (begin.elapsed() * REST).max(INTERVAL);
    }

    /// False if the line was dropped.
    fn send(&mut self, line: &Line) -> bool {
        let sent = self.lines.send(line);
        let is_sent = *sent.as_ref().unwrap_or(&false);
        self.check(sent.map(drop));
        is_sent
    }

    fn check(&mut self, outcome: Result<()>) {
        if self.failed.is_ok() {
            self.failed = outcome;
        }
    }

    /// Whether there is nobody to stream to.
    pub(super) fn is_closed(&self) -> bool {
        self.lines.is_closed() || self.failed.is_err()
    }

    /// Awaits that everything was read, for a while.
    pub(super) fn finish(self) -> Result<()> {
        self.failed?;
        if !self.lines.finish()? {
            note("heaptap: the last lines of the stream were not read in time");
        }
        Ok(())
    }
}
