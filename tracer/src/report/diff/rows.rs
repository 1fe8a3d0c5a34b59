//! Changes grouped into the rows of the table that people read.

use std::collections::BTreeMap;

use super::change::{Change, Comparison, Measures};
use super::{Diff, DiffSite, Total};
use crate::report::Grouping;
use crate::report::table::place;

/// Sites in the same function with the same type.
#[derive(Debug, Clone, PartialEq)]
pub struct DiffRow {
    pub changes: Measures<Change>,
    pub type_name: Option<String>,
    pub place: String,
}

impl Diff {
    /// The rows, those that changed most first, and their totals.
    pub fn rows(&self) -> (Vec<DiffRow>, Measures<Total>) {
        let comparison = Comparison::new(&self.before, &self.after, self.normalisation);
        let mut groups: BTreeMap<(String, Option<&str>), Vec<&DiffSite>> = BTreeMap::new();
        for site in &self.sites {
            let key = (place(&site.frames, Grouping::Function), site.type_name.as_deref());
            groups.entry(key).or_default().push(site);
        }
        let rows = groups.into_iter().map(|((place, type_name), sites)| DiffRow {
            changes: comparison.changes(&comparison.sum(sites.iter().map(|site| &site.amounts))),
            type_name: type_name.map(str::to_owned),
            place,
        });
        let mut rows: Vec<DiffRow> = rows.collect();
        let changed = |row: &DiffRow| row.changes.get(self.measure).map_or(0, |c| c.change.unsigned_abs());
        // The map's order stands among equals.
        rows.sort_by_key(|row| {
            std::cmp::Reverse((changed(row), row.changes.alloc_bytes.change.unsigned_abs()))
        });
        let totals = comparison.totals(rows.iter().map(|row| &row.changes));
        (rows, totals)
    }
}
