//! Looks, now and then, for who holds the objects of calls whose live bytes have grown.
//!
//! A look scans all memory that may hold pointers, some times over. It is done by a thread of its own,
//! so that events do not pile up, and so seldom that it takes little of the machine.

mod told;

use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio::task::JoinHandle;

use crate::base::{Error, Result, monotonic_ns, thread_cpu_ns};
use crate::event::Event;
use crate::memory::LiveMemory;
use crate::model::{Births, State};
use crate::runtime::Layout;
use crate::runtime::references::{Look, ReferenceReader, Wanted};
use crate::target::Identity;
use told::Teller;

/// From the beginning of one look to that of the next, at least.
const PAUSE: Duration = Duration::from_secs(5);
/// The first looks come sooner: a leak may be plain by then.
const FIRST_PAUSE: Duration = Duration::from_secs(3);
const FIRST_LOOKS: u32 = 4;
/// A look begins so much later at most, at random: cycles are judged where a program has just
/// allocated, and what it does then has its objects in use, and not in a pool.
const LATE: Duration = Duration::from_millis(50);
/// What a look takes, times this, passes before the next.
const REST: u32 = 50;
/// Calls whose objects are looked for: those that have grown most, and some of those that have most
/// alive.
const GROWN: usize = 12;
const LARGEST: usize = 4;
/// Objects of each.
const OBJECTS: usize = 32;

/// A call, as far as it is told apart here: sampled slots of different sizes are together.
pub(super) type CallKey = (crate::event::SiteId, crate::event::StackId, u64);

pub(super) struct HolderScan<'a> {
    reader: ReferenceReader,
    memory: LiveMemory,
    teller: Teller<'a>,
    next: Instant,
    looks: u32,
    /// The epoch of the latest judged cycle when the latest look began.
    judged: Option<u32>,
    running: Option<Running>,
}

/// A look under way.
struct Running {
    began_ns: u64,
    /// By object: whose it is.
    calls: Vec<CallKey>,
    look: JoinHandle<Result<(Look, u64)>>,
}

impl<'a> HolderScan<'a> {
    /// If it is wanted; with what to say when it is not possible.
    pub(super) fn start(
        is_wanted: bool,
        target: &'a Identity,
        layout: &Layout,
        memory: LiveMemory,
    ) -> (Option<HolderScan<'a>>, Vec<Event>) {
        if !is_wanted {
            return (None, Vec::new());
        }
        let load_bias = target.target.load_bias;
        let reader = match ReferenceReader::new(&target.binary, layout, load_bias) {
            Ok(reader) => reader,
            Err(e) => return (None, vec![Event::Note(format!("who holds objects is unknown: {e}"))]),
        };
        let scan = HolderScan {
            reader,
            memory,
            teller: Teller { binary: &target.binary, load_bias },
            next: Instant::now() + FIRST_PAUSE,
            looks: 0,
            judged: None,
            running: None,
        };
        (Some(scan), Vec::new())
    }

    /// Begins a look if it is time, and a GC cycle was judged since the one before.
    pub(super) fn begin_if_due(scan: &mut Option<HolderScan<'_>>, state: &State) {
        if let Some(scan) = scan
            && scan.running.is_none()
            && scan.next <= Instant::now()
            && scan.has_news(state)
        {
            scan.begin(state);
        }
    }

    fn has_news(&self, state: &State) -> bool {
        let judged = state.live.as_ref().and_then(|live| live.latest_judged());
        judged.is_some() && judged != self.judged
    }

    fn begin(&mut self, state: &State) {
        let (wanted, calls) = wanted(state);
        let (reader, memory) = (self.reader.clone(), self.memory);
        let look = tokio::task::spawn_blocking(move || {
            std::thread::sleep(LATE.mul_f64(fastrand::f64()));
            let cpu_ns = thread_cpu_ns();
            let look = reader.look(&memory, &wanted)?;
            Ok((look, thread_cpu_ns().saturating_sub(cpu_ns)))
        });
        self.judged = state.live.as_ref().and_then(|live| live.latest_judged());
        self.looks += 1;
        self.next = Instant::now() + if self.looks < FIRST_LOOKS { FIRST_PAUSE } else { PAUSE };
        self.running = Some(Running { began_ns: monotonic_ns(), calls, look });
    }

    /// Awaits the end of the look under way; for ever if there is none.
    pub(super) async fn ended(scan: &mut Option<HolderScan<'_>>) -> Finished {
        match scan.as_mut().and_then(|scan| scan.running.as_mut()) {
            Some(running) => running.finished().await,
            None => std::future::pending().await,
        }
    }

