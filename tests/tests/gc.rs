//! The GC timeline against what `GODEBUG=gctrace=1` makes the same process print.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tests::{
    GoLine, NEWEST, PATIENCE, Process, Signal, Variant, build, end_recording, go_lines, heaptap, matrix,
    start_recording, start_recording_with,
};

/// The target program `collect`, which traces its collections to stderr.
struct Collect(Process);

impl Collect {
    fn start(line: GoLine, variant: Variant) -> Result<Collect> {
        let mut program = Command::new(build("collect", line, variant)?);
        let mut collect = Collect(Process::spawn(program.env("GODEBUG", "gctrace=1"))?);
        // Once it answers it is past its start.
        collect.tell("fs")?;
        Ok(collect)
    }

    /// Has it run the commands. A cycle may end a little later than the command that it
    /// belongs to, but not later than an `s` behind that.
    fn tell(&mut self, commands: &str) -> Result<()> {
        commands.chars().try_for_each(|command| {
            self.0.send(&command.to_string())?;
            self.0.stdout_line(|line| line == "done", PATIENCE).map(drop)
        })
    }

    fn pid(&self) -> String {
        self.0.pid().to_string()
    }

    /// Starts `heaptap gc` on it, with more arguments.
    fn follow(&self, args: &[&str]) -> Result<Process> {
        let mut follow = Process::spawn(heaptap().args(["gc", "--pid", &self.pid()]).args(args))?;
        follow.stderr_line(|line| line.starts_with("following"), PATIENCE)?;
        Ok(follow)
    }

    /// Ends it; what it printed of its collections from number `first` on.
    fn trace(self, first: u32) -> Result<Vec<String>> {
        let ended = self.0.wait(PATIENCE)?;
        let lines = ended.stderr.lines().filter(|line| line.starts_with("gc "));
        Ok(lines.skip_while(|line| number(line) != Some(first)).map(str::to_owned).collect())
    }
}

/// A recording of `collect` that has ended.
struct Recorded {
    collect: Collect,
    scratch: tempfile::TempDir,
}

impl Recorded {
    /// Records what these commands make it do.
    fn of(line: GoLine, commands: &str) -> Result<Recorded> {
        let mut collect = Collect::start(line, Variant::Stripped)?;
        let scratch = tempfile::tempdir()?;
        let record = start_recording(collect.0.pid(), &scratch.path().join("gc.heaptap"))?;
        collect.tell(commands)?;
        end_recording(record)?;
        Ok(Recorded { collect, scratch })
    }

    fn report_as(&self, args: &[&str]) -> Result<String> {
        let capture = self.scratch.path().join("gc.heaptap");
        ended(Process::spawn(heaptap().arg("report").arg(capture).args(args))?)
    }

    fn report(&self) -> Result<Report> {
        Ok(serde_json::from_str(&self.report_as(&["--json"])?)?)
    }
}

/// The number of a line's cycle.
fn number(line: &str) -> Option<u32> {
    line.split(' ').nth(1)?.parse().ok()
}

/// A row of the timeline, as far as the tests look at it.
#[derive(Debug, Deserialize)]
struct Row {
    cycle: u32,
    start_ns: i64,
    mark_start_ns: i64,
    mark_end_ns: i64,
    end_ns: i64,
    assist_ns: u64,
    heap_before: u64,
    heap_after: u64,
    heap_live: u64,
    heap_goal: u64,
    trigger: String,
    forced: bool,
    gogc: Option<i32>,
    memory_limit: Option<i64>,
}

impl Row {
    /// What a line of gctrace says of the heap.
    fn heap(&self) -> String {
        let [before, after, live, goal] =
            [self.heap_before, self.heap_after, self.heap_live, self.heap_goal].map(|bytes| bytes >> 20);
        format!(" {before}->{after}->{live} MB, {goal} MB goal,")
    }

    fn check(&self, traced: &str) -> Result<()> {
        let times = [self.start_ns, self.mark_start_ns, self.mark_end_ns, self.end_ns];
        ensure!(times.is_sorted(), "{self:?}");
        ensure!(number(traced) == Some(self.cycle), "{traced}: {self:?}");
        ensure!(traced.contains(&self.heap()), "{traced}: {self:?}");
        ensure!(traced.ends_with("(forced)") == self.forced, "{traced}: {self:?}");
        Ok(())
    }
}

/// A JSON report, as far as it is about collections.
#[derive(Debug, Deserialize)]
struct Report {
    capture: Capture,
    gc: Vec<Row>,
    stw: Vec<Stops>,
    assists: Vec<Assists>,
}

#[derive(Debug, Deserialize)]
struct Assists {
    count: usize,
    total_ns: u64,
    frames: Vec<tests::report::Frame>,
}

