//! Measurements: what an allocation costs a target while heaptap, or bpftrace, watches;
//! how long judging a GC cycle takes, reading goroutines, and reporting a large capture.

mod accuracy;
mod goroutines;
mod lanes;
mod live;
mod plot;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use statrs::distribution::{ContinuousCDF, StudentsT};
use xtask::go::{self, GoLine};
use xtask::process::{Process, Signal};
use xtask::shell;
use xtask::targets::{self, Variant};

/// What `cargo xtask bench` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Nanoseconds added per allocation: nothing attached, heaptap, bpftrace
    Overhead(Overhead),
    /// How far the estimates of the lanes that sample are off, site by site
    Accuracy(accuracy::Args),
    /// What each lane takes of a program's throughput and latency, beside pprof and bpftrace
    Lanes(lanes::Args),
    /// Milliseconds to find out what a GC cycle left alive, and bytes per object followed
    Live(live::Args),
    /// Milliseconds to read the goroutines of a process
    Goroutines(goroutines::Args),
    /// Seconds to report a large capture, and the size of what comes out
    Report(report::Args),
}

#[derive(Debug, clap::Args)]
struct Overhead {
    /// Go lines to measure
    #[arg(long, value_name = "LINES", default_value = "1.24,1.26,1.27")]
    go: String,
    /// One short round, to see that it works
    #[arg(long)]
    quick: bool,
}

/// A sort of object, and the function that allocates it on Go 1.27, where the compiler
/// calls one for each size; the rival is attached to the same population of objects.
struct Kind {
    name: &'static str,
    what: &'static str,
    leaf_127: &'static str,
    /// Objects a second; 0: as many as the target can make. Whoever watches then meets it in
    /// the same state, caches warm: at a rate that only one of the two can follow, the other
    /// would be measured in cold bursts.
    rate: u32,
    /// Calls on the stack beside the few that the target needs.
    depth: u32,
}

/// Small objects with pointers; of other kinds only what differs is said.
const SCAN48: Kind = Kind {
    name: "scan48",
    what: "scan, 48 B",
    leaf_127: "runtime.mallocgcSmallScanNoHeaderSC5",
    rate: 0,
    depth: 0,
};

const KINDS: [Kind; 7] = [
    SCAN48,
    Kind { name: "scan160", what: "scan, 160 B", leaf_127: "runtime.mallocgc", ..SCAN48 },
    Kind { name: "noscan48", what: "noscan, 48 B", leaf_127: "runtime.mallocgcSmallNoScanSC5", ..SCAN48 },
    Kind { name: "tiny4", what: "tiny, 4 B", leaf_127: "runtime.mallocgcTinySC2", ..SCAN48 },
    Kind { name: "large40000", what: "large, 40,000 B", leaf_127: "runtime.mallocgc", rate: 2000, ..SCAN48 },
    Kind { what: "scan, 48 B, 16 calls deeper", depth: 16, ..SCAN48 },
    Kind { what: "scan, 48 B, 32 calls deeper", depth: 32, ..SCAN48 },
];

/// What is attached to the target while it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watcher {
    Nothing,
    Heaptap,
    /// Without following objects until they die.
    AllocationsOnly,
    /// Which are counted in the kernel.
    CountsOnly,
    /// The same traps, with an eBPF program that does next to nothing.
    Floor,
    /// The same, and one read of a word of the stack.
    FloorAndRead,
    Bpftrace,
}

const WATCHERS: [Watcher; 7] = [
    Watcher::Nothing,
    Watcher::Heaptap,
    Watcher::AllocationsOnly,
    Watcher::CountsOnly,
    Watcher::Floor,
    Watcher::FloorAndRead,
    Watcher::Bpftrace,
];
const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: &str = "100ms";
/// The example of `tracer` that attaches the floor's probes.
const FLOOR: &str = "floor";

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Overhead(args) => overhead(args),
        What::Accuracy(args) => accuracy::run(args),
        What::Lanes(args) => lanes::run(args),
        What::Live(args) => live::run(args),
        What::Goroutines(args) => goroutines::run(args),
        What::Report(args) => report::run(args),
    }
}

fn overhead(args: &Overhead) -> Result<()> {
    if !shell::on_path("bpftrace") {
        shell::apt_install(&["bpftrace"])?;
    }
    let build = ["build", "--release", "--package", "tracer", "--bins", "--example", FLOOR];
    shell::run(shell::cargo().args(build))?;
    let (rounds, intervals) = if args.quick { (1, 5) } else { (5, 10) };
    println!("{}", machine()?);
    println!(
        "\nTarget: one goroutine that makes objects as fast as it can (large ones: 2,000 a second), GOGC=1000; \
         ns per object in {rounds} interleaved rounds, median (lowest to highest).\n"
    );
    println!(
        "| Go | object | alone | heaptap adds | without live heap | counts only | lost | floor | floor and a read | bpftrace adds | ratio |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for line in go::parse_lines(&args.go)? {
        for kind in &KINDS {
            let run = Run::start(line, kind, intervals)?;
            println!("{}", row(line, kind, run.measure(rounds)?));
        }
    }
    Ok(())
}

