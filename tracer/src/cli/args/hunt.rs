//! What `heaptap hunt` takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::LaneArgs;

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
    #[command(flatten)]
    pub lane: LaneArgs,
    /// Keep the capture in this file
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = HuntFormat::Text)]
    pub format: HuntFormat,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
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
