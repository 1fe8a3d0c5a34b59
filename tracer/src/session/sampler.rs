//! The target's own heap profiler, whose samples a recording may consist of.

use std::time::Duration;

use super::rate::SetRate;
use crate::base::units::format_count;
use crate::base::{Error, Result};
use crate::memory::{ProcessMemory, Word};
use crate::runtime::{CounterReader, Layout, ProfileReader};
use crate::target::Identity;

/// How often it is looked whether Ps have taken note of a rate, and the pause between.
const LOOKS: u32 = 20;
const LOOK: Duration = Duration::from_millis(5);

pub(super) struct Sampler {
    reader: ProfileReader,
    /// The program's own rate, as the recording began.
    own: u64,
    /// While the rate is not the program's own.
    set: Option<SetRate>,
    /// How the eBPF program tells which samples to leave out.
    in_kernel: tracer_common::Sampler,
}

impl Sampler {
    /// `rate` is the one to set later; `None`: the program's own.
    ///
    /// # Errors
    /// Usage when the profiler is off and is to be so.
    pub(super) fn new(
        target: &Identity,
        layout: &Layout,
        memory: &impl ProcessMemory,
        rate: Option<u64>,
    ) -> Result<Sampler> {
        let reader = ProfileReader::new(&target.binary, layout, target.target.load_bias)?;
        let own = reader.rate(memory)? as u64;
        match rate.or_else(|| u64::try_from(own as i64).ok()) {
            Some(rate @ 1..) => {
                let in_kernel = tracer_common::Sampler {
                    rate,
                    rate_address: reader.rate_address(),
                    g_m: layout.g.m,
                    m_p: layout.m.p,
                    p_mcache: layout.p.mcache,
                    next_sample: layout.mcache.next_sample,
                    mcache_rate: layout.mcache.mem_prof_rate.unwrap_or(tracer_common::Sampler::NO_FIELD),
                    was_set: u64::from(own != rate),
                    is_settled: 0,
                };
                Ok(Sampler { reader, own, set: None, in_kernel })
            }
            _ => Err(Error::usage(
                "the program's heap profiler is off (MemProfileRate 0): there are no samples to record",
            )
            .hint(
                "have it switched on for the recording, with --set-memprofile-rate 512KiB; or record every \
                 allocation with --mode exact",
            )),
        }
    }

    /// What reads the profiler's books.
    pub(super) fn reader(&self) -> &ProfileReader {
        &self.reader
    }

    /// Bytes per sample of those that are recorded.
    pub(super) fn rate(&self) -> u64 {
        self.in_kernel.rate
    }

    pub(super) fn in_kernel(&self) -> tracer_common::Sampler {
        self.in_kernel
    }

    /// What the eBPF program is to go by from now on, if that has changed: whether it still has to
    /// look at each sample's P. Ps that come later are found by the next call.
    pub(super) fn settle(
        &mut self,
        counters: &CounterReader,
        memory: &impl ProcessMemory,
    ) -> Option<tracer_common::Sampler> {
        let is_settled = u64::from(self.is_settled(counters, memory));
        let has_changed = self.in_kernel.is_settled != is_settled;
        self.in_kernel.is_settled = is_settled;
        if has_changed {
            log::debug!("every P samples by this rate: {}", is_settled != 0);
        }
        has_changed.then_some(self.in_kernel)
    }

    /// Waits until each P's next sample is due to the rate that was set, but not for long: what
    /// to tell the user where that is not seen to be so.
    pub(super) async fn settled(
        &self,
        counters: &CounterReader,
        memory: &impl ProcessMemory,
    ) -> Option<String> {
        for _ in 0..LOOKS {
            if self.is_settled(counters, memory) {
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
        Some(
            "a P that allocated nothing right after MemProfileRate was set has one sample too many, of the \
             first object it allocates"
                .into(),
        )
    }

    /// Whether each P's next sample is due to this rate.
    fn is_settled(&self, counters: &CounterReader, memory: &impl ProcessMemory) -> bool {
        let tracer_common::Sampler { rate, next_sample, mcache_rate, was_set, .. } = self.in_kernel;
        let all = |offset, is_settled: &dyn Fn(u64) -> bool| {
            let words = counters.mcache_words(memory, offset).unwrap_or_default();
            !words.is_empty() && words.into_iter().all(is_settled)
        };
        if mcache_rate != tracer_common::Sampler::NO_FIELD {
            return all(mcache_rate, &|known| known == rate);
        }
        // Which P has drawn its next sample at a rate that was set is not to be seen.
        was_set == 0 && all(next_sample, &|bytes| bytes != 0)
    }

    /// What `set_rate` is about to do, for the user; `None`: nothing.
    pub(super) fn announcement(&self) -> Option<String> {
        (self.own != self.rate()).then(|| {
            format!(
                "MemProfileRate of the program is set from {} to {} for the time of the recording",
                self.own,
                self.rate()
            )
        })
    }

    /// Sets the rate, if it is not the program's own.
    ///
    /// # Errors
    /// When the process is gone or may not be written to.
    pub(super) fn set_rate(&mut self, pid: i32) -> Result<()> {
        if self.own != self.rate() {
            let word = Word::open(pid, self.reader.rate_address())?;
            self.set = Some(SetRate::set(word, self.own, self.rate())?);
        }
        Ok(())
    }

    /// Sets the program's own rate again; what came of that, if there is anything to say.
    pub(super) fn restore_rate(&mut self) -> Option<String> {
        self.set.take()?.restore()
    }

    /// What to tell the user when the program has another rate by now.
    pub(super) fn changed(&self, memory: &impl ProcessMemory) -> Option<String> {
        // That the process is gone is seen elsewhere.
        let now = self.reader.rate(memory).ok()?;
        (u64::try_from(now) != Ok(self.rate())).then(|| {
            format!(
                "the program changed MemProfileRate from {} to {now}: what it allocates while that is so is \
                 missing from the estimates",
                self.rate()
            )
        })
    }
}

/// How many samples were left out, for people; `None`: none.
pub(super) fn left_out(count: u64) -> Option<String> {
    (count > 0).then(|| {
        format!(
            "samples left out, as the runtime took them because the rate had changed: {}",
            format_count(count)
        )
    })
}
