//! Helpers the tests share: Go lines and target programs to test on, running heaptap.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use xtask::go;
pub use xtask::go::GoLine;
pub use xtask::process::{Ended, Process, Signal};
pub use xtask::targets::{Variant, build, build_with, source_dir};

pub mod browser;
pub mod dump;
pub mod lives;
pub mod manifest;
pub mod probes;
pub mod profile;
pub mod report;

pub use report::Report;

/// Longer than anything takes that is awaited.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The newest Go line, for tests that one line is enough for.
pub const NEWEST: GoLine = go::NEWEST;

/// The Go lines to test on: `HEAPTAP_TEST_GO` (as `1.24,1.27`, or `all`), else the subset.
///
/// # Errors
/// When the variable names a line that is not tested.
pub fn go_lines() -> Result<Vec<GoLine>> {
    go::parse_lines(&go_choice()).context("HEAPTAP_TEST_GO")
}

/// The Go lines with the variants to test of each: all variants of all lines when all
/// lines are asked for; else plain and stripped, and the others on the newest line only.
///
/// # Errors
/// As [`go_lines`].
pub fn matrix() -> Result<Vec<(GoLine, Variant)>> {
    let lines = go_lines()?;
    let whole = go_choice() == "all";
    let newest = lines.iter().max().copied();
    let wanted = |line, variant| {
        whole || matches!(variant, Variant::Plain | Variant::Stripped) || Some(line) == newest
    };
    let pairs = lines.into_iter().flat_map(|line| Variant::ALL.map(|variant| (line, variant)));
    Ok(pairs.filter(|&(line, variant)| wanted(line, variant)).collect())
}

/// Checks each of these programs; the error names all that fail, not only the first.
///
/// # Errors
/// When a check fails.
pub fn check_programs(
    programs: Vec<(GoLine, Variant)>,
    mut check: impl FnMut(GoLine, Variant) -> Result<()>,
) -> Result<()> {
    let named = programs.into_iter().map(|(line, variant)| (format!("{line} {variant}"), (line, variant)));
    check_each(named, |(line, variant)| check(line, variant))
}

/// As [`check_programs`], with each of the [`go_lines`].
///
/// # Errors
/// When a check fails, and as `go_lines`.
pub fn check_lines(check: impl FnMut(GoLine) -> Result<()>) -> Result<()> {
    check_each(go_lines()?.into_iter().map(|line| (line.to_string(), line)), check)
}

fn check_each<T>(
    named: impl Iterator<Item = (String, T)>,
    mut check: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let failures: Vec<String> =
        named.filter_map(|(name, item)| Some(format!("Go {name}: {:#}", check(item).err()?))).collect();
    if failures.is_empty() { Ok(()) } else { bail!("\n{}", failures.join("\n")) }
}

fn go_choice() -> String {
    std::env::var("HEAPTAP_TEST_GO").unwrap_or_else(|_| "subset".to_owned())
}

/// The built program `heaptap`: `HEAPTAP_BIN` (set by `cargo xtask test`), else the one
/// that a plain build leaves.
pub fn heaptap() -> Command {
    let built = || xtask::shell::root().join("target/debug/heaptap");
    Command::new(std::env::var_os("HEAPTAP_BIN").map_or_else(built, PathBuf::from))
}

/// Runs heaptap to its end.
///
/// # Errors
/// When it cannot be started, or does not end.
pub fn run_heaptap(args: &[&str]) -> Result<Ended> {
    Process::spawn(heaptap().args(args))?.wait(PATIENCE)
}

/// Starts a target program and awaits its "ready".
///
/// # Errors
/// When it does not become ready.
pub fn start_target(program: &Path, args: &[&str]) -> Result<Process> {
    let mut target = Process::spawn(Command::new(program).args(args))?;
    target.stdout_line(|line| line == "ready", PATIENCE)?;
    Ok(target)
}

/// Starts `heaptap record` on a process; returns when its probes are in place.
///
/// # Errors
/// When it ends before that.
pub fn start_recording(pid: u32, capture: &Path) -> Result<Process> {
    start_recording_with(pid, capture, &[])
}

/// The same, with more arguments.
///
/// # Errors
/// As [`start_recording`].
pub fn start_recording_with(pid: u32, capture: &Path, args: &[&str]) -> Result<Process> {
    let mut record = heaptap();
    record.args(["record", "--mode", "exact", "--pid", &pid.to_string(), "-o"]).arg(capture).args(args);
    let mut record = Process::spawn(&mut record)?;
    await_recording(&mut record)?;
    Ok(record)
}

/// Awaits heaptap's word that its probes are in place.
///
/// # Errors
/// When it ends before that.
pub fn await_recording(record: &mut Process) -> Result<()> {
    record.stderr_line(|line| line.starts_with("recording"), PATIENCE).map(drop)
}

/// Copies a program that is to be run.
///
/// Not by `fs::copy`: a process that another test starts meanwhile holds the file open for
/// writing until it calls exec, and the kernel runs no such file ("text file busy").
///
/// # Errors
/// When it cannot be copied.
pub fn copy_program(from: impl AsRef<Path>, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg(from.as_ref()).arg(to).status().context("cannot run cp")?;
    if !status.success() {
        bail!("cp {} {}: {status}", from.as_ref().display(), to.display());
    }
    Ok(())
}

/// Ends a recording as Ctrl-C does.
///
/// # Errors
/// When it does not end, or not with code 0.
pub fn end_recording(mut record: Process) -> Result<Ended> {
    record.signal(Signal::SIGINT)?;
    // A program that it started shares its standard input, and may end once that is closed
    // to await the end: not before the recording is complete.
    record.stderr_line(|line| line.starts_with("recorded"), PATIENCE)?;
    let ended = record.wait(PATIENCE)?;
    if !ended.status.success() {
        bail!("heaptap record: {}\n{}", ended.status, ended.stderr);
    }
    Ok(ended)
}
