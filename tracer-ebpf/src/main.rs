//! The eBPF program: one uprobe for all probe sites of a Go process.
//!
//! A hit finds its recipe by attach cookie, reads the values the recipe names, walks
//! the frame pointers, and sends one event; a stack's frames only the first time its
//! hash is seen. Speed decides: each helper call is some ten to twenty nanoseconds of
//! the target's time, so there are as few as possible.
//!
//! It must pass the verifier of Linux 5.10: bounded loops, atomic exchanges (5.12) and
//! attach cookies (5.15) only where `WINDOWS` and `COOKIES` say that they exist.
//! It must also bear being preempted by itself: a `uprobe_multi` link runs it with
//! migration disabled but preemption on, so per-CPU counters are atomic, and per-CPU
//! scratch memory is had by one run at a time.
#![no_std]
#![no_main]
// Atomic addition: the target has no compare-and-swap, so core offers none of its own.
#![feature(asm_experimental_arch)]

mod calloc;
mod count;
mod gate;
mod gc;
mod mark;
mod read;
mod sample;
mod send;
mod stack;

use aya_ebpf::{
    Global,
    bindings::pt_regs,
    helpers::bpf_get_attach_cookie,
    macros::{map, uprobe},
    maps::{Array, HashMap, PerCpuArray, RingBuf},
    programs::ProbeContext,
};
use aya_log_ebpf::warn;
use tracer_common::{Counters, GcAddresses, MAX_DEPTH, MAX_SITES, Recipe};

// Set by the collector before the program is loaded; to the verifier they are constants.

/// Whether the kernel has attach cookies; else sites are found by instruction pointer.
#[unsafe(no_mangle)]
static COOKIES: Global<u32> = Global::new(1);
/// Whether a word can be exchanged atomically, by which runs take turns with scratch memory.
#[unsafe(no_mangle)]
static WINDOWS: Global<u32> = Global::new(1);
/// Offset of `m` in runtime.g.
#[unsafe(no_mangle)]
static G_M: Global<u32> = Global::new(0);
/// Offset of `curg` in runtime.m.
#[unsafe(no_mangle)]
static M_CURG: Global<u32> = Global::new(0);
/// Offset of `goid` in runtime.g.
#[unsafe(no_mangle)]
static G_GOID: Global<u32> = Global::new(0);
/// Offset of `sched.bp` in runtime.g.
#[unsafe(no_mangle)]
static G_SCHED_BP: Global<u32> = Global::new(0);
/// What a thread's FS base is to be added to for where it keeps its runtime.g.
#[unsafe(no_mangle)]
static TLS_G: Global<u64> = Global::new(0);
/// Offset of the FS base in the kernel's task_struct; 0: not known.
#[unsafe(no_mangle)]
static TASK_FSBASE: Global<u32> = Global::new(0);
/// Return addresses kept of a stack, at most `MAX_DEPTH`.
#[unsafe(no_mangle)]
static DEPTH: Global<u32> = Global::new(MAX_DEPTH as u32);
/// Whether allocations are sent only while the gate is open.
#[unsafe(no_mangle)]
static GATED: Global<u32> = Global::new(0);
/// Whether allocations are counted and not sent.
#[unsafe(no_mangle)]
static COUNTED: Global<u32> = Global::new(0);
/// Bytes waiting in the ring from which on the reader is woken.
#[unsafe(no_mangle)]
static WAKE_BYTES: Global<u64> = Global::new(0);

/// Recipes by site index.
#[map]
static RECIPES: Array<Recipe> = Array::with_max_entries(MAX_SITES as u32, 0);
/// Site index by run-time address of the probed instruction, for kernels without cookies.
#[map]
static SITES_BY_IP: HashMap<u64, u32> = HashMap::with_max_entries(MAX_SITES as u32, 0);
/// GC cycles whose end of marking was seen.
#[map]
static EPOCH: Array<u32> = Array::with_max_entries(1, 0);
/// Raised by the collector when the times of later events must be told apart from those of
/// earlier ones.
#[map]
static TURN: Array<u32> = Array::with_max_entries(1, 0);
/// What is read of each GC cycle.
#[map]
static GC_ADDRESSES: Array<GcAddresses> = Array::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);
/// Sized by the collector.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 16, 0);

// Inlined into what the macro makes of it: as a function of its own it would have a name
// in the object that depends on where the sources lie.
#[uprobe]
#[inline(always)]
pub fn heaptap(ctx: ProbeContext) -> u32 {
    let Some(recipe) = recipe(&ctx) else {
        warn!(&ctx, "no recipe for the probe at {:x}", unsafe { (*ctx.regs).rip });
        return 0;
    };
    match recipe.purpose {
        Recipe::SAMPLE if sample::is_biased(&ctx) => send::count_biased_sample(),
        Recipe::ALLOC | Recipe::SAMPLE => send::alloc(&ctx, recipe),
        Recipe::GC_EPOCH => gc::epoch(recipe),
        Recipe::GC_START => gc::start(&ctx, recipe),
        Recipe::GC_RECORD => gc::record(recipe),
        Recipe::ASSIST_BEGIN => gc::assist_begin(),
        Recipe::ASSIST_END => gc::assist_end(&ctx, recipe),
        Recipe::STW_BEGIN => gc::stw_begin(&ctx, recipe),
        Recipe::STW_END => gc::stw_end(recipe),
        Recipe::MARK => mark::passed(&ctx, recipe),
        Recipe::C_ALLOC | Recipe::C_REALLOC | Recipe::C_STORE => calloc::called(&ctx, recipe),
        Recipe::C_RETURN => calloc::returned(&ctx, recipe),
        Recipe::C_FREE => calloc::freed(&ctx, recipe),
        other => warn!(&ctx, "recipe with unknown purpose {}", other),
    }
    0
}

#[inline(always)]
fn recipe(ctx: &ProbeContext) -> Option<&'static Recipe> {
    let index = if COOKIES.load() != 0 {
        // SAFETY: the helper takes the program's own context.
        unsafe { bpf_get_attach_cookie(ctx.regs.cast()) as u32 }
    } else {
        // SAFETY: the context is the trapped thread's registers; no entry is ever removed.
        unsafe { *SITES_BY_IP.get((*ctx.regs).rip)? }
    };
    RECIPES.get(index)
}

/// The trapped thread's registers.
#[inline(always)]
fn regs(ctx: &ProbeContext) -> &pt_regs {
    // SAFETY: the kernel passes a pt_regs as context to every uprobe.
    unsafe { &*ctx.regs }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
