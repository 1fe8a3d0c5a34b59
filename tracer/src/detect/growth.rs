//! What grows for reasons that no other detector knows: the survivors of a site, GC after GC.

use super::{Case, Suspect};
use crate::base::units::format_bytes;
use crate::report::{Evidence, Finding, LeakKind, Severity};

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    case.suspects.iter().map(|suspect| finding(case, suspect)).collect()
}

fn finding(case: &Case<'_>, suspect: &Suspect) -> Finding {
    let site = case.site(suspect);
    let rate = format_bytes(suspect.trend.bytes_per_s.max(0.0) as u64);
    let function = site.frames.first().map_or("?", |frame| frame.function.as_str());
    Finding {
        kind: LeakKind::Growth,
        severity: Severity::Critical,
        confidence: 1.0 - suspect.trend.p_value,
        site: Some(site.id.clone()),
        sites: vec![site.id.clone()],
        frames: site.frames.clone(),
        growth_bytes_per_s: suspect.trend.bytes_per_s,
        summary: format!("what {function} allocates stays alive: {rate} more each second"),
        evidence: vec![Evidence {
            what: format!("live bytes after {} GC cycles grow by {rate}/s", suspect.series.points.len()),
            series: Some(suspect.series.clone()),
        }],
        advice: "Find what refers to these objects, and drop the reference when they are done with.".into(),
        disproof: "The site's live bytes stay the same, or fall, while the load does not.".into(),
    }
}
