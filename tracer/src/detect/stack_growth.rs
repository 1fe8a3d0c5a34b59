//! Stacks that grow, not in number but each: by recursion that gets deeper, or large frames.

use std::collections::HashMap;

use super::census;
use super::trend::{Point, Trend, median};
use super::{Case, own};
use crate::base::units::format_bytes;
use crate::event::{Census, GoroutineGroup};
use crate::report::{Evidence, Finding, Frame, LeakKind, Series, Severity};

/// Fewer censuses say nothing.
const LEAST: usize = 10;
/// How many times as much is in stacks in the last third of the time as in the first, and how
/// much more that is.
const RATIO: f64 = 1.5;
const BYTES: f64 = (1 << 20) as f64;
/// A stack that grew is as large at least; the runtime begins with 2 to 8 KiB.
const LARGE: u64 = 32 << 10;

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    finding(case).into_iter().collect()
}

fn finding(case: &Case<'_>) -> Option<Finding> {
    let bytes = |census: &Census| Some(census.goroutines.as_ref()?.stack_bytes as f64);
    let number = |census: &Census| Some(census.goroutines.as_ref()?.count as f64);
    let (points, numbers) = (census::series(case, bytes), census::series(case, number));
    let trend = Trend::of(&points).filter(|trend| points.len() >= LEAST && trend.is_growth())?;
    let (first, last) = thirds(&points)?;
    let (fewest, most) = thirds(&numbers)?;
    let grown = last / first.max(1.0) / (most / fewest.max(1.0)).max(1.0);
    if grown < RATIO || last - first < BYTES {
        return None;
    }
    let groups = census::groups(census::latest(case)?);
    let largest = groups.iter().max_by_key(|group| group.largest_stack_bytes)?;
    if largest.largest_stack_bytes < LARGE {
        return None;
    }
    let frames = from_recursion(census::frames(case, largest));
    let place = own(&frames).next().or(frames.first()).map_or("?", |frame| frame.function.as_str());
    let seconds = points.last()?.0 - points.first()?.0;
    let confidence =
        super::case::sureness((numbers.len() - LEAST / 2) as f64, seconds) * (1.0 - trend.p_value);
    Some(Finding {
        kind: LeakKind::StackGrowth,
        severity: Severity::Critical,
        confidence: confidence * (0.8 + 0.2 * (grown - 1.0).min(1.0)),
        site: None,
        sites: Vec::new(),
        growth_bytes_per_s: trend.bytes_per_s,
        summary: format!(
            "stacks grow, the largest to {}, in {place}: {} more each second",
            format_bytes(largest.largest_stack_bytes),
            format_bytes(trend.bytes_per_s as u64)
        ),
        evidence: evidence(points, (first, last), (fewest, most), groups),
        frames,
        advice: "Replace the recursion by a loop with a slice of its own as a stack, or bound its depth; move large \
                 local arrays to the heap, or share them."
            .into(),
        disproof: "The stacks shrink again: the runtime halves those of which less than a quarter is in use, at the \
                   next GC cycle."
            .into(),
    })
}

/// That stacks grow and their number does not, and how many of them are large.
fn evidence(
    points: Vec<Point>,
    (first, last): (f64, f64),
    (fewest, most): (f64, f64),
    groups: &[GoroutineGroup],
) -> Vec<Evidence> {
    let what = format!(
        "The stacks of all goroutines together grow from {} to {}; their number, from {fewest:.0} to {most:.0}, does \
         not explain that.",
        format_bytes(first as u64),
        format_bytes(last as u64)
    );
    let series = Some(Series { name: "stacks".into(), unit: "bytes".into(), points });
    let large = groups.iter().filter(|group| group.largest_stack_bytes >= LARGE);
    let with_large = format!(
        "{} goroutines are in groups with stacks of {} or more.",
        large.map(|group| group.count).sum::<u64>(),
        format_bytes(LARGE)
    );
    vec![Evidence { what, series }, Evidence::of(with_large)]
}

/// The medians of the first and of the last third.
fn thirds(points: &[Point]) -> Option<(f64, f64)> {
    let third = points.len() / 3;
    let of = |points: &[Point]| median(points.iter().map(|point| point.1));
    Some((of(points.get(..third)?)?, of(points.get(points.len() - third..)?)?))
}

/// The stack from the innermost call of the function that is on it most often, if one is there
/// several times.
fn from_recursion(frames: Vec<Frame>) -> Vec<Frame> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for frame in &frames {
        *counts.entry(frame.function.as_str()).or_default() += 1;
    }
    let most = counts.values().copied().max().unwrap_or(0);
    let first =
        frames.iter().position(|frame| most > 1 && counts.get(frame.function.as_str()) == Some(&most));
    frames.get(first.unwrap_or(0)..).unwrap_or_default().to_vec()
}
