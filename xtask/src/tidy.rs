//! Checks what the compiler does not.

use anyhow::{Result, bail};

/// What `cargo xtask tidy` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<()> {
    bail!("tidy is not written yet")
}
