//! Recordings of the runtime's own samples: against what the program says it did, and
//! against its own heap profile.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::lives::{Amount, Sampled, Truth, sites_of, step};
use tests::report::Site;
use tests::{
    GoLine, NEWEST, PATIENCE, Process, Report, Variant, build, check_lines, check_programs, go_lines,
};
use tests::{run_heaptap, start_target};

const RATE: u64 = 4096;

/// Starts the program, which samples itself at a rate.
///
/// Up to Go 1.23 a P would take no sample before the one that it has drawn at the rate that
/// programs start with: so that there is none, it samples every object at first, on the only
/// P that it has.
fn start(line: GoLine, variant: Variant, rate: u64) -> Result<Process> {
    let mut program = Command::new(build("lives", line, variant)?);
    let mut target = Process::spawn(program.arg("1").env("GOMAXPROCS", "1"))?;
    target.stdout_line(|line| line == "ready", PATIENCE)?;
    step(&mut target, &format!("rate {rate}"))?;
    Ok(target)
}

/// Starts to record it.
fn record(line: GoLine, variant: Variant, rate: u64, args: &[&str]) -> Result<Sampled> {
    Sampled::of(start(line, variant, rate)?, args)
}

/// Starts to record it while it makes garbage: so fast that its samples are read.
fn record_busy(line: GoLine, variant: Variant, rate: u64, args: &[&str]) -> Result<Sampled> {
    let mut target = start(line, variant, rate)?;
    step(&mut target, "busy")?;
    let mut recorded = Sampled::of(target, &[&["-vv"], args].concat())?;
    step(&mut recorded.target, "rest")?;
    Ok(recorded)
}

/// Has the program obey commands while its samples are read, and awaits that they were: of what was
/// found in the middle of GC cycles the one after it tells whether it is alive.
fn step_and_read(recorded: &mut Sampled, commands: &[&str]) -> Result<()> {
    for command in commands {
        step(&mut recorded.target, command)?;
    }
    recorded.recording.discard_stderr();
    let reading = |line: &str| line.contains("records] samples: ");
    // One may have been under way.
    recorded.recording.stderr_line(reading, PATIENCE)?;
    recorded.recording.stderr_line(reading, PATIENCE).map(drop)
}

/// Go lines, plain and stripped.
fn programs() -> Result<Vec<(GoLine, Variant)>> {
    let variants = |line| [(line, Variant::Plain), (line, Variant::Stripped)];
    Ok(go_lines()?.into_iter().flat_map(variants).collect())
}

fn sum(report: &Report, place: &str, of: fn(&Site) -> u64) -> u64 {
    sites_of(report, place).map(of).sum()
}

/// The type and kind of what a place makes.
const TYPES: [(&str, &str, &str); 11] = [
    ("scan8", "*uint8", "newobject"),
    ("scan24", "main.node24", "newobject"),
    ("scan48", "main.node48", "newobject"),
    ("noscan16", "[2]uint64", "newobject"),
    ("noscan96", "[12]uint64", "newobject"),
    ("header640", "main.scan640", "newobject"),
    ("header9472", "main.scan9000", "newobject"),
    ("slice112", "uint8", "makeslice"),
    ("large", "[40960]uint8", "newobject"),
    ("largeScan", "[5120]*uint8", "newobject"),
    ("finalized", "main.fin64", "newobject"),
];

/// Whether samples were read, not probed.
fn were_read(report: &Report) -> bool {
    report.capture.notes.iter().any(|note| note.contains("read from its own records"))
}

/// At rate 1 nothing is estimated.
fn check_exact(recorded: Sampled, commands: &[&str]) -> Result<Report> {
    let (report, truth, _) = recorded.after(commands)?;
    ensure!(report.capture.sampling.context("sampled")?.rate_bytes == Some(1));
    for (place, type_, kind) in TYPES {
        let (held, alive) = (truth.held[place], truth.alive[place]);
        let objects = (sum(&report, place, |s| s.alloc_objects), sum(&report, place, |s| s.alloc_bytes));
        ensure!(objects == (held.objects, held.bytes), "{place}: {objects:?} of {held:?}");
        let live = |of: fn(&Site) -> Option<u64>| sites_of(&report, place).filter_map(of).sum::<u64>();
        let live = (live(|s| s.live_objects), live(|s| s.live_bytes));
        ensure!(live == (alive.objects, alive.bytes), "{place}: {live:?} live of {alive:?}");
        for site in sites_of(&report, place) {
            ensure!((site.type_.as_str(), site.kind.as_str()) == (type_, kind), "{place}: {site:?}");
            let error = site.error_bytes.context("an interval")?;
            ensure!((error.alloc, error.live) == (0, Some(0)), "{place}: {error:?}");
        }
    }
    Ok(report)
}

