//! The demonstration: a leaky service, attached to under load.

use anyhow::{Result, bail};

/// What `cargo xtask demo` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<()> {
    bail!("demo is not written yet")
}
