//! What the probes take of the target's processor time, and the limit to it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::base::{Error, Result};
use crate::event::Cost;
use crate::plan::CostClass;
use crate::source::live::{Method, trap_cost};

/// Tells what the probes cost, from when they were placed.
///
/// The target's processor time is that of its CPU clock, which counts nanoseconds: those
/// in `/proc/PID/stat` are of 10 ms, as much as there is between two looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    clock: ClockId,
    trap_ns: u64,
    begin: Duration,
}

impl Meter {
    /// # Errors
    /// Failed when the process has ended.
    pub(super) fn start(pid: i32, trap: Duration) -> Result<Meter> {
        let unreadable = |e| Error::failed("the target's processor time cannot be read").because(e);
        let clock = clock_getcpuclockid(Pid::from_raw(pid)).map_err(unreadable)?;
        let begin = clock_gettime(clock).map_err(unreadable)?.into();
        Ok(Meter { clock, trap_ns: trap.as_nanos() as u64, begin })
    }

    /// Nanoseconds that one trap takes.
    pub(super) fn trap_ns(&self) -> u64 {
        self.trap_ns
    }

    /// The cost so far, when there were so many hits; `None` once the target has ended.
    pub(super) fn read(&self, hits: u64) -> Option<Cost> {
        let now: Duration = clock_gettime(self.clock).ok()?.into();
        let cpu_ns = now.saturating_sub(self.begin).as_nanos() as u64;
        Some(Cost { hits, trap_ns: self.trap_ns, cpu_ns })
    }
}

/// For how many traps one on a single-stepped instruction counts, as at the ends of regions and
/// of C's functions.
pub(super) fn step_traps(are_any: bool, trap: &Result<Duration>) -> Result<u64> {
    match trap {
        Ok(trap) if are_any => {
            let step = trap_cost(Method::Auto, false, CostClass::SingleStepped)?;
            Ok(((step.as_nanos() as f64 / trap.as_nanos().max(1) as f64).round() as u64).max(1))
        }
        _ => Ok(1),
    }
}

/// How often the cost is compared with the limit.
const LOOK: Duration = Duration::from_millis(100);

/// What is compared is the latest time of this length in which the target was at work:
/// long enough for a burst of one look to make no difference, short enough to act within
/// a second.
pub(super) const OVER: Duration = Duration::from_millis(500);

/// The same where allocations are seen in windows, of which one may cost a lot.
pub(super) const OVER_WINDOWS: Duration = Duration::from_secs(10);

/// A target that uses less processor time from one look to the next is not at work: there
/// is nothing that probes could slow down.
const LEAST_CPU: Duration = Duration::from_millis(1);

/// Trips when the probes take more than their share of the target's processor time.
#[derive(Debug)]
pub(super) struct Breaker {
    limit_percent: f64,
    /// Over so much time.
    over: Duration,
    latest: (Instant, Cost),
    /// The looks in which the target was at work: of the latest only as many as make up a
    /// window.
    window: VecDeque<Interval>,
}

/// From one look to the next.
#[derive(Debug, Clone, Copy)]
struct Interval {
    length: Duration,
    traps_ns: u64,
    cpu_ns: u64,
}

impl Breaker {
    /// Looks from `now` on, when `cost` has been spent. The limit is in percent, over some time.
    pub(super) fn new((limit_percent, over): (f64, Duration), now: Instant, cost: Cost) -> Breaker {
        Breaker { limit_percent, over, latest: (now, cost), window: VecDeque::new() }
    }

    pub(super) fn limit_percent(&self) -> f64 {
        self.limit_percent
    }

    /// When to look again.
    pub(super) fn due(&self) -> Instant {
        self.latest.0 + LOOK
    }

    /// Takes a look: the overhead in percent, if it passes the limit.
    pub(super) fn look(&mut self, now: Instant, cost: Cost) -> Option<f64> {
        let (then, before) = std::mem::replace(&mut self.latest, (now, cost));
        let interval = Interval {
            length: now.saturating_duration_since(then),
            traps_ns: cost.hits.saturating_sub(before.hits).saturating_mul(cost.trap_ns),
            cpu_ns: cost.cpu_ns.saturating_sub(before.cpu_ns),
        };
        if u128::from(interval.cpu_ns) < LEAST_CPU.as_nanos() {
            return None;
        }
        self.window.push_back(interval);
        self.forget();
        self.overhead_percent().filter(|percent| *percent > self.limit_percent)
    }

