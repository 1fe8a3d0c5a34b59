//! Comparisons of captures, snapshots and the heap profiles that programs write themselves.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use serde::Deserialize;
use tests::{
    Ended, GoLine, NEWEST, PATIENCE, Process, Variant, await_recording, build, check_lines, end_recording,
    go_lines, heaptap, run_heaptap,
};

/// What `heaptap diff --json` says, as far as the tests look at it.
#[derive(Debug, Deserialize)]
struct Diff {
    after: Side,
    sites: Vec<Site>,
}

#[derive(Debug, Deserialize)]
struct Side {
    rate_bytes: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Site {
    frames: Vec<tests::report::Frame>,
    alloc_objects: Change,
    alloc_bytes: Change,
    live_objects: Option<Change>,
    live_bytes: Option<Change>,
}

#[derive(Debug, Deserialize)]
struct Change {
    before: i64,
    after: i64,
    change: i64,
    error: Option<u64>,
    what: String,
    judgement: String,
}

/// The target program `still`, and where it writes its heap profile.
struct Still {
    process: Process,
    scratch: tempfile::TempDir,
}

impl Still {
    fn start(line: GoLine, rate: &str) -> Result<Still> {
        let scratch = tempfile::tempdir()?;
        let mut program = Command::new(build("still", line, Variant::Stripped)?);
        program.arg(scratch.path().join("own.pb.gz")).arg(rate);
        Ok(Still { process: Process::spawn(&mut program)?, scratch })
    }

    /// As a child of a recording, which begins before it does.
    fn recorded(line: GoLine, rate: &str) -> Result<Still> {
        let scratch = tempfile::tempdir()?;
        let mut record = heaptap();
        record.args(["record", "--mode", "exact", "-o"]).arg(scratch.path().join("c.heaptap"));
        record.args(["--exec", "--"]).arg(build("still", line, Variant::Stripped)?);
        record.arg(scratch.path().join("own.pb.gz")).arg(rate);
        let mut process = Process::spawn(&mut record)?;
        await_recording(&mut process)?;
        Ok(Still { process, scratch })
    }

    fn obey(&mut self, commands: &str) -> Result<()> {
        for command in commands.chars() {
            self.process.send(&command.to_string())?;
            self.process.stdout_line(|line| line == "done", PATIENCE)?;
        }
        Ok(())
    }

    /// The profile that the program writes now, under another name.
    fn profile(&mut self, name: &str) -> Result<PathBuf> {
        self.obey("p")?;
        let path = self.scratch.path().join(name);
        fs::copy(self.scratch.path().join("own.pb.gz"), &path)?;
        Ok(path)
    }
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

fn diff(before: &Path, after: &Path, args: &[&str]) -> Result<Ended> {
    let ended = run_heaptap(&[&["diff", utf8(before)?, utf8(after)?], args].concat())?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    Ok(ended)
}

/// What changed at the sites of `main.allocate`, where the program allocates on command; beside
/// these, what it does to write its profile depends on when.
fn differences(before: &Path, after: &Path) -> Result<Diff> {
    let ended = diff(before, after, &["--json", "--filter", r"^main\.allocate$"])?;
    serde_json::from_str(&ended.stdout).context("the differences")
}

/// Runs `go tool pprof -top` on a profile; the flat value of a function.
fn flat(line: GoLine, index: &str, profile: &Path, function: &str) -> Result<i64> {
    let mut go = line.command()?;
    go.args(["tool", "pprof", "-top", "-nodecount=500", "-nodefraction=0", "-unit=B"])
        .arg(index)
        .arg(profile);
    let ended = Process::spawn(&mut go)?.wait(3 * PATIENCE)?;
    ensure!(ended.status.success(), "Go {line}: {}", ended.stderr);
    let row = ended.stdout.lines().find(|row| row.split_whitespace().nth(5) == Some(function));
    let row = row.with_context(|| format!("Go {line}: no {function} in\n{}", ended.stdout))?;
    let value = row.split_whitespace().next().context("a value")?;
    value.trim_end_matches('B').parse().with_context(|| value.to_owned())
}

#[test]
fn gos_pprof_shows_what_shrank_as_negative() -> Result<()> {
    let mut still = Still::start(NEWEST, "1")?;
    still.obey("agg")?;
    let first = still.profile("first.pb.gz")?;
    still.obey("agg")?;
    let second = still.profile("second.pb.gz")?;
    let changed = still.scratch.path().join("changed.pb.gz");
    for (before, after, sign) in [(&first, &second, 1), (&second, &first, -1)] {
        diff(before, after, &["--format", "pprof", "-o", utf8(&changed)?])?;
        let is_counter = |site: &Site| site.frames.first().is_some_and(|f| f.function == "main.counter");
        let expected: i64 = differences(before, after)?
            .sites
            .iter()
            .filter(|s| is_counter(s))
            .map(|s| s.alloc_bytes.change)
            .sum();
        assert_eq!(expected.signum(), sign);
        // The reader is part of the toolchain.
        for line in go_lines()? {
            let shown = flat(line, "-sample_index=alloc_space", &changed, "main.counter")?;
            assert_eq!(shown, expected, "Go {line}");
        }
    }
    // Of B all that is drawn is where it grew.
    let svg = diff(&first, &second, &["--format", "flame", "--measure", "alloc-bytes"])?.stdout;
    assert!(svg.contains("main.counter (") && svg.contains("rgb(255,100,100)"), "{svg}");
    Ok(())
}

#[test]
fn what_cannot_be_compared_is_refused() -> Result<()> {
    let mut still = Still::start(NEWEST, "1")?;
    still.obey("a")?;
    let own = still.profile("own-copy.pb.gz")?;
    let packed = fs::read(&own)?;
    let mut plain = Vec::new();
    GzDecoder::new(packed.as_slice()).read_to_end(&mut plain)?;
    let place = plain.windows(11).position(|w| w == b"inuse_space").context("a type of values")?;
    let mut other = plain.clone();
    other[place..place + 11].copy_from_slice(b"contentions");
    let file = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
        let path = still.scratch.path().join(name);
        fs::write(&path, bytes)?;
        Ok(path)
    };
    for (bad, code, said) in [
        (file("cut.pb.gz", &packed[..packed.len() / 2])?, 1, "cut off"),
        (file("empty", b"")?, 1, "the file is empty"),
        (
            file("other", &other)?,
            2,
            "one of alloc_objects/count, alloc_space/bytes, inuse_objects/count, contentions/bytes",
        ),
        (file("report.json", b"{\"sites\": []}")?, 2, "JSON, but no snapshot"),
        (file("text", b"hello")?, 2, "no pprof profile"),
        (still.scratch.path().join("none"), 2, "cannot read"),
    ] {
        let ended = run_heaptap(&["diff", utf8(&own)?, utf8(&bad)?])?;
        assert_eq!(ended.status.code(), Some(code), "{said}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(said) && ended.stderr.contains(utf8(&bad)?),
            "{said}: {}",
            ended.stderr
        );
        assert!(ended.stdout.is_empty() && !ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
    let ended = run_heaptap(&["diff", utf8(&own)?, utf8(&own)?, "--per", "duration"])?;
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("does not say how long") && ended.stderr.contains("hint: "),
        "{}",
        ended.stderr
    );
    // Plain is as good as packed.
    let same = differences(&own, &file("plain.pb", &plain)?)?;
    assert!(!same.sites.is_empty() && same.sites.iter().all(|site| site.alloc_bytes.what == "same"));
    Ok(())
}

mod privileged {
    use super::*;

