//! Programs that leak and programs that do not, simulated, and what is said of them.

use super::*;

const MIB: f64 = 1_048_576.0;
const CYCLE_NS: u64 = 5_000_000_000;

/// Objects born together.
struct Born {
    cycle: u32,
    bytes: f64,
    /// The first cycle that finds them dead.
    dies: u32,
}

/// A site of which each GC cycle sees what was born, as `births` tells: bytes and how many cycles
/// they live.
fn site(cycles: u32, mut births: impl FnMut(u32) -> Vec<(f64, u32)>) -> Lives {
    let mut born: Vec<Born> = Vec::new();
    for cycle in 0..cycles {
        let of = |(bytes, lives): (f64, u32)| Born { cycle, bytes, dies: cycle.saturating_add(lives) };
        born.extend(births(cycle).into_iter().map(of));
    }
    let sum = |alive: &dyn Fn(&Born) -> bool| born.iter().filter(|b| alive(b)).map(|b| b.bytes).sum::<f64>();
    let point = |now: u32| LivePoint {
        epoch: now,
        time_ns: u64::from(now) * CYCLE_NS,
        bytes: sum(&|b| b.cycle <= now && b.dies > now),
        old_bytes: sum(&|b| b.cycle + 3 <= now && b.dies > now),
        kept_bytes: sum(&|b| b.cycle <= now && b.dies >= cycles),
    };
    Lives::of(&(0..cycles).map(point).collect::<Vec<_>>(), 0)
}

const FOREVER: u32 = u32::MAX;

fn shape(lives: &Lives) -> Shape {
    lives.shape(Turnover::Objects, 0.0)
}

#[track_caller]
fn leaks(lives: &Lives) {
    assert!(matches!(shape(lives), Shape::Grows(_)), "{:?} of {:?}", shape(lives), lives.old);
}

#[track_caller]
fn does_not_leak(lives: &Lives) {
    assert!(!matches!(shape(lives), Shape::Grows(_)), "{:?} of {:?}", shape(lives), lives.old);
}

/// Amounts that differ, and lives of a few cycles at most.
struct Traffic(fastrand::Rng);

impl Traffic {
    fn new(seed: u64) -> Traffic {
        Traffic(fastrand::Rng::with_seed(seed))
    }

    fn some(&mut self, bytes: f64) -> f64 {
        bytes * (0.5 + self.0.f64())
    }

    /// Requests, some of which are slow.
    fn requests(&mut self, bytes: f64) -> Vec<(f64, u32)> {
        (0..8).map(|_| (self.some(bytes / 8.0), self.0.u32(0..5))).collect()
    }
}

#[test]
fn leaks_are_found_in_the_noise_of_traffic() {
    for seed in 0..20 {
        for share in [1.0, 0.1] {
            let mut traffic = Traffic::new(seed);
            let lives = site(60, |_| {
                let mut born = traffic.requests(64.0 * MIB);
                born.push((traffic.some(64.0 * MIB * share), FOREVER));
                born
            });
            leaks(&lives);
        }
    }
}

#[test]
fn a_leak_of_a_hundredth_of_the_traffic_is_found_where_requests_are_short() {
    for seed in 0..20 {
        let mut traffic = Traffic::new(seed);
        leaks(&site(60, |_| vec![(traffic.some(64.0 * MIB), 1), (traffic.some(0.64 * MIB), FOREVER)]));
    }
}

#[test]
fn a_leak_is_found_while_load_changes() {
    for seed in 0..20 {
        let mut traffic = Traffic::new(seed);
        leaks(&site(60, |cycle| {
            let load = if (cycle / 12) % 2 == 0 { 1.0 } else { 3.0 };
            vec![(traffic.some(16.0 * MIB * load), 2), (traffic.some(MIB * load), FOREVER)]
        }));
    }
}

#[test]
fn traffic_is_no_leak_whatever_its_load() {
    let loads: [fn(u32) -> f64; 6] = [
        |_| 1.0,
        // Up for a while, and down again.
        |cycle| if (20..40).contains(&cycle) { 4.0 } else { 1.0 },
        |cycle| if cycle < 30 { 1.0 } else { 5.0 },
        |cycle| if cycle < 30 { 5.0 } else { 1.0 },
        // A staircase, and a ramp.
        |cycle| f64::from(1 + cycle / 10),
        |cycle| f64::from(10 + cycle) / 10.0,
    ];
    for seed in 0..50 {
        for load in loads {
            let mut traffic = Traffic::new(seed);
            does_not_leak(&site(60, |cycle| traffic.requests(16.0 * MIB * load(cycle))));
        }
    }
}

