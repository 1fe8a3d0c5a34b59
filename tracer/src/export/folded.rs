//! Folded stacks, `outermost;…;innermost count`: what flame graph tools read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;

use super::put;
use crate::base::Result;
use crate::report::{Measure, Report};

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
        let names: Vec<String> = site.frames.iter().rev().map(|f| escaped(&f.function)).collect();
        let sum = stacks.entry(names.join(";")).or_default();
        *sum = sum.saturating_add(measure.of(site));
    }
    let some = stacks.into_iter().filter(|(_, sum)| *sum > 0);
    some.map(|(stack, sum)| format!("{stack} {sum}")).collect()
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
