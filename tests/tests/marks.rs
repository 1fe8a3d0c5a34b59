//! Marked functions and lines of real processes: exact counts, whatever unwinds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;
use tests::{
    GoLine, NEWEST, PATIENCE, Process, Variant, await_recording, build, check_lines, end_recording, heaptap,
    run_heaptap, source_dir, start_target,
};

/// What the target program says that it has done.
#[derive(Debug, Deserialize)]
struct Manifest {
    goroutines: BTreeSet<u64>,
    calls: BTreeMap<String, Calls>,
    rounds: u64,
    loop_rounds: u64,
    leaf_outside: u64,
}

#[derive(Debug, Deserialize)]
struct Calls {
    count: u64,
    returned: u64,
}

/// The number of the line of the target's source that holds this.
fn line_of(text: &str) -> Result<usize> {
    let source = fs::read_to_string(source_dir("marks").join("main.go"))?;
    let found = source.lines().position(|line| line.contains(text));
    Ok(found.with_context(|| format!("no line with {text}"))? + 1)
}

/// The machine code of a process's own executable.
fn code(pid: u32) -> Result<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let map = maps.lines().find(|map| map.contains(" r-xp ")).context("no code")?;
    let (start, end) = map.split(' ').next().and_then(|range| range.split_once('-')).context("a range")?;
    let [start, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16));
    let (start, end) = (start?, end?);
    let mut code = vec![0; usize::try_from(end - start)?];
    File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut code, start)?;
    Ok(code)
}

fn check(line: GoLine) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let file = scratch.path().join("marks.heaptap");
    let mut target = start_target(&build("marks", line, Variant::Stripped)?, &[])?;
    let original = code(target.pid())?;
    let in_loop = format!("main.inner:{}", line_of("// in a loop")?);
    let mut record = heaptap();
    record.args(["record", "--mode", "exact", "--pid", &target.pid().to_string()]);
    let regions = ["main.outer", "inner", "main.recurse", "main.rescue", "main.through"];
    record.args(regions.iter().flat_map(|name| ["--mark-region", name]));
    record.args(["--mark", "main.leaf", "--mark", &in_loop, "-o"]).arg(&file);
    let mut record = Process::spawn(&mut record)?;
    await_recording(&mut record)?;
    ensure!(code(target.pid())? != original, "there is no probe");
    target.send("go")?;
    let said = target.stdout_line(|line| line.starts_with('{'), PATIENCE)?;
    let manifest: Manifest = serde_json::from_str(&said)?;
    end_recording(record)?;
    ensure!(code(target.pid())? == original, "something is left behind");

    let path = file.to_str().context("a path in UTF-8")?;
    let report: Value = serde_json::from_str(&run_heaptap(&["report", path, "--json"])?.stdout)?;
    let marks = report["marks"].as_array().context("no marks")?;
    let mark = |name: &str| marks.iter().find(|mark| mark["name"] == name).with_context(|| name.to_owned());
    for name in regions {
        let full = if name == "inner" { "main.inner" } else { name };
        let calls = &manifest.calls[full];
        let (mark, region) = (mark(name)?, &mark(name)?["region"]);
        ensure!(mark["count"] == calls.count, "{mark} of {calls:?}");
        ensure!(region["ended"] == calls.returned, "{mark} of {calls:?}");
        ensure!(region["unended"] == calls.count - calls.returned, "{mark} of {calls:?}");
        ensure!(region["open"] == 0 && region["unbegun"] == 0, "{mark}");
    }
    let slept = mark("main.outer")?["region"]["total_ns"].as_u64().context("total_ns")?;
    let least = 1_000_000 * manifest.rounds * manifest.goroutines.len() as u64;
    ensure!(slept >= least, "{slept} ns of calls that each sleep a millisecond");
    ensure!(mark(&in_loop)?["count"] == manifest.loop_rounds, "{} of {manifest:?}", mark(&in_loop)?);
    let inner = manifest.calls["main.inner"].count;
    let leaves = manifest.loop_rounds + inner / 2 + manifest.leaf_outside;
    ensure!(mark("main.leaf")?["count"] == leaves, "{} of {leaves}", mark("main.leaf")?);
    check_stream(target)
}

/// Once more, few enough events for a reader to keep up.
fn check_stream(mut target: Process) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut record = heaptap();
    record.args(["record", "--mode", "exact", "--stream", "--mark-region", "main.outer", "--pid"]);
    record.arg(target.pid().to_string()).arg("-o").arg(scratch.path().join("stream.heaptap"));
    let mut record = Process::spawn(&mut record)?;
    await_recording(&mut record)?;
    target.send("go")?;
    let said = target.stdout_line(|line| line.starts_with('{'), PATIENCE)?;
    let manifest: Manifest = serde_json::from_str(&said)?;
    let printed = end_recording(record)?.stdout;
    let lines = printed.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let outer: Vec<&Value> =
        lines.iter().filter(|l| l["event"] == "mark" && l["name"] == "main.outer").collect();
    ensure!(outer.len() as u64 == manifest.calls["main.outer"].count, "{} lines", outer.len());
    let goroutines: BTreeSet<u64> = outer.iter().filter_map(|line| line["goroutine"].as_u64()).collect();
    ensure!(goroutines == manifest.goroutines, "{goroutines:?} of {:?}", manifest.goroutines);
    Ok(())
}

mod privileged {
    use super::*;

    #[test]
    fn calls_and_regions_are_counted_exactly() -> Result<()> {
        check_lines(check)
    }

    #[test]
    fn what_cannot_be_marked_is_said_with_what_can() -> Result<()> {
        let target = start_target(&build("marks", NEWEST, Variant::Stripped)?, &[])?;
        let scratch = tempfile::tempdir()?;
        for (flag, mark, want) in [
            ("--mark", "main.recurs", "main.recurse"),
            ("--mark-region", "Error", "give the whole name"),
            ("--mark", "main.leaf:1", "no code of it is of this line"),
        ] {
            let mut record = Command::new(heaptap().get_program());
            record.args(["record", "--mode", "exact", "--pid", &target.pid().to_string(), flag, mark, "-o"]);
            let ended = Process::spawn(record.arg(scratch.path().join("no.heaptap")))?.wait(PATIENCE)?;
            ensure!(ended.status.code() == Some(2), "{mark}: {} {}", ended.status, ended.stderr);
            ensure!(ended.stderr.contains(want), "{mark}: {}", ended.stderr);
        }
        Ok(())
    }
}
