//! What one Go version's runtime looks like in memory: the only place that decides by
//! version.

mod arenas;
mod queues;
mod special;

pub(super) use arenas::Arenas;
pub(super) use queues::Queues;
pub use special::Special;

use super::container_layout::{Hchan, Maps};
use super::offsets::Offsets;
use super::version::GoVersion;
use crate::base::{Error, Result};
use crate::binary::Binary;

/// Where the runtime keeps what heaptap reads. Offsets are in bytes from the start of
/// the struct (Go's name for it on each member), sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// `runtime.g`
    pub g: G,
    /// `runtime.m`
    pub m: M,
    /// `runtime.p`
    pub p: P,
    /// `runtime.schedt`
    pub sched: Sched,
    /// `runtime.mcache`
    pub mcache: Mcache,
    /// `runtime.mspan`
    pub mspan: Mspan,
    /// `runtime.special`
    pub special: Special,
    /// What waits to be run: timers, finalizers, cleanups
    pub queues: Queues,
    /// `runtime.mstats`
    pub memstats: Memstats,
    /// `runtime.mheap`: its `sweepgen`, a u32
    pub mheap_sweepgen: u64,
    /// `runtime.mheap`: its `allspans`, a slice of `*mspan`
    pub mheap_allspans: u64,
    /// `runtime.heapArena`
    pub arenas: Arenas,
    /// `runtime.mheap`: bytes of `mspan` and `mcache` structs in use
    pub mheap_spanalloc_inuse: u64,
    pub mheap_cachealloc_inuse: u64,
    /// `runtime.gcControllerState`
    pub gc_controller: GcController,
    /// `runtime.bucket` and `runtime.memRecord`
    pub profile: Profile,
    /// `runtime.work`: the count of GC cycles, a u32
    pub work_cycles: u64,
    /// What `gctrace` prints, besides what stands above; None where a part is not known.
    pub gc_trace: Option<GcTrace>,
    /// `internal/abi.Type` (`runtime._type` before 1.21)
    pub types: Type,
    /// Whether objects with pointers above 512 bytes carry an 8-byte header.
    pub malloc_headers: bool,
    /// `runtime.mspan`: the `*_type` of its one large object, where there are headers
    pub large_type: Option<u64>,
    pub maps: Maps,
    /// `runtime.hchan`
    pub hchan: Hchan,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct G {
    pub m: u64,
    pub goid: u64,
    /// Two addresses: the lowest of the stack, and the end behind its highest.
    pub stack: u64,
    /// Stack pointer and program counter while it does not run (`sched`, a `gobuf`).
    pub sched_sp: u64,
    pub sched_pc: u64,
    /// Stack pointer and program counter in a system call or C code; else 0.
    pub syscall_sp: u64,
    pub syscall_pc: u64,
    /// Frame pointer as of when it switched to its thread's own stack (in `sched`).
    pub sched_bp: u64,
    /// A u32.
    pub status: u64,
    /// Nanoseconds of the monotonic clock.
    pub wait_since: u64,
    /// A u8.
    pub wait_reason: u64,
    /// Not 0 when locked to a thread.
    pub locked_m: u64,
    /// From Go 1.21 on.
    pub parent: Option<u64>,
    /// The return address of the `go` statement.
    pub go_pc: u64,
    pub start_pc: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct M {
    pub g0: u64,
    pub curg: u64,
    pub p: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct P {
    pub mcache: u64,
    /// Dead goroutines kept for reuse: their count, an i32.
    pub free_goroutines: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sched {
    /// The next thread's id, an i64.
    pub mnext: u64,
    /// Threads that have ended, an i64.
    pub nmfreed: u64,
    /// System goroutines, an i32.
    pub ngsys: u64,
    /// Dead goroutines kept for reuse: counts to add up, each an i32.
    pub free_goroutines: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mcache {
    pub next_sample: u64,
    /// The `MemProfileRate` it knows, from Go 1.24 on.
    pub mem_prof_rate: Option<u64>,
    pub tiny_allocs: u64,
    /// An array of `*mspan`, indexed by span class.
    pub alloc: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mspan {
    /// A word, as are the fields here without another size.
    pub start_addr: u64,
    pub npages: u64,
    /// A word or a u16 (`narrow_indices`).
    pub freeindex: u64,
    /// A word or a u16 (`narrow_indices`).
    pub nelems: u64,
    pub alloc_bits: u64,
    pub gcmark_bits: u64,
    /// A u32.
    pub sweepgen: u64,
    /// A u16.
    pub alloc_count: u64,
    /// A u8: the size class, doubled, plus 1 for objects without pointers.
    pub spanclass: u64,
    /// A u8.
    pub state: u64,
    /// A bool, where there are user arenas (Go 1.20).
    pub is_user_arena_chunk: Option<u64>,
    pub elemsize: u64,
    pub limit: u64,
    /// Whether `freeindex` and `nelems` are u16 (Go 1.22) instead of words.
    pub narrow_indices: bool,
    /// A u16.
    pub alloc_count_before_cache: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memstats {
    /// Three `heapStatsDelta`, one after the other.
    pub heap_stats: u64,
    /// Bytes, a word each.
    pub stacks_sys: u64,
    pub mspan_sys: u64,
    pub mcache_sys: u64,
    pub buckhash_sys: u64,
    pub gc_misc_sys: u64,
    pub other_sys: u64,
    /// Nanoseconds since 1970.
    pub last_gc_unix: u64,
    pub pause_total_ns: u64,
    /// A u32.
    pub numgc: u64,
    /// A u32.
    pub numforcedgc: u64,
    /// A float64.
    pub gc_cpu_fraction: u64,
    pub delta: HeapStatsDelta,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeapStatsDelta {
    pub size: u64,
    /// Bytes that are neither heap nor counted in `memstats`: offsets of stacks, and of
    /// what belongs to the GC.
    pub in_stacks: u64,
    pub in_gc: Vec<u64>,
    pub tiny_alloc_count: u64,
    pub large_alloc: u64,
    pub large_alloc_count: u64,
    /// An array of u64, indexed by size class.
    pub small_alloc_count: u64,
    pub large_free: u64,
    pub large_free_count: u64,
    /// An array of u64, indexed by size class.
    pub small_free_count: u64,
}

/// Words, of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcController {
    pub memory_limit: u64,
    pub gc_percent_heap_goal: u64,
    pub sweep_dist_min_trigger: u64,
    pub triggered: u64,
    pub heap_marked: u64,
    pub heap_in_use: u64,
    pub heap_released: u64,
    pub heap_free: u64,
    pub mapped_ready: u64,
    /// Whether the heap goal keeps 3% below the memory limit, not just 1 MiB.
    pub relative_headroom: bool,
}

/// Fields of `runtime.gcController`, then of `runtime.work`: u64 or i64 unless said
/// otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcTrace {
    /// An i32.
    pub gc_percent: u64,
    pub last_heap_goal: u64,
    pub heap_live: u64,
    /// The bytes of stacks that gctrace prints.
    pub stack_scan: u64,
    pub globals_scan: u64,
    pub assist_time: u64,
    pub dedicated_mark_time: u64,
    pub fractional_mark_time: u64,
    pub idle_mark_time: u64,
    /// A bool.
    pub user_forced: u64,
    /// An i32 each.
    pub stw_procs: u64,
    pub max_procs: u64,
    pub sweep_term: u64,
    pub mark: u64,
    pub mark_term: u64,
    pub end: u64,
    pub heap0: u64,
    pub heap1: u64,
    pub heap2: u64,
    /// A bool, from Go 1.26 on.
    pub leak_check_done: Option<u64>,
}

/// A bucket, then its stack, then its `memRecord`: `active`, and three to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub bucket_size: u64,
    pub allnext: u64,
    pub typ: u64,
    pub size: u64,
    pub nstk: u64,
    pub record_future: u64,
    /// Of a `memRecordCycle`.
    pub cycle_size: u64,
    pub allocs: u64,
    pub frees: u64,
    /// Bytes allocated and freed, where they are counted apart (up to Go 1.26).
    pub bytes: Option<(u64, u64)>,
    /// Whether pprof hides frames of `internal/runtime/` too, not just of `runtime`.
    pub hides_internal_runtime: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type {
    pub size: u64,
    pub ptr_bytes: u64,
    pub tflag: u64,
    pub kind: u64,
    /// The name, an i32 offset from its module's `types`.
    pub str: u64,
    /// Size of the descriptor of a map type.
    pub map_size: u64,
}

impl Layout {
    /// The layout of the runtime in this binary: from its DWARF, else from the tables
    /// measured for its Go version.
    ///
    /// `go_version` is as the binary tells it (`Binary::go_version`) or as the user
    /// assumes it.
    ///
    /// # Errors
    /// Usage when Go is older than 1.19. Failed when the version was never measured and
    /// the binary has no DWARF that tells.
    pub fn for_binary(binary: &Binary, go_version: &str) -> Result<Layout> {
        let version = GoVersion::parse(go_version);
        if let Some(old) = version.as_ref().filter(|v| v.minor < OLDEST) {
            return Err(too_old(old));
        }
        let measured = version.as_ref().and_then(Offsets::measured);
        let offsets = match (binary.has_dwarf().then(|| Offsets::from_dwarf(binary)), measured) {
            (Some(told), Some(measured)) => told.or(measured),
            (Some(told), None) => told,
            (None, Some(measured)) => measured,
            (None, None) => return Err(unknown(go_version)),
        };
        let mut layout = Layout::from_offsets(&offsets)
            .map_err(|field| unknown(go_version).because(format!("its DWARF does not tell {field}")))?;
        // An experiment of Go 1.22 only.
        layout.malloc_headers &= !version.is_some_and(|v| v.has_experiment("noallocheaders"));
        log::debug!("layout of {go_version}: {layout:?}");
        Ok(layout)
    }

    /// The layout measured for a release, whatever a binary may say; None when it was not
    /// measured.
    pub fn measured(go_version: &str) -> Option<Layout> {
        Layout::from_offsets(&Offsets::measured(&GoVersion::parse(go_version)?)?).ok()
    }

    /// Joins the offsets into a layout; the error names the field that is missing.
    fn from_offsets(offsets: &Offsets) -> Result<Layout, String> {
        let any = |names: &[(&str, &str)]| match offsets.find(names) {
            Some(offset) if offset <= MAX_OFFSET => Ok(offset),
            _ => Err(names.first().map_or(String::new(), |(name, field)| format!("{name}.{field}"))),
        };
        let at = |name, field| any(&[(name, field)]);
        let of_type = |field, old| any(&[("internal/abi.Type", field), ("runtime._type", old)]);
        Ok(Layout {
            g: G::from_offsets(&at)?,
            m: M { g0: at("runtime.m", "g0")?, curg: at("runtime.m", "curg")?, p: at("runtime.m", "p")? },
            p: P {
                mcache: at("runtime.p", "mcache")?,
                // Behind the list's head, whether inside the list (Go 1.25) or after it.
                free_goroutines: at("runtime.p", "gFree")? + 8,
            },
            sched: Sched::from_offsets(&at)?,
            mcache: Mcache {
                next_sample: at("runtime.mcache", "nextSample")?,
                mem_prof_rate: at("runtime.mcache", "memProfRate").ok(),
                tiny_allocs: at("runtime.mcache", "tinyAllocs")?,
                alloc: at("runtime.mcache", "alloc")?,
            },
            mspan: Mspan::from_offsets(&at)?,
            special: Special::from_offsets(&at)?,
            queues: Queues::from_offsets(&at),
            memstats: Memstats::from_offsets(&at)?,
            mheap_sweepgen: at("runtime.mheap", "sweepgen")?,
            mheap_allspans: at("runtime.mheap", "allspans")?,
            arenas: Arenas::from_offsets(&at)?,
            mheap_spanalloc_inuse: at("runtime.mheap", "spanalloc")? + at("runtime.fixalloc", "inuse")?,
            mheap_cachealloc_inuse: at("runtime.mheap", "cachealloc")? + at("runtime.fixalloc", "inuse")?,
            gc_controller: GcController::from_offsets(&at)?,
            profile: Profile::from_offsets(&at)?,
            work_cycles: at("runtime.workType", "cycles")?,
            gc_trace: GcTrace::from_offsets(&at).ok(),
            types: Type {
                size: of_type("Size_", "size")?,
                ptr_bytes: of_type("PtrBytes", "ptrdata")?,
                tflag: of_type("TFlag", "tflag")?,
                kind: of_type("Kind_", "kind")?,
                str: of_type("Str", "str")?,
                map_size: any(&MAP_TYPES)?,
            },
            // The field came with the headers (Go 1.22, runtime/mheap.go).
            malloc_headers: offsets.find(&[("runtime.mspan", "largeType")]).is_some(),
            large_type: at("runtime.mspan", "largeType").ok(),
            maps: Maps::from_offsets(&at)?,
            hchan: Hchan::from_offsets(&at)?,
        })
    }
}

impl G {
    fn from_offsets(at: &impl At) -> Result<G, String> {
        let field = |name| at("runtime.g", name);
        Ok(G {
            m: field("m")?,
            goid: field("goid")?,
            stack: field("stack")?,
            sched_sp: field("sched")? + at("runtime.gobuf", "sp")?,
            sched_pc: field("sched")? + at("runtime.gobuf", "pc")?,
            sched_bp: field("sched")? + at("runtime.gobuf", "bp")?,
            syscall_sp: field("syscallsp")?,
            syscall_pc: field("syscallpc")?,
            status: field("atomicstatus")?,
            wait_since: field("waitsince")?,
            wait_reason: field("waitreason")?,
            locked_m: field("lockedm")?,
            parent: field("parentGoid").ok(),
            go_pc: field("gopc")?,
            start_pc: field("startpc")?,
        })
    }
}

impl Sched {
    fn from_offsets(at: &impl At) -> Result<Sched, String> {
        let field = |name| at("runtime.schedt", name);
        let list = at("runtime.gList", "_size")?;
        // A lock, the lists of those with and without stack, and up to Go 1.24 their count.
        let lists = field("gFree")? + 8;
        let free_goroutines = match at("runtime.gList", "size") {
            Ok(size) => vec![lists + size, lists + list + size],
            Err(_) => vec![lists + 2 * list],
        };
        Ok(Sched {
            mnext: field("mnext")?,
            nmfreed: field("nmfreed")?,
            ngsys: field("ngsys")?,
            free_goroutines,
        })
    }
}

impl Memstats {
    fn from_offsets(at: &impl At) -> Result<Memstats, String> {
        let field = |name| at("runtime.mstats", name);
        Ok(Memstats {
            heap_stats: field("heapStats")? + at("runtime.consistentHeapStats", "stats")?,
            stacks_sys: field("stacks_sys")?,
            mspan_sys: field("mspan_sys")?,
            mcache_sys: field("mcache_sys")?,
            buckhash_sys: field("buckhash_sys")?,
            gc_misc_sys: field("gcMiscSys")?,
            other_sys: field("other_sys")?,
            last_gc_unix: field("last_gc_unix")?,
            pause_total_ns: field("pause_total_ns")?,
            numgc: field("numgc")?,
            numforcedgc: field("numforcedgc")?,
            gc_cpu_fraction: field("gc_cpu_fraction")?,
            delta: HeapStatsDelta::from_offsets(at)?,
        })
    }
}

impl HeapStatsDelta {
    fn from_offsets(at: &impl At) -> Result<HeapStatsDelta, String> {
        let field = |name| at("runtime.heapStatsDelta", name);
        Ok(HeapStatsDelta {
            size: field("_size")?,
            in_stacks: field("inStacks")?,
            // The second went with Go 1.25.
            in_gc: [Some(field("inWorkBufs")?), field("inPtrScalarBits").ok()]
                .into_iter()
                .flatten()
                .collect(),
            tiny_alloc_count: field("tinyAllocCount")?,
            large_alloc: field("largeAlloc")?,
            large_alloc_count: field("largeAllocCount")?,
            small_alloc_count: field("smallAllocCount")?,
            large_free: field("largeFree")?,
            large_free_count: field("largeFreeCount")?,
            small_free_count: field("smallFreeCount")?,
        })
    }
}

impl GcController {
    fn from_offsets(at: &impl At) -> Result<GcController, String> {
        let field = |name| at("runtime.gcControllerState", name);
        Ok(GcController {
            memory_limit: field("memoryLimit")?,
            gc_percent_heap_goal: field("gcPercentHeapGoal")?,
            sweep_dist_min_trigger: field("sweepDistMinTrigger")?,
            triggered: field("triggered")?,
            heap_marked: field("heapMarked")?,
            heap_in_use: field("heapInUse")?,
            heap_released: field("heapReleased")?,
            heap_free: field("heapFree")?,
            mapped_ready: field("mappedReady")?,
            // Both are news of Go 1.20 (runtime/mgcpacer.go `memoryLimitHeapGoal`).
            relative_headroom: at("runtime.workType", "cpuStats").is_ok(),
        })
    }
}

impl GcTrace {
    fn from_offsets(at: &impl At) -> Result<GcTrace, String> {
        let controller = |name| at("runtime.gcControllerState", name);
        let work = |name| at("runtime.workType", name);
        Ok(GcTrace {
            gc_percent: controller("gcPercent")?,
            last_heap_goal: controller("lastHeapGoal")?,
            heap_live: controller("heapLive")?,
            // What is printed changed with Go 1.20, as did the CPU statistics.
            stack_scan: controller(if work("cpuStats").is_ok() { "lastStackScan" } else { "maxStackScan" })?,
            globals_scan: controller("globalsScan")?,
            assist_time: controller("assistTime")?,
            dedicated_mark_time: controller("dedicatedMarkTime")?,
            fractional_mark_time: controller("fractionalMarkTime")?,
            idle_mark_time: controller("idleMarkTime")?,
            user_forced: work("userForced")?,
            stw_procs: work("stwprocs")?,
            max_procs: work("maxprocs")?,
            sweep_term: work("tSweepTerm")?,
            mark: work("tMark")?,
            mark_term: work("tMarkTerm")?,
            end: work("tEnd")?,
            heap0: work("heap0")?,
            heap1: work("heap1")?,
            heap2: work("heap2")?,
            // Behind `pending` and `enabled`, a byte each.
            leak_check_done: work("goroutineLeak").ok().map(|at| at + 2),
        })
    }
}

impl Profile {
    fn from_offsets(at: &impl At) -> Result<Profile, String> {
        let bucket = |name| at("runtime.bucket", name);
        let cycle = |name| at("runtime.memRecordCycle", name);
        Ok(Profile {
            bucket_size: bucket("_size")?,
            allnext: bucket("allnext")?,
            typ: bucket("typ")?,
            size: bucket("size")?,
            nstk: bucket("nstk")?,
            record_future: at("runtime.memRecord", "future")?,
            cycle_size: cycle("_size")?,
            allocs: cycle("allocs")?,
            frees: cycle("frees")?,
            bytes: cycle("alloc_bytes").ok().zip(cycle("free_bytes").ok()),
            // Both are news of Go 1.24 (runtime/pprof/protomem.go `writeHeapProto`).
            hides_internal_runtime: at("runtime.mcache", "memProfRate").is_ok(),
        })
    }
}

impl Mspan {
    fn from_offsets(at: &impl At) -> Result<Mspan, String> {
        let field = |name| at("runtime.mspan", name);
        Ok(Mspan {
            start_addr: field("startAddr")?,
            npages: field("npages")?,
            freeindex: field("freeindex")?,
            nelems: field("nelems")?,
            alloc_bits: field("allocBits")?,
            gcmark_bits: field("gcmarkBits")?,
            sweepgen: field("sweepgen")?,
            alloc_count: field("allocCount")?,
            spanclass: field("spanclass")?,
            state: field("state")?,
            is_user_arena_chunk: field("isUserArenaChunk").ok(),
            elemsize: field("elemsize")?,
            limit: field("limit")?,
            narrow_indices: field("nelems")?.wrapping_sub(field("freeindex")?) == 2,
            alloc_count_before_cache: field("allocCountBeforeCache")?,
        })
    }
}

/// Gives the offset of a struct's field, or its name when it has none.
pub(super) trait At: Fn(&'static str, &'static str) -> Result<u64, String> {}
impl<F: Fn(&'static str, &'static str) -> Result<u64, String>> At for F {}

/// The oldest Go line that heaptap reads.
const OLDEST: u32 = 19;

/// A map type's descriptor, by its names over time and experiments.
const MAP_TYPES: [(&str, &str); 4] = [
    ("internal/abi.MapType", "_size"),
    ("internal/abi.SwissMapType", "_size"),
    ("internal/abi.OldMapType", "_size"),
    ("runtime.maptype", "_size"),
];

/// No struct of the runtime that is read here is larger: 4 MiB. The largest is `heapArena` up to Go 1.21,
/// of 1 to 2 MiB.
const MAX_OFFSET: u64 = 1 << 22;

fn too_old(version: &GoVersion) -> Error {
    let minor = version.minor;
    Error::usage(format!("the program was built with Go 1.{minor}; heaptap reads Go 1.{OLDEST} and later"))
        .hint("rebuild the program with a newer Go")
}

fn unknown(go_version: &str) -> Error {
    Error::failed(format!(
        "the runtime's structs in {go_version} are not known, and the program has no DWARF: goroutine ids, \
         type names and the runtime's own counters cannot be read"
    ))
    .hint("pass --assume-go VERSION with a version near it, or use a build that is not stripped")
}
