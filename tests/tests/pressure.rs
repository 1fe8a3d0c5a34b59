//! Under load nothing is lost, and however heaptap ends, its target runs on unharmed.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tests::probes::{code, probe_sites};
use tests::{NEWEST, PATIENCE, Process, Report, Signal, Variant, build};
use tests::{end_recording, start_recording, start_target};

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
        let program = build("churn", NEWEST, Variant::Plain)?;
        let addresses: Vec<u64> = probe_sites(&program)?.iter().map(|site| site.address).collect();
        let scratch = tempfile::tempdir()?;
        let mut churn = start_target(&program, &["-rate", "10000", "-interval", "100ms"])?;
        let original = code(churn.pid(), &addresses)?;
        let record = start_recording(churn.pid(), &scratch.path().join("killed.heaptap"))?;
        let probed = code(churn.pid(), &addresses)?;
        for ((site, before), during) in addresses.iter().zip(&original).zip(&probed) {
            ensure!(before != during, "no probe at {site:#x}");
        }
        record.signal(Signal::SIGKILL)?;
        record.wait(PATIENCE)?;

        // The kernel lets go of the probes some time after the process.
        let patience = Instant::now() + PATIENCE;
        while code(churn.pid(), &addresses)? != original {
            ensure!(Instant::now() < patience, "probes are still in place");
            std::thread::yield_now();
        }
        let then = allocs(&mut churn)?;
        ensure!(allocs(&mut churn)? > then, "the target stands still");
        Ok(())
    }
}
