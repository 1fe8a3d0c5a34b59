//! Recording: a running process's events into a capture file and a state.

use std::io::Write;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::baseline::baseline;
use super::burst::Bursts;
use super::c;
use super::enrich::Enricher;
use super::evidence::Evidence;
use super::gauges::GaugeReader;
use super::holders::HolderScan;
use super::judge::Judge;
use super::observer::Observer;
use super::opening::{allocations, attach_options, site_info, start_of};
use super::options::{Mode, Options};
use super::overhead::{Breaker, Meter, step_traps};
use super::reading::PromptReader;
use super::records::Records;
use super::sampler::{Sampler, left_out};
use super::wait::{elapsed, stop_signal, until};
use crate::base::{Error, Result, monotonic_ns};
use crate::capture::Writer;
use crate::event::{Cost, End, EndReason, Event, Phase, Start, Tripped};
use crate::memory::LiveMemory;
use crate::model::State;
use crate::plan::{CostClass, ProbePlan};
use crate::runtime::{CounterReader, GcRecord, Layout, SpanReader};
use crate::source::live::{AttachOptions, CurgOffsets, LiveSource, Method, Prepared, trap_cost};
use crate::target::{Ended, Identity, Watch};

/// A recording that has ended.
#[derive(Debug)]
pub struct Recording {
    pub state: State,
    pub reason: EndReason,
}

/// How often the counters are read and the capture file is made to hold what has come:
/// a killed recorder loses no more than this.
const TICK: Duration = Duration::from_secs(1);

/// The same in the first second, so that coverage is known of programs that soon end.
const EARLY_TICK: Duration = Duration::from_millis(100);

/// How long a recording that ends waits for the spans of the latest GC cycle to be swept.
const LAST_JUDGEMENT: Duration = Duration::from_secs(1);

