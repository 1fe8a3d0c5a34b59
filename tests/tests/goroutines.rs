//! What heaptap reads of a process's goroutines, against the process's own dump of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tests::dump::{self, Creation, Frame, Goroutine};
use tests::{GoLine, NEWEST, PATIENCE, Process, Signal, Variant};
use tests::{build, go_lines, matrix, run_heaptap, start_target};

/// `heaptap goroutines --json`: what is compared here.
#[derive(Deserialize)]
struct Report {
    count: u64,
    system: u64,
    groups: Vec<Group>,
    notes: Vec<String>,
}

#[derive(Deserialize)]
struct Group {
    count: usize,
    status: String,
    wait_reason: Option<String>,
    locked_to_thread: bool,
    stack: String,
    frames: Vec<Line>,
    created_by: Option<Line>,
    goroutines: Vec<Member>,
}

/// A frame, or the place of a `go` statement.
#[derive(Deserialize)]
struct Line {
    function: String,
    file: String,
    line: u32,
    #[serde(default)]
    inlined: bool,
}

#[derive(Deserialize)]
struct Member {
    id: u64,
    parent: Option<u64>,
    wait_ns: Option<u64>,
}

impl Report {
    fn read(pid: u32, args: &[&str]) -> Result<Report> {
        let pid = pid.to_string();
        let ended = run_heaptap(&[&["goroutines", "--pid", &pid, "--json"], args].concat())?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        Ok(serde_json::from_str(&ended.stdout)?)
    }

    /// As a dump has them.
    fn goroutines(&self) -> Vec<Goroutine> {
        let members = self.groups.iter().flat_map(|g| g.goroutines.iter().map(move |m| (g, m)));
        members.map(|(group, member)| group.goroutine(member)).collect()
    }

    fn functions(&self) -> Vec<&str> {
        self.groups.iter().flat_map(|g| &g.frames).map(|f| f.function.as_str()).collect()
    }
}

impl Group {
    fn goroutine(&self, member: &Member) -> Goroutine {
        let mut state = self.wait_reason.as_ref().unwrap_or(&self.status).clone();
        let minutes = member.wait_ns.unwrap_or(0) / 60_000_000_000;
        if minutes > 0 {
            state += &format!(", {minutes} minutes");
        }
        if self.locked_to_thread {
            state += ", locked to thread";
        }
        let place = |line: &Line| format!("{}:{}", line.file, line.line);
        let frame = |f: &Line| Frame { function: f.function.clone(), place: place(f), inlined: f.inlined };
        let creation =
            |c: &Line| Creation { function: c.function.clone(), place: place(c), parent: member.parent };
        Goroutine {
            id: member.id,
            state,
            frames: self.frames.iter().map(frame).collect(),
            elided: None,
            created_by: self.created_by.as_ref().map(creation),
        }
    }
}

/// A process that stands still, and the dump it wrote of itself.
struct Parked {
    process: Process,
    dump: Vec<Goroutine>,
    _scratch: tempfile::TempDir,
}

impl Parked {
    fn start(line: GoLine, variant: Variant, count: u32) -> Result<Parked> {
        let scratch = tempfile::tempdir()?;
        let file = scratch.path().join("dump");
        let program = build("goroutines", line, variant)?;
        let path = file.to_str().context("a path in UTF-8")?;
        let process = start_target(&program, &[path, &count.to_string()])?;
        let dump = dump::parse(&fs::read_to_string(&file)?)?;
        Ok(Parked { process, dump, _scratch: scratch })
    }
}

/// Leaves of our goroutine what a dump leaves of a long stack.
fn shorten(ours: &mut Goroutine, theirs: &Goroutine, line: GoLine) {
    if line.minor < 21 {
        // It ends after 100 frames, of which it shows some, and does not always say so
        // (runtime/traceback.go `gentraceback`).
        let shown = if ours.frames.len() > 100 { 95..=100 } else { 0..=100 };
        assert!(shown.contains(&theirs.frames.len()));
        ours.frames.truncate(theirs.frames.len().max(95));
    } else if theirs.elided.is_some() {
        let elided = ours.frames.len().saturating_sub(100);
        ours.frames.drain(50..50 + elided);
        ours.elided = Some(elided);
    }
}

/// Whether every thread of a process is stopped.
fn is_stopped(pid: u32) -> Result<bool> {
    let mut states = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        // The state follows the name, which stands in brackets.
        states.push(stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')));
    }
    Ok(!states.contains(&false))
}

