//! Starting a program that waits before its first instruction until probes are in place.

use std::marker::PhantomData;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::base::{Error, Result};

/// A child stopped at the first instruction of its program, until [`Spawned::release`].
///
/// Dropped before that, it is killed; after that it runs on by itself. It is traced by
/// the thread that made it, and by that only.
#[derive(Debug)]
pub struct Spawned {
    child: Child,
    stopped: bool,
    _one_thread: PhantomData<*const ()>,
}

/// How long a program that is told to end may take, and how often that is looked at.
const GRACE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

impl Spawned {
    /// Starts `command`, whose first element is the program, with our standard streams;
    /// what it prints goes to `stdout`.
    ///
    /// # Errors
    /// Usage when the command is empty or cannot be run.
    pub fn start(command: &[String], stdout: Stdio) -> Result<Spawned> {
        let (program, args) = command.split_first().ok_or_else(|| Error::usage("--exec names no command"))?;
        let mut start = Command::new(program);
        start.args(args).stdout(stdout);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; the
        // closure makes one system call and neither allocates nor locks.
        unsafe { start.pre_exec(|| ptrace::traceme().map_err(std::io::Error::from)) };
        let child = start.spawn().map_err(|e| cannot_run(program, e))?;
        let spawned = Spawned { child, stopped: true, _one_thread: PhantomData };
        spawned.await_first_instruction()?;
        Ok(spawned)
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Whether it has yet to begin.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Lets the program run, if it does not yet.
    ///
    /// # Errors
    /// Failed when it is gone, which takes a SIGKILL from elsewhere.
    pub fn release(&mut self) -> Result<()> {
        if !self.stopped {
            return Ok(());
        }
        ptrace::detach(self.nix_pid(), None).map_err(|e| self.lost(e))?;
        self.stopped = false;
        Ok(())
    }

    /// Ends a program that runs: with SIGTERM, and some seconds later with SIGKILL.
    ///
    /// # Errors
    /// Failed when it cannot be waited for.
    pub fn end(&mut self) -> Result<()> {
        let failed = |e| Error::failed("cannot wait for the started process").because(e);
        // It fails when it is gone already.
        _ = kill(self.nix_pid(), Signal::SIGTERM);
        let deadline = Instant::now() + GRACE;
        while self.child.try_wait().map_err(failed)?.is_none() {
            if Instant::now() >= deadline {
                _ = self.child.kill();
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// A traced process stops with SIGTRAP when it has called exec (ptrace(2)).
    fn await_first_instruction(&self) -> Result<()> {
        loop {
            match waitpid(self.nix_pid(), None) {
                Ok(WaitStatus::Stopped(_, Signal::SIGTRAP)) => break,
                // A signal from elsewhere came first: it is delivered.
                Ok(WaitStatus::Stopped(pid, signal)) => {
                    ptrace::cont(pid, signal).map_err(|e| self.lost(e))?;
                }
                Err(Errno::EINTR) => {}
                Ok(_) => return Err(Error::failed("the program ended before its first instruction")),
                Err(e) => return Err(self.lost(e)),
            }
        }
        // If we are killed, it goes with us rather than stay stopped for ever.
        ptrace::setoptions(self.nix_pid(), Options::PTRACE_O_EXITKILL).map_err(|e| self.lost(e))
    }

    fn lost(&self, e: Errno) -> Error {
        Error::failed(format!("lost hold of the started process {}", self.pid())).because(e)
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(self.pid())
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if self.stopped {
            // Either fails only when it is gone already.
            _ = self.child.kill();
            _ = self.child.wait();
        }
    }
}

fn cannot_run(program: &str, e: std::io::Error) -> Error {
    let error = match e.kind() {
        std::io::ErrorKind::NotFound => Error::usage(format!("{program}: command not found")),
        std::io::ErrorKind::PermissionDenied => Error::usage(format!("{program} is not executable")),
        _ => Error::usage(format!("cannot run {program}")).because(e),
    };
    error.hint("what follows --exec -- is a Go program and its arguments")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    fn start(command: &[&str]) -> Result<Spawned> {
        Spawned::start(&command.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), Stdio::inherit())
    }

    #[test]
    fn it_runs_only_after_its_release() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mark = dir.path().join("mark");
        let mut spawned = start(&["touch", &mark.to_string_lossy()]).expect("touch");
        let exe = std::fs::read_link(format!("/proc/{}/exe", spawned.pid())).expect("exe");
        // exec has happened, but nothing of the program yet, not even its loader.
        assert!(!exe.to_string_lossy().contains("tracer"), "{exe:?}");
        let maps = super::super::read_maps(spawned.pid()).expect("maps");
        assert!(maps.iter().all(|m| !m.path.contains("libc.so")), "{maps:?}");
        assert!(!mark.exists());
        spawned.release().expect("release");
        assert!(spawned.child.wait().expect("end").success());
        assert!(mark.exists());
    }

    #[test]
    fn dropped_before_its_release_it_is_killed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mark = dir.path().join("mark");
        let spawned = start(&["touch", &mark.to_string_lossy()]).expect("touch");
        let proc = format!("/proc/{}", spawned.pid());
        drop(spawned);
        assert!(!std::path::Path::new(&proc).exists() && !mark.exists());
    }

    #[test]
    fn what_cannot_run_is_said() {
        for (command, want) in [
            (&["/nonexistent/program"][..], "command not found"),
            (&["/etc/passwd"], "is not executable"),
            (&[], "names no command"),
        ] {
            let error = start(command).expect_err("cannot run");
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().contains(want), "{error}");
        }
    }
}
