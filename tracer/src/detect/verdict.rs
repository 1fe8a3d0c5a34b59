//! What all findings come to: the verdict, and the stages that led to it.

use super::Case;
use super::shape::LEAST_CYCLES;
use super::trend::{Point, Trend, noise};
use crate::base::units::format_bytes;
use crate::report::{Finding, LeakKind, Outcome, Severity, Stage, StageName, Verdict};

/// A leak of which we are less sure is none that we speak of.
pub(super) const LEAST_CONFIDENCE: f64 = 0.5;
/// From here on a leak is one.
pub(super) const SURE: f64 = 0.7;
/// Load that has risen by as much explains growth.
const LOAD: f64 = 1.3;
/// The heap after a GC grew so many times in a row.
const IN_A_ROW: usize = 3;

/// What the findings, most important first, and what was cleared come to.
pub(super) fn of(case: &Case<'_>, findings: &[Finding]) -> Verdict {
    let (outcome, confidence, summary) = decide(case, findings);
    Verdict {
        outcome,
        confidence,
        summary,
        judged_gc_cycles: case.cycles(),
        growth_bytes_per_s: case.heap.trend.map(|trend| trend.bytes_per_s),
        stages: stages(case, outcome),
    }
}

fn decide(case: &Case<'_>, findings: &[Finding]) -> (Outcome, f64, String) {
    let leaks: Vec<&Finding> = findings.iter().filter(|f| f.severity == Severity::Critical).collect();
    let surest = leaks.iter().fold(0.0, |most: f64, leak| most.max(leak.confidence));
    if surest >= SURE {
        return (Outcome::Leak, surest, leak_sentence(&leaks));
    }
    let cycles = case.cycles();
    if cycles < LEAST_CYCLES as u64 {
        return (Outcome::Unsure, 0.0, format!("too few GC cycles to judge; seen {cycles}"));
    }
    let enough = case.sureness();
    let grows = case.heap.trend.is_some_and(|trend| trend.is_growth());
    let risen = case.heap.rise_of_load();
    if let Some(suspect) = case.suspects.iter().find(|s| s.confidence >= LEAST_CONFIDENCE / 2.0) {
        let most = case.suspects.iter().fold(suspect.confidence, |most, s| most.max(s.confidence));
        let what = "live memory of some sites grows, but not for long enough, or not by enough, to tell";
        return (Outcome::Unsure, 1.0 - most, what.into());
    }
    if let Some(finding) = findings.iter().find(|finding| finding.kind == LeakKind::WarmUp) {
        return (Outcome::WarmUp, finding.confidence, finding.summary.clone());
    }
    if let Some(cleared) = case.cleared.iter().find(|c| c.is_replaced && grows) {
        let name = super::function(case.report.sites[cleared.site].frames.as_slice());
        let full = format!(
            "what {name} allocates is kept for a while and then replaced: {}, like a cache at its bound",
            format_bytes(cleared.bytes as u64)
        );
        return (Outcome::CacheFull, enough, full);
    }
    if grows && risen >= LOAD {
        let what = format!(
            "more is alive because more is done: {risen:.1} times as much is allocated each second as at first"
        );
        return (Outcome::LoadRose, enough, what);
    }
    if let Some(finding) = findings.iter().find(|finding| finding.kind == LeakKind::GcPressure) {
        return (Outcome::GcPressure, finding.confidence, finding.summary.clone());
    }
    if grows && case.heap.is_significant() {
        let rate = format_bytes(case.heap.trend.map_or(0.0, |t| t.bytes_per_s) as u64);
        let what = format!(
            "the heap grows by {rate} each second, but what grows is not seen, or not for long enough"
        );
        return (Outcome::Unsure, 0.0, what);
    }
    (Outcome::NoLeak, enough, format!("nothing grows without end: {cycles} GC cycles were judged"))
}

fn leak_sentence(leaks: &[&Finding]) -> String {
    let sure: Vec<&&Finding> = leaks.iter().filter(|leak| leak.confidence >= SURE).collect();
    let rate: f64 = sure.iter().map(|leak| leak.growth_bytes_per_s).sum();
    let rate = format_bytes(rate.max(0.0) as u64);
    match sure.as_slice() {
        [one] => format!("{}: {}", one.kind.name(), one.summary),
        several => format!("{} leaks, together {rate} each second", several.len()),
    }
}

fn stages(case: &Case<'_>, outcome: Outcome) -> Vec<Stage> {
    let mut stages = vec![Stage { name: StageName::Before, begin_s: 0.0 }];
    let leaking = (outcome == Outcome::Leak)
        .then(|| case.suspects.iter().map(|suspect| significant_from(&suspect.judged)).reduce(f64::min))
        .flatten();
    let suspect = grew_in_a_row(&case.heap.live).into_iter().chain(leaking).reduce(f64::min);
    stages.extend(suspect.map(|begin_s| Stage { name: StageName::Suspect, begin_s }));
    stages.extend(leaking.map(|begin_s| Stage { name: StageName::Leaking, begin_s }));
    stages
}

/// When the heap had grown three times in a row, each time by more than the noise.
fn grew_in_a_row(live: &[Point]) -> Option<f64> {
    let noise = noise(live);
    let grows = |w: &[Point]| w.windows(2).all(|pair| matches!(pair, [a, b] if b.1 - a.1 > noise));
    live.windows(IN_A_ROW + 1).find(|w| grows(w)).and_then(|w| Some(w.last()?.0))
}

/// When a growth was first beyond noise.
fn significant_from(points: &[Point]) -> f64 {
    let grows = |n: &usize| Trend::of(&points[..*n]).is_some_and(|trend| trend.is_growth());
    let first = (LEAST_CYCLES..=points.len()).find(grows).unwrap_or(points.len());
    first.checked_sub(1).and_then(|last| points.get(last)).map_or(0.0, |point| point.0)
}
