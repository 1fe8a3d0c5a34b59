//! Bursts: allocations seen in short windows at random times, so that what the traps cost
//! stays within a budget.
//!
//! Time is cut into segments, with one window in each. On a thread of its own, as placing
//! and removing probes makes it wait for the kernel.

mod budget;
mod weight;

use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::budget::{Budget, Segment};
use self::weight::{Observed, Rate, Reading, rate};
use super::Options;
use super::overhead::Meter;
use crate::base::{Error, Result, monotonic_ns};
use crate::event::{Cost, Event, Window};
use crate::memory::LiveMemory;
use crate::runtime::CounterReader;
use crate::source::live::{Gate, Hits, hurry};

/// The thread, until it is told to stop.
pub(super) struct Bursts {
    /// Dropped: stop.
    stop: Option<Sender<()>>,
    ended: oneshot::Receiver<Result<()>>,
}

impl Bursts {
    /// Begins to open windows.
    ///
    /// # Errors
    /// Failed when the counters cannot be read or the cost is not known. Environment: there
    /// is no room for another thread.
    pub(super) fn start(
        gate: Gate,
        counters: Option<CounterReader>,
        memory: LiveMemory,
        meter: Option<Meter>,
        options: &Options,
    ) -> Result<Bursts> {
        let counters = counters.ok_or_else(|| {
            Error::failed("the runtime's counters cannot be found: windows would say nothing of the rest")
                .hint("record every allocation with --mode exact")
        })?;
        let meter = meter.ok_or_else(|| Error::failed("what a trap costs is not known"))?;
        let (percent, pays_others) = (options.budget, !options.cgo);
        let (stop, stopped) = channel();
        let (end, ended) = oneshot::channel();
        let run = move || {
            // Every trap counts from when probes are in place until they are gone.
            hurry();
            let mut windows = Windows { gate, counters, memory, meter, stopped };
            let result = match windows.run(percent, pays_others) {
                // Whatever failed, it is because the target has ended.
                Err(_) if windows.cost().is_err() => Ok(()),
                result => result.map(|_| ()),
            };
            // Nobody may be waiting.
            let _told = end.send(result);
        };
        std::thread::Builder::new()
            .name("heaptap-bursts".into())
            .spawn(run)
            .map_err(|e| Error::environment("cannot start the thread that opens windows").because(e))?;
        Ok(Bursts { stop: Some(stop), ended })
    }

