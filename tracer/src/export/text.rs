//! The report as a table for people.

use std::fmt::Write as _;
use std::io::Write;

use unicode_width::UnicodeWidthStr;

use super::snapshot::{TableOptions as SampledOptions, sites as sampled_sites};
use super::{findings, printable, put};
use crate::base::Result;
use crate::base::units::{format_bytes, format_count};
use crate::report::{Capture, Grouping, Measure, Report, Row, Sampling, place, rows};

/// How much to show, and in which order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableOptions {
    pub sort: Measure,
    pub grouping: Grouping,
    /// Rows to show; `None`: all.
    pub limit: Option<usize>,
}

/// Types longer than this are cut: struct literals fill pages.
const MAX_TYPE_WIDTH: usize = 40;

/// Writes who was captured and how completely, the table, and the notes.
///
/// # Errors
/// When `out` does not take it; a closed pipe is no error.
pub fn write(report: &Report, options: &TableOptions, out: &mut impl Write) -> Result<()> {
    let mut text = String::new();
    header(report, &mut text);
    findings::section(report, &mut text);
    text.push('\n');
    table(report, options, &mut text);
    if let Some(before) = &report.before_attach {
        text.push_str("\nalive before the capture (sampled by the program's own profiler):\n");
        let options =
            SampledOptions { grouping: options.grouping, limit: options.limit, ..Default::default() };
        sampled_sites(before, &options, &mut text);
    }
    c_sites(report, options, &mut text);
    marks(report, &mut text);
    notes(report, &mut text);
    put(out, text.as_bytes())
}

/// What C allocates, by the call of C that it was for.
pub(super) fn c_sites(report: &Report, options: &TableOptions, text: &mut String) {
    let Some(sites) = &report.c_sites else { return };
    text.push_str("\nallocated by C:\n");
    let mut lines =
        vec![["OBJECTS", "BYTES", "LIVE OBJ", "LIVE", "GROWTH/MIN", "BY", "SITE"].map(String::from)];
    let shown = options.limit.unwrap_or(sites.len()).min(sites.len());
    lines.extend(sites.iter().take(shown).map(|site| {
        let (by, caller) = site.by_and_for();
        [
            format_count(site.alloc_objects),
            format_bytes(site.alloc_bytes),
            format_count(site.live_objects),
            format_bytes(site.live_bytes),
            site.live_bytes_per_minute.map_or("-".into(), growth),
            cut(&printable(by)),
            printable(&place(caller, options.grouping)).into_owned(),
        ]
    }));
    align(&lines, 5, text);
    if shown < sites.len() {
        line(text, &format!("and {} more", format_count((sites.len() - shown) as u64)));
    }
}

/// How often what the user has marked was passed, and how long regions took.
fn marks(report: &Report, text: &mut String) {
    if report.marks.is_empty() {
        return;
    }
    let mut lines = vec![MARKS.map(str::to_uppercase)];
    lines.extend(mark_lines(report));
    text.push_str("\nmarks:\n");
    align(&lines, 4, text);
}

/// What stands above each column of [`mark_lines`].
pub(super) const MARKS: [&str; 5] = ["Count", "Total", "Longest", "No end", "Mark"];

pub(super) fn mark_lines(report: &Report) -> Vec<[String; 5]> {
    let ms = |ns: u64| format!("{:.3} ms", ns as f64 / 1e6);
    let marks = report.marks.iter().map(|mark| {
        let [total, longest, no_end] = mark.region.map_or([const { String::new() }; 3], |region| {
            [ms(region.total_ns), ms(region.longest_ns), format_count(region.unended + region.open)]
        });
        [format_count(mark.count), total, longest, no_end, printable(&mark.name).into()]
    });
    marks.collect()
}

pub(super) fn notes(report: &Report, text: &mut String) {
    if !report.capture.notes.is_empty() {
        text.push_str("\nnotes:\n");
        for note in &report.capture.notes {
            line(text, &format!("- {}", printable(note)));
        }
    }
}

pub(super) fn line(text: &mut String, content: &str) {
    text.push_str(content.trim_end());
    text.push('\n');
}

pub(super) fn header(report: &Report, text: &mut String) {
    for (name, value) in summary(report) {
        line(text, &format!("{name:<10} {}", printable(&value)));
    }
}

