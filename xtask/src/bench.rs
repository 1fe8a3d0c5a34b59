//! Measurements: what probing costs a target.

use anyhow::{Result, bail};

/// What `cargo xtask bench` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<()> {
    bail!("bench is not written yet")
}
