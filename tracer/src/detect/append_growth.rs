//! Slices that are only appended to: arrays from `append`, of which the larger copies live on
//! while those they were copied from die.

use super::claim::{self, Words};
use super::{Case, Suspect};
use crate::base::units::{format_bytes, format_count};
use crate::report::{Evidence, Finding, Kind, LeakKind};

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let grows = |suspect: &&Suspect| suspect.is_copied && case.site(suspect).kind == Kind::Growslice;
    case.suspects.iter().filter(grows).filter_map(|suspect| finding(case, suspect)).collect()
}

fn finding(case: &Case<'_>, suspect: &Suspect) -> Option<Finding> {
    let site = case.site(suspect);
    let (objects, bytes) = (site.live_objects.unwrap_or(0), site.live_bytes.unwrap_or(0));
    let mean = format_bytes(bytes / objects.max(1));
    let words = Words {
        summary: format!(
            "{} appends to slices that are never shortened: {} more each second",
            claim::place(case, suspect),
            claim::rate(&[suspect])
        ),
        evidence: vec![Evidence::of(format!(
            "{} arrays are alive, of {mean} on average; most that were there halfway have been copied into larger ones.",
            format_count(objects)
        ))],
        advice: "Write out what was gathered when there is enough of it, and use the array again with s = s[:0]; or \
                 keep the latest only, in a ring of fixed length.",
        disproof: "The slices get as long as they ever will, or are dropped as a whole later than this capture \
                   has lasted.",
    };
    claim::finding(case, LeakKind::AppendGrowth, &[suspect], words)
}
