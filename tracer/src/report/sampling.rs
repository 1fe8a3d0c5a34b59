//! What samples stand for: estimates of all objects, and how far they may be off.
//!
//! Each object of s bytes is sampled with probability p = 1 - exp(-s/rate), whatever became
//! of others: samples are the points of a Poisson process over the bytes that are allocated
//! (runtime/malloc.go `nextSample`). An estimate is the Horvitz-Thompson one, the sum of 1/p
//! over the samples, and so is that of its variance for independent sampling, the sum of
//! y²(1-p)/p² over samples that count y (Horvitz and Thompson 1952; Särndal, Swensson and
//! Wretman, Model Assisted Survey Sampling, section 3.2). It is what runtime/pprof does
//! (protomem.go `scaleHeapSample`), as each of the runtime's records is of one size.

use serde::Serialize;

use crate::model::{State, Tally};

/// How the objects seen were chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sampling {
    /// One sample was taken for so many bytes allocated, on average; 1: every object was.
    pub rate_bytes: u64,
}

/// Half the widths of 95% confidence intervals of a site's bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ErrorBytes {
    pub alloc: u64,
    /// `None`: live bytes are not known.
    pub live: Option<u64>,
}

/// 95% of a normal distribution lies within so many standard deviations.
const DEVIATIONS: f64 = 1.96;

impl ErrorBytes {
    /// From variances.
    pub(super) fn of(alloc: f64, live: Option<f64>) -> ErrorBytes {
        let width = |variance: f64| (DEVIATIONS * variance.sqrt()).ceil() as u64;
        ErrorBytes { alloc: width(alloc), live: live.map(width) }
    }
}

impl Sampling {
    /// `None`: every object was seen.
    pub(super) fn of(state: &State) -> Option<Sampling> {
        let rate_bytes = state.start.as_ref()?.sampling_rate?;
        Some(Sampling { rate_bytes })
    }
}

/// How many objects each one seen stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Weight {
    slot: u64,
    /// The inverse of the probability to be seen.
    objects: f64,
}

impl Weight {
    /// Of objects in slots of this size.
    pub(super) fn of(sampling: Option<Sampling>, slot: u64) -> Weight {
        let objects = match sampling {
            // No object has a slot of no size: such a capture is damaged.
            Some(Sampling { rate_bytes: rate @ 2.. }) if slot > 0 => {
                -1.0 / (-(slot as f64) / rate as f64).exp_m1()
            }
            _ => 1.0,
        };
        Weight { slot, objects }
    }

    pub(super) fn factor(self) -> f64 {
        self.objects
    }

    /// What so many objects or bytes seen stand for.
    pub(super) fn scale(self, seen: u64) -> u64 {
        if self.objects == 1.0 { seen } else { (seen as f64 * self.objects).round() as u64 }
    }

    pub(super) fn scale_all(self, seen: &Tally) -> Tally {
        Tally {
            objects: self.scale(seen.objects),
            requested: self.scale(seen.requested),
            bytes: self.scale(seen.bytes),
            unsized_objects: self.scale(seen.unsized_objects),
            unsized_bytes: self.scale(seen.unsized_bytes),
            unslotted_objects: self.scale(seen.unslotted_objects),
        }
    }

    /// The variance of the bytes that `seen` objects stand for, where of those sampled one
    /// in `one_in` is counted, as so many.
    pub(super) fn variance(self, seen: u64, one_in: u64) -> f64 {
        let bytes = self.slot as f64;
        seen as f64 * (one_in as f64 * self.objects - 1.0) * self.objects * bytes * bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(rate_bytes: u64, slot: u64) -> Weight {
        Weight::of(Some(Sampling { rate_bytes }), slot)
    }

    #[test]
    fn estimates_are_those_of_pprof() {
        // Computed with runtime/pprof's scaleHeapSample of Go 1.26, which rounds down.
        for (count, size, objects, bytes) in
            [(1, 64, 8192, 524_320), (3, 1024, 1537, 1_574_400), (2, 1 << 20, 2, 2_425_393)]
        {
            let weight = weight(524_288, size);
            assert!(weight.scale(count).abs_diff(objects) <= 1, "{size}");
            assert!(weight.scale(count * size).abs_diff(bytes) <= 1, "{size}");
        }
        for exact in [weight(1, 48), weight(0, 48), weight(512, 0), Weight::of(None, 48)] {
            assert_eq!((exact.scale(u64::MAX), exact.variance(7, 1)), (u64::MAX, 0.0));
        }
    }

    #[test]
    fn the_variance_is_that_of_repeated_samples() {
        // A million objects of 64 bytes, each seen with probability p: the number of those seen
        // has the variance 1e6 p(1-p), each standing for 64/p bytes.
        let weight = weight(4096, 64);
        let p = 1.0 / weight.factor();
        let truth = 1e6 * p * (1.0 - p) * (64.0 / p).powi(2);
        let seen = (1e6 * p).round() as u64;
        assert!((weight.variance(seen, 1) / truth - 1.0).abs() < 0.001);
        // Following half of the objects is like sampling with half the probability.
        let q = p / 2.0;
        let truth = 1e6 * q * (1.0 - q) * (64.0 / q).powi(2);
        assert!((weight.variance(seen, 2) / truth - 1.0).abs() < 0.001);
    }

    #[test]
    fn an_interval_is_not_narrower_than_it_is_said_to_be() {
        assert_eq!(ErrorBytes::of(100.0, None), ErrorBytes { alloc: 20, live: None });
        assert_eq!(ErrorBytes::of(0.0, Some(1.0)), ErrorBytes { alloc: 0, live: Some(2) });
    }
}