/// Results of all rounds: ns per object per watcher, and the events heaptap lost.
#[derive(Debug, Default)]
struct Figures {
    ns: [Vec<f64>; WATCHERS.len()],
    lost: u64,
}

fn row(line: GoLine, kind: &Kind, figures: Figures) -> String {
    let [alone, watched @ ..] = figures.ns;
    // Rounds are interleaved, so each is compared with its own unwatched part.
    let added = |watched: Vec<f64>| -> Vec<f64> { watched.iter().zip(&alone).map(|(w, a)| w - a).collect() };
    let [heaptap, allocations, counts, floor, floor_and_read, bpftrace] = watched.map(added);
    let ratio = median(&bpftrace) / median(&heaptap);
    format!(
        "| {line} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {ratio:.1} |",
        kind.what,
        spread(&alone),
        spread(&heaptap),
        spread(&allocations),
        spread(&counts),
        figures.lost,
        spread(&floor),
        spread(&floor_and_read),
        spread(&bpftrace)
    )
}

/// One target program, measured with each watcher in turn.
struct Run {
    target: Process,
    program: PathBuf,
    probed: &'static str,
    intervals: usize,
    scratch: tempfile::TempDir,
}

impl Run {
    fn start(line: GoLine, kind: &Kind, intervals: usize) -> Result<Run> {
        let program = targets::build("churn", line, Variant::Plain)?;
        let mut command = Command::new(&program);
        // Rare GC cycles: they are not what is measured.
        command.env("GOGC", "1000").args([
            "-kind",
            kind.name,
            "-rate",
            &kind.rate.to_string(),
            "-depth",
            &kind.depth.to_string(),
            "-interval",
            INTERVAL,
        ]);
        let mut target = Process::spawn(&mut command)?;
        target.stdout_line(|line| line == "ready", PATIENCE)?;
        let probed = if line.minor >= 27 { kind.leaf_127 } else { "runtime.mallocgc" };
        Ok(Run { target, program, probed, intervals, scratch: tempfile::tempdir()? })
    }

    fn measure(mut self, rounds: usize) -> Result<Figures> {
        let mut figures = Figures::default();
        for _ in 0..rounds {
            for (watcher, ns) in WATCHERS.into_iter().zip(0..) {
                let (cost, lost) = self.watched(watcher)?;
                figures.ns[ns].push(cost);
                figures.lost += lost;
            }
        }
        Ok(figures)
    }

    /// Attaches, measures, detaches; returns ns per object, and the events heaptap lost.
    fn watched(&mut self, watcher: Watcher) -> Result<(f64, u64)> {
        let capture = self.scratch.path().join("capture.heaptap");
        match watcher {
            Watcher::Nothing => Ok((self.cost()?, 0)),
            Watcher::Heaptap | Watcher::AllocationsOnly | Watcher::CountsOnly => {
                let mut record = heaptap();
                record
                    .args(["record", "--mode", "exact", "--pid", &self.target.pid().to_string(), "-o"])
                    .arg(&capture);
                record.args(match watcher {
                    Watcher::AllocationsOnly => &["--max-memory", "0"][..],
                    Watcher::CountsOnly => &["--counts-only"],
                    _ => &[],
                });
                let mut record = Process::spawn(&mut record)?;
                record.stderr_line(|line| line.starts_with("recording"), PATIENCE)?;
                let cost = self.cost()?;
                interrupt(record)?;
                Ok((cost, lost(&capture)?))
            }
            Watcher::Floor | Watcher::FloorAndRead => {
                let mut floor = Command::new(shell::root().join("target/release/examples").join(FLOOR));
                floor.arg(self.target.pid().to_string());
                if watcher == Watcher::FloorAndRead {
                    floor.arg("--read");
                }
                let mut floor = Process::spawn(&mut floor)?;
                floor.stdout_line(|line| line == "ready", PATIENCE)?;
                Ok((self.cost()?, 0))
            }
            Watcher::Bpftrace => {
                let unwatched = self.next_figure()?;
                let bpftrace = self.bpftrace()?;
                self.await_effect(unwatched)?;
                let cost = self.cost()?;
                // Killed: asked to end, it takes up to a minute over its stacks.
                drop(bpftrace);
                Ok((cost, 0))
            }
        }
    }