/// heaptap reads a process that is not its child.
mod privileged {
    use super::*;

    #[test]
    fn goroutines_are_those_of_a_dump() -> Result<()> {
        for (line, variant) in matrix()? {
            let parked = Parked::start(line, variant, 10_000)?;
            let report = Report::read(parked.process.pid(), &[])?;
            assert_eq!(report.notes, [] as [&str; 0], "{line} {variant}");
            assert_eq!(report.count, parked.dump.len() as u64, "{line} {variant}");
            assert!(report.count >= 10_000 && report.system >= 4);
            let ours = report.goroutines();
            assert_eq!(ours.len() as u64, report.count);
            let mut ours: BTreeMap<u64, Goroutine> = ours.into_iter().map(|g| (g.id, g)).collect();
            for theirs in &parked.dump {
                let mut ours =
                    ours.remove(&theirs.id).with_context(|| format!("{line} {variant}: {theirs:?}"))?;
                if theirs.state == "running" {
                    // The one that wrote the dump knows its own stack.
                    assert!(ours.frames.is_empty());
                    ours.frames.clone_from(&theirs.frames);
                }
                shorten(&mut ours, theirs, line);
                assert_eq!(&ours, theirs, "{line} {variant}");
            }
            assert!(ours.is_empty(), "{line} {variant}: {ours:?}");
        }
        Ok(())
    }

    #[test]
    fn groups_hold_what_a_dump_prints_alike() -> Result<()> {
        let parked = Parked::start(NEWEST, Variant::Stripped, 1000)?;
        let report = Report::read(parked.process.pid(), &[])?;
        let mut theirs: BTreeMap<_, usize> = BTreeMap::new();
        for g in &parked.dump {
            let created_by = g.created_by.as_ref().map(|c| (&c.function, &c.place));
            *theirs.entry((&g.state, &g.frames, g.elided, created_by)).or_default() += 1;
        }
        let mut theirs: Vec<usize> = theirs.into_values().collect();
        theirs.sort_by_key(|count| std::cmp::Reverse(*count));
        let ours: Vec<usize> = report.groups.iter().map(|g| g.count).collect();
        assert_eq!(ours, theirs);
        for group in &report.groups {
            assert_eq!(group.count, group.goroutines.len());
            let stack = if group.status == "running" { "unavailable" } else { "whole" };
            assert_eq!(group.stack, stack);
        }
        Ok(())
    }

    #[test]
    fn the_runtimes_own_are_shown_when_asked_for() -> Result<()> {
        for line in go_lines()? {
            let parked = Parked::start(line, Variant::Stripped, 100)?;
            let some = Report::read(parked.process.pid(), &[])?;
            let all = Report::read(parked.process.pid(), &["--all"])?;
            assert_eq!((all.count, all.system), (some.count + some.system, 0), "{line}");
            let hidden = ["runtime.gopark", "runtime.goexit", "runtime.bgsweep", "runtime.chanrecv"];
            for name in hidden {
                assert!(all.functions().contains(&name), "{line}: no {name}");
                // A coroutine that has not begun has no other frames.
                assert!(name == "runtime.goexit" || !some.functions().contains(&name), "{line}: {name}");
            }
        }
        Ok(())
    }

    #[test]
    fn waiting_is_timed_from_the_collection_that_found_it() -> Result<()> {
        for line in go_lines()? {
            let started = Instant::now();
            let parked = Parked::start(line, Variant::Stripped, 200)?;
            let ready = Instant::now();
            let first = Report::read(parked.process.pid(), &[])?;
            assert!(first.count >= 200, "{line}: {}", first.count);
            let at_least = ready.elapsed();
            let report = Report::read(parked.process.pid(), &[])?;
            let at_most = started.elapsed();
            let waiting = report.groups.iter().filter(|g| g.status == "waiting").flat_map(|g| &g.goroutines);
            let waited = waiting.map(|g| Duration::from_nanos(g.wait_ns.unwrap_or(0))).collect::<Vec<_>>();
            assert!(waited.len() >= 150, "{line}: {}", waited.len());
            for waited in waited {
                assert!((at_least..at_most).contains(&waited), "{line}: {waited:?} of {at_most:?}");
            }
            // Only the collector notes times: of those that were made since, none is known.
            let runnable = report.groups.iter().find(|g| g.status == "runnable").context("runnable ones")?;
            assert!(runnable.goroutines.iter().all(|g| g.wait_ns.is_none()), "{line}");
        }
        Ok(())
    }

