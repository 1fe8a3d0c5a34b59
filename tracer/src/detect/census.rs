//! What detectors ask of the censuses of a capture.

use std::collections::BTreeMap;

use super::case::confidence;
use super::shape::{LEAST_CYCLES, Steadiness};
use super::trend::{Point, Trend, fall};
use super::{Case, Suspect, own};
use crate::event::{self, Census, GoroutineGroup};
use crate::report::{Evidence, Finding, Frame, Series, Site};

/// Parts of the time in each of which what rises without end rises.
const SLICES: usize = 5;
/// Of the mean over all of them, in the part where it rises least.
const LEAST_SHARE: f64 = 0.2;
/// Of all that it rises, what it may fall in between.
const MOST_FALL: f64 = 0.2;
/// Load that has risen by as much explains a rise of so many times as much.
const LOAD: f64 = 1.3;
const MORE_THAN_LOAD: f64 = 1.5;

/// Something that rises in a capture without end.
#[derive(Debug, Clone)]
pub(super) struct Rise {
    pub(super) first: f64,
    pub(super) last: f64,
    pub(super) seconds: f64,
    pub(super) per_s: f64,
    /// From 0 to 1.
    pub(super) confidence: f64,
    points: Vec<Point>,
}

impl Rise {
    /// Of these points in order of time; `None`: they do not rise, or as a load does that rises,
    /// or that goes in steps.
    pub(super) fn of(case: &Case<'_>, points: Vec<Point>) -> Option<Rise> {
        let trend = Trend::of(&points).filter(|trend| points.len() >= LEAST_CYCLES && trend.is_growth())?;
        let (&(begin, first), &(end, last)) = (points.first()?, points.last()?);
        let seconds = end - begin;
        let slice = seconds / SLICES as f64;
        let value = |n: usize| super::trend::at(&points, begin + n as f64 * slice);
        let mean = (last - first) / SLICES as f64;
        let evenness = (1..=SLICES).map(|n| (value(n) - value(n - 1)) / mean).fold(1.0, f64::min);
        let load = case.heap.rise_of_load();
        let is_load = load >= LOAD && last < first * load * MORE_THAN_LOAD;
        if mean <= 0.0 || evenness < LEAST_SHARE || fall(&points) > MOST_FALL * (last - first) || is_load {
            return None;
        }
        let confidence = confidence(&points, Steadiness { trend, evenness });
        Some(Rise { first, last, seconds, per_s: trend.bytes_per_s, confidence, points })
    }

    pub(super) fn grown(&self) -> f64 {
        self.last - self.first
    }

    /// From 0 to 1: how sure it is, where so do the live bytes of what belongs to it.
    pub(super) fn backed_by(&self, suspects: &[&Suspect]) -> f64 {
        suspects.iter().map(|suspect| suspect.confidence).fold(self.confidence, f64::max)
    }

    /// Evidence that so many of the `unit` do or are `what`.
    pub(super) fn evidence(&self, unit: &str, what: &str) -> Evidence {
        let Rise { first, last, seconds, per_s, points, .. } = self;
        let series = Series { name: unit.into(), unit: unit.into(), points: points.clone() };
        let what = format!(
            "From {first:.0} to {last:.0} {unit} {what} in {seconds:.0} s, {per_s:.1} more each second."
        );
        Evidence { what, series: Some(series) }
    }
}

/// For how long one of a group has waited, to be said behind what they do.
pub(super) fn waited(group: &GoroutineGroup) -> String {
    let waited = |ns| format!(", one for {:.0} s or more", ns as f64 / 1e9);
    group.oldest_wait_ns.map_or(String::new(), waited)
}

/// What each census says of something, where it says it.
pub(super) fn series(case: &Case<'_>, value: impl Fn(&Census) -> Option<f64>) -> Vec<Point> {
    case.state
        .census
        .iter()
        .filter_map(|census| Some((case.seconds(census.begin_ns), value(census)?)))
        .collect()
}

/// The latest one.
pub(super) fn latest<'a>(case: &Case<'a>) -> Option<&'a Census> {
    case.state.census.iter().next_back()
}

