//! The process that a session is on: found, waited for, started.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use regex::Regex;
use toml::Spanned;

use super::file;
use super::source::Source;
use crate::base::{Error, ErrorKind, Result};
use crate::target::{self, Identity, Spawned};

/// Which process is wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    pub who: Who,
    /// How long it may take to be there.
    pub wait: Duration,
    pub reattach: bool,
    assume_go: Option<String>,
}

#[derive(Debug)]
pub(super) enum Who {
    Pid(i32),
    Name(String),
    Cmdline(Regex),
    Cgroup(String),
    Container(String),
    Exec(Vec<String>),
}

/// How long a program that restarts may be away, unless `wait` says otherwise.
const RESTART: Duration = Duration::from_secs(60);

impl Wanted {
    pub(super) fn of(
        source: &Source<'_>,
        target: &Spanned<file::Target>,
        mode: file::Lane,
    ) -> Result<Wanted> {
        let table = target.get_ref().clone();
        let wrong = |message: &str| source.error(target.span(), message);
        let cmdline = table.cmdline.map(|pattern| {
            let regex = Regex::new(&pattern);
            regex.map_err(|e| wrong("`cmdline` is no regular expression").because(e))
        });
        let ways = [
            table.pid.map(Who::Pid),
            table.name.map(Who::Name),
            cmdline.transpose()?.map(Who::Cmdline),
            table.cgroup.map(Who::Cgroup),
            table.container.map(Who::Container),
            table.exec.map(Who::Exec),
        ];
        let mut given = ways.into_iter().flatten();
        let one = "a target is given by one of pid, name, cmdline, cgroup, container and exec";
        let (Some(who), None) = (given.next(), given.next()) else { return Err(wrong(one)) };
        if table.reattach && matches!(who, Who::Pid(_) | Who::Exec(_)) {
            return Err(wrong(
                "a process that restarts has another id: `reattach` takes another way to find it",
            ));
        }
        if matches!(who, Who::Exec(_)) && mode == file::Lane::Runtime {
            return Err(wrong(
                "a program that starts has not set its rate of samples yet: `mode` cannot be \"runtime\"",
            ));
        }
        let wait = table.wait.unwrap_or(if table.reattach { RESTART } else { Duration::ZERO });
        Ok(Wanted { who, wait, reattach: table.reattach, assume_go: table.assume_go })
    }

    /// Waits until the process is there; `idle` is called now and then, and may end it. One
    /// that is started here prints to the file `output`.
    ///
    /// # Errors
    /// Why it was not found, when the time is over; at once when it could not ever be.
    pub(super) async fn find(
        &self,
        wait: Duration,
        output: &Path,
        mut idle: impl FnMut() -> ControlFlow<()>,
    ) -> Result<Option<(Identity, Option<Spawned>)>> {
        let deadline = Instant::now() + wait;
        loop {
            match self.look(output) {
                Ok(found) => return Ok(Some(found)),
                Err(e) if self.is_final(&e) || Instant::now() >= deadline => return Err(e),
                Err(e) => log::debug!("target: {e}"),
            }
            if idle().is_break() {
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether waiting cannot help.
    fn is_final(&self, error: &Error) -> bool {
        matches!(self.who, Who::Exec(_)) || error.kind() == ErrorKind::Environment
    }

    fn look(&self, output: &Path) -> Result<(Identity, Option<Spawned>)> {
        let pid = match &self.who {
            Who::Pid(pid) => target::by_pid(*pid)?,
            Who::Name(name) => target::by_name(name)?,
            Who::Cmdline(pattern) => target::by_cmdline(pattern)?,
            Who::Cgroup(path) => target::by_cgroup(path)?,
            Who::Container(id) => target::by_container(id)?,
            Who::Exec(command) => {
                let cannot = |e| Error::usage(format!("cannot write {}", output.display())).because(e);
                let spawned = Spawned::start(command, File::create(output).map_err(cannot)?.into())?;
                return Ok((target::identify(spawned.pid(), self.assume_go.as_deref())?, Some(spawned)));
            }
        };
        Ok((target::identify(pid, self.assume_go.as_deref())?, None))
    }
}

/// How often a process that is waited for is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// An error that says that a session cannot go on without its target.
pub(super) fn gone(pid: u32) -> Error {
    Error::failed(format!("process {pid} ended before the session"))
        .hint("`reattach = true` goes on with the next such process")
}
