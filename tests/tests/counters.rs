//! The runtime's own counters, read from a process's memory, against what it says itself.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{GoLine, Process, Variant, build, go_lines};
use tracer::base::Noted;
use tracer::event::Counters;
use tracer::memory::LiveMemory;
use tracer::runtime::{CounterReader, Layout};
use tracer::target::identify;

const PATIENCE: Duration = Duration::from_secs(60);

/// A running target program and what reads its counters.
struct Target {
    process: Process,
    memory: LiveMemory,
    reader: CounterReader,
}

impl Target {
    fn start(line: GoLine, variant: Variant) -> Result<Target> {
        let mut process = Process::spawn(&mut Command::new(build("counters", line, variant)?))?;
        process.send("a")?;
        process.stdout_line(|l| l == "done", PATIENCE)?;
        let pid = i32::try_from(process.pid())?;
        let it = identify(pid, None)?;
        ensure!(it.target.go_version.starts_with(&format!("go{line}")), "{}", it.target.go_version);
        let layout = Layout::for_binary(&it.binary, &it.target.go_version)?;
        let reader = CounterReader::new(&it.binary, &layout, it.target.load_bias)?;
        Ok(Target { process, memory: LiveMemory::new(pid), reader })
    }

    /// Has the program allocate; then what we read, and what it says: objects and bytes.
    fn round(&mut self) -> Result<(Counters, (u64, u64))> {
        self.process.send("a")?;
        self.process.stdout_line(|l| l == "done", PATIENCE)?;
        let read = self.reader.read(&self.memory)?;
        ensure!(read.notes.is_empty(), "{:?}", read.notes);
        self.process.send("r")?;
        let said = self.process.stdout_line(|l| l.contains(' '), PATIENCE)?;
        let (objects, bytes) = said.split_once(' ').context("two numbers")?;
        Ok((read.value, (objects.parse()?, bytes.parse()?)))
    }
}

#[test]
fn counters_are_exactly_the_runtimes_own() -> Result<()> {
    for line in go_lines()? {
        for variant in Variant::ALL {
            let mut target = Target::start(line, variant)?;
            for round in 0..5 {
                let (read, said) = target.round()?;
                assert_eq!((read.objects, read.bytes), said, "{line} {variant} round {round}");
                assert!(read.begin_ns > 0 && read.begin_ns <= read.end_ns);
            }
        }
    }
    Ok(())
}

#[test]
fn counters_never_run_backwards_under_load() -> Result<()> {
    for line in go_lines()? {
        let program = build("churn", line, Variant::Stripped)?;
        let args = ["-kind", "scan48", "-g", "2", "-rate", "300000", "-interval", "100ms"];
        let mut process = Process::spawn(Command::new(program).args(args))?;
        process.stdout_line(|l| l.contains("allocs"), PATIENCE)?;
        let pid = i32::try_from(process.pid())?;
        let it = identify(pid, None)?;
        let layout = Layout::for_binary(&it.binary, &it.target.go_version)?;
        let reader = CounterReader::new(&it.binary, &layout, it.target.load_bias)?;
        let memory = LiveMemory::new(pid);
        let mut last = Counters::default();
        let mut grown = 0;
        for _ in 0..1000 {
            let Noted { value: now, notes } = reader.read(&memory)?;
            if !notes.is_empty() {
                continue;
            }
            assert!(now.objects >= last.objects && now.bytes >= last.bytes, "{line}: {last:?} {now:?}");
            grown += u64::from(now.objects > last.objects);
            last = now;
        }
        assert!(grown > 10, "{line}: the counters stood still, or were never read undisturbed");
    }
    Ok(())
}
