//! The leak zoo: programs with known leaks and their healthy twins, and how what heaptap says
//! of them is judged.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::go::GoLine;
use crate::process::{Ended, Process};
use crate::shell;
use crate::targets::{self, Variant};

/// A kind of leak in the zoo: a row of `testdata/zoo/zoo.toml`, which says what each field means.
#[derive(Debug, Clone, Deserialize)]
pub struct Animal {
    pub kind: String,
    program: Option<String>,
    pub functions: Vec<String>,
    pub bytes_per_s: u64,
    #[serde(default = "yes")]
    pub leak: bool,
    #[serde(default)]
    pub cgo: bool,
}

fn yes() -> bool {
    true
}

/// Which of the two programs of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Leak,
    Twin,
}

impl Program {
    pub const BOTH: [Program; 2] = [Program::Leak, Program::Twin];

    pub fn name(self) -> &'static str {
        match self {
            Program::Leak => "leak",
            Program::Twin => "twin",
        }
    }
}

/// The directory of the zoo.
pub fn dir() -> PathBuf {
    shell::root().join("testdata/zoo")
}

/// All kinds, in the order of the manifest.
///
/// # Errors
/// When the manifest cannot be read.
pub fn animals() -> Result<Vec<Animal>> {
    #[derive(Deserialize)]
    struct Zoo {
        animals: Vec<Animal>,
    }
    let file = dir().join("zoo.toml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let zoo: Zoo = toml::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
    Ok(zoo.animals)
}

impl Animal {
    /// Of its folder, and its own.
    pub fn name(&self) -> &str {
        self.program.as_ref().unwrap_or(&self.kind)
    }

    /// Builds one of its two programs.
    ///
    /// # Errors
    /// As [`targets::build`].
    pub fn build(&self, program: Program, line: GoLine, variant: Variant) -> Result<PathBuf> {
        let env: &[(&str, &str)] = if self.cgo { &[("CGO_ENABLED", "1")] } else { &[] };
        build(&dir().join(self.name()).join(format!("{}.go", program.name())), line, variant, env)
    }

    /// Starts a program and hunts it, by `heaptap hunt` with these arguments.
    ///
    /// # Errors
    /// When the hunt fails; that it finds something is no failure.
    pub fn hunt(&self, program: &Path, heaptap: Command, args: &[&str]) -> Result<Found> {
        let mut args = args.to_vec();
        if self.cgo {
            args.push("--cgo");
        }
        hunt(&mut Command::new(program), heaptap, &args)
    }

    /// What a hunt of one of its programs was worth.
    pub fn grade(&self, program: Program, found: &Found) -> Grade {
        let accusing = |f: &&Finding| f.severity != Severity::Info;
        let expected = |f: &&Finding| f.kind == self.kind;
        match program {
            Program::Twin => {
                let accused = found.findings.iter().find(accusing);
                accused.map_or(Grade::Silent, |f| Grade::Accused(f.to_string()))
            }
            Program::Leak => {
                let told = found.findings.iter().filter(|f| accusing(f) || expected(f));
                self.grade_leak(found.leaks(), &told.collect::<Vec<_>>())
            }
        }
    }

    fn grade_leak(&self, leaks: bool, told: &[&Finding]) -> Grade {
        // The nearest to right comes last: kind and site, else the kind, else the site.
        let at_site = |f: &Finding| f.frames.iter().any(|frame| self.functions.contains(&frame.function));
        let nearness = |f: &Finding| (f.kind == self.kind, at_site(f));
        let Some(best) = (0..told.len()).max_by_key(|&at| nearness(told[at])) else { return Grade::Missed };
        if nearness(told[best]) != (true, true) {
            return Grade::Wrong(told[best].to_string());
        }
        if let Some(other) = (0..told.len()).find(|&at| at != best) {
            return Grade::Besides(told[other].to_string());
        }
        if leaks == self.leak { Grade::Named } else { Grade::Wrong(format!("{}, as a verdict", told[best])) }
    }
}

/// What a hunt of a program was worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grade {
    /// Right: its leak has been named with kind and site, and nothing else.
    Named,
    /// Right: nothing has been said of a healthy twin.
    Silent,
    /// The leak has been named, and this besides.
    Besides(String),
    /// Something else has been said of it.
    Wrong(String),
    /// Nothing has been said of a leak.
    Missed,
    /// A healthy twin has been accused.
    Accused(String),
}

impl Grade {
    pub fn is_right(&self) -> bool {
        matches!(self, Grade::Named | Grade::Silent)
    }
}

impl std::fmt::Display for Grade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Grade::Named => f.write_str("named"),
            Grade::Silent => f.write_str("silent"),
            Grade::Besides(what) => write!(f, "named, and besides: {what}"),
            Grade::Wrong(what) => write!(f, "wrong: {what}"),
            Grade::Missed => f.write_str("missed"),
            Grade::Accused(what) => write!(f, "accused: {what}"),
        }
    }
}

