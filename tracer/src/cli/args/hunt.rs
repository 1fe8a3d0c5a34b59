//! What `heaptap hunt` takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Mode, parse_memory, parse_percent, parse_rate};

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("prey").required(true))]
pub struct Hunt {
    /// A capture file, instead of a process
    #[arg(group = "prey", conflicts_with_all = ["output", "until_sure"])]
    pub file: Option<PathBuf>,
    /// The process with this id
    #[arg(long, value_name = "PID", group = "prey")]
    pub pid: Option<i32>,
    /// The one process with this name (as `pgrep -x` finds it)
    #[arg(long, value_name = "NAME", group = "prey")]
    pub name: Option<String>,
    /// Start the command after `--`, with probes in place before its first instruction
    #[arg(long, requires = "cmd", group = "prey")]
    pub exec: bool,
    /// Hunt for this long (30s, 5m), or until the target ends, or Ctrl-C
    #[arg(long = "for", value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Stop as soon as a leak is found beyond doubt
    #[arg(long)]
    pub until_sure: bool,
    /// Which allocations are seen
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub mode: Mode,
    /// With --mode runtime: set the program's own rate of samples, as `record` does
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    pub set_memprofile_rate: Option<u64>,
    /// Keep the capture in this file
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = HuntFormat::Text)]
    pub format: HuntFormat,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Follow what C code allocates, too, so that a leak there is named with its call
    #[arg(long)]
    pub cgo: bool,
    /// Memory for following objects until they die; beyond it they are sampled
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_memory)]
    pub max_memory: u64,
    /// Take the probes off when they take more of the target's CPU time than this (5%), as
    /// `record` does
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub max_overhead: Option<f64>,
    /// Most that the probes may take of the target's CPU time on average, with --mode burst
    #[arg(long, value_name = "PERCENT", default_value = "1%", value_parser = parse_percent)]
    pub budget: f64,
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
pub enum HuntFormat {
    Text,
    /// The report of a capture, findings included
    Json,
    /// A page for a browser, which needs no network
    Html,
    /// For a ticket
    Markdown,
}
