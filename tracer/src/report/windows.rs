//! Estimates from objects that were seen in windows of time, and how far they may be off.
//!
//! Each window gives an estimate of the objects that a call allocated in the segment of
//! time which the window was placed in at random (`Event::Window`). Their sums over windows
//! are calibrated by size class: of the objects of a class the runtime's own counters tell
//! how many there were, and a call gets the share of these that its sum has in that of all
//! calls of its class. That is a ratio estimator with windows, or batches of them, as
//! clusters. Its variance is that of its linear part, the residuals z - R c, where z is what
//! a batch tells of a call, c the same of its class, and R the ratio of their sums (Cochran,
//! Sampling Techniques, 1977, sections 6.3 and 9A.1).
//!
//! A program that does now this and now that allocates at other places and at another rate.
//! The counters tell of nearly all of the time at which rate objects of a class came, so
//! windows are stratified by it after the fact (Cochran, section 5A.9): what came at such a
//! rate is shared out by the windows in which it came at such a rate. Of the rest of the
//! time they know no more than all windows tell. Windows in which the rate changed are left
//! out, unless these are many.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::event::UNKNOWN_SLOT;
use crate::model::{State, Told, Windows};

/// How objects were chosen by windows of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WindowSampling {
    /// Most that traps were to take of the target's processor time.
    pub budget_percent: f64,
    pub windows: u64,
    /// Share of the capture for which windows were open.
    pub open_percent: f64,
    /// Bytes that the runtime counted of size classes of which no window has seen any
    /// object: they are in no site. `None`: the counters were not read twice.
    pub unattributed_bytes: Option<u64>,
}

impl WindowSampling {
    /// `None`: the capture has no beginning.
    pub(super) fn of(estimates: &Estimates<'_>, state: &State) -> Option<WindowSampling> {
        let start = state.start.as_ref()?;
        let end_ns = state.end.map_or(state.latest_ns, |end| end.time_ns);
        let length_ns = end_ns.saturating_sub(start.time_ns).max(1);
        let windows = estimates.windows;
        Some(WindowSampling {
            budget_percent: start.budget_percent?,
            windows: windows.count(),
            open_percent: 100.0 * (windows.open_ns() as f64 / length_ns as f64).min(1.0),
            unattributed_bytes: estimates.unattributed_bytes(),
        })
    }
}

/// Objects that the runtime counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// In slots of this size, 0 being that of tiny objects which fit an existing block.
    Slot(u64),
    /// Large ones, of which it is bytes that are counted.
    Large,
    /// Nobody knows.
    Unknown,
}

/// The largest slot of a size class; above it each object has pages of its own
/// (runtime/sizeclasses.go).
const MAX_SMALL: u64 = 32_768;

impl Class {
    fn of(slot: u64) -> Class {
        match slot {
            UNKNOWN_SLOT => Class::Unknown,
            0..=MAX_SMALL => Class::Slot(slot),
            _ => Class::Large,
        }
    }

    /// Bytes of what the runtime counts one of.
    fn bytes(self) -> f64 {
        match self {
            Class::Slot(slot) => slot as f64,
            Class::Large => 1.0,
            Class::Unknown => 0.0,
        }
    }
}

/// An object in a slot of this size is so many of what the runtime counts of its class.
fn unit(slot: u64) -> f64 {
    if Class::of(slot) == Class::Large { slot as f64 } else { 1.0 }
}

/// Estimates by the windows of a capture.
#[derive(Debug)]
pub(super) struct Estimates<'a> {
    windows: &'a Windows,
    /// By the index of the call: batches, and what each tells.
    calls: HashMap<u32, Vec<(usize, Told)>>,
    classes: BTreeMap<Class, OfClass>,
}

/// What is known of a size class, in what the runtime counts of it.
#[derive(Debug, Default)]
struct OfClass {
    whole: Ratio,
    /// By level, ascending; none where they tell no more than the whole.
    strata: Vec<Stratum>,
    /// Share of what was counted of which the rate is not known.
    unknown: f64,
    /// Objects that these windows saw.
    objects: u64,
}

/// Levels of the rate at which objects come.
#[derive(Debug)]
struct Stratum {
    /// The highest one; and that of the typical object.
    highest: i32,
    level: f64,
    ratio: Ratio,
}

