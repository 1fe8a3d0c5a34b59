//! A running process as a source of events: probes, the ring, and its reader thread.
//!
//! The target comes first: probes are scoped to one process, a full ring costs events
//! and never the target's time, and all that holds a probe is a file descriptor, so
//! nothing stays behind when heaptap is killed.

mod attach;
mod btf;
mod c;
mod calibrate;
mod counts;
pub mod doctor;
mod gate;
mod object;
mod reader;
mod sums;
mod uprobe_multi;

use std::sync::{Arc, mpsc as std_mpsc};

use aya::maps::{Array, Map};
use tokio::sync::mpsc;
use tracer_common::{GcAddresses, Sampler};

pub use btf::fs_base_offset;
pub use c::{CProbes, GoroutineInC, OBJECTS as C_OBJECTS};
pub use calibrate::trap_cost;
pub use gate::{Gate, Hits, InPlace, hurry};

use crate::base::{Error, Result};
use crate::event::{CCounted, Counted, Event};
use crate::plan::ProbePlan;
use c::CCounts;
use counts::Counts;
use reader::{Poll, Reader};

/// What to attach to and how.
#[derive(Debug, Clone, Copy)]
pub struct AttachOptions<'a> {
    /// Id of the process (its thread group).
    pub pid: u32,
    pub plan: &'a ProbePlan,
    /// Run-time address minus link-time address of the executable.
    pub load_bias: u64,
    /// Where the runtime keeps its records of GC cycles, for sites with
    /// [`Purpose::GcRecord`](crate::plan::Purpose).
    pub gc_addresses: Option<GcAddresses>,
    /// How the goroutine that assists is found, for sites with
    /// [`Purpose::AssistEnd`](crate::plan::Purpose).
    pub curg: Option<CurgOffsets>,
    /// Byte offset of `goid` in runtime.g, for sites with
    /// [`Purpose::Mark`](crate::plan::Purpose).
    pub g_goid: u32,
    /// For how many traps one counts that is on an instruction which the kernel single-steps.
    pub step_traps: u64,
    /// How to tell which of the runtime's own samples to leave out, for a plan of these.
    pub sampler: Option<Sampler>,
    /// Bytes of the ring; rounded up to a power of two, 64 KiB to 1 GiB.
    pub ring_bytes: u64,
    /// Return addresses kept of a stack, 1 to 128.
    pub max_depth: u32,
    /// Whether the eBPF program logs what it finds odd (through the `log` crate).
    pub bpf_log: bool,
    pub method: Method,
    /// Have the eBPF program use nothing that Linux 5.10 lacks, whatever this kernel has:
    /// no attach cookies (5.15), no atomic exchange (5.12).
    pub baseline: bool,
    pub allocations: Allocations,
    /// `None`: what C allocates is left alone.
    pub c: Option<&'a CProbes>,
}

/// Byte offsets in the runtime's structures that lead from a thread's g0 to the goroutine
/// that switched to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurgOffsets {
    /// `m` in runtime.g.
    pub g_m: u32,
    /// `curg` in runtime.m.
    pub m_curg: u32,
}

/// What becomes of the allocations that probes see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocations {
    /// An event each.
    Sent,
    /// The same, but their sites are left alone except in windows of time, to be opened by
    /// [`LiveSource::gate`].
    Gated,
    /// They are added up in the kernel, to be asked for by [`LiveSource::counted`].
    Counted,
    /// Their sites are left alone.
    Unseen,
}

/// How probes are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `Multi` where the kernel has it, else `Perf`.
    Auto,
    /// A `uprobe_multi` link for the allocation sites and one for all others: attached and
    /// detached in milliseconds.
    /// Linux 6.6 has it, 6.10 fixed its process filter, which missed all threads but
    /// the first (Linux commit 46ba0e49b642).
    Multi,
    /// One perf event per site: any kernel, but the kernel takes some 100 ms to detach
    /// each.
    Perf,
}