    /// The rival: a probe at the entry of the function, stacks counted in the kernel.
    fn bpftrace(&self) -> Result<Process> {
        let script = format!("uprobe:{}:{} {{ @[ustack] = count(); }}", self.program.display(), self.probed);
        Process::spawn(Command::new("bpftrace").args(["-p", &self.target.pid().to_string(), "-e", &script]))
    }

    /// bpftrace does not say when its probe is in place; that the target slows down does.
    fn await_effect(&mut self, unwatched: f64) -> Result<()> {
        for _ in 0..300 {
            if self.next_figure()? > unwatched + 500.0 {
                return Ok(());
            }
        }
        bail!("bpftrace's probe on {} has no effect", self.probed)
    }

    /// The median cost of an object over the intervals, the one under way left out.
    fn cost(&mut self) -> Result<f64> {
        self.next_figure()?;
        let figures: Vec<f64> = (0..self.intervals).map(|_| self.next_figure()).collect::<Result<_>>()?;
        Ok(median(&figures))
    }

    /// What the target says at the end of the next interval.
    fn next_figure(&mut self) -> Result<f64> {
        #[derive(Deserialize)]
        struct Line {
            ns_per_alloc: f64,
        }
        // Lines that came while nobody listened are of other times.
        self.target.discard_stdout();
        let line = self.target.stdout_line(|line| line.starts_with('{'), PATIENCE)?;
        Ok(serde_json::from_str::<Line>(&line)?.ns_per_alloc)
    }
}

fn heaptap() -> Command {
    Command::new(shell::root().join("target/release/heaptap"))
}

fn interrupt(watcher: Process) -> Result<()> {
    watcher.signal(Signal::SIGINT)?;
    let ended = watcher.wait(PATIENCE)?;
    if !ended.status.success() {
        bail!("{}: {}", ended.status, ended.stderr);
    }
    Ok(())
}

/// The events lost in a capture, as its report says.
fn lost(capture: &Path) -> Result<u64> {
    let report = shell::output(heaptap().arg("report").arg(capture).arg("--json"))?;
    let report: serde_json::Value = serde_json::from_str(&report)?;
    report["capture"]["lost"].as_u64().context("report without capture.lost")
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The mean, and half the width of its 95% interval (Student's t).
fn mean_interval(values: &[f64]) -> (f64, f64) {
    interval_without(0, values)
}

/// The mean without a fifth of the values at either end, which are those of moments in which the
/// machine had other things to do, and half the width of its 95% interval (Yuen 1974: by the
/// winsorized variance). Of fewer than five values, the mean of all.
fn trimmed_interval(values: &[f64]) -> (f64, f64) {
    interval_without(values.len() / 5, values)
}

/// So many values are left out at either end: of none, it is Student's interval.
fn interval_without(cut: usize, values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let kept = &sorted[cut..sorted.len() - cut];
    let [Some(&lowest), Some(&highest)] = [kept.first(), kept.last()] else { return (f64::NAN, f64::NAN) };
    let count = kept.len() as f64;
    let mean = kept.iter().sum::<f64>() / count;
    let winsorized: Vec<f64> = sorted.iter().map(|value| value.clamp(lowest, highest)).collect();
    let centre = winsorized.iter().sum::<f64>() / winsorized.len() as f64;
    let squares = winsorized.iter().map(|value| (value - centre).powi(2)).sum::<f64>();
    let quantile = StudentsT::new(0.0, 1.0, count - 1.0).map_or(f64::NAN, |t| t.inverse_cdf(0.975));
    (mean, quantile * (squares / (count * (count - 1.0))).sqrt())
}

fn spread(values: &[f64]) -> String {
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.0} ({lowest:.0} to {highest:.0})", median(values))
}

/// The machine, in one line.
fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel release")?;
    Ok(format!(
        "Machine: {}, {} CPUs, Linux {}.",
        model.map_or("unknown CPU", |(_, name)| name),
        std::thread::available_parallelism()?,
        kernel.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        // The textbook's 2.776 for four degrees of freedom.
        let (mean, half) = mean_interval(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((mean - 3.0).abs() < 1e-9 && (half - 2.776 * 0.5_f64.sqrt()).abs() < 1e-3, "{mean} {half}");
        // Of 2, 3 and 4, with 2, 2, 3, 4 and 4 for the spread; 4.303 for two degrees of freedom.
        let (mean, half) = trimmed_interval(&[9.0, 3.0, 4.0, 2.0, -7.0]);
        assert!((mean - 3.0).abs() < 1e-9 && (half - 4.303 * (4.0_f64 / 6.0).sqrt()).abs() < 1e-3, "{half}");
        assert_eq!(trimmed_interval(&[1.0, 2.0, 6.0]), mean_interval(&[1.0, 2.0, 6.0]));
        assert_eq!(spread(&[30.0, 10.0, 20.0]), "20 (10 to 30)");
    }
}
