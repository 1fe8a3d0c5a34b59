//! What the eBPF program and the collector share, byte for byte: recipes, records, counters.
//!
//! Every type is `repr(C)` and padded explicitly, so that no byte of a record or map
//! value is undefined. Names of maps and globals stand in `tracer-ebpf/src/main.rs`.
#![no_std]

/// Most probe sites one plan may have: a site index is one byte of an event.
pub const MAX_SITES: usize = 256;

/// Most return addresses of one stack.
pub const MAX_DEPTH: usize = 128;

/// Most words of the target's memory that are read when a GC cycle has ended.
pub const MAX_GC_WORDS: usize = 32;

/// Where one value lies when a site traps.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The constant, the register's number, or the offset in bytes (two's complement).
    pub arg: u64,
    /// One of the constants below; an unknown kind reads as 0.
    pub kind: u32,
    pub _pad: u32,
}

impl Place {
    /// The value is `arg`.
    pub const CONST: u32 = 0;
    /// In the general register numbered `arg` as x86-64 encodes it: 0 rax, 1 rcx, 2 rdx,
    /// 3 rbx, 4 rsp, 5 rbp, 6 rsi, 7 rdi, 8 to 15 r8 to r15.
    pub const REG: u32 = 1;
    /// A u64 in memory at rbp + `arg`.
    pub const FRAME: u32 = 2;
    /// A u64 in memory at rsp + `arg`.
    pub const STACK: u32 = 3;

    pub const fn new(kind: u32, arg: u64) -> Place {
        Place { arg, kind, _pad: 0 }
    }
}

/// How to read what happens at one site; the map key is the site's index.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// The pointer of an allocation; what triggered a GC; why the world is stopped.
    pub ptr: Place,
    pub size: Place,
    pub type_: Place,
    pub slot: Place,
    /// One of the constants below.
    pub purpose: u32,
    /// The site's index, below [`MAX_SITES`].
    pub site: u32,
}

impl Recipe {
    pub const ALLOC: u32 = 1;
    pub const GC_EPOCH: u32 = 2;
    pub const GC_START: u32 = 3;
    pub const GC_RECORD: u32 = 4;
    pub const STW_BEGIN: u32 = 5;
    pub const STW_END: u32 = 6;
    pub const ASSIST_BEGIN: u32 = 7;
    pub const ASSIST_END: u32 = 8;
    /// As `ALLOC`, of an object that the runtime's own heap profiler samples.
    pub const SAMPLE: u32 = 9;
    /// A mark is passed: `ptr` is the stack pointer, and `size` above it is where that was when
    /// the function was called. `slot` is not 0 if the kernel single-steps the instruction.
    pub const MARK: u32 = 10;
    /// A function of C's allocator is called, for `size` times `type_` bytes. On these five
    /// `slot` is as on `MARK`.
    pub const C_ALLOC: u32 = 11;
    /// As `C_ALLOC`, and what `ptr` points to is to be freed if that succeeds.
    pub const C_REALLOC: u32 = 12;
    /// As `C_ALLOC`, of a function that returns 0 or an error, and stores the pointer at `ptr`.
    pub const C_STORE: u32 = 13;
    /// One of these is about to return `ptr`; the stack pointer is `size` below where it was when
    /// it was called.
    pub const C_RETURN: u32 = 14;
    /// `ptr` is freed.
    pub const C_FREE: u32 = 15;
}

/// Where the runtime keeps its record of a GC cycle: addresses in the target, 0 for none.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcAddresses {
    /// Read when a cycle has ended.
    pub words: [u64; MAX_GC_WORDS],
    /// A byte that only holds while the world is stopped at the end of marking.
    pub leak_check: u64,
}

/// How to tell whether the runtime samples an object because of its rate, or because it
/// has noticed another one.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// Bytes per sample, of the samples that are wanted.
    pub rate: u64,
    /// Address of `runtime.MemProfileRate` in the target.
    pub rate_address: u64,
    /// Offsets in bytes: `m` in runtime.g, `p` in runtime.m, `mcache` in runtime.p, and in
    /// runtime.mcache `nextSample` and `memProfRate`.
    pub g_m: u64,
    pub m_p: u64,
    pub p_mcache: u64,
    pub next_sample: u64,
    /// [`Sampler::NO_FIELD`] up to Go 1.23.
    pub mcache_rate: u64,
    /// Not 0: the rate was another one until after the probes were attached.
    pub was_set: u64,
    /// Not 0: no P is left that would sample an object for another reason than this rate.
    pub is_settled: u64,
}

impl Sampler {
    /// The offset of a field that is not there.
    pub const NO_FIELD: u64 = u64::MAX;
}

/// The first bytes of every record in the ring: which it is, and where and when.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// One of the constants below.
    pub kind: u8,
    /// Index of the site that trapped; 0 in a stack record.
    pub site: u8,
    /// The CPU it happened on; 0 in a stack record.
    pub cpu: u16,
    /// GC cycles that finished marking since attach; in a stack record the number of
    /// frames.
    pub epoch: u32,
}