/// Records a process until it ends or is told to stop. The capture holds whatever came
/// until then, also when this fails.
///
/// # Errors
/// When the runtime's layout is unknown, probes cannot be placed, a limit is given and what
/// a trap costs cannot be measured, or the capture cannot be written.
pub async fn record<W: Write>(
    target: &Identity,
    options: &Options,
    writer: Writer<W>,
    observer: &mut dyn Observer,
) -> Result<Recording> {
    let mut stop = pin!(stop_signal()?);
    let layout = Layout::for_binary(&target.binary, &target.target.go_version)?;
    let pid = target.target.pid as i32;
    let memory = LiveMemory::new(pid);
    let (mut plan, sampler) = match options.mode {
        Mode::Exact | Mode::Burst => (ProbePlan::of(&target.binary)?, None),
        Mode::Runtime => {
            let sampler = Sampler::new(target, &layout, &memory, options.set_rate)?;
            (ProbePlan::of_sampler(&target.binary)?, Some(sampler))
        }
    };
    let gc_addresses = GcRecord::locate(&target.binary, &layout, target.target.load_bias)
        .map_err(|e| plan.leave_out_gc_records(&e.to_string()))
        .ok();
    if options.counts_only {
        plan.leave_out_assists();
    }
    let marks = plan.add_marks(&target.binary, &options.marks)?;
    let c = if options.cgo { Some(c::probes(target, &layout)?) } else { None };
    let watch = Watch::new(pid)?;
    let records = match &sampler {
        Some(sampler) => Records::choose(target, &layout, sampler, &watch, options).await,
        None => None,
    };
    let trap = trap_cost(Method::Auto, options.counts_only, CostClass::Emulated);
    let attach = AttachOptions {
        sampler: sampler.as_ref().map(Sampler::in_kernel),
        curg: Some(CurgOffsets { g_m: layout.g.m as u32, m_curg: layout.m.curg as u32 }),
        g_goid: layout.g.goid as u32,
        step_traps: step_traps(!marks.is_empty() || c.is_some(), &trap)?,
        c: c.as_ref().map(|(probes, _)| probes),
        allocations: allocations(records.is_some(), options),
        ..attach_options(target, &plan, gc_addresses, options)
    };
    let prepared = Prepared::new(&attach)?;
    let mut recorder =
        Recorder::start(target, &layout, &plan, sampler, &memory, (writer, observer), options)?;
    if let Some((records, why)) = records {
        recorder.put(Event::Note(why))?;
        recorder.records = Some(records);
    }
    let marks = (!marks.is_empty()).then_some(Event::Marks(marks));
    for event in marks.into_iter().chain(c.iter().flat_map(|(_, events)| events.clone())) {
        recorder.put(event)?;
    }
    let mut source = prepared.attach()?;
    recorder.set_rate(pid).await?;
    recorder.measure(trap, pid, options)?;
    recorder.read_counters(&mut source)?;
    recorder.follow(target, &layout, &source, options).await?;
    recorder.observer.ready()?;
    // Not before a program of ours runs: there is nothing to learn of it.
    let mut bursts = recorder.start_bursts(&mut source, &watch, options)?;
    let (mut holders, note) = HolderScan::start(options.evidence, target, &layout, memory);
    recorder.take(note)?;

    let mut gone = pin!(watch.wait());
    let mut over = pin!(elapsed(options.duration));
    let started = Instant::now();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reason = loop {
        tokio::select! {
            batch = source.recv() => match batch {
                Some(batch) => recorder.take(batch)?,
                None => return Err(Error::failed("the eBPF program's events ended unexpectedly")),
            },
            () = until(recorder.judgement_due()) => recorder.judge(&source, &watch)?,
            () = until(recorder.records.as_ref().map(Records::due)) => recorder.read_samples(&source)?,
            finished = HolderScan::ended(&mut holders) => {
                recorder.take(HolderScan::told(&mut holders, finished, &recorder.state))?;
            }
            ended = Bursts::all_ended(&mut bursts) => {
                bursts = None;
                ended?;
            }
            _ = tick.tick() => {
                recorder.read_counters(&mut source)?;
                recorder.read_c_counts(&mut source)?;
                recorder.tell_cost(&source)?;
                recorder.check_sampler(&mut source)?;
                recorder.writer.flush()?;
                recorder.tell_second()?;
                if started.elapsed() < TICK {
                    tick.reset_after(EARLY_TICK);
                }
            }
            ended = &mut gone => {
                recorder.say_ended(ended)?;
                break EndReason::TargetExited;
            }
            () = &mut over => break EndReason::Elapsed,
            () = &mut stop => break EndReason::Interrupted,
            () = until(recorder.look_due()) => {}
        }
        // Whatever it was: while batches keep coming no timer gets its turn.
        if recorder.look_due().is_some_and(|due| due <= Instant::now())
            && recorder.look(&mut source, &mut bursts).await?
        {
            recorder.tell_second()?;
        }
        recorder.gather_evidence(&watch, false)?;
        HolderScan::begin_if_due(&mut holders, &recorder.state);
        if recorder.observer.has_enough() {
            break EndReason::Interrupted;
        }
    };
    recorder.end_bursts(&mut source, &mut bursts).await?;
    recorder.records.as_mut().map(Records::hurry);
    recorder.read_counters(&mut source)?;
    recorder.tell_cost(&source)?;
    recorder.check_sampler(&mut source)?;
    recorder.judge_the_rest(&mut source, &watch).await?;
    recorder.gather_evidence(&watch, true)?;
    recorder.take(HolderScan::last(&mut holders, &recorder.state).await)?;
    source.detach();
    recorder.restore_rate()?;
    recorder.read_counts(&mut source)?;
    recorder.read_c_counts(&mut source)?;
    c::left_out(&source)?.map_or(Ok(()), |note| recorder.put(note))?;
    left_out(source.biased_samples()?).map_or(Ok(()), |note| recorder.put(Event::Note(note)))?;
    while let Some(batch) = source.recv().await {
        recorder.take(batch)?;
    }
    recorder.finish(reason)
}

