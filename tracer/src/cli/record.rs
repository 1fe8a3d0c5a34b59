//! `heaptap record`: the allocations of a process into a capture file.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::{LaneArgs, Mode, Record};
use super::stream::Streamer;
use super::{begin, is_watched, note, open, runtime, stderr_for_target, write_json};
use crate::base::units::format_count;
use crate::base::{Error, Result};
use crate::capture::Writer;
use crate::detect;
use crate::event::{EndReason, Event};
use crate::model::State;
use crate::plan::Mark;
use crate::session::{self, Observer, Options, Recording};
use crate::target::{Identity, Spawned};

pub(super) fn run(args: &Record) -> Result<u8> {
    check_mode(args.lane.mode, args.target.exec, args.lane.set_memprofile_rate)?;
    if args.counts_only && !matches!(args.lane.mode, Mode::Auto | Mode::Exact) {
        return Err(Error::usage("--counts-only is for recording every allocation")
            .hint("give --mode exact with it, or none"));
    }
    let (target, spawned) =
        open(&args.target, &args.cmd, stdout_of_target(args)?, args.lane.assume_go.as_deref())?;
    let default = || PathBuf::from(format!("heaptap-{}.heaptap", target.target.pid));
    let path = args.output.clone().unwrap_or_else(default);
    let writer = Writer::create(&path)?;
    let (mode, chosen) = match args.lane.mode {
        Mode::Auto if args.counts_only => (session::Mode::Exact, None),
        mode => choose(mode, &target, args.target.exec),
    };
    let options = Options {
        duration: args.duration,
        ring_bytes: args.buffer,
        max_depth: args.depth,
        counts_only: args.counts_only,
        evidence: args.evidence,
        marks: Mark::all(&args.mark, &args.mark_region),
        ..options(&args.lane, mode, chosen)
    };
    let stream = args.stream.then(|| Streamer::start(io::stdout()));
    // A stream is progress enough, perhaps on the same terminal.
    let bar = progress_bar(args.duration, is_watched() && !args.stream);
    let mut user = User { target: &target, spawned, bar, stream };
    let recorded = runtime()?.block_on(session::record(&target, &options, writer, &mut user));
    user.bar.finish_and_clear();
    let streamed = user.stream.map_or(Ok(()), Streamer::finish);
    let recording = recorded?;
    conclude(args, &path, &recording)?;
    streamed.map(|()| 0)
}

/// Refuses what no recording can be.
pub(super) fn check_mode(mode: Mode, starting: bool, set_rate: Option<u64>) -> Result<()> {
    if starting && mode == Mode::Runtime {
        return Err(Error::usage(
            "--mode runtime needs a program that runs: until then it can set any rate of samples",
        )
        .hint("start it, and give its --pid; or use --mode exact"));
    }
    if set_rate.is_some() && mode != Mode::Runtime {
        return Err(Error::usage("--set-memprofile-rate is for recording the program's own samples")
            .hint("give --mode runtime with it"));
    }
    Ok(())
}

/// Which allocations, and why where that was left to us.
pub(super) fn choose(mode: Mode, target: &Identity, starting: bool) -> (session::Mode, Option<String>) {
    match mode {
        Mode::Auto => {
            let (mode, why) = session::choose(target, starting);
            note(&why);
            (mode, Some(why))
        }
        Mode::Exact => (session::Mode::Exact, None),
        Mode::Runtime => (session::Mode::Runtime, None),
        Mode::Burst => (session::Mode::Burst, None),
    }
}

/// How to record in this lane, where nothing else is said.
pub(super) fn options(lane: &LaneArgs, mode: session::Mode, chosen: Option<String>) -> Options {
    Options {
        mode,
        chosen,
        set_rate: lane.set_memprofile_rate,
        duration: None,
        ring_bytes: Options::RING_BYTES,
        max_depth: Options::MAX_DEPTH,
        counts_only: false,
        cgo: lane.cgo,
        max_memory: lane.max_memory,
        max_overhead: lane.max_overhead,
        budget: lane.budget,
        bpf_log: lane.bpf_log,
        evidence: false,
        marks: Vec::new(),
    }
}

/// What a program prints that is started here must not get among the lines of a stream.
fn stdout_of_target(args: &Record) -> Result<Stdio> {
    if !args.stream {
        return Ok(Stdio::inherit());
    }
    stderr_for_target()
}

/// Who has asked for the recording.
struct User<'a> {
    target: &'a Identity,
    spawned: Option<Spawned>,
    bar: ProgressBar,
    stream: Option<Streamer>,
}

impl Observer for User<'_> {
    fn announce(&mut self, text: &str) {
        self.bar.suspend(|| note(text));
    }

    fn ready(&mut self) -> Result<()> {
        begin(self.target, self.spawned.as_mut(), "recording")
    }

    fn event(&mut self, event: &Event, state: &State) {
        if let Some(stream) = &mut self.stream {
            stream.event(event, state);
        }
    }

    fn second(&mut self, state: &State) {
        self.bar.set_message(summary(state));
        self.bar.tick();
        if let Some(stream) = &mut self.stream {
            stream.second(state);
        }
    }

    fn has_enough(&self) -> bool {
        self.stream.as_ref().is_some_and(Streamer::is_closed)
    }
}

/// Of a recording, `shown` to someone or not.
pub(super) fn progress_bar(duration: Option<Duration>, shown: bool) -> ProgressBar {
    if !shown {
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

fn summary(state: &State) -> String {
    let lost: u64 = state.lost.values().map(|(events, _)| events).sum();
    let calls = format_count(state.stacks.len() as u64);
    format!("{} allocations by {calls} stacks, {} lost", format_count(state.events), format_count(lost))
}

fn conclude(args: &Record, path: &Path, recording: &Recording) -> Result<()> {
    let why = match recording.reason {
        EndReason::Elapsed | EndReason::Interrupted => "",
        EndReason::TargetExited => " until the target ended",
    };
    note(&format!(
        "recorded {}{why}; see it with: heaptap report {}",
        summary(&recording.state),
        path.display()
    ));
    if args.json { write_json(&detect::report(&recording.state)) } else { Ok(()) }
}
