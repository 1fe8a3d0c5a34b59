//! What was seen in windows of time, weighted: from this a report estimates all.
//!
//! Each window tells of each call about how many objects it allocated in the window's
//! segment. How much these numbers differ from window to window says how far their sum may
//! be off, so they are kept apart, if not all for ever: beyond some hundred, neighbours
//! are added up.

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
    /// Objects of the window under way, by the index of the call; and of which calls.
    pending: Vec<u64>,
    touched: Vec<u32>,
}

/// Estimated objects by the index of the call, ascending.
pub type Batch = Vec<(u32, f64)>;

impl Default for Windows {
    fn default() -> Windows {
        Windows {
            count: 0,
            open_ns: 0,
            batch_size: 1,
            batches: Vec::new(),
            pending: Vec::new(),
            touched: Vec::new(),
        }
    }
}

impl Windows {
    /// An object was seen of the call with this index.
    pub(super) fn seen(&mut self, call: u32) {
        let index = call as usize;
        if index >= self.pending.len() {
            self.pending.resize(index + 1, 0);
        }
        if self.pending[index] == 0 {
            self.touched.push(call);
        }
        self.pending[index] += 1;
    }

    /// The window under way has ended.
    pub(super) fn ended(&mut self, window: &Window) {
        self.open_ns = self.open_ns.saturating_add(window.end_ns.saturating_sub(window.begin_ns));
        self.touched.sort_unstable();
        let mut estimates = Vec::with_capacity(self.touched.len());
        for call in self.touched.drain(..) {
            let seen = std::mem::take(&mut self.pending[call as usize]);
            estimates.push((call, seen as f64 * window.weight));
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

    /// The index of the batch that a window is in, counted from 0.
    pub fn batch_of(&self, window: u32) -> usize {
        (u64::from(window) / self.batch_size) as usize
    }
}

fn add(batch: &mut Batch, more: &Batch) {
    batch.extend_from_slice(more);
    *batch = summed(std::mem::take(batch));
}

/// With one entry for each call.
fn summed(mut batch: Batch) -> Batch {
    batch.sort_by_key(|(call, _)| *call);
    batch.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        kept.1 += if same { next.1 } else { 0.0 };
        same
    });
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(weight: f64) -> Window {
        Window { begin_ns: 10, end_ns: 15, objects: 0, weight }
    }

    #[test]
    fn objects_count_when_their_window_has_ended() {
        let mut windows = Windows::default();
        for call in [7, 0, 7] {
            windows.seen(call);
        }
        assert!(windows.batches().is_empty());
        windows.ended(&window(10.0));
        windows.seen(0);
        windows.ended(&window(2.0));
        windows.ended(&window(3.0));
        assert_eq!((windows.count(), windows.open_ns()), (3, 15));
        assert_eq!(windows.batches(), [vec![(0, 10.0), (7, 20.0)], vec![(0, 2.0)], vec![]]);
    }

    #[test]
    fn many_windows_are_kept_in_batches_that_hold_as_many_each() {
        let mut windows = Windows::default();
        for number in 0..5000_u32 {
            windows.seen(number % 3);
            windows.seen(9);
            windows.ended(&window(f64::from(number)));
        }
        assert_eq!(windows.batches().len(), 5000_usize.div_ceil(16));
        let sum = |of: u32| -> f64 {
            let all = windows.batches().iter().flatten();
            all.filter(|(call, _)| *call == of).map(|(_, z)| z).sum()
        };
        assert_eq!(sum(9), (0..5000).map(f64::from).sum::<f64>());
        assert_eq!(sum(1), (0..5000).filter(|n| n % 3 == 1).map(f64::from).sum::<f64>());
        let of_batch: f64 = (48..64).map(f64::from).sum();
        assert_eq!(windows.batches()[3].last(), Some(&(9, of_batch)));
        assert_eq!((windows.batch_of(47), windows.batch_of(48), windows.batch_of(63)), (2, 3, 3));
    }
}
