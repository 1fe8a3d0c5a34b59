//! Makes one finding of what several detectors say of one leak, and orders them.

use super::verdict::{LEAST_CONFIDENCE, SURE};
use super::{Case, own};
use crate::report::{Evidence, Finding, LeakKind, Severity, Site};

/// What is left to be said: detectors' claims come in with the most specific first.
pub(super) fn settle(case: &Case<'_>, said: Vec<Finding>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for mut finding in said {
        if finding.confidence < LEAST_CONFIDENCE {
            continue;
        }
        if finding.confidence < SURE {
            finding.severity = finding.severity.min(Severity::Warning);
        }
        match findings.iter_mut().find(|known| is_same(case, known, &finding)) {
            Some(known) => absorb(case, known, finding),
            None => findings.push(finding),
        }
    }
    findings.sort_by(|a, b| {
        let key = |f: &Finding| std::cmp::Reverse(f.severity);
        key(a).cmp(&key(b)).then(b.growth_bytes_per_s.total_cmp(&a.growth_bytes_per_s))
    });
    findings
}

/// Whether two findings speak of one thing: of the same sites, or the later one, which does not
/// know why its site grows, of what the function of the other allocates beside it.
fn is_same(case: &Case<'_>, known: &Finding, other: &Finding) -> bool {
    const STRAINS: [LeakKind; 3] = [LeakKind::LargeObject, LeakKind::GcPressure, LeakKind::WarmUp];
    let is_strain = |finding: &Finding| STRAINS.contains(&finding.kind);
    let has_site = known.sites.iter().any(|site| other.sites.contains(site));
    if is_strain(known) || is_strain(other) {
        // That what leaks is large is no news.
        return has_site && !is_strain(known) && other.kind == LeakKind::LargeObject;
    }
    if has_site {
        return true;
    }
    if other.kind != LeakKind::Growth || known.growth_bytes_per_s <= 0.0 {
        return false;
    }
    let site = |id: &String| case.report.sites.iter().find(|site| site.id == *id);
    let ours: Vec<&Site> = known.sites.iter().filter_map(site).collect();
    other.sites.iter().filter_map(site).any(|site| ours.iter().any(|ours| are_near(ours, site)))
}

/// Whether one function of the program made both, itself or by way of one that it calls.
fn are_near(a: &Site, b: &Site) -> bool {
    let functions = |site: &Site| -> Vec<String> {
        own(&site.frames).take(2).map(|frame| frame.function.clone()).collect()
    };
    let (a, b) = (functions(a), functions(b));
    match (a.first(), b.first()) {
        (Some(inner_a), Some(inner_b)) => b.contains(inner_a) || a.contains(inner_b),
        _ => false,
    }
}

/// Adds to a finding what else is said of the same leak. What grows is counted once by site.
fn absorb(case: &Case<'_>, known: &mut Finding, other: Finding) {
    let (sites, growth) = (other.sites.len(), other.growth_bytes_per_s);
    let new: Vec<String> = other.sites.into_iter().filter(|site| !known.sites.contains(site)).collect();
    if !new.is_empty() {
        let suspects = case.suspects.iter().filter(|suspect| new.contains(&case.site(suspect).id));
        let of_new: f64 = suspects.map(|suspect| suspect.trend.bytes_per_s).sum();
        known.growth_bytes_per_s += if new.len() == sites { growth } else { of_new };
        // What its other evidence says of the whole is said already.
        let is_known = |evidence: &Evidence| known.evidence.iter().any(|known| known.what == evidence.what);
        let first =
            other.evidence.into_iter().take(1).filter(|evidence| !is_known(evidence)).collect::<Vec<_>>();
        known.evidence.extend(first);
    }
    known.sites.extend(new);
    known.severity = known.severity.max(other.severity);
    known.confidence = known.confidence.max(other.confidence);
}
