//! The runtime's samples without a probe: from the books that its heap profiler keeps of them.
//!
//! A trap costs the target a microsecond and more, which shows where it allocates gigabytes a
//! second. How many samples a stack has had stands in its bucket; which of them are alive, in
//! the lists of specials. So from one reading to the next, those samples of a bucket that have no
//! special have died.

mod ledger;

use std::time::{Duration, Instant};

use ledger::{At, Ledger};

use super::options::Options;
use super::sampler::Sampler;
use crate::base::units::format_count;
use crate::base::{Result, monotonic_ns, thread_cpu_ns};
use crate::event::{Counters, Event};
use crate::memory::{LiveMemory, ProcessMemory};
use crate::runtime::{Bucket, CounterReader, Layout, ProfileReader, Samples, SpanReader, Special};
use crate::target::{Identity, Watch};

/// More samples a second than this are read, fewer probed: so many traps take 0.1 to 0.2% of
/// a processor (docs/BENCHMARKS.md).
const MOST_TRAPPED: f64 = 1000.0;

/// How long the target is watched to tell how many samples there are.
const TRIAL: Duration = Duration::from_millis(100);

/// The pause between two readings: at least, and times the processor time that one takes, so that it does
/// not show in the target's throughput (docs/BENCHMARKS.md).
const PAUSE: Duration = Duration::from_millis(100);
const REST: u32 = 399;

/// Reads them, again and again.
pub(super) struct Records {
    books: Books<LiveMemory>,
    watch: Watch,
    max_depth: usize,
    ledger: Ledger,
    /// When it was last read, the processor time which that took, and when to read again.
    latest: Instant,
    took: Duration,
    next: Instant,
}

/// Where the profiler keeps its books.
struct Books<M> {
    profile: ProfileReader,
    spans: SpanReader,
    special: Special,
    memory: M,
}

impl<M: ProcessMemory> Books<M> {
    /// The buckets first: what became of those that they count is told by the objects.
    fn read(&self, is_first: bool) -> Result<(Vec<Bucket>, Samples)> {
        let buckets = || Ok(self.profile.read(&self.memory)?.value.buckets);
        let mut before = buckets()?;
        let samples = self.spans.samples(&self.memory, &self.special)?;
        // What is allocated between this and the counters' reading would count as seen.
        if is_first {
            before = buckets()?;
        }
        Ok((before, samples))
    }
}

/// How many the profiler takes between two readings of the runtime's counters.
fn samples_a_second(before: &Counters, after: &Counters, rate: u64) -> f64 {
    let seconds = after.begin_ns.saturating_sub(before.begin_ns) as f64 / 1e9;
    let objects = after.objects.saturating_sub(before.objects) as f64;
    let bytes = after.bytes.saturating_sub(before.bytes) as f64;
    if seconds > 0.0 { objects.min(bytes / rate.max(1) as f64) / seconds } else { 0.0 }
}

impl Records {
    /// What reads the samples that the program takes, and why, for people; `None`: they are to be
    /// probed.
    pub(super) async fn choose(
        target: &Identity,
        layout: &Layout,
        sampler: &Sampler,
        watch: &Watch,
        options: &Options,
    ) -> Option<(Records, String)> {
        let (binary, load_bias) = (&target.binary, target.target.load_bias);
        let memory = LiveMemory::new(target.target.pid as i32);
        // Where these cannot be read, a probe sees samples all the same.
        let counters = CounterReader::new(binary, layout, load_bias).ok()?;
        let spans = SpanReader::new(binary, layout, load_bias).ok()?;
        let before = counters.read(&memory).ok()?;
        tokio::time::sleep(TRIAL).await;
        let after = counters.read(&memory).ok()?;
        let per_second = samples_a_second(&before.value, &after.value, sampler.rate());
        if per_second <= MOST_TRAPPED {
            return None;
        }
        let profile = sampler.reader().clone();
        let records = Records {
            books: Books { profile, spans, special: layout.special.clone(), memory },
            watch: watch.clone(),
            max_depth: options.max_depth as usize,
            ledger: Ledger::default(),
            latest: Instant::now(),
            took: Duration::ZERO,
            next: Instant::now(),
        };
        let why = format!(
            "the program's heap profiler takes some {} samples a second: they are read from its own records, as \
             a probe would cost the program more; what dies between two readings is counted as having survived \
             no GC cycle",
            format_count(per_second as u64)
        );
        Some((records, why))
    }

