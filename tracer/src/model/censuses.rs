//! The censuses of a capture: some of them, evenly spread over all.

use crate::event::Census;

/// Remembered ones: enough for a trend.
const POINTS: usize = 128;

/// Censuses, in order of time.
#[derive(Debug, Default)]
pub struct Censuses {
    /// How many there were.
    count: u64,
    /// Every so many of them is remembered.
    stride: u64,
    points: Vec<Census>,
    /// The last one, where it is none of these.
    latest: Option<Census>,
}

impl Censuses {
    pub(super) fn add(&mut self, census: &Census) {
        let number = self.count;
        self.count += 1;
        self.stride = self.stride.max(1);
        if !number.is_multiple_of(self.stride) {
            self.latest = Some(census.clone());
            return;
        }
        self.latest = None;
        self.points.push(census.clone());
        if self.points.len() >= POINTS {
            // They stand for 0, 1, 2... strides: every other one goes, the last among them.
            let mut number = 0;
            self.latest = self.points.last().cloned();
            self.points.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.stride *= 2;
        }
    }

    /// Those remembered, the last one always.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Census> + Clone {
        self.points.iter().chain(&self.latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_remembered_evenly_and_the_last_always() {
        let mut censuses = Censuses::default();
        for n in 0..5000 {
            censuses.add(&Census { begin_ns: n, ..Census::default() });
            let times: Vec<u64> = censuses.iter().map(|census| census.begin_ns).collect();
            assert_eq!((times.first(), times.last()), (Some(&0), Some(&n)));
            assert!(times.len() <= POINTS && times.len() as u64 >= n.min(POINTS as u64 / 2));
            let steps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let (last, others) = steps.split_last().unwrap_or((&0, &[]));
            assert!(others.iter().all(|step| step == others.first().unwrap_or(&0)), "{n}: {steps:?}");
            assert!(others.first().is_none_or(|step| last <= step), "{n}: {steps:?}");
        }
    }
}
