//! `heaptap record --stream`: what its lines say of a real process, and who reads them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::manifest::Manifest;
use tests::{
    GoLine, NEWEST, PATIENCE, Process, Report, Variant, await_recording, build, check_lines, end_recording,
    heaptap, start_target,
};

fn streaming(pid: u32, capture: &Path) -> Command {
    let mut record = heaptap();
    record.args(["record", "--mode", "exact", "--stream", "--pid", &pid.to_string(), "-o"]).arg(capture);
    record
}

/// The lines of one event.
fn of<'l>(lines: &'l [Value], event: &str) -> Vec<&'l Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

fn sum(summaries: &[&Value], field: &str) -> i64 {
    summaries.iter().filter_map(|summary| summary[field].as_i64()).sum()
}

/// The lines of a recording of `exact`, what it did, and what a report says of it.
fn stream_of(line: GoLine) -> Result<(Vec<Value>, Manifest, Report)> {
    let scratch = tempfile::tempdir()?;
    let file = scratch.path().join("stream.heaptap");
    let mut target = start_target(&build("exact", line, Variant::Stripped)?, &[])?;
    let mut record = Process::spawn(&mut streaming(target.pid(), &file))?;
    await_recording(&mut record)?;
    target.send("go")?;
    let manifest = target.stdout_line(|line| line.starts_with('{'), PATIENCE)?;
    record.stdout_line(|line| line.contains(r#""event":"summary""#), PATIENCE)?;
    let printed = end_recording(record)?.stdout;
    let lines = printed.lines().map(serde_json::from_str).collect::<Result<_, _>>();
    Ok((lines.context(printed)?, serde_json::from_str(&manifest)?, Report::of(&file)?))
}

fn check(line: GoLine) -> Result<()> {
    let (lines, manifest, report) = stream_of(line)?;
    let (first, last) = (lines.first().context("no line")?, lines.last().context("no line")?);
    ensure!(first["event"] == "start" && first["mode"] == "exact", "{first}");
    ensure!(first["target"]["go_version"] == format!("go{}", line.version), "{first}");
    ensure!(last["event"] == "end" && last["reason"] == "interrupted", "{last}");
    ensure!(last["totals"]["alloc_bytes"] == report.totals.alloc_bytes, "{last}");

    let summaries = of(&lines, "summary");
    let dropped = sum(&summaries, "dropped_lines");
    ensure!(dropped == 0, "{dropped} lines were dropped though they were read at once");
    let added = (sum(&summaries, "alloc_objects"), sum(&summaries, "alloc_bytes"));
    let total = (report.totals.alloc_objects as i64, report.totals.alloc_bytes as i64);
    ensure!(added == total, "{added:?} of {total:?}");
    let named = summaries.iter().flat_map(|s| s["sites"].as_array().into_iter().flatten());
    let largest = manifest.sites.iter().max_by_key(|site| site.bytes).context("no site")?;
    let function = format!("main.{}", largest.name);
    ensure!(named.filter(|site| site["function"] == function).count() > 0, "{function} is not named");

    let cycles = of(&lines, "gc");
    ensure!(cycles.len() >= manifest.gc_cycles as usize, "{} cycles", cycles.len());
    ensure!(cycles.iter().all(|cycle| cycle["heap_goal"].as_u64() > Some(0)), "{cycles:?}");
    ensure!(of(&lines, "stw").len() >= 2 * cycles.len(), "{} stops", of(&lines, "stw").len());
    let deaths = of(&lines, "deaths");
    let judged = report.capture.following.context("nothing was followed")?.judged_gc_cycles;
    ensure!(deaths.len() as u64 == judged && judged > 0, "{} of {judged}", deaths.len());
    ensure!(deaths.iter().any(|deaths| deaths["slots"].as_u64() > Some(0)), "{deaths:?}");
    Ok(())
}

mod privileged {
    use super::*;

    #[test]
    fn its_lines_add_up_to_the_report() -> Result<()> {
        check_lines(check)
    }

    #[test]
    fn the_recording_ends_when_nobody_reads_any_more() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let file = scratch.path().join("head.heaptap");
        let target = start_target(&build("churn", NEWEST, Variant::Stripped)?, &["-rate", "1000"])?;
        let record = streaming(target.pid(), &file);
        let mut pipe = Command::new("bash");
        pipe.args(["-o", "pipefail", "-c", r#""$0" "$@" | head -n 1"#]);
        pipe.arg(record.get_program()).args(record.get_args());
        let ended = Process::spawn(&mut pipe)?.wait(PATIENCE)?;
        ensure!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
        ensure!(ended.stdout.lines().count() == 1, "{}", ended.stdout);

        let report = Report::of(&file)?;
        let incomplete = report.capture.notes.iter().find(|note| note.contains("incomplete"));
        ensure!(incomplete.is_none() && report.totals.alloc_objects > 0, "{:?}", report.capture);
        Ok(())
    }

    #[test]
    fn what_a_started_program_prints_is_not_among_the_lines() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let mut record = heaptap();
        record.args(["record", "--mode", "exact", "--stream", "-o"]).arg(scratch.path().join("exec.heaptap"));
        record.args(["--exec", "--"]).arg(build("exact", NEWEST, Variant::Stripped)?);
        let mut record = Process::spawn(&mut record)?;
        record.stderr_line(|line| line == "ready", PATIENCE)?;
        let ended = record.wait(PATIENCE)?;
        ensure!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
        for line in ended.stdout.lines() {
            serde_json::from_str::<Value>(line).context(line.to_owned())?;
        }
        ensure!(ended.stdout.contains(r#""reason":"target_exited""#), "{}", ended.stdout);
        Ok(())
    }
}
