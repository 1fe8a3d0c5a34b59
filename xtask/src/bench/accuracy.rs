//! How far the lanes' estimates are off, site by site, against what a program knows that it
//! has allocated.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use xtask::go::{self, GoLine};
use xtask::process::Process;
use xtask::shell;
use xtask::targets::{self, Variant};

use super::{PATIENCE, heaptap, interrupt, mean_interval};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The Go line to measure
    #[arg(long, value_name = "LINE", default_value = "1.26")]
    go: String,
    /// Recordings of each lane
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Length of each, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// The lanes whose numbers are estimates. They record the same run side by side.
const LANES: [(&str, &[&str]); 2] =
    [("runtime", &["--mode", "runtime"]), ("burst", &["--mode", "burst", "--budget", "1%"])];

/// Bytes by place, as the program says.
type Truth = BTreeMap<String, Amount>;

#[derive(Debug, Clone, Copy, Deserialize)]
struct Amount {
    bytes: u64,
}

/// What a lane says of a place.
#[derive(Debug, Clone, Copy, Default)]
struct Estimate {
    bytes: u64,
    /// Half the width of its 95% interval.
    error: u64,
}

pub(super) fn run(args: &Args) -> Result<()> {
    shell::run(shell::cargo().args(["build", "--release", "--package", "tracer"]))?;
    let [line] = go::parse_lines(&args.go)?[..] else { bail!("one Go line, please") };
    println!("{} Go {line}.\n", super::machine()?);
    let mut truths = Vec::new();
    let mut estimates: [Vec<BTreeMap<String, Estimate>>; LANES.len()] = Default::default();
    for number in 0..args.runs {
        let (truth, run) = once(line, Duration::from_secs(args.seconds))?;
        truths.push(truth);
        estimates.iter_mut().zip(run).for_each(|(all, run)| all.push(run));
        eprintln!("run {} of {}", number + 1, args.runs);
    }
    println!(
        "| lane | place | share of bytes, % | error on average, % | largest error, % | interval on average, % | \
         within it |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for ((lane, _), runs) in LANES.iter().zip(&estimates) {
        for place in truths.first().context("no runs")?.keys() {
            println!("| {lane} | {place} | {} |", row(place, &truths, runs));
        }
    }
    Ok(())
}

/// The cells of a place.
fn row(place: &str, truths: &[Truth], runs: &[BTreeMap<String, Estimate>]) -> String {
    let (mut shares, mut errors, mut widths) = (Vec::new(), Vec::new(), Vec::new());
    let mut within = 0;
    for (truth, run) in truths.iter().zip(runs) {
        let all: u64 = truth.values().map(|amount| amount.bytes).sum();
        let bytes = truth.get(place).map_or(0, |amount| amount.bytes);
        let Estimate { bytes: estimate, error } = run.get(place).copied().unwrap_or_default();
        shares.push(100.0 * bytes as f64 / all as f64);
        errors.push(100.0 * (estimate as f64 / bytes as f64 - 1.0));
        widths.push(100.0 * error as f64 / bytes as f64);
        within += usize::from(estimate.abs_diff(bytes) <= error);
    }
    let (share, _) = mean_interval(&shares);
    let (bias, half) = mean_interval(&errors);
    let (width, _) = mean_interval(&widths);
    let largest = errors.iter().fold(0.0_f64, |most, error| most.max(error.abs()));
    format!("{share:.1} | {bias:+.2} ± {half:.2} | {largest:.1} | ± {width:.1} | {within} of {}", runs.len())
}

/// One run of the program, recorded by all lanes: the truth, and what each says.
fn once(line: GoLine, length: Duration) -> Result<(Truth, Vec<BTreeMap<String, Estimate>>)> {
    let program = targets::build("mixed", line, Variant::Plain)?;
    let mut target = Process::spawn(&mut Command::new(&program))?;
    target.stdout_line(|line| line == "ready", PATIENCE)?;
    let scratch = tempfile::tempdir()?;
    let mut recordings = Vec::new();
    for (lane, args) in LANES {
        let capture = scratch.path().join(lane);
        let mut record = heaptap();
        record.args(["record", "--pid", &target.pid().to_string(), "-o"]).arg(&capture).args(args);
        let mut record = Process::spawn(&mut record)?;
        record.stderr_line(|line| line.starts_with("recording"), PATIENCE)?;
        recordings.push((record, capture));
    }
    target.send("go")?;
    std::thread::sleep(length);
    target.send("stop")?;
    let truth = target.stdout_line(|line| line.starts_with('{'), PATIENCE)?;
    let truth = serde_json::from_str(&truth)?;
    let estimates = recordings.into_iter().map(|(record, capture)| {
        interrupt(record)?;
        estimate(&capture)
    });
    Ok((truth, estimates.collect::<Result<_>>()?))
}

/// What the report of a capture says by place: functions of package main.
fn estimate(capture: &Path) -> Result<BTreeMap<String, Estimate>> {
    #[derive(Deserialize)]
    struct Report {
        sites: Vec<Site>,
    }
    #[derive(Deserialize)]
    struct Site {
        alloc_bytes: u64,
        error_bytes: Error,
        frames: Vec<Frame>,
    }
    #[derive(Deserialize)]
    struct Error {
        alloc: u64,
    }
    #[derive(Deserialize)]
    struct Frame {
        function: String,
    }
    let report: Report =
        serde_json::from_str(&shell::output(heaptap().arg("report").arg(capture).arg("--json"))?)?;
    let mut places: BTreeMap<String, Estimate> = BTreeMap::new();
    for site in report.sites {
        let function = site.frames.first().map_or("", |frame| &frame.function);
        let estimate = places.entry(function.trim_start_matches("main.").to_owned()).or_default();
        estimate.bytes += site.alloc_bytes;
        estimate.error += site.error_bytes.alloc;
    }
    Ok(places)
}