    /// The id of the program that a recording has started, from its first line.
    fn child(pid: u32) -> Result<String> {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        Ok(children.split_whitespace().next().context("a child")?.to_owned())
    }

    /// Bytes are the same to the byte. So are objects, but for tiny ones: the profile counts
    /// the blocks that these share.
    fn check_same(diff: &Diff, except_tiny: bool) -> Result<()> {
        // More than half of them are of recursions of all depths.
        ensure!(diff.sites.len() >= 30, "{} sites", diff.sites.len());
        for site in &diff.sites {
            let bytes = [Some(&site.alloc_bytes), site.live_bytes.as_ref()];
            let objects = [Some(&site.alloc_objects), site.live_objects.as_ref()];
            for change in bytes.into_iter().chain(objects.into_iter().filter(|_| !except_tiny)) {
                let change = change.context("a measure")?;
                ensure!((change.what.as_str(), change.judgement.as_str()) == ("same", "exact"), "{site:?}");
            }
            ensure!(site.alloc_objects.before <= site.alloc_objects.after, "{site:?}");
        }
        let objects: i64 = diff.sites.iter().map(|site| site.alloc_objects.before).sum();
        ensure!(objects > 7000, "{objects} objects");
        Ok(())
    }

    #[test]
    fn a_programs_own_profile_and_an_exact_capture_are_the_same() -> Result<()> {
        check_lines(|line| {
            let mut still = Still::recorded(line, "1")?;
            still.obey("agaggg")?;
            let snapshot = still.scratch.path().join("snapshot.json");
            let pid = child(still.process.pid())?;
            let ended = run_heaptap(&["snapshot", "--pid", &pid, "--json", "-o", utf8(&snapshot)?])?;
            ensure!(ended.status.success(), "{}", ended.stderr);
            let own = still.profile("copy.pb.gz")?;
            end_recording(still.process)?;
            let capture = still.scratch.path().join("c.heaptap");
            check_same(&differences(&own, &capture)?, true).context("own profile")?;
            check_same(&differences(&snapshot, &capture)?, true).context("snapshot")?;
            check_same(&differences(&snapshot, &own)?, false).context("snapshot and own profile")
        })
    }

    /// At the rate that programs start with, estimates are off by no more than a few times what
    /// they are said to be off: beyond 5 times chance comes once in a million.
    #[test]
    fn a_sampled_profile_and_an_exact_capture_differ_by_noise() -> Result<()> {
        let mut still = Still::recorded(NEWEST, "-")?;
        still.obey("aaaaggg")?;
        let own = still.profile("copy.pb.gz")?;
        end_recording(still.process)?;
        let diff = differences(&still.scratch.path().join("c.heaptap"), &own)?;
        assert_eq!(diff.after.rate_bytes, Some(512 << 10));
        for site in &diff.sites {
            for change in [Some(&site.alloc_bytes), site.live_bytes.as_ref()] {
                let change = change.context("a measure")?;
                let error = change.error.context("an error")?;
                assert!(change.change.unsigned_abs() <= 5 * error, "{site:?}");
                assert!(["noise", "significant"].contains(&change.judgement.as_str()), "{site:?}");
            }
        }
        // What it keeps of 5 MiB each cannot be missed.
        let large = diff.sites.iter().map(|site| site.alloc_bytes.after).max();
        assert!(large > Some(15 << 20), "{large:?}");
        Ok(())
    }
}
