//! Objects that come back to a `sync.Pool` larger than they left it: nobody has reset them.
//!
//! Looks at who holds the objects of growing sites, and at sites within `sync.(*Pool).Get`. There are
//! few such objects, so that a sample does not show their site grow: then at the size of those that
//! were looked at, time after time.

use super::case::sureness;
use super::claim::{self, Words};
use super::held::{self, Held};
use super::{Case, Suspect, function};
use crate::base::units::format_bytes;
use crate::event::HolderKind;
use crate::report::{Evidence, Finding, Kind, LeakKind, Series, Severity, Site};

/// The others of a pool's objects are in use just then.
const SHARE: f64 = 0.05;
/// Sizes that drift: so many looks, so many times the size at last, so many of all pairs in order.
const LEAST_LOOKS: usize = 5;
const DRIFT: f64 = 1.5;
const IN_ORDER: f64 = 0.85;

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
        "{:.0}% of the objects that were looked at lay in a sync.Pool just then.",
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

/// The site whose pooled objects get ever larger, while the heap grows by more than the suspects.
fn drift(case: &Case<'_>, held: &Held<'_>) -> Option<Finding> {
    let suspected: f64 = case.suspects.iter().map(|suspect| suspect.trend.bytes_per_s).sum();
    let unexplained = case.heap.trend?.bytes_per_s - suspected;
    if !case.heap.is_significant() || unexplained <= suspected {
        return None;
    }
    let drifts = |site: &usize| {
        let is_grown = case.report.sites.get(*site).is_some_and(|site| site.kind == Kind::Growslice);
        is_grown && pooled(held, *site) >= SHARE && sizes(case, held, *site).is_some()
    };
    let index = held.sites().into_iter().find(drifts)?;
    let (site, points) = (case.report.sites.get(index)?, sizes(case, held, index)?);
    let (first, last) = (points.first()?, points.last()?);
    let what = format!(
        "Objects that were looked at had {} on average at first, and {} at last.",
        format_bytes(first.1 as u64),
        format_bytes(last.1 as u64)
    );
    let confidence = sureness(2.0 * points.len() as f64, last.0 - first.0);
    let series = Series { name: "bytes of an object".into(), unit: "bytes".into(), points };
    Some(Finding {
        kind: LeakKind::Pool,
        severity: Severity::Critical,
        confidence,
        site: Some(site.id.clone()),
        sites: vec![site.id.clone()],
        frames: site.frames.clone(),
        growth_bytes_per_s: unexplained,
        summary: summary(function(&site.frames), &format_bytes(unexplained as u64)),
        evidence: vec![Evidence { what, series: Some(series) }, in_pool(pooled(held, index))],
        advice: ADVICE.into(),
        disproof: DISPROOF.into(),
    })
}

/// The mean size of a site's objects by time, if it gets ever larger, to the end.
fn sizes(case: &Case<'_>, held: &Held<'_>, site: usize) -> Option<Vec<(f64, f64)>> {
    let start_ns = case.state.start.as_ref().map_or(0, |start| start.time_ns);
    let track = held.tracks(site).iter().max_by_key(|track| track.sizes.len())?;
    let seconds = |ns: u64| ns.saturating_sub(start_ns) as f64 / 1e9;
    let points: Vec<(f64, f64)> = track.sizes.iter().map(|(ns, size)| (seconds(*ns), *size as f64)).collect();
    let pairs =
        || points.iter().enumerate().flat_map(|(i, a)| points.iter().skip(i + 1).map(move |b| (a, b)));
    let in_order = pairs().filter(|(a, b)| a.1 < b.1).count() as f64 / pairs().count().max(1) as f64;
    let third = points.len() / 3;
    let mean = |points: &[(f64, f64)]| points.iter().map(|point| point.1).sum::<f64>() / points.len() as f64;
    let (first, last) = (mean(points.get(..third)?), mean(points.get(points.len() - third..)?));
    (points.len() >= LEAST_LOOKS && in_order >= IN_ORDER && last >= DRIFT * first).then_some(points)
}
