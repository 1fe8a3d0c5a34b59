//! No leak: objects over 32 KiB that are made often. Each takes a span of its own straight from
//! the page heap, which is zeroed, and brings the next GC cycle nearer.

use super::{Case, function};
use crate::base::units::{format_bytes, format_count};
use crate::report::{Evidence, Finding, LeakKind, Severity, Site};

/// Larger objects have no size class (runtime/sizeclasses.go `_MaxSmallSize`).
const LARGEST_CLASS: u64 = 32 << 10;
/// Fewer in a second are no strain, nor is less of all bytes allocated.
const LEAST_PER_SECOND: f64 = 10.0;
const LEAST_SHARE: f64 = 0.25;
/// Shorter captures say nothing of rates.
const LEAST_SECONDS: f64 = 5.0;

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let seconds = case.report.capture.duration_s;
    if seconds < LEAST_SECONDS {
        return Vec::new();
    }
    let is_often = |site: &&Site| {
        // Of few that windows saw, each may stand for those of other sites, too.
        let sure = if site.error_bytes.is_some() { 0.5 * (1.0 - error(site)) } else { 1.0 };
        is_large(site)
            && sure * site.alloc_objects as f64 / seconds >= LEAST_PER_SECOND
            && sure * site.alloc_bytes as f64 >= LEAST_SHARE * case.report.totals.alloc_bytes as f64
    };
    // What grows has worse to be said of it.
    let grows = |site: &Site| case.suspects.iter().any(|suspect| case.site(suspect).id == site.id);
    let sites = case.report.sites.iter().filter(is_often).filter(|site| !grows(site));
    sites.map(|site| finding(case, site, seconds)).collect()
}

/// Whether the objects of a site have no size class, on average.
pub(super) fn is_large(site: &Site) -> bool {
    site.alloc_bytes / site.alloc_objects.max(1) > LARGEST_CLASS
}

/// By what part of an estimate it may be off.
fn error(site: &Site) -> f64 {
    site.error_bytes.map_or(0.0, |error| error.alloc as f64 / site.alloc_bytes.max(1) as f64)
}

fn finding(case: &Case<'_>, site: &Site, seconds: f64) -> Finding {
    let name = function(&site.frames);
    let per_second = site.alloc_objects as f64 / seconds;
    let size = format_bytes(site.alloc_bytes / site.alloc_objects.max(1));
    let rate = format_bytes((site.alloc_bytes as f64 / seconds) as u64);
    let share = 100.0 * site.alloc_bytes as f64 / case.report.totals.alloc_bytes.max(1) as f64;
    Finding {
        kind: LeakKind::LargeObject,
        severity: Severity::Warning,
        confidence: (0.95 - error(site)).max(0.0),
        site: Some(site.id.clone()),
        sites: vec![site.id.clone()],
        frames: site.frames.clone(),
        growth_bytes_per_s: 0.0,
        summary: format!("{name} makes {per_second:.0} objects of {size} each second"),
        evidence: vec![Evidence::of(format!(
            "{} objects were allocated, {rate} each second: {share:.0}% of all bytes.",
            format_count(site.alloc_objects)
        ))],
        advice:
            "Use a buffer again instead of making one each time: keep one for each worker, take it from a \
                 sync.Pool, or stream in pieces."
                .into(),
        disproof: "The GC runs as often without them.".into(),
    }
}
