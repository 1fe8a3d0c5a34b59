//! What was seen in windows of time, weighted: from this a report estimates all.
//!
//! Each window tells of each call about how many objects it allocated in the window's
//! segment. How much these numbers differ from window to window says how far their sum may
//! be off, so they are kept apart, if not all for ever: beyond some hundred, neighbours
//! are added up.

use std::collections::BTreeMap;

use super::calls::of_call;
use crate::event::Window;

/// Most batches of windows that are told apart; a power of two.
const BATCHES: usize = 512;

/// All windows of a capture.
#[derive(Debug)]
pub struct Windows {
    /// Those that have ended.
    count: u64,
    /// Time for which they were open.
    open_ns: u64,
    /// Windows in a batch, but that the last one may not be full.
    batch_size: u64,
    batches: Vec<Batch>,
    /// By slot size and level of the rate, how many objects the runtime counted.
    counted: BTreeMap<(u64, i32), u64>,
    /// Objects of the window under way, by the index of the call; and of which calls.
    pending: Vec<u64>,
    touched: Vec<u32>,
}

/// What each object seen in one window stands for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Weights {
    /// In slots of some sizes, ascending; and of all others.
    by_slot: Box<[(u64, f64)]>,
    others: f64,
}

impl Weights {
    /// Given how many were `seen` of each size.
    fn new(window: &Window, seen: &BTreeMap<u64, u64>) -> Weights {
        let of_slot = |&(slot, expected): &(u64, f64)| {
            let seen = seen.get(&slot).filter(|seen| **seen > 0)?;
            Some((slot, sane(expected / *seen as f64)))
        };
        let mut by_slot: Vec<(u64, f64)> = window.expected.iter().filter_map(of_slot).collect();
        by_slot.sort_unstable_by_key(|(slot, _)| *slot);
        Weights { by_slot: by_slot.into(), others: sane(window.weight) }
    }

    /// In slots of this size.
    pub(super) fn of(&self, slot: u64) -> f64 {
        let at = self.by_slot.binary_search_by_key(&slot, |(slot, _)| *slot);
        at.map_or(self.others, |at| self.by_slot[at].1)
    }

    /// Bytes of memory that it refers to.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.by_slot)
    }
}

/// What is no number is of a damaged capture.
fn sane(weight: f64) -> f64 {
    if weight.is_finite() { weight.max(0.0) } else { 0.0 }
}

/// What a batch of windows tells, by call and level, ascending.
pub type Batch = Vec<Told>;

/// What windows tell of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Told {
    /// Its index.
    pub call: u32,
    /// The level (`Window::level`) of the rate at which objects in slots of its size came
    /// then; `None`: it changed.
    pub level: Option<i32>,
    /// Estimated objects, of the segments of these windows.
    pub objects: f64,
    /// Estimated objects a nanosecond in each of these windows, added up.
    pub rate: f64,
}

impl Default for Windows {
    fn default() -> Windows {
        Windows {
            count: 0,
            open_ns: 0,
            batch_size: 1,
            batches: Vec::new(),
            counted: BTreeMap::new(),
            pending: Vec::new(),
            touched: Vec::new(),
        }
    }
}

impl Windows {
    /// An object was seen of the call with this index.
    pub(super) fn seen(&mut self, call: u32) {
        let pending = of_call(&mut self.pending, call);
        if *pending == 0 {
            self.touched.push(call);
        }
        *pending += 1;
    }

    /// The window under way has ended; of calls, `slot` says which slots they take.
    pub(super) fn ended(&mut self, window: &Window, slot: impl Fn(u32) -> u64) -> Weights {
        self.open_ns = self.open_ns.saturating_add(window.end_ns.saturating_sub(window.begin_ns));
        self.touched.sort_unstable();
        let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
        for &call in &self.touched {
            *seen.entry(slot(call)).or_default() += self.pending[call as usize];
        }
        let weights = Weights::new(window, &seen);
        let mut estimates = Vec::with_capacity(self.touched.len());
        for call in self.touched.drain(..) {
            let slot = slot(call);
            let objects = std::mem::take(&mut self.pending[call as usize]) as f64 * weights.of(slot);
            let level = match window.near.binary_search_by_key(&slot, |(slot, _)| *slot) {
                Ok(at) => window.near[at].1.filter(|level| Window::LEVELS.contains(level)),
                Err(_) => {
                    let all = seen.get(&slot).copied().unwrap_or(0) as f64 * weights.of(slot);
                    Some(Window::level(all, window.segment_ns as f64))
                }
            };
            let rate = objects / window.segment_ns.max(1) as f64;
            estimates.push(Told { call, level, objects, rate });
        }
        // Others are of a damaged capture; there could be any number of them.
        let is_level = |(_, level, _): &&(u64, i32, u64)| Window::LEVELS.contains(level);
        for &(slot, level, objects) in window.counted.iter().filter(is_level) {
            let counted = self.counted.entry((slot, level)).or_default();
            *counted = counted.saturating_add(objects);
        }
        match self.count.is_multiple_of(self.batch_size) {
            true => self.batches.push(estimates),
            false => self.batches.last_mut().into_iter().for_each(|last| add(last, &estimates)),
        }
        self.count += 1;
        if self.batches.len() == BATCHES && self.count.is_multiple_of(self.batch_size) {
            self.batch_size *= 2;
            self.batches = self.batches.chunks(2).map(<[Batch]>::concat).map(summed).collect();
        }
        weights
    }

