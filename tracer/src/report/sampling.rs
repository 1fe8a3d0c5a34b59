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

use super::life::Lives;
use super::windows::{Estimates, WindowSampling};
use crate::model::{CallSums, State, Tally};

/// How the objects seen were chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Sampling {
    /// By the program's own heap profiler.
    Profiler {
        /// One sample was taken for so many bytes allocated, on average; 1: every object was.
        rate_bytes: u64,
    },
    Windows(WindowSampling),
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

impl Sampling {
    /// `None`: every object was seen.
    pub(super) fn of(estimator: &Estimator<'_>, state: &State) -> Option<Sampling> {
        match estimator {
            Estimator::Exact => None,
            Estimator::Profiler(rate_bytes) => Some(Sampling::Profiler { rate_bytes: *rate_bytes }),
            Estimator::Windows(estimates) => WindowSampling::of(estimates, state).map(Sampling::Windows),
        }
    }
}

/// Makes estimates of what was seen.
#[derive(Debug)]
pub(super) enum Estimator<'a> {
    /// There is nothing to estimate.
    Exact,
    /// From samples of one in so many bytes.
    Profiler(u64),
    Windows(Estimates<'a>),
}

impl<'a> Estimator<'a> {
    pub(super) fn of(state: &'a State) -> Estimator<'a> {
        let rate = state.start.as_ref().and_then(|start| start.sampling_rate);
        match (Estimates::of(state), rate) {
            (Some(windows), _) => Estimator::Windows(windows),
            (None, Some(rate)) => Estimator::Profiler(rate),
            (None, None) => Estimator::Exact,
        }
    }

    /// Of the objects of a call.
    pub(super) fn weight(&self, sums: &CallSums) -> Weight {
        let slot = sums.call.sampled_slot;
        match self {
            Estimator::Windows(windows) => Weight {
                slot,
                objects: windows.objects(sums.index, slot) / sums.all.objects.max(1) as f64,
                alive: windows.calibration(slot),
            },
            _ => self.weight_alive(slot),
        }
    }

    /// Of objects as the live heap counts them, in slots of this size.
    pub(super) fn weight_alive(&self, slot: u64) -> Weight {
        let objects = match self {
            Estimator::Exact => 1.0,
            Estimator::Profiler(rate) => one_in(*rate, slot),
            Estimator::Windows(windows) => windows.calibration(slot),
        };
        Weight { slot, objects, alive: objects }
    }

    /// Of the bytes of some calls together: those allocated, and if they are known those
    /// alive. `None`: nothing was estimated.
    pub(super) fn error(&self, calls: &[SeenCall], lives: Option<&Lives<'_>>) -> Option<ErrorBytes> {
        let deviations = match self {
            Estimator::Exact => return None,
            Estimator::Profiler(_) => DEVIATIONS,
            Estimator::Windows(windows) => windows.quantile(),
        };
        let width = |deviation: f64| (deviations * deviation).ceil() as u64;
        // Windows do not tell of sites that none of them saw.
        let unseen = match self {
            Estimator::Windows(windows) => windows.unseen_bytes(calls.iter().map(|call| call.weight.slot)),
            _ => 0.0,
        };
        Some(ErrorBytes {
            alloc: width(self.deviation(calls)).max(unseen.ceil() as u64),
            live: lives.map(|lives| width(self.deviation_alive(calls, lives))),
        })
    }

    fn deviation(&self, calls: &[SeenCall]) -> f64 {
        let of_call = |call: &SeenCall| variance(call.weight, call.seen, 1);
        match self {
            Estimator::Windows(windows) => windows.deviation(calls.iter().map(|c| (c.index, c.weight.slot))),
            _ => calls.iter().map(of_call).sum::<f64>().sqrt(),
        }
    }

    fn deviation_alive(&self, calls: &[SeenCall], lives: &Lives<'_>) -> f64 {
        let of_call = |call: &SeenCall| {
            let (alive, one_in) = (lives.alive(call.index).objects, lives.followed_one_in(call.index));
            match self {
                // Of being followed: how windows differ comes on top.
                Estimator::Windows(_) => {
                    let Weight { slot, objects, alive: each } = call.weight;
                    alive as f64 * each * (one_in - 1) as f64 * objects * (slot as f64).powi(2)
                }
                _ => variance(call.weight, alive, one_in),
            }
        };
        let variance: f64 = calls.iter().map(of_call).sum();
        let Estimator::Windows(windows) = self else { return variance.sqrt() };
        let told = calls.iter().flat_map(|call| {
            let by_window = lives.by_window(call.index).iter();
            by_window.map(|&(window, objects)| (call.weight.slot, windows.batch_of(window), objects as f64))
        });
        windows.deviation_of_all(told).hypot(variance.sqrt())
    }
}

/// Of objects in slots of this size one in so many is sampled on average.
fn one_in(rate: u64, slot: u64) -> f64 {
    // No object has a slot of no size: such a capture is damaged.
    if rate > 1 && slot > 0 { -1.0 / (-(slot as f64) / rate as f64).exp_m1() } else { 1.0 }
}

/// The variance of the bytes that `seen` samples stand for, where of those one in `one_in`
/// is counted, as so many.
fn variance(weight: Weight, seen: u64, one_in: u64) -> f64 {
    let bytes = weight.slot as f64;
    seen as f64 * (one_in as f64 * weight.objects - 1.0) * weight.objects * bytes * bytes
}

/// A call of a site, by its index.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeenCall {
    pub(super) index: u32,
    pub(super) weight: Weight,
    /// Objects.
    pub(super) seen: u64,
}

