//! The command line as typed: parsed and validated, nothing looked up.

mod hunt;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
pub use hunt::{Hunt, HuntFormat};

use crate::base::{Error, units};
use crate::report::Measure;
use crate::session::GUARDIAN;

/// Says where a running Go process's heap goes, without a restart.
#[derive(Debug, Parser)]
#[command(name = "heaptap", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Say more on stderr; twice for debugging
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 a leak or failed assertion was found, \
                          4 this machine or user cannot do it.\n\
                          Data goes to stdout, progress and notes to stderr.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Record the heap allocations of a process, each or a sample, into a capture file
    Record(Record),
    /// Report a capture file: a table, JSON, CSV, a pprof profile, a flame graph or a page
    Report(Report),
    /// Find out whether a process leaks, what, and how to cure it; exits with 3 if it does
    Hunt(Hunt),
    /// Compare two captures, snapshots or heap profiles: which sites appeared, grew, shrank, are gone
    Diff(Diff),
    /// Print the GC cycles of a process as they end, as GODEBUG=gctrace=1 does
    Gc(Gc),
    /// Show what the goroutines of a process do and where they were created, without stopping it
    Goroutines(Goroutines),
    /// Show what the runtime of a process itself knows of its heap, without any probe
    Snapshot(Snapshot),
    /// Run a scripted session: phases, triggers, assertions, from a file
    Session(Session),
    /// Show what would be probed in a process or executable, and at what price
    Plan(Plan),
    /// Check whether this machine and user can trace, and how to fix it
    Doctor(Doctor),
    /// Started by `record` itself
    #[command(name = GUARDIAN, hide = true)]
    Guard(Guard),
}

/// Which process. Exactly one of the three.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct TargetArgs {
    /// The process with this id
    #[arg(long, value_name = "PID")]
    pub pid: Option<i32>,
    /// The one process with this name (as `pgrep -x` finds it)
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Start the command after `--`, with probes in place before its first instruction
    #[arg(long, requires = "cmd")]
    pub exec: bool,
}

/// Which running process. Exactly one of the two.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ProcessArgs {
    /// The process with this id
    #[arg(long, value_name = "PID")]
    pub pid: Option<i32>,
    /// The one process with this name (as `pgrep -x` finds it)
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// What is seen of a process, and what that may cost.
#[derive(Debug, Args)]
pub struct LaneArgs {
    /// Which allocations
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub mode: Mode,
    /// With --mode runtime: set the program's own rate of samples, runtime.MemProfileRate, to one
    /// in so many bytes (512KiB) until the recording ends, also where its profiler is off
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    pub set_memprofile_rate: Option<u64>,
    /// Follow what C code allocates with malloc and the like, too, and say which calls it was for:
    /// all of it, in each mode
    #[arg(long)]
    pub cgo: bool,
    /// Memory for following objects until they die; beyond it they are sampled; 0: do not follow them
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_memory)]
    pub max_memory: u64,
    /// Take the probes off allocations and marks when they take more of the target's CPU time than this
    /// (5%); the recording goes on without them [default: 5% with --mode runtime, five times the
    /// budget but no less with --mode burst, else and with --cgo no limit]
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub max_overhead: Option<f64>,
    /// Most that the probes may take of the target's CPU time on average, with --mode burst; those of
    /// --cgo are not among them
    #[arg(long, value_name = "PERCENT", default_value = "1%", value_parser = parse_percent)]
    pub budget: f64,
    /// Take the target to be built by this Go version when it does not say (1.26, go1.26.6)
    #[arg(long, value_name = "VERSION")]
    pub assume_go: Option<String>,
    /// Show the eBPF program's own diagnostics
    #[arg(long)]
    pub bpf_log: bool,
}

