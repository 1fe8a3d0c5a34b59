//! Runs every test: of the crates, and of heaptap on real Go programs.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use xtask::shell;
use xtask::{browser, go};

/// What `cargo xtask test` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go lines to test on: `all`, `subset`, or a list as `1.24,1.27`
    #[arg(long, value_name = "LINES", default_value = "subset")]
    pub(crate) go: String,
    /// Leave out the tests that attach to processes and so need root and BPF
    #[arg(long)]
    pub(crate) unprivileged: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    for line in go::parse_lines(&args.go)? {
        line.go()?;
    }
    browser::driver()?;
    if !args.unprivileged && !nix::unistd::geteuid().is_root() {
        bail!("the tests that attach to processes need root; --unprivileged leaves them out");
    }
    let mut total = Tally::default();
    total += run_tests(shell::cargo().args(["test", "--workspace", "--exclude", "tests", "--no-fail-fast"]))?;
    shell::run(shell::cargo().args(["build", "--release", "--package", "tracer"]))?;
    total += run_tests(&mut tests_on_go(args))?;
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 || total.broken {
        bail!("tests failed");
    }
    Ok(())
}

/// The tests package, told what to test on. The tests that need root are in modules
/// called `privileged`.
fn tests_on_go(args: &Args) -> Command {
    let heaptap = shell::root().join("target/release/heaptap");
    let mut cargo = shell::cargo();
    cargo.env("HEAPTAP_BIN", heaptap).env("HEAPTAP_TEST_GO", &args.go);
    cargo.args(["test", "--package", "tests", "--no-fail-fast"]);
    if args.unprivileged {
        cargo.args(["--", "--skip", "privileged::"]);
    }
    cargo
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    /// The run ended badly, by a failed test or otherwise (one that does not compile).
    broken: bool,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.broken |= other.broken;
    }
}

/// Runs `cargo test`, its output passed through, and sums up its results.
fn run_tests(cargo: &mut Command) -> Result<Tally> {
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().context("no stdout")?).lines() {
        let line = line?;
        println!("{line}");
        if let Some((passed, failed)) = parse_result(&line) {
            tally.passed += passed;
            tally.failed += failed;
        }
    }
    tally.broken = !child.wait()?.success();
    Ok(tally)
}

/// The numbers of `test result: ok. 3 passed; 0 failed; …`.
fn parse_result(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = counts.split("; ");
    let passed = counts.next()?.strip_suffix(" passed")?.parse().ok()?;
    let failed = counts.next()?.strip_suffix(" failed")?.parse().ok()?;
    Some((passed, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed_up() {
        let line = "test result: FAILED. 12 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(parse_result(line), Some((12, 1)));
        assert_eq!(parse_result("running 3 tests"), None);
    }
}