/// Where every event of a recording goes: explained, into the file, into the state.
struct Recorder<'a, W: Write> {
    enricher: Enricher<'a>,
    memory: &'a LiveMemory,
    sampler: Option<Sampler>,
    /// `None`: a probe tells of samples, or all allocations are recorded.
    records: Option<Records>,
    counters: Option<PromptReader>,
    gauges: GaugeReader,
    judge: Option<Judge<LiveMemory>>,
    /// `None`: it was not asked for.
    evidence: Option<Evidence<'a>>,
    /// `None`: what the probes cost is not known.
    meter: Option<Meter>,
    /// `None`: it may cost anything, or it was too much.
    breaker: Option<Breaker>,
    writer: Writer<W>,
    observer: &'a mut dyn Observer,
    state: State,
    /// Reused between events.
    explanations: Vec<Event>,
}

impl<'a, W: Write> Recorder<'a, W> {
    fn start(
        target: &'a Identity,
        layout: &'a Layout,
        plan: &ProbePlan,
        sampler: Option<Sampler>,
        memory: &'a LiveMemory,
        (writer, observer): (Writer<W>, &'a mut dyn Observer),
        options: &Options,
    ) -> Result<Recorder<'a, W>> {
        let start = Start {
            sampling_rate: sampler.as_ref().map(Sampler::rate),
            budget_percent: (options.mode == Mode::Burst).then_some(options.budget),
            ..start_of(target, options.mode)
        };
        let mut recorder = Recorder {
            enricher: Enricher::new(target, layout, plan, memory)?,
            memory,
            sampler,
            records: None,
            counters: None,
            gauges: GaugeReader::new(target, layout),
            judge: None,
            evidence: None,
            meter: None,
            breaker: None,
            writer,
            observer,
            state: State::default(),
            explanations: Vec::new(),
        };
        recorder.put(Event::Start(start))?;
        recorder.put(Event::Sites(plan.sites.iter().map(site_info).collect()))?;
        for note in options.chosen.iter().chain(&plan.notes) {
            recorder.put(Event::Note(note.clone()))?;
        }
        recorder.read_baseline(target, layout)?;
        if options.evidence {
            let (evidence, notes) = Evidence::new(target, layout, memory);
            recorder.evidence = Some(evidence);
            recorder.take(notes)?;
        }
        match CounterReader::new(&target.binary, layout, target.target.load_bias) {
            Ok(reader) => recorder.counters = Some(PromptReader::new(reader)),
            Err(e) => recorder.put(Event::Note(format!("coverage is unknown: {e}")))?,
        }
        Ok(recorder)
    }

    /// Begins to follow objects until they die. Where that is not possible, allocations
    /// are recorded all the same.
    async fn follow(
        &mut self,
        target: &Identity,
        layout: &Layout,
        source: &LiveSource,
        options: &Options,
    ) -> Result<()> {
        if options.counts_only {
            return self.put(Event::Note(
                "allocations were only counted (--counts-only): which objects are alive is unknown".into(),
            ));
        }
        let max_memory = options.max_memory;
        if max_memory == 0 {
            return self.put(Event::Note("no memory was given to follow objects in (--max-memory 0)".into()));
        }
        let special = self.sampler.is_some().then(|| layout.special.clone());
        let judge = match SpanReader::new(&target.binary, layout, target.target.load_bias) {
            Ok(reader) => Judge::start(reader, *self.memory, special, options.mode, source).await,
            Err(e) => Err(e),
        };
        match judge {
            Ok(judge) => {
                self.judge = Some(judge);
                self.put(Event::Follow { max_memory })
            }
            Err(e) => self.put(Event::Note(format!("which objects are alive is unknown: {e}"))),
        }
    }

