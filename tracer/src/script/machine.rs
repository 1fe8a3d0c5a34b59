//! What a session does from one second to the next: phases, triggers, assertions.

use std::ops::ControlFlow;
use std::time::Instant;

use super::command::PhaseCommand;
use super::expr::{SITE_VALUES, VALUES, Values, Verdict, in_phase, of_sites};
use super::file::{Action, Lane, OnFailure};
use super::gauges::Gauges;
use super::output::Directory;
use super::results::{self, Outcome, Results, RunState, numbers};
use super::{Host, Session};
use crate::base::units::format_bytes;
use crate::base::{Error, Result};
use crate::export::{self, json};
use crate::model::State;
use crate::session;
use crate::target::Identity;

/// A session that runs.
pub(super) struct Machine<'a> {
    pub session: &'a Session,
    pub host: &'a mut dyn Host,
    pub directory: Directory,
    pub results: Results,
    /// When the process was first attached to; until then nothing begins.
    began: Option<Instant>,
    current: Option<Current>,
    /// The phase after the current one.
    next: usize,
    triggers: Vec<Armed>,
    /// The values at the ends of phases.
    kept: Values,
    /// As of the latest tick.
    values: Values,
    /// GC cycles of earlier recordings.
    pub cycles_before: usize,
    pub restarts: u32,
    /// Phases that have begun and that the capture is still to be told of.
    pub begun: Vec<String>,
    /// The lane that a trigger asks for.
    pub switch: Option<Lane>,
    /// All is done.
    pub is_over: bool,
    /// Why it cannot go on.
    pub failure: Option<Error>,
}

/// The phase that takes place.
struct Current {
    index: usize,
    began: Instant,
    command: Option<PhaseCommand>,
    /// It is over, once its command has ended, too: how it went.
    over: Option<Result<(), String>>,
}

/// What became of a trigger so far.
#[derive(Clone, Copy, Default)]
struct Armed {
    fired: u32,
    held: bool,
}

/// The process that is recorded.
pub(super) struct Attached<'a> {
    pub target: &'a Identity,
    pub state: &'a State,
    pub gauges: &'a mut Gauges,
    /// Whether it is still there.
    pub is_running: bool,
}

