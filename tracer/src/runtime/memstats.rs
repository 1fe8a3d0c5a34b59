//! `runtime.MemStats`, read from outside.
//!
//! Source: runtime/mstats.go `readmemstats_m` and runtime/mgcpacer.go `heapGoalInternal`,
//! Go 1.19 to 1.27.

use serde::Serialize;

use super::counters::{CounterReader, Counts, u32_at, u64_at};
use super::globals::Global;
use super::layout::{GcController, HeapStatsDelta, Layout};
use super::size_class::CLASS_TO_SIZE;
use crate::base::{Error, Noted, Result};
use crate::binary::Binary;
use crate::memory::ProcessMemory;

/// The numbers of `runtime.MemStats`, under their names there and with their meaning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MemStats {
    pub alloc: u64,
    pub total_alloc: u64,
    pub sys: u64,
    pub mallocs: u64,
    pub frees: u64,
    pub heap_alloc: u64,
    pub heap_sys: u64,
    pub heap_idle: u64,
    pub heap_inuse: u64,
    pub heap_released: u64,
    pub heap_objects: u64,
    pub stack_inuse: u64,
    pub stack_sys: u64,
    #[serde(rename = "MSpanInuse")]
    pub mspan_inuse: u64,
    #[serde(rename = "MSpanSys")]
    pub mspan_sys: u64,
    #[serde(rename = "MCacheInuse")]
    pub mcache_inuse: u64,
    #[serde(rename = "MCacheSys")]
    pub mcache_sys: u64,
    pub buck_hash_sys: u64,
    #[serde(rename = "GCSys")]
    pub gc_sys: u64,
    pub other_sys: u64,
    #[serde(rename = "NextGC")]
    pub next_gc: u64,
    /// Nanoseconds since 1970; 0 before the first.
    #[serde(rename = "LastGC")]
    pub last_gc: u64,
    pub pause_total_ns: u64,
    #[serde(rename = "NumGC")]
    pub num_gc: u32,
    #[serde(rename = "NumForcedGC")]
    pub num_forced_gc: u32,
    #[serde(rename = "GCCPUFraction")]
    pub gc_cpu_fraction: f64,
}

/// Reads the statistics of one process, again and again.
#[derive(Debug, Clone)]
pub struct MemStatsReader {
    layout: Layout,
    counters: CounterReader,
    /// Run-time addresses.
    memstats: u64,
    gc_controller: u64,
    mheap: u64,
}

/// Reads tried until two in a row are the same.
const ATTEMPTS: usize = 10;
/// `heapStats.stats`: the current one, the previous one, and one being cleared.
const DELTAS: u64 = 3;

impl MemStatsReader {
    /// `load_bias` is the run-time minus the link-time address of the executable.
    ///
    /// # Errors
    /// Failed when one of the runtime's variables cannot be found.
    pub fn new(binary: &Binary, layout: &Layout, load_bias: u64) -> Result<MemStatsReader> {
        let locate = |global: Global| Ok::<_, Error>(global.locate(binary, layout)?.wrapping_add(load_bias));
        Ok(MemStatsReader {
            counters: CounterReader::new(binary, layout, load_bias)?,
            memstats: locate(Global::Memstats)?,
            gc_controller: locate(Global::GcController)?,
            mheap: locate(Global::Mheap)?,
            layout: layout.clone(),
        })
    }

    /// Reads the statistics, as they stand: `runtime.ReadMemStats` first empties the caches
    /// of the Ps, which moves some bytes from stacks to idle heap. A note says when they never stood still, so that they are
    /// of slightly different moments.
    ///
    /// # Errors
    /// Failed when the process is gone or its memory makes no sense.
    pub fn read(&self, memory: &impl ProcessMemory) -> Result<Noted<MemStats>> {
        let mut last = self.once(memory)?;
        for _ in 0..ATTEMPTS {
            let again = self.once(memory)?;
            if again == last {
                return Ok(Noted::new(last));
            }
            last = again;
        }
        let note = "the program allocated while its statistics were read: they are of slightly \
                    different moments";
        Ok(Noted { value: last, notes: vec![note.to_owned()] })
    }

