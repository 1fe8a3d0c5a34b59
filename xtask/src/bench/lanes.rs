//! What each way to watch costs a program: its throughput, its latency, and the watcher's
//! own use of the machine.

use std::fs;
use std::ops::AddAssign;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;
use nix::sys::signal::Signal;
use serde::Deserialize;
use xtask::go::{self, GoLine};
use xtask::process::Process;
use xtask::shell;
use xtask::targets::{self, Variant};

use super::plot::{self, Series};
use super::{PATIENCE, heaptap, interrupt, median, trimmed_interval};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The Go line to measure
    #[arg(long, value_name = "LINE", default_value = "1.26")]
    go: String,
    /// Only these watchers, by the names in the table
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(WATCHERS.map(|w| w.name)),
    )]
    only: Vec<String>,
    /// Write the plot to this file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Only these loads, by the names in the table
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(LOADS.map(|l| l.name)),
    )]
    loads: Vec<String>,
    /// Rounds of a watcher that takes little; one that takes much has a quarter of them
    #[arg(long, default_value_t = 16)]
    rounds: usize,
    /// Attach heaptap once, and stop it (SIGSTOP) where nobody is to watch, for 20 to 40 ms at a
    /// time: shows smaller losses, but not what its probes take
    #[arg(long)]
    stop: bool,
}

/// Who watches the target, and with which `MemProfileRate` it runs watched and unwatched.
struct Watcher {
    name: &'static str,
    profile: [u32; 2],
    how: How,
    /// Whether it takes so little that many rounds are needed to see it.
    cheap: bool,
}

enum How {
    /// The program's own profiler alone.
    Profile,
    /// `heaptap record` with these arguments.
    Heaptap(&'static [&'static str]),
    Bpftrace,
}

/// One sample for so many bytes: the default of a program with net/http/pprof.
const DEFAULT_RATE: u32 = 512 << 10;

const WATCHERS: [Watcher; 6] = [
    Watcher { name: "pprof at 512 KiB", profile: [0, DEFAULT_RATE], how: How::Profile, cheap: true },
    Watcher {
        name: "runtime",
        profile: [DEFAULT_RATE; 2],
        how: How::Heaptap(&["--mode", "runtime"]),
        cheap: true,
    },
    Watcher {
        name: "burst",
        profile: [0; 2],
        how: How::Heaptap(&["--mode", "burst", "--budget", "1%"]),
        cheap: true,
    },
    Watcher { name: "exact", profile: [0; 2], how: How::Heaptap(&["--mode", "exact"]), cheap: false },
    Watcher { name: "pprof at 1 B", profile: [0, 1], how: How::Profile, cheap: false },
    Watcher { name: "bpftrace", profile: [0; 2], how: How::Bpftrace, cheap: false },
];

/// What the target does.
struct Load {
    name: &'static str,
    args: &'static [&'static str],
    /// Ps, of which each can take a CPU; with one the target stays on the first CPU, as it is
    /// slower by a fifth, and by more or less each time, when the kernel moves it about.
    procs: &'static str,
    /// GOGC: for the highest rate that the machine reaches there must be little garbage
    /// collection.
    gc_percent: &'static str,
    /// Intervals of a round, each as long as `args` say.
    intervals: usize,
    is_latency: bool,
}

/// What most loads are: one goroutine, told in lines of 100 ms.
const LOAD: Load =
    Load { name: "", args: &[], procs: "1", gc_percent: "100", intervals: 20, is_latency: false };

const LOADS: [Load; 6] = [
    Load { name: "10 k/s", args: &["-rate", "10000"], ..LOAD },
    Load { name: "100 k/s", args: &["-rate", "100000"], ..LOAD },
    Load { name: "1 M/s", args: &["-rate", "1000000"], ..LOAD },
    Load { name: "maximal", gc_percent: "1000", ..LOAD },
    Load { name: "maximal on all CPUs", args: &["-workers", "2"], procs: "2", gc_percent: "1000", ..LOAD },
    Load {
        name: "HTTP",
        args: &["-http", "-interval", "2s"],
        procs: "2",
        intervals: 1,
        is_latency: true,
        ..LOAD
    },
];