impl Stratum {
    fn new(level: i32, ratio: Ratio) -> Stratum {
        Stratum { highest: level, level: f64::from(level), ratio }
    }

    /// Adds the one above it.
    fn add(&mut self, upper: &Stratum) {
        self.highest = upper.highest;
        let weight = |stratum: &Stratum| stratum.ratio.counted.unwrap_or(0.0) + 1.0;
        let (own, other) = (weight(self), weight(upper));
        self.level = (self.level * own + upper.level * other) / (own + other);
        self.ratio.add(&upper.ratio);
    }
}

/// What each object seen stands for.
#[derive(Debug, Default)]
struct Ratio {
    /// What each batch tells, and their sum.
    batches: Vec<f64>,
    seen: f64,
    /// What the runtime counted; `None`: not known.
    counted: Option<f64>,
}

impl Ratio {
    fn see(&mut self, batches: usize, batch: usize, objects: f64) {
        self.batches.resize(batches, 0.0);
        self.batches[batch] += objects;
        self.seen += objects;
    }

    fn calibration(&self) -> f64 {
        match self.counted {
            Some(counted) if self.seen > 0.0 => counted / self.seen,
            _ => 1.0,
        }
    }

    /// Batches that saw any.
    fn support(&self) -> usize {
        self.batches.iter().filter(|objects| **objects > 0.0).count()
    }

    fn add(&mut self, more: &Ratio) {
        self.batches.resize(self.batches.len().max(more.batches.len()), 0.0);
        self.batches.iter_mut().zip(&more.batches).for_each(|(sum, objects)| *sum += objects);
        self.seen += more.seen;
        self.counted = Some(self.counted.unwrap_or(0.0) + more.counted.unwrap_or(0.0));
    }
}

/// A stratum that fewer batches tell of belongs to the one next to it.
const FEWEST: usize = 8;

/// Share of what was seen that may have come while the rate changed.
const CHANGING: f64 = 0.5;

impl OfClass {
    /// Forms strata from what was counted and what windows tell, by level; `changing` was
    /// seen at none.
    fn stratify(&mut self, levels: BTreeMap<i32, Ratio>, changing: f64) {
        let Some(counted) = self.whole.counted else { return };
        let mut strata: Vec<Stratum> =
            levels.into_iter().map(|(level, ratio)| Stratum::new(level, ratio)).collect();
        while strata.len() > 1
            && let Some((least, support)) =
                strata.iter().map(|stratum| stratum.ratio.support()).enumerate().min_by_key(|(_, n)| *n)
            && support < FEWEST
        {
            let gap = |below: usize| Some(strata.get(below + 1)?.level - strata.get(below)?.level);
            let lower = match (least.checked_sub(1).and_then(gap), gap(least)) {
                (Some(down), Some(up)) if down <= up => least - 1,
                (Some(_), None) => least - 1,
                _ => least,
            };
            let upper = strata.remove(lower + 1);
            strata[lower].add(&upper);
        }
        let known: f64 = strata.iter().filter_map(|stratum| stratum.ratio.counted).sum();
        if strata.len() < 2 || known <= 0.0 || changing > CHANGING * self.whole.seen {
            return;
        }
        // The rest of the time was like this.
        for stratum in &mut strata {
            stratum.ratio.counted = stratum.ratio.counted.map(|objects| objects * counted / known);
        }
        self.strata = strata;
        self.unknown = (1.0 - known / counted).max(0.0);
    }

    /// `None`: seen while the rate changed, it tells nothing.
    fn stratum(&self, level: Option<i32>) -> Option<Key> {
        if self.strata.is_empty() {
            return Some(None);
        }
        let at = self.strata.partition_point(|stratum| Some(stratum.highest) < level);
        (level.is_some() && at < self.strata.len()).then_some(Some(at))
    }

    fn ratio(&self, key: Key) -> &Ratio {
        key.and_then(|at| self.strata.get(at)).map_or(&self.whole, |stratum| &stratum.ratio)
    }
}

/// The index of a stratum; `None`: the whole class.
type Key = Option<usize>;

/// Of which slot size, in which stratum, a batch has told of how many objects.
type Item = (u64, Key, usize, f64);

