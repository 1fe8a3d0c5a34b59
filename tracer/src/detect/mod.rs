//! Leak detectors: which sites' survivors grow, whether that is a leak, of which kind, and what
//! cures it (tier 5).
//!
//! Pure: a capture's [`State`] and what a [`Report`] says of it come in, findings come out.

mod case;
mod growth;
mod trend;

pub use case::{Case, Suspect};
pub use trend::Trend;

use crate::model::State;
use crate::report::{Finding, Report};

/// Looks for one kind of leak.
type Detector = fn(&Case<'_>) -> Vec<Finding>;

/// The most specific first: what one has explained, those below it are not asked about.
const DETECTORS: &[Detector] = &[growth::look];

/// What a capture says, with findings and a verdict: everything that shows a report shows this.
pub fn report(state: &State) -> Report {
    let mut report = Report::build(state);
    report.findings = findings(&Case::new(state, &report));
    report
}

/// What the detectors say of it.
fn findings(case: &Case<'_>) -> Vec<Finding> {
    DETECTORS.iter().flat_map(|look| look(case)).collect()
}
