//! What grows for reasons that no other detector knows: the survivors of a site, GC after GC.

use super::{Case, Suspect, function};
use crate::base::units::format_bytes;
use crate::report::{Evidence, Finding, Kind, LeakKind, Severity, Site};

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    // What the runtime keeps for itself grows with something of the program.
    let is_programs = |suspect: &&Suspect| case.site(suspect).kind != Kind::Runtime;
    case.suspects.iter().filter(is_programs).map(|suspect| finding(case, suspect)).collect()
}

fn finding(case: &Case<'_>, suspect: &Suspect) -> Finding {
    let site = case.site(suspect);
    let rate = format_bytes(suspect.trend.bytes_per_s as u64);
    Finding {
        kind: LeakKind::Growth,
        severity: Severity::Critical,
        confidence: suspect.confidence,
        site: Some(site.id.clone()),
        sites: vec![site.id.clone()],
        frames: site.frames.clone(),
        growth_bytes_per_s: suspect.trend.bytes_per_s,
        summary: format!("{} is never freed: {rate} more each second", what(site)),
        evidence: evidence(case, suspect),
        advice: "Find out what refers to these objects, and drop the reference when they are done with: \
                 delete the map entry, shorten the slice, end the goroutine, or bound what keeps them."
            .into(),
        disproof: "Under the same load live bytes of this site stop growing, or objects that are older than \
                   this capture's half die after all, as those of a cache with a bound not yet reached do."
            .into(),
    }
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
fn what(site: &Site) -> String {
    let type_name = if site.type_name.is_empty() { "memory" } else { &site.type_name };
    format!("{type_name} that {} allocates", function(&site.frames))
}

fn bytes(amount: f64) -> String {
    format_bytes(amount.max(0.0) as u64)
}
