//! `heaptap hunt`: what it puts where, its exit code, and that a capture says the same again.

use anyhow::{Context, Result, ensure};
use tests::run_heaptap;

#[test]
fn what_to_hunt_has_to_be_said() -> Result<()> {
    for args in [&["hunt"][..], &["hunt", "--pid", "1", "capture.heaptap"], &["hunt", "x", "--until-sure"]] {
        let ended = run_heaptap(args)?;
        ensure!(ended.status.code() == Some(2), "{args:?}: {}\n{}", ended.status, ended.stderr);
        ensure!(ended.stdout.is_empty() && !ended.stderr.is_empty(), "{args:?}: {}", ended.stdout);
    }
    let missing = run_heaptap(&["hunt", "no-such.heaptap"])?;
    ensure!(missing.status.code() == Some(2) && missing.stdout.is_empty(), "{}", missing.status);
    ensure!(missing.stderr.contains("no-such.heaptap"), "{}", missing.stderr);
    Ok(())
}

mod privileged {
    use std::process::Command;

    use anyhow::bail;
    use tests::{NEWEST, PATIENCE, Process, Variant, build, go_lines, heaptap, start_target};
    use xtask::zoo::{self, Severity};

    use super::*;

    #[test]
    fn a_capture_of_a_hunt_says_what_the_hunt_said() -> Result<()> {
        let program = zoo::dir().join("map-growth/leak.go");
        let program = zoo::build(&program, NEWEST, Variant::Stripped, &[])?;
        let scratch = tempfile::tempdir()?;
        let file = scratch.path().join("hunted.heaptap");
        let target = start_target(&program, &[])?;
        let mut hunt = heaptap();
        hunt.args(["hunt", "--json", "--mode", "exact", "--for", "60s", "--until-sure", "--pid"]);
        hunt.arg(target.pid().to_string()).arg("-o").arg(&file);
        let hunted = Process::spawn(&mut hunt)?.wait(3 * PATIENCE)?;
        ensure!(hunted.status.code() == Some(3), "{}\n{}", hunted.status, hunted.stderr);
        ensure!(!hunted.stderr.contains("main.newSession"), "data among the messages: {}", hunted.stderr);
        drop(target);

        let path = file.to_str().context("a path in UTF-8")?;
        let judged = run_heaptap(&["hunt", path, "--json"])?;
        ensure!(judged.status.code() == Some(3), "{}", judged.stderr);
        ensure!(judged.stdout == hunted.stdout, "the capture says something else");
        let found = zoo::read(&judged)?;
        ensure!(found.findings.iter().any(|f| f.kind == "map-growth"), "{:?}", found.findings);
        let reported = run_heaptap(&["report", path, "--json"])?;
        ensure!(reported.status.success() && reported.stdout == hunted.stdout, "report: {}", reported.status);
        Ok(())
    }

    #[test]
    fn a_map_that_was_emptied_is_told_and_is_no_leak() -> Result<()> {
        let oldest = go_lines()?.into_iter().min().context("a Go line")?;
        let programs = vec![(oldest, Variant::Stripped), (NEWEST, Variant::Plain)];
        let found = zoo::in_parallel(programs, 2, |(line, variant)| {
            let mut program = Command::new(build("standing", line, variant)?);
            zoo::hunt(&mut program, heaptap(), &["--mode", "exact", "--for", "25s"])
        });
        for found in found {
            let found = found?;
            let [residue] = found.findings.as_slice() else { bail!("{:#?}", found.findings) };
            ensure!(residue.kind == "map-residue" && residue.severity == Severity::Warning, "{residue:?}");
            ensure!(!found.leaks(), "{:?}", found.verdict);
        }
        Ok(())
    }
}
