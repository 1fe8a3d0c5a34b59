//! Noticing that the target has ended, or has become another program.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use procfs::process::Process;

use super::{explain, find};
use crate::base::{Error, Result};

/// Why a process is no longer the one that was attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It is gone, or a zombie.
    Exited,
    /// It runs another program image: it called execve.
    Execed,
}

/// Watches one process.
///
/// It is polled: a pidfd would tell of an exit at once, but never of an execve.
#[derive(Debug, Clone)]
pub struct Watch {
    pid: i32,
    image: Image,
}

/// What tells one program image in one process from any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Image {
    /// In clock ticks since boot: another one is another process with a reused id.
    start_time: u64,
    device: u64,
    inode: u64,
    /// The kernel places the stack of each image at random, also of the same program.
    start_stack: u64,
}

const POLL: Duration = Duration::from_millis(100);

impl Watch {
    /// # Errors
    /// Failed when there is no such process; Environment when it may not be watched.
    pub fn new(pid: i32) -> Result<Watch> {
        find::by_pid(pid)?;
        Ok(Watch { pid, image: Image::of(pid)? })
    }

    /// Whether it has ended by now.
    pub fn ended(&self) -> Option<Ended> {
        match Image::of(self.pid) {
            Ok(image) if image == self.image => None,
            // On its way out a process has no memory any more, and so no stack.
            Ok(image) if image.start_stack == 0 => Some(Ended::Exited),
            Ok(image) if image.start_time == self.image.start_time => Some(Ended::Execed),
            _ => Some(Ended::Exited),
        }
    }

    /// Completes when it has ended; may be dropped and called again.
    pub async fn wait(&self) -> Ended {
        loop {
            if let Some(ended) = self.ended() {
                return ended;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Image {
    fn of(pid: i32) -> Result<Image> {
        let exe = std::fs::metadata(format!("/proc/{pid}/exe")).map_err(|e| explain(pid, e.into()))?;
        let stat = Process::new(pid).and_then(|p| p.stat()).map_err(|e| explain(pid, e))?;
        if find::is_ended(&stat) {
            return Err(Error::ended(pid));
        }
        Ok(Image {
            start_time: stat.starttime,
            device: exe.dev(),
            inode: exe.ino(),
            start_stack: stat.startstack,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn wait(watch: &Watch) -> Ended {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let limit = Duration::from_secs(20);
        let waiting = async { tokio::time::timeout(limit, watch.wait()).await };
        runtime.block_on(waiting).expect("in time")
    }

    #[test]
    fn an_exit_is_noticed_before_anyone_reaps() {
        let mut cat = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat");
        let watch = Watch::new(cat.id() as i32).expect("watch");
        assert_eq!(watch.ended(), None);
        drop(cat.stdin.take());
        assert_eq!(wait(&watch), Ended::Exited);
        assert_eq!(watch.ended(), Some(Ended::Exited));
        cat.wait().expect("reap");
        assert!(Watch::new(cat.id() as i32).is_err());
    }

    #[test]
    fn an_execve_is_noticed_even_of_the_same_program() {
        let mut shell = Command::new("sh")
            .args(["-c", "read line; exec sh -c 'read line'"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh");
        let watch = Watch::new(shell.id() as i32).expect("watch");
        assert_eq!(watch.ended(), None);
        let stdin = shell.stdin.as_mut().expect("stdin");
        stdin.write_all(b"go\n").expect("write");
        assert_eq!(wait(&watch), Ended::Execed);
        drop(shell.stdin.take());
        shell.wait().expect("reap");
    }
}
