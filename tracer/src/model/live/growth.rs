//! How the survivors of a call grow from one judged GC cycle to the next.

/// Cycles remembered: enough for a slope, few enough to compare each with each.
const POINTS: usize = 64;

/// What was alive of some calls together after a GC cycle.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LivePoint {
    /// Begun by the cycle.
    pub epoch: u32,
    /// When it was judged, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// By size class.
    pub bytes: f64,
    /// Of these, what had survived at least [`OLD`] cycles by then.
    pub old_bytes: f64,
    /// And what the latest of the judged cycles still found alive.
    pub kept_bytes: f64,
}

/// GC cycles that an object has survived when it is of no passing use any more.
const OLD: u32 = 3;

/// What is alive of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    all: u64,
    old: u64,
}

impl Bytes {
    /// Adds what survived the cycle before `epoch`, born in epoch `born`.
    pub(super) fn add(&mut self, bytes: u64, born: u32, epoch: u32) {
        self.all = self.all.wrapping_add(bytes);
        if epoch.saturating_sub(born) >= OLD {
            self.old = self.old.wrapping_add(bytes);
        }
    }
}

/// Live bytes by call after each of some judged cycles, evenly spread over all of them.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Cycles judged so far.
    count: u32,
    /// Every so many of them is remembered.
    stride: u32,
    points: Vec<Point>,
    /// By call: after which judged cycle how much; nothing before the first of them.
    calls: Vec<Vec<(u32, Bytes)>>,
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
    pub(super) fn add(&mut self, epoch: u32, time_ns: u64, bytes: &[Bytes]) {
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
        for (call, &bytes) in
            self.calls.iter_mut().zip(bytes.iter().chain(std::iter::repeat(&Bytes::default())))
        {
            if bytes.all > 0 || !call.is_empty() {
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

    /// Of some calls taken together, each weighted, after each of the cycles remembered.
    pub(super) fn of(&self, calls: &[(u32, f64)]) -> Vec<LivePoint> {
        let point =
            |&Point { epoch, time_ns, .. }: &Point| LivePoint { epoch, time_ns, ..LivePoint::default() };
        let mut series: Vec<LivePoint> = self.points.iter().map(point).collect();
        let known = |&(call, weight): &(u32, f64)| Some((self.calls.get(call as usize)?, weight));
        for (call, weight) in calls.iter().filter_map(known) {
            for (number, bytes) in call {
                if let Ok(at) = self.points.binary_search_by_key(number, |point| point.number) {
                    series[at].bytes += bytes.all as f64 * weight;
                    series[at].old_bytes += bytes.old as f64 * weight;
                }
            }
        }
        series
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

    fn alive(all: u64) -> Bytes {
        Bytes { all, old: 0 }
    }

    fn slope(history: &[LivePoint]) -> Option<f64> {
        let points: Vec<(f64, f64)> =
            history.iter().map(|point| (f64::from(point.epoch), point.bytes)).collect();
        median_slope(&points)
    }

    #[test]
    fn a_steady_leak_has_its_slope_however_long_it_runs() {
        let mut history = History::default();
        for n in 0..1000_u32 {
            let other = if n % 7 == 0 { 1 << 30 } else { 1 << 20 };
            history.add(n, u64::from(n) * 1_000_000_000, &[alive(u64::from(n) * 48), alive(other)]);
        }
        assert!(history.points.len() < POINTS && history.points.len() >= POINTS / 4);
        let leak = history.of(&[(0, 1.0)]);
        assert!(leak.iter().all(|point| point.bytes == f64::from(point.epoch) * 48.0), "{leak:?}");
        assert_eq!(slope(&leak), Some(48.0));
        assert_eq!(slope(&history.of(&[(1, 1.0)])), Some(0.0));
        assert_eq!(history.of(&[(0, 1.0), (7, 1.0)]), leak);
    }

    #[test]
    fn one_cycle_is_no_trend_and_a_late_call_began_at_nothing() {
        let mut history = History::default();
        history.add(1, 1, &[alive(10)]);
        assert_eq!(slope(&history.of(&[(0, 1.0)])), None);
        history.add(2, 60_000_000_001, &[alive(10), alive(100)]);
        assert_eq!(slope(&history.of(&[(1, 1.0)])), Some(100.0));
    }
}
