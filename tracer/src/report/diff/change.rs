//! A change of one number, and whether it is more than noise.

use serde::Serialize;

use super::side::{Seen, Side};
use super::stacks::Matched;
use super::{DiffSite, Normalisation, Total};
use crate::report::Measure;

/// One thing for each measure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Measures<T> {
    pub alloc_objects: T,
    pub alloc_bytes: T,
    /// `None`: not known which objects are alive.
    pub live_objects: Option<T>,
    pub live_bytes: Option<T>,
}

impl<T> Measures<T> {
    pub fn get(&self, measure: Measure) -> Option<&T> {
        match measure {
            Measure::AllocObjects => Some(&self.alloc_objects),
            Measure::AllocBytes => Some(&self.alloc_bytes),
            Measure::LiveObjects => self.live_objects.as_ref(),
            Measure::LiveBytes => self.live_bytes.as_ref(),
        }
    }

    pub(super) fn of_each(lives: bool, mut of: impl FnMut(Measure) -> T) -> Measures<T> {
        Measures {
            alloc_objects: of(Measure::AllocObjects),
            alloc_bytes: of(Measure::AllocBytes),
            live_objects: lives.then(|| of(Measure::LiveObjects)),
            live_bytes: lives.then(|| of(Measure::LiveBytes)),
        }
    }
}

/// A number of objects or bytes, and half the width of its 95% confidence interval.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Amount {
    pub(super) value: i64,
    pub(super) error: f64,
}

impl Measures<Amount> {
    /// Adds up what was seen in the same way.
    pub(super) fn add(&mut self, other: &Measures<Amount>, seen: Seen) {
        let lives = self.live_bytes.is_some() && other.live_bytes.is_some();
        *self = Measures::of_each(lives, |measure| {
            let of = |amounts: &Measures<Amount>| amounts.get(measure).copied().unwrap_or_default();
            let (a, b) = (of(self), of(other));
            Amount { value: a.value.saturating_add(b.value), error: seen.joint_error(a.error, b.error) }
        });
    }

    /// Objects or bytes of which `measure` is.
    fn mean_size(&self, measure: Measure) -> Option<f64> {
        let (objects, bytes) = match measure {
            Measure::AllocObjects | Measure::AllocBytes => (self.alloc_objects, self.alloc_bytes),
            Measure::LiveObjects | Measure::LiveBytes => (self.live_objects?, self.live_bytes?),
        };
        (objects.value > 0 && bytes.value > 0).then(|| bytes.value as f64 / objects.value as f64)
    }
}

/// What became of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// There was none of it.
    Appeared,
    /// There is none left.
    Gone,
    Grown,
    Shrunk,
    Same,
}

/// Whether a change says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// Both numbers are counts of all objects.
    Exact,
    /// Its 95% confidence interval leaves out 0.
    Significant,
    /// Samples of the same number differ as much.
    Noise,
    /// A side does not say how it was sampled.
    Unknown,
}

/// A number on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Change {
    pub before: i64,
    pub after: i64,
    /// `after` less the normalised `before`.
    pub change: i64,
    /// Half the width of its 95% confidence interval; `None`: exact, or not known.
    pub error: Option<u64>,
    pub what: What,
    pub judgement: Judgement,
}

impl Change {
    /// Whether it is one, and more than noise as far as is known.
    pub fn counts(&self) -> bool {
        self.what != What::Same && self.judgement != Judgement::Noise
    }
}

/// How two sides are compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Comparison {
    seen: [Seen; 2],
    totals: [Measures<i64>; 2],
    lives: bool,
    /// By which numbers of the first side are multiplied.
    factor: f64,
}

impl Comparison {
    pub(super) fn new(before: &Side, after: &Side, by: Option<Normalisation>) -> Comparison {
        Comparison {
            seen: [before.seen, after.seen],
            totals: [before.totals, after.totals],
            lives: before.totals.live_bytes.is_some() && after.totals.live_bytes.is_some(),
            factor: by.map_or(1.0, |by| by.factor),
        }
    }

