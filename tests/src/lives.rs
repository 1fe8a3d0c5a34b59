//! The target program `lives`, which knows which of its objects are alive.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::report::{Report, Site};
use crate::{PATIENCE, Process, await_recording, end_recording, heaptap};

/// What the program says after each step: see tests/go/lives/main.go.
#[derive(Debug, Deserialize)]
pub struct Truth {
    pub alive: BTreeMap<String, Amount>,
    pub held: BTreeMap<String, Amount>,
    pub procs: u64,
    pub rate: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Amount {
    pub objects: u64,
    pub bytes: u64,
}

/// Has the program obey a command.
///
/// # Errors
/// When it does not answer.
pub fn step(target: &mut Process, command: &str) -> Result<Truth> {
    target.send(command)?;
    let line = target.stdout_line(|line| line.starts_with('{'), PATIENCE)?;
    serde_json::from_str(&line).context("the truth")
}

/// The sites at which a place makes its objects; where an allocation starts a GC cycle, the
/// runtime may allocate for itself.
pub fn sites_of<'r>(report: &'r Report, place: &str) -> impl Iterator<Item = &'r Site> {
    let function = format!("main.{place}");
    report.sites.iter().filter(move |site| {
        site.kind != "runtime" && site.own_frames().first().is_some_and(|frame| frame.function == function)
    })
}

/// The program, being recorded with `--mode runtime`.
pub struct Sampled {
    pub target: Process,
    pub recording: Process,
    pub scratch: tempfile::TempDir,
}

impl Sampled {
    /// Has the program collect its garbage, and starts to record it.
    ///
    /// # Errors
    /// When the recording does not start.
    pub fn of(mut target: Process, args: &[&str]) -> Result<Sampled> {
        step(&mut target, "gc")?;
        let scratch = tempfile::tempdir()?;
        let mut record = heaptap();
        record.args(["record", "--mode", "runtime", "--pid", &target.pid().to_string()]).args(args);
        record.arg("-o").arg(scratch.path().join("sampled.heaptap"));
        let mut recording = Process::spawn(&mut record)?;
        await_recording(&mut recording)?;
        Ok(Sampled { target, recording, scratch })
    }

    /// Has the program obey commands, and ends the recording; the report, and the last
    /// truth that the program told.
    ///
    /// # Errors
    /// When anything fails, or events were lost.
    pub fn after(mut self, commands: &[&str]) -> Result<(Report, Truth, Process)> {
        let mut truth = None;
        for command in commands {
            truth = Some(step(&mut self.target, command)?);
        }
        end_recording(self.recording)?;
        let report = Report::of(&self.scratch.path().join("sampled.heaptap"))?;
        ensure!(report.capture.mode == "runtime" && report.capture.lost == 0, "{:?}", report.capture);
        Ok((report, truth.context("a command")?, self.target))
    }
}
