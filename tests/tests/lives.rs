//! Which objects are alive, against a program that knows which of its objects are.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::lives::{Amount, Truth, sites_of, step};
use tests::report::Site;
use tests::{GoLine, NEWEST, PATIENCE, Process, Report, Signal, Variant, build, end_recording};
use tests::{await_recording, check_programs, heaptap, matrix, start_recording, start_target};

/// Where a report and the truth disagree. `new`: whether what no cycle has judged yet
/// counts as alive.
fn differences(report: &Report, truth: &Truth, new: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (place, want) in &truth.alive {
        let mut got = Amount::default();
        for site in sites_of(report, place) {
            let unjudged = site.life.as_ref().map_or(0, |life| life.new_objects);
            got.objects += site.live_objects.unwrap_or(0) + if new { unjudged } else { 0 };
            got.bytes += site.live_bytes.unwrap_or(0);
        }
        if got.objects != want.objects || !new && got.bytes != want.bytes {
            wrong.push(format!("{place}: {want:?} are alive, not {got:?}"));
        }
    }
    wrong
}

/// Records the program while it obeys the commands; returns the last truth it told.
fn record(line: GoLine, variant: Variant, commands: &[&str]) -> Result<(Report, Truth)> {
    let scratch = tempfile::tempdir()?;
    let file = scratch.path().join("lives.heaptap");
    let mut target = start_target(&build("lives", line, variant)?, &[])?;
    let recording = start_recording(target.pid(), &file)?;
    let mut truth = None;
    for command in commands {
        truth = Some(step(&mut target, command)?);
    }
    end_recording(recording)?;
    Ok((Report::of(&file)?, truth.context("a command")?))
}

/// After the last GC cycle the report must be the truth.
fn check(line: GoLine, variant: Variant, commands: &[&str]) -> Result<Report> {
    let (report, truth) = record(line, variant, commands)?;
    let wrong = differences(&report, &truth, false);
    ensure!(wrong.is_empty(), "{commands:?}: {}\n{:?}", wrong.join("\n"), report.capture);
    for (place, want) in &truth.alive {
        for site in sites_of(&report, place) {
            let life = site.life.as_ref().context("a life")?;
            let all = site.live_objects.context("judged")? + life.died_objects + life.new_objects;
            ensure!(all == site.alloc_objects, "{place}, {want:?}: {all} of {}", site.alloc_objects);
        }
    }
    Ok(report)
}

mod privileged {
    use super::*;

    #[test]
    fn after_a_collection_the_living_are_known_exactly() -> Result<()> {
        check_programs(matrix()?, |line, variant| {
            check(line, variant, &["hold", "gc", "drop", "gc"]).map(drop)
        })
    }

    #[test]
    fn slots_that_are_used_again_do_not_confuse() -> Result<()> {
        check_programs(matrix()?, |line, variant| {
            let commands = ["hold", "gc", "drop", "gc", "hold"];
            // Two of three are kept, and what is made in `hold` and dropped is not judged.
            let (report, truth) = record(line, variant, &commands)?;
            for (place, want) in &truth.alive {
                let sum = |of: fn(&Site) -> u64| sites_of(&report, place).map(of).sum::<u64>();
                let followed =
                    sum(|s| s.live_objects.unwrap_or(0) + s.life.as_ref().map_or(0, |l| l.new_objects));
                let died = sum(|s| s.life.as_ref().map_or(0, |life| life.died_objects));
                let made = sum(|s| s.alloc_objects);
                ensure!(followed + died == made, "{place}: {followed} + {died} of {made}");
                ensure!(followed >= want.objects, "{place}: {want:?} are alive, but {followed} known");
            }
            check(line, variant, &["hold", "gc", "drop", "gc", "hold", "gc"]).map(drop)
        })
    }

    #[test]
    fn collections_that_follow_each_other_miss_nobody() -> Result<()> {
        check_programs(matrix()?, |line, variant| {
            let report = check(line, variant, &["storm 4", "gc"])?;
            let following = report.capture.following.context("followed")?;
            ensure!(report.capture.gc_cycles > 50, "only {} cycles", report.capture.gc_cycles);
            let said = report.capture.notes.iter().any(|note| note.starts_with("the marks of "));
            let missed = following.judged_gc_cycles < report.capture.gc_cycles;
            ensure!(said == missed, "{} of {} judged", following.judged_gc_cycles, report.capture.gc_cycles);
            Ok(())
        })
    }