    /// When to read again.
    pub(super) fn due(&self) -> Instant {
        self.next
    }

    /// These were told to have died, by their slots as in [`Event::Deaths`].
    pub(super) fn forget(&mut self, slots: &[u64]) {
        self.ledger.forget(slots);
    }

    /// For how long nothing was read.
    pub(super) fn age(&self) -> Duration {
        self.latest.elapsed()
    }

    /// From now on reads whenever it may: the recording ends.
    pub(super) fn hurry(&mut self) {
        self.took = Duration::ZERO;
    }

    /// Whether to read again with each reading of the counters, too.
    pub(super) fn is_cheap(&self) -> bool {
        self.took * REST < Duration::from_secs(1)
    }

    /// What was sampled since the last time; the first time, nothing. `epochs` is asked for the
    /// current one and that which the cycle with some `mheap_.sweepgen` has begun, `calls` for the
    /// return addresses that those of a bucket stand for.
    ///
    /// # Errors
    /// Failed when the process is gone, and that of `epochs`.
    pub(super) fn read(
        &mut self,
        epochs: impl FnOnce(u32) -> Result<(u32, u32)>,
        mut calls: impl FnMut(&[u64]) -> Vec<u64>,
    ) -> Result<Vec<Event>> {
        let (begin, cpu_ns) = (Instant::now(), thread_cpu_ns());
        let read = self.books.read(self.ledger.is_empty());
        self.took = Duration::from_nanos(thread_cpu_ns().saturating_sub(cpu_ns));
        self.next = Instant::now() + (self.took * REST).max(PAUSE);
        // What was read may be another program's memory by now.
        if self.watch.ended().is_some() {
            return Ok(Vec::new());
        }
        let (buckets, samples) = read?;
        self.latest = begin;
        // Not before the objects were seen: none is taken for older than it is.
        let (epoch, survived) = epochs(samples.sweepgen)?;
        let at = At { time_ns: monotonic_ns(), epoch, survived };
        log::debug!(
            "samples: {} alive, of {} buckets; {} spans were being changed; {:.1} ms",
            samples.objects.len(),
            buckets.len(),
            samples.torn,
            self.took.as_secs_f64() * 1e3
        );
        let max_depth = self.max_depth;
        Ok(self.ledger.take(&buckets, &samples.objects, at, |pcs| {
            let mut calls = calls(pcs);
            calls.truncate(max_depth);
            calls
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_as_many_as_the_bytes_have_room_for() {
        let before = Counters { begin_ns: 1_000_000_000, objects: 10, bytes: 100, ..Counters::default() };
        let after = |objects: u64, bytes: u64| Counters {
            begin_ns: 1_500_000_000,
            objects: 10 + objects,
            bytes: 100 + bytes,
            ..Counters::default()
        };
        for (objects, bytes, rate, want) in [
            (1 << 20, 1 << 30, 512 << 10, 4096.0),
            // No more than there are objects.
            (50, 1 << 30, 512 << 10, 100.0),
            (1000, 64_000, 1, 2000.0),
            (1000, 64_000, 0, 2000.0),
            (0, 0, 512, 0.0),
        ] {
            assert_eq!(samples_a_second(&before, &after(objects, bytes), rate), want, "{objects} {rate}");
        }
        assert_eq!(samples_a_second(&before, &before, 512), 0.0);
    }
}