impl Header {
    pub const ALLOC: u8 = 1;
    pub const STACK: u8 = 2;
    pub const GC_EPOCH: u8 = 3;
    pub const GC_RECORD: u8 = 4;
    pub const STW: u8 = 5;
    pub const ASSIST: u8 = 6;
    pub const MARK: u8 = 7;
}

/// One completed allocation.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllocRecord {
    pub header: Header,
    /// CLOCK_MONOTONIC nanoseconds, as of the last tick of the kernel's clock (1 to 10 ms) or
    /// the last time that the collector raised TURN, whichever is later.
    pub time_ns: u64,
    pub ptr: u64,
    pub size: u64,
    pub type_addr: u64,
    pub slot: u64,
    /// Hash of the return addresses; 0 when there is no stack.
    pub stack: u64,
    /// Address of the goroutine's runtime.g.
    pub g: u64,
}

/// Marking has ended: the world is stopped and `header.epoch` begins.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochRecord {
    pub header: Header,
    pub time_ns: u64,
}

/// A GC cycle has ended. `header.epoch` is the one that began when its marking ended.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcRecord {
    pub header: Header,
    pub time_ns: u64,
    /// What triggered it, as its recipe reads it; meaningless unless `flags` says so.
    pub trigger: u64,
    /// Bits as below.
    pub flags: u64,
    /// What stood at [`GcAddresses::words`]; 0 where nothing could be read.
    pub words: [u64; MAX_GC_WORDS],
}

impl GcRecord {
    /// The start of the cycle was seen.
    pub const STARTED: u64 = 1;
    /// The byte at [`GcAddresses::leak_check`] was not 0.
    pub const LEAK_CHECK: u64 = 2;
}

/// The world was stopped and is started again.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StwRecord {
    pub header: Header,
    pub begin_ns: u64,
    pub end_ns: u64,
    /// As its recipe reads it.
    pub reason: u64,
}

/// A goroutine had to mark before an allocation, which comes after this.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssistRecord {
    pub header: Header,
    pub begin_ns: u64,
    pub end_ns: u64,
    /// Address of the goroutine's runtime.g.
    pub g: u64,
}

/// A goroutine has passed a mark.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkRecord {
    pub header: Header,
    pub time_ns: u64,
    /// Its number; of a thread's own g0, which has none, the address of its runtime.g.
    pub goroutine: u64,
    /// Bytes from the top of its stack down to where the marked function was called: that
    /// stays the same when the stack is moved.
    pub depth: u64,
}

/// The return addresses behind one stack hash, innermost first. The kernel reserves
/// constant sizes only; the first `header.epoch` addresses are meant.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackRecord {
    pub header: Header,
    pub hash: u64,
    pub frames: [u64; MAX_DEPTH],
}

/// Allocations that are counted together.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CountKey {
    /// As in [`AllocRecord`].
    pub stack: u64,
    pub type_addr: u64,
    pub slot: u64,
    /// Bytes asked for where the trap does not tell the slot, which depends on them; else 0.
    pub size: u64,
    /// The site's index.
    pub site: u32,
    pub _pad: u32,
}

impl CountKey {
    /// [`CountKey::slot`] where the trap does not tell.
    pub const UNKNOWN_SLOT: u64 = u64::MAX;
}

/// Allocations of one [`CountKey`] since the program was loaded.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub objects: u64,
    /// Bytes asked for, of all together; 0 where the trap does not tell.
    pub requested: u64,
}

/// C's allocations from one stack since the program was loaded.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CCount {
    pub objects: u64,
    /// As asked for.
    pub bytes: u64,
    /// Those of these that were freed.
    pub freed_objects: u64,
    pub freed_bytes: u64,
}

/// What one CPU counted since the program was loaded.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Traps of any site.
    pub hits: u64,
    /// Records other than stacks that the ring had no room for.
    pub lost_events: u64,
    /// Stacks the ring had no room for, each time they were needed.
    pub lost_stacks: u64,
    /// Samples that the runtime did not take because of the rate that is recorded.
    pub biased_samples: u64,
    /// Of the hits those on instructions that the kernel single-steps.
    pub stepped: u64,
    /// C's allocations that there was no room to follow.
    pub c_left_out: u64,
}

/// What has passed the gate of allocations since the program was loaded.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    pub objects: u64,
    /// When the last one passed that was allowed to: CLOCK_MONOTONIC nanoseconds.
    pub last_ns: u64,
}

// SAFETY: repr(C), no padding (fields are explicit), any bit pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Recipe {}

// SAFETY: as for `Recipe`.
#[cfg(feature = "user")]
unsafe impl aya::Pod for GcAddresses {}

// SAFETY: as for `Recipe`.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Sampler {}

// SAFETY: as for `Recipe`.
#[cfg(feature = "user")]
unsafe impl aya::Pod for CountKey {}

// SAFETY: as for `Recipe`.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Count {}

// SAFETY: as for `Recipe`.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Counters {}

// SAFETY: as for `Recipe`.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Passed {}

// SAFETY: as for `Recipe`.
#[cfg(feature = "user")]
unsafe impl aya::Pod for CCount {}
