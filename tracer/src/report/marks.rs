//! Marked functions and lines: how often, and how long.

use serde::Serialize;

use crate::model::{Marked, State};

/// One mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// As the user wrote it.
    pub name: String,
    /// How often it was passed.
    pub count: u64,
    /// `None`: only that it was passed was told, not how long it took.
    pub region: Option<Region>,
}

/// What is known of the calls of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Region {
    /// Calls that were seen from begin to end, and how long they took.
    pub ended: u64,
    pub total_ns: u64,
    pub longest_ns: u64,
    /// Still under way at the end of the capture.
    pub open: u64,
    /// Ended without returning, as when a panic passes through: how long they took is not known.
    pub unended: u64,
    /// Returned, but had begun before the capture.
    pub unbegun: u64,
}

pub(super) fn build(state: &State) -> Vec<Mark> {
    let mark = |marked: &Marked| Mark {
        name: marked.info.name.clone(),
        count: marked.count,
        region: marked.info.is_region.then_some(Region {
            ended: marked.durations.count,
            total_ns: marked.durations.total_ns,
            longest_ns: marked.durations.longest_ns,
            open: marked.open,
            unended: marked.unended,
            unbegun: marked.unbegun,
        }),
    };
    state.marks.all.iter().map(mark).collect()
}
