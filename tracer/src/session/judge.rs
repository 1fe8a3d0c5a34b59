//! Learns of deaths: after each GC cycle, reads the marks of spans with followed objects.
//!
//! Of a sampled recording it is asked in addition whether the runtime's sampler still knows
//! the object: then any later reading tells its death, whoever has its slot by then.
//!
//! A reading judges what it can: spans that are swept. Until all are, it is repeated; a
//! cycle that is overtaken by the next one before that stays judged in part, and what died
//! in it is found with the next one's marks.

use std::time::{Duration, Instant};

use super::Mode;
use crate::base::{Error, Result, monotonic_ns, thread_cpu_ns};
use crate::event::{Event, Judged};
use crate::memory::ProcessMemory;
use crate::model::{Fate, State};
use crate::runtime::{PageMarks, SpanReader, Special};
use crate::source::live::LiveSource;

/// The pause between two readings, at least.
const PAUSE: Duration = Duration::from_millis(1);

/// What a reading takes, times this, passes before the next: under a heap that is collected
/// without end, they take a fifth of the collector's time, which is the target's machine's.
const REST: u32 = 4;

/// The same in a recording by windows, which is to be cheap for the machine, too: a twentieth.
const REST_OF_WINDOWS: u32 = 19;

/// The same where a cycle that was not judged hides no death: a quarter of a percent.
const LONG_REST: u32 = 399;

/// Deaths in one event, so that none outgrows a frame of the capture.
const DEATHS: usize = 1 << 15;

/// How long the counts of two samples must agree, and how often that is tried.
const SETTLE: Duration = Duration::from_millis(2);
const ATTEMPTS: usize = 50;

pub(super) struct Judge<M> {
    reader: SpanReader,
    memory: M,
    /// Of a sampled recording.
    special: Option<Special>,
    rest: u32,
    /// `mheap_.sweepgen` while the epoch was 0; it grows by 2 with each epoch.
    zero: u32,
    /// The latest epoch whose cycle was judged in full.
    judged: u32,
    /// Not to be repeated before.
    next: Instant,
    /// Why the latest reading did not judge its cycle in full.
    obstacle: String,
}

impl<M: ProcessMemory> Judge<M> {
    /// Finds out which GC cycle the eBPF program's epochs are counted from. With `special`
    /// those objects are judged that the runtime's heap profiler samples.
    ///
    /// # Errors
    /// Failed when that cannot be told, or memory cannot be read.
    pub(super) async fn start(
        reader: SpanReader,
        memory: M,
        special: Option<Special>,
        mode: Mode,
        source: &LiveSource,
    ) -> Result<Judge<M>> {
        let mut before = None;
        for _ in 0..ATTEMPTS {
            let sample = zero(&reader, &memory, source)?;
            if let Some(zero) = sample
                && before == sample
            {
                return Ok(Judge {
                    reader,
                    memory,
                    rest: match mode {
                        Mode::Exact => REST,
                        Mode::Burst => REST_OF_WINDOWS,
                        Mode::Runtime => LONG_REST,
                    },
                    special,
                    zero,
                    judged: 0,
                    next: Instant::now(),
                    obstacle: String::new(),
                });
            }
            // Marking may have been ending just then: the two counts change one after the other.
            before = sample;
            tokio::time::sleep(SETTLE).await;
        }
        Err(Error::failed("GC cycles follow each other too fast to be told apart"))
    }

    /// The epoch that the cycle with this `mheap_.sweepgen` has begun.
    pub(super) fn epoch(&self, sweepgen: u32) -> u32 {
        sweepgen.wrapping_sub(self.zero) / 2
    }

    /// Whether a cycle up to this epoch is left to be judged.
    pub(super) fn is_behind(&self, epoch: u32) -> bool {
        epoch > self.judged
    }

    /// When to judge, if there is anything to.
    pub(super) fn due(&self, state: &State) -> Option<Instant> {
        self.is_behind(state.latest_epoch).then_some(self.next)
    }

    /// From now on rests no longer than to let spans be swept: the recording ends.
    pub(super) fn hurry(&mut self) {
        self.rest = self.rest.min(REST);
        self.next = Instant::now();
    }

    /// Why a cycle is left, for people.
    pub(super) fn obstacle(&self) -> String {
        format!("the marks of the last GC cycle could not all be read in time: {}", self.obstacle)
    }

    /// Reads the marks and compares: the events that tell what was found, none if that
    /// was not possible. The rest after it is for all that was done since `begin`.
    pub(super) fn judge(&mut self, state: &State, begin: Instant) -> Vec<Event> {
        let events = self.events(state).unwrap_or_else(|e| {
            // The target may just be ending: others see to that.
            self.obstacle = e.to_string();
            Vec::new()
        });
        self.next = Instant::now() + (begin.elapsed() * self.rest).max(PAUSE);
        events
    }

    fn events(&mut self, state: &State) -> Result<Vec<Event>> {
        let (time_ns, cpu_ns) = (monotonic_ns(), thread_cpu_ns());
        let Some(live) = &state.live else { return Ok(Vec::new()) };
        let marks = self.reader.marks(&self.memory, |page| live.follows(page), self.special.as_ref())?;
        let epoch = self.epoch(marks.sweepgen);
        // The epoch begins a moment before or after the runtime counts the cycle.
        if epoch < state.latest_epoch {
            self.obstacle = "the runtime has not counted it yet".into();
            return Ok(Vec::new());
        }
        self.obstacle = format!(
            "of {} spans {} were not swept yet, {} could not be understood",
            marks.spans(),
            marks.waiting,
            marks.torn
        );
        let mut pages = marks.pages();
        let dead = live.dead(epoch, |page| fate(pages.at(page)));
        let took_ns = thread_cpu_ns().saturating_sub(cpu_ns);
        log::debug!(
            "marks of epoch {epoch}: {} in {:.1} ms; {} dead",
            self.obstacle,
            took_ns as f64 / 1e6,
            dead.len()
        );
        let mut events = Vec::new();
        if marks.user_arenas > 0 {
            events.push(Event::Note("the program uses user arenas: objects in them are not seen".into()));
        }
        events.extend(dead.chunks(DEATHS).map(|slots| Event::Deaths { epoch, slots: slots.to_vec() }));
        // Were it a later one, allocations from before it would still be to come.
        if marks.waiting == 0 && marks.torn == 0 && epoch == state.latest_epoch {
            self.judged = epoch;
            events.push(Event::Judged(Judged { epoch, time_ns, took_ns, spans: marks.spans() }));
        }
        Ok(events)
    }
}

/// `mheap_.sweepgen` as it was at epoch 0; `None` when an epoch began meanwhile.
fn zero(reader: &SpanReader, memory: &impl ProcessMemory, source: &LiveSource) -> Result<Option<u32>> {
    let before = source.epoch()?;
    let sweepgen = reader.sweepgen(memory)?;
    let after = source.epoch()?;
    Ok((before == after).then(|| sweepgen.wrapping_sub(after.wrapping_mul(2))))
}

fn fate(marks: PageMarks<'_>) -> Fate<'_> {
    match marks {
        PageMarks::Unknown => Fate::Unknown,
        PageMarks::NoSpan => Fate::Gone,
        PageMarks::Swept { slot_size, first, bits } => Fate::Marked { size: slot_size, first, bits },
    }
}
