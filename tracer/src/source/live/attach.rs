//! Placing the probes: `uprobe_multi` links, or one perf event per site.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};

use super::object::{Form, Program, uprobe};
use super::{Allocations, AttachOptions, uprobe_multi};
use crate::base::{Error, Result};
use crate::plan::{ProbePlan, Purpose, Site};

/// What keeps the probes in place; dropping it removes them.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// On allocation sites, Go's and C's, and marks, which are passed often.
    dear: Vec<Link>,
    others: Vec<Link>,
}

#[derive(Debug)]
enum Link {
    Multi { _fd: OwnedFd },
    Perf { _link: UProbeLink },
}

impl Probes {
    /// Removes those.
    pub(super) fn remove_dear(&mut self) {
        remove(self.dear.drain(..));
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        remove(self.dear.drain(..).chain(self.others.drain(..)));
    }
}

/// Closes links side by side: the kernel waits out a grace period for each.
fn remove(links: impl Iterator<Item = Link>) {
    std::thread::scope(|scope| {
        for link in links {
            scope.spawn(|| drop(link));
        }
    });
}

/// Some of the sites: where in their file, and the cookie of each, its index.
#[derive(Debug)]
pub(super) struct Placing {
    pub(super) offsets: Vec<u64>,
    pub(super) cookies: Vec<u64>,
}

impl Placing {
    pub(super) fn allocations(plan: &ProbePlan) -> Placing {
        Placing::of(plan, is_allocation)
    }

    /// Sites that come after the plan's own.
    fn behind(plan: &ProbePlan, sites: &[Site]) -> Placing {
        let first = plan.sites.len() as u64;
        let numbered = sites.iter().zip(first..);
        let (offsets, cookies) = numbered.map(|(site, index)| (site.file_offset, index)).unzip();
        Placing { offsets, cookies }
    }

    fn of(plan: &ProbePlan, wanted: impl Fn(&Site) -> bool) -> Placing {
        let sites = plan.sites.iter().enumerate().filter(|(_, site)| wanted(site));
        let (cookies, offsets) = sites.map(|(index, site)| (index as u64, site.file_offset)).unzip();
        Placing { offsets, cookies }
    }
}

fn is_allocation(site: &Site) -> bool {
    matches!(site.purpose, Purpose::Alloc(_))
}

fn is_mark(site: &Site) -> bool {
    matches!(site.purpose, Purpose::Mark { .. })
}

/// Places the probes, as the program was loaded for. Those on allocation sites come last:
/// what they see is then already told apart by GC cycle. Gated, they are left to the [`Gate`];
/// unseen, alone.
///
/// [`Gate`]: super::gate::Gate
pub(super) fn attach(program: &mut Program, options: &AttachOptions<'_>) -> Result<Probes> {
    let is_other = |site: &Site| !is_allocation(site) && !is_mark(site);
    let exe = executable(options.pid);
    let mut place = |file: &Path, sites: &Placing| place(program, options.pid, file, sites);
    let others = place(&exe, &Placing::of(options.plan, is_other))?;
    let mut dear = place(&exe, &Placing::of(options.plan, is_mark))?;
    if !matches!(options.allocations, Allocations::Gated | Allocations::Unseen) {
        dear.extend(place(&exe, &Placing::allocations(options.plan))?);
    }
    if let Some(c) = options.c {
        dear.extend(place(&c.file, &Placing::behind(options.plan, &c.sites))?);
    }
    Ok(Probes { dear, others })
}

fn place(program: &mut Program, pid: u32, file: &Path, sites: &Placing) -> Result<Vec<Link>> {
    let Placing { offsets, cookies } = sites;
    if offsets.is_empty() {
        return Ok(Vec::new());
    }
    match &program.form {
        Form::Multi(loaded) => {
            let fd =
                uprobe_multi::link(loaded, file, offsets, cookies, pid).map_err(|e| not_attached(pid, e))?;
            Ok(vec![Link::Multi { _fd: fd }])
        }
        Form::Perf => perf(program, pid, file, offsets, cookies),
    }
}

/// The target's executable by a path that works when the file is deleted or lies in
/// another mount namespace: the kernel takes the inode behind it.
pub(super) fn executable(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

fn perf(program: &mut Program, pid: u32, file: &Path, offsets: &[u64], cookies: &[u64]) -> Result<Vec<Link>> {
    let process = NonZeroU32::new(pid).ok_or_else(|| Error::usage("0 is not the id of a process"))?;
    let has_cookies = program.cookies;
    let uprobe = uprobe(&mut program.ebpf)?;
    let mut links = Vec::with_capacity(offsets.len());
    for (&offset, &cookie) in offsets.iter().zip(cookies) {
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(offset),
            cookie: has_cookies.then_some(cookie),
        };
        let link = uprobe
            .attach(point, file, UProbeScope::OneProcess(process))
            .and_then(|id| uprobe.take_link(id))
            .map_err(|e| not_attached(pid, e))?;
        links.push(Link::Perf { _link: link });
    }
    Ok(links)
}

/// Why probes could not be placed in the process.
pub(super) fn not_attached(pid: u32, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let message = format!("cannot place probes in process {pid}");
    match root_errno(&error) {
        Some(libc::ESRCH | libc::ENOENT) => Error::ended(pid),
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
