//! What changed between two captures, as a table for people.

use std::io::Write;

use super::text::{align, cut, line};
use super::{printable, put};
use crate::base::Result;
use crate::base::units::{format_bytes, format_count};
use crate::report::Measure;
use crate::report::diff::{Change, Diff, DiffRow, Judgement, Measures, Per, Side, SideKind, Total, What};

/// Writes what was compared, sums, the sites that changed, at most `limit` of them, and the notes.
///
/// # Errors
/// When `out` does not take it; a closed pipe is no error.
pub fn write(diff: &Diff, limit: Option<usize>, out: &mut impl Write) -> Result<()> {
    let mut text = String::new();
    let (rows, totals) = diff.rows();
    header(diff, &mut text);
    text.push('\n');
    summary(&totals, &mut text);
    text.push('\n');
    sites(diff.measure, &rows, limit, &mut text);
    notes(diff, &mut text);
    put(out, text.as_bytes())
}

fn header(diff: &Diff, text: &mut String) {
    for (name, value) in [("A", side(&diff.before)), ("B", side(&diff.after)), ("compared", compared(diff))] {
        line(text, &format!("{name:<10} {}", printable(&value)));
    }
}

fn side(side: &Side) -> String {
    let kind = match side.kind {
        SideKind::Capture => "capture",
        SideKind::Snapshot => "snapshot",
        SideKind::Profile => "profile",
    };
    let mut parts = vec![format!("{kind} {}", side.name)];
    match (side.duration_s, &side.at) {
        (Some(seconds), Some(at)) => parts.push(format!("{seconds:.1} s from {at}")),
        (Some(seconds), None) => parts.push(format!("{seconds:.1} s")),
        (None, Some(at)) => parts.push(format!("up to {at}")),
        (None, None) => {}
    }
    parts.push(side.sampling());
    parts.join(", ")
}

fn compared(diff: &Diff) -> String {
    let by = name(diff.measure);
    let Some(of) = diff.normalisation else { return format!("as they are, by {by}") };
    let quantity = |quantity: f64| match of.per {
        Per::Duration => format!("{quantity:.1} s"),
        Per::Cycles => format!("{quantity:.0} GC cycles"),
        Per::Measure(measure) if measure.is_bytes() => {
            format!("{} {}", format_bytes(quantity as u64), words(measure))
        }
        Per::Measure(measure) => format!("{} objects {}", format_count(quantity as u64), words(measure)),
    };
    let (a, b) = (quantity(of.before), quantity(of.after));
    format!("A times {:.4}, since A has {a} and B {b}; by {by}", of.factor)
}

fn words(measure: Measure) -> &'static str {
    match measure {
        Measure::AllocBytes | Measure::AllocObjects => "allocated",
        Measure::LiveBytes | Measure::LiveObjects => "alive",
    }
}

/// As the heading of its column.
fn name(measure: Measure) -> &'static str {
    match measure {
        Measure::AllocObjects => "alloc objects",
        Measure::AllocBytes => "alloc bytes",
        Measure::LiveObjects => "live objects",
        Measure::LiveBytes => "live bytes",
    }
}

fn summary(totals: &Measures<Total>, text: &mut String) {
    let heading =
        ["A", "B", "CHANGE", "APPEARED", "GONE", "GROWN", "SHRUNK", "SAME", "SIGNIFICANT", "MEASURE"];
    let mut lines = vec![heading.map(String::from)];
    for measure in Measure::ALL {
        let Some(total) = totals.get(measure) else { continue };
        lines.push([
            amount(total.before, measure),
            amount(total.after, measure),
            signed(total.change, measure),
            format_count(total.appeared),
            format_count(total.gone),
            format_count(total.grown),
            format_count(total.shrunk),
            format_count(total.same),
            format_count(total.significant),
            name(measure).into(),
        ]);
    }
    align(&lines, 9, text);
}

fn sites(measure: Measure, rows: &[DiffRow], limit: Option<usize>, text: &mut String) {
    let has_changed =
        |row: &&DiffRow| Measure::ALL.iter().filter_map(|m| row.changes.get(*m)).any(|c| c.change != 0);
    let changed: Vec<&DiffRow> = rows.iter().filter(has_changed).collect();
    let (shown, rest) = changed.split_at(limit.unwrap_or(changed.len()).min(changed.len()));
    let heading =
        ["ALLOC OBJ", "ALLOC", "LIVE OBJ", "LIVE", "A", "B", "CHANGE", "±", "WHAT", "JUDGED", "TYPE", "SITE"];
    let mut lines = vec![heading.map(String::from)];
    lines.extend(shown.iter().map(|row| cells(row, measure)));
    if !shown.is_empty() {
        line(text, &format!("changes of all measures, and {} on both sides:", name(measure)));
        align(&lines, 8, text);
    }
    let unchanged = rows.len() - changed.len();
    for (count, of) in [(rest.len(), "more with less change"), (unchanged, "unchanged")] {
        if count > 0 {
            line(text, &format!("and {} {of}", format_count(count as u64)));
        }
    }
}

fn cells(row: &DiffRow, measure: Measure) -> [String; 12] {
    let [alloc_objects, alloc, live_objects, live] = Measure::ALL.map(|measure| {
        row.changes.get(measure).map_or("-".to_owned(), |change| signed(change.change, measure))
    });
    let of = row.changes.get(measure);
    let shown = |show: &dyn Fn(&Change) -> String| of.map_or("-".to_owned(), show);
    [
        alloc_objects,
        alloc,
        live_objects,
        live,
        shown(&|change| amount(change.before, measure)),
        shown(&|change| amount(change.after, measure)),
        shown(&|change| signed(change.change, measure)),
        shown(&|change| change.error.map_or("-".into(), |error| unsigned(error, measure))),
        shown(&|change| what(change.what).into()),
        shown(&|change| judged(change).into()),
        cut(&printable(match row.type_name.as_deref() {
            None => "?",
            Some("") => "-",
            Some(name) => name,
        })),
        printable(&row.place).into_owned(),
    ]
}

fn what(what: What) -> &'static str {
    match what {
        What::Appeared => "appeared",
        What::Gone => "gone",
        What::Grown => "grown",
        What::Shrunk => "shrunk",
        What::Same => "same",
    }
}

fn judged(change: &Change) -> &'static str {
    match change.judgement {
        Judgement::Exact => "exact",
        Judgement::Significant => "significant",
        Judgement::Noise => "within noise",
        Judgement::Unknown => "unknown",
    }
}

fn unsigned(value: u64, measure: Measure) -> String {
    if measure.is_bytes() { format_bytes(value) } else { format_count(value) }
}

/// Less than none is possible where a side is itself a difference.
fn amount(value: i64, measure: Measure) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", unsigned(value.unsigned_abs(), measure))
}

/// With its sign; no change says so by a dot.
fn signed(value: i64, measure: Measure) -> String {
    match value {
        0 => ".".into(),
        1.. => format!("+{}", amount(value, measure)),
        _ => amount(value, measure),
    }
}

fn notes(diff: &Diff, text: &mut String) {
    let (before, after) = (&diff.before.notes, &diff.after.notes);
    let mut all: Vec<String> = diff.notes.iter().map(|note| format!("- {}", printable(note))).collect();
    for note in before {
        let sides = if after.contains(note) { "A, B" } else { "A" };
        all.push(format!("- {sides}: {}", printable(note)));
    }
    all.extend(
        after.iter().filter(|note| !before.contains(note)).map(|note| format!("- B: {}", printable(note))),
    );
    if !all.is_empty() {
        text.push_str("\nnotes:\n");
        all.iter().for_each(|note| line(text, note));
    }
}
