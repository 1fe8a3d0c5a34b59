//! The command of a phase: a process group of its own, its output in a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::base::{Error, Result};

/// How long a command that is told to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// How often that is looked at when nothing else is to be done meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// A shell command that runs, with all that it starts. Dropped, it is ended.
#[derive(Debug)]
pub(super) struct PhaseCommand {
    child: Child,
    status: Option<ExitStatus>,
    /// When it was told to end.
    told: Option<Instant>,
}

impl PhaseCommand {
    /// Starts `sh -c command` with both output streams in the file `output`.
    ///
    /// # Errors
    /// Failed when the file cannot be written or there is no shell.
    pub(super) fn start(
        command: &str,
        env: &BTreeMap<String, String>,
        given: &[(&str, String)],
        output: &Path,
    ) -> Result<PhaseCommand> {
        let cannot = |e| Error::failed(format!("cannot write {}", output.display())).because(e);
        let out = File::create(output).map_err(cannot)?;
        let err = out.try_clone().map_err(cannot)?;
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).envs(given.iter().map(|(name, value)| (name, value))).envs(env);
        shell.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let child = shell.spawn().map_err(|e| Error::failed("cannot start sh").because(e))?;
        Ok(PhaseCommand { child, status: None, told: None })
    }

    /// How it ended, if it has by itself. What it has left running goes on.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() && self.told.is_none() {
            // It can only fail for a child that was waited for.
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Tells it, and all that it has started, to end.
    pub(super) fn tell_to_end(&mut self) {
        if self.status.is_none() && self.told.is_none() {
            self.told = Some(Instant::now());
            self.signal(Signal::SIGTERM);
        }
    }

    /// Whether it has ended, or was killed for it did not when told to.
    pub(super) fn is_over(&mut self) -> bool {
        if let (None, Some(told)) = (self.status, self.told)
            && (self.is_zombie() || told.elapsed() >= GRACE)
        {
            // Also what it has left behind. It is not reaped yet: its group is still its own.
            self.signal(Signal::SIGKILL);
            self.status = self.child.wait().ok();
            return true;
        }
        self.ended().is_some()
    }

    fn is_zombie(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        !matches!(waitid(Id::Pid(self.group()), flags), Ok(WaitStatus::StillAlive))
    }

    fn signal(&self, signal: Signal) {
        // It fails when nobody of the group is left.
        _ = killpg(self.group(), signal);
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

impl Drop for PhaseCommand {
    fn drop(&mut self) {
        self.tell_to_end();
        while !self.is_over() {
            std::thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(command: &str, output: &Path) -> PhaseCommand {
        PhaseCommand::start(command, &BTreeMap::new(), &[("GIVEN", "7".into())], output).expect("sh")
    }

    #[test]
    fn its_output_is_kept_and_its_end_told() {
        let dir = tempfile::tempdir().expect("tempdir");
        let output = dir.path().join("log");
        let mut command = start("echo $GIVEN; echo err >&2; exit 5", &output);
        let status = loop {
            match command.ended() {
                Some(status) => break status,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(status.code(), Some(5));
        assert_eq!(std::fs::read_to_string(&output).expect("log"), "7\nerr\n");
    }

    #[test]
    fn one_that_hangs_is_ended_with_all_it_started() {
        let dir = tempfile::tempdir().expect("tempdir");
        let output = dir.path().join("log");
        let command = start("trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000", &output);
        let started = loop {
            match std::fs::read_to_string(&output).expect("log").trim().parse::<i32>() {
                Ok(pid) => break pid,
                Err(_) => std::thread::yield_now(),
            }
        };
        drop(command);
        // Killed with its group; a zombie until init takes it.
        while std::fs::read_to_string(format!("/proc/{started}/stat")).is_ok_and(|s| !s.contains(") Z ")) {
            std::thread::yield_now();
        }
    }
}
