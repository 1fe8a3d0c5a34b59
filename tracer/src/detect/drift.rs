//! Arrays that get ever larger: there are few of a slice that grows, so that a sample does not show
//! their site grow. Their sizes do, as looks at who holds them found them; or, where these have seen
//! too few, all the large objects there are, if hardly another site makes such.

use super::case::sureness;
use super::census;
use super::claim::Words;
use super::held::Held;
use super::large_object::is_large;
use super::trend::{Point, Trend};
use super::{Case, function};
use crate::base::units::format_bytes;
use crate::event::Census;
use crate::report::{Evidence, Finding, Kind, LeakKind, Series, Severity, Site};

/// So many looks, so many times the size at last, so many of all pairs in order.
const LEAST_LOOKS: usize = 5;
const TIMES: f64 = 1.5;
const IN_ORDER: f64 = 0.85;

/// Of all bytes of large objects, and of what the heap grows by.
const MOST: f64 = 0.8;

/// A site whose arrays get larger, while the heap grows for no other reason.
pub(super) struct Drift {
    /// Index in [`crate::report::Report::sites`].
    pub(super) site: usize,
    evidence: Evidence,
    confidence: f64,
    /// By which the heap grows beyond what the suspects do.
    bytes_per_s: f64,
}

/// All of them; those that have most alive first. None, where the suspects explain the growth.
pub(super) fn all(case: &Case<'_>) -> Vec<Drift> {
    let suspected: f64 = case.suspects.iter().map(|suspect| suspect.trend.bytes_per_s).sum();
    let bytes_per_s = case.heap.trend.map_or(0.0, |trend| trend.bytes_per_s) - suspected;
    if !case.heap.is_significant() || bytes_per_s <= suspected {
        return Vec::new();
    }
    let held = Held::of(case);
    let sites = || case.report.sites.iter().enumerate();
    let large: u64 = sites().filter(|(_, site)| is_large(site)).map(|(_, site)| site.alloc_bytes).sum();
    let drift = |(site, of_site): (usize, &Site)| {
        let (evidence, confidence) =
            of_objects(case, &held, site).or_else(|| of_large(case, of_site, large, bytes_per_s))?;
        Some(Drift { site, evidence, confidence, bytes_per_s })
    };
    let mut all: Vec<Drift> =
        sites().filter(|(_, site)| site.kind == Kind::Growslice).filter_map(drift).collect();
    let live = |drift: &Drift| case.report.sites.get(drift.site).and_then(|site| site.live_bytes);
    all.sort_by_key(|drift| std::cmp::Reverse(live(drift)));
    all
}

impl Drift {
    /// As people read it: by how much it grows each second.
    pub(super) fn rate(&self) -> String {
        format_bytes(self.bytes_per_s as u64)
    }

    /// The function of the program that the arrays come from.
    pub(super) fn place<'a>(&self, case: &Case<'a>) -> &'a str {
        case.report.sites.get(self.site).map_or("?", |site| function(&site.frames))
    }

    /// A leak of this site.
    pub(super) fn finding(self, case: &Case<'_>, kind: LeakKind, words: Words) -> Option<Finding> {
        let site = case.report.sites.get(self.site)?;
        let mut evidence = vec![self.evidence];
        evidence.extend(words.evidence);
        Some(Finding {
            kind,
            severity: Severity::Critical,
            confidence: self.confidence,
            site: Some(site.id.clone()),
            sites: vec![site.id.clone()],
            frames: site.frames.clone(),
            growth_bytes_per_s: self.bytes_per_s,
            summary: words.summary,
            evidence,
            advice: words.advice.into(),
            disproof: words.disproof.into(),
        })
    }
}

/// That the objects of a site which were looked at get ever larger, and how sure that is.
fn of_objects(case: &Case<'_>, held: &Held<'_>, site: usize) -> Option<(Evidence, f64)> {
    let points = sizes(case, held, site)?;
    let (first, last) = (points.first()?, points.last()?);
    let what = format!(
        "Objects that were looked at had {} on average at first, and {} at last.",
        format_bytes(first.1 as u64),
        format_bytes(last.1 as u64)
    );
    let confidence = sureness(2.0 * points.len() as f64, last.0 - first.0);
    let series = Series { name: "bytes of an object".into(), unit: "bytes".into(), points };
    Some((Evidence { what, series: Some(series) }, confidence))
}

