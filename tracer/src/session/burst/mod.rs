//! Bursts: allocations seen in short windows at random times, so that what the traps cost
//! stays within a budget.
//!
//! Time is cut into segments, with one window in each. On a thread of its own, as placing
//! and removing probes makes it wait for the kernel.

mod budget;
mod rate;
mod weight;

use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use self::budget::{Budget, Segment};
use self::rate::{ENOUGH, NEAR_NS, NEXT_NS, Rate, Reading, around, by_level, near};
use self::weight::Observed;
use super::Options;
use super::overhead::Meter;
use crate::base::{Error, Result, monotonic_ns};
use crate::event::{Cost, Event, Window};
use crate::memory::LiveMemory;
use crate::runtime::CounterReader;
use crate::source::live::{Gate, Hits, hurry};
use crate::target::Watch;

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
        watch: Watch,
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
            let reader = Reader::new(memory, counters, gate.hits());
            let mut windows = Windows { gate, meter, watch, stopped };
            let result = match windows.run(&reader, percent, pays_others) {
                // Whatever failed, it is because the target has ended, which others tell.
                Err(_) if windows.watch.ended().is_some() => Ok(()),
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
    meter: Meter,
    watch: Watch,
    stopped: Receiver<()>,
}

/// How long the target is looked at before the first window.
const FIRST_LOOK: Duration = Duration::from_millis(50);

/// How long the target's own rate is looked at closely after a window, at least.
const AFTER: Duration = Duration::from_millis(4);

/// Segments that last longer than this end early when the target becomes busier: else one
/// window would stand for much that it knows nothing of.
const PATIENT: Duration = Duration::from_secs(1);

/// Between two looks at whether the target has become busier.
const WATCH: Duration = Duration::from_millis(100);

/// Between two looks at whether a window has used up its allowance.
const LOOK: Range<Duration> = Duration::from_millis(1)..Duration::from_millis(20);

impl Windows {
    fn run(&mut self, reader: &Reader, percent: f64, pays_others: bool) -> Result<Stopped> {
        std::thread::scope(|scope| {
            // In no hurry: the target is to run as it does by itself.
            let thread = scope.spawn(|| reader.run());
            let set_pace = |pace| {
                reader.pace.store(pace, Ordering::Relaxed);
                thread.thread().unpark();
            };
            let result = self.segments(percent, pays_others, reader, set_pace);
            set_pace(Reader::END);
            result
        })
    }

