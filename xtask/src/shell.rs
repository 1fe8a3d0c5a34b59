//! Running other programs, and installing the ones that are missing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

/// The top of the work tree.
pub fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// The `cargo` that runs us, else the one on the path; it starts in the work tree.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Runs a command to its end, its output passed through.
///
/// # Errors
/// When it cannot be started or does not end with code 0.
pub fn run(command: &mut Command) -> Result<()> {
    eprintln!("+ {}", display(command));
    let status = command.status().with_context(|| format!("cannot run {}", display(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", display(command));
    }
    Ok(())
}

/// Runs a command to its end and returns what it wrote to stdout; stderr passes through.
///
/// # Errors
/// When it cannot be started, does not end with code 0, or writes no UTF-8.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", display(command)))?;
    if !out.status.success() {
        bail!("{} failed: {}", display(command), out.status);
    }
    String::from_utf8(out.stdout).with_context(|| format!("output of {}", display(command)))
}

/// Whether the command can be run and ends with code 0; its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// Whether a program of this name is on the path.
pub fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Installs Debian packages; the package lists are refreshed once per run of the program.
///
/// # Errors
/// When there is no apt-get, it may not install (no root), or a package is unknown.
pub fn apt_install(packages: &[&str]) -> Result<()> {
    static LISTS_FRESH: Mutex<bool> = Mutex::new(false);
    let mut fresh = LISTS_FRESH.lock().unwrap_or_else(PoisonError::into_inner);
    if !*fresh {
        run(apt().arg("update")).context("refreshing the package lists (needs root)")?;
        *fresh = true;
    }
    run(apt().args(["install", "-y", "--no-install-recommends"]).args(packages))
        .with_context(|| format!("installing {}; as root: apt-get install {0}", packages.join(" ")))
}

/// apt-get without questions, waiting for another one to finish; its chatter goes to
/// stderr, since stdout is for a task's result.
fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt.args(["-qq", "-o", "DPkg::Lock::Timeout=300"]).stdin(Stdio::null()).stdout(std::io::stderr());
    apt
}

/// The command as one would type it.
fn display(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args().map(OsStr::to_string_lossy) {
        text.push(' ');
        text.push_str(&arg);
    }
    text
}