/// That the heap grows by large objects, of which there were so many bytes, where hardly any other site
/// makes such; and how sure that is.
fn of_large(case: &Case<'_>, site: &Site, large: u64, bytes_per_s: f64) -> Option<(Evidence, f64)> {
    if !is_large(site) || (site.alloc_bytes as f64) < MOST * large as f64 {
        return None;
    }
    // What dies between cycles is in them, too: so it is asked how much all others grow.
    let others = |census: &Census| {
        let small = census.size_classes.iter().filter(|class| class.slot_size > 0);
        Some(small.map(|class| class.bytes).sum::<u64>() as f64)
    };
    let others = Trend::of(&census::series(case, others))?;
    let points = case.heap.live.clone();
    let (first, last) = (points.first()?, points.last()?);
    if others.bytes_per_s > (1.0 - MOST) * bytes_per_s {
        return None;
    }
    let what = format!(
        "All that is alive grows from {} to {}, by large objects, and {:.0}% of what is allocated of such is of \
         this site.",
        format_bytes(first.1 as u64),
        format_bytes(last.1 as u64),
        100.0 * site.alloc_bytes as f64 / large as f64
    );
    let confidence = sureness(points.len() as f64, last.0 - first.0);
    let series = Series { name: "live bytes".into(), unit: "bytes".into(), points };
    Some((Evidence { what, series: Some(series) }, confidence))
}

/// The mean size of a site's objects by time, if it gets ever larger, to the end.
fn sizes(case: &Case<'_>, held: &Held<'_>, site: usize) -> Option<Vec<Point>> {
    let track = held.tracks(site).iter().max_by_key(|track| track.sizes.len())?;
    let points: Vec<Point> = track.sizes.iter().map(|(ns, size)| (case.seconds(*ns), *size as f64)).collect();
    let pairs =
        || points.iter().enumerate().flat_map(|(i, a)| points.iter().skip(i + 1).map(move |b| (a, b)));
    let in_order = pairs().filter(|(a, b)| a.1 < b.1).count() as f64 / pairs().count().max(1) as f64;
    let third = points.len() / 3;
    let mean = |points: &[Point]| points.iter().map(|point| point.1).sum::<f64>() / points.len() as f64;
    let (first, last) = (mean(points.get(..third)?), mean(points.get(points.len() - third..)?));
    (points.len() >= LEAST_LOOKS && in_order >= IN_ORDER && last >= TIMES * first).then_some(points)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::heap::Heap;
    use crate::event::{Event, SizeClassCensus, Start};
    use crate::model::State;
    use crate::report::{Frame, Report};

    const MIB: u64 = 1 << 20;

    /// Sites that drift in a capture of a minute, of which `live` is alive after so many seconds and
    /// `small` bytes are in small objects; with the mean size of what each site allocates.
    fn drifting(sites: &[(Kind, u64)], live: impl Fn(u64) -> u64, small: impl Fn(u64) -> u64) -> Vec<usize> {
        let mut state = State::default();
        state.apply(&Event::Start(Start::default()));
        for n in 0..60 {
            let class = |slot_size, bytes| SizeClassCensus { slot_size, bytes, ..SizeClassCensus::default() };
            // With some that is dead and not yet freed.
            let garbage = live(n) * (n % 4) / 4;
            let size_classes = vec![class(0, live(n) + garbage - small(n)), class(64, small(n))];
            let census = Census { begin_ns: n * 1_000_000_000, size_classes, ..Census::default() };
            state.apply(&Event::Census(census));
        }
        let site = |(kind, size): &(Kind, u64)| Site {
            id: String::new(),
            type_name: String::new(),
            kind: *kind,
            alloc_objects: 10,
            alloc_bytes: 10 * size,
            requested_bytes: 0,
            live_objects: None,
            live_bytes: None,
            error_bytes: None,
            life: None,
            frames: vec![Frame::default()],
            calls: Vec::new(),
        };
        let report = Report { sites: sites.iter().map(site).collect(), ..Report::default() };
        let mut case = Case::new(&state, &report);
        let points: Vec<Point> = (0..60).map(|n| (n as f64, live(n) as f64)).collect();
        case.heap = Heap { trend: Trend::of(&points), live: points, ..Heap::default() };
        all(&case).iter().map(|drift| drift.site).collect()
    }

    #[test]
    fn a_heap_that_grows_by_large_arrays_of_one_site_is_its() {
        let (appends, makes) = ((Kind::Growslice, MIB), (Kind::Makeslice, MIB / 8));
        let grows = |n| (10 + n) * MIB;
        assert_eq!(drifting(&[makes, appends], grows, |_| MIB), [1]);
        assert_eq!(drifting(&[makes, appends], |_| 10 * MIB, |_| MIB), [0; 0], "nothing grows");
        assert_eq!(drifting(&[makes, appends], grows, |n| (1 + n) * MIB), [0; 0], "small objects do");
        assert_eq!(drifting(&[(Kind::Makeslice, MIB), appends], grows, |_| MIB), [0; 0], "either");
        assert_eq!(drifting(&[(Kind::Growslice, 1024)], grows, |_| MIB), [0; 0], "it makes no large ones");
    }
}
