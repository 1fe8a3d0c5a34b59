//! The thread that drains the ring: decodes records straight from it and sends batches.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues, RingBuf};
use aya_log::EbpfLogger;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use tokio::sync::mpsc;
use tracer_common::{Counters, GcRecord, Header};

use super::object::{UNKNOWN_VALUE, map_error, missing};
use crate::base::{Error, Result};
use crate::event::{Alloc, Assist, Event, Mark, SiteId, StackId, Stw};
use crate::runtime;

/// Events of one batch at most, and batches that may wait. Together they bound the
/// memory a slow consumer costs; beyond, the ring fills, and what is lost is counted.
const BATCH: usize = 4096;
const BATCHES: usize = 64;

/// How long an empty ring is left alone. The eBPF program wakes the reader earlier when a
/// quarter of the ring is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Poll {
    /// Events are acted upon: what died is to be looked for before the next GC cycle.
    Soon,
    /// They are few and can wait: waking up would be most of the work.
    Seldom,
}

impl Poll {
    fn milliseconds(self) -> u8 {
        match self {
            Poll::Soon => 5,
            Poll::Seldom => 50,
        }
    }
}

/// How often the loss counters are looked at.
const LOSS_INTERVAL: Duration = Duration::from_millis(200);

/// An event that stands behind all records that were in the ring when it was sent.
#[derive(Debug)]
pub(super) struct Fenced {
    pub(super) event: Event,
    /// Dropped when the event is among those received.
    pub(super) _added: std_mpsc::SyncSender<()>,
}

/// The running thread. Dropping it ends it, once the ring is drained or the receiver
/// of the events is gone.
#[derive(Debug)]
pub(super) struct Reader {
    finish: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Takes the ring from `ebpf` and starts draining.
    pub(super) fn start(
        ebpf: &mut Ebpf,
        counters: Arc<Map>,
        fenced: std_mpsc::Receiver<Fenced>,
        poll: Poll,
        bpf_log: bool,
    ) -> Result<(Reader, mpsc::Receiver<Vec<Event>>)> {
        let (sender, receiver) = mpsc::channel(BATCHES);
        let drain = Drain {
            ring: take(ebpf, "EVENTS")?.try_into().map_err(map_error)?,
            loss: Loss::new(counters),
            fenced,
            logger: bpf_log.then(|| EbpfLogger::init(ebpf).ok()).flatten(),
            sender,
            poll,
        };
        let poller = poller(&drain.ring).map_err(|e| thread_error(e.into()))?;
        let finish = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("heaptap-ring".into())
            .spawn({
                let finish = Arc::clone(&finish);
                move || drain.run(&poller, &finish)
            })
            .map_err(thread_error)?;
        Ok((Reader { finish, thread: Some(thread) }, receiver))
    }

    /// Ends the thread once the ring is empty; the probes must be gone by now.
    pub(super) fn finish(&self) {
        self.finish.store(true, Ordering::Release);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.finish();
        // A panic there was already printed; there is nothing else to learn from it.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name).ok_or_else(|| missing(name))
}

/// What each CPU counted, by the program's map COUNTERS.
pub(super) fn counters(map: &Map) -> Result<PerCpuValues<Counters>> {
    PerCpuArray::try_from(map).and_then(|counters| counters.get(&0, 0)).map_err(map_error)
}

/// Traps of any site so far, on all CPUs; those on single-stepped instructions count for so many.
pub(super) fn hits(map: &Map, step_traps: u64) -> Result<u64> {
    let of_cpu =
        |cpu: &Counters| cpu.hits.wrapping_add(cpu.stepped.wrapping_mul(step_traps.saturating_sub(1)));
    Ok(counters(map)?.iter().fold(0, |sum: u64, cpu| sum.wrapping_add(of_cpu(cpu))))
}

fn thread_error(error: io::Error) -> Error {
    Error::environment("cannot start the thread that reads the ring").because(error)
}

/// Edge-triggered: a ring that merely holds data does not wake, only the program's
/// wake-ups do.
fn poller(ring: &RingBuf<MapData>) -> nix::Result<Epoll> {
    let poller = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    poller.add(ring, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))?;
    Ok(poller)
}

/// What the thread owns.
struct Drain {
    ring: RingBuf<MapData>,
    loss: Loss,
    fenced: std_mpsc::Receiver<Fenced>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    sender: mpsc::Sender<Vec<Event>>,
    poll: Poll,
}