    pub(super) fn site(&self, matched: Matched) -> DiffSite {
        let Matched { type_name, frames, amounts } = matched;
        let amounts = amounts.map(|of_side| of_side.unwrap_or(self.nothing()));
        DiffSite { type_name, changes: self.changes(&amounts), frames, amounts }
    }

    /// What a side has of a site that it does not have.
    fn nothing(&self) -> Measures<Amount> {
        Measures::of_each(self.lives, |_| Amount::default())
    }

    /// Sites as one.
    pub(super) fn sum<'a>(
        &self,
        sites: impl Iterator<Item = &'a [Measures<Amount>; 2]>,
    ) -> [Measures<Amount>; 2] {
        let mut sums = [self.nothing(); 2];
        for site in sites {
            for ((sum, of_side), seen) in sums.iter_mut().zip(site).zip(self.seen) {
                sum.add(of_side, seen);
            }
        }
        sums
    }

    pub(super) fn changes(&self, amounts: &[Measures<Amount>; 2]) -> Measures<Change> {
        Measures::of_each(self.lives, |measure| self.change(amounts, measure))
    }

    fn change(&self, amounts: &[Measures<Amount>; 2], measure: Measure) -> Change {
        let of = |side: usize| amounts[side].get(measure).copied().unwrap_or_default();
        let (before, after) = (of(0), of(1));
        let change = self.difference(before.value, after.value);
        // A side without the site can only be told from the other how large its objects are.
        let size = |side: usize| {
            let own = amounts[side].mean_size(measure).or_else(|| amounts[1 - side].mean_size(measure));
            (own.unwrap_or(1.0), measure.is_bytes())
        };
        let least = |side: usize, (size, is_bytes): (f64, bool)| {
            self.seen[side].unseen_objects(size) * if is_bytes { size } else { 1.0 }
        };
        let error =
            (self.factor * before.error.max(least(0, size(0)))).hypot(after.error.max(least(1, size(1))));
        let judgement = match self.seen {
            [Seen::Exact, Seen::Exact] => Judgement::Exact,
            [Seen::Unknown, _] | [_, Seen::Unknown] => Judgement::Unknown,
            _ if change.unsigned_abs() as f64 > error => Judgement::Significant,
            _ => Judgement::Noise,
        };
        let is_estimate = matches!(judgement, Judgement::Significant | Judgement::Noise);
        Change {
            before: before.value,
            after: after.value,
            change,
            error: is_estimate.then(|| error.ceil() as u64),
            what: what(before.value, after.value, change),
            judgement,
        }
    }

    fn difference(&self, before: i64, after: i64) -> i64 {
        match self.factor {
            1.0 => after.saturating_sub(before),
            factor => (after as f64 - factor * before as f64).round() as i64,
        }
    }

    /// Of these sites, and of all that the sides have.
    pub(super) fn totals<'a>(&self, sites: impl Iterator<Item = &'a Measures<Change>>) -> Measures<Total> {
        let mut totals = Measures::of_each(self.lives, |measure| {
            let of = |side: usize| self.totals[side].get(measure).copied().unwrap_or(0);
            let (before, after) = (of(0), of(1));
            Total { before, after, change: self.difference(before, after), ..Total::default() }
        });
        for site in sites {
            totals = Measures::of_each(self.lives, |measure| {
                let total = totals.get(measure).copied().unwrap_or_default();
                site.get(measure).map_or(total, |change| total.and(change))
            });
        }
        totals
    }
}

impl Total {
    fn and(mut self, change: &Change) -> Total {
        *match change.what {
            What::Appeared => &mut self.appeared,
            What::Gone => &mut self.gone,
            What::Grown => &mut self.grown,
            What::Shrunk => &mut self.shrunk,
            What::Same => &mut self.same,
        } += 1;
        self.significant += u64::from(change.counts());
        self
    }
}

/// Appears and goes what is more than nothing; normalised, less may be the same.
fn what(before: i64, after: i64, change: i64) -> What {
    match change {
        0 => What::Same,
        1.. if before == 0 => What::Appeared,
        1.. => What::Grown,
        _ if after == 0 => What::Gone,
        _ => What::Shrunk,
    }
}
