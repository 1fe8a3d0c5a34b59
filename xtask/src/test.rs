//! Runs every test, the privileged ones included.

use anyhow::{Result, bail};

/// What `cargo xtask test` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<()> {
    bail!("test is not written yet")
}