impl<'a> Estimates<'a> {
    /// `None`: objects were not seen in windows.
    pub(super) fn of(state: &'a State) -> Option<Estimates<'a>> {
        let windows = state.windows.as_ref()?;
        let slots: HashMap<u32, u64> =
            state.calls.iter().map(|sums| (sums.index, sums.call.sampled_slot)).collect();
        let mut calls: HashMap<u32, Vec<(usize, Told)>> = HashMap::new();
        let mut classes: BTreeMap<Class, OfClass> = BTreeMap::new();
        for (class, counted) in counted(state).unwrap_or_default() {
            classes.entry(class).or_default().whole.counted = Some(counted);
        }
        for sums in state.calls.iter() {
            classes.entry(Class::of(sums.call.sampled_slot)).or_default().objects += sums.all.objects;
        }
        let mut levels: BTreeMap<Class, (BTreeMap<i32, Ratio>, f64)> = BTreeMap::new();
        for (&(slot, level), &objects) in windows.counted() {
            let ratio = levels.entry(Class::of(slot)).or_default().0.entry(level).or_default();
            ratio.counted = Some(ratio.counted.unwrap_or(0.0) + objects as f64);
        }
        let batches = windows.batches().len();
        for (number, batch) in windows.batches().iter().enumerate() {
            for &told in batch {
                let slot = slots.get(&told.call).copied().unwrap_or(UNKNOWN_SLOT);
                let (class, objects) = (Class::of(slot), told.objects * unit(slot));
                classes.entry(class).or_default().whole.see(batches, number, objects);
                if let Some((levels, changing)) = levels.get_mut(&class) {
                    match told.level {
                        Some(level) => {
                            levels.entry(level).or_default().see(batches, number, told.rate * unit(slot));
                        }
                        None => *changing += objects,
                    }
                }
                calls.entry(told.call).or_default().push((number, told));
            }
        }
        for (class, (levels, changing)) in levels {
            classes.entry(class).or_default().stratify(levels, changing);
        }
        Some(Estimates { windows, calls, classes })
    }

    /// What a weighted object in a slot of this size stands for.
    pub(super) fn calibration(&self, slot: u64) -> f64 {
        self.classes.get(&Class::of(slot)).map_or(1.0, |class| class.whole.calibration())
    }

    /// Objects that the call with this index allocated.
    pub(super) fn objects(&self, call: u32, slot: u64) -> f64 {
        let Some(class) = self.classes.get(&Class::of(slot)) else { return 0.0 };
        let told = self.items(call, slot);
        told.map(|(_, key, _, objects)| objects * class.ratio(key).calibration()).sum()
    }

    /// What is told of a call, by stratum.
    fn items(&self, call: u32, slot: u64) -> impl Iterator<Item = Item> {
        let class = self.classes.get(&Class::of(slot));
        let told = self.calls.get(&call).into_iter().flatten();
        told.filter_map(move |(batch, told)| {
            let key = class?.stratum(told.level)?;
            // In a stratum each window tells as much as any other.
            Some((slot, key, *batch, if key.is_some() { told.rate } else { told.objects }))
        })
    }

    /// How far the bytes that some calls allocated may be off, given the size of their slots.
    pub(super) fn deviation(&self, calls: impl Iterator<Item = (u32, u64)> + Clone) -> f64 {
        let known = self.deviation_of(calls.clone().flat_map(|(call, slot)| self.items(call, slot)));
        // Of the time of which the rate is not known.
        let rest = calls.flat_map(|(call, slot)| {
            let unknown = self.classes.get(&Class::of(slot)).map_or(0.0, |class| class.unknown);
            let told = self.calls.get(&call).into_iter().flatten();
            told.map(move |(batch, told)| (slot, None, *batch, told.objects * unknown))
        });
        known.hypot(self.deviation_of(rest))
    }

    /// As `deviation`, of objects of which no rate is known, given of which slot size which
    /// batch has told of how many.
    pub(super) fn deviation_of_all(&self, told: impl Iterator<Item = (u64, usize, f64)>) -> f64 {
        self.deviation_of(told.map(|(slot, batch, objects)| (slot, None, batch, objects)))
    }

    /// The standard deviation of an estimate of bytes.
    fn deviation_of(&self, told: impl Iterator<Item = Item>) -> f64 {
        let mut residuals = vec![0.0; self.windows.batches().len()];
        let mut sums: BTreeMap<(Class, Key), f64> = BTreeMap::new();
        for (slot, key, batch, objects) in told {
            let (class, z) = (Class::of(slot), objects * unit(slot));
            let Some(residual) = residuals.get_mut(batch) else { continue };
            let Some(of_class) = self.classes.get(&class) else { continue };
            *residual += z * of_class.ratio(key).calibration() * class.bytes();
            *sums.entry((class, key)).or_default() += z;
        }
        for ((class, key), sum) in sums {
            let Some(ratio) = self.classes.get(&class).map(|class| class.ratio(key)) else { continue };
            let scale = ratio.calibration() * class.bytes();
            match ratio.counted {
                Some(_) if ratio.seen > 0.0 => {
                    for (residual, c) in residuals.iter_mut().zip(&ratio.batches) {
                        *residual -= sum / ratio.seen * c * scale;
                    }
                }
                // Without a total it is the mean that is estimated.
                _ => {
                    let mean = sum * scale / residuals.len() as f64;
                    residuals.iter_mut().for_each(|residual| *residual -= mean);
                }
            }
        }
        let batches = residuals.len() as f64;
        let squares: f64 = residuals.iter().map(|residual| residual * residual).sum();
        (squares * batches / (batches - 1.0).max(1.0)).sqrt()
    }

    /// Bytes that sites may have allocated of which no window has seen any object, in the
    /// classes of these slot sizes: that many at most, with a confidence of 95%, by the rule of
    /// three (Hanley and Lippman-Hand 1983).
    pub(super) fn unseen_bytes(&self, slots: impl Iterator<Item = u64>) -> f64 {
        let classes: BTreeSet<Class> = slots.map(Class::of).collect();
        let unseen = |class: &Class| {
            let of_class = self.classes.get(class)?;
            Some(of_class.whole.counted? * class.bytes() * 3.0 / of_class.objects.max(3) as f64)
        };
        classes.iter().filter_map(unseen).sum()
    }

    /// The batch that a window is in.
    pub(super) fn batch_of(&self, window: u32) -> usize {
        self.windows.batch_of(window)
    }

    /// To how many standard deviations a 95% confidence interval reaches on each side.
    pub(super) fn quantile(&self) -> f64 {
        student_t(self.windows.batches().len().saturating_sub(1))
    }

    fn unattributed_bytes(&self) -> Option<u64> {
        let mut known = false;
        let mut bytes = 0.0;
        for (class, of_class) in &self.classes {
            let Ratio { counted, seen, .. } = of_class.whole;
            known |= counted.is_some();
            if seen == 0.0 {
                bytes += counted.unwrap_or(0.0) * class.bytes();
            }
        }
        known.then_some(bytes as u64)
    }
}

/// What the runtime counted between the readings of its counters, by class. `None`: they
/// were not read twice.
fn counted(state: &State) -> Option<BTreeMap<Class, f64>> {
    let (first, last) = state.counters.as_ref()?;
    if first.end_ns >= last.begin_ns {
        return None;
    }
    let before: BTreeMap<u64, u64> = first.by_slot.iter().copied().collect();
    let since = |&(slot, objects): &(u64, u64)| {
        let before = before.get(&slot).copied().unwrap_or(0);
        (Class::Slot(slot), objects.saturating_sub(before) as f64)
    };
    let mut counted: BTreeMap<Class, f64> = last.by_slot.iter().map(since).collect();
    counted.insert(Class::Large, last.large_bytes.saturating_sub(first.large_bytes) as f64);
    Some(counted)
}

/// 97.5% of Student's distribution with 1, 2, … degrees of freedom lie below these.
const STUDENT_T: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];