    fn once(&self, memory: &impl ProcessMemory) -> Result<MemStats> {
        let layout = &self.layout;
        let (counts, ..) = self.counters.counts(memory, || Ok(()))?.value;
        let mut fields = vec![0; (layout.memstats.gc_cpu_fraction + 8) as usize];
        let mut pacer = vec![0; (layout.gc_controller.mapped_ready + 8) as usize];
        let (mut spans, mut caches) = ([0; 8], [0; 8]);
        memory.read_many(&mut [
            (self.memstats, &mut fields),
            (self.gc_controller, &mut pacer),
            (self.mheap.wrapping_add(layout.mheap_spanalloc_inuse), &mut spans),
            (self.mheap.wrapping_add(layout.mheap_cachealloc_inuse), &mut caches),
        ])?;
        Ok(MemStats {
            mspan_inuse: u64::from_le_bytes(spans),
            mcache_inuse: u64::from_le_bytes(caches),
            ..self.compute(&counts, &fields, &Pacer { fields: &pacer, layout: &layout.gc_controller })
        })
    }

    fn compute(&self, counts: &Counts, fields: &[u8], pacer: &Pacer<'_>) -> MemStats {
        let at = &self.layout.memstats;
        let word = |offset: u64| u64_at(fields, offset as usize).unwrap_or(0);
        let half = |offset: u64| u32_at(fields, offset as usize).unwrap_or(0);
        let merged = Merged::of(fields.get(at.heap_stats as usize..).unwrap_or(&[]), &at.delta);
        let gc = pacer.layout;
        let [in_use, free, released] =
            [gc.heap_in_use, gc.heap_free, gc.heap_released].map(|field| pacer.word(field));
        let heap_sys = in_use.wrapping_add(free).wrapping_add(released);
        // Saturating: what is read while the program runs may hold a free without its malloc.
        let heap_alloc = counts.bytes.saturating_sub(merged.freed_bytes);
        // A tiny object in a shared block counts as freed at once.
        let frees = merged.freed_objects.wrapping_add(counts.tiny);
        let gc_sys = word(at.gc_misc_sys).wrapping_add(merged.in_gc);
        let stack_sys = word(at.stacks_sys).wrapping_add(merged.in_stacks);
        let others = [at.mspan_sys, at.mcache_sys, at.buckhash_sys, at.other_sys].map(word);
        MemStats {
            alloc: heap_alloc,
            total_alloc: counts.bytes,
            sys: others
                .iter()
                .fold(heap_sys.wrapping_add(gc_sys).wrapping_add(stack_sys), |sum, n| sum.wrapping_add(*n)),
            mallocs: counts.objects,
            frees,
            heap_alloc,
            heap_sys,
            heap_idle: free.wrapping_add(released),
            heap_inuse: in_use,
            heap_released: released,
            heap_objects: counts.objects.saturating_sub(frees),
            stack_inuse: merged.in_stacks,
            stack_sys,
            mspan_sys: word(at.mspan_sys),
            mcache_sys: word(at.mcache_sys),
            buck_hash_sys: word(at.buckhash_sys),
            gc_sys,
            other_sys: word(at.other_sys),
            next_gc: pacer.heap_goal(heap_alloc),
            last_gc: word(at.last_gc_unix),
            pause_total_ns: word(at.pause_total_ns),
            num_gc: half(at.numgc),
            num_forced_gc: half(at.numforcedgc),
            gc_cpu_fraction: f64::from_bits(word(at.gc_cpu_fraction)),
            // Not among these structs.
            mspan_inuse: 0,
            mcache_inuse: 0,
        }
    }
}

/// What `heapStats` says besides allocations, its three deltas merged as by
/// `consistentHeapStats.unsafeRead`.
#[derive(Debug, Default)]
struct Merged {
    in_stacks: u64,
    in_gc: u64,
    freed_objects: u64,
    freed_bytes: u64,
}

impl Merged {
    fn of(stats: &[u8], layout: &HeapStatsDelta) -> Merged {
        let mut merged = Merged::default();
        for delta in stats.chunks_exact((layout.size as usize).max(1)).take(DELTAS as usize) {
            let field = |offset: u64| u64_at(delta, offset as usize).unwrap_or(0);
            let add = |sum: &mut u64, n: u64| *sum = sum.wrapping_add(n);
            add(&mut merged.in_stacks, field(layout.in_stacks));
            layout.in_gc.iter().for_each(|offset| add(&mut merged.in_gc, field(*offset)));
            add(&mut merged.freed_objects, field(layout.large_free_count));
            add(&mut merged.freed_bytes, field(layout.large_free));
            for (class, size) in (0..).zip(CLASS_TO_SIZE) {
                let objects = field(layout.small_free_count + 8 * class);
                add(&mut merged.freed_objects, objects);
                add(&mut merged.freed_bytes, objects.wrapping_mul(size));
            }
        }
        merged
    }
}

/// The contents of `gcController`.
struct Pacer<'a> {
    fields: &'a [u8],
    layout: &'a GcController,
}