/// What a hunt said, as far as it is judged here.
#[derive(Debug, Clone, Deserialize)]
pub struct Found {
    pub findings: Vec<Finding>,
    pub verdict: Verdict,
    pub capture: Capture,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Finding {
    pub kind: String,
    pub severity: Severity,
    pub confidence: f64,
    pub frames: Vec<Frame>,
    pub growth_bytes_per_s: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Frame {
    pub function: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Verdict {
    pub outcome: String,
    pub summary: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Capture {
    pub duration_s: f64,
}

impl Found {
    /// Whether its verdict is that of a leak.
    pub fn leaks(&self) -> bool {
        self.verdict.outcome == "leak"
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let own = self.frames.iter().find(|frame| frame.function.starts_with("main."));
        let at = own.or(self.frames.first()).map_or("no site", |frame| &frame.function);
        write!(f, "{} at {at}", self.kind)
    }
}

/// Builds a program that is one Go file.
///
/// # Errors
/// As [`targets::build`].
pub fn build(file: &Path, line: GoLine, variant: Variant, env: &[(&str, &str)]) -> Result<PathBuf> {
    let name = |path: Option<&Path>| Some(path?.file_stem()?.to_str()?.to_owned());
    let kind = name(file.parent()).context("a file in a directory")?;
    let name = format!("{kind}-{}", name(Some(file)).context("a file's name")?);
    targets::build_file(file, &name, line, variant, env)
}

/// Longer than a program takes to start, and a hunt to make its report.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a program and hunts it, by `heaptap hunt` with these arguments.
///
/// # Errors
/// When the hunt fails; that it finds something is no failure.
pub fn hunt(program: &mut Command, mut heaptap: Command, args: &[&str]) -> Result<Found> {
    let mut target = Process::spawn(program)?;
    target.stdout_line(|line| line == "ready", PATIENCE)?;
    heaptap.args(["hunt", "--json", "--pid", &target.pid().to_string()]).args(args);
    // How long it hunts is for its arguments to say; this bounds one that hangs.
    let ended = Process::spawn(&mut heaptap)?.wait(20 * PATIENCE)?;
    read(&ended)
}

/// What a hunt that has ended says.
///
/// # Errors
/// When it failed, or its verdict and its exit code do not go together.
pub fn read(ended: &Ended) -> Result<Found> {
    let code = ended.status.code();
    if !matches!(code, Some(0 | 3)) {
        bail!("heaptap hunt: {}\n{}", ended.status, ended.stderr);
    }
    let found: Found = serde_json::from_str(&ended.stdout).context("the JSON report")?;
    if found.leaks() != (code == Some(3)) {
        bail!("exit code {code:?} for a verdict of {:?}", found.verdict);
    }
    Ok(found)
}

/// Does the jobs, so many at a time; the results in the order of the jobs.
pub fn in_parallel<T: Send, R: Send>(jobs: Vec<T>, at_a_time: usize, run: impl Fn(T) -> R + Sync) -> Vec<R> {
    let waiting: Mutex<VecDeque<(usize, T)>> = Mutex::new(jobs.into_iter().enumerate().collect());
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                while let Some((number, job)) = next() {
                    let result = run(job);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn animal() -> Animal {
        let functions = vec!["main.fill".to_owned()];
        Animal {
            kind: "map-growth".to_owned(),
            program: None,
            functions,
            bytes_per_s: 1,
            leak: true,
            cgo: false,
        }
    }

    fn finding(kind: &str, function: &str) -> Finding {
        let frames = ["runtime.mallocgc", function].map(|f| Frame { function: f.to_owned() }).to_vec();
        let severity = if kind == "warm-up" { Severity::Info } else { Severity::Critical };
        Finding { kind: kind.to_owned(), severity, confidence: 0.9, frames, growth_bytes_per_s: 1e6 }
    }

    fn found(findings: Vec<Finding>) -> Found {
        let leaks = findings.iter().any(|f| f.severity == Severity::Critical);
        let outcome = if leaks { "leak" } else { "no-leak" }.to_owned();
        let verdict = Verdict { outcome, summary: String::new() };
        Found { findings, verdict, capture: Capture { duration_s: 1.0 } }
    }

    #[track_caller]
    fn check(program: Program, findings: Vec<Finding>, grade: &str) {
        assert_eq!(animal().grade(program, &found(findings)).to_string(), grade);
    }

    #[test]
    fn a_leak_is_to_be_named_with_kind_and_site_and_nothing_besides() {
        let right = || finding("map-growth", "main.fill");
        check(Program::Leak, vec![right()], "named");
        check(Program::Leak, vec![right(), finding("warm-up", "main.other")], "named");
        check(
            Program::Leak,
            vec![finding("timer", "main.x"), right()],
            "named, and besides: timer at main.x",
        );
        check(Program::Leak, vec![], "missed");
        check(Program::Leak, vec![finding("growth", "main.fill")], "wrong: growth at main.fill");
        check(Program::Leak, vec![finding("map-growth", "main.other")], "wrong: map-growth at main.other");
        check(Program::Leak, vec![finding("timer", "main.other")], "wrong: timer at main.other");
    }

    #[test]
    fn of_a_twin_nothing_is_to_be_said() {
        check(Program::Twin, vec![], "silent");
        check(Program::Twin, vec![finding("warm-up", "main.fill")], "silent");
        check(Program::Twin, vec![finding("growth", "main.fill")], "accused: growth at main.fill");
    }

    #[test]
    fn every_kind_of_the_manifest_has_its_programs() -> Result<()> {
        for animal in animals()? {
            for program in Program::BOTH {
                let file = dir().join(&animal.kind).join(format!("{}.go", program.name()));
                anyhow::ensure!(file.exists(), "{}", file.display());
            }
        }
        Ok(())
    }

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        let doubled = in_parallel((0..100).collect(), 7, |number: usize| number * 2);
        assert!(doubled.into_iter().enumerate().all(|(number, double)| double == number * 2));
    }
}
