//! How many objects one that was seen in a window stands for.

use super::rate::{Rate, common, mean};
use crate::event::Cost;

/// What was seen of a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observed {
    pub(super) begin_ns: u64,
    /// When it was shut, or had used up its allowance.
    pub(super) end_ns: u64,
    pub(super) objects: u64,
    /// At its beginning, and when it was found to be at its end.
    pub(super) before: Cost,
    pub(super) after: Cost,
}

/// Share of the target's processor time in a window up to which that share tells well
/// enough how much slower than else the target was.
const SLIGHTLY_SLOWED: f64 = 0.25;

/// Share of the measured cost of a trap that the traps of a window have had at least.
const SURE: f64 = 0.75;

impl Observed {
    /// Share of the target's processor time that traps took in the window, by what one
    /// takes on average.
    pub(super) fn traps(&self, trap_ns: u64) -> f64 {
        let cpu_ns = self.after.cpu_ns.saturating_sub(self.before.cpu_ns);
        let hits = self.after.hits.saturating_sub(self.before.hits);
        if hits == 0 { 0.0 } else { (hits as f64 * trap_ns as f64 / cpu_ns.max(1) as f64).min(1.0) }
    }

    /// How many objects each one seen stands for: of those that were allocated in the
    /// segment that the window lies in, were all of it like the window.
    ///
    /// Where traps took little of the target's time, it is the length of the segment over
    /// that of the window without the traps. Else that would be the difference of two about
    /// equal numbers, and the target's own `rates` around the window, objects a nanosecond,
    /// tell better what it would have done, if it still did the same: never less than it
    /// did between the traps, even if these took only `SURE` of what they are said to take.
    pub(super) fn weight(&self, segment_ns: u64, trap_ns: u64, rates: &[Rate]) -> f64 {
        let traps = self.traps(trap_ns);
        if self.objects == 0 {
            return 0.0;
        }
        let open_ns = self.end_ns.saturating_sub(self.begin_ns).max(1) as f64;
        let by_time = |traps: f64| segment_ns as f64 / (open_ns * (1.0 - traps));
        if traps <= SLIGHTLY_SLOWED {
            return by_time(traps);
        }
        let by_rate = mean(rates, Rate::all) * segment_ns as f64 / self.objects as f64;
        by_rate.max(by_time(traps * SURE))
    }

    /// By slot size, how many objects the segment holds, were all of it like the time around
    /// the window; of sizes that are rare then, nothing. Empty where time tells it better.
    ///
    /// Traps slow those most who allocate most, so a goroutine that hardly does is seen too
    /// much of beside others, and more so in some windows than in others.
    pub(super) fn expected(&self, segment_ns: u64, trap_ns: u64, rates: &[Rate]) -> Vec<(u64, f64)> {
        if self.traps(trap_ns) <= SLIGHTLY_SLOWED {
            return Vec::new();
        }
        let expected = |slot| mean(rates, |rate| rate.of(slot)) * segment_ns as f64;
        common(rates).into_iter().map(|slot| (slot, expected(slot))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAP_NS: u64 = 1000;

    /// A window of 2 ms of one CPU in which so many objects were seen.
    fn observed(objects: u64) -> Observed {
        let before = Cost { hits: 50, trap_ns: TRAP_NS, cpu_ns: 10_000_000 };
        let after = Cost { hits: 50 + objects, cpu_ns: before.cpu_ns + 2_000_000, ..before };
        Observed { begin_ns: 5_000_000, end_ns: 7_000_000, objects, before, after }
    }

    /// Objects a nanosecond, in a millisecond; all in slots of 48 bytes.
    fn own(objects: f64) -> Rate {
        let objects = (objects * 1e6) as u64;
        Rate { time_ns: 1_000_000, objects, by_slot: [(48, objects)].into() }
    }

    #[test]
    fn sizes_are_expected_as_they_came_around_the_window() {
        let (segment_ns, mut after) = (200_000_000, own(0.01));
        after.by_slot.extend([(64, 2_000), (96, 40)]);
        let rates = [own(0.02), after];
        // Of the last there are too few to tell.
        let expected = observed(1900).expected(segment_ns, TRAP_NS, &rates);
        assert_eq!(expected, [(48, 3e6), (64, 2e5)]);
        assert_eq!(observed(1900).expected(segment_ns, TRAP_NS, &rates[1..]), [(48, 2e6), (64, 4e5)]);
        assert_eq!(observed(1900).expected(segment_ns, TRAP_NS, &[]), []);
        assert_eq!(observed(20).expected(segment_ns, TRAP_NS, &rates), [], "time tells it better");
    }

    #[test]
    fn a_window_that_hardly_slows_is_weighted_by_its_length() {
        let rates = [own(1.0)];
        assert_eq!(observed(0).weight(200_000_000, TRAP_NS, &rates), 0.0);
        let weight = observed(20).weight(200_000_000, TRAP_NS, &rates);
        assert!((weight - 101.0).abs() < 0.1, "{weight}");
        // A fifth of the time went to the traps.
        let weight = observed(400).weight(200_000_000, TRAP_NS, &rates);
        assert!((weight - 125.0).abs() < 1e-9, "{weight}");
    }

    #[test]
    fn a_window_that_slows_is_weighted_by_the_targets_own_rate() {
        // Twenty objects a microsecond before, ten after: three million in the segment.
        let weight = observed(1900).weight(200_000_000, TRAP_NS, &[own(0.02), own(0.01)]);
        assert!((weight - 3e6 / 1900.0).abs() < 1e-9, "{weight}");
        let nothing_known = observed(1900).weight(200_000_000, TRAP_NS, &[]);
        assert!((nothing_known - 100.0 / (1.0 - 0.95 * SURE)).abs() < 1e-6, "{nothing_known}");
        // It had stopped by then.
        assert_eq!(observed(1900).weight(200_000_000, TRAP_NS, &[own(0.0), own(1e-6)]), nothing_known);
    }
}
