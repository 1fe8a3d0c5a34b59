//! What grows for reasons that no other detector knows: the survivors of a site, GC after GC.

use super::claim::{self, Words};
use super::{Case, Suspect};
use crate::report::{Finding, Kind, LeakKind};

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    // What the runtime keeps for itself grows with something of the program.
    let is_programs = |suspect: &&Suspect| case.site(suspect).kind != Kind::Runtime;
    case.suspects.iter().filter(is_programs).filter_map(|suspect| finding(case, suspect)).collect()
}

fn finding(case: &Case<'_>, suspect: &Suspect) -> Option<Finding> {
    let words = Words {
        summary: format!(
            "{} is never freed: {} more each second",
            claim::what(case.site(suspect)),
            claim::rate(&[suspect])
        ),
        evidence: Vec::new(),
        advice: "Find out what refers to these objects, and drop the reference when they are done with: \
                 delete the map entry, shorten the slice, end the goroutine, or bound what keeps them.",
        disproof: "Under the same load live bytes of this site stop growing, or objects that are older than \
                   this capture's half die after all, as those of a cache with a bound not yet reached do.",
    };
    claim::finding(case, LeakKind::Growth, &[suspect], words)
}