/// The goroutine groups of a census.
pub(super) fn groups(census: &Census) -> &[GoroutineGroup] {
    census.goroutines.as_ref().map_or(&[], |goroutines| &goroutines.groups)
}

/// How many goroutines a census counts that are such.
pub(super) fn count(census: &Census, is_such: impl Fn(&GoroutineGroup) -> bool) -> Option<f64> {
    census.goroutines.as_ref()?;
    Some(groups(census).iter().filter(|group| is_such(group)).map(|group| group.count).sum::<u64>() as f64)
}

/// Bytes per second by which the stacks of such goroutines grow.
pub(super) fn stack_growth(case: &Case<'_>, is_such: impl Fn(&GoroutineGroup) -> bool) -> f64 {
    let bytes = |census: &Census| {
        let such = groups(census).iter().filter(|group| is_such(group));
        Some(such.map(|group| group.stack_bytes).sum::<u64>() as f64)
    };
    Trend::of(&series(case, bytes)).map_or(0.0, |trend| trend.bytes_per_s.max(0.0))
}

/// Where the goroutines of a group stand, innermost first, as a dump shows it: without the
/// functions of the runtime.
pub(super) fn frames(case: &Case<'_>, group: &GoroutineGroup) -> Vec<Frame> {
    let pcs = group.stack.and_then(|stack| case.state.stacks.get(&stack));
    let frames = pcs.into_iter().flatten().filter_map(|pc| case.state.symbols.get(pc)).flatten();
    let shown = frames.filter(|frame| !frame.wrapper && !frame.function.starts_with("runtime."));
    shown.map(|frame| Frame::from(frame.clone())).collect()
}

/// The `go` statement that made the goroutines of a group.
pub(super) fn creation<'a>(case: &Case<'a>, go_pc: u64) -> Option<&'a event::Frame> {
    case.state.symbols.get(&go_pc)?.iter().rev().find(|frame| !frame.wrapper)
}

/// The suspects that are such; the ids of their sites, and by how much they grow together.
pub(super) fn explained<'c>(
    case: &'c Case<'_>,
    is_such: impl Fn(&Site) -> bool,
) -> (Vec<&'c Suspect>, Vec<String>, f64) {
    let suspects: Vec<&Suspect> =
        case.suspects.iter().filter(|suspect| is_such(case.site(suspect))).collect();
    let ids = suspects.iter().map(|suspect| case.site(suspect).id.clone()).collect();
    let growth = suspects.iter().map(|suspect| suspect.trend.bytes_per_s).sum();
    (suspects, ids, growth)
}

/// Adds the descriptors of goroutines that grow in number to the finding that leaks most of these:
/// which `go` statement had one allocated, instead of taking that of one which has ended, is chance.
pub(super) fn add_descriptors(case: &Case<'_>, findings: &mut [Finding]) {
    let order = |a: &&mut Finding, b: &&mut Finding| a.growth_bytes_per_s.total_cmp(&b.growth_bytes_per_s);
    let Some(finding) = findings.iter_mut().max_by(order) else { return };
    for suspect in case.suspects.iter().filter(|suspect| is_descriptor(case.site(suspect))) {
        let id = &case.site(suspect).id;
        if !finding.sites.contains(id) {
            finding.sites.push(id.clone());
            finding.growth_bytes_per_s += suspect.trend.bytes_per_s;
        }
    }
}

pub(super) fn is_descriptor(site: &Site) -> bool {
    site.type_name == "runtime.g"
}

/// The innermost function of the program itself.
pub(super) fn innermost(frames: &[Frame]) -> Option<&str> {
    own(frames).next().map(|frame| frame.function.as_str())
}

/// Adds up by key, and gives the keys in order.
pub(super) fn keys<K: Ord + Copy>(all: impl Iterator<Item = K>) -> Vec<K> {
    all.map(|key| (key, ())).collect::<BTreeMap<K, ()>>().into_keys().collect()
}

#[cfg(test)]
mod tests;
