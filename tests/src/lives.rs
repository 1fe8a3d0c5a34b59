//! The target program `lives`, which knows which of its objects are alive.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::report::{Report, Site};
use crate::{PATIENCE, Process};

/// What the program says after each step: see tests/go/lives/main.go.
#[derive(Debug, Deserialize)]
pub struct Truth {
    pub alive: BTreeMap<String, Amount>,
    pub held: BTreeMap<String, Amount>,
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