/// Lines of the target that are left out after each change: it or its watcher is just
/// getting into it.
const SETTLE: usize = 3;

/// How often the target tells how far it is where heaptap is stopped, and how many of these
/// times of either sort make a round. The machine's own speed changes within tenths of seconds, so
/// what is compared has to be close together; rounds are as long as without stops, so that none
/// lacks what heaptap does once a second.
const STOP_INTERVAL: &str = "20ms";
const STOPS: usize = 100;

pub(super) fn run(args: &Args) -> Result<()> {
    if !shell::on_path("bpftrace") {
        shell::apt_install(&["bpftrace"])?;
    }
    shell::run(shell::cargo().args(["build", "--release", "--package", "tracer"]))?;
    let [line] = go::parse_lines(&args.go)?[..] else { bail!("one Go line, please") };
    let among = |names: &[String], name: &str| names.is_empty() || names.iter().any(|n| n == name);
    let watchers: Vec<&Watcher> = WATCHERS.iter().filter(|watcher| among(&args.only, watcher.name)).collect();
    let loads: Vec<&Load> = LOADS.iter().filter(|load| among(&args.loads, load.name)).collect();
    println!("{} Go {line}.\n", super::machine()?);
    println!("| load | unwatched | watcher | throughput lost, % | watcher's CPU, % | its memory, MiB |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let mut series: Vec<Series> = watchers.iter().map(|w| Series::new(w.name)).collect();
    for load in loads.iter().filter(|load| !load.is_latency) {
        for (watcher, series) in watchers.iter().zip(&mut series) {
            let rounds = Run::start(line, load, watcher, args.stop)?.rounds(watcher, args)?;
            println!("{}", rounds.row(load, watcher));
            let (lost, half) = rounds.lost();
            // On all CPUs is another program: its points lie on no line with the others.
            if load.procs == "1" {
                series.points.push((rounds.unwatched(Block::objects), lost, half));
            }
        }
    }
    // In 20 ms there are too few requests for a percentile.
    let latencies: Vec<&&Load> = loads.iter().filter(|load| load.is_latency && !args.stop).collect();
    if !latencies.is_empty() {
        println!("\n| watcher | p99 of an HTTP handler unwatched, ms | watched, ms |");
        println!("| --- | --- | --- |");
    }
    for load in latencies {
        for watcher in &watchers {
            let rounds = Run::start(line, load, watcher, args.stop)?.rounds(watcher, args)?;
            println!("{}", rounds.latency_row(watcher));
        }
    }
    args.plot.as_ref().map_or(Ok(()), |file| plot::losses(file, &series))
}

/// What the target did in some time.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    ops: f64,
    allocs: f64,
    bytes: f64,
    seconds: f64,
    p99_ms: f64,
}

impl Block {
    fn throughput(&self) -> f64 {
        self.ops / self.seconds
    }

    fn objects(&self) -> f64 {
        self.allocs / self.seconds
    }

    fn bytes(&self) -> f64 {
        self.bytes / self.seconds
    }
}

impl AddAssign for Block {
    fn add_assign(&mut self, more: Block) {
        self.ops += more.ops;
        self.allocs += more.allocs;
        self.bytes += more.bytes;
        self.seconds += more.seconds;
        self.p99_ms = self.p99_ms.max(more.p99_ms);
    }
}

/// What the watcher took while it watched.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    cpu_percent: f64,
    mib: f64,
}

/// Rounds of one watcher: the target with it and without, or the other way about.
#[derive(Debug, Default)]
struct Rounds {
    without: Vec<Block>,
    with: Vec<Block>,
    uses: Vec<Use>,
}

impl Rounds {
    /// The share of throughput lost in percent, and half the width of its 95% interval, the fifth
    /// of the rounds left out in which most was lost, and that in which least was.
    ///
    /// By the logarithms of the rounds' ratios: the mean of ratios themselves is above 1 where
    /// both sides vary alike, by 1% where they vary by 10%.
    fn lost(&self) -> (f64, f64) {
        let pairs = self.with.iter().zip(&self.without);
        let logs: Vec<f64> =
            pairs.map(|(with, without)| (with.throughput() / without.throughput()).ln()).collect();
        let (mean, half) = trimmed_interval(&logs);
        let lost = |log: f64| 100.0 * (1.0 - log.exp());
        (lost(mean), (lost(mean - half) - lost(mean + half)) / 2.0)
    }

