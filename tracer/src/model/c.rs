//! What C's allocator has given out and taken back, by stack.

use std::collections::BTreeMap;

use crate::event::{CCounted, CCounts, StackId};

/// Allocations of C's since probes were placed on its allocator.
#[derive(Debug, Default)]
pub struct CHeap {
    /// The path of the library that has the allocator.
    pub library: String,
    /// Sums by stack, each with its number in the readings.
    stacks: BTreeMap<StackId, (u32, CCounted)>,
    /// Bytes alive by stack, evenly spread over the time: every so many readings one is kept.
    readings: Vec<Reading>,
    stride: u32,
    count: u32,
}

#[derive(Debug)]
struct Reading {
    time_ns: u64,
    /// By the number of the stack; of those that had none yet nothing.
    alive: Vec<u64>,
}

/// Readings kept: enough for a slope, few enough to compare each with each.
const READINGS: usize = 64;

impl CHeap {
    pub(super) fn new(library: &str) -> CHeap {
        CHeap { library: library.into(), stride: 1, ..CHeap::default() }
    }

    pub(super) fn add(&mut self, counts: &CCounts) {
        for counted in &counts.stacks {
            let number = self.stacks.len() as u32;
            let none = CCounted { stack: counted.stack, ..CCounted::default() };
            let (_, sums) = self.stacks.entry(counted.stack).or_insert((number, none));
            sums.objects = sums.objects.wrapping_add(counted.objects);
            sums.bytes = sums.bytes.wrapping_add(counted.bytes);
            sums.freed_objects = sums.freed_objects.wrapping_add(counted.freed_objects);
            sums.freed_bytes = sums.freed_bytes.wrapping_add(counted.freed_bytes);
        }
        let is_kept = self.count.is_multiple_of(self.stride);
        self.count = self.count.wrapping_add(1);
        if is_kept {
            self.keep(counts.time_ns);
        }
    }

    fn keep(&mut self, time_ns: u64) {
        let mut alive = vec![0; self.stacks.len()];
        for (number, sums) in self.stacks.values() {
            alive[*number as usize] = sums.bytes.saturating_sub(sums.freed_bytes);
        }
        self.readings.push(Reading { time_ns, alive });
        if self.readings.len() >= READINGS {
            self.stride = self.stride.saturating_mul(2);
            let mut number = 0;
            self.readings.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
    }

    /// The sums of each stack.
    pub fn stacks(&self) -> impl Iterator<Item = &CCounted> {
        self.stacks.values().map(|(_, sums)| sums)
    }

    /// Bytes of these stacks that were alive, with CLOCK_MONOTONIC nanoseconds.
    pub fn history(&self, stacks: &[StackId]) -> Vec<(u64, u64)> {
        let numbers: Vec<usize> =
            stacks.iter().filter_map(|stack| Some(self.stacks.get(stack)?.0 as usize)).collect();
        let alive = |reading: &Reading| {
            numbers
                .iter()
                .fold(0, |sum: u64, n| sum.wrapping_add(reading.alive.get(*n).copied().unwrap_or(0)))
        };
        self.readings.iter().map(|reading| (reading.time_ns, alive(reading))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_recording_keeps_few_readings_evenly() {
        let mut heap = CHeap::new("libc");
        for second in 0..1000_u64 {
            let counted =
                CCounted { stack: StackId(7), objects: 2, bytes: 100, freed_objects: 1, freed_bytes: 40 };
            // Another one comes late.
            let late = (second == 900).then_some(CCounted {
                stack: StackId(9),
                bytes: 5,
                freed_bytes: 0,
                ..counted
            });
            let stacks = [Some(counted), late].into_iter().flatten().collect();
            heap.add(&CCounts { time_ns: second, stacks });
        }
        let history = heap.history(&[StackId(7)]);
        assert!((READINGS / 4..READINGS).contains(&history.len()), "{}", history.len());
        assert!(history.iter().all(|(second, alive)| *alive == 60 * (second + 1)), "{history:?}");
        let sums: Vec<_> = heap.stacks().map(|c| (c.objects, c.bytes, c.freed_bytes)).collect();
        assert_eq!(sums, [(2000, 100_000, 40_000), (2, 5, 0)]);
    }
}
