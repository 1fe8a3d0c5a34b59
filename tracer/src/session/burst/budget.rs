//! When to open windows and for how long, given what traps may cost: all arithmetic.
//!
//! What may be spent grows with the processor time that the target uses, and each trap
//! spends of it, whether it was in a window, around one, or of another probe. Nothing is
//! spent in advance: the first window waits until it can be paid for.

use std::time::Duration;

use super::rate::Rate;
use super::weight::Observed;
use crate::event::Cost;

/// A time with one window in it, CLOCK_MONOTONIC nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Segment {
    pub(super) begin_ns: u64,
    pub(super) end_ns: u64,
    /// When to begin to place the probes.
    pub(super) window_ns: u64,
    /// How long the window is to be open, and how many objects it may see at most.
    pub(super) open: Duration,
    pub(super) allowance: u64,
}

/// What has been spent, and what is known of how it is spent. Costs are nanoseconds of
/// the target's processor time, and rates those by the nanosecond.
#[derive(Debug)]
pub(super) struct Budget {
    share: f64,
    trap_ns: f64,
    /// Whether traps outside of windows are paid out of it.
    pays_others: bool,
    /// Where it all began, and as of the end of the latest window.
    begin: Look,
    looked: Look,
    /// What was not spent while there was little to see, and is not to be any more.
    forfeited: f64,
    /// CPUs that the target keeps busy.
    cpus: f64,
    /// Cost of traps outside of windows.
    outside: f64,
    /// Cost of the traps just before and after a window, in which no object is seen;
    /// `None`: there was no window yet.
    around: Option<f64>,
    /// Objects to be seen in windows, at the highest rate of late: were windows as long as the
    /// average allows, those that end early would be the ones with most to see.
    pace: f64,
    /// How long the latest window was to be open.
    open: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Look {
    time_ns: u64,
    cost: Cost,
}

/// Windows are this far apart where that can be paid for.
const USUAL: f64 = 0.4e9;
/// As close as they get, as placing and removing probes takes its time.
const SHORTEST: f64 = 0.2e9;
/// As far apart where the target has hardly anything to do, as that may change; and where
/// the budget does not allow for more.
const IDLE: f64 = 2e9;
const LONGEST: f64 = 10e9;
/// Segments of which the budget allows to see all: there is no use in many.
const WHOLE: f64 = 1e9;

/// Share of the budget that traps may spend. Windows cost a target more than their traps, and
/// it is not known what: at 37 million objects a second this was a third of what was lost, but it did
/// not show close to windows, nor as waiting for a CPU (docs/BENCHMARKS.md, Lanes).
const TRAPS: f64 = 0.6;

/// Objects that make a window worth the while, and that it may see in any case.
const OBJECTS: f64 = 200.0;
const FEWEST: f64 = 20.0;

/// Time that placing and removing the probes takes.
const PLACING: f64 = 60e6;

/// Time for which traps around the first window are expected to go on.
const AROUND: f64 = 2e6;

/// A window of more than its share of objects is cut short at so many times that.
const AT_MOST: f64 = 1.5;

/// A window is open for at most so many times as long as the one before: the target may
/// have become busier.
const LONGER: f64 = 4.0;

/// How long the first window is open.
const FIRST: f64 = 1e6;

/// What remains of the highest rate from window to window.
const FADING: f64 = 0.93;

/// How much the latest measurement counts against those before.
const NEW: f64 = 0.3;

impl Budget {
    /// `pays_others`: whether what other probes spend is taken from it.
    pub(super) fn new(percent: f64, pays_others: bool, trap_ns: u64, now_ns: u64, cost: Cost) -> Budget {
        let begin = Look { time_ns: now_ns, cost };
        Budget {
            share: TRAPS * percent / 100.0,
            trap_ns: trap_ns.max(1) as f64,
            pays_others,
            begin,
            looked: begin,
            forfeited: 0.0,
            cpus: 0.0,
            outside: 0.0,
            around: None,
            pace: 0.0,
            open: FIRST / LONGER,
        }
    }