    /// The runtime counts what has a finalizer twice: it scans these objects as roots
    /// (runtime/mgcmark.go `markrootSpans`), and again when they are found reachable. Such
    /// are those of one place, and the three open files. It may count others twice, too: two
    /// workers that find an object at the same time can both see that it is not marked yet, and
    /// mark it (runtime/mgcmark.go `greyobject`, runtime/mgcmark_greenteagc.go
    /// `tryDeferToSpanScan`). That happens in one cycle of some hundreds, and in the next it is
    /// another object's turn, if any: so it is the least difference of several cycles that counts.
    #[test]
    fn from_the_start_all_that_the_runtime_marked_is_followed() -> Result<()> {
        const FILES: u64 = 3 * 96;
        const CYCLES_OF_GC: usize = 4;
        check_programs(matrix()?, |line, variant| {
            let scratch = tempfile::tempdir()?;
            let file = scratch.path().join("exec.heaptap");
            let mut record = heaptap();
            record
                .args(["record", "--mode", "exact"])
                .arg("-o")
                .arg(&file)
                .arg("--exec")
                .arg("--")
                .arg(build("lives", line, variant)?);
            let mut record = Process::spawn(&mut record)?;
            await_recording(&mut record)?;
            step(&mut record, "hold")?;
            step(&mut record, "drop")?;
            step(&mut record, "gc")?;
            step(&mut record, "gc")?;
            let truth = step(&mut record, "gc")?;
            end_recording(record)?;
            let report = Report::of(&file)?;
            let twice = truth.alive["finalized"].bytes + FILES;
            let judged = report.gc.iter().rev().take(2 * CYCLES_OF_GC);
            let judged = judged.filter_map(|cycle| cycle.heap_live.zip(cycle.survivors));
            let differences: Vec<_> =
                judged.map(|(marked, survivors)| marked.checked_sub(survivors.bytes)).collect();
            ensure!(differences.iter().min() == Some(&Some(twice)), "{differences:?}, not {twice}");
            Ok(())
        })
    }

    /// Every object of these sites is alive, dead or new, whatever else is known.
    fn check_sums(report: &Report) -> Result<()> {
        let followed = report.sites.iter().filter_map(|site| Some((site, site.life.as_ref()?)));
        for (site, life) in followed {
            let all = site.live_objects.unwrap_or(0) + life.died_objects + life.new_objects;
            ensure!(all == site.alloc_objects, "{site:?}");
        }
        ensure!(report.capture.following.is_some(), "{:?}", report.capture);
        Ok(())
    }

    #[test]
    fn a_target_killed_in_the_middle_leaves_what_was_learnt_until_then() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let file = scratch.path().join("killed.heaptap");
        let mut target = start_target(&build("lives", NEWEST, Variant::Stripped)?, &[])?;
        let recording = start_recording(target.pid(), &file)?;
        step(&mut target, "hold")?;
        step(&mut target, "gc")?;
        target.send("storm 4")?;
        target.signal(Signal::SIGKILL)?;
        let ended = recording.wait(PATIENCE)?;
        ensure!(
            ended.status.success() && ended.stderr.contains("until the target ended"),
            "{}",
            ended.stderr
        );
        check_sums(&Report::of(&file)?)
    }

    #[test]
    fn a_stopped_target_is_reported_as_it_stands() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let file = scratch.path().join("stopped.heaptap");
        let mut target = start_target(&build("lives", NEWEST, Variant::Stripped)?, &[])?;
        let recording = start_recording(target.pid(), &file)?;
        step(&mut target, "hold")?;
        let truth = step(&mut target, "gc")?;
        target.signal(Signal::SIGSTOP)?;
        end_recording(recording)?;
        let report = Report::of(&file)?;
        let wrong = differences(&report, &truth, false);
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        check_sums(&report)
    }

    #[test]
    fn little_memory_makes_estimates_and_says_so() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let file = scratch.path().join("little.heaptap");
        let mut target = start_target(&build("lives", NEWEST, Variant::Stripped)?, &[])?;
        let mut little = heaptap();
        little
            .args([
                "record",
                "--mode",
                "exact",
                "--max-memory",
                "64KiB",
                "--pid",
                &target.pid().to_string(),
                "-o",
            ])
            .arg(&file);
        let mut recording = Process::spawn(&mut little)?;
        await_recording(&mut recording)?;
        for _ in 0..4 {
            step(&mut target, "hold")?;
        }
        let truth = step(&mut target, "gc")?;
        end_recording(recording)?;
        let report = Report::of(&file)?;
        assert!(report.capture.notes.iter().any(|note| note.contains("estimates")), "{:?}", report.capture);
        let alive: u64 = truth.alive.values().map(|amount| amount.objects).sum();
        let estimate: u64 = report.sites.iter().filter_map(|site| site.live_objects).sum();
        // Some thousands are followed, of 40,000.
        let ratio = estimate as f64 / alive as f64;
        assert!((0.8..1.2).contains(&ratio), "{estimate} of {alive}");
        Ok(())
    }

    #[test]
    fn a_replay_without_root_gives_the_same_bytes() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        // For anybody to read and run.
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o755))?;
        let (file, program) = (scratch.path().join("replay.heaptap"), scratch.path().join("heaptap"));
        tests::copy_program(heaptap().get_program(), &program)?;
        let mut target = start_target(&build("lives", NEWEST, Variant::Stripped)?, &[])?;
        let pid = target.pid().to_string();
        let mut recording = Process::spawn(
            Command::new(&program)
                .args(["record", "--mode", "exact", "--json", "--pid", &pid, "-o"])
                .arg(&file),
        )?;
        await_recording(&mut recording)?;
        for command in ["hold", "gc", "storm 2", "drop", "gc"] {
            step(&mut target, command)?;
        }
        drop(target);
        let recorded = recording.wait(PATIENCE)?;
        ensure!(recorded.status.success(), "{}", recorded.stderr);
        let mut replay = Command::new(&program);
        replay.arg("report").arg(&file).arg("--json").uid(65534).gid(65534);
        let replayed = Process::spawn(&mut replay)?.wait(PATIENCE)?;
        ensure!(replayed.status.success(), "{}", replayed.stderr);
        ensure!(recorded.stdout.len() > 10_000 && recorded.stdout == replayed.stdout, "the reports differ");
        Ok(())
    }
}
