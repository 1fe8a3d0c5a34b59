//! What a site's live bytes do over time: grow without end, or something else that only looks so.
//!
//! What is judged is what had survived some GC cycles, which leaves out objects of passing use
//! and with them most noise. Growth alone is no leak: a cache that fills up grows, and so
//! do sessions when load rises. But of what a leak retained long ago all is still alive, and
//! as much was retained in each part of the time.

use super::trend::{Point, Trend, at, fall};
use crate::model::LivePoint;

/// Fewer judged GC cycles say nothing.
pub(super) const LEAST_CYCLES: usize = 10;
/// Less growth than this is no matter.
const LEAST_BYTES: f64 = 65_536.0;
/// Parts of the time that are compared.
const SLICES: usize = 5;
/// Of the time, the last part in which growth must go on.
const LATE: f64 = 0.4;

/// What live bytes do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape {
    /// Grows steadily, and what it retained first is still there.
    Grows(Steadiness),
    /// Has grown, and does no more: something was filled.
    Filled,
    /// Grows or has grown, while what it consisted of before died: something is replaced.
    Replaced,
    /// Nothing of these, or too few cycles to say.
    Other,
}

/// How much like a leak a growth is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Steadiness {
    pub(super) trend: Trend,
    /// From 0 to 1: what was retained in the part of the time when that was least, over the mean.
    pub(super) evenness: f64,
}

/// How the objects of a site are replaced by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turnover {
    /// Each is what it is.
    Objects,
    /// Arrays that grow are copied into larger ones: that the old ones die says nothing.
    Arrays,
}

/// Live bytes of a site after GC cycles.
#[derive(Debug)]
pub(super) struct Lives {
    pub(super) all: Vec<Point>,
    /// Of objects that had survived some cycles.
    pub(super) old: Vec<Point>,
    /// Of those that were alive then, what still is.
    kept: Vec<Point>,
}

impl Lives {
    pub(super) fn of(history: &[LivePoint], start_ns: u64) -> Lives {
        let series = |bytes: fn(&LivePoint) -> f64| {
            let seconds = |point: &LivePoint| point.time_ns.saturating_sub(start_ns) as f64 / 1e9;
            history.iter().map(|point| (seconds(point), bytes(point))).collect()
        };
        Lives {
            all: series(|point| point.bytes),
            old: series(|point| point.old_bytes),
            kept: series(|point| point.kept_bytes),
        }
    }

    /// When the first and the last cycle was.
    fn span(&self) -> (f64, f64) {
        let time = |point: Option<&Point>| point.map_or(0.0, |point| point.0);
        (time(self.old.first()), time(self.old.last()))
    }

    /// The series that tells whether it grows. Arrays may be too young for any other, however long
    /// the first of their line has been there.
    pub(super) fn judged(&self, turnover: Turnover) -> &[Point] {
        match turnover {
            Turnover::Objects => &self.old,
            Turnover::Arrays => &self.all,
        }
    }

    /// Judges it, where an estimate of live bytes may be off by so many.
    pub(super) fn shape(&self, turnover: Turnover, error: f64) -> Shape {
        let Some(trend) = Trend::of(self.judged(turnover)).filter(|_| self.old.len() >= LEAST_CYCLES) else {
            return Shape::Other;
        };
        let (begin, end) = self.span();
        let grown = trend.bytes_per_s * (end - begin);
        if !trend.is_growth() || grown < LEAST_BYTES.max(2.0 * error) {
            return self.shape_after_growth(error);
        }
        let late = self.late_slope(turnover) / trend.bytes_per_s;
        match turnover {
            _ if late < 0.25 => self.shape_after_growth(error),
            _ if late < 0.5 => Shape::Other,
            Turnover::Arrays if self.fall() > 0.35 || self.is_passing() || !self.keeps_rising() => {
                Shape::Other
            }
            Turnover::Arrays => Shape::Grows(Steadiness { trend, evenness: self.evenness_of_arrays() }),
            Turnover::Objects => self.shape_of_growth(trend),
        }
    }