/// The least distance from the trigger to the heap goal (`minRunway`).
const MIN_RUNWAY: u64 = 64 << 10;
/// The least distance from the memory limit to the heap goal
/// (`memoryLimitMinHeapGoalHeadroom`).
const MIN_HEADROOM: u64 = 1 << 20;

impl Pacer<'_> {
    fn word(&self, offset: u64) -> u64 {
        u64_at(self.fields, offset as usize).unwrap_or(0)
    }

    /// `gcControllerState.heapGoalInternal`, with so many bytes of objects in the heap.
    fn heap_goal(&self, heap_alloc: u64) -> u64 {
        let goal = self.word(self.layout.gc_percent_heap_goal);
        let limited = self.memory_limit_heap_goal(heap_alloc);
        if limited < goal {
            return limited;
        }
        let goal = goal.max(self.word(self.layout.sweep_dist_min_trigger));
        match self.word(self.layout.triggered) {
            // No cycle is under way.
            u64::MAX => goal,
            triggered => goal.max(triggered.saturating_add(MIN_RUNWAY)),
        }
    }

    /// `gcControllerState.memoryLimitHeapGoal`.
    fn memory_limit_heap_goal(&self, heap_alloc: u64) -> u64 {
        let at = self.layout;
        let [limit, ready, free, marked] =
            [at.memory_limit, at.mapped_ready, at.heap_free, at.heap_marked].map(|field| self.word(field));
        let non_heap = ready.saturating_sub(free).saturating_sub(heap_alloc);
        let over = non_heap.saturating_add(ready.saturating_sub(limit));
        if over >= limit {
            return marked;
        }
        let goal = limit - over;
        let relative = if at.relative_headroom { goal / 100 * 3 } else { 0 };
        let headroom = relative.max(MIN_HEADROOM);
        goal.saturating_sub(headroom).max(headroom).max(marked)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A field of `gcController`, and what it holds.
    type Field = (fn(&GcController) -> u64, u64);

    /// The heap goal of `gcController` with these fields, and 50 MiB of objects.
    fn goal(go: &str, fields: &[Field]) -> u64 {
        let layout = Layout::measured(go).expect(go).gc_controller;
        let mut bytes = vec![0; layout.mapped_ready as usize + 8];
        let mut put = |at: u64, value: u64| bytes[at as usize..][..8].copy_from_slice(&value.to_le_bytes());
        put(layout.gc_percent_heap_goal, 100 * MIB);
        put(layout.memory_limit, i64::MAX as u64);
        put(layout.mapped_ready, 80 * MIB);
        put(layout.heap_free, 10 * MIB);
        put(layout.triggered, u64::MAX);
        fields.iter().for_each(|(field, value)| put(field(&layout), *value));
        Pacer { fields: &bytes, layout: &layout }.heap_goal(50 * MIB)
    }

    #[test]
    fn the_heap_goal_is_the_pacers() {
        for go in ["go1.19.8", "go1.27.3"] {
            assert_eq!(goal(go, &[]), 100 * MIB);
            assert_eq!(goal(go, &[(|l| l.sweep_dist_min_trigger, 101 * MIB)]), 101 * MIB);
            assert_eq!(goal(go, &[(|l| l.triggered, 100 * MIB)]), 100 * MIB + MIN_RUNWAY);
            // 20 MiB are not heap; nothing is left for garbage.
            let marked: Field = (|l| l.heap_marked, 33 * MIB);
            assert_eq!(goal(go, &[(|l| l.memory_limit, 20 * MIB), marked]), 33 * MIB);
        }
        let limit: Field = (|l| l.memory_limit, 120 * MIB);
        assert_eq!(goal("go1.19.8", &[limit]), 99 * MIB);
        assert_eq!(goal("go1.27.3", &[limit]), 100 * MIB - 100 * MIB / 100 * 3);
    }

    proptest! {
        #[test]
        fn any_pacer_has_a_goal(words in prop::collection::vec(any::<u64>(), 0..60), alloc in any::<u64>()) {
            let layout = Layout::measured("go1.26.6").expect("layout").gc_controller;
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let pacer = Pacer { fields: &bytes, layout: &layout };
            let limited = pacer.memory_limit_heap_goal(alloc);
            prop_assert!(pacer.heap_goal(alloc) >= limited.min(pacer.word(layout.gc_percent_heap_goal)));
        }

        #[test]
        fn any_heap_stats_merge(words in prop::collection::vec(any::<u64>(), 0..500)) {
            let delta = Layout::measured("go1.26.6").expect("layout").memstats.delta;
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let whole = bytes.len() as u64 / delta.size;
            prop_assert!(whole > 0 || Merged::of(&bytes, &delta).freed_objects == 0);
        }
    }
}