#[derive(Debug, Args)]
pub struct Record {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub lane: LaneArgs,
    /// Stop after this long (30s, 5m); default: on Ctrl-C or when the target ends
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// The capture file [default: heaptap-PID.heaptap]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Kernel ring buffer; rounded up to a power of two
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_bytes)]
    pub buffer: u64,
    /// Count every allocation in the kernel, by call, type and slot size, and send nothing of each:
    /// that takes heaptap next to no time, but does not tell which objects are alive; of more than
    /// 65,536 of these, the allocations of the others are counted as lost
    #[arg(long)]
    pub counts_only: bool,
    /// Take a census of the process every few seconds: goroutines with their stacks, timers,
    /// finalizers, memory, spans; and look who holds the objects that grow. Evidence for leaks, which
    /// allocations alone do not show
    #[arg(long)]
    pub evidence: bool,
    /// Tell each call of this function (main.handle, or http.(*conn).serve), or each time this line
    /// of it is come to; may be given more than once
    #[arg(long, value_name = "FUNC[:LINE]")]
    pub mark: Vec<String>,
    /// Tell each call of this function, and how long it took; may be given more than once
    #[arg(long, value_name = "FUNC")]
    pub mark_region: Vec<String>,
    /// Frames kept per stack
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=128))]
    pub depth: u32,
    /// Print the report as JSON at the end
    #[arg(long)]
    pub json: bool,
    /// Print what happens as it happens, and a summary each second, as lines of JSON; the
    /// recording ends when nobody reads them any more
    #[arg(long, conflicts_with = "json")]
    pub stream: bool,
    /// The command for --exec
    #[arg(last = true, value_name = "CMD")]
    pub cmd: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// As runtime where the program's own heap profiler is on, else as burst
    Auto,
    /// Every allocation
    Exact,
    /// Those that the program's own heap profiler samples: all numbers are estimates
    Runtime,
    /// Every one in short windows of time, as far as --budget allows: all numbers are
    /// estimates
    Burst,
}

#[derive(Debug, Args)]
pub struct Report {
    /// A capture file
    pub file: PathBuf,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Write to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What sites are ordered by; in folded stacks and flame graphs, what is counted
    #[arg(long, value_enum, default_value_t = Sort::AllocBytes)]
    pub sort: Sort,
    /// What the colours of a flame graph say
    #[arg(long, value_enum, default_value_t = Colors::Package)]
    pub colors: Colors,
    /// A flame graph with the innermost functions at its root
    #[arg(long)]
    pub inverted: bool,
    /// Rows of the table; 0 for all
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// Only sites with a function that matches this regular expression
    #[arg(long, value_name = "REGEX")]
    pub filter: Option<String>,
    /// One row per file and line instead of per function
    #[arg(long)]
    pub lines: bool,
    /// The GC timeline instead of the sites: the latest cycles, and stops of the world
    #[arg(long, conflicts_with_all = ["format", "sort", "filter", "lines", "colors", "inverted"])]
    pub gc: bool,
}

#[derive(Debug, Args)]
pub struct Gc {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Stop after this long (30s, 5m); default: on Ctrl-C or when the target ends
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// One JSON object per cycle and line
    #[arg(long)]
    pub json: bool,
    /// Take the target to be built by this Go version when it does not say (1.26, go1.26.6)
    #[arg(long, value_name = "VERSION")]
    pub assume_go: Option<String>,
    /// Show the eBPF program's own diagnostics
    #[arg(long)]
    pub bpf_log: bool,
    /// The command for --exec
    #[arg(last = true, value_name = "CMD")]
    pub cmd: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
    /// Gzip'd profile.proto for `go tool pprof`
    Pprof,
    /// Comma-separated values, a line per site
    Csv,
    /// One stack per line with a count, for other tools' flame graphs
    Folded,
    /// A flame graph as SVG, to search and zoom in a browser
    Flame,
    /// All of it as one page for a browser, which needs no network
    Html,
    /// The verdict and the findings as Markdown, for a ticket
    Markdown,
    /// A trace for ui.perfetto.dev: heap, GC cycles, stops of the world and assists over time
    Perfetto,
}

impl Format {
    /// Of the names of files.
    pub fn ending(self) -> &'static str {
        match self {
            Format::Table => "txt",
            Format::Json => "json",
            Format::Pprof => "pb.gz",
            Format::Csv => "csv",
            Format::Folded => "folded",
            Format::Flame => "svg",
            Format::Html => "html",
            Format::Markdown => "md",
            Format::Perfetto => "pftrace",
        }
    }
}

