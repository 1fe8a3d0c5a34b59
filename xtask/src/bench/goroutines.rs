//! How long it takes to read all goroutines of a process that stands still.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use xtask::go;
use xtask::process::Process;
use xtask::shell;
use xtask::targets::{self, Variant};

use super::PATIENCE;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Go lines to measure
    #[arg(long, value_name = "LINES", default_value = "1.19,1.27")]
    go: String,
    /// Goroutines of the target
    #[arg(long, default_value_t = 10_000)]
    count: u32,
}

const ROUNDS: usize = 21;

pub(super) fn run(args: &Args) -> Result<()> {
    shell::run(shell::cargo().args(["build", "--release", "--package", "tracer"]))?;
    println!("{}", super::machine()?);
    println!(
        "\n`heaptap goroutines --json`, from start to end, {ROUNDS} times: median (lowest to highest).\n"
    );
    println!("| Go | goroutines | milliseconds |");
    println!("| --- | --- | --- |");
    for line in go::parse_lines(&args.go)? {
        let scratch = tempfile::tempdir()?;
        let mut target = Command::new(targets::build("goroutines", line, Variant::Stripped)?);
        target.arg(scratch.path().join("dump")).arg(args.count.to_string());
        let mut target = Process::spawn(&mut target)?;
        target.stdout_line(|line| line == "ready", PATIENCE)?;
        let mut times = (0..ROUNDS).map(|_| once(target.pid())).collect::<Result<Vec<Duration>>>()?;
        times.sort();
        let ms = |i: usize| times.get(i).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        let (median, lowest, highest) = (ms(ROUNDS / 2), ms(0), ms(ROUNDS - 1));
        println!("| {line} | {} | {median:.0} ({lowest:.0} to {highest:.0}) |", args.count);
    }
    Ok(())
}

fn once(pid: u32) -> Result<Duration> {
    let mut heaptap = Command::new(shell::root().join("target/release/heaptap"));
    heaptap.args(["goroutines", "--json", "-o", "/dev/null", "--pid", &pid.to_string()]);
    let started = Instant::now();
    let status = heaptap.status()?;
    ensure!(status.success(), "{heaptap:?}: {status}");
    Ok(started.elapsed())
}
