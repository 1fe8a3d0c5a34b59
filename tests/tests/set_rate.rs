//! `record --set-memprofile-rate`: the rate is set back however the recording ends, and the
//! samples that the change itself brings about are left out.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tests::lives::{Sampled, step};
use tests::{GoLine, NEWEST, PATIENCE, Process, Report, Signal, Variant, build, check_lines};
use tests::{await_recording, end_recording, heaptap, run_heaptap};

/// A rate at which the program's few objects are hardly ever sampled: the highest that the
/// runtime draws by.
const SELDOM: u64 = 112 << 20;

/// Recordings, of which none would be without samples if those of the change were not left out.
/// Each makes some 5 MB: by the rate all have samples in one of several million tests.
const RECORDINGS: u32 = 5;

/// Samples that a report says were left out.
fn left_out(report: &Report) -> Result<u64> {
    let said = "samples left out, as the runtime took them because the rate had changed: ";
    let count = report.capture.notes.iter().find_map(|note| note.strip_prefix(said));
    count.map_or(Ok(0), |count| count.parse().context("a count"))
}

/// Starts the program with a number of Ps.
fn start(line: GoLine, procs: &str, args: &[&str]) -> Result<Process> {
    let program = build("lives", line, Variant::Stripped)?;
    let mut target = Process::spawn(Command::new(program).env("GOMAXPROCS", procs).args(args))?;
    target.stdout_line(|line| line == "ready", PATIENCE)?;
    Ok(target)
}

/// Records some MB, allocated by several of 16 Ps, again and again; how often there were samples.
fn samples_of_few(line: GoLine, own: &[&str], args: &[&str], least_left_out: u64) -> Result<u32> {
    let mut sampled = 0;
    for _ in 0..RECORDINGS {
        let recorded = Sampled::of(start(line, "16", own)?, args)?;
        let (report, truth, _) = recorded.after(&["spread", "hold"])?;
        sampled += u32::from(report.totals.alloc_objects > 0);
        let left_out = left_out(&report)?;
        ensure!((least_left_out..=truth.procs).contains(&left_out), "{left_out} samples left out");
    }
    Ok(sampled)
}

/// The running guardian of a recording.
fn guardian(recording: &Process) -> Result<u32> {
    let pid = recording.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    children.trim().parse().with_context(|| format!("one child: {children:?}"))
}

/// What stands behind the name in /proc/PID/stat: state, parent, group, session and more.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// Awaits the end of a process that is not our child: whose parent that now is may never ask.
fn await_end(pid: u32) -> Result<()> {
    let since = Instant::now();
    while stat(pid).is_some_and(|stat| stat[0] != "Z") {
        ensure!(since.elapsed() < PATIENCE, "process {pid} does not end");
        std::thread::yield_now();
    }
    Ok(())
}

fn start_set(line: GoLine, own: &[&str]) -> Result<Sampled> {
    let mut recorded = Sampled::of(start(line, "2", own)?, &["--set-memprofile-rate", "4096"])?;
    ensure!(step(&mut recorded.target, "look")?.rate == 4096, "it was not set");
    Ok(recorded)
}

mod privileged {
    use super::*;

    #[test]
    fn samples_that_the_change_brings_about_are_left_out() -> Result<()> {
        check_lines(|line| {
            let sampled = samples_of_few(line, &[], &["--set-memprofile-rate", &SELDOM.to_string()], 2)?;
            ensure!(sampled < RECORDINGS, "samples in each recording");
            Ok(())
        })
    }

    #[test]
    fn so_are_those_of_ps_that_have_not_yet_sampled() -> Result<()> {
        check_lines(|line| {
            let sampled = samples_of_few(line, &[&SELDOM.to_string()], &[], 1)?;
            // Nothing tells what Go up to 1.23 drew at another rate than 0.
            ensure!(sampled < RECORDINGS || line.minor < 24, "samples in each recording");
            Ok(())
        })
    }

    #[test]
    fn it_is_announced_and_set_back_at_the_end() -> Result<()> {
        check_lines(|line| {
            for own in ["0", "1048576"] {
                let Sampled { mut target, recording, scratch } = start_set(line, &[own])?;
                let guardian = guardian(&recording)?;
                let ended = end_recording(recording)?;
                ensure!(step(&mut target, "look")?.rate.to_string() == own, "it was not set back");
                ensure!(stat(guardian).is_none(), "the guardian still runs");
                let announced = format!("MemProfileRate of the program is set from {own} to 4096");
                let lines: Vec<&str> = ended.stderr.lines().collect();
                ensure!(lines[0].starts_with(&announced), "{lines:?}");
                let notes = Report::of(&scratch.path().join("sampled.heaptap"))?.capture.notes;
                ensure!(notes.iter().any(|note| note.starts_with(&announced)), "{notes:?}");
                let said = format!("MemProfileRate was set back to {own}");
                ensure!(notes.contains(&said), "{notes:?}");
            }
            Ok(())
        })
    }