    /// Windows that have ended.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Nanoseconds for which they were open.
    pub fn open_ns(&self) -> u64 {
        self.open_ns
    }

    /// What windows tell, added up over batches of them.
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// By slot size and level of the rate at which they came (`Window::level`), how many
    /// objects the runtime counted, in most of the time.
    pub fn counted(&self) -> &BTreeMap<(u64, i32), u64> {
        &self.counted
    }

    /// The index of the batch that a window is in, counted from 0.
    pub fn batch_of(&self, window: u32) -> usize {
        (u64::from(window) / self.batch_size) as usize
    }
}

fn add(batch: &mut Batch, more: &Batch) {
    batch.extend_from_slice(more);
    *batch = summed(std::mem::take(batch));
}

/// With one entry for each call and level.
fn summed(mut batch: Batch) -> Batch {
    let key = |told: &Told| (told.call, told.level);
    batch.sort_by_key(key);
    batch.dedup_by(|next, kept| {
        let same = key(next) == key(kept);
        if same {
            kept.objects += next.objects;
            kept.rate += next.rate;
        }
        same
    });
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(weight: f64) -> Window {
        Window { begin_ns: 10, end_ns: 15, segment_ns: 1_000_000_000, weight, ..Window::default() }
    }

    /// What each batch tells, whatever the level.
    fn told(windows: &Windows) -> Vec<Vec<(u32, f64)>> {
        let of = |batch: &Batch| batch.iter().map(|told| (told.call, told.objects)).collect();
        windows.batches().iter().map(of).collect()
    }

    /// Without regard to slots.
    fn ended(windows: &mut Windows, weight: f64) {
        windows.ended(&window(weight), |_| 48);
    }

    #[test]
    fn objects_of_a_size_stand_for_as_many_as_there_were() {
        let mut windows = Windows::default();
        for call in [0, 1, 1, 1, 2] {
            windows.seen(call);
        }
        let expected = vec![(48, 100.0), (64, 7.0), (96, f64::NAN)];
        let weights = windows.ended(&Window { expected, ..window(3.0) }, |call| [48, 48, 8][call as usize]);
        // Of size 48 four were seen; of 64 none, so they count for nobody.
        assert_eq!((weights.of(48), weights.of(64), weights.of(8)), (25.0, 3.0, 3.0));
        assert_eq!(told(&windows), [vec![(0, 25.0), (1, 75.0), (2, 3.0)]]);
        for weight in [f64::NAN, f64::INFINITY, -1.0] {
            windows.seen(0);
            let expected = vec![(48, weight)];
            let weights = windows.ended(&Window { expected, ..window(weight) }, |_| 48);
            assert_eq!((weights.of(48), weights.of(8)), (0.0, 0.0));
        }
    }

    #[test]
    fn objects_count_when_their_window_has_ended() {
        let mut windows = Windows::default();
        for call in [7, 0, 7] {
            windows.seen(call);
        }
        assert!(windows.batches().is_empty());
        ended(&mut windows, 10.0);
        windows.seen(0);
        ended(&mut windows, 2.0);
        ended(&mut windows, 3.0);
        assert_eq!((windows.count(), windows.open_ns()), (3, 15));
        assert_eq!(told(&windows), [vec![(0, 10.0), (7, 20.0)], vec![(0, 2.0)], vec![]]);
    }

    #[test]
    fn many_windows_are_kept_in_batches_that_hold_as_many_each() {
        let mut windows = Windows::default();
        for number in 0..5000_u32 {
            windows.seen(number % 3);
            windows.seen(9);
            ended(&mut windows, f64::from(number));
        }
        assert_eq!(windows.batches().len(), 5000_usize.div_ceil(16));
        let sum = |of: u32| -> f64 {
            let all = windows.batches().iter().flatten();
            all.filter(|told| told.call == of).map(|told| told.objects).sum()
        };
        assert_eq!(sum(9), (0..5000).map(f64::from).sum::<f64>());
        assert_eq!(sum(1), (0..5000).filter(|n| n % 3 == 1).map(f64::from).sum::<f64>());
        let of_batch: f64 = (48..64).map(f64::from).sum();
        let of_nine = |told: &&Told| told.call == 9;
        assert_eq!(
            windows.batches()[3].iter().filter(of_nine).map(|told| told.objects).sum::<f64>(),
            of_batch
        );
        assert_eq!((windows.batch_of(47), windows.batch_of(48), windows.batch_of(63)), (2, 3, 3));
    }

    #[test]
    fn objects_have_the_level_of_the_rate_at_which_they_came() {
        let mut windows = Windows::default();
        let near = vec![(48, Some(7)), (64, None)];
        let counted = vec![(48, 7, 90), (48, 8, 5), (48, i32::MAX, 1)];
        for _ in 0..2 {
            (0..3).for_each(|call| windows.seen(call));
            let window = Window { near: near.clone(), counted: counted.clone(), ..window(8.0) };
            windows.ended(&window, |call| [48, 64, 96][call as usize]);
        }
        // Of 96 bytes one was seen, for eight in a second.
        let levels: Vec<Option<i32>> = windows.batches()[1].iter().map(|told| told.level).collect();
        assert_eq!(levels, [Some(7), None, Some(6)]);
        assert_eq!(*windows.counted(), [((48, 7), 180), ((48, 8), 10)].into());
    }
}