/// Probes in a running process and the events they send.
///
/// Dropping it detaches.
#[derive(Debug)]
pub struct LiveSource {
    method: Method,
    // Dropped in this order: no new events, nobody to send them to, no thread.
    probes: Option<attach::Probes>,
    events: mpsc::Receiver<Vec<Event>>,
    reader: Reader,
    /// The program's map EPOCH.
    epochs: Map,
    /// The program's map TURN, and what was last written to it.
    turns: Map,
    turn: u32,
    /// The program's map SAMPLER.
    samplers: Map,
    /// The program's map COUNTERS.
    counters: Arc<Map>,
    counts: Counts,
    c_counts: CCounts,
    step_traps: u64,
    /// `None`: not gated, or taken.
    gate: Option<Gate>,
}

/// The eBPF program in the kernel, verified: that takes most of the time of attaching.
#[derive(Debug)]
pub struct Prepared<'a> {
    program: object::Program,
    options: AttachOptions<'a>,
}

impl<'a> Prepared<'a> {
    /// Loads the program for the plan.
    ///
    /// # Errors
    /// Usage: ring or depth out of range, more than 256 sites. Environment: the kernel
    /// or the user's rights do not allow it.
    pub fn new(options: &AttachOptions<'a>) -> Result<Prepared<'a>> {
        Ok(Prepared { program: object::Program::load(options)?, options: *options })
    }

    /// Places the plan's probes in the process. Events flow when this returns.
    ///
    /// # Errors
    /// Environment: the kernel or the user's rights do not allow it. Failed: the process
    /// has ended.
    pub fn attach(self) -> Result<LiveSource> {
        let Prepared { mut program, options } = self;
        let epochs = reader::take(&mut program.ebpf, "EPOCH")?;
        let turns = reader::take(&mut program.ebpf, "TURN")?;
        let samplers = reader::take(&mut program.ebpf, "SAMPLER")?;
        let counters = Arc::new(reader::take(&mut program.ebpf, "COUNTERS")?);
        let (fence, fenced) = std_mpsc::channel();
        // Of sampled objects any later look tells whether they have died.
        let poll = if options.sampler.is_some() { Poll::Seldom } else { Poll::Soon };
        let (reader, events) =
            Reader::start(&mut program.ebpf, Arc::clone(&counters), fenced, poll, options.bpf_log)?;
        let method = program.method();
        let probes = attach::attach(&mut program, &options)?;
        let counts = Counts::new(reader::take(&mut program.ebpf, "COUNTS")?);
        let c_counts = CCounts::new(reader::take(&mut program.ebpf, "C_COUNTS")?);
        let gate = match options.allocations {
            Allocations::Gated => {
                let sites = attach::Placing::allocations(options.plan);
                Some(Gate::new(program, &options, sites, Arc::clone(&counters), fence)?)
            }
            Allocations::Sent | Allocations::Counted | Allocations::Unseen => None,
        };
        Ok(LiveSource {
            method,
            probes: Some(probes),
            events,
            reader,
            epochs,
            turns,
            turn: 0,
            samplers,
            counters,
            counts,
            c_counts,
            step_traps: options.step_traps,
            gate,
        })
    }
}

impl LiveSource {
    /// Loads the program and places the probes.
    ///
    /// # Errors
    /// Those of [`Prepared::new`] and [`Prepared::attach`].
    pub fn attach(options: &AttachOptions<'_>) -> Result<LiveSource> {
        Prepared::new(options)?.attach()
    }

    /// How the probes were attached: `Multi` or `Perf`.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The next events in the order of the ring, some milliseconds old; `None` once the
    /// probes are detached and everything they sent was received.
    ///
    /// Allocations, stacks, GC epochs, cycles and assists, stops of the world and `Lost`; cancel safe.
    pub async fn recv(&mut self) -> Option<Vec<Event>> {
        self.events.recv().await
    }

    /// As [`LiveSource::recv`], for callers outside an async runtime.
    pub fn blocking_recv(&mut self) -> Option<Vec<Event>> {
        self.events.blocking_recv()
    }

