//! How the survivors of a call grow from one judged GC cycle to the next.

/// Cycles remembered: enough for a slope, few enough to compare each with each.
const POINTS: usize = 64;

/// Slopes of live bytes: medians over all pairs of cycles (Theil–Sen), which a single odd
/// cycle does not move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    pub bytes_per_cycle: f64,
    pub bytes_per_minute: f64,
}

/// Live bytes by call after each of some judged cycles, evenly spread over all of them.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Cycles judged so far.
    count: u32,
    /// Every so many of them is remembered.
    stride: u32,
    points: Vec<Point>,
    /// By call: which judged cycle, and the bytes; 0 before the first of them.
    calls: Vec<Vec<(u32, u64)>>,
    /// Bytes that `calls` take.
    memory: usize,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    /// Counted from 0 over all judged cycles.
    number: u32,
    epoch: u32,
    time_ns: u64,
}

impl History {
    /// A cycle was judged, which left so many bytes alive by call.
    pub(super) fn add(&mut self, epoch: u32, time_ns: u64, bytes: &[u64]) {
        let number = self.count;
        self.count = self.count.wrapping_add(1);
        self.stride = self.stride.max(1);
        if !number.is_multiple_of(self.stride) {
            return;
        }
        self.points.push(Point { number, epoch, time_ns });
        if self.calls.len() < bytes.len() {
            self.calls.resize(bytes.len(), Vec::new());
        }
        for (call, &bytes) in self.calls.iter_mut().zip(bytes.iter().chain(std::iter::repeat(&0))) {
            if bytes > 0 || !call.is_empty() {
                call.push((number, bytes));
            }
        }
        if self.points.len() >= POINTS {
            self.stride *= 2;
            let stride = self.stride;
            self.points.retain(|point| point.number.is_multiple_of(stride));
            for call in &mut self.calls {
                call.retain(|(number, _)| number.is_multiple_of(stride));
            }
        }
        self.memory = self.calls.iter().map(|call| size_of_val(call) + size_of_val(call.as_slice())).sum();
    }

    /// Of some calls taken together, each weighted; `None` before a second cycle is remembered.
    pub(super) fn growth(&self, calls: &[(u32, f64)]) -> Option<Growth> {
        let mut series: Vec<f64> = vec![0.0; self.points.len()];
        let known = |&(call, weight): &(u32, f64)| Some((self.calls.get(call as usize)?, weight));
        for (call, weight) in calls.iter().filter_map(known) {
            for (number, bytes) in call {
                if let Ok(at) = self.points.binary_search_by_key(number, |point| point.number) {
                    series[at] += *bytes as f64 * weight;
                }
            }
        }
        let slope = |x: fn(&Point) -> f64| {
            let points: Vec<(f64, f64)> = self.points.iter().map(x).zip(series.iter().copied()).collect();
            median_slope(&points)
        };
        Some(Growth {
            bytes_per_cycle: slope(|point| f64::from(point.epoch))?,
            bytes_per_minute: slope(|point| point.time_ns as f64 / 60e9)?,
        })
    }

    /// Bytes of memory it takes.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }
}

/// The median slope over all pairs of points, which are in order of x (Theil–Sen); `None` when
/// no two differ in it.
pub fn median_slope(points: &[(f64, f64)]) -> Option<f64> {
    let mut slopes: Vec<f64> = Vec::new();
    for (i, a) in points.iter().enumerate() {
        let later = points.get(i + 1..).unwrap_or_default();
        slopes.extend(later.iter().filter(|b| b.0 > a.0).map(|b| (b.1 - a.1) / (b.0 - a.0)));
    }
    slopes.sort_by(f64::total_cmp);
    let middle = slopes.len() / 2;
    let upper = *slopes.get(middle)?;
    let lower = if slopes.len().is_multiple_of(2) { *slopes.get(middle - 1)? } else { upper };
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_leak_has_its_slope_however_long_it_runs() {
        let mut history = History::default();
        for n in 0..1000_u32 {
            let other = if n % 7 == 0 { 1 << 30 } else { 1 << 20 };
            history.add(n, u64::from(n) * 1_000_000_000, &[u64::from(n) * 48, other]);
        }
        assert!(history.points.len() < POINTS && history.points.len() >= POINTS / 4);
        let growth = history.growth(&[(0, 1.0)]).expect("points");
        assert_eq!((growth.bytes_per_cycle, growth.bytes_per_minute), (48.0, 48.0 * 60.0));
        let other = history.growth(&[(1, 1.0)]).expect("points");
        assert_eq!(other.bytes_per_cycle, 0.0);
        assert_eq!(history.growth(&[(0, 1.0), (7, 1.0)]), Some(growth));
    }

    #[test]
    fn one_cycle_is_no_trend_and_a_late_call_began_at_nothing() {
        let mut history = History::default();
        history.add(1, 1, &[10]);
        assert_eq!(history.growth(&[(0, 1.0)]), None);
        history.add(2, 60_000_000_001, &[10, 100]);
        let growth = history.growth(&[(1, 1.0)]).expect("two points");
        assert_eq!(growth.bytes_per_cycle, 100.0);
        assert!((growth.bytes_per_minute - 100.0).abs() < 1e-6);
    }
}