#[test]
fn sessions_that_last_a_while_are_no_leak() {
    for seed in 0..50 {
        let mut traffic = Traffic::new(seed);
        // Exponential, of ten cycles on average, from an empty start.
        let lives = site(60, |_| {
            (0..32).map(|_| (traffic.some(MIB), (-10.0 * traffic.0.f64().ln()) as u32)).collect()
        });
        does_not_leak(&lives);
    }
}

#[test]
fn caches_at_their_bound_are_no_leak() {
    for lasts in [5, 12, 20, 30] {
        let lives = site(60, |_| vec![(MIB, lasts)]);
        assert_eq!(shape(&lives), Shape::Replaced, "entries for {lasts} cycles");
    }
    for filled in [8, 15, 25, 35] {
        let lives = site(60, |cycle| if cycle < filled { vec![(MIB, FOREVER)] } else { Vec::new() });
        assert_eq!(shape(&lives), Shape::Filled, "filled after {filled} cycles");
    }
}

#[test]
fn a_warm_up_that_levels_off_is_no_leak() {
    for half in [4.0, 8.0, 14.0] {
        let mut traffic = Traffic::new(3);
        let new = |cycle: u32| MIB * (-f64::from(cycle) / half).exp2();
        let lives = site(60, |cycle| vec![(traffic.some(new(cycle)), FOREVER), (traffic.some(MIB), 1)]);
        does_not_leak(&lives);
    }
}

#[test]
fn what_is_emptied_now_and_then_is_no_leak() {
    for period in [7, 13, 20, 29] {
        let lives = site(60, |cycle| vec![(MIB, period - cycle % period)]);
        does_not_leak(&lives);
        does_not_leak(&site(60, |cycle| vec![(MIB, 2 * period - cycle % period)]));
    }
}

#[test]
fn a_single_jump_is_no_leak() {
    for at in [5, 20, 30, 45, 58] {
        does_not_leak(&site(60, |cycle| if cycle == at { vec![(64.0 * MIB, FOREVER)] } else { Vec::new() }));
    }
}

#[test]
fn few_cycles_say_nothing() {
    let lives = |cycles| site(cycles, |_| vec![(MIB, FOREVER)]);
    assert_eq!(shape(&lives(LEAST_CYCLES as u32 - 1)), Shape::Other);
    leaks(&lives(16));
}

#[test]
fn an_array_that_is_only_appended_to_grows_in_jumps() {
    // Copied to one a quarter larger each time it is full.
    let mut capacity = 10.0;
    let mut sizes = vec![(0_u32, capacity)];
    for cycle in 0..60 {
        if f64::from(cycle) * 4.0 > capacity {
            capacity *= 1.25;
            sizes.push((cycle, capacity));
        }
    }
    let array = |cycle: u32| {
        let n = sizes.iter().position(|(born, _)| *born == cycle)?;
        Some((sizes[n].1 * MIB / 8.0, sizes.get(n + 1).map_or(FOREVER, |next| next.0 - cycle)))
    };
    let lives = site(60, |cycle| array(cycle).into_iter().collect());
    assert!(matches!(lives.shape(Turnover::Arrays, 0.0), Shape::Grows(_)), "{:?}", lives.old);
    // Those of requests are short-lived, also when there are more and more requests.
    let lives = site(60, |cycle| vec![(f64::from(10 + cycle) * MIB, 2), (f64::from(10 + cycle) * MIB, 4)]);
    assert!(!matches!(lives.shape(Turnover::Arrays, 0.0), Shape::Grows(_)), "{:?}", lives.old);
    // A table grows with the load, in a few steps.
    let table = |cycle| match cycle {
        0 => Some((0.2 * MIB, 16)),
        16 => Some((0.8 * MIB, 29)),
        45 => Some((1.6 * MIB, FOREVER)),
        _ => None,
    };
    let lives = site(60, |cycle| table(cycle).into_iter().collect());
    assert!(!matches!(lives.shape(Turnover::Arrays, 0.0), Shape::Grows(_)), "{:?}", lives.old);
    // The buffer of each batch grows, and is dropped with it.
    let lives = site(60, |cycle| vec![(f64::from(1 + cycle % 12) * MIB, 12 - cycle % 12)]);
    assert!(!matches!(lives.shape(Turnover::Arrays, 0.0), Shape::Grows(_)), "{:?}", lives.old);
}

#[test]
fn what_may_be_chance_of_samples_is_no_growth() {
    let lives = site(60, |_| vec![(MIB / 64.0, FOREVER)]);
    assert_eq!(lives.shape(Turnover::Objects, MIB), Shape::Other);
}
