//! The sites of a page: as a table with their stacks, by size class, goroutines, and before the capture.

use std::fmt::Display;

use maud::{Markup, PreEscaped, Render, html};

use super::super::printable;
use super::super::text::growth;
use super::plain_table;
use crate::base::units::{format_bytes, format_count};
use crate::report::snapshot::{ProfileMeasure, profile_rows};
use crate::report::{Frame, Grouping, Kind, Measure, Report, Site, SizeClass, place};

/// Rows and their stacks are left out when the table would be larger.
const TABLE_BYTES: usize = 5 << 19;

/// Rows of the other tables: those with most.
const ROWS: usize = 100;

/// Numbers that a site may have: as `data`, by whose values the script sorts.
const COLUMNS: [&str; 6] = ["Bytes", "Objects", "Live", "Live objects", "Growth/min", "Share"];

/// The sites with most of `measure`, as many as there is room for.
pub(super) fn table(report: &Report, measure: Measure) -> Markup {
    let total = measure.total(&report.totals);
    let mut rows = String::new();
    let mut shown = 0;
    for site in &report.sites {
        let row = row(site, measure, total).into_string();
        if rows.len() + row.len() > TABLE_BYTES {
            break;
        }
        rows.push_str(&row);
        shown += 1;
    }
    let rest = &report.sites[shown..];
    html! {
        section #sites aria-labelledby="sites-title" {
            h2 #sites-title { "Sites" }
            @if report.sites.is_empty() { p { "There are none." } } @else {
                p.hint { "Open a site to see its stack. Share is that of " (measure_name(measure)) "." }
                table.sites {
                    caption { "What was allocated, and what of it is alive, by call site" }
                    thead { tr {
                        th scope="col" { "Site" }
                        @for name in COLUMNS { th.n scope="col" aria-sort=[sorted(name, measure)] { (name) } }
                        th scope="col" { "Kind" }
                        th scope="col" { "Type" }
                    } }
                    tbody { (PreEscaped(rows)) }
                }
            }
            @if !rest.is_empty() { p {
                (format_count(rest.len() as u64)) " more sites, of "
                (quantity(measure, rest.iter().fold(0, |sum, site| sum.saturating_add(measure.of(site)))))
                " together, are left out; "
                code { "--filter" } " shows some, " code { "--format csv" } " all."
            } }
        }
    }
}

fn measure_name(measure: Measure) -> &'static str {
    match measure {
        Measure::AllocBytes => "the bytes allocated",
        Measure::AllocObjects => "the objects allocated",
        Measure::LiveBytes => "the bytes alive",
        Measure::LiveObjects => "the objects alive",
    }
}

fn sorted(column: &str, measure: Measure) -> Option<&'static str> {
    let by = match measure {
        Measure::AllocBytes => "Bytes",
        Measure::AllocObjects => "Objects",
        Measure::LiveBytes => "Live",
        Measure::LiveObjects => "Live objects",
    };
    (column == by).then_some("descending")
}

fn quantity(measure: Measure, amount: u64) -> String {
    if measure.is_bytes() { format_bytes(amount) } else { format!("{} objects", format_count(amount)) }
}

fn row(site: &Site, measure: Measure, total: u64) -> Markup {
    let (part, errors) = (measure.of(site), site.error_bytes);
    let share = (total > 0).then(|| 100.0 * part as f64 / total as f64);
    let grows = site.life.as_ref().and_then(|life| life.growth_bytes_per_minute);
    html! {
        tr {
            th scope="row" { (stack(&site.frames)) }
            (bytes("Bytes", Some(site.alloc_bytes), errors.map(|e| e.alloc)))
            (number("Objects", Some((site.alloc_objects, format_count(site.alloc_objects)))))
            (bytes("Live", site.live_bytes, errors.and_then(|e| e.live)))
            (number("Live objects", site.live_objects.map(|n| (n, format_count(n)))))
            (number("Growth/min", grows.map(|bytes| (bytes.round() as i64, growth(bytes)))))
            (number("Share", share.map(|share| (part, format!("{share:.1}%")))))
            td data-l="Kind" { (site.kind.name()) }
            td data-l="Type" { (name(&site.type_name)) }
        }
    }
}

