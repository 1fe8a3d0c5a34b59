//! How long a report of a large capture takes, and how large it is.

use std::fs;
use std::time::Instant;

use anyhow::{Result, ensure};
use xtask::shell;

use super::heaptap;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Allocations in the capture
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
}

const ROUNDS: usize = 5;

/// The example of `tracer` that writes the capture.
const SYNTHETIC: &str = "synthetic";

pub(super) fn run(args: &Args) -> Result<()> {
    let build = ["build", "--release", "--package", "tracer", "--bins", "--example", SYNTHETIC];
    shell::run(shell::cargo().args(build))?;
    let scratch = tempfile::tempdir()?;
    let capture = scratch.path().join("synthetic.heaptap");
    let program = shell::root().join("target/release/examples").join(SYNTHETIC);
    shell::run(std::process::Command::new(program).arg(&capture).arg(args.events.to_string()))?;
    println!("{}", super::machine()?);
    println!(
        "\n`heaptap report` of a capture of {} allocations, {:.0} MiB, from start to end in {ROUNDS} rounds.\n",
        args.events,
        mib(fs::metadata(&capture)?.len())
    );
    println!("| format | seconds: median (lowest to highest) | MiB |");
    println!("| --- | --- | --- |");
    let out = scratch.path().join("report");
    for format in ["table", "json", "html"] {
        let mut seconds = Vec::new();
        for _ in 0..ROUNDS {
            let mut report = heaptap();
            report.arg("report").arg(&capture).args(["--format", format, "-o"]).arg(&out);
            let started = Instant::now();
            ensure!(report.status()?.success(), "{report:?}");
            seconds.push(started.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let (median, lowest, highest) = (seconds[ROUNDS / 2], seconds[0], seconds[ROUNDS - 1]);
        let size = mib(fs::metadata(&out)?.len());
        println!("| {format} | {median:.2} ({lowest:.2} to {highest:.2}) | {size:.2} |");
    }
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
