//! Placing the probes: one `uprobe_multi` link, or one perf event per site.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};

use super::object::{Form, Program, uprobe};
use super::{AttachOptions, uprobe_multi};
use crate::base::{Error, Result};

/// What keeps the probes in place; dropping it removes them.
#[derive(Debug)]
pub(super) enum Probes {
    Multi { _link: OwnedFd },
    Perf { links: Vec<UProbeLink> },
}

/// Places the probes, as the program was loaded for.
pub(super) fn attach(mut program: Program, options: &AttachOptions<'_>) -> Result<Probes> {
    match &program.form {
        Form::Multi(loaded) => multi(loaded, options),
        Form::Perf => perf(&mut program, options),
    }
}

/// The target's executable by a path that works when the file is deleted or lies in
/// another mount namespace: the kernel takes the inode behind it.
fn executable(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

fn multi(program: &OwnedFd, options: &AttachOptions<'_>) -> Result<Probes> {
    let offsets: Vec<u64> = options.plan.sites.iter().map(|site| site.file_offset).collect();
    let link = uprobe_multi::link(program, &executable(options.pid), &offsets, options.pid)
        .map_err(|e| not_attached(options.pid, e))?;
    Ok(Probes::Multi { _link: link })
}

fn perf(program: &mut Program, options: &AttachOptions<'_>) -> Result<Probes> {
    let pid = NonZeroU32::new(options.pid).ok_or_else(|| Error::usage("0 is not the id of a process"))?;
    let cookies = program.cookies;
    let uprobe = uprobe(&mut program.ebpf)?;
    let path = executable(options.pid);
    let mut links = Vec::with_capacity(options.plan.sites.len());
    for (index, site) in options.plan.sites.iter().enumerate() {
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(site.file_offset),
            cookie: cookies.then_some(index as u64),
        };
        let link = uprobe
            .attach(point, &path, UProbeScope::OneProcess(pid))
            .and_then(|id| uprobe.take_link(id))
            .map_err(|e| not_attached(options.pid, e))?;
        links.push(link);
    }
    Ok(Probes::Perf { links })
}

impl Drop for Probes {
    /// Perf links are closed side by side: the kernel waits out a grace period for each.
    fn drop(&mut self) {
        if let Probes::Perf { links } = self {
            std::thread::scope(|scope| {
                for link in links.drain(..) {
                    scope.spawn(|| drop(link));
                }
            });
        }
    }
}

/// Why probes could not be placed in the process.
fn not_attached(pid: u32, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let message = format!("cannot place probes in process {pid}");
    match root_errno(&error) {
        Some(libc::ESRCH | libc::ENOENT) => Error::failed(format!("process {pid} has ended")),
        _ => refused(&message, error),
    }
}

/// An error of the kernel's with what the user can do about it.
pub(super) fn refused(message: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let errno = root_errno(&error);
    let failure = Error::environment(message).because(error);
    match errno {
        Some(libc::EPERM | libc::EACCES) => failure.hint(
            "run as root, or give heaptap the capabilities CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE; \
             `heaptap doctor` says what is missing",
        ),
        Some(libc::ENOMEM) => failure.hint("give a smaller --buffer, or raise `ulimit -l`"),
        _ => failure.hint("`heaptap doctor` says what this kernel lacks"),
    }
}

/// The errno at the end of an error's chain of causes.
fn root_errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(e) = cause {
        if let Some(io) = e.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        cause = e.source();
    }
    None
}
