//! Builds the eBPF object and its sidecar.

use anyhow::{Result, bail};

/// What `cargo xtask build-ebpf` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<()> {
    bail!("build-ebpf is not written yet")
}
