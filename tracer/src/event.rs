//! The one stream of facts everything is computed from (tier 1).
//!
//! A live source and a capture file both yield these; the model and the reports see
//! nothing else, so a replay gives the same result without target or root. All
//! addresses are run-time addresses of the target; times are CLOCK_MONOTONIC
//! nanoseconds of the capturing machine.

mod census;
mod holders;

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

pub use census::{Census, FinalizerCensus, GoroutineCensus, GoroutineGroup, MemoryCensus, SizeClassCensus};
pub use holders::{ChannelHeader, Held, Holder, HolderKind, Holders, MapHeader, Way};

/// Names one call stack within a capture: the hash the eBPF program computed of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StackId(pub u64);

/// Names one probe site within a capture: its index in `Plan::sites`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SiteId(pub u16);

/// One fact of a capture.
///
/// A capture file holds every variant but `Alloc`, `Stack` and `Deaths` as the JSON that serde
/// makes of it (docs/capture-format.md): a renamed variant or field is another format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// First of a capture.
    Start(Start),
    /// What is probed (`ProbePlan` as plain data).
    Sites(Vec<SiteInfo>),
    #[serde(skip)]
    Alloc(Alloc),
    /// Allocations that were counted instead of being told one by one, since the last of these.
    Counted(Vec<Counted>),
    /// What C allocates is followed, too: by the path of the library that has its allocator.
    FollowC { library: String },
    /// What C has allocated and freed since the last of these; each second.
    CCounts(CCounts),
    /// Return addresses of a stack, innermost first; precedes or follows its first use.
    #[serde(skip)]
    Stack { id: StackId, pcs: Vec<u64> },
    /// What a return address means; innermost (most deeply inlined) frame first.
    Symbol { pc: u64, frames: Vec<Frame> },
    /// What a `*_type` address means.
    Type { addr: u64, info: TypeInfo },
    /// Type and size of allocations at a site and stack where the trap could not read
    /// them, decoded from the calling machine code.
    Inferred(Inferred),
    /// A GC cycle finished marking; later allocations carry the new epoch.
    GcEpoch { epoch: u32, time_ns: u64 },
    /// A GC cycle has ended; comes after the `GcEpoch` of the same cycle.
    GcCycle(GcCycle),
    /// A goroutine had to mark before its next allocation.
    Assist(Assist),
    /// The world was stopped and is started again.
    Stw(Stw),
    /// A phase of the session that records has begun; the one before is over.
    Phase(Phase),
    /// Which functions and lines are marked; before the first `Mark`.
    Marks(Vec<MarkInfo>),
    /// A goroutine has passed one of them.
    Mark(Mark),
    /// From here on, objects are followed until they die; on the collector's side they
    /// may take this much memory (see `model::Live`).
    Follow { max_memory: u64 },
    /// Objects found dead, by the addresses of their slots, ascending: none of those
    /// allocated there before `epoch` began lives on. Follows the `GcEpoch` that began it
    /// and every `Alloc` of earlier epochs.
    #[serde(skip)]
    Deaths { epoch: u32, slots: Vec<u64> },
    /// All objects that the GC cycle before `epoch` found dead were told.
    Judged(Judged),
    /// Cumulative events lost on one CPU since the capture started.
    Lost { cpu: u32, events: u64, stacks: u64 },
    /// The runtime's own allocation counters, read from the target's memory. Goes into
    /// the stream as soon as it was read: no `Alloc` that happened after the reading
    /// precedes it (those that happened before it may follow), so that coverage is exact.
    Counters(Counters),
    /// Read each second.
    Gauges(Gauges),
    /// What a look at the target's memory found of who holds objects.
    Holders(Holders),
    /// What else there is in the process; read every few seconds, if that was asked for.
    Census(Census),
    /// A window in which allocations were seen has ended; follows every `Alloc` in it, and
    /// precedes those of the next one.
    Window(Window),
    /// What the probes have cost the target so far.
    Cost(Cost),
    /// The probes cost the target too much: those on allocation sites were taken off.
    Tripped(Tripped),
    /// What the runtime's own heap profiler knew before the first allocation was seen;
    /// many rows come in several of these.
    Baseline(Baseline),
    /// Something the user should know about this capture.
    Note(String),
    /// Last of a complete capture.
    End(End),
}

/// Counts in one event, so that none outgrows a frame of the file.
const COUNTED: usize = 256;