    /// What a look has found; nothing if the target's memory could not be read, as when it ends.
    pub(super) fn told(scan: &mut Option<HolderScan<'_>>, finished: Finished, state: &State) -> Vec<Event> {
        scan.as_mut().and_then(|scan| scan.event(finished, state)).into_iter().collect()
    }

    fn event(&mut self, Finished(look): Finished, state: &State) -> Option<Event> {
        let running = self.running.take()?;
        let (look, took_ns) = match look {
            Ok(found) => found,
            Err(e) => {
                log::debug!("looking for holders: {e}");
                return None;
            }
        };
        self.next = self.next.max(Instant::now() + Duration::from_nanos(took_ns) * REST);
        let memory = &self.memory;
        let tables = |type_addr| self.reader.map_table(memory, type_addr);
        let mut holders = self.teller.tell(&look, &running.calls, state, &tables);
        (holders.time_ns, holders.took_ns) = (running.began_ns, took_ns);
        log::debug!("holders of {} calls in {:.1} ms", holders.held.len(), took_ns as f64 / 1e6);
        Some(Event::Holders(holders))
    }

    /// Awaits the look under way, and looks once more if anything has been judged since: the
    /// recording ends.
    pub(super) async fn last(scan: &mut Option<HolderScan<'_>>, state: &State) -> Vec<Event> {
        let Some(scan) = scan else { return Vec::new() };
        let mut events = Vec::new();
        loop {
            if let Some(running) = &mut scan.running {
                let finished = running.finished().await;
                events.extend(scan.event(finished, state));
            }
            if !scan.has_news(state) {
                return events;
            }
            scan.begin(state);
        }
    }
}

impl Running {
    async fn finished(&mut self) -> Finished {
        let look = (&mut self.look).await;
        Finished(look.unwrap_or_else(|e| Err(Error::failed("looking for holders").because(e))))
    }
}

/// A look that has ended.
pub(super) struct Finished(Result<(Look, u64)>);

/// The objects to be looked for, and whose they are.
fn wanted(state: &State) -> (Vec<Wanted>, Vec<CallKey>) {
    let Some(live) = &state.live else { return (Vec::new(), Vec::new()) };
    let alive = live.alive();
    let mut calls: HashMap<CallKey, (Vec<u32>, f64, u64)> = HashMap::new();
    for sums in state.calls.iter() {
        let Some(bytes) = alive.get(&sums.index).map(|alive| alive.bytes).filter(|bytes| *bytes > 0) else {
            continue;
        };
        let key = (sums.call.site, sums.call.stack, sums.call.type_addr);
        let (indices, grown, all) = calls.entry(key).or_default();
        indices.push(sums.index);
        *grown += rise(&live.history(&[(sums.index, 1.0)], &Births::default()));
        *all = all.wrapping_add(bytes);
    }
    let mut keys: Vec<CallKey> = calls.keys().copied().collect();
    keys.sort_unstable_by(|a, b| calls[b].1.total_cmp(&calls[a].1).then(a.cmp(b)));
    let grown = keys.iter().take_while(|key| calls[*key].1 > 0.0).count().min(GROWN);
    let mut rest = keys.split_off(grown);
    rest.sort_unstable_by_key(|key| (std::cmp::Reverse(calls[key].2), *key));
    keys.extend(rest.into_iter().take(LARGEST));
    let groups: HashMap<u32, usize> = keys
        .iter()
        .enumerate()
        .flat_map(|(i, key)| calls[key].0.iter().map(move |call| (*call, i)))
        .collect();
    let mut objects = live.some_of(&groups, OBJECTS);
    let of_group = |(i, key): (usize, &CallKey)| {
        let placed = objects.remove(&i).unwrap_or_default();
        placed.into_iter().map(|at| (Wanted { name: at.slot, size: at.size }, *key)).collect::<Vec<_>>()
    };
    keys.iter().enumerate().flat_map(of_group).unzip()
}

/// By how many bytes it has grown from the first third of the points to the last, on average.
fn rise(history: &[crate::model::LivePoint]) -> f64 {
    let third = history.len().div_ceil(3);
    let sum = |points: &[crate::model::LivePoint]| points.iter().map(|point| point.bytes).sum::<f64>();
    let (early, late) = (history.get(..third), history.get(history.len() - third..));
    (sum(late.unwrap_or_default()) - sum(early.unwrap_or_default())) / third.max(1) as f64
}
