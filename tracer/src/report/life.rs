//! What became of the objects of a site: alive, dead, at what age, growing or not.

use hashbrown::HashMap;
use serde::Serialize;

use super::sampling::SeenCall;
pub use crate::model::LivePoint;
use crate::model::{AGES, Alive, Births, ByAge, Live, median_slope};

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
    /// What these are computed from; no part of the JSON.
    #[serde(skip)]
    pub history: Vec<LivePoint>,
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
    births: Births,
    /// See [`Live::alive_by_window`]; empty where there are no windows.
    by_window: HashMap<u32, Vec<(u32, u64)>>,
}

impl<'a> Lives<'a> {
    pub(super) fn new(live: &'a Live, in_windows: bool) -> Lives<'a> {
        let by_window = if in_windows { live.alive_by_window() } else { HashMap::new() };
        Lives { live, alive: live.alive(), births: live.births(), by_window }
    }

    /// Of a site, given its calls and what each of their objects stands for: objects and
    /// bytes alive, if known, and the rest.
    pub(super) fn of(&self, calls: &[SeenCall]) -> (Option<(u64, u64)>, Life) {
        let mut life = Life::default();
        let (mut objects, mut bytes) = (0_u64, 0_u64);
        for &SeenCall { index: call, weight, .. } in calls {
            let alive = self.alive(call);
            let died = self.live.died(call);
            let add_alive = |sum: &mut u64, more: u64| *sum = sum.wrapping_add(weight.scale_alive(more));
            add_alive(&mut objects, alive.objects);
            add_alive(&mut bytes, alive.bytes);
            add_alive(&mut life.new_objects, alive.new_objects);
            add_alive(&mut life.new_bytes, alive.new_bytes);
            let add_died = |sum: &mut u64, more: u64| *sum = sum.wrapping_add(weight.scale(more));
            add_died(&mut life.died_objects, died.objects);
            add_died(&mut life.died_bytes, died.bytes);
            let ages = |sums: &mut ByAge, more: &ByAge, add: &dyn Fn(&mut u64, u64)| {
                sums.iter_mut().zip(more).for_each(|(sum, more)| add(sum, *more));
            };
            ages(&mut life.survival.live, &alive.after, &add_alive);
            ages(&mut life.survival.died, &died.after, &add_died);
        }
        let factors: Vec<(u32, f64)> = calls.iter().map(|call| (call.index, call.weight.alive())).collect();
        life.history = self.live.history(&factors, &self.births);
        let slope = |x: fn(&LivePoint) -> f64| {
            let points: Vec<(f64, f64)> = life.history.iter().map(|point| (x(point), point.bytes)).collect();
            median_slope(&points)
        };
        life.growth_bytes_per_cycle = slope(|point| f64::from(point.epoch));
        life.growth_bytes_per_minute = slope(|point| point.time_ns as f64 / 60e9);
        (self.live.latest_judged().map(|_| (objects, bytes)), life)
    }

    /// See [`Live::alive_by_window`].
    pub(super) fn by_window(&self, call: u32) -> &[(u32, u64)] {
        self.by_window.get(&call).map_or(&[], Vec::as_slice)
    }

    pub(super) fn followed_one_in(&self, call: u32) -> u64 {
        self.live.followed_one_in(call)
    }

    pub(super) fn alive(&self, call: u32) -> Alive {
        self.alive.get(&call).copied().unwrap_or_default()
    }
}
