//! From what the user names to a process id.

use procfs::process::{Process, all_processes};

use super::explain;
use crate::base::{Error, Result};

/// Checks that there is such a process.
///
/// # Errors
/// Failed when there is none; Usage when it is a thread of another process.
pub fn by_pid(pid: i32) -> Result<i32> {
    let no_such = || Error::failed(format!("no process {pid}"));
    let process = Process::new(pid).map_err(|_| no_such())?;
    let status = process.status().map_err(|e| explain(pid, e))?;
    if status.tgid != pid {
        return Err(Error::usage(format!("{pid} is a thread of process {}", status.tgid))
            .hint(format!("pass --pid {}", status.tgid)));
    }
    if is_ended(&process) {
        return Err(Error::failed(format!("process {pid} has ended")));
    }
    Ok(pid)
}

/// The one process of this name: its command name (`comm`), or the file name of its
/// executable or of its first argument.
///
/// # Errors
/// Failed when no process has the name; Usage when several have, listing them.
pub fn by_name(name: &str) -> Result<i32> {
    let processes = all_processes()
        .map_err(|e| Error::environment("cannot list processes: is /proc mounted?").because(e))?;
    let own_pid = std::process::id() as i32;
    let matching: Vec<Process> = processes
        .filter_map(Result::ok)
        .filter(|p| p.pid != own_pid && is_called(p, name) && !is_ended(p))
        .collect();
    match matching.as_slice() {
        [] => Err(Error::failed(format!("no process is called {name:?}"))
            .hint("`ps -e -o pid,comm,args` lists names; --pid names a process by its id")),
        [one] => Ok(one.pid),
        several => Err(ambiguous(name, several)),
    }
}

fn ambiguous(name: &str, processes: &[Process]) -> Error {
    let list: Vec<String> = processes
        .iter()
        .map(|p| format!("\n  {:>7}  {}", p.pid, p.cmdline().unwrap_or_default().join(" ")))
        .collect();
    Error::usage(format!("{} processes are called {name:?}:{}", list.len(), list.concat()))
        .hint("pass --pid with one of them")
}

/// Kernel threads have no executable and are never meant.
fn is_called(process: &Process, name: &str) -> bool {
    let Ok(exe) = process.exe() else { return false };
    // The kernel appends this when the file is gone; the name is meant without it.
    let exe = exe.to_string_lossy();
    let exe = exe.strip_suffix(" (deleted)").unwrap_or(&exe);
    file_name(exe) == name
        || process.stat().is_ok_and(|stat| stat.comm == name)
        || process.cmdline().is_ok_and(|args| args.first().is_some_and(|arg| file_name(arg) == name))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether only its exit status is left (zombie) or not even that.
fn is_ended(process: &Process) -> bool {
    !process.stat().is_ok_and(|stat| !matches!(stat.state, 'Z' | 'X' | 'x'))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::base::ErrorKind;

    /// A child that ends with the test.
    struct Sleeper(Child);

    impl Sleeper {
        fn named(name: &str) -> Sleeper {
            use std::os::unix::process::CommandExt;
            let mut command = Command::new("cat");
            Sleeper(command.arg0(name).stdin(Stdio::piped()).spawn().expect("cat"))
        }

        fn pid(&self) -> i32 {
            self.0.id() as i32
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            _ = self.0.kill();
            _ = self.0.wait();
        }
    }

    #[test]
    fn a_pid_is_checked() {
        let mut sleeper = Sleeper::named("heaptap-find-pid");
        let pid = sleeper.pid();
        assert_eq!(by_pid(pid).ok(), Some(pid));
        let gone = by_pid(i32::MAX).expect_err("beyond pid_max");
        assert_eq!((gone.kind(), gone.to_string()), (ErrorKind::Failed, format!("no process {}", i32::MAX)));
        sleeper.0.kill().expect("kill");
        // Not reaped: a zombie remains, and counts as ended.
        while by_pid(pid).is_ok() {
            std::thread::yield_now();
        }
        assert!(by_pid(pid).expect_err("zombie").to_string().contains("has ended"));
    }

    #[test]
    fn a_name_must_be_of_one_process() {
        let none = by_name("heaptap-find-none").expect_err("none");
        assert_eq!(none.kind(), ErrorKind::Failed);
        let first = Sleeper::named("/opt/heaptap-find-name");
        assert_eq!(by_name("heaptap-find-name").ok(), Some(first.pid()));
        let second = Sleeper::named("heaptap-find-name");
        let both = by_name("heaptap-find-name").expect_err("two");
        assert_eq!(both.kind(), ErrorKind::Usage);
        for pid in [first.pid(), second.pid()] {
            assert!(both.to_string().contains(&pid.to_string()), "{both}");
        }
    }
}
