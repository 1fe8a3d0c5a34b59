//! Runtime layouts and globals of real Go binaries: machine code and tables against
//! what the linker and the compiler wrote.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::{GoLine, Variant, build, build_with, go_lines};
use tracer::binary::Binary;
use tracer::runtime::{Global, Layout};
use tracer::target::open_binary;

/// A copy of a program without symbols and DWARF.
fn strip(program: &Path, into: &tempfile::TempDir) -> Result<PathBuf> {
    let stripped = into.path().join("stripped");
    let status = Command::new("objcopy").arg("--strip-all").arg(program).arg(&stripped).status()?;
    ensure!(status.success(), "objcopy of {}: {status}", program.display());
    Ok(stripped)
}

/// A program of every line that is tested, linked in every way.
fn programs() -> Result<Vec<(GoLine, Variant, Binary, Binary)>> {
    let mut programs = Vec::new();
    for line in go_lines()? {
        for variant in [Variant::Plain, Variant::Pie, Variant::Cgo] {
            let program = build("exact", line, variant)?;
            let dir = tempfile::tempdir()?;
            let plain = open_binary(&program)?;
            let stripped = open_binary(&strip(&program, &dir)?)?;
            ensure!(stripped.is_stripped() && !plain.is_stripped());
            programs.push((line, variant, plain, stripped));
        }
    }
    Ok(programs)
}

#[test]
fn tables_say_what_dwarf_says() -> Result<()> {
    for (line, variant, plain, stripped) in programs()? {
        let version = plain.go_version().context("go version")?;
        let from_tables = Layout::for_binary(&stripped, &version)?;
        // No table is known for this, so the DWARF alone must tell.
        let from_dwarf = Layout::for_binary(&plain, "devel +abcdef")?;
        assert_eq!(from_dwarf, from_tables, "{line} {variant}");
        assert_eq!(Layout::for_binary(&plain, &version)?, from_tables, "{line} {variant}");
    }
    Ok(())
}

#[test]
fn experiments_have_columns_of_their_own() -> Result<()> {
    for (minor, experiment) in [(24, "noswissmap"), (25, "greenteagc"), (26, "nogreenteagc")] {
        let Some(line) = go_lines()?.into_iter().find(|line| line.minor == minor) else { continue };
        let program = build_with("counters", line, Variant::Plain, &[("GOEXPERIMENT", experiment)])?;
        let binary = open_binary(&program)?;
        let version = binary.go_version().context("go version")?;
        assert!(version.contains(experiment), "{version}");
        let measured = Layout::measured(&version).context("measured")?;
        assert_eq!(Layout::for_binary(&binary, "devel +abcdef")?, measured, "{version}");
    }
    Ok(())
}

/// Those of the runtime's variables that this one has.
fn globals(layout: &Layout) -> impl Iterator<Item = Global> {
    let has_cleanups = layout.queues.cleanups.is_some();
    Global::ALL.into_iter().filter(move |global| has_cleanups || *global != Global::GcCleanups)
}

#[test]
fn machine_code_tells_the_addresses_of_symbols() -> Result<()> {
    for (line, variant, plain, stripped) in programs()? {
        let layout = Layout::for_binary(&plain, &plain.go_version().context("go version")?)?;
        for global in globals(&layout) {
            let symbol = plain.symbol(global.symbol()).context(global.symbol())?.addr;
            assert_eq!(global.locate(&plain, &layout)?, symbol, "{line} {variant} {global:?}");
            assert_eq!(global.locate(&stripped, &layout)?, symbol, "{line} {variant} {global:?} stripped");
        }
    }
    Ok(())
}

#[test]
fn variables_are_not_read_only() -> Result<()> {
    for (line, variant, plain, _) in programs()? {
        let layout = Layout::for_binary(&plain, &plain.go_version().context("go version")?)?;
        for global in globals(&layout) {
            let symbol = plain.symbol(global.symbol()).context(global.symbol())?.addr;
            assert_eq!(plain.read_only_u64(symbol), None, "{line} {variant} {global:?}");
        }
        let text = plain.moduledata().context("module data")?.text;
        assert!(plain.read_only_u64(text).is_some(), "{line} {variant}");
    }
    Ok(())
}

#[test]
fn what_is_not_known_is_refused_by_name() -> Result<()> {
    let (_, _, plain, stripped) = programs()?.remove(0);
    let old = Layout::for_binary(&plain, "go1.18.10").expect_err("too old");
    assert_eq!(old.kind(), tracer::base::ErrorKind::Usage);
    assert!(old.to_string().contains("Go 1.18"), "{old}");
    for unknown in ["go1.20.14", "go1.99", "unknown"] {
        let error = Layout::for_binary(&stripped, unknown).expect_err(unknown);
        assert!(error.to_string().contains(unknown), "{error}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("--assume-go")), "{error}");
    }
    Ok(())
}
