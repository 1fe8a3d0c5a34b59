//! The whole heap after each GC cycle, as the runtime itself counts it.

use super::trend::{Point, Trend, median, noise};
use crate::report::Report;
use crate::report::gc::GcRecord;

/// What the runtime recorded of its cycles.
#[derive(Debug, Default)]
pub(super) struct Heap {
    /// Bytes marked by each cycle that began in the capture.
    pub(super) live: Vec<Point>,
    /// Bytes per second allocated between cycles.
    pub(super) load: Vec<Point>,
    pub(super) trend: Option<Trend>,
}

impl Heap {
    pub(super) fn of(report: &Report) -> Heap {
        let records =
            || report.gc.iter().filter_map(|cycle| cycle.record.as_ref()).filter(|r| r.start_ns >= 0);
        let seconds = |ns: i64| ns as f64 / 1e9;
        let live: Vec<Point> = records().map(|r| (seconds(r.end_ns), r.heap_live as f64)).collect();
        let allocated = |(a, b): (&GcRecord, &GcRecord)| {
            let time = seconds(b.start_ns) - seconds(a.end_ns);
            let bytes = b.heap_before.saturating_sub(a.heap_after) as f64;
            (time > 0.0).then(|| (seconds(b.start_ns), bytes / time))
        };
        let load = records().zip(records().skip(1)).filter_map(allocated).collect();
        // As many of the latest as of the sites are compared.
        let trend = Trend::of(&thinned(&live));
        Heap { live, load, trend }
    }

    /// From 0 to 1: whether it grows as much as what sites are said to leak together. 1 where its
    /// noise hides that.
    pub(super) fn explains(&self, bytes_per_s: f64) -> f64 {
        let (Some(trend), [first, .., last]) = (self.trend, &*self.live) else { return 1.0 };
        let seconds = last.0 - first.0;
        if bytes_per_s * seconds < 6.0 * noise(&self.live).max(self.spread(&trend)) {
            return 1.0;
        }
        (1.5 * trend.bytes_per_s / bytes_per_s).clamp(0.0, 1.0)
    }

    /// Whether it grows by more than what is off the trend.
    pub(super) fn is_significant(&self) -> bool {
        let (Some(trend), [first, .., last]) = (self.trend, &*self.live) else { return false };
        trend.is_growth() && trend.bytes_per_s * (last.0 - first.0) > 3.0 * self.spread(&trend)
    }

    /// The standard deviation of what is off the trend.
    fn spread(&self, trend: &Trend) -> f64 {
        let off = |centre: f64| self.live.iter().map(move |p| p.1 - trend.bytes_per_s * p.0 - centre);
        let centre = median(off(0.0)).unwrap_or(0.0);
        median(off(centre).map(f64::abs)).unwrap_or(0.0) / 0.6745
    }

    /// How much more is allocated in the last third of the time than in the first; 1: as much.
    pub(super) fn rise_of_load(&self) -> f64 {
        let third = self.load.len() / 3;
        let mean = |points: &[Point]| points.iter().map(|point| point.1).sum::<f64>() / points.len() as f64;
        match (self.load.get(..third), self.load.get(self.load.len() - third..)) {
            (Some(first @ [_, ..]), Some(last)) => mean(last) / mean(first).max(1.0),
            _ => 1.0,
        }
    }
}

/// Evenly chosen points, few enough to compare each with each.
pub(super) fn thinned(points: &[Point]) -> Vec<Point> {
    points.iter().step_by(points.len().div_ceil(128).max(1)).copied().collect()
}
