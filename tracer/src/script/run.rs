//! Running a session: recordings, one after the other, and what goes on around them.

use std::pin::pin;

use super::file::{Capture, Lane};
use super::gauges::Gauges;
use super::lock::Lock;
use super::machine::{Attached, Machine};
use super::output::Directory;
use super::results::{self, Results, RunState};
use super::seek::gone;
use super::{Host, Session};
use crate::base::{Error, Result};
use crate::capture::Writer;
use crate::event::EndReason;
use crate::model::State;
use crate::plan::Mark;
use crate::session::{self, Mode, Observer, Options, Recording};
use crate::target::{Identity, Spawned};

/// Runs a session to its end. What became of it is in its directory, too, at any time.
///
/// # Errors
/// When it cannot begin; when it cannot go on, the results come with the error.
pub async fn run(session: &Session, host: &mut dyn Host) -> Result<(Results, Option<Error>)> {
    let directory = Directory::create(&session.output.directory)?;
    let mut machine = Machine::new(session, host, directory);
    machine.save()?;
    let outcome = follow(&mut machine).await;
    let failure = outcome.err().or_else(|| machine.failure.take());
    if let Some(e) = &failure {
        machine.abandon(RunState::Failed, e.to_string());
    }
    write_diffs(&mut machine);
    let saved = machine.save();
    Ok((machine.results, failure.or(saved.err())))
}

/// What comes after a recording.
enum Next {
    Over,
    Switch(Lane),
    Gone,
}

async fn follow(machine: &mut Machine<'_>) -> Result<()> {
    let session = machine.session;
    let mut stop = pin!(session::stop_signal()?);
    let mut lane = session.capture.mode;
    let mut wait = session.target.wait;
    loop {
        let output = machine.directory.file("target.log");
        let found = tokio::select! {
            found = session.target.find(wait, &output, || machine.tick(None)) => found?,
            () = &mut stop => {
                machine.abandon(RunState::Interrupted, "interrupted".into());
                return Ok(());
            }
        };
        let Some((target, mut spawned)) = found else { return Ok(()) };
        let attended = attend(machine, &target, spawned.as_mut(), &mut lane).await;
        spawned.as_mut().map_or(Ok(()), Spawned::end)?;
        if !attended? {
            return Ok(());
        }
        let pid = target.target.pid;
        if !session.target.reattach {
            return Err(gone(pid));
        }
        machine.restarts += 1;
        machine.remark(format!("process {pid} has ended: waiting for the next"));
        wait = session.target.wait;
    }
}

/// Records a process, in one mode after the other, until the session is over; or until the
/// process has ended, which is true.
async fn attend(
    machine: &mut Machine<'_>,
    target: &Identity,
    mut spawned: Option<&mut Spawned>,
    lane: &mut Lane,
) -> Result<bool> {
    let _lock = Lock::of(target.target.pid as i32)?;
    loop {
        match record(machine, target, spawned.as_deref_mut(), *lane).await? {
            Next::Over => return Ok(false),
            Next::Switch(other) => *lane = other,
            Next::Gone => return Ok(true),
        }
    }
}

/// Records until the session is over, asks for another lane, or the process ends.
async fn record(
    machine: &mut Machine<'_>,
    target: &Identity,
    spawned: Option<&mut Spawned>,
    lane: Lane,
) -> Result<Next> {
    let session = machine.session;
    let starts = spawned.as_ref().is_some_and(|spawned| spawned.is_stopped());
    let (mode, chosen) = choose(lane, target, starts);
    let name = format!("capture-{}.heaptap", machine.results.captures.len() + 1);
    let writer = Writer::create(&machine.directory.file(&name))?;
    machine.host.note(&format!("recording {} {} to {name}", target.target.pid, target.target.exe));
    machine.results.captures.push(results::Capture {
        file: name,
        mode: mode.name().into(),
        pid: target.target.pid,
        exe: target.target.exe.clone(),
        begin_s: machine.elapsed_s(),
        end_s: None,
        reports: Vec::new(),
    });
    machine.save()?;
    // It goes on in this one.
    machine.begun = machine.phase().map(str::to_owned).into_iter().collect();
    let mut gauges = Gauges::new(target, &session.sites)?;
    let options = options(&session.capture, mode, chosen);
    let mut observer = Follower { machine, target, gauges: &mut gauges, spawned };
    let recorded = session::record(target, &options, writer, &mut observer).await;
    conclude(machine, target, &mut gauges, recorded)
}

/// Lets the session follow a recording.
struct Follower<'a, 'b> {
    machine: &'a mut Machine<'b>,
    target: &'a Identity,
    gauges: &'a mut Gauges,
    spawned: Option<&'a mut Spawned>,
}

