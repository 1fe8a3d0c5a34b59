//! The GC of a page: cycles, stops of the world, assists, other settings.

use maud::{Markup, html};

use super::super::gc::{
    HEADING, NUMBERS, SCENARIOS, advice_title, assist_lines, cells, scenario_lines, settings, stop_lines,
};
use super::plain_table;
use crate::base::units::format_count;
use crate::report::Report;

/// The latest cycles, and the lines that waited longest, of which rows are shown.
const CYCLES: usize = 500;
const ASSISTS: usize = 100;

pub(super) fn section(report: &Report) -> Markup {
    let (earlier, shown) = report.gc.split_at(report.gc.len().saturating_sub(CYCLES));
    let rows: Vec<_> = shown.iter().map(cells).collect();
    let (stops, mut assists) = (stop_lines(report), assist_lines(report));
    assists.truncate(ASSISTS);
    html! {
        section #gc aria-labelledby="gc-title" {
            h2 #gc-title { "Garbage collection" }
            @if let Some(settings) = settings(report) { p { (settings) "." } }
            @if rows.is_empty() { p { "No GC cycle ended during the capture." } } @else {
                (plain_table("Cycles", HEADING, &rows, NUMBERS))
            }
            @if !earlier.is_empty() {
                p { (format_count(earlier.len() as u64)) " earlier cycles are left out; "
                    code { "--gc --limit 0" } " shows all." }
            }
            @if !stops.is_empty() {
                (plain_table("Stops of the world", ["Count", "Total", "Longest", "Reason"], &stops, 3))
            }
            @if !assists.is_empty() {
                (plain_table("Assists, by the line that had to wait", ["Count", "Total", "Longest", "Line"],
                    &assists, 3))
            }
            @if let Some(advice) = &report.gc_advice {
                (plain_table(&advice_title(advice), SCENARIOS, &scenario_lines(advice), SCENARIOS.len() - 1))
                ul { @for sentence in &advice.advice { li { (sentence) } } }
            }
        }
    }
}
