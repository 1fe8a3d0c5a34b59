//! Everything CI checks, in one: what `.ci/run` runs.

use anyhow::Result;
use xtask::shell;

use crate::{build_ebpf, fuzz, test, tidy};

/// What `cargo xtask ci` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go lines to test on: `all`, `subset`, or a list as `1.24,1.27`
    #[arg(long, value_name = "LINES", default_value = "subset")]
    go: String,
    /// How long each fuzz target runs
    #[arg(long, default_value_t = 20)]
    fuzz_seconds: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    shell::run(shell::cargo().args(["fmt", "--check", "--manifest-path", "tracer-ebpf/Cargo.toml"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    shell::run(shell::cargo().args(clippy))?;
    tidy::run(&tidy::Args {})?;
    // Before it is replaced: whether the checked-in object is that of the checked-in sources.
    shell::run(shell::cargo().args(["test", "--quiet", "--package", "tracer", "--test", "ebpf_object"]))?;
    // The tests then run on the object built here.
    build_ebpf::run(&build_ebpf::Args { check: false })?;
    fuzz::run(&fuzz::Args { seconds: args.fuzz_seconds })?;
    // Last, so that its count of passed and failed tests ends the output.
    test::run(&test::Args { go: args.go.clone(), unprivileged: false })
}
