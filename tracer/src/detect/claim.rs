//! What findings have in common that rest on the growth of sites.

use super::{Case, Suspect, function};
use crate::base::units::format_bytes;
use crate::report::{Evidence, Finding, LeakKind, Severity, Site};

/// What a detector has to say of some suspects; the first one is the one to name.
pub(super) struct Words {
    pub(super) summary: String,
    pub(super) evidence: Vec<Evidence>,
    pub(super) advice: &'static str,
    pub(super) disproof: &'static str,
}

/// A leak of these suspects: `None` if there are none.
pub(super) fn finding(case: &Case<'_>, kind: LeakKind, of: &[&Suspect], words: Words) -> Option<Finding> {
    let main = *of.first()?;
    let site = case.site(main);
    let mut evidence = evidence(case, main);
    evidence.extend(words.evidence);
    Some(Finding {
        kind,
        severity: Severity::Critical,
        confidence: of.iter().fold(0.0, |most: f64, suspect| most.max(suspect.confidence)),
        site: Some(site.id.clone()),
        sites: of.iter().map(|suspect| case.site(suspect).id.clone()).collect(),
        frames: site.frames.clone(),
        growth_bytes_per_s: of.iter().map(|suspect| suspect.trend.bytes_per_s).sum(),
        summary: words.summary,
        evidence,
        advice: words.advice.into(),
        disproof: words.disproof.into(),
    })
}

/// As people read it: what grows, where, how fast.
pub(super) fn rate(of: &[&Suspect]) -> String {
    let sum: f64 = of.iter().map(|suspect| suspect.trend.bytes_per_s).sum();
    format_bytes(sum.max(0.0) as u64)
}

/// The function of the program that a suspect's objects come from.
pub(super) fn place<'a>(case: &Case<'a>, suspect: &Suspect) -> &'a str {
    function(&case.site(suspect).frames)
}

/// That a site's live bytes grow, as every finding that rests on this says it.
pub(super) fn evidence(case: &Case<'_>, suspect: &Suspect) -> Vec<Evidence> {
    let site = case.site(suspect);
    let points = &suspect.series.points;
    let ends = match points.as_slice() {
        [first, .., last] => {
            format!("from {} to {} in {:.0} s", bytes(first.1), bytes(last.1), last.0 - first.0)
        }
        _ => String::new(),
    };
    let mut evidence = vec![Evidence {
        what: format!(
            "Live bytes of {} grow {ends}, by {} each second; noise does so with a chance of {:.0e}.",
            what(site),
            bytes(suspect.trend.bytes_per_s),
            suspect.trend.p_value.max(1e-15)
        ),
        series: Some(suspect.series.clone()),
    }];
    if let (Some(life), Some(objects)) = (&site.life, site.live_objects.filter(|objects| *objects > 0)) {
        let old: u64 = life.survival.live.iter().skip(3).fold(0, |sum: u64, n| sum.saturating_add(*n));
        let percent = 100.0 * old as f64 / objects as f64;
        evidence.push(Evidence::of(format!(
            "Of {objects} objects alive {percent:.0}% have survived 4 GC cycles or more."
        )));
    }
    if let Some(trend) = case.heap.trend.filter(|trend| trend.bytes_per_s > 0.0) {
        let percent = (100.0 * suspect.trend.bytes_per_s / trend.bytes_per_s).min(100.0);
        evidence.push(Evidence {
            what: format!(
                "All of the heap grows by {} each second: this site explains {percent:.0}% of it.",
                bytes(trend.bytes_per_s)
            ),
            series: None,
        });
    }
    evidence
}

/// What a site allocates, for people.
pub(super) fn what(site: &Site) -> String {
    let type_name = if site.type_name.is_empty() { "memory" } else { &site.type_name };
    format!("{type_name} that {} allocates", function(&site.frames))
}

fn bytes(amount: f64) -> String {
    format_bytes(amount.max(0.0) as u64)
}
