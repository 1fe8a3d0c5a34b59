//! The files of a session: results as JSON and JUnit XML, whole at any time, and the table.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use super::results::{Assertion, Outcome, Phase, Results};
use crate::base::units::format_bytes;
use crate::base::{Error, Result};

/// The directory that everything goes to.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Locked (flock(2)) as long as the session runs.
    _handle: File,
}

impl Directory {
    /// Creates it if need be.
    ///
    /// # Errors
    /// Usage when it cannot be created, or another session writes to it.
    pub(super) fn create(path: &Path) -> Result<Directory> {
        let cannot = |e| {
            Error::usage(format!("cannot use {}", path.display()))
                .because(e)
                .hint("`directory` in the session's [output] says where its files go")
        };
        fs::create_dir_all(path).map_err(&cannot)?;
        let handle = File::open(path).map_err(&cannot)?;
        match handle.try_lock() {
            Ok(()) => Ok(Directory { path: path.to_owned(), _handle: handle }),
            Err(TryLockError::Error(e)) => Err(cannot(e)),
            Err(TryLockError::WouldBlock) => {
                Err(Error::usage(format!("another session writes to {} already", path.display()))
                    .hint("`directory` in the session's [output] says where its files go"))
            }
        }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes the results as they are. Who looks, or kills us, finds the old files or the new.
    ///
    /// # Errors
    /// Failed when a file cannot be written.
    pub(super) fn save(&self, results: &Results) -> Result<()> {
        let cannot = |e: String| Error::failed("cannot encode the session's results").because(e);
        let mut json = serde_json::to_vec_pretty(results).map_err(|e| cannot(e.to_string()))?;
        json.push(b'\n');
        self.replace("session.json", &json)?;
        let xml = junit(results).to_string().map_err(|e| cannot(e.to_string()))?;
        self.replace("junit.xml", xml.as_bytes())
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        let (path, new) = (self.file(name), self.file(&format!(".{name}.new")));
        let write = || {
            File::create(&new)?.write_all(content)?;
            fs::rename(&new, &path)
        };
        write().map_err(|e: io::Error| {
            // What there is of it is of no use to anyone.
            _ = fs::remove_file(&new);
            Error::failed(format!("cannot write {}", path.display())).because(e)
        })
    }
}

/// Assertions and phases as the cases of two test suites.
fn junit(results: &Results) -> Junit {
    let mut report = Junit::new(&results.session);
    let mut phases = TestSuite::new("phases");
    for phase in &results.phases {
        let mut case = TestCase::new(&phase.name, status(phase.outcome, phase.reason.as_deref()));
        if let (Some(begin), Some(end)) = (phase.begin_s, phase.end_s) {
            case.set_time(std::time::Duration::from_secs_f64((end - begin).max(0.0)));
        }
        phases.add_test_case(case);
    }
    let mut assertions = TestSuite::new("assertions");
    for assertion in &results.assertions {
        let message = explanation(assertion);
        assertions.add_test_case(TestCase::new(&assertion.name, status(assertion.outcome, Some(&message))));
    }
    report.add_test_suites([phases, assertions]);
    report
}

fn status(outcome: Outcome, message: Option<&str>) -> TestCaseStatus {
    let mut status = match outcome {
        Outcome::Passed => return TestCaseStatus::success(),
        Outcome::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Outcome::Skipped | Outcome::Running => TestCaseStatus::skipped(),
    };
    if let Some(message) = message.filter(|_| outcome == Outcome::Failed) {
        status.set_message(message);
    }
    status
}

fn explanation(assertion: &Assertion) -> String {
    let values: Vec<String> =
        assertion.values.iter().map(|(name, value)| format!("{name} = {}", readable(name, value))).collect();
    let reason = assertion.reason.iter().cloned();
    let parts: Vec<String> = reason.chain(values).collect();
    format!("{}: {}", assertion.that, parts.join(", "))
}

/// Bytes with their unit behind the number that the expression saw.
fn readable(name: &str, value: &serde_json::Number) -> String {
    let in_bytes = ["heap.live", "heap.goal", "rss", "_bytes"].iter().any(|suffix| name.ends_with(suffix));
    match value.as_u64().filter(|bytes| in_bytes && *bytes >= 1024) {
        Some(bytes) => format!("{bytes} ({})", format_bytes(bytes)),
        None => value.to_string(),
    }
}

impl Results {
    /// Writes the results for people: a line per phase and per trigger that fired, and each
    /// assertion with the values it was about.
    ///
    /// # Errors
    /// When `out` does not take it.
    pub fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = self.phases.iter().map(|phase| phase.name.len()).chain([8]).max().unwrap_or(0);
        writeln!(out, "{:<width$}  OUTCOME     BEGIN       END", "PHASE")?;
        for phase in &self.phases {
            write_phase(phase, width, out)?;
        }
        if !self.triggers.is_empty() {
            writeln!(out, "\n      AT  TRIGGER")?;
        }
        for fired in &self.triggers {
            let file = fired.file.as_ref().map_or_else(String::new, |file| format!(": {file}"));
            writeln!(out, "{:>7.1}s  {}{file}", fired.at_s, fired.name)?;
        }
        if !self.assertions.is_empty() {
            writeln!(out, "\nASSERTION")?;
        }
        for assertion in &self.assertions {
            write_assertion(assertion, out)?;
        }
        match &self.reason {
            Some(reason) => writeln!(out, "\nthe session ended early: {reason}"),
            None => Ok(()),
        }
    }
}

fn write_phase(phase: &Phase, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let time = |at: Option<f64>| at.map_or_else(|| "-".into(), |s| format!("{s:.1}s"));
    let reason = phase.reason.as_deref().unwrap_or_default();
    let (begin, end) = (time(phase.begin_s), time(phase.end_s));
    let line = format!("{:<width$}  {:<7}  {begin:>8}  {end:>8}  {reason}", phase.name, word(phase.outcome));
    writeln!(out, "{}", line.trim_end())
}

fn write_assertion(assertion: &Assertion, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:<7}  {}", word(assertion.outcome), assertion.name)?;
    if assertion.name != assertion.that {
        writeln!(out, "         {}", assertion.that)?;
    }
    for (name, value) in &assertion.values {
        writeln!(out, "           {name} = {}", readable(name, value))?;
    }
    match &assertion.reason {
        Some(reason) => writeln!(out, "           {reason}"),
        None => Ok(()),
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Skipped => "skipped",
        Outcome::Running => "running",
        Outcome::Passed => "passed",
        Outcome::Failed => "FAILED",
    }
}
