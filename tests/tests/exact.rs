//! heaptap's reports state exactly what a program allocated, on each Go line and variant.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tests::manifest::{Manifest, Markers};
use tests::report::{Frame, Site};
use tests::{GoLine, NEWEST, PATIENCE, Process, Report, Variant, build, end_recording, source_dir};
use tests::{
    await_recording, check_lines, check_programs, heaptap, matrix, start_recording, start_recording_with,
    start_target,
};

/// Records one run of `exact`, from outside, while it does what it is known to do.
fn capture(line: GoLine, variant: Variant, args: &[&str]) -> Result<(Manifest, Report)> {
    let program = build("exact", line, variant)?;
    let scratch = tempfile::tempdir()?;
    let file = scratch.path().join("exact.heaptap");
    let mut target = start_target(&program, &[])?;
    let record = start_recording_with(target.pid(), &file, args)?;
    let manifest = run_phase(&mut target)?;
    end_recording(record)?;
    Ok((manifest, Report::of(&file)?))
}

fn run_phase(target: &mut Process) -> Result<Manifest> {
    target.send("go")?;
    let line = target.stdout_line(|line| line.starts_with('{'), PATIENCE)?;
    serde_json::from_str(&line).context("the manifest")
}

fn markers() -> Result<Markers> {
    Markers::read(&source_dir("exact"))
}

fn check_exact(line: GoLine, variant: Variant) -> Result<()> {
    let report = check_counts(line, variant, &[])?;
    let said = (&*report.target.go_version, report.target.stripped, report.target.pie, report.target.cgo);
    let built = (variant == Variant::Stripped, variant == Variant::Pie, variant == Variant::Cgo);
    ensure!(said == (&*format!("go{}", line.version), built.0, built.1, built.2), "target: {said:?}");
    Ok(())
}

fn check_counts_only(line: GoLine) -> Result<()> {
    let report = check_counts(line, Variant::Stripped, &["--counts-only"])?;
    ensure!(report.sites.iter().all(|site| site.live_objects.is_none()), "something is said to be alive");
    let said = |note: &String| note.contains("--counts-only");
    ensure!(report.capture.notes.iter().any(said), "{:?}", report.capture.notes);
    Ok(())
}

fn check_counts(line: GoLine, variant: Variant, args: &[&str]) -> Result<Report> {
    let (manifest, report) = capture(line, variant, args)?;
    ensure!(manifest.gc_cycles > 3, "the GC ran only {} times", manifest.gc_cycles);
    let wrong = manifest.differences(&report, &markers()?);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(report.is_complete(), "incomplete: {:?}", report.capture);
    Ok(report)
}

/// What a stripped program must share with its unstripped twin: the objects of each type
/// and kind at each place. Of the longest stacks the outermost frames are left out: there
/// it depends on the GC whether one more frame of the allocator takes the place of theirs.
fn places<'r>(sites: &[&'r Site]) -> BTreeMap<(&'r str, &'r str, &'r [Frame]), u64> {
    let mut places = BTreeMap::new();
    for site in sites {
        let frames = &site.frames[..site.frames.len().min(100)];
        *places.entry((&*site.type_, &*site.kind, frames)).or_default() += site.alloc_objects;
    }
    places
}

fn check_stripped_is_plain(line: GoLine) -> Result<()> {
    let markers = markers()?;
    let (manifest, plain) = capture(line, Variant::Plain, &[])?;
    let (_, stripped) = capture(line, Variant::Stripped, &[])?;
    let plain_sites = manifest.steady_sites(&plain, &markers);
    let stripped_sites = manifest.steady_sites(&stripped, &markers);
    let (plain, stripped) = (places(&plain_sites), places(&stripped_sites));
    ensure!(plain.len() > 60, "only {} places", plain.len());
    let differs = |(place, objects): &(&_, &u64)| stripped.get(place) != Some(objects);
    let wrong: Vec<_> = plain.iter().filter(differs).take(3).collect();
    ensure!(wrong.is_empty() && plain.len() == stripped.len(), "plain, but not stripped: {wrong:#?}");
    Ok(())
}

