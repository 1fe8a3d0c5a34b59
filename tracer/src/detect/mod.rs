//! Leak detectors: which sites' survivors grow, whether that is a leak, of which kind, and what
//! cures it (tier 5).
//!
//! Pure: a capture's [`State`] and what a [`Report`] says of it come in, findings come out. Each
//! kind of leak has a file with one function, `look`, which is listed in [`DETECTORS`].

mod append_growth;
mod case;
mod census;
mod cgo;
mod channel_backlog;
mod claims;
mod context;
mod context_value;
mod finalizer;
mod fragmentation;
mod gc_pressure;
mod goroutine;
mod growth;
mod heap;
mod held;
mod http_body;
mod large_object;
mod map_growth;
mod map_pointer_key;
mod map_residue;
mod maps;
mod pool;
mod shape;
mod slice_retention;
mod stack_growth;
mod timer;
mod trend;
mod verdict;
mod warm_up;

pub use case::{Case, Suspect};
pub use trend::Trend;

use crate::model::State;
use crate::report::{Finding, Frame, Report};

/// Looks for one kind of leak.
type Detector = fn(&Case<'_>) -> Vec<Finding>;

/// The most specific first: what one has explained, those below it need not explain again.
const DETECTORS: &[Detector] = &[
    http_body::look,
    cgo::look,
    goroutine::look,
    context_value::look,
    context::look,
    timer::look,
    finalizer::look,
    pool::look,
    channel_backlog::look,
    slice_retention::look,
    map_residue::look,
    map_pointer_key::look,
    map_growth::look,
    stack_growth::look,
    fragmentation::look,
    append_growth::look,
    // Anything else that grows.
    growth::look,
    // No leaks.
    warm_up::look,
    large_object::look,
    gc_pressure::look,
];

/// What a capture says, with findings and a verdict: everything that shows a report shows this.
pub fn report(state: &State) -> Report {
    let mut report = Report::build(state);
    let mut case = Case::new(state, &report);
    let steady = maps::steady(&case);
    case.suspects.retain(|suspect| !steady.contains(&suspect.site));
    let said = DETECTORS.iter().flat_map(|look| look(&case)).collect();
    let findings = claims::settle(&case, said);
    let verdict = report.capture.following.map(|_| verdict::of(&case, &findings));
    report.findings = findings;
    report.verdict = verdict;
    report
}

/// The innermost function of the program itself, as far as it can be told from the libraries that
/// it uses; else of all.
fn function(frames: &[Frame]) -> &str {
    own(frames).next().or(frames.first()).map_or("?", |frame| frame.function.as_str())
}

/// Frames that are not of Go's own packages, innermost first: these have no dot in the first
/// element of their path, as domains have.
fn own(frames: &[Frame]) -> impl Iterator<Item = &Frame> {
    frames.iter().filter(|frame| {
        let first = frame.function.split('/').next().unwrap_or_default();
        let has_path = frame.function.contains('/');
        if has_path { first.contains('.') } else { first.starts_with("main.") }
    })
}