    /// Plans the segment that began at `begin_ns`. `random` gives numbers from 0 to 1.
    pub(super) fn plan(
        &mut self,
        begin_ns: u64,
        now_ns: u64,
        cost: Cost,
        random: impl Fn() -> f64,
    ) -> Segment {
        self.look(now_ns, cost);
        let around = self.around.unwrap_or(AROUND * self.cpus.min(1.0));
        let income = (self.share * self.cpus - self.outside).max(1e-9);
        let usual = if self.can_see_all(income) { WHOLE } else { USUAL };
        let price = around + (income * usual - around).max(OBJECTS * self.trap_ns).max(around);
        self.forfeit(cost, price);
        let balance = self.balance(cost);
        let time_for =
            |cost: f64, idle: f64| (cost / income).min((2.0 * around / income).max(idle)).min(LONGEST);
        // The price of a window is kept in reserve: one may come early in its segment.
        let lead = if self.around.is_none() { time_for(price, USUAL) } else { 0.0 };
        let spare = balance + lead * income - price;
        let shortest = if usual == WHOLE { WHOLE } else { SHORTEST };
        let length = time_for(price - spare, IDLE.max(-2.0 * balance / income)).max(shortest);
        // Not of one length, so that nothing periodic stays in step with them.
        let length = length * (0.75 + random() / 2.0);
        let affordable = (spare + length * income).min(AT_MOST * price);
        let objects = ((affordable - around) / self.trap_ns).max(FEWEST);
        // For ever, if there was nothing to see.
        let open = (objects / self.pace).min(LONGER * self.open).min(length - PLACING);
        self.open = open;
        let offset = lead + (length - PLACING - open) * random();
        Segment {
            begin_ns,
            end_ns: now_ns + (lead + length) as u64,
            window_ns: now_ns + offset as u64,
            open: Duration::from_nanos(open as u64),
            allowance: (objects * AT_MOST) as u64,
        }
    }

    /// Whether the target, which uses so many CPUs now, has become busier than the latest plan
    /// was made for.
    pub(super) fn is_outdated(&self, cpus: f64) -> bool {
        cpus > 2.0 * self.cpus + 0.1
    }

    /// There was a window, and probes from `before` to `after`; around it the target
    /// allocated at these rates, objects a nanosecond.
    pub(super) fn window(&mut self, before: Cost, observed: &Observed, rates: &[Rate], after: Cost) {
        let hits = after.hits.saturating_sub(before.hits);
        let around = hits.saturating_sub(observed.objects) as f64 * self.trap_ns;
        let known = self.around.unwrap_or(around);
        self.around = Some(known + (around - known) * NEW);
        let open_ns = observed.end_ns.saturating_sub(observed.begin_ns).max(1) as f64;
        let seen = observed.objects as f64 / open_ns;
        // As fast as that may come in the next window.
        let slowed = |rate: &Rate| rate.all() / (1.0 + rate.all() * self.trap_ns / self.cpus.max(1.0));
        self.pace = rates.iter().map(slowed).fold(seen.max(self.pace * FADING), f64::max);
        // These hits are not what is spent outside.
        self.looked.cost.hits += hits;
    }

    /// Takes in what has happened since the latest look.
    fn look(&mut self, now_ns: u64, cost: Cost) {
        let time = now_ns.saturating_sub(self.looked.time_ns).max(1) as f64;
        let cpus = cost.cpu_ns.saturating_sub(self.looked.cost.cpu_ns) as f64 / time;
        let mut hits = cost.hits.saturating_sub(self.looked.cost.hits);
        if !self.pays_others {
            self.begin.cost.hits += hits;
            hits = 0;
        }
        let outside = hits as f64 * self.trap_ns / time;
        let is_first = self.looked.time_ns == self.begin.time_ns;
        let mix = |known: f64, new: f64| if is_first { new } else { known + (new - known) * NEW };
        (self.cpus, self.outside) = (mix(self.cpus, cpus), mix(self.outside, outside));
        self.looked = Look { time_ns: now_ns, cost };
    }

    /// What there is to be spent; negative when too much was.
    fn balance(&self, cost: Cost) -> f64 {
        let begin = self.begin.cost;
        let earned = cost.cpu_ns.saturating_sub(begin.cpu_ns) as f64 * self.share;
        earned - cost.hits.saturating_sub(begin.hits) as f64 * self.trap_ns - self.forfeited
    }

    /// Forgets savings: were all spent at once, that would be felt.
    fn forfeit(&mut self, cost: Cost, price: f64) {
        self.forfeited += (self.balance(cost) - (1.0 + AT_MOST) * price).max(0.0);
    }

