//! Slices that are only appended to: arrays from `append`, of which the larger copies live on
//! while those they were copied from die; where a sample does not show that, arrays that get ever
//! larger.

use super::claim::{self, Words};
use super::{Case, Suspect, drift};
use crate::base::units::{format_bytes, format_count};
use crate::report::{Evidence, Finding, Kind, LeakKind};

const ADVICE: &str = "Write out what was gathered when there is enough of it, and use the array again with s = s[:0]; or \
                      keep the latest only, in a ring of fixed length.";
const DISPROOF: &str = "The slices get as long as they ever will, or are dropped as a whole later than this capture \
                        has lasted.";

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let grows = |suspect: &&Suspect| suspect.is_copied && case.site(suspect).kind == Kind::Growslice;
    let findings: Vec<Finding> =
        case.suspects.iter().filter(grows).filter_map(|suspect| finding(case, suspect)).collect();
    if findings.is_empty() { drift(case).into_iter().collect() } else { findings }
}

fn finding(case: &Case<'_>, suspect: &Suspect) -> Option<Finding> {
    let site = case.site(suspect);
    let (objects, bytes) = (site.live_objects.unwrap_or(0), site.live_bytes.unwrap_or(0));
    let mean = format_bytes(bytes / objects.max(1));
    let words = Words {
        summary: summary(claim::place(case, suspect), &claim::rate(&[suspect])),
        evidence: vec![Evidence::of(format!(
            "{} arrays are alive, of {mean} on average; most that were there halfway have been copied into larger ones.",
            format_count(objects)
        ))],
        advice: ADVICE,
        disproof: DISPROOF,
    };
    claim::finding(case, LeakKind::AppendGrowth, &[suspect], words)
}

/// Of those that drift the one with most alive: that of a pool was taken by its detector.
fn drift(case: &Case<'_>) -> Option<Finding> {
    let drift = drift::all(case).into_iter().next()?;
    let summary = summary(drift.place(case), &drift.rate());
    let words = Words { summary, evidence: Vec::new(), advice: ADVICE, disproof: DISPROOF };
    drift.finding(case, LeakKind::AppendGrowth, words)
}

fn summary(function: &str, rate: &str) -> String {
    format!("{function} appends to slices that are never shortened: {rate} more each second")
}
