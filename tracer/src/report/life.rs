//! What became of the objects of a site: alive, dead, at what age, growing or not.

use hashbrown::HashMap;
use serde::Serialize;

use crate::model::{AGES, Alive, ByAge, Growth, Live};

/// The lives of a site's objects that were allocated during the capture.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Life {
    pub died_objects: u64,
    /// By size class.
    pub died_bytes: u64,
    /// Allocated since the latest GC cycle that was judged: neither alive nor dead for all
    /// that is known.
    pub new_objects: u64,
    pub new_bytes: u64,
    pub survival: Survival,
    /// How live bytes grew from GC cycle to GC cycle: median slopes over all pairs of
    /// cycles. `None` before the second.
    pub growth_bytes_per_cycle: Option<f64>,
    pub growth_bytes_per_minute: Option<f64>,
}

/// Objects by the number of GC cycles they survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Survival {
    /// The least number of cycles in each range; the last has no end.
    pub cycles: [u32; AGES],
    /// How many of those that died had survived so many.
    pub died: ByAge,
    /// How many of those alive have survived so many.
    pub live: ByAge,
}

impl Default for Survival {
    fn default() -> Survival {
        // 0, 1, 2, 4, 8, …: as `model` counts them.
        let cycles = std::array::from_fn(|i| i.checked_sub(1).map_or(0, |log| 1 << log));
        Survival { cycles, died: [0; AGES], live: [0; AGES] }
    }
}

/// The live heap, ready to be asked about sites.
pub(super) struct Lives<'a> {
    live: &'a Live,
    alive: HashMap<u32, Alive>,
}

impl<'a> Lives<'a> {
    pub(super) fn new(live: &'a Live) -> Lives<'a> {
        Lives { live, alive: live.alive() }
    }

    /// Of a site, given its calls: objects and bytes alive, if known, and the rest.
    pub(super) fn of(&self, calls: &[u32]) -> (Option<(u64, u64)>, Life) {
        let mut life = Life::default();
        let (mut objects, mut bytes) = (0_u64, 0_u64);
        for &call in calls {
            let alive = self.alive.get(&call).copied().unwrap_or_default();
            let died = self.live.died(call);
            objects = objects.wrapping_add(alive.objects);
            bytes = bytes.wrapping_add(alive.bytes);
            life.new_objects = life.new_objects.wrapping_add(alive.new_objects);
            life.new_bytes = life.new_bytes.wrapping_add(alive.new_bytes);
            life.died_objects = life.died_objects.wrapping_add(died.objects);
            life.died_bytes = life.died_bytes.wrapping_add(died.bytes);
            add(&mut life.survival.live, &alive.after);
            add(&mut life.survival.died, &died.after);
        }
        let growth = self.live.growth(calls);
        life.growth_bytes_per_cycle = growth.map(|Growth { bytes_per_cycle, .. }| bytes_per_cycle);
        life.growth_bytes_per_minute = growth.map(|Growth { bytes_per_minute, .. }| bytes_per_minute);
        (self.live.latest_judged().map(|_| (objects, bytes)), life)
    }
}

fn add(sum: &mut ByAge, more: &ByAge) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum = sum.wrapping_add(*more);
    }
}