    /// Begins to open windows on allocations, if the source is made for that.
    fn start_bursts(
        &self,
        source: &mut LiveSource,
        watch: &Watch,
        options: &Options,
    ) -> Result<Option<Bursts>> {
        let Some(gate) = source.gate() else { return Ok(None) };
        let counters = self.counters.as_ref().map(|counters| counters.reader.clone());
        Bursts::start(gate, counters, *self.memory, self.meter, watch.clone(), options).map(Some)
    }

    /// Sees to it that no window is open, and that all that were are told.
    async fn end_bursts(&mut self, source: &mut LiveSource, bursts: &mut Option<Bursts>) -> Result<()> {
        let Some(mut bursts) = bursts.take() else { return Ok(()) };
        bursts.stop();
        loop {
            tokio::select! {
                batch = source.recv() => match batch {
                    Some(batch) => self.take(batch)?,
                    None => return Ok(()),
                },
                ended = bursts.ended() => return ended,
            }
        }
    }

    fn judgement_due(&self) -> Option<Instant> {
        self.judge.as_ref()?.due(&self.state)
    }

    fn judge(&mut self, source: &LiveSource, watch: &Watch) -> Result<()> {
        let begin = Instant::now();
        // Also those are judged that no reading has found so far.
        self.read_samples(source)?;
        let Some(judge) = &mut self.judge else { return Ok(()) };
        let events = judge.judge(&self.state, begin);
        // What was read may be another program's memory by now.
        if watch.ended().is_some() {
            return Ok(());
        }
        for event in events {
            if let (Event::Deaths { slots, .. }, Some(records)) = (&event, &mut self.records) {
                records.forget(slots);
            }
            self.put(event)?;
        }
        Ok(())
    }

