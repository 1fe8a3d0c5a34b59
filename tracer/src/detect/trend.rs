//! The statistics of growth: Theil–Sen's slope, Mann and Kendall's test of it, and noise.

use statrs::distribution::{ContinuousCDF, Normal};

use crate::model::median_slope;

/// A growth that comes of noise alone less often than this is one: many sites are looked at.
const SIGNIFICANT: f64 = 1e-4;

/// Seconds and a value, in order of time.
pub(super) type Point = (f64, f64);

/// How a series grows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    /// The median slope over all pairs of points (Theil–Sen).
    pub bytes_per_s: f64,
    /// How likely noise without any trend grows as steadily (Mann–Kendall, one-sided).
    pub p_value: f64,
}

impl Trend {
    /// `None` when no two points differ in time.
    pub(super) fn of(points: &[Point]) -> Option<Trend> {
        Some(Trend { bytes_per_s: median_slope(points)?, p_value: mann_kendall(points) })
    }

    /// Whether it grows by more than the noise.
    pub(super) fn is_growth(&self) -> bool {
        self.bytes_per_s > 0.0 && self.p_value < SIGNIFICANT
    }
}

/// The one-sided p-value of Mann and Kendall's test for growth, corrected for ties and for
/// continuity (Mann 1945; Kendall, Rank Correlation Methods, chapter 4).
fn mann_kendall(points: &[Point]) -> f64 {
    let mut s = 0.0;
    for (i, (_, a)) in points.iter().enumerate() {
        let later = points.get(i + 1..).unwrap_or_default();
        s += later.iter().map(|(_, b)| f64::from(i8::from(b > a) - i8::from(b < a))).sum::<f64>();
    }
    let mut values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
    values.sort_by(f64::total_cmp);
    let term = |n: f64| n * (n - 1.0) * (2.0 * n + 5.0);
    let ties: f64 = values.chunk_by(|a, b| a == b).map(|tied| term(tied.len() as f64)).sum();
    let variance = (term(points.len() as f64) - ties) / 18.0;
    if variance <= 0.0 {
        return 1.0;
    }
    let z = if s > 0.0 { (s - 1.0) / variance.sqrt() } else { s.min(0.0) / variance.sqrt() };
    Normal::standard().sf(z)
}

/// The standard deviation of the noise on a series of any trend, from second differences,
/// in which no trend is left: their median tells it of the odd jump.
pub(super) fn noise(points: &[Point]) -> f64 {
    let second = |w: &[Point]| match w {
        [a, b, c] => (a.1 - 2.0 * b.1 + c.1).abs(),
        _ => 0.0,
    };
    // A normal distribution's median is 0.6745 deviations; that of a - 2b + c is √6 times one's.
    median(points.windows(3).map(second)).unwrap_or(0.0) / 0.6745 / 6_f64.sqrt()
}

pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// How far the values fall from the highest before, at the most.
pub(super) fn fall(points: &[Point]) -> f64 {
    let mut most = f64::NEG_INFINITY;
    points.iter().fold(0.0, |deepest, point| {
        most = most.max(point.1);
        deepest.max(most - point.1)
    })
}

/// The value at an instant, on straight lines between the points.
pub(super) fn at(points: &[Point], time: f64) -> f64 {
    let next = points.partition_point(|point| point.0 < time);
    match (next.checked_sub(1).and_then(|before| points.get(before)), points.get(next)) {
        (Some(a), Some(b)) if b.0 > a.0 => a.1 + (b.1 - a.1) * (time - a.0) / (b.0 - a.0),
        (_, Some(point)) | (Some(point), None) => point.1,
        (None, None) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(value: impl Fn(f64) -> f64) -> Vec<Point> {
        (0..40).map(|n| (f64::from(n), value(f64::from(n)))).collect()
    }

    #[test]
    fn growth_stands_out_of_noise_and_noise_does_not() {
        let mut random = fastrand::Rng::with_seed(5);
        let noise: Vec<f64> = (0..40).map(|_| random.f64() * 20.0).collect();
        let of = |slope: f64| Trend::of(&series(|n| slope * n + noise[n as usize])).expect("points");
        assert!(of(1.0).is_growth() && !of(0.0).is_growth() && !of(-1.0).is_growth());
        assert!((of(1.0).bytes_per_s - 1.0).abs() < 0.2, "{:?}", of(1.0));
        assert_eq!(Trend::of(&[(1.0, 1.0)]), None);
        assert_eq!(mann_kendall(&series(|_| 7.0)), 1.0, "nothing but ties");
    }

    #[test]
    fn the_test_is_that_of_textbooks() {
        // Kendall's tau of 1 over ten points: S = 45, variance 125, z = 44/√125.
        let p = mann_kendall(&series(|n| n)[..10]);
        assert!((p / 4.15e-5 - 1.0).abs() < 0.01, "{p}");
    }

    #[test]
    fn noise_is_told_from_trends() {
        assert!(noise(&series(|n| n * 1000.0)) < 1e-9);
        let mut random = fastrand::Rng::with_seed(7);
        let noisy: Vec<f64> = (0..40).map(|_| random.f64()).collect();
        let found = noise(&series(|n| n * 10.0 + noisy[n as usize]));
        assert!((0.15..0.5).contains(&found), "0.29 is right: {found}");
    }

    #[test]
    fn between_points_is_a_straight_line() {
        let points = [(1.0, 10.0), (3.0, 30.0)];
        assert_eq!([0.0, 1.0, 2.0, 9.0].map(|time| at(&points, time)), [10.0, 10.0, 20.0, 30.0]);
        assert_eq!(at(&[], 1.0), 0.0);
    }
}
