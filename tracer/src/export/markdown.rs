//! A hunt's verdict and findings as Markdown, for a ticket.

use std::fmt::Write as _;
use std::io::Write;

use super::findings::{heading, place, shown, stages, verdict};
use super::{printable, put, text};
use crate::base::Result;
use crate::report::{Finding, Report};

/// Writes the verdict, each finding with its stack, and how it was captured.
///
/// # Errors
/// When `out` does not take it; a closed pipe is no error.
pub fn write(report: &Report, out: &mut impl Write) -> Result<()> {
    let exe = report.target.exe.rsplit('/').next().unwrap_or_default();
    let mut page = format!("# Heap of {}\n\n", escaped(exe));
    // Writing to a String cannot fail.
    if let Some(said) = &report.verdict {
        let _ = write!(page, "**{}**\n\nStages: {}.\n", escaped(&verdict(said)), stages(said));
    } else {
        page.push_str("Whether it leaks was not judged.\n");
    }
    for finding in &report.findings {
        one(finding, &mut page);
    }
    page.push_str("\n## Capture\n\n| | |\n| --- | --- |\n");
    for (name, value) in text::summary(report).iter().filter(|(name, _)| *name != "verdict") {
        let _ = writeln!(page, "| {name} | {} |", escaped(value));
    }
    for note in &report.capture.notes {
        let _ = write!(page, "\n- {}", escaped(note));
    }
    if !report.capture.notes.is_empty() {
        page.push('\n');
    }
    put(out, page.as_bytes())
}

fn one(finding: &Finding, page: &mut String) {
    let _ = write!(page, "\n## {}\n\n{}\n\n```\n", escaped(&heading(finding)), escaped(&finding.summary));
    for frame in shown(finding) {
        // Nothing that a name holds ends the block.
        let _ = writeln!(page, "{}", printable(&place(frame)).replace("```", "'''"));
    }
    page.push_str("```\n\n");
    for evidence in &finding.evidence {
        let _ = writeln!(page, "- {}", escaped(&evidence.what));
    }
    let _ = write!(
        page,
        "\n**To do:** {}\n\n**Wrong if:** {}\n",
        escaped(&finding.advice),
        escaped(&finding.disproof)
    );
}

/// Text in which no name of the target is markup.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in printable(text).chars() {
        if matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '&') {
            safe.push('\\');
        }
        safe.push(c);
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_target_are_no_markup() {
        assert_eq!(escaped("[]*main.T_1 | <b>"), "\\[\\]\\*main.T\\_1 \\| \\<b\\>");
        let mut report = Report::default();
        report.target.exe = "/app/x\n# y".into();
        report.capture.notes = vec!["a\nb".into()];
        let mut out = Vec::new();
        write(&report, &mut out).expect("written");
        let page = String::from_utf8(out).expect("text");
        assert_eq!(page.matches("\n#").count(), 1, "{page}");
    }
}
