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
    use tests::{NEWEST, PATIENCE, Process, Variant, heaptap, start_target};
    use xtask::zoo;

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
}
