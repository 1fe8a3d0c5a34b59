//! What became of a session: plain data, as `session.json` has it (docs/json.md).

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Number;

use super::Session;
use super::expr::Values;
use super::file::Action;

/// A session as far as it has come.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Results {
    pub session: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    pub state: RunState,
    /// Why it failed or was stopped.
    pub reason: Option<String>,
    pub duration_s: f64,
    pub captures: Vec<Capture>,
    pub phases: Vec<Phase>,
    pub triggers: Vec<Fired>,
    pub assertions: Vec<Assertion>,
    /// Files with what changed from the first capture to the last.
    pub diffs: Vec<String>,
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    #[default]
    Running,
    /// All phases took place, or a trigger stopped it.
    Done,
    /// The session could not go on.
    Failed,
    /// The user ended it.
    Interrupted,
}

/// A capture file.
#[derive(Debug, Clone, Serialize)]
pub struct Capture {
    pub file: String,
    pub mode: String,
    pub pid: u32,
    pub exe: String,
    /// Seconds since the session began.
    pub begin_s: f64,
    /// `None`: it is being written, or the session was killed.
    pub end_s: Option<f64>,
    pub reports: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Phase {
    pub name: String,
    pub outcome: Outcome,
    pub reason: Option<String>,
    pub begin_s: Option<f64>,
    pub end_s: Option<f64>,
    /// The file with what its command printed.
    pub output: Option<String>,
    /// Of its command, if that ended by itself.
    pub exit_code: Option<i32>,
    /// At its end.
    pub values: BTreeMap<String, Number>,
}

/// Whether something is as it should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did not come to that (yet).
    #[default]
    Skipped,
    Running,
    Passed,
    Failed,
}

/// An instant at which a trigger fired.
#[derive(Debug, Clone, Serialize)]
pub struct Fired {
    pub name: String,
    #[serde(rename = "do")]
    pub(super) action: Action,
    pub at_s: f64,
    /// The phase it was in.
    pub phase: Option<String>,
    /// The snapshot.
    pub file: Option<String>,
    pub values: BTreeMap<String, Number>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Assertion {
    pub name: String,
    pub that: String,
    pub phase: Option<String>,
    pub outcome: Outcome,
    /// Why it could not be decided; it counts as failed then.
    pub reason: Option<String>,
    /// Of the values it is about, those that were known.
    pub values: BTreeMap<String, Number>,
}

impl Results {
    /// Of a session that begins now.
    pub(super) fn of(session: &Session) -> Results {
        let phases = session.phases.iter();
        let phases = phases.map(|phase| Phase { name: phase.table.name.clone(), ..Phase::default() });
        let assertions = session.assertions.iter().map(|assertion| Assertion {
            name: assertion.name.clone(),
            that: assertion.that.text.clone(),
            phase: assertion.phase.clone(),
            ..Assertion::default()
        });
        Results {
            session: session.name.clone(),
            started_at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            phases: phases.collect(),
            assertions: assertions.collect(),
            ..Results::default()
        }
    }

    /// Whether an assertion failed.
    pub fn has_failed_assertions(&self) -> bool {
        self.assertions.iter().any(|assertion| assertion.outcome == Outcome::Failed)
    }
}

/// Values as JSON has them: whole numbers without a fraction.
pub(super) fn numbers(values: &Values) -> BTreeMap<String, Number> {
    let number = |value: f64| {
        if value.fract() == 0.0 && value.abs() < 9e15 {
            Some(Number::from(value as i64))
        } else {
            Number::from_f64(value)
        }
    };
    values.iter().filter_map(|(name, value)| Some((name.clone(), number(*value)?))).collect()
}
