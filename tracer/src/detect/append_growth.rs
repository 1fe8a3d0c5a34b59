//! Slices that are only appended to: arrays from `append`, of which the larger copies live on
//! while those they were copied from die.

use super::growth::evidence;
use super::{Case, Suspect, function};
use crate::base::units::{format_bytes, format_count};
use crate::report::{Evidence, Finding, Kind, LeakKind, Severity};

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let grows = |suspect: &&Suspect| suspect.is_copied && case.site(suspect).kind == Kind::Growslice;
    case.suspects.iter().filter(grows).map(|suspect| finding(case, suspect)).collect()
}

fn finding(case: &Case<'_>, suspect: &Suspect) -> Finding {
    let site = case.site(suspect);
    let (objects, bytes) = (site.live_objects.unwrap_or(0), site.live_bytes.unwrap_or(0));
    let mean = format_bytes(bytes / objects.max(1));
    let mut evidence = evidence(case, suspect);
    evidence.push(Evidence::of(format!(
        "{} arrays are alive, of {mean} on average; most that were there halfway have been copied into larger ones.",
        format_count(objects)
    )));
    Finding {
        kind: LeakKind::AppendGrowth,
        severity: Severity::Critical,
        confidence: suspect.confidence,
        site: Some(site.id.clone()),
        sites: vec![site.id.clone()],
        frames: site.frames.clone(),
        growth_bytes_per_s: suspect.trend.bytes_per_s,
        summary: format!(
            "{} appends to slices that are never shortened: {} more each second",
            function(&site.frames),
            format_bytes(suspect.trend.bytes_per_s as u64)
        ),
        evidence,
        advice: "Write out what was gathered when there is enough of it, and use the array again with s = s[:0]; or \
                 keep the latest only, in a ring of fixed length."
            .into(),
        disproof: "The slices get as long as they ever will, or are dropped as a whole later than this capture \
                   has lasted."
            .into(),
    }
}
