//! The JSON report, as far as the tests look at it.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub struct Report {
    pub target: Target,
    pub capture: Capture,
    pub totals: Totals,
    pub sites: Vec<Site>,
    pub gc: Vec<GcCycle>,
    pub phases: Vec<Phase>,
}

#[derive(Debug, Deserialize)]
pub struct Phase {
    pub name: String,
}

#[derive(Debug, Deserialize)]
pub struct Target {
    pub go_version: String,
    pub stripped: bool,
    pub pie: bool,
    pub cgo: bool,
}

#[derive(Debug, Deserialize)]
pub struct Capture {
    pub mode: String,
    pub sampling: Option<Sampling>,
    pub lost: u64,
    pub gc_cycles: u64,
    pub following: Option<Following>,
    pub coverage: Coverage,
    pub cost: Option<Cost>,
    pub breaker: Option<Breaker>,
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Sampling {
    /// `None`: objects were seen in windows.
    pub rate_bytes: Option<u64>,
    #[serde(default)]
    pub windows: u64,
    #[serde(default)]
    pub open_percent: f64,
}

#[derive(Debug, Deserialize)]
pub struct Following {
    pub judged_gc_cycles: u64,
}

#[derive(Debug, Deserialize)]
pub struct Cost {
    pub hits: u64,
    pub trap_ns: u64,
    pub target_cpu_percent: f64,
}

#[derive(Debug, Deserialize)]
pub struct Breaker {
    pub tripped_at_s: f64,
    pub overhead_percent: f64,
    pub limit_percent: f64,
}

/// Seen by heaptap, as a share of what the runtime counted.
#[derive(Debug, Deserialize)]
pub struct Coverage {
    pub objects: f64,
    pub bytes: f64,
}

#[derive(Debug, Deserialize)]
pub struct Totals {
    pub alloc_objects: u64,
    pub alloc_bytes: u64,
}

#[derive(Debug, Deserialize)]
pub struct GcCycle {
    /// Since the capture began.
    pub mark_end_ns: i64,
    /// `None`: not judged.
    pub survivors: Option<Survivors>,
    /// Bytes the runtime marked; `None`: its record is missing.
    pub heap_live: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Survivors {
    pub bytes: u64,
}

#[derive(Debug, Deserialize)]
pub struct Site {
    #[serde(rename = "type")]
    pub type_: String,
    pub kind: String,
    pub alloc_objects: u64,
    pub alloc_bytes: u64,
    pub requested_bytes: u64,
    /// `None`: not known.
    pub live_objects: Option<u64>,
    pub live_bytes: Option<u64>,
    /// `None`: the numbers are no estimates.
    pub error_bytes: Option<ErrorBytes>,
    pub life: Option<Life>,
    pub frames: Vec<Frame>,
}

/// Half the widths of 95% confidence intervals.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct ErrorBytes {
    pub alloc: u64,
    pub live: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub struct Life {
    pub died_objects: u64,
    pub new_objects: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Frame {
    pub function: String,
    pub file: String,
    pub line: u32,
    pub inlined: bool,
}

impl Report {
    /// What `heaptap report FILE --json` says.
    ///
    /// # Errors
    /// When it fails, or what it prints is not such a report.
    pub fn of(capture: &Path) -> Result<Report> {
        let path = capture.to_str().context("a path in UTF-8")?;
        let ended = crate::run_heaptap(&["report", path, "--json"])?;
        if !ended.status.success() {
            bail!("heaptap report: {}\n{}", ended.status, ended.stderr);
        }
        serde_json::from_str(&ended.stdout).context("the JSON report")
    }

    /// Whether nothing is missing: no event lost, and the runtime counted no more.
    pub fn is_complete(&self) -> bool {
        let whole = |share: f64| (share - 1.0).abs() < 0.0005;
        self.capture.lost == 0 && whole(self.capture.coverage.objects) && whole(self.capture.coverage.bytes)
    }
}

impl Site {
    /// Its frames from the innermost of the target program's own code on.
    pub fn own_frames(&self) -> &[Frame] {
        let first = self.frames.iter().position(|frame| frame.function.starts_with("main."));
        &self.frames[first.unwrap_or(self.frames.len())..]
    }
}