#[derive(Debug, Deserialize)]
struct Capture {
    gc_cycles: usize,
    missed_gc_cycles: u64,
    notes: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Stops {
    reason: Option<String>,
    count: usize,
    total_ns: u64,
    longest_ns: u64,
}

/// What a report says of other settings.
#[derive(Debug, Deserialize)]
struct Advice {
    allocated_bytes: f64,
    seen: Scenario,
    scenarios: Vec<Scenario>,
}

#[derive(Debug, Deserialize)]
struct Scenario {
    gogc: Option<i32>,
    cycles: f64,
    peak_heap_bytes: f64,
}

/// The advice from a recording of `pacer` while it allocates, with this GOGC.
fn pace(line: GoLine, gogc: &str) -> Result<Advice> {
    let mut pacer = Process::spawn(Command::new(build("pacer", line, Variant::Plain)?).env("GOGC", gogc))?;
    pacer.stdout_line(|line| line == "ready", PATIENCE)?;
    let scratch = tempfile::tempdir()?;
    let capture = scratch.path().join("pacer.heaptap");
    let record = start_recording_with(pacer.pid(), &capture, &["--counts-only"])?;
    pacer.send("go")?;
    pacer.stdout_line(|line| line == "done", PATIENCE)?;
    end_recording(record)?;
    let report = ended(Process::spawn(heaptap().arg("report").arg(&capture).arg("--json"))?)?;
    let mut report: serde_json::Value = serde_json::from_str(&report)?;
    Ok(serde_json::from_value(report["gc_advice"].take())?)
}

/// What it printed, its stdout, once it has ended well.
fn ended(process: Process) -> Result<String> {
    let ended = process.wait(PATIENCE)?;
    ensure!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
    Ok(ended.stdout)
}

/// The end of the line of a cycle that `runtime.GC()` asked for.
const FORCED: &str = " (forced)";

/// Of so many cycles at most, and in Go 1.19 only, the trace may say whether the next one is
/// forced: `gcStart` notes that of a cycle before it has waited for the one before to be
/// printed (runtime/mgc.go). Since Go 1.21 it waits first.
const MOST_EARLY: u32 = 3;

fn is_forced(line: &str) -> bool {
    line.ends_with(FORCED)
}

fn plain(line: &str) -> &str {
    line.strip_suffix(FORCED).unwrap_or(line)
}

/// Cycles that `collect` has run when it answers for the first time.
const AT_START: u32 = 50;

mod privileged {
    use super::*;

    #[test]
    fn cycles_are_printed_as_the_runtime_prints_them() -> Result<()> {
        for (line, variant) in matrix()? {
            let mut collect = Collect::start(line, variant)?;
            let follow = collect.follow(&[])?;
            collect.tell("aflpas")?;
            follow.signal(Signal::SIGINT)?;
            let printed = ended(follow)?;
            let printed: Vec<&str> = printed.lines().collect();
            let trace = collect.trace(AT_START + 1)?;
            ensure!(trace.len() >= 170, "{line} {variant}: only {} cycles", trace.len());
            assert_eq!(printed.len(), trace.len(), "{line} {variant}");
            let mut early = 0;
            for (at, (printed, traced)) in printed.iter().zip(&trace).enumerate() {
                assert_eq!(plain(printed), plain(traced), "{line} {variant}");
                if is_forced(printed) != is_forced(traced) {
                    let next = trace.get(at + 1).with_context(|| format!("{line} {variant}: {traced}"))?;
                    ensure!(
                        is_forced(next) == is_forced(traced),
                        "{line} {variant}: {printed}, not {traced}"
                    );
                    early += 1;
                }
            }
            ensure!(
                early <= MOST_EARLY,
                "{line} {variant}: {early} cycles are forced or not, other than told"
            );
        }
        Ok(())
    }

    #[test]
    fn rows_tell_triggers_and_settings() -> Result<()> {
        for line in go_lines()? {
            let mut collect = Collect::start(line, Variant::Stripped)?;
            let follow = collect.follow(&["--json"])?;
            collect.tell("fspas")?;
            follow.signal(Signal::SIGINT)?;
            let printed = ended(follow)?;
            let rows = printed.lines().map(serde_json::from_str).collect::<Result<Vec<Row>, _>>()?;
            let trace = collect.trace(AT_START + 1)?;
            ensure!(rows.len() == trace.len(), "{line}: {} of {}", rows.len(), trace.len());
            rows.iter().zip(&trace).try_for_each(|(row, traced)| row.check(traced))?;
            let (forced, automatic) = rows.split_at(50);
            for row in forced {
                ensure!(row.trigger == "cycle" && row.gogc.is_none(), "{line}: {row:?}");
                ensure!(row.memory_limit.is_none(), "{line}: {row:?}");
            }
            for row in automatic {
                ensure!(row.trigger == "heap" && row.memory_limit == Some(1 << 30), "{line}: {row:?}");
            }
            ensure!(automatic.iter().any(|row| row.gogc == Some(50)), "{line}: {automatic:?}");
        }
        Ok(())
    }

