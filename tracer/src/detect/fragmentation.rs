//! Spans that few survivors hold: much more memory is in spans than the heap was meant to grow
//! to, as the free slots in them are of sizes that are not asked for.

use super::case::sureness;
use super::census;
use super::trend::{Point, median};
use super::{Case, function};
use crate::base::units::format_bytes;
use crate::event::{Census, SizeClassCensus};
use crate::report::{Evidence, Finding, LeakKind, Series, Severity, Site};

/// Fewer censuses say nothing.
const LEAST: usize = 6;
/// So many times the heap goal are in use, and so many bytes beyond it.
const RATIO: f64 = 2.0;
const BYTES: f64 = (8 << 20) as f64;
/// Of the time, the last part, which is looked at.
const LATE: usize = 2;
/// A class of which fewer slots are in use is sparse.
const SPARSE: f64 = 0.5;

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    finding(case).into_iter().collect()
}

fn finding(case: &Case<'_>) -> Option<Finding> {
    let in_use = |census: &Census| Some(census.memory.as_ref()?.heap_inuse as f64);
    let goal = |census: &Census| Some(census.memory.as_ref()?.next_gc as f64).filter(|goal| *goal > 0.0);
    let (in_use, goals) = (census::series(case, in_use), census::series(case, goal));
    let late = |points: &[Point]| {
        let from = points.len() - points.len() / LATE;
        median(points.get(points.len() - from..).unwrap_or_default().iter().map(|point| point.1))
    };
    if in_use.len() < LEAST || goals.len() < LEAST {
        return None;
    }
    let (used, goal) = (late(&in_use)?, late(&goals)?);
    if used < RATIO * goal || used - goal < BYTES {
        return None;
    }
    let sparse = sparse_classes(census::latest(case)?);
    let site = main_site(case, &sparse);
    let maker = site.map_or("?", |site| function(&site.frames));
    let wasted: u64 = sparse.iter().map(free_bytes).sum();
    let in_use_s = in_use.last()?.0 - in_use.first()?.0;
    let (ratio, evidence) = (used / goal, evidence(in_use, (used, goal), &sparse));
    Some(Finding {
        kind: LeakKind::Fragmentation,
        severity: Severity::Critical,
        // Who allocates the survivors shows with time.
        confidence: (0.5 + 0.25 * (ratio - 1.0)).min(0.95) * sureness(f64::INFINITY, in_use_s),
        site: site.map(|site| site.id.clone()),
        sites: site.map(|site| site.id.clone()).into_iter().collect(),
        frames: site.map_or_else(Vec::new, |site| site.frames.clone()),
        growth_bytes_per_s: 0.0,
        summary: format!(
            "few survivors of what {maker} allocates hold whole spans: {} in {} size classes are in use for nothing",
            format_bytes(wasted),
            sparse.len()
        ),
        evidence,
        advice: "Copy what is kept out of what is dropped: into one slice, or into objects made after the others have \
                 died; do not keep a few of many objects that are allocated together."
            .into(),
        disproof: "The heap in use falls to the size of the heap goal when the next such batch of objects has \
                   died."
            .into(),
    })
}

/// That so much is in use where the heap is to grow to a goal, and the classes that waste most.
fn evidence(in_use: Vec<Point>, (used, goal): (f64, f64), sparse: &[SizeClassCensus]) -> Vec<Evidence> {
    let mut evidence = vec![Evidence {
        what: format!(
            "{} are in spans, while the heap is to grow to {} before it is collected: {} cannot be used.",
            format_bytes(used as u64),
            format_bytes(goal as u64),
            format_bytes((used - goal) as u64)
        ),
        series: Some(Series { name: "heap in use".into(), unit: "bytes".into(), points: in_use }),
    }];
    evidence.extend(sparse.iter().take(3).map(|class| {
        Evidence::of(format!(
            "{} spans of {}-byte slots hold {} objects in {} slots, {:.0}%.",
            class.spans,
            class.slot_size,
            class.objects,
            class.slots,
            100.0 * class.objects as f64 / class.slots.max(1) as f64
        ))
    }));
    evidence
}

/// The classes with few objects, those that waste most first.
fn sparse_classes(census: &Census) -> Vec<SizeClassCensus> {
    let is_sparse = |class: &&SizeClassCensus| {
        class.slot_size > 0 && (class.objects as f64) < SPARSE * class.slots as f64
    };
    let mut sparse: Vec<SizeClassCensus> = census.size_classes.iter().filter(is_sparse).copied().collect();
    sparse.sort_by_key(|class| std::cmp::Reverse(free_bytes(class)));
    sparse
}

fn free_bytes(class: &SizeClassCensus) -> u64 {
    class.bytes.saturating_sub(class.objects.saturating_mul(class.slot_size))
}

/// The site with most survivors, each of which may hold a span: of those whose objects are of a
/// sparse class, or of several sizes. Samples may know of no survivor.
fn main_site<'a>(case: &Case<'a>, sparse: &[SizeClassCensus]) -> Option<&'a Site> {
    let classes = census::latest(case).map_or(&[][..], |census| &census.size_classes);
    let is_in = |classes: &[SizeClassCensus], slot| classes.iter().any(|class| class.slot_size == slot);
    let is_dense = |site: &Site| {
        let live = site.live_objects.zip(site.live_bytes).filter(|(objects, _)| *objects > 0);
        let (objects, bytes) = live.unwrap_or((site.alloc_objects, site.alloc_bytes));
        let slot = bytes.checked_div(objects).unwrap_or(0);
        slot.checked_mul(objects) == Some(bytes) && is_in(classes, slot) && !is_in(sparse, slot)
    };
    let candidates =
        case.report.sites.iter().filter(|site| !is_dense(site) && census::innermost(&site.frames).is_some());
    candidates.max_by_key(|site| (site.live_objects, site.alloc_objects))
}
