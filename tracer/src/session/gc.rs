//! Following the GC cycles of a running process.

use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;

use super::wait::{elapsed, stop_signal};
use crate::base::{Error, Result};
use crate::event::{Event, GcCycle};
use crate::plan::ProbePlan;
use crate::runtime::{GcRecord, Layout};
use crate::source::live::{Allocations, AttachOptions, LiveSource, Method};
use crate::target::{Identity, Watch};

/// How to follow.
#[derive(Debug, Clone, Copy)]
pub struct GcOptions {
    /// `None`: until Ctrl-C, SIGTERM or the target's end.
    pub duration: Option<Duration>,
    pub bpf_log: bool,
}

/// Room for thousands of cycles that nobody has taken yet.
const RING_BYTES: u64 = 1 << 20;

/// Hands each cycle to `each` when it has ended, with the number of those that were missed
/// since the one before, until that says to stop, the time is over, or the target ends.
///
/// `ready` is called once, when the probes are in place.
///
/// # Errors
/// When the runtime's layout is unknown or probes cannot be placed.
pub async fn follow_gc(
    target: &Identity,
    options: &GcOptions,
    ready: impl FnOnce() -> Result<()>,
    mut each: impl FnMut(&GcCycle, u32) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut stop = pin!(stop_signal()?);
    let mut source = attach(target, options)?;
    let watch = Watch::new(target.target.pid as i32)?;
    ready()?;
    let mut numbers = Numbers::default();
    let mut take = |batch: Vec<Event>| {
        for event in batch {
            let Event::GcCycle(cycle) = event else { continue };
            if each(&cycle, numbers.missed_before(cycle.cycle))?.is_break() {
                return Ok::<_, Error>(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    };
    let mut gone = pin!(watch.wait());
    let mut over = pin!(elapsed(options.duration));
    loop {
        tokio::select! {
            batch = source.recv() => match batch {
                Some(batch) => if take(batch)?.is_break() { return Ok(()) },
                None => return Err(Error::failed("the eBPF program's events ended unexpectedly")),
            },
            _ = &mut gone => break,
            () = &mut over => break,
            () = &mut stop => break,
        }
    }
    source.detach();
    while let Some(batch) = source.recv().await {
        if take(batch)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// The numbers of cycles as they come.
#[derive(Debug, Default)]
struct Numbers {
    last: Option<u32>,
}

impl Numbers {
    /// How many are missing between the last one and this.
    fn missed_before(&mut self, cycle: u32) -> u32 {
        let next = self.last.replace(cycle).map_or(cycle, |last| last.saturating_add(1));
        cycle.saturating_sub(next)
    }
}

fn attach(target: &Identity, options: &GcOptions) -> Result<LiveSource> {
    let unknown = |e: Error| Error::failed("the GC cycles of this program cannot be read").because(e);
    let layout = Layout::for_binary(&target.binary, &target.target.go_version)?;
    let load_bias = target.target.load_bias;
    let gc_addresses = GcRecord::locate(&target.binary, &layout, load_bias).map_err(unknown)?;
    let plan = ProbePlan::of_gc(&target.binary).map_err(unknown)?;
    LiveSource::attach(&AttachOptions {
        pid: target.target.pid,
        plan: &plan,
        load_bias,
        gc_addresses: Some(gc_addresses),
        curg: None,
        g_goid: 0,
        step_traps: 1,
        sampler: None,
        c: None,
        ring_bytes: RING_BYTES,
        max_depth: 1,
        bpf_log: options.bpf_log,
        method: Method::Auto,
        baseline: false,
        allocations: Allocations::Sent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_in_the_numbers_are_missed_cycles() {
        let mut numbers = Numbers::default();
        // The last one is of a program that began anew.
        let missed = [7, 8, 12, 13, 1].map(|cycle| numbers.missed_before(cycle));
        assert_eq!(missed, [0, 0, 3, 0, 0]);
    }
}
