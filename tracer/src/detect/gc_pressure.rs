//! No leak: a garbage collector that works more than it should, as the heap is close to its limit,
//! GOGC is low, or very much is allocated.

use super::{Case, function};
use crate::base::units::format_bytes;
use crate::report::gc::GcRecord;
use crate::report::{Evidence, Finding, LeakKind, Measure, Series, Severity, Site};

/// With fewer cycles nothing presses.
const LEAST_CYCLES: usize = 10;
const LEAST_PER_SECOND: f64 = 1.0;
/// GOGC below this makes for many cycles.
const LOW_GOGC: i32 = 50;
/// Share of all processors' time that marking should stay below.
const MOST_CPU: f64 = 0.25;

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let records: Vec<&GcRecord> =
        case.report.gc.iter().filter_map(|cycle| cycle.record.as_ref()).filter(|r| r.start_ns >= 0).collect();
    let Some(pressure) = Pressure::of(&records) else { return Vec::new() };
    let Some(reason) = pressure.reason(&records) else { return Vec::new() };
    let most = case.report.sites.iter().max_by_key(|site| Measure::AllocBytes.of(site));
    vec![finding(&pressure, &reason, most, &records)]
}

struct Pressure {
    per_second: f64,
    /// Of all processors' time.
    cpu: f64,
    /// Of marking, the share that allocating goroutines had to do.
    assists: f64,
}

impl Pressure {
    fn of(records: &[&GcRecord]) -> Option<Pressure> {
        let (first, last) = (records.first()?, records.last()?);
        let ns = (last.end_ns - first.start_ns) as f64;
        let per_second = records.len() as f64 / (ns / 1e9);
        if records.len() < LEAST_CYCLES || per_second < LEAST_PER_SECOND {
            return None;
        }
        let assists: f64 = records.iter().map(|r| r.assist_ns as f64).sum();
        let background: f64 = records.iter().map(|r| (r.dedicated_ns + r.fractional_ns) as f64).sum();
        let cpu = (assists + background) / (ns * f64::from(last.procs.max(1)));
        Some(Pressure { per_second, cpu, assists: assists / (assists + background).max(1.0) })
    }

    /// Why there are so many cycles, and what to do; `None`: they do no harm.
    fn reason(&self, records: &[&GcRecord]) -> Option<(String, &'static str)> {
        let last = records.last()?;
        // The goal is what GOGC asks for, if the limit lets it.
        let is_limited = |r: &&&GcRecord| {
            let free = r.gogc.map_or(f64::INFINITY, |gogc| f64::from(gogc) / 100.0);
            let roots = (r.stack_bytes + r.globals_bytes) as f64;
            (r.heap_goal as f64) < 0.9 * (r.heap_live as f64 * (1.0 + free) + roots * free)
        };
        let limited = records.iter().filter(is_limited).count();
        if let Some(limit) = last.memory_limit.filter(|_| 2 * limited > records.len()) {
            return Some((
                format!("the heap is close to GOMEMLIMIT ({})", format_bytes(limit.max(0) as u64)),
                "Raise GOMEMLIMIT, or keep less: at the limit the GC runs however little is allocated.",
            ));
        }
        if let Some(gogc) = last.gogc.filter(|gogc| *gogc < LOW_GOGC) {
            return Some((format!("GOGC is {gogc}"), "Raise GOGC, and bound memory by GOMEMLIMIT instead."));
        }
        (self.cpu >= MOST_CPU).then(|| {
            (
                "much is allocated for the size of the heap".into(),
                "Allocate less where most is (heaptap report), or raise GOGC.",
            )
        })
    }
}

fn finding(
    pressure: &Pressure,
    (reason, advice): &(String, &'static str),
    most: Option<&Site>,
    records: &[&GcRecord],
) -> Finding {
    let points = records.iter().map(|r| (r.end_ns as f64 / 1e9, r.heap_live as f64)).collect();
    let series = Series { name: "heap after GC".into(), unit: "bytes".into(), points };
    let mut evidence = vec![
        Evidence {
            what: format!("{} GC cycles took place, {:.1} each second.", records.len(), pressure.per_second),
            series: Some(series),
        },
        Evidence::of(format!(
            "Marking took {:.1}% of all processors' time; allocating goroutines had to do {:.0}% of it.",
            100.0 * pressure.cpu,
            100.0 * pressure.assists
        )),
    ];
    if let Some(site) = most {
        evidence.push(Evidence::of(format!("Most bytes are allocated by {}.", function(&site.frames))));
    }
    Finding {
        kind: LeakKind::GcPressure,
        severity: Severity::Warning,
        confidence: 1.0 - (-(records.len() as f64) / 10.0).exp2(),
        site: most.map(|site| site.id.clone()),
        sites: most.map(|site| site.id.clone()).into_iter().collect(),
        frames: most.map(|site| site.frames.clone()).unwrap_or_default(),
        growth_bytes_per_s: 0.0,
        summary: format!("{:.1} GC cycles each second: {reason}", pressure.per_second),
        evidence,
        advice: (*advice).into(),
        disproof: "With twice the room there are as many cycles, or the program is no faster.".into(),
    }
}