    #[test]
    fn a_capture_holds_every_cycle_and_every_stop_of_the_world() -> Result<()> {
        for line in go_lines()? {
            let recorded = Recorded::of(line, "sfs")?;
            let report = recorded.report()?;
            let table = recorded.report_as(&["--gc", "--limit", "3"])?;
            let trace = recorded.collect.trace(AT_START + 1)?;

            ensure!(report.gc.len() == trace.len(), "{line}: {} of {}", report.gc.len(), trace.len());
            report.gc.iter().zip(&trace).try_for_each(|(row, traced)| row.check(traced))?;
            let seen = (report.capture.gc_cycles, report.capture.missed_gc_cycles);
            ensure!(seen == (trace.len(), 0), "{line}: {seen:?} {:?}", report.capture.notes);
            let stops = |reason: Option<&str>| {
                report.stw.iter().filter(|s| s.reason.as_deref() == reason).map(|s| s.count).sum::<usize>()
            };
            for stops in &report.stw {
                ensure!(stops.longest_ns > 0 && stops.total_ns >= stops.longest_ns, "{line}: {stops:?}");
            }
            if line.minor < 21 {
                ensure!(stops(None) == 2 * trace.len() + 50, "{line}: {:?}", report.stw);
                continue;
            }
            for (reason, count) in [
                ("GC sweep termination", trace.len()),
                ("GC mark termination", trace.len()),
                ("read mem stats", 50),
            ] {
                ensure!(stops(Some(reason)) == count, "{line}: {:?}", report.stw);
            }

            let last = format!("\n{} ", trace.len() as u32 + AT_START);
            ensure!(table.contains(&last) && table.contains("after 47 earlier ones"), "{line}: {table}");
        }
        Ok(())
    }

    /// The runtime's own measure leaves out a little, and holds what surrounds the marking.
    #[test]
    fn assists_are_told_by_the_site_that_had_to_wait() -> Result<()> {
        for line in go_lines()? {
            let report = Recorded::of(line, "hs")?.report()?;
            let measured: u64 = report.gc.iter().map(|row| row.assist_ns).sum();
            let told: u64 = report.assists.iter().map(|assists| assists.total_ns).sum();
            let count: usize = report.assists.iter().map(|assists| assists.count).sum();
            ensure!(count >= 10, "{line}: only {count} assists");
            ensure!((measured / 2..=measured * 11 / 10).contains(&told), "{line}: {told} of {measured}");
            let longest = report.assists.first().context("none")?;
            let function = &longest.frames.first().context("no frame")?.function;
            ensure!(function == "main.help", "{line}: {:?}", longest.frames);
        }
        Ok(())
    }

    /// Cycles and peak heap at twice the GOGC, predicted and then tried.
    #[test]
    fn advice_comes_true() -> Result<()> {
        let lines = go_lines()?;
        for line in [lines.first().copied().context("no line")?, NEWEST] {
            let (before, after) = (pace(line, "100")?, pace(line, "200")?);
            let of_200 = |s: &&Scenario| s.gogc == Some(200);
            let predicted = before.scenarios.iter().find(of_200).context("200 was not tried")?;
            let per_byte = |s: &Scenario, advice: &Advice| s.cycles / advice.allocated_bytes;
            let cycles = per_byte(predicted, &before) / per_byte(&after.seen, &after);
            let peak = predicted.peak_heap_bytes / after.seen.peak_heap_bytes;
            ensure!((0.8..1.25).contains(&cycles), "{line}: {cycles} {before:?} {after:?}");
            ensure!((0.8..1.25).contains(&peak), "{line}: {peak} {before:?} {after:?}");
        }
        Ok(())
    }

    #[test]
    fn following_ends_with_the_target_and_has_its_last_cycle() -> Result<()> {
        let mut collect = Collect::start(NEWEST, Variant::Plain)?;
        let follow = collect.follow(&[])?;
        collect.tell("fs")?;
        let trace = collect.trace(AT_START + 1)?;
        assert_eq!(ended(follow)?.lines().collect::<Vec<_>>(), trace);
        Ok(())
    }

    #[test]
    fn a_stopped_target_has_no_cycles_and_stays_stopped() -> Result<()> {
        let mut collect = Collect::start(NEWEST, Variant::Plain)?;
        collect.0.signal(Signal::SIGSTOP)?;
        let follow = collect.follow(&["--for", "300ms"])?;
        ensure!(ended(follow)?.is_empty());
        collect.0.signal(Signal::SIGCONT)?;
        collect.tell("f")
    }
}
