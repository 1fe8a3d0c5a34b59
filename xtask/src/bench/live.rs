//! How long it takes to find out what a GC cycle left alive, and what following costs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use xtask::go;
use xtask::process::Process;
use xtask::shell;
use xtask::targets::{self, Variant};

use super::{PATIENCE, heaptap, interrupt};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Go lines to measure
    #[arg(long, value_name = "LINES", default_value = "1.19,1.27")]
    go: String,
    /// Bytes of small objects that the target keeps, in MiB
    #[arg(long, default_value_t = 1024)]
    mib: u32,
}

pub(super) fn run(args: &Args) -> Result<()> {
    shell::run(shell::cargo().args(["build", "--release", "--package", "tracer"]))?;
    println!("{}", super::machine()?);
    println!(
        "\nTarget: {} MiB of objects of 8 to 640 B, followed from the first; cycles that leave all of them \
         alive, then one that leaves half.\n",
        args.mib
    );
    println!("| Go | alive | objects | bytes of memory per object | longest judgement (CPU time) | lost |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let fill = format!("fill {}", args.mib);
    for line in go::parse_lines(&args.go)? {
        let program = targets::build("lives", line, Variant::Stripped)?;
        for (alive, steps) in [("all", &[&*fill, "gc"][..]), ("half", &[&fill, "gc", "drop", "gc"])] {
            let figures = once(&program, steps)?;
            println!("| {line} | {alive} | {figures} |");
        }
    }
    Ok(())
}

/// Records a target while it takes these steps: the cells of a row.
fn once(program: &Path, steps: &[&str]) -> Result<String> {
    let scratch = tempfile::tempdir()?;
    let capture = scratch.path().join("live.heaptap");
    let mut target = Process::spawn(&mut Command::new(program))?;
    target.stdout_line(|line| line == "ready", PATIENCE)?;
    let mut record = heaptap();
    record.args(["record", "--mode", "exact", "--pid", &target.pid().to_string(), "-o"]).arg(&capture);
    let mut record = Process::spawn(&mut record)?;
    record.stderr_line(|line| line.starts_with("recording"), PATIENCE)?;
    for step in steps {
        target.send(step)?;
        target.stdout_line(|line| line.starts_with('{'), 10 * PATIENCE)?;
    }
    interrupt(record)?;
    let report = shell::output(heaptap().arg("report").arg(&capture).arg("--json"))?;
    let report: serde_json::Value = serde_json::from_str(&report)?;
    let following = &report["capture"]["following"];
    let number = |name: &str| following[name].as_f64().with_context(|| format!("{name} in {following}"));
    let objects = number("objects")?;
    Ok(format!(
        "{:.1} million | {:.1} | {:.0} ms | {}",
        objects / 1e6,
        number("memory_bytes")? / objects,
        number("longest_judgement_ns")? / 1e6,
        report["capture"]["lost"]
    ))
}