/// Who was captured, how completely, and what that comes to: names and values.
pub(super) fn summary(report: &Report) -> [(&'static str, String); 9] {
    let (target, capture, totals) = (&report.target, &report.capture, &report.totals);
    let mut traits = vec![target.go_version.clone(), target.arch.clone()];
    for (is, name) in [(target.stripped, "stripped"), (target.pie, "PIE"), (target.cgo, "cgo")] {
        if is {
            traits.push(name.into());
        }
    }
    let coverage = capture.coverage.map_or_else(
        || "not known".into(),
        |c| format!("{:.3} of objects, {:.3} of bytes", c.objects, c.bytes),
    );
    let cycles = match capture.missed_gc_cycles {
        0 => format_count(capture.gc_cycles),
        missed => format!("{}, {} missed", format_count(capture.gc_cycles), format_count(missed)),
    };
    let how = match capture.sampling {
        Some(Sampling::Profiler { rate_bytes }) => {
            format!("{} (estimates: one sample per {})", capture.mode, format_bytes(rate_bytes))
        }
        Some(Sampling::Windows(by)) => {
            let windows = format_count(by.windows);
            format!("{} (estimates: {windows} windows, {:.2}% of the time)", capture.mode, by.open_percent)
        }
        None => capture.mode.clone(),
    };
    let amount = |objects, bytes| format!("{} objects, {}", format_count(objects), format_bytes(bytes));
    let live = match (totals.live_objects, totals.live_bytes) {
        (Some(objects), Some(bytes)) => format!("{} after the latest GC cycle", amount(objects, bytes)),
        _ => "not known".into(),
    };
    [
        ("target", format!("{} (pid {}), {}", target.exe, target.pid, traits.join(", "))),
        ("capture", format!("{how}, {:.1} s from {}", capture.duration_s, capture.started_at)),
        ("events", format!("{}, {} lost", format_count(capture.events), format_count(capture.lost))),
        ("gc cycles", cycles),
        ("coverage", coverage),
        ("overhead", overhead(capture)),
        ("allocated", amount(totals.alloc_objects, totals.alloc_bytes)),
        ("alive", live),
        ("verdict", report.verdict.as_ref().map_or("not judged".into(), findings::verdict)),
    ]
}

/// What the probes cost, and whether that was too much.
fn overhead(capture: &Capture) -> String {
    let Some(cost) = capture.cost else { return "not known".into() };
    let tripped = capture.breaker.map_or(String::new(), |breaker| {
        format!("; too much, no allocations from {:.1} s on", breaker.tripped_at_s)
    });
    format!(
        "{:.2}% of the target's CPU time, {} traps of {} ns{tripped}",
        cost.target_cpu_percent,
        format_count(cost.hits),
        format_count(cost.trap_ns)
    )
}

fn table(report: &Report, options: &TableOptions, text: &mut String) {
    let rows = rows(&report.sites, options.grouping, options.sort);
    let (shown, rest) = rows.split_at(options.limit.unwrap_or(rows.len()).min(rows.len()));
    let total = options.sort.total(&report.totals);
    let mut lines: Vec<[String; COLUMNS]> = vec![heading()];
    let mut sum: u64 = 0;
    for row in shown {
        sum = sum.saturating_add(row.measure(options.sort));
        lines.push(cells(row, options.sort, sum, total));
    }
    align(&lines, NUMBERS, text);
    if !rest.is_empty() {
        let left = rest.iter().fold(0, |sum: u64, row| sum.saturating_add(row.measure(options.sort)));
        let left = match options.sort.is_bytes() {
            true => format_bytes(left),
            false => format!("{} objects", format_count(left)),
        };
        line(text, &format!("and {} more, of {left} together", format_count(rest.len() as u64)));
    }
}

const COLUMNS: usize = 10;
/// Leading columns are numbers, set to the right.
const NUMBERS: usize = 7;

fn heading() -> [String; COLUMNS] {
    ["OBJECTS", "BYTES", "LIVE OBJ", "LIVE", "GROWTH/MIN", "SHARE", "CUM", "KIND", "TYPE", "SITE"]
        .map(String::from)
}

fn cells(row: &Row, sort: Measure, sum: u64, total: u64) -> [String; COLUMNS] {
    let share = |part: u64| match total {
        0 => "-".into(),
        _ => format!("{:.1}%", 100.0 * part as f64 / total as f64),
    };
    let known = |value: Option<u64>, format: fn(u64) -> String| value.map_or("-".into(), format);
    [
        format_count(row.objects),
        format_bytes(row.bytes),
        known(row.live_objects, format_count),
        known(row.live_bytes, format_bytes),
        row.growth.map_or("-".into(), growth),
        share(row.measure(sort)),
        share(sum),
        row.kind.name().into(),
        cut(&printable(if row.type_name.is_empty() { "-" } else { &row.type_name })),
        printable(&row.place).into_owned(),
    ]
}

/// With its sign; what does not grow says so by a dot.
pub(super) fn growth(bytes_per_minute: f64) -> String {
    let bytes = format_bytes(bytes_per_minute.abs() as u64);
    match bytes_per_minute {
        grows if grows >= 1.0 => format!("+{bytes}"),
        shrinks if shrinks <= -1.0 => format!("-{bytes}"),
        _ => ".".into(),
    }
}

pub(super) fn cut(name: &str) -> String {
    if name.width() <= MAX_TYPE_WIDTH {
        return name.into();
    }
    let mut short = String::new();
    for c in name.chars() {
        if short.width() + 1 >= MAX_TYPE_WIDTH {
            break;
        }
        short.push(c);
    }
    short + "…"
}

/// Appends the rows with each column as wide as its widest cell on a terminal. The first
/// `numbers` columns are set to the right.
pub(super) fn align<const COLUMNS: usize>(lines: &[[String; COLUMNS]], numbers: usize, text: &mut String) {
    let mut widths = [0; COLUMNS];
    for cells in lines {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = cell.width().max(*width);
        }
    }
    for cells in lines {
        let mut row = String::new();
        for (i, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let padding = " ".repeat(width - cell.width());
            // Writing to a String cannot fail.
            let _ =
                if i < numbers { write!(row, "{padding}{cell}  ") } else { write!(row, "{cell}{padding}  ") };
        }
        line(text, &row);
    }
}
