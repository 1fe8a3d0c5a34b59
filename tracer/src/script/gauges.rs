//! The values that conditions are about, as of now: from the recording and from `/proc`.

use std::collections::BTreeSet;
use std::time::Instant;

use procfs::process::Process;
use regex::Regex;

use super::expr::{Values, of_sites};
use crate::base::{Result, monotonic_ns};
use crate::event::GcCycle;
use crate::model::{State, median_slope};
use crate::report::{self, Report, Site};
use crate::target::Identity;

/// What is read of the process that is recorded, and since when.
pub(super) struct Gauges {
    process: Process,
    since: Since,
    sites: Vec<(String, Regex)>,
    /// When to make the next report for the sites, which may take a while.
    sites_due: Instant,
    site_values: Values,
}

/// When the current phase began.
struct Since {
    ns: u64,
    cpu_ticks: u64,
}

/// GC cycles from which the slope is taken: enough for one, few enough to compare each with
/// each.
const POINTS: usize = 64;

/// With fewer a slope is chance.
const LEAST_POINTS: usize = 3;

/// Of the time, making reports for `site("…")` takes one part in so many at most.
const SITES_SHARE: u32 = 20;

impl Gauges {
    /// # Errors
    /// When the process has ended.
    pub(super) fn new(target: &Identity, sites: &BTreeSet<String>) -> Result<Gauges> {
        let pid = target.target.pid as i32;
        let gone = |e| crate::base::Error::ended(pid).because(e);
        // They were checked with the expressions.
        let regexes = sites.iter().filter_map(|pattern| Some((pattern.clone(), Regex::new(pattern).ok()?)));
        let mut gauges = Gauges {
            process: Process::new(pid).map_err(gone)?,
            since: Since { ns: 0, cpu_ticks: 0 },
            sites: regexes.collect(),
            sites_due: Instant::now(),
            site_values: Values::new(),
        };
        gauges.begin_phase();
        Ok(gauges)
    }

    /// From here on rates are those of a new phase.
    pub(super) fn begin_phase(&mut self) {
        self.since = Since { ns: monotonic_ns(), cpu_ticks: self.cpu_ticks().unwrap_or(0) };
    }

    pub(super) fn read(&mut self, state: &State, values: &mut Values) {
        let mut set = |name: &str, value: Option<f64>| {
            if let Some(value) = value {
                values.insert(name.into(), value);
            }
        };
        let latest = state.gc_cycles.values().next_back();
        set("heap.live", latest.map(|cycle| cycle.heap_marked as f64));
        set("heap.goal", latest.map(|cycle| cycle.heap_goal as f64));
        let cycles: Vec<&GcCycle> =
            state.gc_cycles.values().filter(|cycle| cycle.mark_ns >= self.since.ns).collect();
        set("heap.slope", slope(&cycles));
        set("gc.cpu", self.gc_cpu(&cycles));
        let gauges = state.gauges.unwrap_or_default();
        set("rss", gauges.rss_bytes.map(|bytes| bytes as f64));
        set("goroutines.count", gauges.goroutines.map(|count| count as f64));
        self.read_sites(state);
        values.extend(self.site_values.clone());
    }

    /// Percent of the process's time in this phase that marking took: without that of idle
    /// processors, as `MemStats.GCCPUFraction` has it.
    fn gc_cpu(&self, cycles: &[&GcCycle]) -> Option<f64> {
        let ticks = self.cpu_ticks()?.checked_sub(self.since.cpu_ticks).filter(|ticks| *ticks > 0)?;
        let marking = |c: &&GcCycle| (c.assist_ns + c.dedicated_ns + c.fractional_ns) as f64;
        let spent: f64 = cycles.iter().map(marking).sum();
        Some((100.0 * spent * procfs::ticks_per_second() as f64 / (ticks as f64 * 1e9)).min(100.0))
    }

    fn cpu_ticks(&self) -> Option<u64> {
        let stat = self.process.stat().ok()?;
        Some(stat.utime + stat.stime)
    }

    fn read_sites(&mut self, state: &State) {
        let begin = Instant::now();
        if self.sites.is_empty() || begin < self.sites_due {
            return;
        }
        let report = Report::build(state);
        for (pattern, regex) in &self.sites {
            let sites: Vec<&Site> =
                report.sites.iter().filter(|site| report::names(&site.frames, regex)).collect();
            let mut set = |name: &str, value: Option<u64>| {
                let name = of_sites(pattern, name);
                match value {
                    Some(value) => self.site_values.insert(name, value as f64),
                    None => self.site_values.remove(&name),
                };
            };
            set("alloc_bytes", Some(sites.iter().map(|site| site.alloc_bytes).sum()));
            set("alloc_objects", Some(sites.iter().map(|site| site.alloc_objects).sum()));
            let live = |of: fn(&Site) -> Option<u64>| {
                report.totals.live_bytes.map(|_| sites.iter().filter_map(|site| of(site)).sum())
            };
            set("live_bytes", live(|site| site.live_bytes));
            set("live_objects", live(|site| site.live_objects));
        }
        self.sites_due = begin + begin.elapsed() * SITES_SHARE;
    }
}

/// Bytes per second by which the live heap grows.
fn slope(cycles: &[&GcCycle]) -> Option<f64> {
    let latest = cycles.get(cycles.len().saturating_sub(POINTS)..)?;
    if latest.len() < LEAST_POINTS {
        return None;
    }
    let points: Vec<(f64, f64)> =
        latest.iter().map(|cycle| (cycle.end_ns as f64 / 1e9, cycle.heap_marked as f64)).collect();
    median_slope(&points)
}
