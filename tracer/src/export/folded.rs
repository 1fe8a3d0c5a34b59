//! Folded stacks, `outermost;…;innermost count`: what flame graph tools read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;

use super::put;
use crate::base::Result;
use crate::report::diff::Diff;
use crate::report::{Frame, Measure, Report};

/// Writes one line per stack, with its sum of `measure`; the lines are sorted.
///
/// # Errors
/// When `out` does not take it; a closed pipe is no error.
pub fn write(report: &Report, measure: Measure, out: &mut impl Write) -> Result<()> {
    let mut text = String::new();
    for line in lines(report, measure) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
    put(out, text.as_bytes())
}

/// The lines, sorted; stacks without any of `measure` are left out.
pub(super) fn lines(report: &Report, measure: Measure) -> Vec<String> {
    let mut stacks: BTreeMap<String, u64> = BTreeMap::new();
    for site in &report.sites {
        let sum = stacks.entry(stack(&site.frames)).or_default();
        *sum = sum.saturating_add(measure.of(site));
    }
    let some = stacks.into_iter().filter(|(_, sum)| *sum > 0);
    some.map(|(stack, sum)| format!("{stack} {sum}")).collect()
}

/// More than any heap has allocated: numbers of damaged files are made smaller, so that sums of
/// them can be computed with.
const HUGE: f64 = (1_u64 << 50) as f64;

/// The lines of a comparison, `STACK BEFORE AFTER`, by its measure; sorted. The first number is
/// normalised. Stacks that are on the first side only are left out: they would have no width.
pub(super) fn diff_lines(diff: &Diff) -> Vec<String> {
    let mut stacks: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for site in &diff.sites {
        let Some(change) = site.changes.get(diff.measure) else { continue };
        let (before, after) = stacks.entry(stack(&site.frames)).or_default();
        *before += change.after.saturating_sub(change.change) as f64;
        *after += change.after as f64;
    }
    stacks.retain(|_, (_, after)| *after >= 1.0);
    let shrink = (stacks.values().map(|(before, after)| before.abs() + after).sum::<f64>() / HUGE).max(1.0);
    let count = |number: f64| (number / shrink).max(0.0) as u64;
    stacks
        .iter()
        .map(|(stack, (before, after))| format!("{stack} {} {}", count(*before), count(*after)))
        .collect()
}

fn stack(frames: &[Frame]) -> String {
    let names: Vec<String> = frames.iter().rev().map(|f| escaped(&f.function)).collect();
    names.join(";")
}

/// A name without what separates names and lines: generic instances may hold `;` in a
/// struct type.
pub(super) fn escaped(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            ';' => ':',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}
