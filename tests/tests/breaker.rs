//! `record --max-overhead` takes the probes off a target that they cost too much.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tests::probes::{code, probe_sites};
use tests::{GoLine, NEWEST, PATIENCE, Process, Report, Variant, await_recording, build};
use tests::{check_lines, end_recording, heaptap, run_heaptap, start_target};

fn start_limited(pid: u32, limit: &str, capture: &Path) -> Result<Process> {
    let mut record = heaptap();
    record
        .args([
            "record",
            "--mode",
            "exact",
            "--json",
            "--max-overhead",
            limit,
            "--pid",
            &pid.to_string(),
            "-o",
        ])
        .arg(capture);
    let mut record = Process::spawn(&mut record)?;
    await_recording(&mut record)?;
    Ok(record)
}

/// Awaits some more of the target's lines, of which it says ten a second.
fn await_lines(churn: &mut Process, lines: usize) -> Result<()> {
    churn.discard_stdout();
    for _ in 0..lines {
        churn.stdout_line(|line| line.starts_with('{'), PATIENCE)?;
    }
    Ok(())
}

fn check_it_trips(line: GoLine) -> Result<()> {
    let program = build("churn", line, Variant::Plain)?;
    let (allocations, others): (Vec<_>, Vec<_>) =
        probe_sites(&program)?.into_iter().partition(|site| site.is_allocation());
    let allocations: Vec<u64> = allocations.iter().map(|site| site.address).collect();
    let others: Vec<u64> = others.iter().map(|site| site.address).collect();
    let scratch = tempfile::tempdir()?;
    let file = scratch.path().join("tripped.heaptap");
    let mut churn = start_target(&program, &["-interval", "100ms"])?;
    let original = (code(churn.pid(), &allocations)?, code(churn.pid(), &others)?);

    let mut record = start_limited(churn.pid(), "1%", &file)?;
    record.stderr_line(|line| line.contains("no allocations are recorded any more"), PATIENCE)?;
    ensure!(code(churn.pid(), &allocations)? == original.0, "probes on allocations are still in place");
    ensure!(code(churn.pid(), &others)? != original.1, "all other probes are gone, too");
    await_lines(&mut churn, 5)?;
    let recorded = end_recording(record)?;

    let report = Report::of(&file)?;
    let breaker = report.capture.breaker.as_ref().context("no breaker in the report")?;
    ensure!(breaker.tripped_at_s < 1.0, "tripped at {} s", breaker.tripped_at_s);
    ensure!(breaker.overhead_percent > 10.0, "at {}%", breaker.overhead_percent);
    ensure!((breaker.limit_percent - 1.0).abs() < f64::EPSILON, "{}%", breaker.limit_percent);
    ensure!(report.capture.notes.iter().any(|n| n.contains("--max-overhead")), "{:?}", report.capture.notes);
    ensure!(report.is_complete(), "before it tripped: {:?}", report.capture);
    let later = |ns: i64| ns as f64 > (breaker.tripped_at_s + 0.1) * 1e9;
    ensure!(report.gc.iter().any(|cycle| later(cycle.mark_end_ns)), "no GC cycle was seen afterwards");
    let cost = report.capture.cost.as_ref().context("no cost in the report")?;
    ensure!(cost.hits >= report.totals.alloc_objects, "{cost:?}");
    ensure!((100..20_000).contains(&cost.trap_ns), "{cost:?}");

    let path = file.to_str().context("a path in UTF-8")?;
    let replayed = run_heaptap(&["report", path, "--json"])?;
    ensure!(recorded.stdout == replayed.stdout, "the replay says something else");
    Ok(())
}

mod privileged {
    use super::*;

    #[test]
    fn a_target_that_allocates_all_the_time_trips_it_within_a_second() -> Result<()> {
        check_lines(check_it_trips)
    }

    #[test]
    fn a_target_that_allocates_little_does_not_trip_it() -> Result<()> {
        let program = build("churn", NEWEST, Variant::Stripped)?;
        let scratch = tempfile::tempdir()?;
        let file = scratch.path().join("quiet.heaptap");
        let mut churn = start_target(&program, &["-rate", "100", "-interval", "100ms"])?;
        let record = start_limited(churn.pid(), "50%", &file)?;
        await_lines(&mut churn, 15)?;
        end_recording(record)?;
        let capture = Report::of(&file)?.capture;
        ensure!(capture.breaker.is_none(), "{capture:?}");
        let cost = capture.cost.context("no cost in the report")?;
        ensure!(cost.hits > 0 && cost.target_cpu_percent < 50.0, "{cost:?}");
        Ok(())
    }
}
