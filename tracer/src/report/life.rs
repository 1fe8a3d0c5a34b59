//! What became of the objects of a site: alive, dead, at what age, growing or not.

use hashbrown::HashMap;
use serde::Serialize;

use super::sampling::Weight;
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

    /// Of a site, given its calls and what each of their objects stands for: objects and
    /// bytes alive, if known, and the rest.
    pub(super) fn of(&self, calls: &[(u32, Weight)]) -> (Option<(u64, u64)>, Life) {
        let mut life = Life::default();
        let (mut objects, mut bytes) = (0_u64, 0_u64);
        for &(call, weight) in calls {
            let alive = self.alive(call);
            let died = self.live.died(call);
            let add = |sum: &mut u64, more: u64| *sum = sum.wrapping_add(weight.scale(more));
            add(&mut objects, alive.objects);
            add(&mut bytes, alive.bytes);
            add(&mut life.new_objects, alive.new_objects);
            add(&mut life.new_bytes, alive.new_bytes);
            add(&mut life.died_objects, died.objects);
            add(&mut life.died_bytes, died.bytes);
            let add_all = |sums: &mut ByAge, more: &ByAge| {
                sums.iter_mut().zip(more).for_each(|(sum, more)| add(sum, *more));
            };
            add_all(&mut life.survival.live, &alive.after);
            add_all(&mut life.survival.died, &died.after);
        }
        let factors: Vec<(u32, f64)> = calls.iter().map(|(call, weight)| (*call, weight.factor())).collect();
        let growth = self.live.growth(&factors);
        life.growth_bytes_per_cycle = growth.map(|Growth { bytes_per_cycle, .. }| bytes_per_cycle);
        life.growth_bytes_per_minute = growth.map(|Growth { bytes_per_minute, .. }| bytes_per_minute);
        (self.live.latest_judged().map(|_| (objects, bytes)), life)
    }

    /// Of the estimate of live bytes.
    pub(super) fn variance(&self, calls: &[(u32, Weight)]) -> f64 {
        let of_call = |&(call, weight): &(u32, Weight)| {
            weight.variance(self.alive(call).objects, self.live.followed_one_in(call))
        };
        calls.iter().map(of_call).sum()
    }

    fn alive(&self, call: u32) -> Alive {
        self.alive.get(&call).copied().unwrap_or_default()
    }
}
