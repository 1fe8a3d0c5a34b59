//! The census that a recording takes, against what programs say of themselves.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tests::{
    NEWEST, PATIENCE, Process, Variant, build, check_programs, end_recording, go_lines, start_recording_with,
};
use tracer::capture::Reader;
use tracer::event::{Census, Event, Frame, GoroutineGroup, StackId, TypeInfo};

/// What the target program `census` says that it has.
#[derive(Debug, Deserialize)]
struct Truth {
    goroutines: u64,
    timers: u64,
    finalizers: u64,
    cleanups: u64,
    queued: u64,
    heap_inuse: u64,
}

/// The censuses of a capture, and what explains them.
#[derive(Debug, Default)]
struct Capture {
    censuses: Vec<Census>,
    stacks: HashMap<StackId, Vec<u64>>,
    symbols: HashMap<u64, Vec<Frame>>,
    types: HashMap<u64, TypeInfo>,
    notes: Vec<String>,
}

impl Capture {
    fn read(path: &Path) -> Result<Capture> {
        let mut capture = Capture::default();
        let mut reader = Reader::new(std::fs::File::open(path)?, "census")?;
        while let Some(event) = reader.next_event()? {
            match event {
                Event::Census(census) => capture.censuses.push(census),
                Event::Stack { id, pcs } => drop(capture.stacks.insert(id, pcs)),
                Event::Symbol { pc, frames } => drop(capture.symbols.insert(pc, frames)),
                Event::Type { addr, info } => drop(capture.types.insert(addr, info)),
                Event::Note(note) => capture.notes.push(note),
                _ => {}
            }
        }
        Ok(capture)
    }

    /// The functions on a group's stack, innermost first.
    fn functions(&self, group: &GoroutineGroup) -> Vec<&str> {
        let pcs = group.stack.and_then(|stack| self.stacks.get(&stack));
        let frames = pcs.into_iter().flatten().filter_map(|pc| self.symbols.get(pc)).flatten();
        frames.map(|frame| frame.function.as_str()).collect()
    }

    /// The function whose `go` statement made a group.
    fn creator(&self, group: &GoroutineGroup) -> Option<&str> {
        Some(self.symbols.get(&group.go_pc)?.last()?.function.as_str())
    }

    /// Timers of the runtime itself: it has one while it rests from giving memory back.
    fn own_timers(&self, census: &Census) -> u64 {
        let rests = |group: &&GoroutineGroup| {
            group.state == "sleep" && self.functions(group).contains(&"runtime.(*scavengerState).sleep")
        };
        let groups = census.goroutines.as_ref().map_or(&[][..], |goroutines| &goroutines.groups);
        groups.iter().filter(rests).map(|group| group.count).sum()
    }

    /// Goroutines with this function on their stack: how many, the state of the first, and
    /// their largest stack.
    fn with(&self, census: &Census, function: &str) -> Result<(u64, String, u64)> {
        let groups = &census.goroutines.as_ref().context("no goroutines")?.groups;
        let mut found = groups.iter().filter(|group| self.functions(group).contains(&function)).peekable();
        let state = found.peek().with_context(|| format!("no {function}"))?.state.clone();
        let (count, largest) = found.fold((0, 0), |(count, largest), group| {
            (count + group.count, largest.max(group.largest_stack_bytes))
        });
        Ok((count, state, largest))
    }
}

/// heaptap reads a process that is not its child.
mod privileged {
    use super::*;

    /// Records the target program for a moment.
    fn recorded(program: &Path) -> Result<(Truth, Capture)> {
        let mut process = Process::spawn(&mut Command::new(program))?;
        process.stdout_line(|line| line == "ready", PATIENCE)?;
        let truth = serde_json::from_str(&process.stdout_line(|_| true, PATIENCE)?)?;
        let scratch = tempfile::tempdir()?;
        let path = scratch.path().join("census.heaptap");
        let record = start_recording_with(process.pid(), &path, &["--evidence"])?;
        end_recording(record)?;
        Ok((truth, Capture::read(&path)?))
    }

    #[test]
    fn a_census_finds_what_the_program_has() -> Result<()> {
        let stripped = go_lines()?.into_iter().map(|line| (line, Variant::Stripped));
        check_programs(stripped.chain([(NEWEST, Variant::Pie)]).collect(), |line, variant| {
            let (truth, capture) = recorded(&build("census", line, variant)?)?;
            let census = capture.censuses.last().context("no census")?;
            let note = capture.notes.iter().find(|note| note.contains("census"));
            ensure!(note.is_none(), "{note:?}");

            let goroutines = census.goroutines.as_ref().context("no goroutines")?;
            let of_runtime = |group: &&GoroutineGroup| {
                let main = capture.functions(group).contains(&"main.main");
                !main && capture.creator(group).is_some_and(|name| name.starts_with("runtime."))
            };
            let of_runtime: u64 = goroutines.groups.iter().filter(of_runtime).map(|group| group.count).sum();
            ensure!(
                goroutines.count - of_runtime == truth.goroutines,
                "{of_runtime} {goroutines:?} {truth:?}"
            );
            for (function, count, state, least) in [
                ("main.receive", 300, "chan receive", 2 << 10),
                ("main.choose", 200, "select", 2 << 10),
                ("main.recurse", 10, "chan receive", 64 << 10),
            ] {
                let (found, waits, largest) = capture.with(census, function)?;
                ensure!((found, waits.as_str()) == (count, state), "{function}: {found} {waits}");
                ensure!(largest >= least, "{function}: {largest}");
            }

            let timers: Vec<_> =
                capture.censuses.iter().map(|census| (census.timers, capture.own_timers(census))).collect();
            // The runtime may have set its own between two readings of one census, not of all.
            let are_right = |&(timers, own): &(Option<u64>, u64)| timers == Some(truth.timers + own);
            ensure!(timers.iter().any(are_right), "{timers:?} {truth:?}");
            let finalizers = census.finalizers.as_ref().context("no finalizers")?;
            ensure!(finalizers.queued == Some(truth.queued), "{finalizers:?} {truth:?}");
            ensure!((truth.cleanups..=truth.cleanups + 10).contains(&finalizers.cleanups), "{finalizers:?}");
            let things = finalizers
                .types
                .iter()
                .find(|(addr, _)| capture.types.get(addr).is_some_and(|info| info.name == "main.thing"));
            ensure!(things.map(|(_, count)| *count) == Some(truth.finalizers), "{finalizers:?}");
            let runs = |group: &&GoroutineGroup| capture.functions(group).contains(&"main.block.func1.1");
            ensure!(finalizers.runners.iter().find(runs).is_some_and(|group| group.state == "chan receive"));

            let memory = census.memory.as_ref().context("no memory")?;
            let in_spans: u64 = census.size_classes.iter().map(|class| class.bytes).sum();
            ensure!(in_spans == memory.heap_inuse, "{in_spans} {memory:?}");
            ensure!(memory.heap_inuse.abs_diff(truth.heap_inuse) <= 1 << 20, "{memory:?} {truth:?}");
            ensure!(memory.stack_inuse >= goroutines.stack_bytes, "{memory:?}");
            ensure!(memory.rss_anon_bytes.is_some_and(|rss| rss >= memory.heap_alloc), "{memory:?}");
            ensure!(census.size_classes.iter().all(|class| class.objects <= class.slots));
            Ok(())
        })
    }
}
