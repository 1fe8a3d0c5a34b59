//! Sites grouped into the rows of the table that people read.

use std::collections::BTreeMap;

use super::{Frame, Kind, Measure, Site};

/// What sites one row holds together, besides their type and kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Grouping {
    /// Those in the same function.
    #[default]
    Function,
    /// Those on the same line.
    Line,
}

/// Sites with the same place, type and kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub objects: u64,
    pub bytes: u64,
    /// `None`: nobody knows.
    pub live_objects: Option<u64>,
    pub live_bytes: Option<u64>,
    /// Live bytes per minute, the sum over its sites; `None`: nobody knows.
    pub growth: Option<f64>,
    pub kind: Kind,
    pub type_name: String,
    /// `main.handle`, by line with ` handler.go:17`.
    pub place: String,
}

impl Row {
    pub fn measure(&self, measure: Measure) -> u64 {
        match measure {
            Measure::AllocBytes => self.bytes,
            Measure::AllocObjects => self.objects,
            Measure::LiveBytes => self.live_bytes.unwrap_or(0),
            Measure::LiveObjects => self.live_objects.unwrap_or(0),
        }
    }
}

/// The rows of `sites`, most of `measure` first.
pub fn rows(sites: &[Site], grouping: Grouping, measure: Measure) -> Vec<Row> {
    let mut groups: BTreeMap<(String, &str, Kind), Row> = BTreeMap::new();
    for site in sites {
        let place = place(&site.frames, grouping);
        let row = groups.entry((place.clone(), site.type_name.as_str(), site.kind)).or_insert_with(|| Row {
            objects: 0,
            bytes: 0,
            live_objects: None,
            live_bytes: None,
            growth: None,
            kind: site.kind,
            type_name: site.type_name.clone(),
            place,
        });
        row.objects = row.objects.saturating_add(site.alloc_objects);
        row.bytes = row.bytes.saturating_add(site.alloc_bytes);
        row.live_objects = plus(row.live_objects, site.live_objects);
        row.live_bytes = plus(row.live_bytes, site.live_bytes);
        if let Some(growth) = site.life.as_ref().and_then(|life| life.growth_bytes_per_minute) {
            row.growth = Some(row.growth.unwrap_or(0.0) + growth);
        }
    }
    let mut rows: Vec<Row> = groups.into_values().collect();
    // The map's order stands among equals.
    rows.sort_by_key(|row| std::cmp::Reverse((row.measure(measure), row.bytes, row.objects)));
    rows
}

fn plus(sum: Option<u64>, more: Option<u64>) -> Option<u64> {
    more.map_or(sum, |more| Some(sum.unwrap_or(0).saturating_add(more)))
}

/// Where a stack is, for people: its innermost function, and by line also that.
pub fn place(frames: &[Frame], grouping: Grouping) -> String {
    let Some(top) = frames.first() else { return "(no stack)".into() };
    if grouping == Grouping::Function || top.file.is_empty() {
        return top.function.clone();
    }
    let file = top.file.rsplit('/').next().unwrap_or(&top.file);
    format!("{} {file}:{}", top.function, top.line)
}
