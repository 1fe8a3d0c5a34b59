//! `heaptap hunt`: records a process, judges its GC cycles, and says whether it leaks and what.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::args::{Hunt, HuntFormat, TargetArgs};
use super::record::{check_mode, choose, options, progress_bar};
use super::{begin, deliver, is_watched, note, open, read_capture, runtime, stderr_for_target};
use crate::base::Result;
use crate::capture::Writer;
use crate::detect;
use crate::event::EndReason;
use crate::export::flame::{Colours, FlameOptions};
use crate::export::{findings, html, json, markdown};
use crate::model::State;
use crate::report::{Measure, Outcome, Report, StageName};
use crate::session::{self, Observer, Options};
use crate::target::{Identity, Spawned};

/// What a leak, once found, makes the exit code.
const LEAK: u8 = 3;

/// So much of the time at most goes into judging while recording.
const JUDGING_SHARE: u32 = 20;
const LEAST_PAUSE: Duration = Duration::from_secs(2);

/// Confidence in a leak with which `--until-sure` is content.
const SURE: f64 = 0.9;

pub(super) fn run(args: &Hunt) -> Result<u8> {
    let state = match &args.file {
        Some(file) => {
            let mut state = State::default();
            read_capture(file, |event| state.apply(event))?;
            state
        }
        None => record(args)?,
    };
    let report = detect::report(&state);
    let format = if args.json { HuntFormat::Json } else { args.format };
    deliver(None, |mut out| write(&report, format, &mut out))?;
    let leaks = report.verdict.is_some_and(|verdict| verdict.outcome == Outcome::Leak);
    Ok(if leaks { LEAK } else { 0 })
}

fn write(report: &Report, format: HuntFormat, out: &mut impl Write) -> Result<()> {
    match format {
        HuntFormat::Text => findings::write(report, out),
        HuntFormat::Json => json::write(report, out),
        HuntFormat::Markdown => markdown::write(report, out),
        HuntFormat::Html => {
            let (measure, colours) = (Measure::LiveBytes, Colours::Survival);
            html::write(report, FlameOptions { measure, colours, inverted: false }, out)
        }
    }
}

fn record(args: &Hunt) -> Result<State> {
    check_mode(args.lane.mode, args.exec, args.lane.set_memprofile_rate)?;
    let target = TargetArgs { pid: args.pid, name: args.name.clone(), exec: args.exec };
    // What a program prints that is started here must not get among the findings.
    let (target, spawned) = open(&target, &args.cmd, stderr_for_target()?, args.lane.assume_go.as_deref())?;
    let (mode, chosen) = choose(args.lane.mode, &target, args.exec);
    let lane = options(&args.lane, mode, chosen);
    let options = Options { duration: Some(args.duration), evidence: true, ..lane };
    let mut hunter = Hunter {
        target: &target,
        spawned,
        bar: progress_bar(Some(args.duration), is_watched()),
        until_sure: args.until_sure,
        due: Instant::now(),
        judged: 0,
        is_sure: false,
    };
    let recorded = match &args.output {
        Some(path) => {
            let writer = Writer::create(path)?;
            runtime()?.block_on(session::record(&target, &options, writer, &mut hunter))
        }
        None => {
            let writer = Writer::new(io::sink(), "nowhere")?;
            runtime()?.block_on(session::record(&target, &options, writer, &mut hunter))
        }
    };
    hunter.bar.finish_and_clear();
    let recording = recorded?;
    if recording.reason == EndReason::TargetExited {
        note("the target has ended");
    }
    if let Some(path) = &args.output {
        note(&format!("the capture is kept; judge it again with: heaptap hunt {}", path.display()));
    }
    Ok(recording.state)
}

/// Judges while the recording goes on.
struct Hunter<'a> {
    target: &'a Identity,
    spawned: Option<Spawned>,
    bar: ProgressBar,
    until_sure: bool,
    /// When to judge again, and how many cycles were judged when that was last done.
    due: Instant,
    judged: usize,
    is_sure: bool,
}

impl Observer for Hunter<'_> {
    fn announce(&mut self, text: &str) {
        self.bar.suspend(|| note(text));
    }

    fn ready(&mut self) -> Result<()> {
        begin(self.target, self.spawned.as_mut(), "hunting in")
    }

    fn second(&mut self, state: &State) {
        self.bar.tick();
        // Nobody looks, and nothing depends on it.
        if self.bar.is_hidden() && !self.until_sure {
            return;
        }
        let begin = Instant::now();
        if begin < self.due || (self.judged > 0 && state.judged.len() == self.judged) {
            return;
        }
        self.judged = state.judged.len();
        let report = detect::report(state);
        self.bar.set_message(progress(&report));
        let leak = |outcome, confidence| outcome == Outcome::Leak && confidence >= SURE;
        self.is_sure = report.verdict.is_some_and(|verdict| leak(verdict.outcome, verdict.confidence));
        self.due = begin + LEAST_PAUSE.max(begin.elapsed() * JUDGING_SHARE);
    }

    fn has_enough(&self) -> bool {
        self.until_sure && self.is_sure
    }
}

/// How far the hunt has come.
fn progress(report: &Report) -> String {
    let Some(verdict) = &report.verdict else { return "nothing can be judged".into() };
    let stage = verdict.stages.last().map_or(StageName::Before, |stage| stage.name);
    let (stage, outcome) = (findings::stage_name(stage), findings::outcome_name(verdict.outcome));
    let confidence = 100.0 * verdict.confidence;
    format!("{stage}: {} GC cycles judged, {outcome} ({confidence:.0}%)", verdict.judged_gc_cycles)
}
