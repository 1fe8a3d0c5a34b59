//! A hunt's verdict and findings as text for people.

use std::fmt::Write as _;
use std::io::Write;

use super::text::{header, line, notes};
use super::{printable, put};
use crate::base::Result;
use crate::base::units::format_bytes;
use crate::report::{Finding, Frame, Outcome, Report, Severity, StageName, Verdict};

/// Frames of a finding's stack that are shown.
const FRAMES: usize = 8;

/// Writes who was captured, the verdict, what was found, and the notes.
///
/// # Errors
/// When `out` does not take it; a closed pipe is no error.
pub fn write(report: &Report, out: &mut impl Write) -> Result<()> {
    let mut text = String::new();
    header(report, &mut text);
    section(report, &mut text);
    notes(report, &mut text);
    put(out, text.as_bytes())
}

/// The findings, if there are any.
pub(super) fn section(report: &Report, text: &mut String) {
    if report.findings.is_empty() {
        return;
    }
    text.push_str("\nfindings:\n");
    for (n, finding) in report.findings.iter().enumerate() {
        line(text, &format!("{}. {}", n + 1, heading(finding)));
        line(text, &format!("   {}", printable(&finding.summary)));
        for (n, frame) in shown(finding).enumerate() {
            line(text, &format!("   {} {}", if n == 0 { "at" } else { "  " }, printable(&place(frame))));
        }
        for evidence in &finding.evidence {
            line(text, &format!("   - {}", printable(&evidence.what)));
        }
        line(text, &format!("   to do: {}", printable(&finding.advice)));
        line(text, &format!("   wrong if: {}", printable(&finding.disproof)));
    }
}

/// What kind it is, how bad, how sure, and how fast.
pub(super) fn heading(finding: &Finding) -> String {
    let severity = severity(finding.severity);
    let mut heading = format!("{}: {severity}, {}", finding.kind.name(), percent(finding.confidence));
    if finding.growth_bytes_per_s > 0.0 {
        // Writing to a String cannot fail.
        let _ = write!(heading, ", {} more each second", format_bytes(finding.growth_bytes_per_s as u64));
    }
    heading
}

pub(super) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

/// The frames of a finding that are shown.
pub(super) fn shown(finding: &Finding) -> impl Iterator<Item = &Frame> {
    finding.frames.iter().take(FRAMES)
}

/// A frame's function, and where in it.
pub(super) fn place(frame: &Frame) -> String {
    match frame.line {
        0 => frame.function.clone(),
        line => format!("{} {}:{line}", frame.function, frame.file),
    }
}

/// What it all comes to, in a sentence.
pub(super) fn verdict(verdict: &Verdict) -> String {
    match verdict.outcome {
        Outcome::Unsure => format!("unsure: {}", verdict.summary),
        outcome => {
            format!("{} ({}): {}", outcome_name(outcome), percent(verdict.confidence), verdict.summary)
        }
    }
}

/// As people say it.
pub fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Leak => "leak",
        Outcome::NoLeak => "no leak",
        Outcome::Unsure => "unsure",
        Outcome::WarmUp => "warm-up, no leak",
        Outcome::CacheFull => "a cache at its bound, no leak",
        Outcome::LoadRose => "load rose, no leak",
        Outcome::GcPressure => "GC pressure, no leak",
    }
}

/// What a hunt has come to.
pub fn stage_name(stage: StageName) -> &'static str {
    match stage {
        StageName::Before => "before",
        StageName::Suspect => "suspect",
        StageName::Leaking => "leaking",
    }
}

/// When which stage was reached.
pub(super) fn stages(verdict: &Verdict) -> String {
    let stage =
        |stage: &crate::report::Stage| format!("{} from {:.1} s", stage_name(stage.name), stage.begin_s);
    verdict.stages.iter().map(stage).collect::<Vec<_>>().join(", ")
}

pub(super) fn percent(confidence: f64) -> String {
    format!("{:.0}% sure", 100.0 * confidence.clamp(0.0, 1.0))
}
