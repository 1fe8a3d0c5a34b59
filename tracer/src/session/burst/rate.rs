//! How fast the target allocates by itself: the runtime's counters, read again and again.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Window;

/// Objects of a size that tell how fast they come.
pub(super) const ENOUGH: u64 = 50;

/// Readings this far from the first one still tell how fast objects come; and how far those
/// do that tell whether that has just changed.
pub(super) const NEAR_NS: u64 = 4_000_000;
pub(super) const NEXT_NS: u64 = 1;

/// A time this long tells at which rates objects came in it.
const LONG_NS: u64 = 4_000_000;

/// Rates that differ by this factor are not the same; a garbage collection makes less of a
/// difference.
const CHANGED: f64 = 3.0;

/// A rate between two others is this factor away from both.
const BETWEEN: f64 = 1.2;

/// The runtime's counters of objects at some time, all and by slot size, and the traps by
/// then.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) time_ns: u64,
    pub(super) objects: u64,
    pub(super) by_slot: Vec<(u64, u64)>,
    pub(super) hits: u64,
}

/// What a target allocated in some time, without being slowed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) time_ns: u64,
    pub(super) objects: u64,
    pub(super) by_slot: BTreeMap<u64, u64>,
}

impl Rate {
    /// From one reading to another. `None`: allocations trapped.
    fn between(a: &Reading, b: &Reading) -> Option<Rate> {
        let (a, b) = if a.time_ns <= b.time_ns { (a, b) } else { (b, a) };
        let objects = b.objects.saturating_sub(a.objects);
        // Each object is a trap while probes are in place; of others there are few.
        if b.hits.saturating_sub(a.hits) > objects / 2 {
            return None;
        }
        let before: BTreeMap<u64, u64> = a.by_slot.iter().copied().collect();
        let since = |&(slot, after): &(u64, u64)| {
            (slot, after.saturating_sub(before.get(&slot).copied().unwrap_or(0)))
        };
        Some(Rate { time_ns: b.time_ns - a.time_ns, objects, by_slot: b.by_slot.iter().map(since).collect() })
    }

    fn add(&mut self, more: &Rate) {
        self.time_ns += more.time_ns;
        self.objects += more.objects;
        for (slot, objects) in &more.by_slot {
            *self.by_slot.entry(*slot).or_default() += objects;
        }
    }

    /// Objects a nanosecond.
    pub(super) fn all(&self) -> f64 {
        self.objects as f64 / self.time_ns.max(1) as f64
    }

    /// Objects in slots of a size, a nanosecond.
    pub(super) fn of(&self, slot: u64) -> f64 {
        self.by_slot.get(&slot).copied().unwrap_or(0) as f64 / self.time_ns.max(1) as f64
    }
}

/// 0 of none.
pub(super) fn mean(rates: &[Rate], of: impl Fn(&Rate) -> f64) -> f64 {
    rates.iter().map(of).sum::<f64>() / rates.len().max(1) as f64
}

/// How fast the target allocates while no allocation traps, before and after this time: by
/// the readings as near as this to the first ones that can tell. Without those that cannot.
pub(super) fn around(readings: &[Reading], time_ns: u64, near_ns: u64) -> Vec<Rate> {
    let (before, after) = readings.split_at(readings.partition_point(|r| r.time_ns < time_ns));
    let rates = [rate(before.iter().rev(), near_ns), rate(after.iter(), near_ns)];
    rates.into_iter().flatten().collect()
}

/// Near the first readings, which may go forward or back in time.
fn rate<'a>(readings: impl Iterator<Item = &'a Reading>, near_ns: u64) -> Option<Rate> {
    let readings: Vec<&Reading> = readings.collect();
    let mut first = None;
    let mut sum = Rate::default();
    for pair in readings.windows(2) {
        let Some(rate) = Rate::between(pair[0], pair[1]) else { continue };
        if pair[0].time_ns.abs_diff(*first.get_or_insert(pair[0].time_ns)) >= near_ns {
            break;
        }
        sum.add(&rate);
    }
    (sum.time_ns > 0).then_some(sum)
}

/// The slot sizes, ascending, of which there were enough to tell how fast they come.
pub(super) fn common(rates: &[Rate]) -> Vec<u64> {
    let mut sum = Rate::default();
    rates.iter().for_each(|rate| sum.add(rate));
    sum.by_slot.into_iter().filter(|(_, objects)| *objects >= ENOUGH).map(|(slot, _)| slot).collect()
}

/// By slot size, ascending, the level of these rates, of which one is before a window and
/// the other one after it; `None`: they differ. Nothing of sizes that were rare then.
pub(super) fn near(rates: &[Rate]) -> Vec<(u64, Option<i32>)> {
    let level = |slot| {
        let of_slot = || rates.iter().map(|rate| rate.of(slot));
        let (least, most) = (of_slot().fold(f64::INFINITY, f64::min), of_slot().fold(0.0, f64::max));
        (most <= CHANGED * least).then(|| Window::level(mean(rates, |rate| rate.of(slot)), 1.0))
    };
    common(rates).into_iter().map(|slot| (slot, level(slot))).collect()
}