/// What the colours of a flame graph say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Colors {
    /// The package of a function
    Package,
    /// How much of what a function allocated is alive, from blue (nothing) to red (all)
    Survival,
}

/// As `go tool pprof` calls them: allocated during the capture, or still in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    AllocBytes,
    AllocObjects,
    InuseBytes,
    InuseObjects,
}

impl Sort {
    pub(super) fn measure(self) -> Measure {
        match self {
            Sort::AllocBytes => Measure::AllocBytes,
            Sort::AllocObjects => Measure::AllocObjects,
            Sort::InuseBytes => Measure::LiveBytes,
            Sort::InuseObjects => Measure::LiveObjects,
        }
    }
}

#[derive(Debug, Args)]
pub struct Diff {
    /// What was before: a capture, a snapshot (`heaptap snapshot --json`) or a pprof heap profile
    #[arg(value_name = "A")]
    pub before: PathBuf,
    /// What it is compared with: any of these
    #[arg(value_name = "B")]
    pub after: PathBuf,
    #[arg(long, value_enum, default_value_t = DiffFormat::Table)]
    pub format: DiffFormat,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Write to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// By whose change sites are ordered; in flame graphs, what is drawn [default: inuse-bytes where
    /// both know what is in use, else alloc-bytes]
    #[arg(long, value_enum)]
    pub measure: Option<Sort>,
    /// Multiply the numbers of A so that both have as much of this [default: compare them as they are]
    #[arg(long, value_enum)]
    pub per: Option<Normaliser>,
    /// Rows of the table; 0 for all
    #[arg(long, visible_alias = "top", value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// Only sites with a function that matches this regular expression
    #[arg(long, value_name = "REGEX")]
    pub filter: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DiffFormat {
    Table,
    Json,
    /// Gzip'd profile.proto for `go tool pprof`, with negative values where there is less
    Pprof,
    /// A flame graph of B as SVG, red where it has more, blue where it has less
    Flame,
}

impl DiffFormat {
    /// Of the names of files.
    pub fn ending(self) -> &'static str {
        match self {
            DiffFormat::Table => "txt",
            DiffFormat::Json => "json",
            DiffFormat::Pprof => "pb.gz",
            DiffFormat::Flame => "svg",
        }
    }
}

/// What both sides of a comparison are to have as much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Normaliser {
    /// Time
    Duration,
    /// GC cycles
    Cycles,
    AllocBytes,
    AllocObjects,
    InuseBytes,
    InuseObjects,
}

