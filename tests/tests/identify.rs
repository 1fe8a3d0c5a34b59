//! What heaptap says of processes: Go programs in every form, and what is none.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tests::{Process, Variant, build, go_lines};
use tracer::base::ErrorKind;
use tracer::memory::LiveMemory;
use tracer::runtime::{CounterReader, Layout};
use tracer::target::{Spawned, identify, open_binary};

/// Starts the target program and awaits its first answer: spawning alone returns before
/// the kernel has mapped the program.
fn running(program: &Path) -> Result<Process> {
    let mut process = Process::spawn(&mut Command::new(program))?;
    process.send("a")?;
    process.stdout_line(|line| line == "done", Duration::from_secs(60))?;
    Ok(process)
}

#[test]
fn a_go_program_is_known_also_when_its_file_is_gone() -> Result<()> {
    for line in go_lines()? {
        for variant in Variant::ALL {
            let built = build("counters", line, variant)?;
            // A link, not a copy: a file that another test's child still holds open for
            // writing cannot be run.
            let dir = tempfile::tempdir_in(built.parent().context("no parent")?)?;
            let program = dir.path().join("gone");
            std::fs::hard_link(built, &program)?;
            let process = running(&program)?;
            std::fs::remove_file(&program)?;
            let target = identify(i32::try_from(process.pid())?, None)?.target;
            let at = format!("{line} {variant}");
            assert_eq!(target.go_version, format!("go{}", line.version), "{at}");
            assert_eq!(target.stripped, variant == Variant::Stripped, "{at}");
            assert_eq!(target.pie, variant == Variant::Pie, "{at}");
            assert_eq!(target.load_bias != 0, variant == Variant::Pie, "{at}");
            assert!(target.exe.ends_with("/gone (deleted)"), "{at}: {}", target.exe);
            assert!(target.build_id.is_some_and(|id| !id.is_empty()), "{at}");
            assert!(target.maps.iter().any(|map| map.executable && map.path == target.exe), "{at}");
        }
    }
    Ok(())
}

#[test]
fn an_assumed_version_is_believed() -> Result<()> {
    let line = *go_lines()?.first().context("no Go line")?;
    let process = running(&build("counters", line, Variant::Stripped)?)?;
    let target = identify(i32::try_from(process.pid())?, Some("1.99.9"))?.target;
    assert_eq!(target.go_version, "1.99.9");
    Ok(())
}

#[test]
fn a_started_program_has_not_run_yet() -> Result<()> {
    for line in go_lines()? {
        for variant in Variant::ALL {
            let program = build("counters", line, variant)?;
            let spawned =
                Spawned::start(&[program.to_string_lossy().into_owned()], std::process::Stdio::inherit())?;
            let it = identify(spawned.pid(), None)?;
            let layout = Layout::for_binary(&it.binary, &it.target.go_version)?;
            let reader = CounterReader::new(&it.binary, &layout, it.target.load_bias)?;
            let read = reader.read(&LiveMemory::new(spawned.pid()));
            let counters = read.with_context(|| format!("{line} {variant}"))?;
            assert_eq!((counters.value.objects, counters.value.bytes), (0, 0), "{line} {variant}");
        }
    }
    Ok(())
}

#[test]
fn what_is_no_go_program_is_refused() -> Result<()> {
    let mut cat = Command::new("cat").stdin(Stdio::piped()).spawn()?;
    let refused = identify(i32::try_from(cat.id())?, None);
    cat.kill()?;
    cat.wait()?;
    let error = refused.err().context("cat is no Go program")?;
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("/cat): not a Go program"), "{error}");
    let ended = identify(i32::try_from(cat.id())?, None).err().context("cat has ended")?;
    assert_eq!(ended.kind(), ErrorKind::Failed);

    let script = tempfile::NamedTempFile::new()?;
    std::fs::write(script.path(), "#!/bin/sh\n")?;
    let error = open_binary(script.path()).err().context("a script")?;
    assert!(error.kind() == ErrorKind::Usage && error.to_string().contains("not an ELF file"), "{error}");
    Ok(())
}
