//! The runtime's record of a GC cycle, as `GODEBUG=gctrace=1` prints it.
//!
//! Source: runtime/mgc.go `gcMarkTermination`, Go 1.19 to 1.27. The record is complete
//! when that prints it, and the next cycle overwrites it, so it is copied by a probe
//! there, word by word.

use tracer_common::{GcAddresses, MAX_GC_WORDS};

use super::globals::Global;
use super::layout::Layout;
use crate::base::{Error, Result};
use crate::binary::Binary;
use crate::event::{GcCycle, GcTrigger};

/// Words that are copied; `GcRecord::locate` and `GcRecord::cycle` have them in one order.
const WORDS: usize = 23;
const _: () = assert!(WORDS <= MAX_GC_WORDS);

/// What a probe copied when a cycle had ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcRecord<'a> {
    /// The epoch that the cycle began.
    pub epoch: u32,
    pub time_ns: u64,
    /// A `gcTriggerKind`; `None`: the start of the cycle was not seen.
    pub trigger: Option<u64>,
    pub leak_check: bool,
    /// What stood at [`GcAddresses::words`].
    pub words: &'a [u64],
}

impl GcRecord<'_> {
    /// Where the runtime keeps its record, as run-time addresses. `load_bias` is the
    /// run-time minus the link-time address of the executable.
    ///
    /// # Errors
    /// Failed when one of the runtime's variables cannot be found, or its layout is not
    /// known.
    pub fn locate(binary: &Binary, layout: &Layout, load_bias: u64) -> Result<GcAddresses> {
        let locate = |global: Global| Ok::<_, Error>(global.locate(binary, layout)?.wrapping_add(load_bias));
        let trace = layout.gc_trace.as_ref();
        let trace = trace.ok_or_else(|| Error::failed("the runtime's records of GC cycles are not known"))?;
        let base = [Global::Work, Global::GcController, Global::Memstats].map(locate);
        let [work, gc, memstats] = base.map(|base| base.map(|base| move |field| base.wrapping_add(field)));
        let (work, gc, memstats) = (work?, gc?, memstats?);
        let addresses: [u64; WORDS] = [
            memstats(layout.memstats.numgc),
            memstats(layout.memstats.gc_cpu_fraction),
            locate(Global::RuntimeInitTime)?,
            work(trace.user_forced),
            work(trace.sweep_term),
            work(trace.mark),
            work(trace.mark_term),
            work(trace.end),
            work(trace.stw_procs),
            work(trace.max_procs),
            work(trace.heap0),
            work(trace.heap1),
            work(trace.heap2),
            gc(trace.assist_time),
            gc(trace.dedicated_mark_time),
            gc(trace.fractional_mark_time),
            gc(trace.idle_mark_time),
            gc(trace.heap_live),
            gc(trace.last_heap_goal),
            gc(trace.stack_scan),
            gc(trace.globals_scan),
            gc(trace.gc_percent),
            gc(layout.gc_controller.memory_limit),
        ];
        let mut words = [0; MAX_GC_WORDS];
        words[..WORDS].copy_from_slice(&addresses);
        Ok(GcAddresses { words, leak_check: trace.leak_check_done.map_or(0, work) })
    }

    /// What was recorded; `None` when words are missing.
    pub fn cycle(&self) -> Option<GcCycle> {
        let &[
            numgc,
            cpu_fraction,
            init_ns,
            user_forced,
            sweep_term_ns,
            mark_ns,
            mark_term_ns,
            end_ns,
            stw_procs,
            max_procs,
            heap_before,
            heap_after,
            heap_marked,
            assist_ns,
            dedicated_ns,
            fractional_ns,
            idle_ns,
            heap_live,
            heap_goal,
            stack_scan,
            globals_scan,
            gc_percent,
            memory_limit,
        ] = self.words.first_chunk::<WORDS>()?;
        Some(GcCycle {
            cycle: numgc as u32,
            epoch: self.epoch,
            time_ns: self.time_ns,
            forced: user_forced as u8 != 0,
            trigger: self.trigger.and_then(trigger),
            leak_check: self.leak_check,
            init_ns,
            sweep_term_ns,
            mark_ns,
            mark_term_ns,
            end_ns,
            assist_ns,
            dedicated_ns,
            fractional_ns,
            idle_ns,
            cpu_percent: (f64::from_bits(cpu_fraction) * 100.0) as u32,
            stw_procs: stw_procs as u32,
            max_procs: max_procs as u32,
            heap_before,
            heap_after,
            heap_marked,
            heap_live,
            heap_goal,
            stack_scan,
            globals_scan,
            gc_percent: gc_percent as i32,
            memory_limit: memory_limit as i64,
        })
    }
}

/// runtime/mgc.go `gcTriggerKind`.
fn trigger(kind: u64) -> Option<GcTrigger> {
    match kind {
        0 => Some(GcTrigger::Heap),
        1 => Some(GcTrigger::Time),
        2 => Some(GcTrigger::Cycle),
        _ => None,
    }
}

/// Why the world is stopped, by the runtime's number for it, in its words (runtime/proc.go
/// `stwReasonStrings`, Go 1.21 to 1.27).
pub fn stw_reason(number: u8) -> String {
    const REASONS: [&str; 17] = [
        "unknown",
        "GC mark termination",
        "GC sweep termination",
        "write heap dump",
        "goroutine profile",
        "goroutine profile cleanup",
        "all goroutines stack trace",
        "read mem stats",
        "AllThreadsSyscall",
        "GOMAXPROCS",
        "start trace",
        "stop trace",
        "CountPagesInUse (test)",
        "ReadMetricsSlow (test)",
        "ReadMemStatsSlow (test)",
        "PageCachePagesLeaked (test)",
        "ResetDebugLog (test)",
    ];
    REASONS.get(usize::from(number)).map_or_else(|| format!("reason {number}"), |text| (*text).to_owned())
}