impl Observer for Follower<'_, '_> {
    fn announce(&mut self, text: &str) {
        self.machine.remark(text.to_owned());
    }

    fn ready(&mut self) -> Result<()> {
        self.spawned.as_mut().map_or(Ok(()), |spawned| spawned.release())
    }

    fn second(&mut self, state: &State) {
        let attached = Attached { target: self.target, state, gauges: self.gauges, is_running: true };
        _ = self.machine.tick(Some(attached));
    }

    fn phases(&mut self) -> Vec<String> {
        std::mem::take(&mut self.machine.begun)
    }

    fn has_enough(&self) -> bool {
        self.machine.wants_an_end()
    }
}

/// Ends the books on a recording.
fn conclude(
    machine: &mut Machine<'_>,
    target: &Identity,
    gauges: &mut Gauges,
    recorded: Result<Recording>,
) -> Result<Next> {
    let elapsed_s = machine.elapsed_s();
    if let Some(capture) = machine.results.captures.last_mut() {
        capture.end_s = Some(elapsed_s);
    }
    let pid = target.target.pid as i32;
    let recording = match recorded {
        Ok(recording) => recording,
        // It ended while probes were being placed.
        Err(_) if crate::target::by_pid(pid).is_err() && !machine.is_over => return Ok(Next::Gone),
        Err(e) => return Err(e),
    };
    if recording.reason == EndReason::TargetExited {
        // The last word on it: a phase may have waited for just that.
        let state = &recording.state;
        _ = machine.tick(Some(Attached { target, state, gauges, is_running: false }));
    }
    machine.cycles_before += recording.state.gc_epochs.len();
    write_reports(machine)?;
    machine.save()?;
    if machine.is_over {
        return Ok(Next::Over);
    }
    match (recording.reason, machine.switch.take()) {
        (EndReason::TargetExited, _) => Ok(Next::Gone),
        (_, Some(lane)) => Ok(Next::Switch(lane)),
        (_, None) => {
            machine.abandon(RunState::Interrupted, "interrupted".into());
            Ok(Next::Over)
        }
    }
}

fn write_reports(machine: &mut Machine<'_>) -> Result<()> {
    let number = machine.results.captures.len();
    let Some(capture) = machine.results.captures.last_mut() else { return Ok(()) };
    for format in &machine.session.output.reports {
        let format = format.get_ref();
        let Some(ending) = machine.host.report_ending(format) else { continue };
        let name = format!("capture-{number}.{ending}");
        let file = |name: &str| machine.directory.file(name);
        machine.host.write_report(&file(&capture.file), format, &file(&name))?;
        capture.reports.push(name);
    }
    Ok(())
}

/// What changed from the first capture to the last, if there are several. That it cannot be told
/// is worth a note.
fn write_diffs(machine: &mut Machine<'_>) {
    let session = machine.session;
    let [first, .., last] = machine.results.captures.as_slice() else { return };
    let captures = [&first.file, &last.file].map(|name| machine.directory.file(name));
    for format in &session.output.diff {
        let format = format.get_ref();
        let Some(ending) = machine.host.diff_ending(format) else { continue };
        let name = format!("diff.{ending}");
        let output = machine.directory.file(&name);
        match machine.host.write_diff(captures.each_ref().map(|path| path.as_path()), format, &output) {
            Ok(()) => machine.results.diffs.push(name),
            Err(e) => machine.remark(format!("no comparison: {e}")),
        }
    }
}

fn choose(lane: Lane, target: &Identity, starts: bool) -> (Mode, Option<String>) {
    match lane {
        Lane::Auto => {
            let (mode, why) = session::choose(target, starts);
            (mode, Some(why))
        }
        Lane::Exact => (Mode::Exact, None),
        Lane::Runtime => (Mode::Runtime, None),
        Lane::Burst => (Mode::Burst, None),
    }
}

fn options(capture: &Capture, mode: Mode, chosen: Option<String>) -> Options {
    Options {
        mode,
        chosen,
        set_rate: None,
        duration: None,
        ring_bytes: capture.buffer.unwrap_or(Options::RING_BYTES),
        max_depth: Options::MAX_DEPTH,
        bpf_log: false,
        counts_only: false,
        cgo: capture.cgo,
        max_memory: capture.max_memory.unwrap_or(Options::MAX_MEMORY),
        max_overhead: capture.max_overhead,
        budget: capture.budget.unwrap_or(Options::BUDGET),
        evidence: capture.evidence,
        marks: Mark::all(&capture.marks, &capture.mark_regions),
    }
}
