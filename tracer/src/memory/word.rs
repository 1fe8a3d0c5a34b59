//! One word of another process: the only thing that is ever written to a target.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use crate::base::{Error, Result};

/// A u64 in the memory of a process as it was when this was opened: once that process has
/// ended, or has called execve, nothing is there any more, whoever has its id by then
/// (`/proc/PID/mem` holds on to what it was opened for, proc_pid_mem(5)).
#[derive(Debug)]
pub struct Word {
    memory: File,
    address: u64,
}

impl Word {
    /// # Errors
    /// Environment when the user may not write to the process; Failed when it is gone.
    pub fn open(pid: i32, address: u64) -> Result<Word> {
        let path = format!("/proc/{pid}/mem");
        let memory = File::options().read(true).write(true).open(&path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::ended(pid),
            ErrorKind::PermissionDenied => {
                Error::environment(format!("not permitted to write to the memory of process {pid}"))
                    .hint("run as root, or give heaptap CAP_SYS_PTRACE and see kernel.yama.ptrace_scope")
            }
            _ => Error::failed(format!("cannot open {path}")).because(e),
        })?;
        Ok(Word { memory, address })
    }

    /// The word at `address` of a process whose `/proc/PID/mem` was opened by another.
    ///
    /// # Errors
    /// When this process may open no more files.
    pub fn of_file(memory: impl AsFd, address: u64) -> io::Result<Word> {
        Ok(Word { memory: memory.as_fd().try_clone_to_owned()?.into(), address })
    }

    /// The opened `/proc/PID/mem`, to hand to another process.
    ///
    /// # Errors
    /// When this process may open no more files.
    pub fn file(&self) -> io::Result<OwnedFd> {
        Ok(self.memory.try_clone()?.into())
    }

    /// `None`: the process has ended or become another program.
    ///
    /// # Errors
    /// When there is no such address.
    pub fn read(&self) -> io::Result<Option<u64>> {
        let mut word = [0; 8];
        match self.memory.read_exact_at(&mut word, self.address) {
            Ok(()) => Ok(Some(u64::from_le_bytes(word))),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// False: the process has ended or become another program, and nothing was written.
    ///
    /// # Errors
    /// When the address cannot be written to.
    pub fn write(&self, value: u64) -> io::Result<bool> {
        match self.memory.write_all_at(&value.to_le_bytes(), self.address) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::WriteZero => Ok(false),
            Err(e) => Err(e),
        }
    }

    pub fn address(&self) -> u64 {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::base::ErrorKind as Kind;

    #[test]
    fn it_is_read_and_written() {
        let words = [1, 2, 3].map(AtomicU64::new);
        let middle = words[1].as_ptr() as u64;
        let word = Word::open(std::process::id() as i32, middle).expect("own memory");
        assert_eq!(word.read().expect("there"), Some(2));
        assert!(word.write(u64::MAX - 1).expect("there"));
        assert_eq!(words.each_ref().map(|w| w.load(Ordering::Relaxed)), [1, u64::MAX - 1, 3]);
        let same = Word::of_file(word.file().expect("a file"), word.address()).expect("a file");
        assert_eq!(same.address(), middle);
        let nowhere = Word::of_file(same.file().expect("a file"), 8).expect("a file");
        assert!(nowhere.read().is_err() && nowhere.write(1).is_err());
    }

    #[test]
    fn of_a_process_that_is_gone_nothing_is_read_or_written() {
        let mut cat = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat");
        let pid = cat.id() as i32;
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
        let writable = maps.lines().find(|line| line.contains(" rw-p ")).expect("a writable page");
        let address = writable.split('-').next().and_then(|a| u64::from_str_radix(a, 16).ok());
        let word = Word::open(pid, address.expect("an address")).expect("a child's memory");
        let value = word.read().expect("there").expect("alive");
        assert!(word.write(value).expect("there"));
        drop(cat.stdin.take());
        cat.wait().expect("end");
        assert_eq!((word.read().expect("no error"), word.write(1).expect("no error")), (None, false));
        assert_eq!(Word::open(pid, 8).expect_err("gone").kind(), Kind::Failed);
    }
}
