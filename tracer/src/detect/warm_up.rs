//! No leak: what has grown for a while, and then no more, with all of it still alive.

use super::{Case, function};
use crate::base::units::format_bytes;
use crate::report::{Evidence, Finding, LeakKind, Severity};

/// Less than this, or than this share of the heap, is not worth a word.
const LEAST_BYTES: f64 = 1_048_576.0;
const LEAST_SHARE: f64 = 0.25;

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let heap = case.heap.live.last().map_or(0.0, |point| point.1);
    let filled: Vec<_> = case.cleared.iter().filter(|cleared| !cleared.is_replaced).collect();
    let bytes: f64 = filled.iter().map(|cleared| cleared.bytes).sum();
    let Some(most) = filled.first().filter(|_| bytes >= LEAST_BYTES.max(LEAST_SHARE * heap)) else {
        return Vec::new();
    };
    let sites = &case.report.sites;
    let name = function(&sites[most.site].frames);
    let amount = format_bytes(bytes as u64);
    vec![Finding {
        kind: LeakKind::WarmUp,
        severity: Severity::Info,
        confidence: case.sureness(),
        site: Some(sites[most.site].id.clone()),
        sites: filled.iter().map(|cleared| sites[cleared.site].id.clone()).collect(),
        frames: sites[most.site].frames.clone(),
        growth_bytes_per_s: 0.0,
        summary: format!("what {name} allocates grew to {amount}, and then no more"),
        evidence: vec![Evidence {
            what: format!(
                "For the last two fifths of the time live bytes have been about {amount}, and are still there."
            ),
            series: Some(most.series.clone()),
        }],
        advice: "Nothing need be done; a hunt that begins later does not see it.".into(),
        disproof: "It grows again.".into(),
    }]
}