    fn unwatched(&self, of: fn(&Block) -> f64) -> f64 {
        median(&self.without.iter().map(of).collect::<Vec<_>>())
    }

    fn row(&self, load: &Load, watcher: &Watcher) -> String {
        let (lost, half) = self.lost();
        let uses = |of: fn(&Use) -> f64| median(&self.uses.iter().map(of).collect::<Vec<_>>());
        let own = match watcher.how {
            How::Profile => "| |".to_owned(),
            _ => format!("| {:.1} | {:.0} |", uses(|u| u.cpu_percent), uses(|u| u.mib)),
        };
        format!(
            "| {} | {:.2} M/s, {:.0} MB/s | {} | {lost:.2} ± {half:.2} {own}",
            load.name,
            self.unwatched(Block::objects) / 1e6,
            self.unwatched(Block::bytes) / 1e6,
            watcher.name
        )
    }

    fn latency_row(&self, watcher: &Watcher) -> String {
        let spread = |blocks: &[Block]| {
            let all: Vec<f64> = blocks.iter().map(|block| block.p99_ms).collect();
            let (low, high) = all.iter().fold((f64::MAX, 0.0_f64), |(l, h), &v| (l.min(v), h.max(v)));
            format!("{:.2} ({low:.2} to {high:.2})", median(&all))
        };
        format!("| {} | {} | {} |", watcher.name, spread(&self.without), spread(&self.with))
    }
}

/// A target under load.
struct Run {
    target: Process,
    program: PathBuf,
    /// Lines of the target that are left out, and that count, of each block.
    settle: usize,
    intervals: usize,
    scratch: tempfile::TempDir,
}

impl Run {
    fn start(line: GoLine, load: &Load, watcher: &Watcher, stop: bool) -> Result<Run> {
        let program = targets::build("load", line, Variant::Plain)?;
        let mut command = match load.procs {
            "1" => {
                let mut pinned = Command::new("taskset");
                pinned.args(["-c", "0"]).arg(&program);
                pinned
            }
            _ => Command::new(&program),
        };
        let profile = watcher.profile[0].to_string();
        command
            .env("GOMAXPROCS", load.procs)
            .env("GOGC", load.gc_percent)
            .args(load.args)
            .args(["-profile", &profile]);
        // A round of few long intervals settles in the one that is under way.
        let (mut settle, mut intervals) = (SETTLE.min(load.intervals), load.intervals);
        if stop {
            command.args(["-interval", STOP_INTERVAL]);
            (settle, intervals) = (0, 1);
        }
        let mut target = Process::spawn(&mut command)?;
        target.stdout_line(|line| line == "ready", PATIENCE)?;
        Ok(Run { target, program, settle, intervals, scratch: tempfile::tempdir()? })
    }

    fn rounds(mut self, watcher: &Watcher, args: &Args) -> Result<Rounds> {
        let count = if watcher.cheap { args.rounds.max(2) } else { (args.rounds / 4).max(2) };
        if args.stop {
            return self.rounds_by_stops(watcher, count);
        }
        let mut rounds = Rounds::default();
        // What gets faster or slower all the time must not look like a loss, or hide one.
        for round in 0..count {
            if round % 2 == 0 {
                rounds.without.push(self.block()?);
            }
            let (block, used) = self.watched(watcher)?;
            rounds.with.push(block);
            rounds.uses.push(used);
            if round % 2 == 1 {
                rounds.without.push(self.block()?);
            }
        }
        Ok(rounds)
    }

