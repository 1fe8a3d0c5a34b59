//! Lines of JSON for a reader that may be slow, or go away: nobody waits for it.

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::base::{Error, Result};
use crate::report::stream::Line;

/// Bytes of lines that wait for the reader; what comes while so many do is dropped.
const MOST_WAITING: usize = 1 << 20;

/// How long the reader may take for what is left when all has been said.
const PATIENCE: Duration = Duration::from_secs(10);

/// Writes lines on a thread of its own, each at once.
#[derive(Debug)]
pub struct Lines {
    sender: Sender<Vec<u8>>,
    shared: Arc<Shared>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    thread: JoinHandle<Result<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes sent and not yet written.
    waiting: AtomicUsize,
    /// Nothing is written any more.
    closed: AtomicBool,
}

impl Lines {
    pub fn start(out: impl Write + Send + 'static) -> Lines {
        let (sender, lines) = channel();
        let (ending, ended) = channel();
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let _ending: Sender<()> = ending;
            let outcome = write_all(out, &lines, &theirs.waiting);
            theirs.closed.store(true, Ordering::Relaxed);
            outcome
        });
        Lines { sender, shared, ended, thread }
    }

    /// Passes a line on; false if it was dropped, as too many wait for the reader.
    ///
    /// # Errors
    /// When it cannot be put as JSON.
    pub fn send(&self, line: &Line) -> Result<bool> {
        if self.shared.waiting.load(Ordering::Relaxed) > MOST_WAITING {
            return Ok(false);
        }
        self.send_last(line).map(|()| true)
    }

    /// Passes a line on however many wait.
    ///
    /// # Errors
    /// As [`Lines::send`].
    pub fn send_last(&self, line: &Line) -> Result<()> {
        let mut json =
            serde_json::to_vec(line).map_err(|e| Error::failed("cannot put an event as JSON").because(e))?;
        json.push(b'\n');
        self.shared.waiting.fetch_add(json.len(), Ordering::Relaxed);
        // The thread is gone when the reader is.
        _ = self.sender.send(json);
        Ok(())
    }

    /// Whether the reader has gone away.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Relaxed)
    }

    /// Awaits that the reader has taken everything, for a while; false if it has not. A
    /// reader that has gone away has.
    ///
    /// # Errors
    /// When lines could not be written.
    pub fn finish(self) -> Result<bool> {
        drop(self.sender);
        match self.ended.recv_timeout(PATIENCE) {
            Err(RecvTimeoutError::Timeout) => Ok(false),
            _ => self.thread.join().unwrap_or(Ok(())).map(|()| true),
        }
    }
}

fn write_all(mut out: impl Write, lines: &Receiver<Vec<u8>>, waiting: &AtomicUsize) -> Result<()> {
    for line in lines {
        match out.write_all(&line).and_then(|()| out.flush()) {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(e) => return Err(Error::failed("cannot write to stdout").because(e)),
            Ok(()) => {}
        }
        waiting.fetch_sub(line.len(), Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::*;
    use crate::report::stream::What;

    /// Takes a line whenever the test says so, until it goes away.
    struct Reader {
        taken: Arc<Mutex<Vec<u8>>>,
        turns: Receiver<()>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.turns.recv().map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
            self.taken.lock().expect("taken").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(text: &str) -> Line {
        Line { time_s: 1.5, what: What::Note { text: text.into() } }
    }

    #[test]
    fn a_slow_reader_costs_lines_and_no_time() {
        let (turn, turns) = channel();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let lines = Lines::start(Reader { taken: Arc::clone(&taken), turns });
        let text = "x".repeat(MOST_WAITING / 4);
        let sent = (0..100).filter(|_| lines.send(&line(&text)).expect("JSON")).count();
        assert_eq!(sent, 4, "as much as may wait, rounded up");
        lines.send_last(&line("the last")).expect("JSON");
        (0..=sent).for_each(|_| turn.send(()).expect("reads"));
        assert!(lines.finish().expect("written"));
        let taken = taken.lock().expect("taken");
        let last = taken.split(|byte| *byte == b'\n').rev().nth(1).expect("a line");
        assert_eq!(last, br#"{"time_s":1.5,"event":"note","text":"the last"}"#);
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error() {
        let (turn, turns) = channel();
        let lines = Lines::start(Reader { taken: Arc::default(), turns });
        drop(turn);
        while !lines.is_closed() {
            lines.send(&line("anybody?")).expect("JSON");
        }
        assert!(lines.finish().expect("no error"));
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::start(Full);
        while !lines.is_closed() {
            lines.send(&line("something")).expect("JSON");
        }
        assert!(lines.finish().is_err());
    }
}