/// Of tiny objects the blocks are sampled, which are all of their bytes.
fn check_coverage(report: &Report, off: f64) -> Result<()> {
    let bytes = report.capture.coverage.bytes;
    ensure!((bytes - 1.0).abs() < off, "{bytes} of the bytes");
    Ok(())
}

/// Sites with fewer samples have no interval worth the name.
const SAMPLES: u64 = 50;

/// How often estimates are within their 95% intervals, of how many.
#[derive(Debug, Default)]
struct Hits {
    within: u32,
    all: u32,
}

impl Hits {
    /// An interval for 95% is 1.96 deviations to each side; 5 of these are never passed, but
    /// where next to all objects are sampled a single one that is not can be more.
    fn check(&mut self, what: &str, estimate: u64, truth: Amount, error: u64) -> Result<()> {
        let single = truth.bytes / truth.objects;
        let truth = truth.bytes;
        let off = estimate.abs_diff(truth);
        self.all += 1;
        self.within += u32::from(off <= error);
        ensure!(off * 2 <= error * 5 + single * 6, "{what}: {estimate} ± {error}, not {truth}");
        Ok(())
    }

    /// There are at least so many, and most are within their intervals.
    fn conclude(&self, least: u32) -> Result<()> {
        ensure!(self.all >= least, "{self:?}");
        ensure!(f64::from(self.within) / f64::from(self.all) > 0.85, "{self:?}");
        Ok(())
    }
}

/// What the program does in a recording at the rate `RATE`.
const MANY: [&str; 23] = {
    let mut commands = ["hold"; 23];
    (commands[20], commands[21], commands[22]) = ("gc", "drop", "gc");
    commands
};

/// Of a recording at that rate.
fn estimates(recorded: Sampled, commands: &[&str]) -> Result<(Report, Truth)> {
    let (report, truth, _) = recorded.after(commands)?;
    ensure!(report.capture.sampling.context("sampled")?.rate_bytes == Some(RATE));
    ensure!(report.capture.notes.iter().any(|n| n.contains("estimates")), "{:?}", report.capture.notes);
    let bytes = report.capture.coverage.bytes;
    ensure!((0.9..1.1).contains(&bytes), "{bytes} of the bytes");
    Ok((report, truth))
}

/// The same, of samples that are read.
fn estimates_read(mut recorded: Sampled) -> Result<(Report, Truth)> {
    let (last, before) = MANY.split_last().context("no commands")?;
    step_and_read(&mut recorded, before)?;
    let (report, truth) = estimates(recorded, &[last])?;
    ensure!(were_read(&report), "{:?}", report.capture.notes);
    Ok((report, truth))
}

/// The sites of which there are enough samples, with what was held there.
fn well_sampled<'r>(report: &'r Report, truth: &Truth) -> Result<Vec<(String, &'r Site, Amount)>> {
    let enough = |held: &Amount| held.bytes / RATE.max(held.bytes / held.objects) >= SAMPLES;
    let places = truth.held.iter().filter(|(_, held)| enough(held));
    let the_site = |(place, held): (&String, &Amount)| match sites_of(report, place).collect::<Vec<_>>()[..] {
        [site] => Ok((place.clone(), site, *held)),
        _ => anyhow::bail!("{place}: not one site"),
    };
    places.map(the_site).collect()
}

fn check_allocated(report: &Report, truth: &Truth, hits: &mut Hits) -> Result<()> {
    for (place, site, held) in well_sampled(report, truth)? {
        let error = site.error_bytes.context("an interval")?.alloc;
        hits.check(&place, site.alloc_bytes, held, error)?;
    }
    Ok(())
}

fn check_live(report: &Report, truth: &Truth, hits: &mut Hits) -> Result<()> {
    for (place, site, _) in well_sampled(report, truth)? {
        let error = site.error_bytes.and_then(|error| error.live).context("an interval")?;
        hits.check(&place, site.live_bytes.context("judged")?, truth.alive[&place], error)?;
    }
    Ok(())
}