/// By slot size and level of the rate, ascending: how many objects came at such a rate.
/// Leaves out the times in which allocations trapped.
pub(super) fn by_level(readings: &[Reading]) -> Vec<(u64, i32, u64)> {
    let times = times(readings);
    let slots: BTreeSet<u64> = times.iter().flat_map(|time| time.by_slot.keys().copied()).collect();
    let mut levels: BTreeMap<(u64, i32), f64> = BTreeMap::new();
    for slot in slots {
        let mut put = |rate: f64, objects: f64| {
            if objects >= 0.5 {
                *levels.entry((slot, Window::level(rate, 1.0))).or_default() += objects;
            }
        };
        for (at, time) in times.iter().enumerate() {
            let rate = time.of(slot);
            let objects = rate * time.time_ns as f64;
            let beside =
                |at: Option<usize>| at.and_then(|at| times.get(at)).map_or(rate, |time| time.of(slot));
            let (a, b) = (beside(at.checked_sub(1)), beside(at.checked_add(1)));
            let (low, high) = (a.min(b), a.max(b));
            if low * BETWEEN < rate && rate * BETWEEN < high {
                // In this time the one became the other.
                let fast = (rate - low) / (high - low) * high * time.time_ns as f64;
                put(high, fast);
                put(low, objects - fast);
            } else {
                put(rate, objects);
            }
        }
    }
    levels.into_iter().map(|((slot, level), objects)| (slot, level, objects.round() as u64)).collect()
}

/// The times between readings in which no allocation trapped, together where they are short.
fn times(readings: &[Reading]) -> Vec<Rate> {
    let mut times = Vec::new();
    let mut open = Rate::default();
    for pair in readings.windows(2) {
        match Rate::between(&pair[0], &pair[1]) {
            Some(rate) => open.add(&rate),
            None => times.push(std::mem::take(&mut open)),
        }
        if open.time_ns >= LONG_NS {
            times.push(std::mem::take(&mut open));
        }
    }
    times.push(open);
    times.retain(|time| time.time_ns > 0);
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At a millisecond, half of the objects in slots of 48 bytes and half in such of 64.
    fn reading(ms: u64, objects: u64, hits: u64) -> Reading {
        let by_slot = vec![(48, objects / 2), (64, objects - objects / 2)];
        Reading { time_ns: ms * 1_000_000, objects, by_slot, hits }
    }

    #[test]
    fn readings_with_traps_tell_nothing_of_the_own_rate() {
        // Ten million objects a second, traps from the third reading to the fourth.
        let mut readings = vec![reading(1, 0, 0), reading(2, 10_000, 0), reading(3, 20_000, 2)];
        readings.push(reading(4, 21_000, 1_001));
        let own = rate(readings.iter().rev(), NEAR_NS).expect("known");
        assert!((own.all() - 0.01).abs() < 1e-9 && (own.of(48) - 0.005).abs() < 1e-9, "{own:?}");
        assert_eq!(rate(readings[2..].iter(), NEAR_NS), None);
        readings.extend((5..40).map(|ms| reading(ms, 21_000 + 5_000 * (ms - 4), 1_002)));
        let after = rate(readings[3..].iter(), NEAR_NS).expect("known");
        assert!((after.all() - 0.005).abs() < 1e-9, "{after:?}");
        assert_eq!(rate([reading(1, 5, 0)].iter(), NEAR_NS), None);
        let idle = rate([reading(1, 5, 0), reading(2, 5, 0)].iter(), NEAR_NS).expect("known");
        assert_eq!((idle.all(), idle.of(48)), (0.0, 0.0));
    }

    #[test]
    fn objects_count_at_the_rate_at_which_they_came() {
        // A million a second of each size, then sixteen, from the middle of the third time on.
        let mut readings: Vec<Reading> = (0..=4).map(|at| reading(5 * at, 10_000 * at, 0)).collect();
        readings.truncate(3);
        readings.push(reading(15, 20_000 + 5_000 + 80_000, 0));
        readings.push(reading(20, 105_000 + 160_000, 0));
        // Slowed by traps: left out.
        readings.push(reading(25, 265_000 + 1_000, 1_000));
        readings.push(reading(30, 266_000 + 160_000, 1_000));
        let (slow, fast) = (Window::level(1.0, 1_000.0), Window::level(16.0, 1_000.0));
        assert_eq!((slow, fast), (39, 47));
        let of_size = |slot| [(slot, slow, 12_500), (slot, fast, 200_000)];
        assert_eq!(by_level(&readings), [of_size(48), of_size(64)].concat());
        assert_eq!(by_level(&readings[..1]), []);
    }

    #[test]
    fn a_rate_that_changes_in_a_window_has_no_level() {
        let own = |of_48, of_64| Rate {
            time_ns: 1_000_000,
            objects: of_48 + of_64,
            by_slot: [(48, of_48), (64, of_64)].into(),
        };
        let level = Some(Window::level(2_000.0, 1e6));
        assert_eq!(near(&[own(1_000, 30), own(3_000, 10)]), [(48, level)]);
        assert_eq!(near(&[own(1_000, 500), own(3_001, 0)]), [(48, None), (64, None)]);
        assert_eq!(near(&[]), []);
    }
}
