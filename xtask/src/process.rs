//! A child process spoken to in lines, which never outlives its owner.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
pub use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// A running child; it is killed when this is dropped.
///
/// Its stdin is a pipe that closes with us, however we end: the target programs take
/// that as their sign to end too.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
}

/// A process that has ended, and everything it wrote.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    /// Starts the command with all three of its standard streams piped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(command: &mut Command) -> Result<Process> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        let stdout = Lines::read(child.stdout.take().context("no stdout")?);
        let stderr = Lines::read(child.stderr.take().context("no stderr")?);
        Ok(Process { stdin: child.stdin.take(), child, stdout, stderr })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes one line to its stdin.
    ///
    /// # Errors
    /// When it has closed its stdin, which is mostly: ended.
    pub fn send(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("stdin is closed")?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).context("writing to the process")
    }

    /// The next line of its stdout that is wanted; the others before it are passed over.
    ///
    /// # Errors
    /// When it ends, or the time is over, without such a line.
    pub fn stdout_line(&mut self, wanted: impl Fn(&str) -> bool, patience: Duration) -> Result<String> {
        let found = self.stdout.find(wanted, patience);
        found.with_context(|| format!("stdout of process {}; its stderr: {}", self.pid(), self.stderr.all()))
    }

    /// As [`Process::stdout_line`], of its stderr.
    ///
    /// # Errors
    /// As [`Process::stdout_line`].
    pub fn stderr_line(&mut self, wanted: impl Fn(&str) -> bool, patience: Duration) -> Result<String> {
        let found = self.stderr.find(wanted, patience);
        found.with_context(|| format!("stderr of process {}: {}", self.pid(), self.stderr.all()))
    }

    /// Passes over what it has written to stdout so far.
    pub fn discard_stdout(&mut self) {
        self.stdout.seen.extend(self.stdout.incoming.try_iter());
    }

    /// The same of stderr.
    pub fn discard_stderr(&mut self) {
        self.stderr.seen.extend(self.stderr.incoming.try_iter());
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        nix::sys::signal::kill(pid, signal).with_context(|| format!("{signal} to process {pid}"))
    }

    /// Closes its stdin and awaits its end.
    ///
    /// # Errors
    /// When the time is over first; it is killed then.
    pub fn wait(mut self, patience: Duration) -> Result<Ended> {
        drop(self.stdin.take());
        let until = Instant::now() + patience;
        for lines in [&mut self.stdout, &mut self.stderr] {
            let left = until.saturating_duration_since(Instant::now());
            if !lines.drain(left) {
                bail!("process {} did not end within {patience:?}", self.child.id());
            }
        }
        let status = self.child.wait()?;
        Ok(Ended { status, stdout: self.stdout.all(), stderr: self.stderr.all() })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only when it has been waited for already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The lines of one stream, read by a thread so that the child never blocks on us.
#[derive(Debug)]
struct Lines {
    incoming: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    fn read(stream: impl Read + Send + 'static) -> Lines {
        let (sender, incoming) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n') {
                let Ok(line) = line else { return };
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        Lines { incoming, seen: Vec::new() }
    }

    fn find(&mut self, wanted: impl Fn(&str) -> bool, patience: Duration) -> Result<String> {
        let until = Instant::now() + patience;
        loop {
            match self.incoming.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("no such line within {patience:?}"),
                Err(RecvTimeoutError::Disconnected) => bail!("closed without such a line"),
            }
        }
    }

    /// Reads to the end of the stream; false when that did not come in time.
    fn drain(&mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        loop {
            match self.incoming.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }

    /// Everything read so far.
    fn all(&mut self) -> String {
        self.seen.extend(self.incoming.try_iter());
        let mut text = self.seen.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn lines_go_both_ways_and_closing_stdin_ends_it() {
        let mut cat = Process::spawn(&mut Command::new("cat")).expect("cat");
        cat.send("one").expect("send");
        cat.send("two").expect("send");
        assert_eq!(cat.stdout_line(|line| line == "two", PATIENCE).expect("line"), "two");
        let ended = cat.wait(PATIENCE).expect("end");
        assert_eq!((ended.stdout.as_str(), ended.status.success()), ("one\ntwo\n", true));
    }

    #[test]
    fn dropping_it_kills_it() {
        let sleep = Process::spawn(Command::new("sleep").arg("1000")).expect("sleep");
        let proc = format!("/proc/{}", sleep.pid());
        drop(sleep);
        assert!(!std::path::Path::new(&proc).exists());
    }
}
