//! Objects that come back to a `sync.Pool` larger than they left it: nobody has reset them.
//!
//! Looks at who holds the objects of growing sites, and at sites within `sync.(*Pool).Get`; where a
//! sample does not show these grow, at the size of their objects.

use super::claim::{self, Words};
use super::held::{self, Held};
use super::{Case, Suspect, drift};
use crate::event::HolderKind;
use crate::report::{Evidence, Finding, LeakKind, Site};

/// Of the objects that a global variable holds; the others are in use just then. Which way a pool's
/// objects are held changes while it is looked at.
const SHARE: f64 = 0.2;

const ADVICE: &str = "Reset an object before it goes back: b.Reset(), s = s[:0], clear(m); and let go of those that have \
                      become too large: `if cap(b) <= 64<<10 { pool.Put(b) }`.";
const DISPROOF: &str = "The objects stop growing once each of them has had the largest request.";

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let held = Held::of(case);
    let is_pooled = |suspect: &&Suspect| pooled(&held, suspect.site) >= SHARE || is_new(case.site(suspect));
    let all: Vec<&Suspect> = case.suspects.iter().filter(is_pooled).collect();
    let Some(first) = all.first() else { return drift(case, &held).into_iter().collect() };
    let words = Words {
        summary: summary(claim::place(case, first), &claim::rate(&all)),
        evidence: vec![in_pool(pooled(&held, first.site))],
        advice: ADVICE,
        disproof: DISPROOF,
    };
    claim::finding(case, LeakKind::Pool, &all, words).into_iter().collect()
}

fn summary(function: &str, rate: &str) -> String {
    format!(
        "what {function} allocates stays in objects of a sync.Pool, which grow with each use: {rate} more each second"
    )
}

fn in_pool(share: f64) -> Evidence {
    Evidence::of(format!(
        "{:.0}% of the objects that were looked at and not in use just then lay in a sync.Pool.",
        100.0 * share
    ))
}

/// Of a site's objects the share that lay in a pool when they were looked at; none if another
/// container holds most of them.
fn pooled(held: &Held<'_>, site: usize) -> f64 {
    let is_other = |kind| matches!(kind, HolderKind::Map | HolderKind::Channel);
    let others = held.share(site, |way| way.holders.iter().any(|holder| is_other(holder.kind)));
    let tracks = held.tracks(site);
    let objects: u64 = tracks.iter().map(|track| track.objects).sum();
    let pooled: u64 = tracks.iter().map(|track| track.pooled).sum();
    if others >= held::MOST || objects == 0 { 0.0 } else { pooled as f64 / objects as f64 }
}

/// Whether a pool has had it made.
fn is_new(site: &Site) -> bool {
    site.frames.iter().any(|frame| frame.function == "sync.(*Pool).Get")
}

/// Sites whose pooled objects get ever larger.
fn drift(case: &Case<'_>, held: &Held<'_>) -> Option<Finding> {
    let drift = drift::all(case).into_iter().find(|drift| pooled(held, drift.site) >= SHARE)?;
    let words = Words {
        summary: summary(drift.place(case), &drift.rate()),
        evidence: vec![in_pool(pooled(held, drift.site))],
        advice: ADVICE,
        disproof: DISPROOF,
    };
    drift.finding(case, LeakKind::Pool, words)
}
