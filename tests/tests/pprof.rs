//! What heaptap exports opens in Go's own pprof, and says there what it says here.

use std::fs;

use anyhow::{Context, Result, ensure};
use tests::manifest::Manifest;
use tests::{GoLine, NEWEST, PATIENCE, Process, Variant, build, go_lines, heaptap};
use tests::{end_recording, start_recording, start_target};

/// Runs `go tool pprof -top` with more arguments; returns what it prints.
fn pprof(line: GoLine, args: &[&str], profile: &str) -> Result<String> {
    let mut go = line.command()?;
    // pprof keeps what it fetches in a directory of its own; there is nothing to fetch.
    go.args(["tool", "pprof", "-top", "-nodecount=500", "-nodefraction=0"]).args(args).arg(profile);
    let ended = Process::spawn(&mut go)?.wait(3 * PATIENCE)?;
    ensure!(ended.status.success(), "Go {line}: {}", ended.stderr);
    Ok(ended.stdout)
}

/// The flat value of a function in pprof's table, with its unit.
fn flat<'t>(table: &'t str, function: &str) -> Result<&'t str> {
    let row = table.lines().find(|row| row.split_whitespace().nth(5) == Some(function));
    let row = row.with_context(|| format!("no {function} in\n{table}"))?;
    row.split_whitespace().next().context("a value")
}

mod privileged {
    use super::*;

    #[test]
    fn gos_pprof_shows_the_same_numbers() -> Result<()> {
        let program = build("exact", NEWEST, Variant::Stripped)?;
        let scratch = tempfile::tempdir()?;
        let (capture, profile) = (scratch.path().join("c.heaptap"), scratch.path().join("c.pb.gz"));
        let mut target = start_target(&program, &[])?;
        let record = start_recording(target.pid(), &capture)?;
        target.send("go")?;
        let line = target.stdout_line(|line| line.starts_with('{'), PATIENCE)?;
        let manifest: Manifest = serde_json::from_str(&line)?;
        end_recording(record)?;
        let mut report = heaptap();
        report.arg("report").arg(&capture).args(["--format", "pprof", "-o"]).arg(&profile);
        let ended = Process::spawn(&mut report)?.wait(PATIENCE)?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        ensure!(fs::read(&profile)?.starts_with(&[0x1f, 0x8b]), "not gzipped");

        let profile = profile.to_str().context("a path in UTF-8")?;
        // A site that runs without the GC, so that nothing else allocates amid it.
        let maps = manifest.sites.iter().find(|site| site.name == "makeMap").context("makeMap")?;
        // One old and one new pprof: the reader is part of the toolchain.
        let lines = go_lines()?;
        for line in lines.first().into_iter().chain(lines.last()) {
            // Without the runtime's own frames, which pprof has below the program's.
            let top = |index: &str, unit: &str| pprof(*line, &[index, unit, "-show=^main\\."], profile);
            let objects = top("-sample_index=alloc_objects", "-unit=minimum")?;
            assert_eq!(flat(&objects, "main.makeMap")?, maps.objects.to_string(), "Go {line}");
            let space = top("-sample_index=alloc_space", "-unit=B")?;
            assert_eq!(flat(&space, "main.makeMap")?, format!("{}B", maps.bytes), "Go {line}");
        }
        Ok(())
    }
}