/// The same for any number of degrees of freedom: without any, as with one.
fn student_t(freedom: usize) -> f64 {
    STUDENT_T.get(freedom.saturating_sub(1)).copied().unwrap_or_else(|| {
        // The first terms of the expansion around the normal distribution's (Abramowitz and
        // Stegun, 26.7.5).
        let (z, v) = (1.959_964_f64, freedom as f64);
        z + (z.powi(3) + z) / (4.0 * v) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * v * v)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Alloc, Counters, Event, StackId, Start, Window};

    /// A capture of windows of a program with two calls of one size class, whose shares change
    /// all the time.
    struct Simulated {
        state: State,
        /// Objects that each call has made.
        made: [u64; 2],
    }

    const SLOT: u64 = 48;

    impl Simulated {
        fn start() -> Simulated {
            let mut state = State::default();
            state.apply(&Event::Start(Start { budget_percent: Some(1.0), ..Start::default() }));
            state.apply(&Event::Counters(Counters::default()));
            Simulated { state, made: [0; 2] }
        }

        fn see(&mut self, call: usize, slot: u64) {
            let stack = StackId(call as u64);
            self.state.apply(&Event::Alloc(Alloc { stack, slot, ..Alloc::default() }));
        }

        fn window(&mut self, random: &mut fastrand::Rng) {
            let all = random.u64(500..20_000);
            let first = all * 2 / 5;
            self.made = [self.made[0] + first, self.made[1] + all - first];
            let seen = random.u64(20..60);
            let share = 0.1 + 0.6 * random.f64();
            for _ in 0..seen {
                self.see(usize::from(random.f64() >= share), SLOT);
            }
            // Weights are known as well as rates are.
            let weight = all as f64 / seen as f64 * (0.8 + 0.4 * random.f64());
            self.state.apply(&Event::Window(Window {
                begin_ns: 0,
                end_ns: 1,
                objects: seen,
                weight,
                ..Window::default()
            }));
        }

        /// Half of the time the first call allocates twenty objects a microsecond, else the
        /// second one does one; in a tenth of the windows the one becomes the other.
        fn window_of_phases(&mut self, random: &mut fastrand::Rng) {
            const SEGMENT_NS: u64 = 400_000_000;
            let of_rate = |rate: f64| (SLOT, Window::level(rate, 1_000.0));
            let (fast, slow) = (of_rate(20.0), of_rate(1.0));
            self.made = [self.made[0] + 4_000_000, self.made[1] + 200_000];
            let (is_fast, changes) = (random.bool(), random.u8(0..10) == 0);
            (0..50).for_each(|n| self.see(if changes { n % 2 } else { usize::from(!is_fast) }, SLOT));
            let (level, rate) = if is_fast { (fast.1, 20.0) } else { (slow.1, 1.0) };
            // While probes were in place, a twentieth of the time, nobody knows.
            let unknown = |is_so: bool, all: u64| if is_so { all - all / 10 } else { all };
            self.state.apply(&Event::Window(Window {
                objects: 50,
                segment_ns: SEGMENT_NS,
                expected: vec![(SLOT, rate * SEGMENT_NS as f64 / 1e3)],
                near: vec![(SLOT, (!changes).then_some(level))],
                counted: vec![
                    (slow.0, slow.1, unknown(!is_fast, 200_000)),
                    (fast.0, fast.1, unknown(is_fast, 4_000_000)),
                ],
                ..Window::default()
            }));
        }

        /// The estimate of the objects of the first call, and how far it may be off.
        fn end(&mut self) -> (f64, f64) {
            let by_slot = vec![(SLOT, self.made[0] + self.made[1]), (96, 10)];
            let counters =
                Counters { begin_ns: 5, end_ns: 6, by_slot, large_bytes: 8, ..Counters::default() };
            self.state.apply(&Event::Counters(counters));
            let estimates = Estimates::of(&self.state).expect("windows");
            let first = self.state.calls.iter().find(|sums| sums.call.stack == StackId(0));
            let call = first.map_or(u32::MAX, |sums| sums.index);
            let deviation = estimates.deviation([(call, SLOT)].into_iter()) / SLOT as f64;
            (estimates.objects(call, SLOT), deviation * estimates.quantile())
        }
    }

    #[test]
    fn estimates_have_no_bias_and_their_intervals_hold() {
        const TRIALS: u32 = 1000;
        let mut random = fastrand::Rng::with_seed(11);
        for windows in [6, 30] {
            let (mut within, mut sum, mut squares) = (0, 0.0, 0.0);
            for _ in 0..TRIALS {
                let mut simulated = Simulated::start();
                (0..windows).for_each(|_| simulated.window(&mut random));
                let (estimate, error) = simulated.end();
                let off = estimate / simulated.made[0] as f64 - 1.0;
                within += u32::from(off.abs() * simulated.made[0] as f64 <= error);
                (sum, squares) = (sum + off, squares + off * off);
            }
            let trials = f64::from(TRIALS);
            let (bias, deviation) = (sum / trials, (squares / trials).sqrt());
            // Ratio estimators have a bias that falls with the number of clusters.
            let most = 0.1 / f64::from(windows) + 3.0 * deviation / trials.sqrt();
            assert!(bias.abs() < most, "{windows} windows: bias {bias}");
            assert!((0.90..0.99).contains(&(f64::from(within) / trials)), "{windows} windows: {within}");
        }
    }

    #[test]
    fn what_came_at_another_rate_is_told_by_other_windows() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut within = 0;
        for _ in 0..100 {
            let mut simulated = Simulated::start();
            (0..150).for_each(|_| simulated.window_of_phases(&mut random));
            let (estimate, error) = simulated.end();
            let [fast, slow] = simulated.made.map(|made| made as f64);
            // An error of the one is one of the other. By windows alone it was some 30%.
            assert!((estimate - fast).abs() < 0.05 * slow && error < 0.06 * slow, "{estimate} {error}");
            within += u32::from((estimate - fast).abs() <= error);
        }
        assert!(within >= 90, "{within} of 100");
    }

    #[test]
    fn rates_of_which_few_windows_tell_are_taken_together() {
        let mut class =
            OfClass { whole: Ratio { counted: Some(200.0), ..Ratio::default() }, ..OfClass::default() };
        let ratio = |windows, counted| {
            let mut ratio = Ratio { counted, ..Ratio::default() };
            (0..windows).for_each(|batch| ratio.see(30, batch, 2.0));
            ratio
        };
        let levels = [
            (3, ratio(0, Some(1.0))),
            (5, ratio(9, Some(49.0))),
            (8, ratio(2, Some(10.0))),
            (12, ratio(10, None)),
            (13, ratio(0, Some(100.0))),
        ];
        class.stratify(levels.into(), 0.0);
        let strata: Vec<_> =
            class.strata.iter().map(|s| (s.highest, s.ratio.counted, s.ratio.seen)).collect();
        // A fifth was not counted by level.
        assert_eq!(strata, [(8, Some(75.0), 22.0), (13, Some(125.0), 20.0)]);
        let keys = [2, 5, 8, 9, 12, 13, 14].map(|level| class.stratum(Some(level)));
        let (lower, upper) = (Some(Some(0)), Some(Some(1)));
        assert_eq!(keys, [lower, lower, lower, upper, upper, upper, None]);
        assert_eq!(class.stratum(None), None);
    }

    #[test]
    fn all_of_a_class_is_what_the_runtime_counted() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut simulated = Simulated::start();
        (0..5).for_each(|_| simulated.window(&mut random));
        simulated.end();
        let estimates = Estimates::of(&simulated.state).expect("windows");
        let calls: Vec<(u32, u64)> = simulated.state.calls.iter().map(|sums| (sums.index, SLOT)).collect();
        let all: f64 = calls.iter().map(|&(call, slot)| estimates.objects(call, slot)).sum();
        assert!((all - (simulated.made[0] + simulated.made[1]) as f64).abs() < 1e-6, "{all}");
        assert!(estimates.deviation(calls.into_iter()) < 1e-3, "there is nothing to be wrong about");
        let seen: u64 = simulated.state.calls.iter().map(|sums| sums.all.objects).sum();
        let unseen = estimates.unseen_bytes([SLOT, SLOT].into_iter());
        assert!((unseen - all * SLOT as f64 * 3.0 / seen as f64).abs() < 1e-3, "{unseen}");
        // Of 96 bytes and of large ones none was seen.
        let sampling = WindowSampling::of(&estimates, &simulated.state).expect("windows");
        assert_eq!((sampling.windows, sampling.unattributed_bytes), (5, Some(968)));
    }

    #[test]
    fn students_distribution_becomes_the_normal_one() {
        for (freedom, t) in [(0, 12.706), (1, 12.706), (10, 2.228), (11, 2.201), (30, 2.042), (511, 1.965)] {
            assert!((student_t(freedom) - t).abs() < 0.003, "{freedom}: {}", student_t(freedom));
        }
    }
}