fn bytes(label: &str, bytes: Option<u64>, error: Option<u64>) -> Markup {
    let error = error.map(|error| html! { small { " ± " (format_bytes(error)) } });
    number(label, bytes.map(|bytes| (bytes, html! { (format_bytes(bytes)) @if let Some(e) = error { (e) } })))
}

/// A cell with what is sorted by, and how it is written; what is not known is a dash.
fn number(label: &str, value: Option<(impl Display, impl Render)>) -> Markup {
    html! {
        td.n data-l=(label) {
            @match value {
                Some((value, text)) => data value=(value) { (text) },
                None => "-",
            }
        }
    }
}

/// A type; untyped memory has none.
fn name(name: &str) -> Markup {
    html! { @if name.is_empty() { "-" } @else { code { (printable(name)) } } }
}

/// The site's place, and its frames to unfold.
fn stack(frames: &[Frame]) -> Markup {
    html! {
        details {
            summary { code { (printable(&place(frames, Grouping::Line))) } }
            ol { @for frame in frames { li {
                code { (printable(&frame.function)) }
                @if frame.inlined { " (inlined)" }
                @if !frame.file.is_empty() { br; small { (printable(&frame.file)) ":" (frame.line) } }
            } } }
        }
    }
}

/// What was allocated by size class, as the runtime counted it.
pub(super) fn size_classes(report: &Report) -> Markup {
    let Some(classes) = &report.size_classes else { return html! {} };
    let row = |class: &SizeClass| {
        let size = match class.size {
            Some(0) => "tiny, beside others".into(),
            Some(size) => format_bytes(size),
            None => "larger".into(),
        };
        [size, class.objects.map_or("-".into(), format_count), format_bytes(class.bytes)]
    };
    let rows: Vec<[String; 3]> = classes.iter().map(row).collect();
    html! {
        section #classes aria-labelledby="classes-title" {
            h2 #classes-title { "Size classes" }
            (plain_table("What was allocated during the capture, by the runtime's own counters",
                ["Slot", "Objects", "Bytes"], &rows, 3))
        }
    }
}

pub(super) fn has_goroutines(report: &Report) -> bool {
    report.sites.iter().any(|site| site.kind == Kind::Goroutine)
}

/// Where goroutines were started for which the runtime had no old descriptor to use again.
pub(super) fn goroutines(report: &Report) -> Markup {
    if !has_goroutines(report) {
        return html! {};
    }
    let started = report.sites.iter().filter(|site| site.kind == Kind::Goroutine);
    let row = |site: &Site| {
        [
            format_count(site.alloc_objects),
            site.live_objects.map_or("-".into(), format_count),
            printable(&place(&site.frames, Grouping::Line)).into_owned(),
        ]
    };
    let rows: Vec<[String; 3]> = started.take(ROWS).map(row).collect();
    html! {
        section #goroutines aria-labelledby="goroutines-title" {
            h2 #goroutines-title { "Goroutines" }
            p.hint {
                "Go uses the descriptors of goroutines that ended again: these are the others, and descriptors "
                "never die."
            }
            (plain_table("New goroutine descriptors, by the go statement", ["New", "Live", "Started at"], &rows, 2))
        }
    }
}

/// What was alive before the capture.
pub(super) fn before_attach(report: &Report) -> Markup {
    let Some(profile) = &report.before_attach else { return html! {} };
    let rows = profile_rows(&profile.sites, Grouping::Function, ProfileMeasure::InuseBytes);
    let count = |value: i64| u64::try_from(value).unwrap_or(0);
    let cells: Vec<[String; 5]> = rows
        .iter()
        .take(ROWS)
        .map(|row| {
            [
                format_bytes(count(row.values.inuse_bytes)),
                format_count(count(row.values.inuse_objects)),
                format_bytes(count(row.values.alloc_bytes)),
                format_count(count(row.values.alloc_objects)),
                printable(&row.place).into_owned(),
            ]
        })
        .collect();
    html! {
        section #before aria-labelledby="before-title" {
            h2 #before-title { "Alive before the capture" }
            (plain_table("Sampled by the program's own profiler",
                ["In use", "Objects", "Allocated", "Objects", "Site"], &cells, 4))
            @if rows.len() > cells.len() {
                p { "And " (format_count((rows.len() - cells.len()) as u64)) " more functions." }
            }
        }
    }
}
