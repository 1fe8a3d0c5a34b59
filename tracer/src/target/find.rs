//! From what the user names to a process id.

use std::path::Path;

use procfs::process::{Process, Stat, all_processes};
use regex::Regex;

use super::{explain, open_binary};
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
    if !is_alive(&process) {
        return Err(Error::ended(pid));
    }
    Ok(pid)
}

/// The one process of this name: its command name (`comm`), or the file name of its
/// executable or of its first argument.
///
/// # Errors
/// Failed when no process has the name; Usage when several have, listing them.
pub fn by_name(name: &str) -> Result<i32> {
    one(all()?.filter(|p| is_called(p, name)), &format!("the name {name:?}"))
}

/// The one Go process whose command line, its arguments joined by spaces, matches.
///
/// # Errors
/// As [`by_name`].
pub fn by_cmdline(pattern: &Regex) -> Result<i32> {
    let matches = |p: &Process| p.cmdline().is_ok_and(|args| pattern.is_match(&args.join(" ")));
    one(all()?.filter(matches).filter(is_go), &format!("a command line like {:?}", pattern.as_str()))
}

/// The one Go process in this cgroup or one below it: `/system.slice/app.service`.
///
/// # Errors
/// As [`by_name`].
pub fn by_cgroup(path: &str) -> Result<i32> {
    one(go_processes_in(|group| is_below(group, path))?, &format!("the cgroup {path:?}"))
}

fn is_below(group: &str, path: &str) -> bool {
    let rest = group.strip_prefix(path.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The one Go process in the container with this id, or the beginning of one of at least 8
/// digits: container runtimes name a container's cgroup by its id.
///
/// # Errors
/// As [`by_name`].
pub fn by_container(id: &str) -> Result<i32> {
    if id.len() < 8 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Error::usage(format!("{id:?} is no container's id"))
            .hint("give at least 8 of its hexadecimal digits"));
    }
    one(go_processes_in(|group| is_of_container(group, id))?, &format!("the container {id}"))
}

/// As `docker-ID.scope`, `cri-containerd-ID.scope`, `libpod-ID`, or ID alone.
fn is_of_container(group: &str, id: &str) -> bool {
    group.split(['/', '-', '.', ':']).any(|part| part.starts_with(id))
}

fn go_processes_in(is_wanted: impl Fn(&str) -> bool) -> Result<impl Iterator<Item = Process>> {
    let is_in =
        move |p: &Process| p.cgroups().is_ok_and(|groups| groups.into_iter().any(|g| is_wanted(&g.pathname)));
    Ok(all()?.filter(move |p| is_in(p) && is_go(p)))
}

/// Go programs often have helpers about them, such as the shell that began them.
fn is_go(process: &Process) -> bool {
    open_binary(Path::new(&format!("/proc/{}/exe", process.pid))).is_ok()
}

fn all() -> Result<impl Iterator<Item = Process>> {
    let processes = all_processes()
        .map_err(|e| Error::environment("cannot list processes: is /proc mounted?").because(e))?;
    let own_pid = std::process::id() as i32;
    Ok(processes.filter_map(Result::ok).filter(move |p| p.pid != own_pid && is_alive(p)))
}

fn one(processes: impl Iterator<Item = Process>, what: &str) -> Result<i32> {
    let matching: Vec<Process> = processes.collect();
    match matching.as_slice() {
        [] => Err(Error::failed(format!("no process has {what}"))
            .hint("`ps -e -o pid,comm,args` lists processes; --pid names one by its id")),
        [one] => Ok(one.pid),
        several => Err(ambiguous(what, several)),
    }
}

fn ambiguous(what: &str, processes: &[Process]) -> Error {
    let list: Vec<String> = processes
        .iter()
        .map(|p| format!("\n  {:>7}  {}", p.pid, p.cmdline().unwrap_or_default().join(" ")))
        .collect();
    Error::usage(format!("{} processes have {what}:{}", list.len(), list.concat()))
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

fn is_alive(process: &Process) -> bool {
    process.stat().is_ok_and(|stat| !is_ended(&stat))
}

/// Whether only its exit status is left (zombie) or not even that.
pub(super) fn is_ended(stat: &Stat) -> bool {
    matches!(stat.state, 'Z' | 'X' | 'x')
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
        let maps = super::super::read_maps(pid).expect_err("a zombie has no memory");
        assert_eq!(maps.to_string(), format!("process {pid} has ended"));
    }

    #[test]
    fn cgroups_are_known_by_their_paths() {
        for (group, path, want) in [
            ("/system.slice/app.service", "/system.slice/app.service", true),
            ("/system.slice/app.service/worker", "/system.slice/app.service/", true),
            ("/system.slice/app.service2", "/system.slice/app.service", false),
            ("/user.slice", "/system.slice", false),
        ] {
            assert_eq!(is_below(group, path), want, "{group} {path}");
        }
        for (group, want) in [
            ("/system.slice/docker-0123456789abcdef.scope", true),
            ("/kubepods.slice/pod12.slice/cri-containerd-0123456789abcdef.scope", true),
            ("/docker/0123456789abcdef/init.scope", true),
            ("/machine.slice/libpod-0123456789abcdef", true),
            ("/system.slice/docker-fedcba9876543210.scope", false),
            ("/x90123456789", false),
        ] {
            assert_eq!(is_of_container(group, "0123456789"), want, "{group}");
        }
        assert_eq!(by_container("0123").expect_err("short").kind(), ErrorKind::Usage);
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
