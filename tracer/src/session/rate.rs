//! Another `MemProfileRate` for the time of a recording, set back however that ends.
//!
//! A process of its own, the guardian, sets it back when heaptap is killed: it waits for
//! the end of a pipe that heaptap alone holds. It is started before the rate is changed,
//! and is the same program once more: to fork alone would not be sound beside other threads.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::unistd::setsid;

use crate::base::{Error, Result};
use crate::memory::Word;

/// The hidden command that is the guardian; behind it come three numbers: the address of
/// the rate, the program's own rate, and the one that was set.
pub const GUARDIAN: &str = "restore-memprofile-rate";

/// A change of the rate, and how to undo it.
#[derive(Debug)]
struct Change {
    word: Word,
    own: u64,
    set: u64,
}

/// What became of the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Undone {
    Restored,
    /// The program has changed it itself, to this.
    LeftAlone(u64),
    /// The program has ended.
    Gone,
}

impl Change {
    /// From outside there is no exchange in one step: a change by the program itself
    /// between these two is lost.
    fn undo(&self) -> io::Result<Undone> {
        match self.word.read()? {
            None => Ok(Undone::Gone),
            Some(now) if now != self.set => Ok(Undone::LeftAlone(now)),
            Some(_) => Ok(if self.word.write(self.own)? { Undone::Restored } else { Undone::Gone }),
        }
    }
}

/// A rate that heaptap has set; dropping it sets it back.
#[derive(Debug)]
pub(super) struct SetRate {
    change: Change,
    /// `None`: it was set back.
    guardian: Option<Guardian>,
}

impl SetRate {
    /// Changes the rate in `word` from `own` to `rate`.
    ///
    /// # Errors
    /// When the process is gone, may not be written to, or nobody would set the rate back.
    pub(super) fn set(word: Word, own: u64, rate: u64) -> Result<SetRate> {
        let change = Change { word, own, set: rate };
        let guardian = Guardian::start(&change).map_err(|e| {
            Error::environment("cannot start the process that sets MemProfileRate back if heaptap is killed")
                .because(e)
        })?;
        match change.word.write(rate) {
            Ok(true) => Ok(SetRate { change, guardian: Some(guardian) }),
            Ok(false) => Err(Error::failed("the process has ended")),
            Err(e) => Err(Error::failed("cannot write MemProfileRate").because(e)),
        }
    }

    /// Sets it back, and says what came of that; `None`: the program has ended, or it was
    /// done before.
    pub(super) fn restore(&mut self) -> Option<String> {
        // Ends when this returns, and not before.
        let _guardian = self.guardian.take()?;
        let Change { own, set, .. } = self.change;
        match self.change.undo() {
            Ok(Undone::Gone) => None,
            Ok(Undone::Restored) => Some(format!("MemProfileRate was set back to {own}")),
            Ok(Undone::LeftAlone(now)) => Some(format!(
                "MemProfileRate was not set back to {own}: the program itself has changed it, from {set} to {now}"
            )),
            Err(e) => Some(format!("MemProfileRate could not be set back from {set} to {own}: {e}")),
        }
    }
}

impl Drop for SetRate {
    fn drop(&mut self) {
        if let Some(outcome) = self.restore() {
            log::warn!("{outcome}");
        }
    }
}

/// The running guardian; dropping it ends it.
#[derive(Debug)]
struct Guardian(Child);

impl Guardian {
    /// Returns once it waits.
    fn start(change: &Change) -> io::Result<Guardian> {
        let numbers = [change.word.address(), change.own, change.set].map(|number| number.to_string());
        // Our streams are none of its business: whoever reads them awaits their end.
        let mut guardian = Command::new("/proc/self/exe")
            .arg0("heaptap")
            .arg(GUARDIAN)
            .args(numbers)
            .current_dir("/")
            .stdin(change.word.file()?)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map(Guardian)?;
        // Its stdout stays ours, and open: that we are gone is what it waits for.
        let stdout = guardian.0.stdout.as_mut().ok_or(ErrorKind::BrokenPipe)?;
        stdout.read_exact(&mut [0])?;
        Ok(guardian)
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // Either fails only when it is gone already.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// What the guardian does: stdin is the target's memory, stdout the pipe to heaptap.
///
/// # Errors
/// When it has not got these, or cannot write to the target.
pub fn guard_rate(address: u64, own: u64, set: u64) -> Result<()> {
    await_and_undo(address, own, set).map_err(|e| Error::failed("MemProfileRate was not set back").because(e))
}

fn await_and_undo(address: u64, own: u64, set: u64) -> io::Result<()> {
    let change = Change { word: Word::of_file(io::stdin(), address)?, own, set };
    // What ends heaptap is not to end the guardian: Ctrl-C, the terminal's end, a stopped
    // service.
    SigSet::all().thread_block()?;
    setsid()?;
    let mut pipe = io::stdout();
    pipe.write_all(b"\n")?;
    pipe.flush()?;
    // Of the writing end of a pipe an error tells that nobody holds the other one.
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    while let Err(Errno::EINTR) = poll(&mut fds, PollTimeout::NONE) {}
    change.undo().map(|_| ())
}