impl Drain {
    fn run(mut self, poller: &Epoll, finish: &AtomicBool) {
        let mut waiting: Vec<Fenced> = Vec::new();
        loop {
            // Before draining: what the probes sent until then is in the ring.
            let finishing = finish.load(Ordering::Acquire);
            waiting.extend(self.fenced.try_iter());
            let mut batch = self.batch();
            let more = batch.len() >= BATCH;
            if !more {
                batch.extend(waiting.drain(..).map(|fenced| fenced.event));
            }
            let last = finishing && !more;
            self.loss.report(last, &mut batch);
            if let Some(logger) = &mut self.logger {
                logger.flush();
            }
            if !batch.is_empty() && self.sender.blocking_send(batch).is_err() {
                return;
            }
            if last {
                return;
            }
            if !more {
                // An interrupted wait is a short one.
                let _woken = poller.wait(&mut [EpollEvent::empty()], self.poll.milliseconds());
            }
        }
    }

    fn batch(&mut self) -> Vec<Event> {
        let mut batch = Vec::new();
        while let Some(record) = self.ring.next() {
            batch.extend(decode(&record));
            if batch.len() >= BATCH {
                break;
            }
        }
        batch
    }
}

/// The loss counters and what was last told of them.
struct Loss {
    counters: Arc<Map>,
    told: Vec<Counters>,
    looked: Instant,
}

impl Loss {
    fn new(counters: Arc<Map>) -> Loss {
        Loss { counters, told: Vec::new(), looked: Instant::now() }
    }

    /// Adds an event for each CPU whose counters changed, if it is time or `now`.
    fn report(&mut self, now: bool, events: &mut Vec<Event>) {
        if !now && self.looked.elapsed() < LOSS_INTERVAL {
            return;
        }
        self.looked = Instant::now();
        let Ok(counters) = counters(&self.counters) else {
            return;
        };
        self.told.resize(counters.len(), Counters::default());
        for (cpu, (new, told)) in counters.iter().zip(&mut self.told).enumerate() {
            if (new.lost_events, new.lost_stacks) != (told.lost_events, told.lost_stacks) {
                *told = *new;
                let (events_lost, stacks_lost) = (new.lost_events, new.lost_stacks);
                events.push(Event::Lost { cpu: cpu as u32, events: events_lost, stacks: stacks_lost });
            }
        }
    }
}

