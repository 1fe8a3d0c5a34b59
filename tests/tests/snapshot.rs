//! What is read of a process that stands still, against what it says of itself.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tests::profile::Profile;
use tests::{GoLine, NEWEST, PATIENCE, Process, Signal, Variant, build, go_lines, matrix, run_heaptap};
use tests::{end_recording, start_recording};
use tracer::memory::LiveMemory;
use tracer::runtime::{Layout, MemStatsReader, SchedulerReader, SpanReader};
use tracer::target::{Identity, identify};

/// Numbers by name.
type Statistics = BTreeMap<String, u64>;

/// The target program `still`.
struct Still {
    process: Process,
    it: Identity,
    layout: Layout,
    memory: LiveMemory,
    scratch: tempfile::TempDir,
}

impl Still {
    /// `rate` is its MemProfileRate, `-` the one it has anyway.
    fn start(line: GoLine, variant: Variant, rate: &str) -> Result<Still> {
        let scratch = tempfile::tempdir()?;
        let mut program = Command::new(build("still", line, variant)?);
        program.arg(scratch.path().join("heap.pb.gz")).arg(rate);
        let mut process = Process::spawn(&mut program)?;
        // Once it answers it is past its start.
        process.send("a")?;
        process.stdout_line(|l| l == "done", PATIENCE)?;
        let pid = i32::try_from(process.pid())?;
        let it = identify(pid, None)?;
        let layout = Layout::for_binary(&it.binary, &it.target.go_version)?;
        Ok(Still { process, it, layout, memory: LiveMemory::new(pid), scratch })
    }

    fn command(&mut self, command: &str) -> Result<()> {
        self.process.send(command)?;
        self.process.stdout_line(|l| l == "done", PATIENCE).map(drop)
    }

    /// The heap profile that it writes, as its `/debug/pprof/heap` would.
    fn own_profile(&mut self) -> Result<Profile> {
        self.command("p")?;
        Profile::decode(&fs::read(self.scratch.path().join("heap.pb.gz"))?)
    }

    /// What `heaptap snapshot` prints of it, with more arguments.
    fn snapshot(&self, args: &[&str]) -> Result<String> {
        let pid = self.process.pid().to_string();
        let ended = run_heaptap(&[&["snapshot", "--pid", &pid], args].concat())?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        Ok(ended.stdout)
    }

    fn profile(&self) -> Result<Profile> {
        let path = self.scratch.path().join("snapshot.pb.gz");
        self.snapshot(&["--format", "pprof", "-o", path.to_str().context("a path in UTF-8")?])?;
        Profile::decode(&fs::read(path)?)
    }

    /// What it says of itself.
    fn statistics(&mut self) -> Result<Statistics> {
        self.process.send("s")?;
        let said = self.process.stdout_line(|l| l.contains("HeapAlloc="), PATIENCE)?;
        said.split_whitespace()
            .map(|pair| {
                let (name, value) = pair.split_once('=').context("NAME=VALUE")?;
                Ok((name.to_owned(), value.parse()?))
            })
            .collect()
    }
}

/// What is read, under the names that the program has for it.
fn read_statistics(still: &Still) -> Result<Statistics> {
    let Still { it, layout, memory, .. } = still;
    let bias = it.target.load_bias;
    let stats = MemStatsReader::new(&it.binary, layout, bias)?.read(memory)?;
    let scheduler = SchedulerReader::new(&it.binary, layout, bias)?.read(memory)?;
    let spans = SpanReader::new(&it.binary, layout, bias)?.all(memory)?;
    ensure!(stats.notes.is_empty() && spans.notes.is_empty(), "{:?} {:?}", stats.notes, spans.notes);
    let mut read = BTreeMap::new();
    for value in [serde_json::to_value(stats.value)?, serde_json::to_value(scheduler)?] {
        for (name, value) in value.as_object().context("an object")? {
            let number = value.as_u64().or_else(|| value.as_f64().map(|f| (f * 1e12) as u64));
            read.insert(name.clone(), number.context("a number")?);
        }
    }
    for span in &spans.value {
        if span.size_class() > 0 {
            *read.entry(format!("size{}", span.elem_size)).or_default() += span.alloc_count;
        }
    }
    Ok(read)
}

