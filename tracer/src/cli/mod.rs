//! The command line: arguments, and one file per command (tier 9).
//!
//! Data goes to stdout and everything else to stderr, so that output can be piped.

pub mod args;
mod diff;
mod doctor;
mod gc;
mod goroutines;
mod hunt;
mod plan;
mod record;
mod report;
mod session;
mod snapshot;
mod stream;

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;

use args::{Cli, Command, TargetArgs};
use indicatif::{ProgressBar, ProgressBarIter, ProgressFinish, ProgressStyle};
use regex::Regex;

use crate::base::{Error, Result};
use crate::capture::Reader;
use crate::event::Event;
use crate::export;
use crate::source::{self, Replay};
use crate::target::{self, Identity, Spawned};

/// Runs the command and returns the exit code (see `heaptap --help`).
pub fn run(cli: &Cli) -> u8 {
    start_log(cli.verbose);
    let outcome = match &cli.command {
        Command::Record(args) => record::run(args),
        Command::Report(args) => report::run(args),
        Command::Hunt(args) => hunt::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Gc(args) => gc::run(args),
        Command::Goroutines(args) => goroutines::run(args),
        Command::Snapshot(args) => snapshot::run(args),
        Command::Session(args) => session::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Guard(args) => crate::session::guard_rate(args.address, args.own, args.set).map(|()| 0),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            print_error(&error);
            error.kind().exit_code()
        }
    }
}

/// The process that `--pid` or `--name` means.
fn find_process(pid: Option<i32>, name: Option<&str>) -> Result<i32> {
    match (pid, name) {
        (Some(pid), _) => target::by_pid(pid),
        (None, Some(name)) => target::by_name(name),
        (None, None) => Err(Error::usage("no process named").hint("give --pid or --name")),
    }
}

/// The process to trace, and what holds it back if it is started here, with this stdout.
fn open(
    args: &TargetArgs,
    command: &[String],
    stdout: Stdio,
    assume_go: Option<&str>,
) -> Result<(Identity, Option<Spawned>)> {
    let spawned = if args.exec { Some(Spawned::start(command, stdout)?) } else { None };
    let pid = match &spawned {
        Some(spawned) => spawned.pid(),
        None => find_process(args.pid, args.name.as_deref())?,
    };
    Ok((target::identify(pid, assume_go)?, spawned))
}

/// Lets a process that was started run, now that probes are in place, and says what is done
/// to it.
fn begin(target: &Identity, spawned: Option<&mut Spawned>, doing: &str) -> Result<()> {
    spawned.map_or(Ok(()), Spawned::release)?;
    note(&format!("{doing} {} {} (Ctrl-C ends)", target.target.pid, target.target.exe));
    Ok(())
}

/// A stdout for a process started here that keeps what it prints apart from our data.
fn stderr_for_target() -> Result<Stdio> {
    let stderr = io::stderr().as_fd().try_clone_to_owned();
    stderr.map(Stdio::from).map_err(|e| Error::failed("cannot use stderr").because(e))
}

/// Reads a capture file: how far that is, those see who watch.
fn read_capture(path: &Path, apply: impl FnMut(&Event)) -> Result<()> {
    let input = File::open(path)
        .map_err(|e| Error::usage(format!("cannot open capture {}", path.display())).because(e))?;
    let reader = Reader::new(watched_read(input, path), path.display().to_string())?;
    source::for_each(Replay::new(reader), apply)
}

/// The event loop of the commands that follow a process.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::failed("cannot start the event loop").because(e))
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    env_logger::Builder::new().filter_level(level).format_timestamp(None).parse_env("HEAPTAP_LOG").init();
}

fn print_error(error: &Error) {
    note(&format!("heaptap: {error}"));
    if let Some(hint) = error.hint_text() {
        note(&format!("\nhint: {hint}"));
    }
}

/// A line for the user, on stderr. A closed stderr is no reason to fail.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether someone watches stderr, so that progress is worth showing.
fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// A file that is about to be read whole: how far that is, those see who watch.
fn watched_read<R: Read>(input: R, path: &Path) -> ProgressBarIter<R> {
    let bar = match std::fs::metadata(path) {
        Ok(file) if is_watched() && file.is_file() => ProgressBar::new(file.len()),
        _ => ProgressBar::hidden(),
    };
    let style = ProgressStyle::with_template("reading {bar:40} {bytes} of {total_bytes}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_finish(ProgressFinish::AndClear)
        .wrap_read(input)
}

/// Writes data to stdout; a reader that went away (`heaptap report … | head`) is success.
fn to_stdout(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Error::failed("cannot write to stdout").because(e)),
        Ok(()) => Ok(()),
    }
}

/// Puts a report out: to a file, or else to stdout.
fn deliver(output: Option<&Path>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    match output {
        Some(path) => export::to_file(path, write),
        None => write(&mut io::BufWriter::new(io::stdout().lock())),
    }
}

/// Refuses to put bytes out on a terminal that are no text.
fn check_terminal(output: Option<&Path>, what: &str) -> Result<()> {
    if output.is_none() && io::stdout().is_terminal() {
        return Err(Error::usage(format!("{what} is binary")).hint("add -o FILE, or pipe it on"));
    }
    Ok(())
}

/// What `--filter` asks for.
fn filter(pattern: Option<&str>) -> Result<Option<Regex>> {
    let regex = pattern.map(Regex::new).transpose();
    regex.map_err(|e| Error::usage("--filter is no regular expression").because(e))
}

fn write_json(value: &impl serde::Serialize) -> Result<()> {
    to_stdout(|out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        out.write_all(b"\n")
    })
}
