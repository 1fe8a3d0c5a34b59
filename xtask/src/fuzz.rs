//! Bounded runs of the fuzz targets in fuzz/.

use std::process::Command;

use anyhow::{Context, Result};
use xtask::shell;

/// What `cargo xtask fuzz` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long each target runs
    #[arg(long, default_value_t = 20)]
    pub(crate) seconds: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !shell::succeeds(shell::cargo().args(["fuzz", "--version"])) {
        shell::run(shell::cargo().args(["install", "--locked", "cargo-fuzz"]))?;
    }
    if !shell::on_path("c++") {
        // libFuzzer is C++.
        shell::apt_install(&["g++"])?;
    }
    let list = shell::output(&mut cargo_fuzz("list")).context("listing the fuzz targets")?;
    for target in list.split_whitespace() {
        let limit = format!("-max_total_time={}", args.seconds);
        let mut fuzz = cargo_fuzz("run");
        fuzz.args([target, "--", &limit, "-timeout=10", "-rss_limit_mb=2048"]);
        shell::run(&mut fuzz)
            .with_context(|| format!("fuzz target {target}; its input is in fuzz/artifacts"))?;
    }
    println!("fuzzed {} targets for {} s each", list.split_whitespace().count(), args.seconds);
    Ok(())
}

/// `cargo fuzz COMMAND` on the toolchain we have. The parsers are safe Rust, so what is
/// looked for are panics, hangs and hoarding; the address sanitizer would find nothing.
fn cargo_fuzz(command: &str) -> Command {
    let mut cargo = shell::cargo();
    cargo.env("RUSTC_BOOTSTRAP", "1").args(["fuzz", command]);
    if command == "run" {
        cargo.args(["--sanitizer", "none"]);
    }
    cargo
}