/// What `ReadMemStats` itself changes by emptying the caches of the Ps: cached stacks go
/// back to the heap, and lists of spans grow.
const MOVED_BY_READING: [&str; 9] =
    ["StackInuse", "StackSys", "HeapIdle", "HeapSys", "HeapReleased", "GCSys", "OtherSys", "Sys", "NextGC"];

/// What is read and what the program says, at a moment when nothing changes: the
/// scavenger runs by itself after a collection.
fn compared(still: &mut Still, except: &[&str]) -> Result<(Statistics, Statistics)> {
    for _ in 0..100 {
        let mut read = read_statistics(still)?;
        let mut said = still.statistics()?;
        let mut after = read_statistics(still)?;
        for statistics in [&mut read, &mut said, &mut after] {
            statistics.retain(|name, _| !except.contains(&name.as_str()));
        }
        if read == after {
            // `MemStats.BySize` ends at 18 KiB.
            read.retain(|name, _| said.contains_key(name));
            // Size classes without objects need no spans.
            said.retain(|name, value| *value > 0 || read.contains_key(name));
            return Ok((read, said));
        }
    }
    bail!("the program does not stand still")
}

#[test]
fn statistics_are_exactly_the_runtimes_own() -> Result<()> {
    for (line, variant) in matrix()? {
        for rate in ["-", "1"] {
            let mut still = Still::start(line, variant, rate)?;
            for round in ["a", "g", "a", "g"] {
                still.command(round)?;
                let (read, said) = compared(&mut still, &MOVED_BY_READING)?;
                assert_eq!(read, said, "{line} {variant} {rate} after {round}");
                let (read, said) = compared(&mut still, &[])?;
                assert_eq!(read, said, "{line} {variant} {rate} after {round}, all");
            }
        }
    }
    Ok(())
}

/// What may allocate between the two profiles: writing the program's own, and the
/// scavenger, which wakes by itself.
const MEANWHILE: [&str; 2] = ["main.writeProfile", "runtime.bgscavenge"];

/// What the program's own profile and those read `before` and `after` it contradict each
/// other in. The runtime may start a thread at any moment, which is sampled too: what the
/// program says may be new since `before`, and only what did not change until `after` must
/// be in what it says.
fn differences(before: &Profile, own: &Profile, after: &Profile) -> Vec<String> {
    let has = |profile: &Profile, sample| profile.samples.binary_search(sample).is_ok();
    let own_only = own.samples.iter().filter(|sample| !has(before, sample) && !has(after, sample));
    let mut all: Vec<String> = own_only.map(|sample| format!("own: {sample:?}")).collect();
    all.retain(|sample| !MEANWHILE.iter().any(|function| sample.contains(function)));
    let read_only = before.samples.iter().filter(|sample| has(after, sample) && !has(own, sample));
    all.extend(read_only.map(|sample| format!("read: {sample:?}")));
    all
}

mod privileged {
    use super::*;

