//! `heaptap gc`: the GC cycles of a process as they end, as lines of gctrace.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::Stdio;

use super::args::Gc as Args;
use super::{begin, note, open, runtime};
use crate::base::{Error, Result};
use crate::event::GcCycle;
use crate::export::gc::trace_line;
use crate::report::gc::GcCycle as Row;
use crate::session::{self, GcOptions};

pub(super) fn run(args: &Args) -> Result<u8> {
    let (target, mut spawned) = open(&args.target, &args.cmd, Stdio::inherit(), args.assume_go.as_deref())?;
    let options = GcOptions { duration: args.duration, bpf_log: args.bpf_log };
    let ready = || begin(&target, spawned.as_mut(), "following");
    let each = |cycle: &GcCycle, missed| {
        if missed > 0 {
            note(&format!("heaptap: {missed} GC cycles before gc {} were missed", cycle.cycle));
        }
        print(&if args.json { json(cycle)? } else { trace_line(cycle) })
    };
    runtime()?.block_on(session::follow_gc(&target, &options, ready, each))?;
    Ok(0)
}

/// A row as in a report's timeline, its times from the start of the program.
fn json(cycle: &GcCycle) -> Result<String> {
    serde_json::to_string(&Row::of(cycle, cycle.init_ns))
        .map_err(|e| Error::failed("cannot write a cycle as JSON").because(e))
}

/// Puts out a line at once. A reader that went away has seen enough.
fn print(line: &str) -> Result<ControlFlow<()>> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(e) => Err(Error::failed("cannot write to stdout").because(e)),
    }
}