    /// Judges the latest cycle that the probes have seen, once its events are here and as
    /// far as its spans get swept in time.
    async fn judge_the_rest(&mut self, source: &mut LiveSource, watch: &Watch) -> Result<()> {
        let latest = source.epoch()?;
        self.judge.as_mut().map(Judge::hurry);
        // Events may have piled up: the clock runs from when they were taken.
        let mut deadline = None;
        while let Some(judge) = &self.judge
            && judge.is_behind(latest)
            && watch.ended().is_none()
        {
            if self.state.latest_epoch >= latest {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + LAST_JUDGEMENT);
                if Instant::now() >= deadline {
                    let note = judge.obstacle();
                    return self.put(Event::Note(note));
                }
            }
            let due = judge.due(&self.state);
            tokio::select! {
                batch = source.recv() => match batch {
                    Some(batch) => self.take(batch)?,
                    None => return Ok(()),
                },
                () = until(due) => self.judge(source, watch)?,
            }
        }
        Ok(())
    }

    /// Begins to measure what the probes cost, given what one `trap` does, and to hold that
    /// against the limit.
    fn measure(&mut self, trap: Result<Duration>, pid: i32, options: &Options) -> Result<()> {
        match trap.and_then(|trap| Meter::start(pid, trap)) {
            Ok(meter) => {
                self.meter = Some(meter);
                let now = Instant::now();
                self.breaker = options.limit().map(|limit| Breaker::new(limit, now, Cost::default()));
                Ok(())
            }
            Err(e) if options.mode == Mode::Burst => Err(Error::environment(
                "what a trap costs cannot be measured: there is no keeping to a budget",
            )
            .because(e)
            .hint("record every allocation with --mode exact")),
            Err(e) if options.max_overhead.is_none() => {
                self.put(Event::Note(format!("what the probes cost the target is unknown: {e}")))
            }
            Err(e) => Err(Error::environment("what the probes cost cannot be measured")
                .because(e)
                .hint("without --max-overhead it need not be known")),
        }
    }

    fn cost(&self, source: &LiveSource) -> Result<Option<Cost>> {
        let Some(meter) = &self.meter else { return Ok(None) };
        Ok(meter.read(source.hits()?))
    }

    fn tell_cost(&mut self, source: &LiveSource) -> Result<()> {
        self.cost(source)?.map_or(Ok(()), |cost| self.put(Event::Cost(cost)))
    }

    /// When to hold the cost against the limit, if there is one.
    fn look_due(&self) -> Option<Instant> {
        self.breaker.as_ref().map(Breaker::due)
    }

    /// Holds the cost against the limit; true if it was too much.
    async fn look(&mut self, source: &mut LiveSource, bursts: &mut Option<Bursts>) -> Result<bool> {
        let Some(mut breaker) = self.breaker.take() else { return Ok(false) };
        // A target that has ended has no more to lose.
        let Some(cost) = self.cost(source)? else { return Ok(false) };
        let Some(overhead_percent) = breaker.look(Instant::now(), cost) else {
            self.breaker = Some(breaker);
            return Ok(false);
        };
        let limit_percent = breaker.limit_percent();
        // Read for the last time while every allocation is still seen, so that coverage is
        // that of the time until now.
        self.read_counters(source)?;
        self.counters = None;
        self.end_bursts(source, bursts).await?;
        source.detach_allocations();
        self.restore_rate()?;
        self.put(Event::Tripped(Tripped { time_ns: monotonic_ns(), overhead_percent, limit_percent }))?;
        self.observer.announce(&format!(
            "the probes took {overhead_percent:.1}% of the target's processor time, more than {limit_percent}%: no allocations are recorded any more"
        ));
        Ok(true)
    }

    /// Reads what the runtime's own heap profiler has sampled so far.
    fn read_baseline(&mut self, target: &Identity, layout: &Layout) -> Result<()> {
        let read = baseline(target, layout, self.memory);
        read.notes.into_iter().try_for_each(|note| self.put(Event::Note(note)))?;
        let mut symbols = Vec::new();
        for row in read.value.iter().flat_map(|baseline| &baseline.rows) {
            self.enricher.explain_pcs(&row.pcs, &mut symbols);
        }
        symbols.into_iter().try_for_each(|symbol| self.put(symbol))?;
        read.value.into_iter().try_for_each(|baseline| self.put(Event::Baseline(baseline)))
    }

    /// Takes a census when it is time, or when it is `now` or never.
    fn gather_evidence(&mut self, watch: &Watch, now: bool) -> Result<()> {
        let Some(evidence) = &mut self.evidence else { return Ok(()) };
        if !now && !evidence.is_due(&self.state) {
            return Ok(());
        }
        let events = evidence.gather(&self.state);
        // What was read may be another program's memory by now.
        if watch.ended().is_some() { Ok(()) } else { self.take(events) }
    }

    fn take(&mut self, batch: Vec<Event>) -> Result<()> {
        for mut event in batch {
            let mut explanations = std::mem::take(&mut self.explanations);
            self.enricher.explain(&mut event, &mut explanations);
            for explanation in explanations.drain(..) {
                self.put(explanation)?;
            }
            self.explanations = explanations;
            self.put(event)?;
        }
        Ok(())
    }

    fn put(&mut self, event: Event) -> Result<()> {
        self.state.apply(&event);
        self.observer.event(&event, &self.state);
        self.writer.write(&event)
    }

    fn tell_second(&mut self) -> Result<()> {
        self.put(Event::Gauges(self.gauges.read(self.memory)))?;
        self.observer.second(&self.state);
        let begin_ns = monotonic_ns();
        let phases = self.observer.phases().into_iter();
        phases.map(|name| Event::Phase(Phase { name, begin_ns })).try_for_each(|phase| self.put(phase))
    }

    /// Reads the runtime's counters. That they cannot be read any more, as when the
    /// target has just ended, leaves coverage to the readings before.
    fn read_counters(&mut self, source: &mut LiveSource) -> Result<()> {
        self.read_counts(source)?;
        let Some(reader) = &mut self.counters else { return Ok(()) };
        match reader.read(self.memory, source) {
            Ok(read) => {
                for note in read.notes {
                    self.put(Event::Note(note))?;
                }
                self.put(Event::Counters(read.value))
            }
            Err(e) if self.state.counters.is_none() => {
                self.put(Event::Note(format!("coverage is unknown: {e}")))
            }
            Err(e) => {
                log::debug!("runtime counters: {e}");
                Ok(())
            }
        }
    }

    /// Reads the samples that the program has taken, if no probe tells of them.
    fn read_samples(&mut self, source: &LiveSource) -> Result<()> {
        let Some(records) = &mut self.records else { return Ok(()) };
        let judge = self.judge.as_ref();
        let epochs = |sweepgen| Ok((source.epoch()?, judge.map_or(0, |judge| judge.epoch(sweepgen))));
        match records.read(epochs, |pcs| self.enricher.profiled_calls(pcs)) {
            Ok(events) => self.take(events),
            // The next reading tells of these samples, too.
            Err(e) => {
                log::debug!("the runtime's samples: {e}");
                Ok(())
            }
        }
    }

    /// Asks for the allocations that were only counted.
    fn read_counts(&mut self, source: &mut LiveSource) -> Result<()> {
        if self.records.as_ref().is_some_and(Records::is_cheap) {
            self.read_samples(source)?;
        }
        let counted = source.counted()?;
        self.take(Event::counted(&counted).collect())
    }

    /// Asks for what C has allocated and freed.
    fn read_c_counts(&mut self, source: &mut LiveSource) -> Result<()> {
        // Without the probes no free is seen any more.
        if self.state.c.is_none() || self.state.tripped.is_some() {
            return Ok(());
        }
        self.put(c::counts(source)?)
    }

    /// Sets the rate of samples that is asked for. The first sample of each P is not like the
    /// others then: the probes are in place by now and see it; where there are none, it is waited for.
    async fn set_rate(&mut self, pid: i32) -> Result<()> {
        let Some(sampler) = &mut self.sampler else { return Ok(()) };
        let Some(announcement) = sampler.announcement() else { return Ok(()) };
        self.observer.announce(&announcement);
        sampler.set_rate(pid)?;
        let mut notes = vec![Event::Note(announcement)];
        if let (Some(_), Some(counters)) = (&self.records, &self.counters) {
            notes.extend(sampler.settled(&counters.reader, self.memory).await.map(Event::Note));
        }
        self.take(notes)
    }

    /// Has the program sample as it did before. From here on no samples are recorded.
    fn restore_rate(&mut self) -> Result<()> {
        self.records = None;
        let outcome = self.sampler.take().and_then(|mut sampler| sampler.restore_rate());
        outcome.map_or(Ok(()), |note| self.put(Event::Note(note)))
    }

    /// Says when the program has changed the rate of samples, as it should not.
    fn check_sampler(&mut self, source: &mut LiveSource) -> Result<()> {
        let Some(sampler) = &mut self.sampler else { return Ok(()) };
        if let Some(counters) = &self.counters
            && let Some(settled) = sampler.settle(&counters.reader, self.memory)
        {
            source.set_sampler(&settled)?;
        }
        let changed = sampler.changed(self.memory);
        changed.map_or(Ok(()), |note| self.put(Event::Note(note)))
    }

    fn say_ended(&mut self, ended: Ended) -> Result<()> {
        if let Some(records) = self.records.take() {
            let age = records.age().as_secs_f64();
            self.put(Event::Note(format!(
                "the samples of the target's last {age:.1} s are missing: it ended before they were read"
            )))?;
        }
        match ended {
            Ended::Exited => Ok(()),
            Ended::Execed => self.put(Event::Note("the target became another program (execve)".into())),
        }
    }

    fn finish(mut self, reason: EndReason) -> Result<Recording> {
        self.put(Event::End(End { time_ns: monotonic_ns(), reason }))?;
        self.writer.finish()?;
        Ok(Recording { state: self.state, reason })
    }
}
