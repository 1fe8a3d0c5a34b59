//! What is read of a process that stands still, against what it says of itself.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tests::{GoLine, PATIENCE, Process, Variant, build, matrix};
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
    /// `godebug` is its GODEBUG.
    fn start(line: GoLine, variant: Variant, godebug: &str) -> Result<Still> {
        let scratch = tempfile::tempdir()?;
        let mut program = Command::new(build("still", line, variant)?);
        program.arg(scratch.path().join("heap.pb.gz")).env("GODEBUG", godebug);
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
        for godebug in ["", "memprofilerate=1"] {
            let mut still = Still::start(line, variant, godebug)?;
            for round in ["a", "g", "a", "g"] {
                still.command(round)?;
                let (read, said) = compared(&mut still, &MOVED_BY_READING)?;
                assert_eq!(read, said, "{line} {variant} {godebug} after {round}");
                let (read, said) = compared(&mut still, &[])?;
                assert_eq!(read, said, "{line} {variant} {godebug} after {round}, all");
            }
        }
    }
    Ok(())
}
