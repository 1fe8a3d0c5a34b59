//! A census of a process: goroutines, timers, finalizers, memory, spans, all that can be read
//! without stopping it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::Layout;
use super::goroutines::{Goroutine, GoroutineReader, Goroutines, Status};
use super::memstats::MemStatsReader;
use super::queues::QueueReader;
use super::spans::{Found, Span, SpanReader};
use super::specials::{self, Wanted};
use crate::base::{Fnv1a, Noted, Result, monotonic_ns};
use crate::binary::Binary;
use crate::event::{
    Census, FinalizerCensus, GoroutineCensus, GoroutineGroup, MemoryCensus, SizeClassCensus, StackId,
};
use crate::memory::{ProcessMemory, gather};

/// A census, and the stacks it speaks of.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    pub census: Census,
    /// Return addresses, innermost first.
    pub stacks: HashMap<StackId, Vec<u64>>,
}

/// Takes the census of one process, again and again.
pub struct CensusReader<'a> {
    goroutines: Option<GoroutineReader<'a>>,
    memstats: Option<MemStatsReader>,
    spans: Option<SpanReader>,
    queues: QueueReader,
    layout: Layout,
    /// Entries of the functions that call finalizers and cleanups, at run time.
    runners: Vec<u64>,
}

/// Groups of goroutines that are told: those with most of them.
const GROUPS: usize = 64;
/// Frames of a stack that are told, innermost and outermost ones.
const INNER: usize = 48;
const OUTER: usize = 16;
/// Types of objects with finalizers that are told.
const TYPES: usize = 16;
/// Spans whose specials are read with one call.
const BATCH: usize = 16 << 10;
/// Objects with finalizers or cleanups that are counted; more are not.
const MAX_SPECIALS: u64 = 1 << 22;

/// What calls finalizers (before Go 1.25, and from then on), and cleanups.
const RUNNERS: [&str; 3] = ["runtime.runfinq", "runtime.runFinalizers", "runtime.runCleanups"];

