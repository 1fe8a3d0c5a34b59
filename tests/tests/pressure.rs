//! Under load nothing is lost, and however heaptap ends, its target runs on unharmed.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tests::probes::{code, probe_sites_of};
use tests::{NEWEST, PATIENCE, Process, Report, Signal, Variant, build};
use tests::{await_recording, end_recording, heaptap, start_recording, start_target};

/// The objects the target says it has made so far; awaits its next line.
fn allocs(churn: &mut Process) -> Result<u64> {
    #[derive(Deserialize)]
    struct Line {
        allocs: u64,
    }
    churn.discard_stdout();
    let line = churn.stdout_line(|line| line.starts_with('{'), PATIENCE)?;
    Ok(serde_json::from_str::<Line>(&line)?.allocs)
}

/// Processor time a process has used, all threads (proc_pid_stat(5), fields 14 and 15).
fn processor_time(pid: u32) -> Result<Duration> {
    /// `USER_HZ`, which Linux fixes for user space.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may itself hold spaces.
    let (_, fields) = stat.rsplit_once(") ").context("stat without a name")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |field: usize| fields.get(field - 3).context("a short stat")?.parse().context("a number");
    let (user, system): (f64, f64) = (ticks(14)?, ticks(15)?);
    Ok(Duration::from_secs_f64((user + system) / TICKS_PER_SECOND))
}

mod privileged {
    use super::*;

    #[test]
    fn three_hundred_thousand_allocations_a_second_are_all_recorded() -> Result<()> {
        const SECONDS: u64 = 30;
        const RATE: u64 = 300_000;
        let program = build("churn", NEWEST, Variant::Stripped)?;
        let scratch = tempfile::tempdir()?;
        let file = scratch.path().join("pressure.heaptap");
        let mut churn = start_target(&program, &["-rate", &RATE.to_string(), "-g", "4"])?;
        let record = start_recording(churn.pid(), &file)?;
        let (begin, begin_cpu, begin_allocs) =
            (Instant::now(), processor_time(record.pid())?, allocs(&mut churn)?);
        // The target says a line each second.
        for _ in 0..SECONDS {
            allocs(&mut churn)?;
        }
        let made = allocs(&mut churn)? - begin_allocs;
        let cores = (processor_time(record.pid())? - begin_cpu).as_secs_f64() / begin.elapsed().as_secs_f64();
        end_recording(record)?;

        let report = Report::of(&file)?;
        ensure!(made > SECONDS * RATE * 95 / 100, "the target made only {made} objects");
        ensure!(report.capture.lost == 0, "lost {}: {:?}", report.capture.lost, report.capture.notes);
        ensure!(report.totals.alloc_objects >= made, "{} of {made}", report.totals.alloc_objects);
        ensure!(cores < 1.0, "the collector used {cores:.2} cores");
        Ok(())
    }

    #[test]
    fn a_killed_heaptap_leaves_no_probe_behind() -> Result<()> {
        ["exact", "burst", "runtime"].into_iter().try_for_each(|mode| check_killed(mode).context(mode))
    }

    fn check_killed(mode: &str) -> Result<()> {
        let (program, args) = match mode {
            "runtime" => ("lives", &["4096"][..]),
            _ => ("churn", &["-rate", "10000", "-interval", "100ms"][..]),
        };
        let program = build(program, NEWEST, Variant::Plain)?;
        let addresses: Vec<u64> = probe_sites_of(&program, mode)?.iter().map(|site| site.address).collect();
        let scratch = tempfile::tempdir()?;
        let mut churn = start_target(&program, args)?;
        let original = code(churn.pid(), &addresses)?;
        let mut record = heaptap();
        record.args(["record", "--mode", mode, "--pid", &churn.pid().to_string(), "-o"]);
        let mut record = Process::spawn(record.arg(scratch.path().join("killed.heaptap")))?;
        await_recording(&mut record)?;
        // In windows, the sites of allocations come and go.
        let patience = Instant::now() + PATIENCE;
        while code(churn.pid(), &addresses)?.iter().zip(&original).any(|(now, before)| now == before) {
            ensure!(Instant::now() < patience, "there are no probes at some sites");
        }
        record.signal(Signal::SIGKILL)?;
        record.wait(PATIENCE)?;

        // The kernel lets go of the probes some time after the process.
        let patience = Instant::now() + PATIENCE;
        while code(churn.pid(), &addresses)? != original {
            ensure!(Instant::now() < patience, "probes are still in place");
            std::thread::yield_now();
        }
        if mode == "runtime" {
            tests::lives::step(&mut churn, "gc")?;
            return Ok(());
        }
        let then = allocs(&mut churn)?;
        ensure!(allocs(&mut churn)? > then, "the target stands still");
        Ok(())
    }
}