    #[test]
    fn the_heap_profile_is_exactly_the_programs_own() -> Result<()> {
        for (line, variant) in matrix()? {
            for (rate, samples) in [("-", 1), ("1", 100), ("4096", 2)] {
                let mut still = Still::start(line, variant, rate)?;
                // Before the first collection, after one, and with samples of three cycles.
                for round in ["", "g", "a", "gag"] {
                    round.chars().try_for_each(|command| still.command(&command.to_string()))?;
                    let (read, own, after) = (still.profile()?, still.own_profile()?, still.profile()?);
                    assert!(own.samples.len() >= samples, "{line} {variant} {rate}: {}", own.samples.len());
                    assert_eq!(read.types, own.types);
                    assert_eq!(read.period, own.period);
                    assert_eq!(
                        differences(&read, &own, &after),
                        [] as [String; 0],
                        "{line} {variant} {rate} {round}"
                    );
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_profiler_that_is_off_is_said_to_be() -> Result<()> {
        let program = build("counters", NEWEST, Variant::Stripped)?;
        let mut process = Process::spawn(&mut Command::new(program))?;
        process.send("a")?;
        process.stdout_line(|l| l == "done", PATIENCE)?;
        let ended = run_heaptap(&["snapshot", "--pid", &process.pid().to_string(), "--json"])?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        let snapshot: serde_json::Value = serde_json::from_str(&ended.stdout)?;
        assert_eq!(snapshot["profile"]["rate"], 0);
        let notes = snapshot["notes"].as_array().context("notes")?;
        let says = |note: &&serde_json::Value| note.as_str().is_some_and(|n| n.contains("profiler is off"));
        assert_eq!(notes.iter().filter(says).count(), 1, "{notes:?}");
        // The rest is known all the same.
        assert!(snapshot["memstats"]["HeapAlloc"].as_u64() > Some(0));
        assert!(snapshot["size_classes"].as_array().is_some_and(|classes| classes.len() > 10));
        Ok(())
    }

    #[test]
    fn a_stopped_process_is_read_and_stays_stopped() -> Result<()> {
        let still = Still::start(NEWEST, Variant::Stripped, "1")?;
        still.process.signal(Signal::SIGSTOP)?;
        let state = || -> Result<String> {
            let stat = fs::read_to_string(format!("/proc/{}/stat", still.process.pid()))?;
            Ok(stat
                .rsplit(')')
                .next()
                .and_then(|rest| rest.split_whitespace().next())
                .unwrap_or("")
                .to_owned())
        };
        let stopped = (0..100_000).find_map(|_| state().ok().filter(|s| s == "T"));
        ensure!(stopped.is_some(), "not stopped");
        let table = still.snapshot(&["--limit", "3", "--lines"])?;
        for part in ["goroutines", "spans by size class", "heap profile", "main.go:"] {
            assert!(table.contains(part), "no {part} in\n{table}");
        }
        assert_eq!(state()?, "T");
        still.process.signal(Signal::SIGCONT)
    }

    /// With every allocation sampled and no garbage left, what is alive before a capture
    /// is what the program's own profile says is in use after them.
    #[test]
    fn what_was_alive_before_is_in_the_report() -> Result<()> {
        for line in go_lines()? {
            let mut still = Still::start(line, Variant::Stripped, "1")?;
            "ggg".chars().try_for_each(|command| still.command(&command.to_string()))?;
            let capture = still.scratch.path().join("c.heaptap");
            let record = start_recording(still.process.pid(), &capture)?;
            end_recording(record)?;
            let own = still.own_profile()?;
            let path = capture.to_str().context("a path in UTF-8")?;
            let ended = run_heaptap(&["report", path, "--json"])?;
            ensure!(ended.status.success(), "{}", ended.stderr);
            let report: serde_json::Value = serde_json::from_str(&ended.stdout)?;
            let before = &report["before_attach"];
            let sum = |value: usize| own.samples.iter().filter_map(|(_, v)| v.get(value)).sum::<i64>();
            let number = |name: &str| before[name].as_i64().context("a number");
            // The collections themselves made a few objects since.
            let newer = number("inuse_objects")? - sum(2);
            assert!((0..10).contains(&newer), "{line}: {newer}");
            let newer = number("inuse_bytes")? - sum(3);
            assert!((0..20_000).contains(&newer), "{line}: {newer}");
            let sites = before["sites"].as_array().context("sites")?;
            let alive = own.samples.iter().filter(|(_, values)| values.get(2) > Some(&0)).count();
            assert!((alive..alive + 10).contains(&sites.len()), "{line}: {} for {alive}", sites.len());
            let notes = report["capture"]["notes"].to_string();
            assert!(notes.contains("alive before the capture"), "{line}: {notes}");
        }
        Ok(())
    }
}