    /// GC cycles whose end of marking the probes have seen.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn epoch(&self) -> Result<u32> {
        Array::try_from(&self.epochs).and_then(|epochs| epochs.get(&0, 0)).map_err(object::map_error)
    }

    /// From here on no allocation's time is of before this, however coarse the times are.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn turn(&mut self) -> Result<()> {
        self.turn = self.turn.wrapping_add(1);
        Array::try_from(&mut self.turns)
            .and_then(|mut turns| turns.set(0, self.turn, 0))
            .map_err(object::map_error)
    }

    /// From here on this tells which of the runtime's samples are left out.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_sampler(&mut self, sampler: &Sampler) -> Result<()> {
        object::set_sampler(&mut self.samplers, sampler)
    }

    /// Traps of any site so far, on all CPUs; dear ones count for several.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn hits(&self) -> Result<u64> {
        reader::hits(&self.counters, self.step_traps)
    }

    /// The allocations that were counted since the last time, if the source is made for that.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn counted(&mut self) -> Result<Vec<Counted>> {
        self.counts.read()
    }

    /// What C has allocated and freed since the last time, if that is followed.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn c_counted(&mut self) -> Result<Vec<CCounted>> {
        self.c_counts.read()
    }

    /// Allocations of C's that there was no room to follow.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn c_left_out(&self) -> Result<u64> {
        let counters = reader::counters(&self.counters)?;
        Ok(counters.iter().fold(0, |sum: u64, cpu| sum.wrapping_add(cpu.c_left_out)))
    }

    /// What opens windows on allocations; the first time, and if the source is gated. The
    /// probes it has placed when the source is detached are to be dropped before.
    pub fn gate(&mut self) -> Option<Gate> {
        self.gate.take()
    }

    /// Samples that the runtime took for another reason than the rate that is recorded, and
    /// that no event tells of.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn biased_samples(&self) -> Result<u64> {
        let counters = reader::counters(&self.counters)?;
        Ok(counters.iter().fold(0, |sum: u64, cpu| sum.wrapping_add(cpu.biased_samples)))
    }

    /// Removes the probes on allocation sites, Go's and C's, and marks (20 to 40 ms with `Method::Multi`, else the
    /// kernel takes some 100 ms a site); GC cycles and stops of the world are still told.
    /// What the removed probes sent is still to be received.
    pub fn detach_allocations(&mut self) {
        if let Some(probes) = &mut self.probes {
            probes.remove_dear();
        }
    }

    /// Removes the probes (50 to 80 ms with `Method::Multi`); what they sent until now
    /// is still to be received. Does nothing the second time.
    pub fn detach(&mut self) {
        self.probes = None;
        self.reader.finish();
    }
}

/// The least ring that does not lose events by its mere size.
const MIN_RING: u64 = 64 << 10;
/// The kernel counts the ring's bytes in 32 bits.
const MAX_RING: u64 = 1 << 30;

/// The ring's size in bytes for the size asked for: the next power of two.
fn ring_size(asked: u64) -> Result<u32> {
    if asked < MIN_RING {
        return Err(Error::usage(format!("a ring of {asked} bytes is too small: events would be lost"))
            .hint("give --buffer at least 64KiB; 16MiB or more for a busy process"));
    }
    if asked > MAX_RING {
        return Err(
            Error::usage(format!("a ring of {asked} bytes is too large")).hint("give --buffer at most 1GiB")
        );
    }
    Ok(asked.next_power_of_two() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    #[test]
    fn ring_sizes_are_powers_of_two_within_bounds() {
        assert_eq!(ring_size(64 << 10).ok(), Some(1 << 16));
        assert_eq!(ring_size((64 << 10) + 1).ok(), Some(1 << 17));
        assert_eq!(ring_size(1 << 30).ok(), Some(1 << 30));
        for bad in [0, 65535, (1 << 30) + 1, u64::MAX] {
            let error = ring_size(bad).expect_err("out of range");
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.hint_text().is_some());
        }
    }
}
