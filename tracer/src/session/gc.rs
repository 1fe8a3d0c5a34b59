//! Following the GC cycles of a running process.

use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;

use super::record::{elapsed, stop_signal};
use crate::base::{Error, Result};
use crate::event::{Event, GcCycle};
use crate::plan::ProbePlan;
use crate::runtime::{GcRecord, Layout};
use crate::source::live::{AttachOptions, GoidOffsets, LiveSource, Method};
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
    let mut last = None;
    let mut take = |batch: Vec<Event>| {
        for event in batch {
            let Event::GcCycle(cycle) = event else { continue };
            let missed = last.map_or(0, |last| cycle.cycle.wrapping_sub(last).wrapping_sub(1));
            last = Some(cycle.cycle);
            if each(&cycle, missed)?.is_break() {
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
        goid: GoidOffsets { g_goid: 0, g_m: 0, m_curg: 0 },
        gc_addresses: Some(gc_addresses),
        ring_bytes: RING_BYTES,
        max_depth: 1,
        bpf_log: options.bpf_log,
        method: Method::Auto,
        baseline: false,
    })
}