    /// Whether windows could be open all of the time.
    fn can_see_all(&self, income: f64) -> bool {
        self.around.is_some() && self.pace * self.trap_ns <= income
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAP_NS: u64 = 1000;

    /// A target with one CPU, of which it uses a part, and so many allocations by the
    /// nanosecond of it; each window costs it some traps around it. Time is CLOCK_MONOTONIC.
    struct Target {
        cpus: f64,
        rate: f64,
        around: u64,
        now: f64,
        cpu: f64,
        hits: f64,
        objects: u64,
        windows: u32,
        /// Traps of other probes by the nanosecond, which the budget does not pay.
        others: f64,
    }

    impl Target {
        fn cost(&self) -> Cost {
            Cost { hits: self.hits as u64, trap_ns: TRAP_NS, cpu_ns: self.cpu as u64 }
        }

        fn pass(&mut self, until: f64) {
            self.cpu += (until - self.now).max(0.0) * self.cpus;
            self.hits += (until - self.now).max(0.0) * self.others;
            self.now = self.now.max(until);
        }

        /// Objects, time and traps of a window: it slows the target that has a CPU to itself.
        fn window(&mut self, segment: &Segment) -> Observed {
            let slowed = 1.0 / (1.0 / self.rate + TRAP_NS as f64);
            let begin = self.cost();
            let objects = (segment.open.as_nanos() as f64 * slowed).min(segment.allowance as f64);
            let (begin_ns, length) = (self.now, objects / slowed);
            self.hits += objects;
            self.pass(begin_ns + length);
            let (objects, after) = (objects as u64, self.cost());
            self.objects += objects;
            self.windows += 1;
            Observed { begin_ns: begin_ns as u64, end_ns: self.now as u64, objects, before: begin, after }
        }

        /// Runs for so many seconds; the most that was spent of all until then, in percent,
        /// once a second was over.
        fn run(&mut self, percent: f64, seconds: f64) -> f64 {
            let mut random = fastrand::Rng::with_seed(7);
            let mut budget = Budget::new(percent, self.others == 0.0, TRAP_NS, 0, self.cost());
            self.pass(50e6);
            let (mut begin, mut most) = (0, 0.0_f64);
            while self.now < seconds * 1e9 {
                let numbers = [random.f64(), random.f64()];
                let next = std::cell::Cell::new(0);
                let draw = || numbers[next.replace(next.get() + 1) % 2];
                let segment = budget.plan(begin, self.now as u64, self.cost(), draw);
                assert!(segment.begin_ns <= segment.window_ns && segment.window_ns <= segment.end_ns);
                self.pass(segment.window_ns as f64);
                let before = self.cost();
                let observed = self.window(&segment);
                self.hits += self.around as f64;
                self.pass(self.now + 40e6);
                budget.window(before, &observed, &[], self.cost());
                if self.now > 1e9 {
                    most = most.max(100.0 * self.hits * TRAP_NS as f64 / self.cpu);
                }
                self.pass(segment.end_ns as f64);
                begin = self.now as u64;
            }
            most
        }
    }

    fn target(cpus: f64, rate: f64, around: u64) -> Target {
        Target { cpus, rate, around, now: 0.0, cpu: 0.0, hits: 0.0, objects: 0, windows: 0, others: 0.0 }
    }

    #[test]
    fn what_is_spent_stays_within_the_budget_at_any_rate() {
        for (rate, around) in [(1e-5, 0), (1e-4, 100), (1e-3, 1000), (2e-2, 3000)] {
            for percent in [0.2, 1.0, 5.0] {
                let mut target = target(1.0, rate, around);
                let most = target.run(percent, 60.0);
                assert!(most <= TRAPS * percent * 1.05, "{rate} {percent}: {most}");
                let spent = 100.0 * target.hits * TRAP_NS as f64 / target.cpu;
                // What little there is to see is seen for most of the time.
                let least = (percent * 0.4).min(100.0 * rate * TRAP_NS as f64 * 0.7);
                assert!(spent >= least, "{rate} {percent}: {spent}");
                assert!(target.windows >= 10, "{rate} {percent}: {} windows", target.windows);
            }
        }
    }

    #[test]
    fn a_plan_is_outdated_when_the_target_works_more() {
        let mut target = target(0.2, 1e-6, 5);
        let mut budget = Budget::new(1.0, true, TRAP_NS, 0, target.cost());
        target.pass(50e6);
        budget.plan(0, target.now as u64, target.cost(), || 0.5);
        assert!([0.0, 0.2, 0.45].iter().all(|cpus| !budget.is_outdated(*cpus)));
        assert!([0.55, 1.0, 64.0].iter().all(|cpus| budget.is_outdated(*cpus)));
    }

    #[test]
    fn what_others_spend_leaves_windows_their_own() {
        let mut target = Target { others: 2e-5, ..target(1.0, 1e-4, 100) };
        target.run(1.0, 60.0);
        let spent = 100.0 * target.objects as f64 * TRAP_NS as f64 / target.cpu;
        assert!((0.2..1.0).contains(&spent) && target.windows >= 10, "{spent} {}", target.windows);
    }

    #[test]
    fn a_target_that_hardly_works_is_looked_at_all_the_same() {
        let mut target = target(0.01, 1e-6, 5);
        target.run(1.0, 60.0);
        assert!((20..200).contains(&target.windows) && target.objects > 50, "{}", target.windows);
    }
}
