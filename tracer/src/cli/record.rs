//! `heaptap record`: the allocations of a process into a capture file.

use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::{Mode, Record};
use super::{begin, is_watched, note, open, runtime, write_json};
use crate::base::units::format_count;
use crate::base::{Error, Result};
use crate::capture::Writer;
use crate::event::{EndReason, Tripped};
use crate::model::State;
use crate::report::Report;
use crate::session::{self, Options, Recording};

pub(super) fn run(args: &Record) -> Result<u8> {
    if args.target.exec && args.mode == Mode::Runtime {
        return Err(Error::usage(
            "--mode runtime needs a program that runs: until then it can set any rate of samples",
        )
        .hint("start it, and give its --pid; or use --mode exact"));
    }
    if args.set_memprofile_rate.is_some() && args.mode != Mode::Runtime {
        return Err(Error::usage("--set-memprofile-rate is for recording the program's own samples")
            .hint("give --mode runtime with it"));
    }
    let (target, mut spawned) = open(&args.target, &args.cmd, args.assume_go.as_deref())?;
    let default = || PathBuf::from(format!("heaptap-{}.heaptap", target.target.pid));
    let path = args.output.clone().unwrap_or_else(default);
    let writer = Writer::create(&path)?;
    let bar = progress_bar(args.duration);
    let announce = |text: &str| note(text);
    let ready = || begin(&target, spawned.as_mut(), "recording");
    let (mode, chosen) = match args.mode {
        Mode::Auto => {
            let (mode, why) = session::choose(&target, args.target.exec);
            note(&why);
            (mode, Some(why))
        }
        Mode::Exact => (session::Mode::Exact, None),
        Mode::Runtime => (session::Mode::Runtime, None),
        Mode::Burst => (session::Mode::Burst, None),
    };
    let options = Options {
        mode,
        chosen,
        set_rate: args.set_memprofile_rate,
        duration: args.duration,
        ring_bytes: args.buffer,
        max_depth: args.depth,
        max_memory: args.max_memory,
        max_overhead: args.max_overhead,
        budget: args.budget,
        bpf_log: args.bpf_log,
    };
    let mut told = false;
    let progress = |state: &State| {
        if let Some(tripped) = state.tripped
            && !std::mem::replace(&mut told, true)
        {
            bar.suspend(|| tell(tripped));
        }
        show(&bar, state);
    };
    let recording =
        runtime()?.block_on(session::record(&target, &options, writer, announce, ready, progress))?;
    bar.finish_and_clear();
    conclude(args, &path, &recording)
}

fn progress_bar(duration: Option<Duration>) -> ProgressBar {
    if !is_watched() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    let limit = duration.map_or(String::new(), |d| format!(" of {}", humantime::format_duration(d)));
    let template = format!("{{elapsed_precise}}{limit}  {{msg}}");
    bar.set_style(
        ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    bar
}

fn show(bar: &ProgressBar, state: &State) {
    bar.set_message(summary(state));
    bar.tick();
}

fn tell(tripped: Tripped) {
    note(&format!(
        "the probes took {:.1}% of the target's processor time, more than {}%: no allocations are recorded any more",
        tripped.overhead_percent, tripped.limit_percent
    ));
}

fn summary(state: &State) -> String {
    let lost: u64 = state.lost.values().map(|(events, _)| events).sum();
    let calls = format_count(state.stacks.len() as u64);
    format!("{} allocations by {calls} stacks, {} lost", format_count(state.events), format_count(lost))
}

fn conclude(args: &Record, path: &std::path::Path, recording: &Recording) -> Result<u8> {
    let why = match recording.reason {
        EndReason::Elapsed | EndReason::Interrupted => "",
        EndReason::TargetExited => " until the target ended",
    };
    note(&format!(
        "recorded {}{why}; see it with: heaptap report {}",
        summary(&recording.state),
        path.display()
    ));
    if args.json {
        write_json(&Report::build(&recording.state))?;
    }
    Ok(0)
}