/// The event of one record of the ring; `None` for what the program never sends.
///
/// Records are arrays of little-endian words (tracer-common); the first is the header:
/// kind, site, CPU, epoch from the low byte up.
fn decode(record: &[u8]) -> Option<Event> {
    let (words, _) = record.as_chunks::<8>();
    let word = |i: usize| words.get(i).map(|bytes| u64::from_le_bytes(*bytes));
    let header = word(0)?;
    let epoch = (header >> 32) as u32;
    match header as u8 {
        Header::ALLOC => Some(Event::Alloc(Alloc {
            time_ns: word(1)?,
            ptr: word(2)?,
            size: word(3)?,
            type_addr: word(4)?,
            slot: word(5)?,
            stack: StackId(word(6)?),
            goroutine: word(7)?,
            site: SiteId((header >> 8) as u8 as u16),
            epoch,
            cpu: u32::from((header >> 16) as u16),
        })),
        Header::STACK => {
            let frames = words.get(2..)?.get(..epoch as usize)?;
            let pcs = frames.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
            Some(Event::Stack { id: StackId(word(1)?), pcs })
        }
        Header::GC_EPOCH => Some(Event::GcEpoch { epoch, time_ns: word(1)? }),
        Header::GC_RECORD => {
            let (trigger, flags) = (word(2)?, word(3)?);
            let copied: Vec<u64> = words.get(4..)?.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
            let record = runtime::GcRecord {
                epoch,
                time_ns: word(1)?,
                trigger: (flags & GcRecord::STARTED != 0).then_some(trigger),
                leak_check: flags & GcRecord::LEAK_CHECK != 0,
                words: &copied,
            };
            record.cycle().map(Event::GcCycle)
        }
        Header::ASSIST => {
            Some(Event::Assist(Assist { begin_ns: word(1)?, end_ns: word(2)?, goroutine: word(3)? }))
        }
        Header::MARK => Some(Event::Mark(Mark {
            site: SiteId((header >> 8) as u8 as u16),
            time_ns: word(1)?,
            goroutine: word(2)?,
            depth: word(3)?,
        })),
        Header::STW => {
            let reason = Some(word(3)?).filter(|reason| *reason != UNKNOWN_VALUE);
            let reason = reason.map(|reason| runtime::stw_reason(reason as u8));
            Some(Event::Stw(Stw { reason, begin_ns: word(1)?, end_ns: word(2)? }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::GcTrigger;
    use tracer_common::{
        AllocRecord, AssistRecord, EpochRecord, MAX_DEPTH, MarkRecord, StackRecord, StwRecord,
    };

    /// The bytes of a record as the program writes them to the ring.
    fn bytes<T: Copy>(record: &T) -> &[u8] {
        // SAFETY: the record types have no padding, and any byte is a valid u8.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast(), size_of::<T>()) }
    }

    #[test]
    fn every_field_arrives_where_it_belongs() {
        let header = Header { kind: Header::ALLOC, site: 200, cpu: 513, epoch: 0x0102_0304 };
        let record =
            AllocRecord { header, time_ns: 1, ptr: 2, size: 3, type_addr: 4, slot: 5, stack: 6, g: 7 };
        let want = Alloc {
            time_ns: 1,
            ptr: 2,
            size: 3,
            slot: 5,
            type_addr: 4,
            stack: StackId(6),
            goroutine: 7,
            site: SiteId(200),
            epoch: 0x0102_0304,
            cpu: 513,
        };
        assert_eq!(size_of::<AllocRecord>(), 64);
        assert_eq!(decode(bytes(&record)), Some(Event::Alloc(want)));

        let header = Header { kind: Header::GC_EPOCH, ..header };
        assert_eq!(
            decode(bytes(&EpochRecord { header, time_ns: 9 })),
            Some(Event::GcEpoch { epoch: 0x0102_0304, time_ns: 9 })
        );
    }

    #[test]
    fn gc_records_stops_and_assists_are_events() {
        let header = Header { kind: Header::GC_RECORD, site: 1, cpu: 2, epoch: 3 };
        let words = std::array::from_fn(|i| i as u64);
        let flags = GcRecord::STARTED | GcRecord::LEAK_CHECK;
        let mut record = GcRecord { header, time_ns: 9, trigger: 2, flags, words };
        let cycle = |record: &GcRecord| match decode(bytes(record)) {
            Some(Event::GcCycle(cycle)) => cycle,
            other => panic!("{other:?}"),
        };
        let whole = cycle(&record);
        assert_eq!((whole.epoch, whole.time_ns, whole.cycle), (3, 9, 0));
        assert_eq!((whole.trigger, whole.leak_check), (Some(GcTrigger::Cycle), true));
        assert_eq!((whole.init_ns, whole.forced, whole.memory_limit), (2, true, 22));
        record.flags = 0;
        assert_eq!((cycle(&record).trigger, cycle(&record).leak_check), (None, false));

        let header = Header { kind: Header::STW, ..header };
        let mut record = StwRecord { header, begin_ns: 5, end_ns: 7, reason: 0xabcd_0007 };
        let stop = |reason: Option<&str>| {
            Some(Event::Stw(Stw { reason: reason.map(str::to_owned), begin_ns: 5, end_ns: 7 }))
        };
        assert_eq!(decode(bytes(&record)), stop(Some("read mem stats")));
        record.reason = UNKNOWN_VALUE;
        assert_eq!(decode(bytes(&record)), stop(None));

        let header = Header { kind: Header::ASSIST, ..header };
        let record = AssistRecord { header, begin_ns: 5, end_ns: 7, g: 11 };
        let assist = Assist { goroutine: 11, begin_ns: 5, end_ns: 7 };
        assert_eq!(decode(bytes(&record)), Some(Event::Assist(assist)));

        let header = Header { kind: Header::MARK, ..header };
        let record = MarkRecord { header, time_ns: 5, goroutine: 7, depth: 11 };
        let mark = Mark { site: SiteId(1), time_ns: 5, goroutine: 7, depth: 11 };
        assert_eq!(decode(bytes(&record)), Some(Event::Mark(mark)));
    }

    #[test]
    fn a_stack_has_the_frames_its_header_counts() {
        let mut record = StackRecord {
            header: Header { kind: Header::STACK, site: 0, cpu: 0, epoch: 2 },
            hash: 11,
            frames: [99; MAX_DEPTH],
        };
        record.frames[..2].copy_from_slice(&[21, 22]);
        let want = Event::Stack { id: StackId(11), pcs: vec![21, 22] };
        assert_eq!(decode(bytes(&record)), Some(want));
        record.header.epoch = MAX_DEPTH as u32 + 1;
        assert_eq!(decode(bytes(&record)), None, "more than the record holds");
    }

    #[test]
    fn damage_is_no_event() {
        for bytes in [&[][..], &[1; 7], &[1; 56], &[9; 64], &[3; 8], &[4; 64], &[5; 24], &[6; 24]] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }
}
