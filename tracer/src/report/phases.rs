//! Phases of the session that has recorded.

use serde::Serialize;

use crate::model::State;

/// A phase, as far as it was recorded; seconds since the capture began.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Phase {
    pub name: String,
    pub begin_s: f64,
    /// Where the next one begins, or the capture ends.
    pub end_s: f64,
}

/// `start_ns` and `end_ns` are those of the capture.
pub(super) fn build(state: &State, start_ns: u64, end_ns: u64) -> Vec<Phase> {
    let begins = state.phases.iter().map(|phase| phase.begin_ns);
    let ends = begins.clone().skip(1).chain([end_ns]);
    let seconds = |ns: u64| ns.saturating_sub(start_ns) as f64 / 1e9;
    let phase = |((phase, begin_ns), next_ns): ((&crate::event::Phase, u64), u64)| Phase {
        name: phase.name.clone(),
        begin_s: seconds(begin_ns),
        end_s: seconds(next_ns.max(begin_ns)),
    };
    state.phases.iter().zip(begins).zip(ends).map(phase).collect()
}
