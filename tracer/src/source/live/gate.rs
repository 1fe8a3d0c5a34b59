//! Probes on allocation sites that come and go in windows, and the gate in the eBPF program
//! that makes a window of them begin and end at once.
//!
//! Sites come and go one by one; so events are sent only while all are in place.

use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};

use aya::maps::{Array, Map};
use tracer_common::Passed;

use super::attach::{Placing, not_attached};
use super::object::{Form, Program, map_error};
use super::reader::{self, Fenced};
use super::{AttachOptions, uprobe_multi};
use crate::base::{Error, Result};
use crate::event::Event;

/// Opens windows on the allocations of a process: what of a [`super::LiveSource`] may be used
/// on a thread of its own, as attaching and detaching take 10 to 40 ms.
#[derive(Debug)]
pub struct Gate {
    program: OwnedFd,
    sites: Placing,
    pid: u32,
    /// The program's maps GATE, PASSED and COUNTERS.
    gate: Map,
    passed: Map,
    counters: Arc<Map>,
    step_traps: u64,
    fence: mpsc::Sender<Fenced>,
}

/// Has this thread run before others whenever it can, as far as the user may ask for that:
/// real-time, or else with the least nice value. Threads that it starts are in no hurry
/// (sched(7), `SCHED_RESET_ON_FORK`).
///
/// With the nice value alone it came late where the target kept all CPUs busy: probes were in
/// place for up to 7,800 traps beyond those of a window, of some 2,000.
pub fn hurry() {
    let policy = |policy: libc::c_int, sched_priority| {
        let priority = libc::sched_param { sched_priority };
        // SAFETY: it reads the parameter, which lives; 0 is the calling thread.
        unsafe { libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &raw const priority) == 0 }
    };
    if !policy(libc::SCHED_FIFO, 1) {
        let _allowed = policy(libc::SCHED_OTHER, 0);
        // SAFETY: it takes plain integers; 0 is the calling thread.
        let _allowed = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    }
}

/// Counts traps.
#[derive(Debug)]
pub struct Hits {
    counters: Arc<Map>,
    step_traps: u64,
}

impl Hits {
    /// As [`super::LiveSource::hits`].
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn read(&self) -> Result<u64> {
        reader::hits(&self.counters, self.step_traps)
    }
}

/// Probes on all allocation sites; dropping it removes them, which takes 15 to 40 ms, of
/// which the target notices next to nothing.
#[derive(Debug)]
pub struct InPlace {
    _link: OwnedFd,
}

impl Gate {
    /// # Errors
    /// Environment: the kernel has no `uprobe_multi` links.
    pub(super) fn new(
        program: Program,
        options: &AttachOptions<'_>,
        sites: Placing,
        counters: Arc<Map>,
        fence: mpsc::Sender<Fenced>,
    ) -> Result<Gate> {
        let Program { mut ebpf, form, .. } = program;
        let Form::Multi(program) = form else {
            return Err(Error::environment("this kernel cannot place probes for short windows of time")
                .hint("Linux 6.10 or newer can; record every allocation with --mode exact"));
        };
        Ok(Gate {
            program,
            sites,
            pid: options.pid,
            gate: reader::take(&mut ebpf, "GATE")?,
            passed: reader::take(&mut ebpf, "PASSED")?,
            counters,
            step_traps: options.step_traps,
            fence,
        })
    }

    /// Places the probes. It waits some 10 ms for the kernel first; then all are there
    /// within a millisecond.
    ///
    /// # Errors
    /// Environment: the kernel or the user's rights do not allow it. Failed: the process
    /// has ended.
    pub fn place(&self) -> Result<InPlace> {
        let Placing { offsets, cookies } = &self.sites;
        uprobe_multi::link(&self.program, &super::attach::executable(self.pid), offsets, cookies, self.pid)
            .map(|link| InPlace { _link: link })
            .map_err(|e| not_attached(self.pid, e))
    }

    /// Lets so many allocations pass from now on; with 0 none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn allow(&mut self, objects: u64) -> Result<()> {
        let until = if objects == 0 { 0 } else { self.passed()?.objects.saturating_add(objects) };
        Array::try_from(&mut self.gate).and_then(|mut gate| gate.set(0, until, 0)).map_err(map_error)
    }

    /// Allocations that have passed so far.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn passed(&self) -> Result<Passed> {
        Array::try_from(&self.passed).and_then(|passed| passed.get(&0, 0)).map_err(map_error)
    }

    /// The traps of the process.
    pub fn hits(&self) -> Hits {
        Hits { counters: Arc::clone(&self.counters), step_traps: self.step_traps }
    }

    /// Adds an event to those of the source, behind everything that the probes have sent by
    /// now; returns when it is there, or nobody receives any more.
    pub fn tell(&self, event: Event) {
        let (added, until_added) = mpsc::sync_channel(0);
        if self.fence.send(Fenced { event, _added: added }).is_ok() {
            // An error: the reader has dropped the other end.
            let _added = until_added.recv();
        }
    }
}