impl<'a> Machine<'a> {
    pub(super) fn new(session: &'a Session, host: &'a mut dyn Host, directory: Directory) -> Machine<'a> {
        Machine {
            session,
            host,
            directory,
            results: Results::of(session),
            began: None,
            current: None,
            next: 0,
            triggers: vec![Armed::default(); session.triggers.len()],
            kept: Values::new(),
            values: Values::new(),
            cycles_before: 0,
            restarts: 0,
            begun: Vec::new(),
            switch: None,
            is_over: false,
            failure: None,
        }
    }

    /// Does what is due; breaks when the recording is to end.
    pub(super) fn tick(&mut self, mut attached: Option<Attached<'_>>) -> ControlFlow<()> {
        if let Err(e) = self.step(&mut attached) {
            self.failure = Some(e);
            self.is_over = true;
        }
        if self.wants_an_end() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Whether the recording is to end: all is done, or another one is to begin.
    pub(super) fn wants_an_end(&self) -> bool {
        self.is_over || self.switch.is_some()
    }

    fn step(&mut self, attached: &mut Option<Attached<'_>>) -> Result<()> {
        if attached.is_none() {
            self.host.progress("waiting for the process");
        }
        if self.is_over || (self.began.is_none() && attached.is_none()) {
            return Ok(());
        }
        self.began.get_or_insert_with(Instant::now);
        self.read(attached);
        self.pull_triggers(attached)?;
        while !self.is_over {
            if self.current.is_none() {
                self.begin_phase(attached)?;
            } else if self.look_at_phase() {
                self.end_phase()?;
            } else {
                break;
            }
        }
        self.show();
        Ok(())
    }

    fn show(&mut self) {
        let Some(current) = self.current.as_ref().filter(|_| self.values.contains_key("rss")) else { return };
        let bytes =
            |name: &str| self.values.get(name).map_or("?".into(), |bytes| format_bytes(*bytes as u64));
        self.host.progress(&format!(
            "{} {}s: live heap {}, rss {}",
            self.session.phases[current.index].table.name,
            current.began.elapsed().as_secs(),
            bytes("heap.live"),
            bytes("rss"),
        ));
    }

    /// The name of the phase that takes place.
    pub(super) fn phase(&self) -> Option<&str> {
        Some(&self.session.phases[self.current.as_ref()?.index].table.name)
    }

    /// Seconds since the session began.
    pub(super) fn elapsed_s(&self) -> f64 {
        self.began.map_or(0.0, |began| began.elapsed().as_secs_f64())
    }

    pub(super) fn save(&mut self) -> Result<()> {
        self.results.duration_s = self.elapsed_s();
        self.directory.save(&self.results)
    }

    /// Says something, and keeps it with the results.
    pub(super) fn remark(&mut self, text: String) {
        self.host.note(&text);
        self.results.notes.push(text);
    }

    fn read(&mut self, attached: &mut Option<Attached<'_>>) {
        let mut values = self.kept.clone();
        let cycles = attached.as_ref().map_or(0, |attached| attached.state.gc_epochs.len());
        let is_running = attached.as_ref().is_some_and(|attached| attached.is_running);
        values.insert("elapsed".into(), self.elapsed_s());
        values.insert("gc.cycles".into(), (self.cycles_before + cycles) as f64);
        values.insert("target.restarts".into(), f64::from(self.restarts));
        values.insert("target.running".into(), f64::from(u8::from(is_running)));
        if let Some(attached) = attached {
            attached.gauges.read(attached.state, &mut values);
        }
        self.values = values;
    }

    fn pull_triggers(&mut self, attached: &mut Option<Attached<'_>>) -> Result<()> {
        let session = self.session;
        for (index, trigger) in session.triggers.iter().enumerate() {
            // The others are looked at with the next recording, if there is one.
            if self.wants_an_end() {
                break;
            }
            let holds = trigger.when.holds(&self.values) == Verdict::Yes;
            let armed = &mut self.triggers[index];
            let fires = holds && !armed.held && armed.fired < trigger.table.times;
            armed.held = holds;
            if fires {
                armed.fired += 1;
                self.fire(trigger, attached)?;
            }
        }
        Ok(())
    }

    fn fire(&mut self, trigger: &super::Trigger, attached: &mut Option<Attached<'_>>) -> Result<()> {
        let action = trigger.table.action;
        self.host.note(&format!("{}: {}", trigger.name, trigger.when.text));
        let file = match action {
            Action::Snapshot => self.snapshot(attached.as_ref().map(|attached| attached.target)),
            Action::Mark | Action::Stop | Action::Switch => None,
        };
        self.results.triggers.push(results::Fired {
            name: trigger.name.clone(),
            action,
            at_s: self.elapsed_s(),
            phase: self.phase().map(str::to_owned),
            file,
            values: numbers(&trigger.when.values(&self.values)),
        });
        match action {
            Action::Switch => self.switch = trigger.table.mode,
            Action::Stop => return self.stop(&trigger.name),
            Action::Mark | Action::Snapshot => {}
        }
        self.save()
    }

    /// The file with a snapshot of the process; that there is none is no reason to end.
    fn snapshot(&mut self, target: Option<&Identity>) -> Option<String> {
        let count = self.results.triggers.iter().filter(|fired| fired.file.is_some()).count();
        let name = format!("snapshot-{}.json", count + 1);
        let path = self.directory.file(&name);
        let taken = target
            .ok_or_else(|| Error::failed("the process is away"))
            .and_then(|target| session::snapshot(target, false))
            .and_then(|snapshot| export::to_file(&path, |mut out| json::write(&snapshot, &mut out)));
        match taken {
            Ok(()) => Some(name),
            Err(e) => {
                self.remark(format!("no snapshot: {e}"));
                None
            }
        }
    }

    fn begin_phase(&mut self, attached: &mut Option<Attached<'_>>) -> Result<()> {
        let session = self.session;
        let Some(phase) = session.phases.get(self.next) else { return self.complete() };
        let index = self.next;
        self.next += 1;
        let begin_s = self.elapsed_s();
        let result = &mut self.results.phases[index];
        (result.outcome, result.begin_s) = (Outcome::Running, Some(begin_s));
        let mut command = None;
        if let Some(run) = &phase.table.run {
            let output = format!("phase-{}.log", phase.table.name);
            let pid = attached.as_ref().map_or_else(String::new, |a| a.target.target.pid.to_string());
            let given = [("HEAPTAP_PID", pid), ("HEAPTAP_PHASE", phase.table.name.clone())];
            let path = self.directory.file(&output);
            command = Some(PhaseCommand::start(run, &phase.table.env, &given, &path)?);
            self.results.phases[index].output = Some(output);
        }
        if let Some(attached) = attached {
            attached.gauges.begin_phase();
        }
        // Nothing of it can hold by what was true before.
        for name in ["heap.slope", "gc.cpu"] {
            self.values.remove(name);
        }
        self.current = Some(Current { index, began: Instant::now(), command, over: None });
        self.begun.push(phase.table.name.clone());
        self.save()?;
        self.host.note(&format!("phase {}", phase.table.name));
        Ok(())
    }

    /// Whether the current phase is over, its command included.
    fn look_at_phase(&mut self) -> bool {
        let Some(current) = &mut self.current else { return false };
        let phase = &self.session.phases[current.index];
        if current.over.is_none() {
            current.over = how_it_went(phase, current, &self.values);
            if current.over.is_some()
                && let Some(command) = &mut current.command
            {
                command.tell_to_end();
            }
        }
        current.over.is_some() && current.command.as_mut().is_none_or(PhaseCommand::is_over)
    }

    fn end_phase(&mut self) -> Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let session = self.session;
        let phase = &session.phases[current.index];
        let end_s = self.elapsed_s();
        self.values.insert("duration".into(), current.began.elapsed().as_secs_f64());
        let values = self.known();
        self.values.remove("duration");
        for (name, value) in &values {
            self.kept.insert(in_phase(&phase.table.name, name), *value);
            self.values.insert(in_phase(&phase.table.name, name), *value);
        }
        let failure = current.over.take().and_then(Result::err);
        let result = &mut self.results.phases[current.index];
        result.end_s = Some(end_s);
        result.values = numbers(&values);
        result.exit_code = current.command.as_mut().and_then(PhaseCommand::ended).and_then(|s| s.code());
        result.outcome = if failure.is_some() { Outcome::Failed } else { Outcome::Passed };
        result.reason.clone_from(&failure);
        self.judge(Some(&phase.table.name));
        self.save()?;
        match failure {
            None => Ok(()),
            Some(why) if phase.table.on_failure == OnFailure::Continue => {
                self.remark(format!("phase {} failed: {why}", phase.table.name));
                self.save()
            }
            Some(why) => {
                let error = Error::failed(format!("phase {} failed: {why}", phase.table.name));
                Err(match &self.results.phases[current.index].output {
                    Some(output) => {
                        error.hint(format!("what it printed is in {}", self.directory.file(output).display()))
                    }
                    None => error,
                })
            }
        }
    }

    /// The values as of now, without those of phases.
    fn known(&self) -> Values {
        let names = VALUES.iter().map(|name| (*name).to_owned()).chain(["duration".to_owned()]);
        let sites = &self.session.sites;
        let of_sites = sites.iter().flat_map(|site| SITE_VALUES.map(|value| of_sites(site, value)));
        names.chain(of_sites).filter_map(|name| Some((name.clone(), *self.values.get(&name)?))).collect()
    }

    /// Decides the assertions on a phase, or on the session.
    fn judge(&mut self, phase: Option<&str>) {
        let due = self.session.assertions.iter().zip(&mut self.results.assertions);
        for (assertion, result) in due.filter(|(assertion, _)| assertion.phase.as_deref() == phase) {
            result.values = numbers(&assertion.that.values(&self.values));
            (result.outcome, result.reason) = match assertion.that.holds(&self.values) {
                Verdict::Yes => (Outcome::Passed, None),
                Verdict::No => (Outcome::Failed, None),
                Verdict::Unknown(why) => (Outcome::Failed, Some(why)),
            };
        }
    }

    /// All phases have taken place.
    fn complete(&mut self) -> Result<()> {
        self.judge(None);
        self.is_over = true;
        self.results.state = RunState::Done;
        self.save()
    }

    /// A trigger says so.
    fn stop(&mut self, trigger: &str) -> Result<()> {
        self.results.reason = Some(format!("stopped by {trigger}"));
        if let Some(current) = &mut self.current {
            current.over = Some(Ok(()));
        }
        if self.current.is_some() {
            // Dropped with it, its command ends.
            self.end_phase()?;
        }
        self.complete()
    }

    /// Ends what still takes place, which it was not to do yet.
    pub(super) fn abandon(&mut self, state: RunState, why: String) {
        if let Some(current) = self.current.take() {
            let end_s = self.elapsed_s();
            let result = &mut self.results.phases[current.index];
            (result.outcome, result.end_s) = (Outcome::Failed, Some(end_s));
            result.reason = Some(why.clone());
        }
        (self.results.state, self.results.reason) = (state, Some(why));
        self.is_over = true;
    }
}

/// How a phase went, if it is over.
fn how_it_went(phase: &super::Phase, current: &mut Current, values: &Values) -> Option<Result<(), String>> {
    let table = &phase.table;
    let elapsed = current.began.elapsed();
    if let Some(status) = current.command.as_mut().and_then(PhaseCommand::ended) {
        if !status.success() {
            return Some(Err(format!("its command ended with {status}")));
        }
        if table.duration.is_none() && phase.until.is_none() {
            return Some(Ok(()));
        }
    }
    if table.duration.is_some_and(|duration| elapsed >= duration) {
        return Some(Ok(()));
    }
    if phase.until.as_ref().is_some_and(|until| until.holds(values) == Verdict::Yes) {
        return Some(Ok(()));
    }
    let timeout = table.timeout.filter(|timeout| elapsed >= *timeout)?;
    let what = if phase.until.is_some() { "its condition did not hold" } else { "its command did not end" };
    Some(Err(format!("{what} within {}", humantime::format_duration(timeout))))
}