    fn segments(
        &mut self,
        percent: f64,
        pays_others: bool,
        reader: &Reader,
        set_pace: impl Fn(u8),
    ) -> Result<Stopped> {
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
            let observed = self.window(&segment, &set_pace)?;
            let after = self.cost()?;
            let stopped = self.sleep(AFTER);
            set_pace(Reader::FAR);
            let end_ns = segment.end_ns.max(monotonic_ns());
            let mut readings = reader.take();
            if self.watch.ended().is_some() {
                // They may be of another program's memory.
                readings.clear();
            }
            let rates = self.tell(&segment, end_ns, &observed, &readings);
            budget.window(before, &observed, &rates, after);
            if let Some(stopped) = stopped {
                return Ok(stopped);
            }
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

    /// Places the probes, has the gate open for a time, and removes them.
    fn window(&mut self, segment: &Segment, set_pace: impl Fn(u8)) -> Result<Observed> {
        set_pace(Reader::NEAR);
        let probes = self.gate.place()?;
        set_pace(Reader::PAUSE);
        let observed = self.open(segment)?;
        set_pace(Reader::NEAR);
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

    /// Tells of the window of a segment that ends then, given the readings since the one before;
    /// at which rates the target allocates by itself around it.
    fn tell(&self, segment: &Segment, end_ns: u64, observed: &Observed, readings: &[Reading]) -> Vec<Rate> {
        let rates = around(readings, observed.begin_ns, NEAR_NS);
        let trap_ns = self.meter.trap_ns();
        let segment_ns = end_ns - segment.begin_ns;
        let weight = observed.weight(segment_ns, trap_ns, &rates);
        let expected = observed.expected(segment_ns, trap_ns, &rates);
        let near = near(&around(readings, observed.begin_ns, NEXT_NS));
        let counted = by_level(readings);
        let Observed { begin_ns, end_ns, objects, .. } = *observed;
        log::debug!(
            "window of {:.1} ms for {:.1} ms: {objects} objects of {}, {:.1}% of its time traps, weight {weight:.1}, of sizes {expected:?}, near {near:?}, counted {counted:?}",
            (end_ns - begin_ns) as f64 / 1e6,
            segment_ns as f64 / 1e6,
            segment.allowance,
            100.0 * observed.traps(trap_ns),
        );
        let window = Window { begin_ns, end_ns, segment_ns, objects, weight, expected, near, counted };
        self.gate.tell(Event::Window(window));
        rates
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

/// What reads the runtime's counters, which the target hardly notices: so they tell how fast
/// it allocates by itself.
struct Reader {
    memory: LiveMemory,
    counters: CounterReader,
    hits: Hits,
    pace: AtomicU8,
    /// Since the latest one of the window before.
    readings: Mutex<Vec<Reading>>,
}

impl Reader {
    /// Its pace: all the time; close to a window; not at all; and no more.
    const FAR: u8 = 0;
    const NEAR: u8 = 1;
    const PAUSE: u8 = 2;
    const END: u8 = 3;

    /// Between two readings close to a window, and so many of them.
    const CLOSE: Duration = Duration::from_millis(1);
    const FEW: u32 = 8;

    /// Between two others; the longest where next to nothing is allocated.
    const APART: Range<Duration> = Duration::from_millis(10)..Duration::from_millis(50);

    /// Pauses are this many times as long as a reading takes, at least: with many Ps there
    /// is much to read.
    const PAUSE_RATIO: u32 = 20;

    fn new(memory: LiveMemory, counters: CounterReader, hits: Hits) -> Reader {
        Reader { memory, counters, hits, pace: AtomicU8::new(Reader::FAR), readings: Mutex::default() }
    }

    fn run(&self) {
        let mut near = 0;
        loop {
            let pace = self.pace.load(Ordering::Relaxed);
            near = if pace == Reader::NEAR { near + 1 } else { 0 };
            // Whoever sets the pace wakes this thread, also if it comes before.
            match pace {
                Reader::END => return,
                Reader::PAUSE => std::thread::park(),
                _ => {
                    // Ps may come and go while they are read; what is missing is one reading.
                    let (took, is_idle) = self.read().unwrap_or_else(|e| {
                        log::debug!("runtime counters: {e}");
                        (Duration::ZERO, true)
                    });
                    std::thread::park_timeout(match near {
                        1..Reader::FEW => Reader::CLOSE,
                        _ if is_idle => Reader::APART.end,
                        _ => Reader::APART.start.max(took * Reader::PAUSE_RATIO),
                    });
                }
            }
        }
    }

    /// Adds a reading; how long it took, and whether the target hardly allocated since the
    /// latest one.
    fn read(&self) -> Result<(Duration, bool)> {
        let counters = self.counters.read(&self.memory)?.value;
        let took = Duration::from_nanos(counters.end_ns.saturating_sub(counters.begin_ns));
        let time_ns = counters.begin_ns.midpoint(counters.end_ns);
        let objects = counters.objects;
        let reading = Reading { time_ns, objects, by_slot: counters.by_slot, hits: self.hits.read()? };
        let mut readings = self.lock();
        let is_idle = readings.last().is_some_and(|last| objects.saturating_sub(last.objects) < ENOUGH);
        readings.push(reading);
        Ok((took, is_idle))
    }

    /// All since the latest one that was taken before, with that.
    fn take(&self) -> Vec<Reading> {
        let mut readings = self.lock();
        let latest = readings.last().cloned();
        std::mem::replace(&mut *readings, latest.into_iter().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Reading>> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