    /// Forgets the oldest intervals that the window can do without.
    fn forget(&mut self) {
        let mut length = self.length();
        while let Some(oldest) = self.window.front()
            && length - oldest.length >= self.over
        {
            length -= oldest.length;
            self.window.pop_front();
        }
    }

    fn length(&self) -> Duration {
        self.window.iter().map(|interval| interval.length).sum()
    }

    /// Of the window, once that is long enough.
    fn overhead_percent(&self) -> Option<f64> {
        let sum = |of: fn(&Interval) -> u64| self.window.iter().map(of).fold(0, u64::saturating_add) as f64;
        // What was measured elsewhere may be more than what was used here.
        let share = (sum(|i| i.traps_ns) / sum(|i| i.cpu_ns)).min(1.0);
        (self.length() >= self.over).then_some(100.0 * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target with a CPU of its own that is looked at, each time after some time, some
    /// hits of a microsecond, and some CPU time, all in milliseconds of it.
    struct Looks {
        breaker: Breaker,
        now: Instant,
        cost: Cost,
    }

    impl Looks {
        fn of(limit_percent: f64) -> Looks {
            let (now, cost) = (Instant::now(), Cost { trap_ns: 1000, ..Cost::default() });
            Looks { breaker: Breaker::new((limit_percent, OVER), now, cost), now, cost }
        }

        fn look(&mut self, [length, traps, cpu]: [u64; 3]) -> Option<f64> {
            self.now += Duration::from_millis(length);
            self.cost.hits += traps * 1000;
            self.cost.cpu_ns += cpu * 1_000_000;
            self.breaker.look(self.now, self.cost)
        }

        /// The number of the look at which it trips, and the overhead.
        fn trips(&mut self, looks: impl IntoIterator<Item = [u64; 3]>) -> Option<(usize, f64)> {
            let mut looks = looks.into_iter().enumerate();
            looks.find_map(|(number, look)| Some((number, self.look(look)?)))
        }
    }

    #[test]
    fn it_trips_after_half_a_second_of_too_much() {
        assert_eq!(Looks::of(5.0).trips([[100, 6, 100]; 9]), Some((4, 6.0)));
        assert_eq!(Looks::of(5.0).trips([[100, 5, 100]; 100]), None, "the limit itself is allowed");
        assert_eq!(Looks::of(100.0).trips([[100, 300, 100]; 100]), None, "all is not more than all");
    }

    #[test]
    fn a_burst_of_one_look_does_not_trip_it() {
        let calm = [[100, 1, 100]; 4];
        let burst = [[100, 20, 100]];
        let looks = calm.into_iter().chain(burst).chain(calm);
        assert_eq!(Looks::of(5.0).trips(looks), None);
        // Two of them in half a second are more than 5% of it.
        let looks = calm.into_iter().chain(burst).chain([[100, 1, 100]; 2]).chain(burst);
        assert_eq!(Looks::of(5.0).trips(looks).map(|(number, _)| number), Some(7));
        // Nor does one of a target that otherwise idles.
        let mut idle = Looks::of(5.0);
        assert_eq!(idle.trips([[100, 0, 0]; 50]), None);
        assert_eq!(idle.trips([[100, 50, 100]]), None);
        assert_eq!(idle.trips([[100, 0, 0]; 50]), None);
    }

    #[test]
    fn bursts_that_keep_coming_trip_it() {
        let looks = [[100, 50, 100], [100, 0, 0], [100, 0, 0], [100, 0, 0]].into_iter().cycle();
        assert_eq!(Looks::of(5.0).trips(looks.take(100)), Some((16, 50.0)));
    }

    #[test]
    fn late_looks_do_not_delay_it() {
        assert_eq!(Looks::of(5.0).trips([[250, 100, 250]; 9]), Some((1, 40.0)));
        assert_eq!(Looks::of(5.0).trips([[900, 600, 300]]), Some((0, 100.0)), "never more than all");
    }

    #[test]
    fn own_processor_time_is_told() {
        let meter = Meter::start(std::process::id() as i32, Duration::from_micros(1)).expect("own clock");
        let begin = meter.read(0).expect("alive");
        while meter.read(7).expect("alive").cpu_ns < begin.cpu_ns + 1_000_000 {}
        let cost = meter.read(7).expect("alive");
        assert_eq!((cost.hits, cost.trap_ns), (7, 1000));
    }
}
