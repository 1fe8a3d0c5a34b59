//! Objects that come back to a `sync.Pool` larger than they left it: nobody has reset them.
//!
//! Looks at who holds the objects of growing sites, and at sites within `sync.(*Pool).Get`.

use super::held::{self, Held, Words};
use super::{Case, Suspect};
use crate::event::HolderKind;
use crate::report::{Evidence, Finding, LeakKind, Site};

/// The others of a pool's objects are in use just then.
const SHARE: f64 = 0.15;

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let held = Held::of(case);
    let in_pool = |suspect: &Suspect| {
        held.share(suspect.site, |way| way.holders.iter().any(|holder| holder.kind == HolderKind::Pool))
    };
    let all: Vec<&Suspect> = case
        .suspects
        .iter()
        .filter(|suspect| in_pool(suspect) >= SHARE || is_new(case.site(suspect)))
        .collect();
    let Some(first) = all.first() else { return Vec::new() };
    let words = Words {
        summary: format!(
            "what {} allocates stays in objects of a sync.Pool, which grow with each use: {} more each second",
            held::place(case, first),
            held::rate(&all)
        ),
        evidence: vec![Evidence::of(format!(
            "{:.0}% of the objects looked at were in a sync.Pool at that time.",
            100.0 * in_pool(first)
        ))],
        advice: "Reset an object before it goes back: b.Reset(), s = s[:0], clear(m); and let go of those that have \
                 become too large: `if cap(b) <= 64<<10 { pool.Put(b) }`.",
        disproof: "The objects stop growing once each of them has had the largest request.",
    };
    held::finding(case, LeakKind::Pool, &all, words).into_iter().collect()
}

/// Whether a pool has had it made.
fn is_new(site: &Site) -> bool {
    site.frames.iter().any(|frame| frame.function == "sync.(*Pool).Get")
}