/// Objects allocated and in use by the program's own profile, by function and size.
type Profile = BTreeMap<(String, u64), (i64, i64)>;

fn own_profile(target: &Process) -> Result<Profile> {
    let ended = run_heaptap(&["snapshot", "--json", "--pid", &target.pid().to_string()])?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    let snapshot: Value = serde_json::from_str(&ended.stdout)?;
    let mut profile = BTreeMap::new();
    for site in snapshot["profile"]["sites"].as_array().context("sites")? {
        let number = |name: &str| site[name].as_i64().context("a number");
        // The runtime has samples of its own, of which the profile shows no frame.
        let Some(function) = site["frames"][0]["function"].as_str().map(str::to_owned) else { continue };
        let sum: &mut (i64, i64) = profile.entry((function, number("object_size")? as u64)).or_default();
        *sum = (sum.0 + number("alloc_objects")?, sum.1 + number("inuse_objects")?);
    }
    Ok(profile)
}

/// The profile rounds down what stands at each of the stacks that a place was called from.
const ROUNDED: i64 = 5;

/// The samples are those that the program's own profile consists of, and what they stand
/// for is what runtime/pprof says, but for its rounding down.
fn check_own_profile(before: &Profile, recorded: Sampled, commands: &[&str]) -> Result<()> {
    let (report, truth, target) = recorded.after(commands)?;
    let after = own_profile(&target)?;
    for (place, held) in &truth.held {
        let key = (format!("main.{place}"), held.bytes / held.objects);
        let known = |of: &Profile| of.get(&key).copied().unwrap_or_default();
        let (before, after) = (known(before), known(&after));
        let allocated = sum(&report, place, |s| s.alloc_objects) as i64;
        let live = sum(&report, place, |s| s.live_objects.unwrap_or(0)) as i64;
        ensure!(
            (allocated - (after.0 - before.0)).abs() <= ROUNDED,
            "{place}: {allocated}, {before:?} {after:?}"
        );
        ensure!((live - after.1).abs() <= ROUNDED, "{place}: {live} live, {after:?}");
    }
    Ok(())
}

mod privileged {
    use super::*;

    #[test]
    fn a_rate_of_1_leaves_nothing_to_estimate() -> Result<()> {
        check_programs(programs()?, |line, variant| {
            let report = check_exact(record(line, variant, 1, &[])?, &["hold", "gc", "drop", "gc"])?;
            ensure!(!were_read(&report), "{:?}", report.capture.notes);
            check_coverage(&report, 0.0005)
        })
    }

    #[test]
    fn so_it_does_where_samples_are_read() -> Result<()> {
        check_programs(programs()?, |line, variant| {
            let mut recorded = record_busy(line, variant, 1, &[])?;
            step_and_read(&mut recorded, &["hold", "gc", "drop"])?;
            let report = check_exact(recorded, &["gc"])?;
            ensure!(were_read(&report), "{:?}", report.capture.notes);
            Ok(())
        })
    }

    #[test]
    fn estimates_are_within_their_intervals() -> Result<()> {
        let mut hits = Hits::default();
        check_programs(programs()?, |line, variant| {
            let (report, truth) = estimates(record(line, variant, RATE, &[])?, &MANY)?;
            check_allocated(&report, &truth, &mut hits)?;
            check_live(&report, &truth, &mut hits)
        })?;
        hits.conclude(100)
    }

    #[test]
    fn estimates_of_samples_that_are_read_are_within_their_intervals() -> Result<()> {
        let mut hits = Hits::default();
        check_programs(programs()?, |line, variant| {
            let (report, truth) = estimates_read(record_busy(line, variant, RATE, &[])?)?;
            check_allocated(&report, &truth, &mut hits)?;
            check_live(&report, &truth, &mut hits)
        })?;
        hits.conclude(100)
    }

    #[test]
    fn estimates_at_a_rate_that_was_set_are_within_their_intervals() -> Result<()> {
        let mut hits = Hits::default();
        check_programs(programs()?, |line, variant| {
            let target = start(line, variant, 0)?;
            let args = ["--set-memprofile-rate", &RATE.to_string()];
            let (report, truth) = estimates(Sampled::of(target, &args)?, &MANY)?;
            check_allocated(&report, &truth, &mut hits)
        })?;
        hits.conclude(50)
    }