    #[test]
    fn it_is_set_back_when_heaptap_is_killed() -> Result<()> {
        check_lines(|line| {
            let Sampled { mut target, recording, scratch: _scratch } = start_set(line, &[])?;
            let guardian = guardian(&recording)?;
            let session = stat(guardian).context("it runs")?[3].clone();
            ensure!(session == guardian.to_string(), "not a session of its own: {session}");
            for signal in ["-INT", "-TERM", "-HUP"] {
                ensure!(Command::new("kill").args([signal, &guardian.to_string()]).status()?.success());
            }
            recording.signal(Signal::SIGKILL)?;
            let since = Instant::now();
            while step(&mut target, "look")?.rate != 0 {
                ensure!(since.elapsed() < PATIENCE, "it was not set back");
            }
            await_end(guardian)
        })
    }

    #[test]
    fn a_rate_that_the_program_changes_is_left_alone() -> Result<()> {
        check_lines(|line| {
            let mut recorded = start_set(line, &[])?;
            step(&mut recorded.target, "rate 512")?;
            let (report, truth, _) = recorded.after(&["hold"])?;
            ensure!(truth.rate == 512, "{}", truth.rate);
            let said =
                "MemProfileRate was not set back to 0: the program itself has changed it, from 4096 to 512";
            ensure!(report.capture.notes.iter().any(|note| note == said), "{:?}", report.capture.notes);

            let Sampled { mut target, recording, scratch: _scratch } = start_set(line, &[])?;
            step(&mut target, "rate 512")?;
            let guardian = guardian(&recording)?;
            recording.signal(Signal::SIGKILL)?;
            await_end(guardian)?;
            ensure!(step(&mut target, "look")?.rate == 512, "the guardian has changed it");
            Ok(())
        })
    }

    #[test]
    fn the_targets_end_is_no_error() -> Result<()> {
        let Sampled { target, recording, scratch } = start_set(NEWEST, &[])?;
        drop(target);
        let ended = recording.wait(PATIENCE)?;
        ensure!(ended.status.success() && !ended.stderr.contains("set back"), "{}", ended.stderr);
        let file = scratch.path().join("sampled.heaptap");
        let report = run_heaptap(&["report", "--json", file.to_str().context("a path in UTF-8")?])?;
        ensure!(report.status.success() && !report.stdout.contains("set back"), "{}", report.stdout);
        Ok(())
    }

    #[test]
    fn it_is_set_back_when_recording_fails() -> Result<()> {
        let mut target = start(NEWEST, "2", &[])?;
        let scratch = tempfile::tempdir()?;
        // The capture must not grow beyond 128 blocks of 512 bytes.
        let mut record = Command::new("sh");
        record.args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\" \"$@\""]).arg(heaptap().get_program());
        record.args(["record", "--mode", "runtime", "--set-memprofile-rate", "16"]);
        // The samples may cost anything, so long as they fill the file.
        record.args(["--max-overhead", "100%", "--pid"]);
        record.arg(target.pid().to_string()).arg("-o").arg(scratch.path().join("cut.heaptap"));
        let mut recording = Process::spawn(&mut record)?;
        await_recording(&mut recording)?;
        target.send("storm 2")?;
        let ended = recording.wait(PATIENCE)?;
        ensure!(ended.status.code() == Some(1) && ended.stderr.contains("set back to 0"), "{}", ended.stderr);
        target.stdout_line(|line| line.starts_with('{'), PATIENCE)?;
        ensure!(step(&mut target, "look")?.rate == 0, "it was not set back");
        Ok(())
    }

    #[test]
    fn it_is_set_back_when_the_breaker_trips() -> Result<()> {
        let args = ["--set-memprofile-rate", "1", "--max-overhead", "0.1%"];
        let Sampled { mut target, mut recording, scratch } = Sampled::of(start(NEWEST, "2", &[])?, &args)?;
        target.send("storm 2")?;
        recording.stderr_line(|line| line.contains("no allocations are recorded any more"), PATIENCE)?;
        target.stdout_line(|line| line.starts_with('{'), PATIENCE)?;
        ensure!(step(&mut target, "look")?.rate == 0, "it was not set back");
        end_recording(recording)?;
        let notes = Report::of(&scratch.path().join("sampled.heaptap"))?.capture.notes;
        ensure!(notes.iter().any(|note| note == "MemProfileRate was set back to 0"), "{notes:?}");
        Ok(())
    }
}

#[test]
fn other_modes_and_rates_are_refused() -> Result<()> {
    for (args, said) in [
        (&["--set-memprofile-rate", "4096", "--mode", "exact"], "--mode runtime"),
        (&["--set-memprofile-rate", "0", "--mode", "runtime"], "1 to 112MiB"),
        (&["--set-memprofile-rate", "113MiB", "--mode", "runtime"], "1 to 112MiB"),
    ] {
        let ended = run_heaptap(&[&["record", "--pid", "1"], &args[..]].concat())?;
        ensure!(ended.status.code() == Some(2) && ended.stderr.contains(said), "{}", ended.stderr);
    }
    Ok(())
}
