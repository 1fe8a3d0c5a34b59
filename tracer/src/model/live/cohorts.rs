//! Objects counted together: those one call allocated in one GC epoch and, where objects
//! are seen in windows only, one window.
//!
//! A page knows its cohorts by number, and all that is known of an object besides its
//! address stands there.

use super::super::calls::of_call;
use super::super::windows::Weights;

/// Living objects of one call, epoch and window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cohort {
    /// Index of the call.
    pub(super) call: u32,
    pub(super) epoch: u32,
    /// Counted from 0.
    pub(super) window: u32,
    pub(super) objects: u64,
    /// Of their slots.
    pub(super) bytes: u64,
}

impl Cohort {
    fn is_of(&self, epoch: u32, window: u32) -> bool {
        self.epoch == epoch && self.window == window
    }
}

/// All cohorts. Places of dead ones are used again.
#[derive(Debug, Default)]
pub(super) struct Cohorts {
    all: Vec<Cohort>,
    free: Vec<u32>,
    /// By call: the cohort of its latest allocation.
    latest: Vec<Option<u32>>,
    /// What each object of a window stands for, of those that have ended; `None`: each for
    /// itself, as there are no windows.
    weights: Option<Vec<Weights>>,
    /// Bytes that these refer to.
    weights_memory: usize,
}

/// They are numbered by 32 bits.
const MAX: usize = u32::MAX as usize;

impl Cohorts {
    /// In windows each of which has a weight, or without.
    pub(super) fn new(in_windows: bool) -> Cohorts {
        Cohorts { weights: in_windows.then(Vec::new), ..Cohorts::default() }
    }

    /// The window under way has ended.
    pub(super) fn window_ended(&mut self, of_window: Weights) {
        if let Some(weights) = &mut self.weights {
            self.weights_memory += of_window.memory();
            weights.push(of_window);
        }
    }

    fn window(&self) -> u32 {
        self.weights.as_ref().map_or(0, |weights| weights.len() as u32)
    }

    /// How many objects each of a cohort stands for: none, while that is not known.
    pub(super) fn weight(&self, cohort: &Cohort) -> f64 {
        let Some(weights) = &self.weights else { return 1.0 };
        // Where objects are seen in windows, a call is of one slot size.
        let slot = cohort.bytes.checked_div(cohort.objects).unwrap_or(0);
        weights.get(cohort.window as usize).map_or(0.0, |weights| weights.of(slot))
    }

    /// The cohort that an object now belongs to; `None`: there are too many.
    pub(super) fn join(&mut self, call: u32, epoch: u32, bytes: u64) -> Option<u32> {
        let latest = *of_call(&mut self.latest, call);
        let id = match latest {
            Some(id) if self.all[id as usize].is_of(epoch, self.window()) => id,
            _ => self.found(call, epoch)?,
        };
        let cohort = &mut self.all[id as usize];
        cohort.objects += 1;
        cohort.bytes = cohort.bytes.wrapping_add(bytes);
        Some(id)
    }

    fn found(&mut self, call: u32, epoch: u32) -> Option<u32> {
        let new = Cohort { call, epoch, window: self.window(), objects: 0, bytes: 0 };
        // The one it follows was kept while it was the latest, whoever was left in it.
        if let Some(old) = self.latest[call as usize]
            && self.all[old as usize].objects == 0
        {
            self.all[old as usize] = new;
            return Some(old);
        }
        let id = match self.free.pop() {
            Some(id) => {
                self.all[id as usize] = new;
                id
            }
            None if self.all.len() < MAX => {
                self.all.push(new);
                self.all.len() as u32 - 1
            }
            None => return None,
        };
        self.latest[call as usize] = Some(id);
        Some(id)
    }

    /// Takes an object out of its cohort, as which it was.
    pub(super) fn leave(&mut self, id: u32, bytes: u64) -> Cohort {
        let cohort = &mut self.all[id as usize];
        cohort.objects = cohort.objects.saturating_sub(1);
        cohort.bytes = cohort.bytes.wrapping_sub(bytes);
        let left = *cohort;
        if left.objects == 0 && self.latest[left.call as usize] != Some(id) {
            self.free.push(id);
        }
        left
    }

    pub(super) fn get(&self, id: u32) -> Cohort {
        self.all[id as usize]
    }

    /// Those with living objects.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Cohort> {
        self.all.iter().filter(|cohort| cohort.objects > 0)
    }

    /// Bytes of memory they take.
    pub(super) fn memory(&self) -> usize {
        size_of::<Cohort>() * self.all.capacity()
            + size_of::<u32>() * self.free.capacity()
            + size_of::<Option<u32>>() * self.latest.capacity()
            + self.weights.as_ref().map_or(0, |weights| size_of::<Weights>() * weights.capacity())
            + self.weights_memory
    }
}
