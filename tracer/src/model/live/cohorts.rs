//! Objects counted together: those one call allocated in one GC epoch.
//!
//! A page knows its cohorts by number, and all that is known of an object besides its
//! address stands there.

/// Living objects of one call and epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cohort {
    /// Index of the call.
    pub(super) call: u32,
    pub(super) epoch: u32,
    pub(super) objects: u64,
    /// Of their slots.
    pub(super) bytes: u64,
}

/// All cohorts. Places of dead ones are used again.
#[derive(Debug, Default)]
pub(super) struct Cohorts {
    all: Vec<Cohort>,
    free: Vec<u32>,
    /// By call: the cohort of its latest allocation.
    latest: Vec<Option<u32>>,
}

/// They are numbered by 32 bits.
const MAX: usize = u32::MAX as usize;

impl Cohorts {
    /// The cohort that an object now belongs to; `None`: there are too many.
    pub(super) fn join(&mut self, call: u32, epoch: u32, bytes: u64) -> Option<u32> {
        let index = call as usize;
        if index >= self.latest.len() {
            self.latest.resize(index + 1, None);
        }
        let latest = self.latest[index];
        let id = match latest {
            Some(id) if self.all[id as usize].epoch == epoch => id,
            _ => self.found(call, epoch)?,
        };
        let cohort = &mut self.all[id as usize];
        cohort.objects += 1;
        cohort.bytes = cohort.bytes.wrapping_add(bytes);
        Some(id)
    }

    fn found(&mut self, call: u32, epoch: u32) -> Option<u32> {
        let new = Cohort { call, epoch, objects: 0, bytes: 0 };
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
    }
}
