//! Phases of a session, and what the user has marked.

use maud::{Markup, html};

use super::super::{printable, text};
use super::plain_table;
use crate::report::Report;

pub(super) fn section(report: &Report) -> Markup {
    let seconds = |s: f64| format!("{s:.1} s");
    let phase = |phase: &crate::report::Phase| {
        let length = seconds(phase.end_s - phase.begin_s);
        [seconds(phase.begin_s), length, printable(&phase.name).into()]
    };
    let phases: Vec<_> = report.phases.iter().map(phase).collect();
    html! {
        @if is_there(report) {
            section #regions aria-labelledby="regions-title" {
                h2 #regions-title { "Phases and marks" }
                @if !phases.is_empty() {
                    (plain_table("Phases of the session", ["Begin", "Length", "Phase"], &phases, 2))
                }
                @if !report.marks.is_empty() {
                    (plain_table("Marks, and how long regions took", text::MARKS, &text::mark_lines(report), 4))
                }
            }
        }
    }
}

pub(super) fn is_there(report: &Report) -> bool {
    !report.phases.is_empty() || !report.marks.is_empty()
}