    /// As `ended`; never completes if there are no windows.
    pub(super) async fn all_ended(bursts: &mut Option<Bursts>) -> Result<()> {
        match bursts {
            Some(bursts) => bursts.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Has the window that may be open shut at once, and no other one opened.
    pub(super) fn stop(&mut self) {
        self.stop = None;
    }

    /// Waits until all windows are shut and told; cancel safe. Events must be received
    /// meanwhile. Not to be called again once it has returned.
    ///
    /// # Errors
    /// When a window could not be opened or shut though the target runs.
    pub(super) async fn ended(&mut self) -> Result<()> {
        (&mut self.ended).await.unwrap_or_else(|_| Err(Error::failed("the thread that opens windows ended")))
    }
}

/// Told to stop.
struct Stopped;

/// How waiting ended.
enum Waited {
    Through,
    /// The target has become busier than was planned for.
    Outdated,
    Stopped(Stopped),
}

/// What the thread owns.
struct Windows {
    gate: Gate,
    counters: CounterReader,
    memory: LiveMemory,
    meter: Meter,
    stopped: Receiver<()>,
}

/// How long the target is looked at before the first window.
const FIRST_LOOK: Duration = Duration::from_millis(50);

/// How long the target's own rate is looked at after probes are removed, at least.
const AFTER: Duration = Duration::from_millis(2);

/// Between two readings of the counters.
const BETWEEN_READINGS: Duration = Duration::from_millis(1);

/// Segments that last longer than this end early when the target becomes busier: else one
/// window would stand for much that it knows nothing of.
const PATIENT: Duration = Duration::from_secs(1);

/// Between two looks at whether the target has become busier.
const WATCH: Duration = Duration::from_millis(100);

/// Between two looks at whether a window has used up its allowance.
const LOOK: Range<Duration> = Duration::from_millis(1)..Duration::from_millis(20);

impl Windows {
    fn run(&mut self, percent: f64, pays_others: bool) -> Result<Stopped> {
        let mut begin_ns = monotonic_ns();
        let mut budget = Budget::new(percent, pays_others, self.meter.trap_ns(), begin_ns, self.cost()?);
        if let Some(stopped) = self.sleep_until(begin_ns + FIRST_LOOK.as_nanos() as u64) {
            return Ok(stopped);
        }
        loop {
            let segment = budget.plan(begin_ns, monotonic_ns(), self.cost()?, fastrand::f64);
            match self.wait(&segment, segment.window_ns, &budget)? {
                Waited::Through => {}
                Waited::Outdated => {
                    begin_ns = monotonic_ns();
                    continue;
                }
                Waited::Stopped(stopped) => return Ok(stopped),
            }
            let before = self.cost()?;
            let (observed, rates, end_ns) = self.window(&segment)?;
            budget.window(before, &observed, &rates, self.cost()?);
            begin_ns = match self.wait(&segment, end_ns, &budget)? {
                Waited::Through => end_ns,
                Waited::Outdated => monotonic_ns(),
                Waited::Stopped(stopped) => return Ok(stopped),
            };
        }
    }

    /// Waits in a segment.
    fn wait(&self, segment: &Segment, until_ns: u64, budget: &Budget) -> Result<Waited> {
        if segment.end_ns - segment.begin_ns <= PATIENT.as_nanos() as u64 {
            return Ok(self.sleep_until(until_ns).map_or(Waited::Through, Waited::Stopped));
        }
        let mut looked = (monotonic_ns(), self.cost()?);
        loop {
            let left = Duration::from_nanos(until_ns.saturating_sub(looked.0));
            let some = left.min(WATCH);
            if let Some(stopped) = self.sleep(some) {
                return Ok(Waited::Stopped(stopped));
            }
            if some == left {
                return Ok(Waited::Through);
            }
            let now = (monotonic_ns(), self.cost()?);
            let cpu_ns = now.1.cpu_ns.saturating_sub(looked.1.cpu_ns);
            if budget.is_outdated(cpu_ns as f64 / (now.0 - looked.0).max(1) as f64) {
                return Ok(Waited::Outdated);
            }
            looked = now;
        }
    }

    /// Opens a window, shuts it, and tells of it. Returns also at which rates the target
    /// allocates by itself, and when the segment ends.
    fn window(&mut self, segment: &Segment) -> Result<(Observed, Vec<Rate>, u64)> {
        let around = Around { memory: self.memory, counters: self.counters.clone(), hits: self.gate.hits() };
        let phase = AtomicU8::new(Around::READ);
        let (observed, readings) = std::thread::scope(|scope| {
            // In no hurry: the target is to run as it does by itself.
            let readings = scope.spawn(|| around.readings(&phase));
            let observed = self.see(segment, &phase);
            phase.store(Around::FINISH, Ordering::Relaxed);
            (observed, readings.join())
        });
        let observed = observed?;
        let readings = readings.map_err(|_| Error::failed("reading the counters panicked"))??;
        let (before, after) = readings.split_at(readings.partition_point(|r| r.time_ns < observed.begin_ns));
        let rates = [rate(before.iter().rev()), rate(after.iter())];
        let rates: Vec<Rate> = rates.into_iter().flatten().collect();
        let trap_ns = self.meter.trap_ns();
        let end_ns = segment.end_ns.max(monotonic_ns());
        let length_ns = end_ns - segment.begin_ns;
        let weight = observed.weight(length_ns, trap_ns, &rates);
        let expected = observed.expected(length_ns, trap_ns, &rates);
        let Observed { begin_ns, end_ns: shut_ns, objects, .. } = observed;
        log::debug!(
            "window of {:.1} ms for {:.1} ms: {objects} objects of {}, {:.1}% of its time traps, weight {weight:.1}, of sizes {expected:?}",
            (shut_ns - begin_ns) as f64 / 1e6,
            length_ns as f64 / 1e6,
            segment.allowance,
            100.0 * observed.traps(trap_ns),
        );
        self.gate.tell(Event::Window(Window { begin_ns, end_ns: shut_ns, objects, weight, expected }));
        Ok((observed, rates, end_ns))
    }

    /// Places the probes, has the gate open for a time, and removes them.
    fn see(&mut self, segment: &Segment, phase: &AtomicU8) -> Result<Observed> {
        let probes = self.gate.place()?;
        phase.store(Around::PAUSE, Ordering::Relaxed);
        let observed = self.open(segment)?;
        phase.store(Around::READ, Ordering::Relaxed);
        drop(probes);
        Ok(observed)
    }

    /// Lets allocations pass until there were enough or the time is over.
    fn open(&mut self, segment: &Segment) -> Result<Observed> {
        let already = self.gate.passed()?.objects;
        let before = self.cost()?;
        self.gate.allow(segment.allowance)?;
        let begin_ns = monotonic_ns();
        let latest_ns = begin_ns + segment.open.as_nanos() as u64;
        loop {
            let passed = self.gate.passed()?;
            let objects = passed.objects.wrapping_sub(already);
            let left = segment.allowance.saturating_sub(objects);
            // If it came to the worst, half of what is left would be used up by then.
            let soon = Duration::from_nanos(left.saturating_mul(self.meter.trap_ns()) / 2);
            let time_left = Duration::from_nanos(latest_ns.saturating_sub(monotonic_ns()));
            let wait = soon.clamp(LOOK.start, LOOK.end).min(time_left);
            if left == 0 || wait.is_zero() || self.sleep(wait).is_some() {
                let after = self.cost()?;
                self.gate.allow(0)?;
                let end_ns = if left == 0 { passed.last_ns.max(begin_ns) } else { monotonic_ns() };
                let objects = self.gate.passed()?.objects.wrapping_sub(already);
                return Ok(Observed { begin_ns, end_ns, objects, before, after });
            }
        }
    }

    fn cost(&self) -> Result<Cost> {
        self.meter.read(self.gate.hits().read()?).ok_or_else(|| Error::failed("the target has ended"))
    }

    fn sleep_until(&self, time_ns: u64) -> Option<Stopped> {
        self.sleep(Duration::from_nanos(time_ns.saturating_sub(monotonic_ns())))
    }

    fn sleep(&self, duration: Duration) -> Option<Stopped> {
        match self.stopped.recv_timeout(duration) {
            Err(RecvTimeoutError::Timeout) => None,
            _ => Some(Stopped),
        }
    }
}

/// What reads the runtime's counters while probes are placed and removed, which the target
/// hardly notices: so they tell how fast it allocates by itself.
struct Around {
    memory: LiveMemory,
    counters: CounterReader,
    hits: Hits,
}

impl Around {
    /// What it is to do.
    const READ: u8 = 0;
    const PAUSE: u8 = 1;
    /// Read for some more time, then end.
    const FINISH: u8 = 2;

    fn readings(&self, phase: &AtomicU8) -> Result<Vec<Reading>> {
        let mut readings = Vec::new();
        let mut finish = None;
        loop {
            let now = Instant::now();
            let phase = phase.load(Ordering::Relaxed);
            if phase == Around::FINISH && now > *finish.get_or_insert(now + AFTER) {
                return Ok(readings);
            }
            if phase != Around::PAUSE {
                readings.push(self.reading()?);
            }
            std::thread::sleep(BETWEEN_READINGS);
        }
    }

    fn reading(&self) -> Result<Reading> {
        let counters = self.counters.read(&self.memory)?.value;
        let time_ns = counters.begin_ns.midpoint(counters.end_ns);
        Ok(Reading { time_ns, objects: counters.objects, by_slot: counters.by_slot, hits: self.hits.read()? })
    }
}
