//! What changed between two captures, snapshots or heap profiles, by call site.
//!
//! Sites are matched by the functions of their stacks, innermost first, and by type where
//! both sides know it. Lines do not count: a function that has moved in its file, or a call in
//! its function, is what it was. Two sites that differ in their lines alone are one here.

mod change;
mod rows;
mod saved;
mod side;
mod stacks;
#[cfg(test)]
mod tests;

use regex::Regex;
use serde::Serialize;

pub use change::{Change, Judgement, Measures, What};
pub use rows::DiffRow;
pub use side::{Side, SideKind};

use super::{Frame, Measure};
use crate::base::{Error, Result};
use change::{Amount, Comparison};
use side::Seen;
use stacks::Matched;

/// What changed from one side to the other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diff {
    pub before: Side,
    pub after: Side,
    /// What sites are ordered by, and drawn with.
    pub measure: Measure,
    /// `None`: numbers are compared as they are.
    pub normalisation: Option<Normalisation>,
    pub totals: Measures<Total>,
    /// Those that changed most first.
    pub sites: Vec<DiffSite>,
    pub notes: Vec<String>,
}

/// By what the numbers of the first side are multiplied, so that both have as much of something.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Normalisation {
    pub per: Per,
    /// How much each side has of it: seconds, cycles, objects or bytes.
    pub before: f64,
    pub after: f64,
    /// `after` over `before`.
    pub factor: f64,
}

/// What both sides are to have as much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    Duration,
    Cycles,
    #[serde(untagged)]
    Measure(Measure),
}

/// All of one measure: in every site, and how many sites changed how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Total {
    pub before: i64,
    pub after: i64,
    /// `after` less the normalised `before`.
    pub change: i64,
    /// Sites.
    pub appeared: u64,
    pub gone: u64,
    pub grown: u64,
    pub shrunk: u64,
    pub same: u64,
    /// Sites whose change is more than noise.
    pub significant: u64,
}

/// Objects from one stack, of one type where both sides know it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DiffSite {
    /// `None`: not known, or several.
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    #[serde(flatten)]
    pub changes: Measures<Change>,
    /// Innermost first; with the lines of the second side where it has the stack.
    pub frames: Vec<Frame>,
    /// What the changes are of.
    #[serde(skip)]
    amounts: [Measures<Amount>; 2],
}

/// What to compare, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiffOptions {
    /// `None`: live bytes where both sides know them, else allocated ones.
    pub measure: Option<Measure>,
    pub per: Option<Per>,
}

impl Diff {
    /// Compares two sides.
    ///
    /// # Errors
    /// Usage when a side does not know what is to be measured, or normalised by.
    pub fn build(before: Side, after: Side, options: DiffOptions) -> Result<Diff> {
        let measure = measure(&before, &after, options.measure)?;
        let normalisation = options.per.map(|per| Normalisation::new(per, &before, &after)).transpose()?;
        let comparison = Comparison::new(&before, &after, normalisation);
        let matched = stacks::matched(&before, &after);
        let notes = notes(&before, &after, &matched);
        let mut sites: Vec<DiffSite> = matched.into_iter().map(|site| comparison.site(site)).collect();
        sort(&mut sites, measure);
        let totals = comparison.totals(sites.iter().map(|site| &site.changes));
        Ok(Diff { measure, normalisation, totals, sites, notes, before, after })
    }

    /// Keeps the sites with a function that matches in any frame; totals stay.
    pub fn retain(&mut self, function: &Regex) {
        self.sites.retain(|site| super::names(&site.frames, function));
    }
}

/// Those that changed most first, in a fixed order.
fn sort(sites: &mut [DiffSite], measure: Measure) {
    let changed = |site: &DiffSite, measure| site.changes.get(measure).map_or(0, |c| c.change.unsigned_abs());
    sites.sort_by(|a, b| {
        let key = |site| (changed(site, measure), changed(site, Measure::AllocBytes));
        key(b).cmp(&key(a)).then_with(|| a.frames.cmp(&b.frames)).then_with(|| a.type_name.cmp(&b.type_name))
    });
}

fn measure(before: &Side, after: &Side, wanted: Option<Measure>) -> Result<Measure> {
    let unknown = [before, after].into_iter().find(|side| side.totals.live_bytes.is_none());
    match (wanted, unknown) {
        (Some(Measure::LiveBytes | Measure::LiveObjects), Some(side)) => {
            Err(Error::usage(format!("{} does not know which objects are alive", side.name)).hint(
                "record for longer, over a GC cycle of the program, or compare what was allocated \
                 (--measure alloc-bytes)",
            ))
        }
        (Some(measure), _) => Ok(measure),
        (None, Some(_)) => Ok(Measure::AllocBytes),
        (None, None) => Ok(Measure::LiveBytes),
    }
}

impl Normalisation {
    fn new(per: Per, before: &Side, after: &Side) -> Result<Normalisation> {
        let (before, after) = (before.quantity(per)?, after.quantity(per)?);
        Ok(Normalisation { per, before, after, factor: after / before })
    }
}

fn notes(before: &Side, after: &Side, matched: &[Matched]) -> Vec<String> {
    let mut notes = Vec::new();
    for (side, name) in [(before, "A"), (after, "B")] {
        if side.sites.is_empty() {
            notes.push(format!("{name} has no site at all"));
        }
    }
    let both = |site: &Matched| site.amounts.iter().all(Option::is_some);
    if !before.sites.is_empty() && !after.sites.is_empty() && !matched.iter().any(both) {
        notes.push("no site is in both: are they of the same program?".into());
    }
    let all_time = |side: &Side| side.kind != SideKind::Capture && side.duration_s.is_none();
    if all_time(before) != all_time(after) {
        let (all, some) = if all_time(before) { ("A", "B") } else { ("B", "A") };
        notes.push(format!(
            "{all} counts all objects since the program started, {some} only those allocated while it was taken"
        ));
    }
    for (side, name) in [(before, "A"), (after, "B")] {
        if side.seen == Seen::Unknown {
            notes.push(format!(
                "{name} does not say how it was sampled, so that nobody can tell changes from noise"
            ));
        }
    }
    if [before, after].iter().any(|side| side.seen.is_estimate()) {
        notes.push(
            "numbers are estimates: a change is called significant when its 95% confidence interval leaves \
             out 0, which of the sites that did not change one in twenty does by chance"
                .into(),
        );
    }
    notes
}