impl Event {
    /// The events that tell of these.
    pub fn counted(rows: &[Counted]) -> impl Iterator<Item = Event> {
        rows.chunks(COUNTED).map(|rows| Event::Counted(rows.to_vec()))
    }
}

/// Who was captured, how, and when.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Start {
    pub heaptap_version: String,
    /// CLOCK_MONOTONIC nanoseconds, the origin of the timeline.
    pub time_ns: u64,
    /// The same instant as nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    pub mode: String,
    /// Of the objects allocated only the runtime's own samples are seen, one in so many
    /// bytes on average (`runtime.MemProfileRate`); `None`: every object is.
    pub sampling_rate: Option<u64>,
    /// Objects are seen in windows of time only, so that traps take this share of the
    /// target's processor time at most; `None`: there are no windows.
    pub budget_percent: Option<f64>,
    pub target: Target,
}

/// The process and its executable.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Target {
    pub pid: u32,
    pub exe: String,
    /// GNU build ID in hex, or Go's own build ID where there is none.
    pub build_id: Option<String>,
    /// As `go version` prints it, experiments included: `go1.26.6-X:nogreenteagc`.
    pub go_version: String,
    pub arch: String,
    /// Neither `.symtab` nor DWARF.
    pub stripped: bool,
    pub pie: bool,
    pub cgo: bool,
    /// Run-time address minus link-time address of the executable.
    pub load_bias: u64,
    pub maps: Vec<Mapping>,
}

/// One line of `/proc/PID/maps` that is backed by a file or executable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    pub offset: u64,
    pub executable: bool,
    pub path: String,
}

/// A probe site as a capture remembers it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SiteInfo {
    /// The runtime function probed, as `runtime.mallocgc`.
    pub function: String,
    /// Bytes from the function's entry.
    pub offset: u32,
}

/// One completed allocation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Alloc {
    /// A little old: as of the last tick of the kernel's clock, of 1 to 10 ms, but never of
    /// before a reading of the counters that it is not of before.
    pub time_ns: u64,
    /// The pointer the program got; may lie inside a slot (tiny objects, malloc headers).
    pub ptr: u64,
    /// Bytes asked for; 0 when the trap could not read it (see [`Event::Inferred`]).
    pub size: u64,
    /// Bytes of heap taken: the size class, or 0 for a tiny object that fitted an
    /// existing block. A live source says `UNKNOWN_SLOT` where the trap could not read it;
    /// the session completes it from size and type, unless these are unknown too.
    pub slot: u64,
    /// The element type's `*_type`; 0 when untyped, or unknown at this site.
    pub type_addr: u64,
    pub stack: StackId,
    /// The goroutine, by the address of its runtime.g: one that begins after it has ended may
    /// have the same.
    pub goroutine: u64,
    pub site: SiteId,
    pub epoch: u32,
    pub cpu: u32,
}

/// Completed allocations of which only the number is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counted {
    pub site: SiteId,
    pub stack: StackId,
    /// These two are as in [`Alloc`]; where the slot is not known, the objects have one size.
    pub type_addr: u64,
    pub slot: u64,
    pub objects: u64,
    /// Bytes asked for, of all together; 0 when the trap could not read it.
    pub requested: u64,
    /// Whether they are known to have died since the last of these.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub died: bool,
}

/// What C has allocated and freed, by stack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CCounts {
    /// CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// Without those of which nothing changed.
    pub stacks: Vec<CCounted>,
}

/// C's allocations of one stack, and which of those from it were freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CCounted {
    /// Innermost is the return address in the C function that called the allocator; then come
    /// those of the goroutine that called C, if one did.
    pub stack: StackId,
    pub objects: u64,
    /// As asked for.
    pub bytes: u64,
    pub freed_objects: u64,
    pub freed_bytes: u64,
}

/// `Alloc::slot` when the slot size is not known.
pub const UNKNOWN_SLOT: u64 = u64::MAX;

/// What the machine code around a call says about the objects it allocates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inferred {
    pub site: SiteId,
    pub stack: StackId,
    /// The `*_type` passed, `Some(0)` for untyped, `None` when it is not a constant.
    pub type_addr: Option<u64>,
    /// The size passed, when it is a constant.
    pub size: Option<u64>,
}