mod privileged {
    use super::*;

    #[test]
    fn every_object_is_counted_at_its_site() -> Result<()> {
        check_programs(matrix()?, check_exact)
    }

    #[test]
    fn so_is_it_in_the_kernel() -> Result<()> {
        check_lines(check_counts_only)
    }

    #[test]
    fn a_stripped_program_gives_the_same_report() -> Result<()> {
        check_lines(check_stripped_is_plain)
    }

    #[test]
    fn exec_sees_the_program_from_its_first_instruction() -> Result<()> {
        let program = build("exact", NEWEST, Variant::Stripped)?;
        let scratch = tempfile::tempdir()?;
        let file = scratch.path().join("exec.heaptap");
        let mut record = heaptap();
        record.args(["record", "--mode", "exact"]).arg("-o").arg(&file).arg("--exec").arg("--").arg(program);
        let mut record = Process::spawn(&mut record)?;
        await_recording(&mut record)?;
        let manifest = run_phase(&mut record)?;
        end_recording(record)?;

        let report = Report::of(&file)?;
        assert!(report.is_complete(), "{:?}", report.capture);
        // Before it is ready, the program makes eleven objects of each of these sorts.
        for name in ["scan8", "noscan96"] {
            let site = manifest.sites.iter().find(|site| site.name == name).context(name)?;
            let at = |s: &&Site| s.own_frames().first().is_some_and(|f| f.function == format!("main.{name}"));
            let seen: u64 = report.sites.iter().filter(at).map(|s| s.alloc_objects).sum();
            assert_eq!(seen, site.objects + 11, "{name}");
        }
        Ok(())
    }

    /// A copy of the target program, and where to record it.
    struct Copy {
        scratch: tempfile::TempDir,
        program: PathBuf,
        target: Process,
    }

    impl Copy {
        fn start(name: &str) -> Result<Copy> {
            let scratch = tempfile::tempdir()?;
            let program = scratch.path().join(name);
            tests::copy_program(build("exact", NEWEST, Variant::Stripped)?, &program)?;
            let target = start_target(&program, &[])?;
            Ok(Copy { scratch, program, target })
        }

        fn file(&self) -> PathBuf {
            self.scratch.path().join("copy.heaptap")
        }

        /// Runs the phase under this recording, whose report must be exact.
        fn check(mut self, record: Process) -> Result<()> {
            let manifest = run_phase(&mut self.target)?;
            end_recording(record)?;
            let wrong = manifest.differences(&Report::of(&self.file())?, &markers()?);
            ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
            Ok(())
        }
    }

    #[test]
    fn a_process_is_found_by_its_name() -> Result<()> {
        let copy = Copy::start("ht-by-name")?;
        let mut record = heaptap();
        record.args(["record", "--mode", "exact", "--name", "ht-by-name", "-o"]).arg(copy.file());
        let mut record = Process::spawn(&mut record)?;
        await_recording(&mut record)?;
        copy.check(record)
    }

    #[test]
    fn a_deleted_executable_is_recorded_all_the_same() -> Result<()> {
        let copy = Copy::start("deleted")?;
        fs::remove_file(&copy.program)?;
        let record = start_recording(copy.target.pid(), &copy.file())?;
        copy.check(record)
    }
}

/// The target program itself is what the tests think it is, on each line and variant.
#[test]
fn the_target_program_states_more_than_a_hundred_thousand_objects() -> Result<()> {
    check_programs(matrix()?, |line, variant| {
        let mut target = start_target(&build("exact", line, variant)?, &[])?;
        let manifest = run_phase(&mut target)?;
        let stated: u64 = manifest.sites.iter().map(|site| site.objects).sum();
        ensure!(stated > 100_000, "{stated}");
        // What is not at a site: goroutines, the GC's own workers, a few flags.
        ensure!(manifest.mallocs >= stated && manifest.mallocs - stated < 3_000, "{}", manifest.mallocs);
        Ok(())
    })
}
