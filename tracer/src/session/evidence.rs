//! Evidence for leaks that no probe sees: a census of the process every few seconds, best when
//! the marks of a GC cycle have just been read.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use procfs::process::Process;

use crate::event::{Event, MemoryCensus, StackId};
use crate::memory::LiveMemory;
use crate::model::State;
use crate::runtime::{CensusReader, Layout, Taken};
use crate::target::Identity;

/// The pause between two censuses at least, when a GC cycle was judged in between; and when not.
const PAUSE: Duration = Duration::from_secs(1);
const LONG_PAUSE: Duration = Duration::from_secs(10);

/// What a census takes, times this, passes before the next.
const REST: u32 = 20;

/// Different stacks that are told in one recording: those of a process that runs for days could
/// be of any number.
const MAX_STACKS: usize = 4096;

pub(super) struct Evidence<'a> {
    reader: CensusReader<'a>,
    memory: &'a LiveMemory,
    /// `None`: it has just ended.
    process: Option<Process>,
    /// GC cycles judged before the latest census.
    judged: usize,
    /// When that was over and how long it took; `None`: there was none yet.
    latest: Option<(Instant, Duration)>,
    told: HashSet<StackId>,
}

impl<'a> Evidence<'a> {
    /// With what to say about parts that a census of this program cannot have.
    pub(super) fn new(
        Identity { binary, target }: &'a Identity,
        layout: &Layout,
        memory: &'a LiveMemory,
    ) -> (Evidence<'a>, Vec<Event>) {
        let reader = CensusReader::new(binary, layout, target.load_bias);
        let evidence = Evidence {
            reader: reader.value,
            memory,
            process: Process::new(target.pid as i32).ok(),
            judged: 0,
            latest: None,
            told: HashSet::new(),
        };
        (evidence, reader.notes.into_iter().map(Event::Note).collect())
    }

    /// Whether it is time for the next census.
    pub(super) fn is_due(&self, state: &State) -> bool {
        let Some((over, took)) = self.latest else { return true };
        let pause = if state.judged.len() > self.judged { PAUSE } else { LONG_PAUSE };
        over.elapsed() >= pause.max(took * REST)
    }

    /// Takes a census: the events that tell it.
    pub(super) fn gather(&mut self, state: &State) -> Vec<Event> {
        let begin = Instant::now();
        let read = self.reader.read(self.memory);
        self.judged = state.judged.len();
        self.latest = Some((Instant::now(), begin.elapsed()));
        log::debug!("census in {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
        let Taken { mut census, stacks } = read.value;
        if let Some(memory) = &mut census.memory {
            self.add_resident(memory);
        }
        // A process that has just ended has nothing to tell.
        if census.goroutines.is_none() && census.memory.is_none() {
            return Vec::new();
        }
        let mut events: Vec<Event> = read.notes.into_iter().map(Event::Note).collect();
        for (id, pcs) in stacks {
            if self.told.len() < MAX_STACKS && self.told.insert(id) {
                events.push(Event::Stack { id, pcs });
            }
        }
        events.push(Event::Census(census));
        events
    }

    fn add_resident(&self, memory: &mut MemoryCensus) {
        let status = self.process.as_ref().and_then(|process| process.status().ok());
        // proc(5) gives kB, of 1024 bytes.
        let bytes = |kib: Option<u64>| kib.map(|kib| kib * 1024);
        memory.rss_bytes = bytes(status.as_ref().and_then(|status| status.vmrss));
        memory.rss_anon_bytes = bytes(status.as_ref().and_then(|status| status.rssanon));
    }
}