/// What the runtime recorded of one GC cycle: the numbers of its `gctrace` line, unrounded,
/// and what steers the next one. Bytes and nanoseconds; instants of CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GcCycle {
    /// Cycles since the program started, this one included.
    pub cycle: u32,
    /// The epoch that began when its marking ended.
    pub epoch: u32,
    /// When this was read, soon after the cycle had ended.
    pub time_ns: u64,
    /// Asked for by `runtime.GC` or the like.
    pub forced: bool,
    /// `None`: its start was not seen.
    pub trigger: Option<GcTrigger>,
    /// It looked for leaked goroutines (from Go 1.26 on).
    pub leak_check: bool,
    /// When the runtime started.
    pub init_ns: u64,
    /// When the world was to be stopped, to end the sweeping of the cycle before.
    pub sweep_term_ns: u64,
    /// When the world ran again and marking began.
    pub mark_ns: u64,
    /// When the world was to be stopped again, to end marking.
    pub mark_term_ns: u64,
    /// When the cycle had ended.
    pub end_ns: u64,
    /// Processor time of goroutines that had to help marking.
    pub assist_ns: u64,
    /// Processor time of mark workers: on a P of their own, on a part of one, on idle Ps.
    pub dedicated_ns: u64,
    pub fractional_ns: u64,
    pub idle_ns: u64,
    /// Share of all processor time since the program started that the GC took, rounded down.
    pub cpu_percent: u32,
    /// Ps that were stopped, and GOMAXPROCS.
    pub stw_procs: u32,
    pub max_procs: u32,
    /// Bytes of objects when the cycle began, when marking ended, and of those marked.
    pub heap_before: u64,
    pub heap_after: u64,
    pub heap_marked: u64,
    /// Bytes of objects at `time_ns`: marked ones, and what came since.
    pub heap_live: u64,
    /// The size the heap was meant to have at the end.
    pub heap_goal: u64,
    /// Stacks and global variables that could be scanned.
    pub stack_scan: u64,
    pub globals_scan: u64,
    /// GOGC and GOMEMLIMIT in force; a negative GOGC is `off`, a limit of `i64::MAX` none.
    pub gc_percent: i32,
    pub memory_limit: i64,
}

/// What made a GC cycle start (runtime/mgc.go `gcTriggerKind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GcTrigger {
    /// The heap had grown up to the trigger.
    Heap,
    /// There was none for two minutes.
    Time,
    /// The program asked for one.
    Cycle,
}

/// One GC assist; instants of CLOCK_MONOTONIC in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Assist {
    /// As in the [`Alloc`] that had to wait for this, the next one of the goroutine.
    #[serde(alias = "goid")]
    pub goroutine: u64,
    pub begin_ns: u64,
    pub end_ns: u64,
}

/// One stop of the world; instants of CLOCK_MONOTONIC in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stw {
    /// In the runtime's words; `None` before Go 1.21, which names none.
    pub reason: Option<String>,
    /// When the runtime began to stop the other threads.
    pub begin_ns: u64,
    /// When it let them go on.
    pub end_ns: u64,
}

/// A phase of a session, or the rest of one that began with an earlier capture.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phase {
    pub name: String,
    /// CLOCK_MONOTONIC nanoseconds.
    pub begin_ns: u64,
}

/// A function or line that the user has marked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MarkInfo {
    /// As the user wrote it.
    pub name: String,
    /// Whether ends are told, too.
    pub is_region: bool,
    /// Where it is passed, or begins; of a generic function there are several.
    pub begins: Vec<SiteId>,
    pub ends: Vec<SiteId>,
}

/// A mark was passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mark {
    pub site: SiteId,
    pub time_ns: u64,
    /// Its number; on a thread's own stack, of the runtime, the address of that runtime.g.
    pub goroutine: u64,
    /// Bytes of the goroutine's stack in use when the marked function was called.
    pub depth: u64,
}

/// One function of a stack, as the compiler saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Frame {
    /// Package-qualified, as Go prints it: `net/http.(*conn).serve`.
    pub function: String,
    pub file: String,
    /// 0 when unknown.
    pub line: u32,
    /// Whether this frame was inlined into the next one.
    pub inlined: bool,
    /// Whether the compiler made the function to call another: see [`TracedFrame::is_wrapper`].
    /// The runtime's own stack traces and profiles leave it out.
    ///
    /// [`TracedFrame::is_wrapper`]: crate::binary::TracedFrame::is_wrapper
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub wrapper: bool,
}

/// A Go type as its descriptor says (internal/abi/type.go `Type`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct TypeInfo {
    /// As Go prints it: `main.Node`, `[]string`, `struct { F uintptr; X0 int }`.
    pub name: String,
    /// Full import path for named types, else empty.
    pub package: String,
    /// Bytes of one value.
    pub size: u64,
    /// Bytes at its start that may hold pointers; 0: noscan.
    pub ptr_bytes: u64,
    /// `reflect.Kind` in lower case: `struct`, `slice`, `ptr`, ….
    pub kind: String,
}

