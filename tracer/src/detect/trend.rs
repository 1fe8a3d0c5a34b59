//! Whether a series grows: Theil–Sen's slope, and Mann and Kendall's test of it.

use statrs::distribution::{ContinuousCDF, Normal};

use crate::model::median_slope;

/// Fewer points say nothing.
const LEAST_POINTS: usize = 8;
/// A growth that comes of noise alone less often than this is one.
const SIGNIFICANT: f64 = 1e-4;

/// How a series grows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    /// The median slope over all pairs of points (Theil–Sen).
    pub bytes_per_s: f64,
    /// How likely noise without any trend grows as steadily (Mann–Kendall, one-sided).
    pub p_value: f64,
}

impl Trend {
    /// Of seconds and bytes, in order of time; `None`: too few of them.
    pub(super) fn of(points: &[(f64, f64)]) -> Option<Trend> {
        if points.len() < LEAST_POINTS {
            return None;
        }
        Some(Trend { bytes_per_s: median_slope(points)?, p_value: mann_kendall(points) })
    }

    /// Whether it grows by more than the noise.
    pub(super) fn is_growth(&self) -> bool {
        self.bytes_per_s > 0.0 && self.p_value < SIGNIFICANT
    }
}

/// The one-sided p-value of Mann and Kendall's test for growth, corrected for ties and for
/// continuity (Mann 1945; Kendall, Rank Correlation Methods, chapter 4).
fn mann_kendall(points: &[(f64, f64)]) -> f64 {
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