#[derive(Debug, Args)]
pub struct Goroutines {
    #[command(flatten)]
    pub process: ProcessArgs,
    #[arg(long, value_enum, default_value_t = GoroutineFormat::Table)]
    pub format: GoroutineFormat,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Write to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Groups shown in the table; 0 for all
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// Only groups with a function, or a creator, that matches this regular expression
    #[arg(long, value_name = "REGEX")]
    pub filter: Option<String>,
    /// Also the runtime's own goroutines and functions
    #[arg(long)]
    pub all: bool,
    /// Take the target to be built by this Go version when it does not say (1.26, go1.26.6)
    #[arg(long, value_name = "VERSION")]
    pub assume_go: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GoroutineFormat {
    Table,
    Json,
    /// Gzip'd profile.proto for `go tool pprof`
    Pprof,
}

#[derive(Debug, Args)]
pub struct Snapshot {
    #[command(flatten)]
    pub process: ProcessArgs,
    #[arg(long, value_enum, default_value_t = SnapshotFormat::Table)]
    pub format: SnapshotFormat,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Write to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What the sites of the heap profile are ordered by
    #[arg(long, value_enum, default_value_t = Sort::InuseBytes)]
    pub sort: Sort,
    /// Sites in the table; 0 for all
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// One row per file and line instead of per function
    #[arg(long)]
    pub lines: bool,
    /// Take the target to be built by this Go version when it does not say (1.26, go1.26.6)
    #[arg(long, value_name = "VERSION")]
    pub assume_go: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SnapshotFormat {
    Table,
    Json,
    /// The heap profile as gzip'd profile.proto for `go tool pprof`
    Pprof,
}

#[derive(Debug, Args)]
pub struct Session {
    #[command(subcommand)]
    pub command: SessionCommand,
}

#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// Run a session file; exits with 3 when an assertion fails
    Run(SessionRun),
    /// Check a session file without running it
    Check(SessionFile),
    /// Print a session file to begin with
    New,
}

#[derive(Debug, Args)]
pub struct SessionFile {
    /// The session file
    pub file: PathBuf,
    /// Change a setting that the file declares in its table `set`
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    pub set: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub struct SessionRun {
    #[command(flatten)]
    pub session: SessionFile,
    /// Print the results as JSON at the end
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Plan {
    #[command(flatten)]
    pub program: ProgramArgs,
    /// Which allocations are to be recorded: all lanes but runtime have the same sites
    #[arg(long, value_enum, default_value_t = Mode::Exact)]
    pub mode: Mode,
    #[arg(long)]
    pub json: bool,
}

/// Which program. Exactly one of the three.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ProgramArgs {
    /// The process with this id
    #[arg(long, value_name = "PID")]
    pub pid: Option<i32>,
    /// The one process with this name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// An executable file
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Doctor {
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Guard {
    pub address: u64,
    pub own: u64,
    pub set: u64,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a setting is written NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    units::parse_bytes(text).map_err(explained)
}

fn parse_percent(text: &str) -> Result<f64, String> {
    units::parse_percent(text).map_err(explained)
}

fn explained(error: Error) -> String {
    match error.hint_text() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}

/// The largest rate: above, the runtime samples as if it were this (runtime/malloc.go
/// `fastexprand`).
const MOST_RATE: u64 = 0x700_0000;

fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        rate @ 1..=MOST_RATE => Ok(rate),
        _ => Err("not a rate of samples; give 1 to 112MiB, as 512KiB".into()),
    }
}

/// Below this, what is known of call sites alone takes more.
const LEAST_MEMORY: u64 = 64 << 10;

fn parse_memory(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        bytes if (1..LEAST_MEMORY).contains(&bytes) => {
            Err("too little to follow objects in; give at least 64KiB, or 0 not to follow them".into())
        }
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Options;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_sessions() {
        let cli = Cli::try_parse_from(["heaptap", "record", "--pid", "1"]).expect("valid");
        let Command::Record(record) = cli.command else { panic!("not record") };
        assert_eq!(
            (record.buffer, record.depth, record.lane.max_memory),
            (Options::RING_BYTES, Options::MAX_DEPTH, Options::MAX_MEMORY)
        );
        assert!((record.lane.budget - Options::BUDGET).abs() < f64::EPSILON, "{}", record.lane.budget);
    }

    #[test]
    fn one_target_is_asked_for() {
        assert!(Cli::try_parse_from(["heaptap", "record", "--pid", "1", "--for", "10s"]).is_ok());
        assert!(Cli::try_parse_from(["heaptap", "plan", "--pid", "1", "--json"]).is_ok());
        assert!(Cli::try_parse_from(["heaptap", "plan", "--pid", "1", "--binary", "x"]).is_err());
        assert!(Cli::try_parse_from(["heaptap", "goroutines", "--name", "x", "--json"]).is_ok());
        assert!(Cli::try_parse_from(["heaptap", "goroutines", "--json"]).is_err());
        assert!(Cli::try_parse_from(["heaptap", "record"]).is_err());
        assert!(Cli::try_parse_from(["heaptap", "record", "--pid", "1", "--name", "x"]).is_err());
        assert!(Cli::try_parse_from(["heaptap", "record", "--exec"]).is_err());
        let cli = Cli::try_parse_from(["heaptap", "record", "--exec", "--", "ls", "-l"]).expect("valid");
        let Command::Record(record) = cli.command else { panic!("not record") };
        assert_eq!(record.cmd, ["ls", "-l"]);
    }
}