impl<'a> CensusReader<'a> {
    /// `load_bias` is the run-time minus the link-time address of the executable. Notes say
    /// which parts a census cannot have.
    pub fn new(binary: &'a Binary, layout: &Layout, load_bias: u64) -> Noted<CensusReader<'a>> {
        let mut notes = Vec::new();
        let goroutines = kept(&mut notes, "goroutines", GoroutineReader::new(binary, layout, load_bias));
        let memstats = kept(&mut notes, "memory", MemStatsReader::new(binary, layout, load_bias));
        let spans = kept(&mut notes, "spans", SpanReader::new(binary, layout, load_bias));
        let entry = |name: &&str| Some(binary.functions().ok()?.by_name(name)?.start.wrapping_add(load_bias));
        let value = CensusReader {
            goroutines,
            memstats,
            spans,
            queues: QueueReader::new(binary, layout, load_bias),
            layout: layout.clone(),
            runners: RUNNERS.iter().filter_map(entry).collect(),
        };
        Noted { value, notes }
    }

    /// Takes it. Notes say what could not be read.
    pub fn read(&mut self, memory: &impl ProcessMemory) -> Noted<Taken> {
        let mut noted = Noted::new(Taken::default());
        let begin_ns = monotonic_ns();
        let Noted { value: taken, notes } = &mut noted;
        let mut groups = Groups { runners: &self.runners, stacks: &mut taken.stacks };
        let mut runners = Vec::new();
        if let Some(reader) = &mut self.goroutines {
            let read = kept(notes, "goroutines", reader.read(memory));
            let census = read.map(|read| groups.census(&read.value));
            taken.census.goroutines = census.map(|(census, of_runtime)| {
                runners = of_runtime;
                census
            });
        }
        taken.census.timers = kept(notes, "timers", self.queues.timers(memory));
        taken.census.memory = self
            .memstats
            .as_ref()
            .and_then(|reader| kept(notes, "memory", reader.read(memory)))
            .map(|stats| memory_census(&stats.value));
        if let Some(reader) = &self.spans {
            taken.census.size_classes =
                kept(notes, "spans", size_classes(reader, memory)).unwrap_or_default();
            taken.census.finalizers = kept(notes, "finalizers", self.finalizers(reader, memory));
        }
        if let Some(finalizers) = &mut taken.census.finalizers {
            finalizers.queued = kept(notes, "the queue of finalizers", self.queues.finalizers(memory));
            finalizers.runners = runners;
        }
        (taken.census.begin_ns, taken.census.end_ns) = (begin_ns, monotonic_ns());
        noted
    }

    /// Counts the objects with finalizers and cleanups.
    fn finalizers(&self, reader: &SpanReader, memory: &impl ProcessMemory) -> Result<FinalizerCensus> {
        let special = &self.layout.special;
        let mut census = FinalizerCensus::default();
        let mut types: HashMap<u64, u64> = HashMap::new();
        let mut spans = Vec::new();
        reader.visit(memory, |found| {
            if let Found::Span(span) = found {
                spans.push(Wanted { addr: span.addr, len: span.bytes(), slot_size: span.elem_size });
            }
        })?;
        for batch in spans.chunks(BATCH) {
            let mut finalizers = Vec::new();
            specials::walk(memory, special, batch, |listed| {
                if listed.kind == special.finalizer_kind {
                    finalizers.push((listed.addr.wrapping_add(special.finalizer_type), 8));
                } else if Some(listed.kind) == special.cleanup_kind {
                    census.cleanups += 1;
                }
            })?;
            census.finalizers += finalizers.len() as u64;
            // They come and go: then their types are not known.
            if let Ok(read) = gather(memory, &finalizers) {
                for pointer_type in read.iter().filter_map(|bytes| bytes.first_chunk()) {
                    *types.entry(u64::from_le_bytes(*pointer_type)).or_default() += 1;
                }
            }
            if census.finalizers + census.cleanups > MAX_SPECIALS {
                break;
            }
        }
        let mut types: Vec<(u64, u64)> = types.into_iter().collect();
        types.sort_unstable_by_key(|&(addr, count)| (Reverse(count), addr));
        types.truncate(TYPES);
        let element = |(addr, count): (u64, u64)| Some((self.element(memory, addr)?, count));
        census.types = types.into_iter().filter_map(element).collect();
        Ok(census)
    }

    /// What a pointer type points to: the word behind what all types have, which ends with
    /// two offsets of four bytes, of the name and of the pointer type (internal/abi/type.go
    /// `PtrType`).
    fn element(&self, memory: &impl ProcessMemory, pointer_type: u64) -> Option<u64> {
        memory.read_u64(pointer_type.wrapping_add(self.layout.types.str + 8)).ok()
    }
}

/// The value, or a note that says of what there is none, and why.
fn kept<T>(notes: &mut Vec<String>, what: &str, result: Result<T>) -> Option<T> {
    result.map_err(|e| notes.push(format!("a census without {what}: {e}"))).ok()
}

fn memory_census(stats: &super::MemStats) -> MemoryCensus {
    MemoryCensus {
        rss_bytes: None,
        rss_anon_bytes: None,
        heap_alloc: stats.heap_alloc,
        heap_inuse: stats.heap_inuse,
        heap_idle: stats.heap_idle,
        heap_released: stats.heap_released,
        next_gc: stats.next_gc,
        stack_inuse: stats.stack_inuse,
        stack_sys: stats.stack_sys,
        other_sys: [stats.mspan_sys, stats.mcache_sys, stats.buck_hash_sys, stats.gc_sys, stats.other_sys]
            .into_iter()
            .fold(0, u64::wrapping_add),
        sys: stats.sys,
    }
}

fn size_classes(reader: &SpanReader, memory: &impl ProcessMemory) -> Result<Vec<SizeClassCensus>> {
    let mut classes: BTreeMap<u64, SizeClassCensus> = BTreeMap::new();
    reader.visit(memory, |found| {
        if let Found::Span(span) = found {
            count_span(&mut classes, &span);
        }
    })?;
    Ok(classes.into_values().collect())
}

fn count_span(classes: &mut BTreeMap<u64, SizeClassCensus>, span: &Span) {
    let slot_size = if span.size_class() == 0 { 0 } else { span.elem_size };
    let class = classes.entry(slot_size).or_insert(SizeClassCensus { slot_size, ..Default::default() });
    class.spans += 1;
    class.bytes = class.bytes.saturating_add(span.bytes());
    class.objects = class.objects.saturating_add(span.alloc_count);
    class.slots = class.slots.saturating_add(span.nelems);
}

/// Groups goroutines by what they have in common.
struct Groups<'a> {
    runners: &'a [u64],
    stacks: &'a mut HashMap<StackId, Vec<u64>>,
}