/// A GC cycle whose marks were read in full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Judged {
    /// The epoch that began when marking ended.
    pub epoch: u32,
    /// When the reading that was complete began.
    pub time_ns: u64,
    /// Nanoseconds of processor time that it took, with the comparison.
    pub took_ns: u64,
    /// Heap spans with followed objects.
    pub spans: u64,
}

/// The runtime's cumulative allocation counters (`MemStats.Mallocs`, `TotalAlloc`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// The read took place between these instants.
    pub begin_ns: u64,
    pub end_ns: u64,
    /// Objects allocated since the program started, each tiny object counted.
    pub objects: u64,
    /// Bytes by size class, as `MemStats.TotalAlloc`.
    pub bytes: u64,
    /// Of `objects` those in slots of a size class, by the slot's size, ascending; at 0
    /// tiny ones that fitted an existing block.
    pub by_slot: Vec<(u64, u64)>,
    /// Of `bytes` those of objects too large for any size class.
    pub large_bytes: u64,
}

/// How things stand with the process at one time; `None`: it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gauges {
    /// CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// As `runtime.NumGoroutine`.
    pub goroutines: Option<u64>,
    /// Bytes of resident memory (proc(5), `/proc/PID/statm`).
    pub rss_bytes: Option<u64>,
}

/// A window of time in which allocations were seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Window {
    /// When it was opened, and when it was shut or had used up its allowance.
    pub begin_ns: u64,
    pub end_ns: u64,
    /// Length of the segment of time that it was placed in, at random.
    pub segment_ns: u64,
    /// Objects that passed, those of lost events too.
    pub objects: u64,
    /// How many objects each of these stands for, of its segment.
    pub weight: f64,
    /// By slot size, ascending, how many objects the segment holds by the rate at which the
    /// target allocates them near the window, where that is known: those seen of the size
    /// stand for so many.
    pub expected: Vec<(u64, f64)>,
    /// By slot size, ascending, the [level](Window::level) of that rate; `None`: another one
    /// before the window than after it. Nothing of sizes that are rare near the window.
    pub near: Vec<(u64, Option<i32>)>,
    /// By slot size and level, ascending, how many objects the runtime counted since the
    /// window before, in the times at which they came at such a rate.
    pub counted: Vec<(u64, i32, u64)>,
}

impl Window {
    /// The levels that there are: from an object in a hundred years to more than a machine
    /// can make.
    pub const LEVELS: RangeInclusive<i32> = -64..=128;

    /// The level of a rate: half octaves of objects a second.
    pub fn level(objects: f64, time_ns: f64) -> i32 {
        let level = 2.0 * (objects * 1e9 / time_ns).log2();
        (level.floor() as i32).clamp(*Window::LEVELS.start(), *Window::LEVELS.end())
    }
}

/// What was counted and used from when the probes were in place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Traps of any site.
    pub hits: u64,
    /// Nanoseconds that one trap takes on this machine, as measured before.
    pub trap_ns: u64,
    /// Processor time of the target, all its threads, in nanoseconds.
    pub cpu_ns: u64,
}

/// When and why a recording took the probes off allocation sites.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tripped {
    /// They were gone by then: every [`Alloc`] is from before, though it may come after this.
    pub time_ns: u64,
    /// Share of the target's processor time that traps took, and the most they were to take.
    pub overhead_percent: f64,
    pub limit_percent: f64,
}

/// Sites that had objects alive before a capture began, as the runtime had sampled them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Baseline {
    /// `runtime.MemProfileRate`: one sample for so many bytes. 0: the profiler is off.
    pub rate: i64,
    pub rows: Vec<BaselineRow>,
}

/// Objects of one size from one stack: estimates, un-sampled with the rate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BaselineRow {
    /// Return addresses, innermost first; one for each inlined call, too.
    pub pcs: Vec<u64>,
    /// Of each object: its slot, in bytes.
    pub object_size: u64,
    pub inuse_objects: i64,
    pub inuse_bytes: i64,
    /// Since the program started.
    pub alloc_objects: i64,
    pub alloc_bytes: i64,
}

/// How a capture ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct End {
    pub time_ns: u64,
    pub reason: EndReason,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The time asked for is over.
    #[default]
    Elapsed,
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// The target ended (or called exec).
    TargetExited,
}