    /// Attached once, and stopped half of the time.
    fn rounds_by_stops(mut self, watcher: &Watcher, count: usize) -> Result<Rounds> {
        let How::Heaptap(args) = watcher.how else {
            bail!("only heaptap can be stopped, not {}", watcher.name)
        };
        let record = self.record(args)?;
        let (mut rounds, used) = used_during(&record, || {
            let mut rounds = Rounds::default();
            for _ in 0..count {
                let (mut without, mut with) = (Block::default(), Block::default());
                for stop in 0..STOPS {
                    for runs in if stop % 2 == 0 { [false, true] } else { [true, false] } {
                        record.signal(if runs { Signal::SIGCONT } else { Signal::SIGSTOP })?;
                        *if runs { &mut with } else { &mut without } += self.block()?;
                    }
                }
                rounds.without.push(without);
                rounds.with.push(with);
            }
            Ok(rounds)
        })?;
        rounds.uses.push(used);
        record.signal(Signal::SIGCONT)?;
        interrupt(record)?;
        Ok(rounds)
    }

    /// heaptap, recording.
    fn record(&self, args: &[&str]) -> Result<Process> {
        let mut record = heaptap();
        record.args(["record", "--pid", &self.target.pid().to_string(), "-o"]);
        record.arg(self.scratch.path().join("lanes.heaptap")).args(args);
        let mut record = Process::spawn(&mut record)?;
        record.stderr_line(|line| line.starts_with("recording"), PATIENCE)?;
        Ok(record)
    }

    /// Attaches, measures, detaches.
    fn watched(&mut self, watcher: &Watcher) -> Result<(Block, Use)> {
        match watcher.how {
            How::Profile => {
                self.profile(watcher.profile[1])?;
                let block = self.block()?;
                self.profile(watcher.profile[0])?;
                Ok((block, Use::default()))
            }
            How::Heaptap(args) => {
                let record = self.record(args)?;
                let measured = used_during(&record, || self.block())?;
                interrupt(record)?;
                Ok(measured)
            }
            How::Bpftrace => {
                let script =
                    format!("uprobe:{}:runtime.mallocgc {{ @[ustack] = count(); }}", self.program.display());
                let mut bpftrace = Command::new("bpftrace");
                bpftrace.args(["-p", &self.target.pid().to_string(), "-e", &script]);
                let mut bpftrace = Process::spawn(&mut bpftrace)?;
                bpftrace.stdout_line(|line| line.starts_with("Attaching"), PATIENCE)?;
                // Killed when dropped: asked to end, it takes up to a minute over its stacks.
                used_during(&bpftrace, || self.block())
            }
        }
    }

    fn profile(&mut self, rate: u32) -> Result<()> {
        self.target.send(&format!("profile {rate}"))?;
        self.target.stdout_line(|line| line == "done", PATIENCE).map(drop)
    }

    /// What the target does from now on, once it has settled.
    fn block(&mut self) -> Result<Block> {
        #[derive(Deserialize)]
        struct Line {
            ops: f64,
            allocs: f64,
            bytes: f64,
            ns: f64,
            p99_ns: f64,
        }
        self.target.discard_stdout();
        let mut block = Block::default();
        for number in 0..self.settle + self.intervals {
            let line = self.target.stdout_line(|line| line.starts_with('{'), PATIENCE)?;
            if number < self.settle {
                continue;
            }
            let line: Line = serde_json::from_str(&line)?;
            block += Block {
                ops: line.ops,
                allocs: line.allocs,
                bytes: line.bytes,
                seconds: line.ns / 1e9,
                p99_ms: line.p99_ns / 1e6,
            };
        }
        Ok(block)
    }
}

/// What `work` gives, and what a watcher uses meanwhile.
fn used_during<T>(watcher: &Process, work: impl FnOnce() -> Result<T>) -> Result<(T, Use)> {
    let (begin, before) = (Instant::now(), cpu_seconds(watcher.pid())?);
    let done = work()?;
    let cpu_percent = 100.0 * (cpu_seconds(watcher.pid())? - before) / begin.elapsed().as_secs_f64();
    Ok((done, Use { cpu_percent, mib: peak_mib(watcher.pid())? }))
}

/// Processor time of a process so far (proc(5), `/proc/PID/stat`, in hundredths of seconds).
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).context("/proc/PID/stat");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// The most memory that a process has had.
fn peak_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("/proc/PID/status")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
