//! A session file as it is written: its tables and keys.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::base::units;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub name: Option<String>,
    /// Settings, which are filled in before.
    #[serde(rename = "set")]
    pub _set: Option<BTreeMap<String, String>>,
    pub target: Spanned<Target>,
    #[serde(default)]
    pub capture: Capture,
    #[serde(default, rename = "phase")]
    pub phases: Vec<Spanned<Phase>>,
    #[serde(default, rename = "trigger")]
    pub triggers: Vec<Spanned<Trigger>>,
    #[serde(default, rename = "assert")]
    pub assertions: Vec<Spanned<Assertion>>,
    #[serde(default)]
    pub output: Output,
}

/// Which process, and what of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    pub pid: Option<i32>,
    pub name: Option<String>,
    /// A regular expression.
    pub cmdline: Option<String>,
    pub cgroup: Option<String>,
    pub container: Option<String>,
    pub exec: Option<Vec<String>>,
    /// How long to wait for it to be there.
    #[serde(default, deserialize_with = "duration")]
    pub wait: Option<Duration>,
    /// Attach to the next such process when it ends.
    #[serde(default)]
    pub reattach: bool,
    pub assume_go: Option<String>,
}

/// How allocations are recorded: as the options of `heaptap record`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Capture {
    pub mode: Lane,
    #[serde(deserialize_with = "percent")]
    pub budget: Option<f64>,
    #[serde(deserialize_with = "percent")]
    pub max_overhead: Option<f64>,
    #[serde(deserialize_with = "bytes")]
    pub max_memory: Option<u64>,
    #[serde(deserialize_with = "bytes")]
    pub buffer: Option<u64>,
    pub evidence: bool,
    pub cgo: bool,
    pub marks: Vec<String>,
    pub mark_regions: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Lane {
    #[default]
    Auto,
    Exact,
    Runtime,
    Burst,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Phase {
    pub name: String,
    #[serde(default, deserialize_with = "duration")]
    pub duration: Option<Duration>,
    pub until: Option<Spanned<String>>,
    /// For `sh -c`.
    pub run: Option<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    #[serde(default)]
    pub on_failure: OnFailure,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnFailure {
    #[default]
    Stop,
    Continue,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trigger {
    pub name: Option<String>,
    pub when: Spanned<String>,
    #[serde(rename = "do")]
    pub action: Action,
    /// With `do = "switch"`.
    pub mode: Option<Lane>,
    /// How often at most.
    #[serde(default = "once")]
    pub times: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Snapshot,
    Mark,
    Stop,
    Switch,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Assertion {
    pub name: Option<String>,
    pub that: Spanned<String>,
    /// At the end of this phase; `None`: of the session.
    pub phase: Option<Spanned<String>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Output {
    pub directory: PathBuf,
    pub reports: Vec<Spanned<String>>,
    /// Of the first capture and the last.
    pub diff: Vec<Spanned<String>>,
}

impl Default for Output {
    fn default() -> Output {
        Output { directory: "heaptap-session".into(), reports: Vec::new(), diff: Vec::new() }
    }
}

fn once() -> u32 {
    1
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map(Some)
        .map_err(|e| D::Error::custom(format!("not a duration (30s, 5m, 1h): {text:?}: {e}")))
}

fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    units::parse_percent(&text).map(Some).map_err(D::Error::custom)
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    units::parse_bytes(&text).map(Some).map_err(D::Error::custom)
}
