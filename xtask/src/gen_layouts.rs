//! Generates the tables of Go runtime struct layouts.

use anyhow::{Result, bail};

/// What `cargo xtask gen-layouts` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<()> {
    bail!("gen-layouts is not written yet")
}