    fn shape_of_growth(&self, trend: Trend) -> Shape {
        let retained = self.retained();
        let mean = retained.iter().sum::<f64>() / retained.len() as f64;
        let evenness = retained.iter().fold(f64::INFINITY, |least, bytes| least.min(*bytes)) / mean;
        let first = retained.first().copied().unwrap_or(0.0) / mean;
        match (first, evenness) {
            (0.4.., 0.2..) => Shape::Grows(Steadiness { trend, evenness: evenness.min(1.0) }),
            (..0.1, _) => Shape::Replaced,
            _ => Shape::Other,
        }
    }

    /// Whether it has grown at all, and stays there.
    fn shape_after_growth(&self, error: f64) -> Shape {
        let (begin, end) = self.span();
        let middle = begin + (end - begin) * (1.0 - LATE);
        let now = at(&self.old, end);
        let grown = now - at(&self.old, begin);
        if grown < LEAST_BYTES.max(2.0 * error) || at(&self.old, middle) < 0.95 * now {
            return Shape::Other;
        }
        // Of what was there before the last part of the time.
        if at(&self.kept, middle) < 0.5 * at(&self.old, middle) { Shape::Replaced } else { Shape::Filled }
    }

    /// Bytes per second in the last part of the time.
    fn late_slope(&self, turnover: Turnover) -> f64 {
        let (begin, end) = self.span();
        // Arrays grow in jumps: it may be long since the last one.
        let share = if turnover == Turnover::Arrays { 1.5 * LATE } else { LATE };
        let from = end - (end - begin) * share;
        match turnover {
            Turnover::Arrays => (at(&self.all, end) - at(&self.all, from)) / (end - from),
            Turnover::Objects => {
                let first = self.old.partition_point(|point| point.0 < from);
                let first = first.min(self.old.len().saturating_sub(5));
                Trend::of(&self.old[first..]).map_or(0.0, |trend| trend.bytes_per_s)
            }
        }
    }

    /// Whether most of what is alive lately is of passing use.
    fn is_passing(&self) -> bool {
        let (begin, end) = self.span();
        let lately = |points: &[Point]| {
            points
                .iter()
                .filter(|point| point.0 >= begin + (end - begin) * LATE)
                .map(|point| point.1)
                .sum::<f64>()
        };
        lately(&self.old) < 0.3 * lately(&self.all)
    }

    /// Whether it rose again and again, lately too: a table that grew with the load, once or
    /// twice, is no leak.
    fn keeps_rising(&self) -> bool {
        const RISES: usize = 5;
        const LATE_RISES: usize = 2;
        let (begin, end) = self.span();
        let late = begin + (end - begin) * LATE;
        let (mut most, mut rises, mut late_rises) = (0.0, 0, 0);
        for &(time, bytes) in &self.all {
            if bytes > 1.02 * most {
                (most, rises) = (bytes, rises + 1);
                late_rises += usize::from(time >= late);
            }
        }
        rises >= RISES && late_rises >= LATE_RISES
    }

    /// Whether most of what was alive halfway is dead.
    pub(super) fn is_copied(&self) -> bool {
        let (begin, end) = self.span();
        let halfway = f64::midpoint(begin, end);
        at(&self.kept, halfway) < 0.5 * at(&self.all, halfway)
    }

    /// The deepest fall of live bytes, over how much they grew.
    fn fall(&self) -> f64 {
        let values = || self.all.iter().map(|point| point.1);
        let most = values().fold(0.0, f64::max);
        let least = values().fold(f64::INFINITY, f64::min);
        fall(&self.all) / (most - least).max(1.0)
    }

    /// How much of what was born in each part of the time is still alive; but for the last part,
    /// of which some is of passing use.
    fn retained(&self) -> Vec<f64> {
        let (begin, end) = self.span();
        let slice = (end - begin) / SLICES as f64;
        let kept = |n: usize| at(&self.kept, begin + n as f64 * slice);
        (1..SLICES).map(|n| kept(n) - kept(n - 1)).collect()
    }

    /// In how many parts of the time it grew.
    fn evenness_of_arrays(&self) -> f64 {
        let (begin, end) = self.span();
        let slice = (end - begin) / SLICES as f64;
        let all = |n: usize| at(&self.all, begin + n as f64 * slice);
        (1..=SLICES).filter(|n| all(*n) > all(n - 1)).count() as f64 / SLICES as f64
    }
}

#[cfg(test)]
mod tests;