/// How many objects each one seen stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Weight {
    slot: u64,
    objects: f64,
    /// The same for objects as the live heap counts them.
    alive: f64,
}

impl Weight {
    /// What each object that the live heap counts as alive stands for.
    pub(super) fn alive(self) -> f64 {
        self.alive
    }

    /// What so many objects or bytes seen stand for.
    pub(super) fn scale(self, seen: u64) -> u64 {
        scale(seen, self.objects)
    }

    /// What so many objects or bytes stand for that the live heap counts as alive.
    pub(super) fn scale_alive(self, counted: u64) -> u64 {
        scale(counted, self.alive)
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
}

fn scale(amount: u64, by: f64) -> u64 {
    if by == 1.0 { amount } else { (amount as f64 * by).round() as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(rate: u64, slot: u64) -> Weight {
        Estimator::Profiler(rate).weight_alive(slot)
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
        for exact in [weight(1, 48), weight(0, 48), weight(512, 0), Estimator::Exact.weight_alive(48)] {
            assert_eq!((exact.scale(u64::MAX), variance(exact, 7, 1)), (u64::MAX, 0.0));
        }
    }

    #[test]
    fn the_variance_is_that_of_repeated_samples() {
        // A million objects of 64 bytes, each seen with probability p: the number of those seen
        // has the variance 1e6 p(1-p), each standing for 64/p bytes.
        let weight = weight(4096, 64);
        let p = 1.0 / weight.objects;
        let truth = 1e6 * p * (1.0 - p) * (64.0 / p).powi(2);
        let seen = (1e6 * p).round() as u64;
        assert!((variance(weight, seen, 1) / truth - 1.0).abs() < 0.001);
        // Following half of the objects is like sampling with half the probability.
        let q = p / 2.0;
        let truth = 1e6 * q * (1.0 - q) * (64.0 / q).powi(2);
        assert!((variance(weight, seen, 2) / truth - 1.0).abs() < 0.001);
    }

    #[test]
    fn an_interval_is_not_narrower_than_it_is_said_to_be() {
        // A sample of two objects of one byte: the variance is 2.
        let weight = Weight { slot: 1, objects: 2.0, alive: 2.0 };
        let calls = [SeenCall { index: 0, weight, seen: 1 }, SeenCall { index: 1, weight, seen: 2 }];
        let error = Estimator::Profiler(512).error(&calls, None);
        assert_eq!(error, Some(ErrorBytes { alloc: 5, live: None }), "1.96 times the root of 6");
        assert_eq!(Estimator::Exact.error(&calls, None), None);
    }
}
