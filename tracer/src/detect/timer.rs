//! Timers that nobody stops: those that are set grow in number, or what their sites allocate
//! is never freed.

use super::census::{self, Rise};
use super::{Case, Suspect, function};
use crate::event::Census;
use crate::report::{Evidence, Finding, Frame, LeakKind, Severity};

/// A rise by fewer timers is no matter.
const LEAST: f64 = 50.0;
/// Timers that grow no faster than goroutines, times this, are theirs.
const PER_GOROUTINE: f64 = 2.0;

/// What makes timers.
const MAKERS: [&str; 6] =
    ["time.NewTimer", "time.NewTicker", "time.AfterFunc", "time.After", "time.Tick", "time.newTimer"];

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    // Timers of contexts are for another detector to explain.
    let is_timer = |frames: &[Frame]| {
        let has = |name: &str| frames.iter().any(|frame| frame.function == name);
        MAKERS.iter().any(|name| has(name))
            && !frames.iter().any(|frame| frame.function.starts_with("context."))
    };
    let (suspects, ..) = census::explained(case, |site| is_timer(&site.frames));
    let rise = Rise::of(case, census::series(case, |census| Some(census.timers? as f64)))
        .filter(|rise| rise.grown() >= LEAST && !is_of_goroutines(case, rise));
    // What makes them: their site's function, and what else it allocates for them.
    let mut makers: Vec<&str> = suspects.iter().map(|suspect| function(&case.site(suspect).frames)).collect();
    makers.sort_unstable();
    makers.dedup();
    makers.into_iter().map(|maker| finding(case, maker, &suspects, rise.as_ref())).collect()
}

/// Whether each belongs to a goroutine, which sleeps or waits with a limit.
fn is_of_goroutines(case: &Case<'_>, timers: &Rise) -> bool {
    let number = |census: &Census| Some(census.goroutines.as_ref()?.count as f64);
    Rise::of(case, census::series(case, number))
        .is_some_and(|goroutines| timers.per_s < PER_GOROUTINE * goroutines.per_s)
}

fn finding(case: &Case<'_>, maker: &str, timers: &[&Suspect], rise: Option<&Rise>) -> Finding {
    let (_, others, growth) = census::explained(case, |site| function(&site.frames) == maker);
    let of_maker = timers.iter().filter(|suspect| function(&case.site(suspect).frames) == maker);
    let main = of_maker.max_by(|a, b| a.trend.bytes_per_s.total_cmp(&b.trend.bytes_per_s));
    let site = main.map(|suspect| case.site(suspect));
    let mut sites: Vec<String> = site.iter().map(|site| site.id.clone()).collect();
    sites.extend(others.into_iter().filter(|id| site.is_none_or(|site| site.id != *id)));
    let confidence = main.map_or(0.0, |suspect| suspect.confidence);
    let made = site.and_then(|site| site.frames.iter().rev().find(|f| MAKERS.contains(&f.function.as_str())));
    let made = made.map_or("time.NewTimer", |frame| frame.function.as_str());
    let mut evidence = main.map_or(Vec::new(), |suspect| super::claim::evidence(case, suspect));
    if let Some(rise) = rise {
        evidence.insert(0, rise.evidence("timers", "are set"));
    } else if let Some(timers) = census::latest(case).and_then(|census| census.timers) {
        evidence.push(Evidence::of(format!(
            "{timers} timers are set: those that live are kept by something else."
        )));
    }
    Finding {
        kind: LeakKind::Timer,
        severity: Severity::Critical,
        confidence: rise.map_or(confidence, |rise| confidence.max(rise.confidence)),
        frames: site.map_or_else(Vec::new, |site| site.frames.clone()),
        site: sites.first().cloned(),
        sites,
        growth_bytes_per_s: growth,
        summary: format!("timers that {maker} makes by {made} are never stopped, and keep what they refer to"),
        evidence,
        advice: "Stop timers and tickers when they are done with (defer t.Stop()); in a loop make one timer before it \
                 and Reset it, instead of time.After in each turn."
            .into(),
        disproof: "The number of timers falls again once the longest of them has expired.".into(),
    }
}