    #[test]
    fn the_table_is_filtered_and_limited() -> Result<()> {
        let parked = Parked::start(NEWEST, Variant::Plain, 500)?;
        let pid = parked.process.pid().to_string();
        let args = ["goroutines", "--pid", &pid, "--filter", "main\\.deep", "--limit", "1"];
        let ended = run_heaptap(&args)?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        assert!(
            ended.stdout.contains(&format!("goroutines {}, and ", parked.dump.len())),
            "{}",
            ended.stdout
        );
        assert_eq!(ended.stdout.matches("created by main.park ").count(), 1, "{}", ended.stdout);
        assert!(ended.stdout.contains("main.deep "), "{}", ended.stdout);
        assert!(ended.stdout.contains("(1 more groups with "), "{}", ended.stdout);
        Ok(())
    }

    #[test]
    fn gos_pprof_opens_the_profile() -> Result<()> {
        let parked = Parked::start(NEWEST, Variant::Stripped, 500)?;
        let profile = tempfile::tempdir()?;
        let file: PathBuf = profile.path().join("goroutines.pb.gz");
        let file = file.to_str().context("a path in UTF-8")?;
        let pid = parked.process.pid().to_string();
        let ended = run_heaptap(&["goroutines", "--pid", &pid, "--format", "pprof", "-o", file])?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        let lines = go_lines()?;
        for line in lines.first().into_iter().chain(lines.last()) {
            let mut go = line.command()?;
            go.args(["tool", "pprof", "-top", "-cum", "-nodecount=500", file]);
            let ended = Process::spawn(&mut go)?.wait(3 * PATIENCE)?;
            ensure!(ended.status.success(), "Go {line}: {}", ended.stderr);
            assert!(ended.stdout.contains("Type: goroutine"), "{}", ended.stdout);
            assert!(ended.stdout.contains(&format!("of {} total", parked.dump.len())), "{}", ended.stdout);
            let deep =
                parked.dump.iter().filter(|g| g.frames.iter().any(|f| f.function == "main.deep")).count();
            let row = ended.stdout.lines().find(|row| row.ends_with(" main.deep")).context("a row")?;
            assert_eq!(row.split_whitespace().nth(3), Some(deep.to_string().as_str()), "{row}");
        }
        Ok(())
    }

    #[test]
    fn a_busy_process_and_a_stopped_one_are_read() -> Result<()> {
        for line in go_lines()? {
            let program = build("churn", line, Variant::Stripped)?;
            let args = ["-kind", "scan48", "-g", "8", "-rate", "300000", "-interval", "100ms"];
            let mut process = Process::spawn(Command::new(program).args(args))?;
            process.stdout_line(|l| l.contains("allocs"), PATIENCE)?;
            for _ in 0..10 {
                let report = Report::read(process.pid(), &[])?;
                assert!((9..20).contains(&report.count), "{line}: {}", report.count);
                assert!(report.groups.iter().all(|g| g.status != "???" && g.status != "dead"));
                assert!(report.groups.iter().any(|g| g.frames.iter().all(|f| !f.function.starts_with("0x"))));
            }
            process.signal(Signal::SIGSTOP)?;
            while !is_stopped(process.pid())? {
                std::thread::yield_now();
            }
            let stopped = Report::read(process.pid(), &[])?;
            assert_eq!(stopped.goroutines(), Report::read(process.pid(), &[])?.goroutines(), "{line}");
        }
        Ok(())
    }

    #[test]
    fn what_cannot_be_read_is_refused() -> Result<()> {
        let parked = Parked::start(NEWEST, Variant::Stripped, 100)?;
        let pid = parked.process.pid().to_string();
        for (args, code, why) in [
            (vec!["--pid", "2147483647"], 1, "no process 2147483647"),
            (vec!["--pid", &pid, "--assume-go", "1.99"], 1, "are not known"),
            (vec!["--pid", &pid, "--filter", "("], 2, "no regular expression"),
            (vec!["--pid", &std::process::id().to_string()], 2, "not a Go program"),
        ] {
            let ended = run_heaptap(&[&["goroutines"], args.as_slice()].concat())?;
            assert_eq!(ended.status.code(), Some(code), "{args:?}: {}", ended.stderr);
            assert!(ended.stderr.contains(why), "{args:?}: {}", ended.stderr);
        }
        Ok(())
    }
}