    #[test]
    fn so_they_are_where_samples_are_read() -> Result<()> {
        let mut hits = Hits::default();
        check_programs(programs()?, |line, variant| {
            let args = ["--set-memprofile-rate", &RATE.to_string()];
            let (report, truth) = estimates_read(record_busy(line, variant, 0, &args)?)?;
            check_allocated(&report, &truth, &mut hits)
        })?;
        hits.conclude(50)
    }

    #[test]
    fn samples_are_those_of_the_programs_own_profile() -> Result<()> {
        let commands = ["hold", "hold", "gc", "drop", "gc"];
        check_programs(programs()?, |line, variant| {
            let recorded = record(line, variant, RATE, &[])?;
            let before = own_profile(&recorded.target)?;
            check_own_profile(&before, recorded, &commands)
        })
    }

    #[test]
    fn samples_that_are_read_are_those_of_the_programs_own_profile() -> Result<()> {
        check_programs(programs()?, |line, variant| {
            let mut recorded = record_busy(line, variant, RATE, &[])?;
            let before = own_profile(&recorded.target)?;
            step_and_read(&mut recorded, &["hold", "hold", "gc", "drop"])?;
            check_own_profile(&before, recorded, &["gc"])
        })
    }

    #[test]
    fn a_program_without_a_profiler_is_refused_with_what_to_do() -> Result<()> {
        for line in go_lines()? {
            let target = start_target(&build("lives", line, Variant::Stripped)?, &[])?;
            let scratch = tempfile::tempdir()?;
            let file = scratch.path().join("none.heaptap");
            let pid = target.pid().to_string();
            let file = file.to_str().context("a path in UTF-8")?;
            let ended = run_heaptap(&["record", "--mode", "runtime", "--pid", &pid, "-o", file])?;
            assert_eq!(ended.status.code(), Some(2), "{line}: {}", ended.stderr);
            let said = ended.stderr.contains("MemProfileRate 0") && ended.stderr.contains("--mode exact");
            assert!(said, "{line}: {}", ended.stderr);
        }
        Ok(())
    }

    #[test]
    fn ps_that_sample_by_the_rate_are_not_looked_at() -> Result<()> {
        check_lines(|line| {
            let mut recorded = record(line, Variant::Stripped, RATE, &["-vv"])?;
            step(&mut recorded.target, "hold")?;
            let settled = |line: &str| line.contains("every P samples by this rate: true");
            recorded.recording.stderr_line(settled, PATIENCE)?;
            let (report, ..) = recorded.after(&["hold"])?;
            ensure!(report.totals.alloc_objects > 0, "no samples since");
            Ok(())
        })
    }

    #[test]
    fn a_changed_rate_is_said() -> Result<()> {
        let mut recorded = record(NEWEST, Variant::Plain, 512, &[])?;
        step(&mut recorded.target, "rate 1024")?;
        let (report, ..) = recorded.after(&["hold"])?;
        let said = "the program changed MemProfileRate from 512 to 1024";
        assert!(report.capture.notes.iter().any(|note| note.starts_with(said)), "{:?}", report.capture.notes);
        Ok(())
    }

    #[test]
    fn a_replay_estimates_the_same() -> Result<()> {
        let Sampled { mut target, recording, scratch } =
            record(NEWEST, Variant::Stripped, RATE, &["--json"])?;
        for command in ["hold", "gc", "storm 2", "drop", "gc"] {
            step(&mut target, command)?;
        }
        drop(target);
        let recorded = recording.wait(PATIENCE)?;
        ensure!(recorded.status.success(), "{}", recorded.stderr);
        let file = scratch.path().join("sampled.heaptap");
        let replayed = run_heaptap(&["report", "--json", file.to_str().context("a path in UTF-8")?])?;
        ensure!(recorded.stdout.len() > 10_000 && recorded.stdout == replayed.stdout, "the reports differ");
        Ok(())
    }
}

#[test]
fn a_program_that_does_not_run_yet_is_refused() -> Result<()> {
    let ended = run_heaptap(&["record", "--mode", "runtime", "--exec", "--", "true"])?;
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("--pid"), "{}", ended.stderr);
    Ok(())
}