impl Groups<'_> {
    /// The census, and the groups of those that call finalizers.
    fn census(&mut self, read: &Goroutines) -> (GoroutineCensus, Vec<GoroutineGroup>) {
        let mut stacks: HashMap<StackId, Vec<u64>> = HashMap::new();
        let ids: Vec<StackId> = read
            .stacks
            .iter()
            .map(|stack| {
                let pcs = return_addresses(&stack.addresses);
                let id = stack_id(&pcs);
                stacks.insert(id, pcs);
                id
            })
            .collect();
        let mut groups: HashMap<(u64, String, Option<StackId>, bool), GoroutineGroup> = HashMap::new();
        for goroutine in &read.all {
            let stack = goroutine.stack.and_then(|stack| ids.get(stack).copied());
            let state = state(goroutine, &read.wait_reasons);
            let is_runner = self.runners.contains(&goroutine.start_pc);
            let key = (goroutine.go_pc, state, stack, is_runner);
            add(groups.entry(key).or_default(), goroutine, read.read_at_ns);
        }
        let mut groups: Vec<(bool, GoroutineGroup)> = groups
            .into_iter()
            .map(|((go_pc, state, stack, runs), group)| {
                (runs, GoroutineGroup { go_pc, state, stack, ..group })
            })
            .collect();
        groups.sort_by(|(_, a), (_, b)| order(a).cmp(&order(b)));
        let runners: Vec<GoroutineGroup> =
            groups.iter().filter(|(runs, _)| *runs).take(GROUPS).map(|(_, group)| group.clone()).collect();
        let groups: Vec<GoroutineGroup> = groups.into_iter().take(GROUPS).map(|(_, group)| group).collect();
        for id in groups.iter().chain(&runners).filter_map(|group| group.stack) {
            self.stacks.extend(stacks.remove(&id).map(|pcs| (id, pcs)));
        }
        let stack_bytes = read.all.iter().fold(0, |sum: u64, g| sum.saturating_add(g.stack_bytes));
        (GoroutineCensus { count: read.all.len() as u64, stack_bytes, groups }, runners)
    }
}

/// The largest first, then in a fixed order.
fn order(group: &GoroutineGroup) -> impl Ord {
    (Reverse(group.count), Reverse(group.stack_bytes), group.go_pc, group.state.clone(), group.stack)
}

fn add(group: &mut GoroutineGroup, goroutine: &Goroutine, now_ns: u64) {
    let is_blocked = matches!(goroutine.status, Status::Waiting | Status::Leaked | Status::Syscall);
    let waited = goroutine.wait_since_ns.filter(|_| is_blocked).map(|since| now_ns.saturating_sub(since));
    group.count += 1;
    group.stack_bytes = group.stack_bytes.saturating_add(goroutine.stack_bytes);
    group.largest_stack_bytes = group.largest_stack_bytes.max(goroutine.stack_bytes);
    group.oldest_wait_ns = group.oldest_wait_ns.max(waited);
}

/// As a goroutine dump has it.
fn state(goroutine: &Goroutine, wait_reasons: &BTreeMap<u8, String>) -> String {
    let waits = matches!(goroutine.status, Status::Waiting | Status::Leaked);
    let reason = wait_reasons.get(&goroutine.wait_reason).filter(|_| waits);
    reason.map_or_else(|| goroutine.status.name().to_owned(), Clone::clone)
}

/// Of a stack given by addresses inside calls; of a deep one both ends.
fn return_addresses(addresses: &[u64]) -> Vec<u64> {
    let outer = addresses.len().saturating_sub(OUTER).max(INNER.min(addresses.len()));
    let kept = addresses.iter().take(INNER).chain(addresses.iter().skip(outer));
    kept.map(|address| address.wrapping_add(1)).collect()
}

fn stack_id(pcs: &[u64]) -> StackId {
    let mut hash = Fnv1a::default();
    pcs.iter().for_each(|pc| hash.add(&pc.to_le_bytes()));
    StackId(hash.hash())
}

#[cfg(test)]
mod tests;
