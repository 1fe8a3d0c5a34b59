//! Building and submitting the events, and counting what the ring had no room for.

use core::arch::asm;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, generated::bpf_jiffies64},
    macros::map,
    maps::PerCpuArray,
    programs::ProbeContext,
};
use aya_log_ebpf::debug;
use tracer_common::{AllocRecord, CountKey, Counters, Header, Recipe};

use crate::{COUNTED, COUNTERS, EPOCH, EVENTS, GATED, TURN, WAKE_BYTES, count, gate, read, regs, stack};

/// Hits of one CPU between two looks at how full the ring is.
const HITS_PER_LOOK: u64 = 32;

#[inline(always)]
pub fn alloc(ctx: &ProbeContext, recipe: &Recipe) {
    let wake = count_hit();
    if GATED.load() != 0 && !gate::pass() {
        return;
    }
    let regs = regs(ctx);
    let mut window = read::Window::open(regs.rbp);
    let ptr = read::place(regs, &window, &recipe.ptr);
    let size = read::place(regs, &window, &recipe.size);
    let type_addr = read::place(regs, &window, &recipe.type_);
    let slot = read::place(regs, &window, &recipe.slot);
    // Last: the walk moves the window.
    let stack = stack::hash_and_send(regs.rbp, &mut window, wake);
    window.close();
    if stack == 0 {
        debug!(ctx, "no stack at rbp {:x}", regs.rbp);
    }
    if COUNTED.load() != 0 {
        let key = CountKey {
            stack,
            type_addr,
            slot,
            size: if slot == CountKey::UNKNOWN_SLOT { size } else { 0 },
            site: recipe.site,
            _pad: 0,
        };
        if !count::count(&key, size) {
            count_lost_event();
        }
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<AllocRecord>(0) else {
        count_lost_event();
        return;
    };
    entry.write(AllocRecord {
        header: header(Header::ALLOC, recipe, epoch()),
        time_ns: recent(),
        ptr,
        size,
        type_addr,
        slot,
        stack,
        g: regs.r14,
    });
    entry.submit(wake);
}

#[inline(always)]
pub fn header(kind: u8, recipe: &Recipe, epoch: u32) -> Header {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u16;
    Header { kind, site: recipe.site as u8, cpu, epoch }
}

#[inline(always)]
pub fn epoch() -> u32 {
    EPOCH.get(0).copied().unwrap_or(0)
}

/// The time as last asked for on a CPU.
#[map]
static CLOCK: PerCpuArray<Clock> = PerCpuArray::with_max_entries(1, 0);

struct Clock {
    time_ns: u64,
    /// What [`turn`] was then.
    turn: u64,
}

/// When this tick of the kernel's clock (1 to 10 ms) began here, or this turn: asking for
/// the time takes as long as sending an event.
#[inline(always)]
fn recent() -> u64 {
    let Some(clock) = CLOCK.get_ptr_mut(0) else {
        return 0;
    };
    let turn = turn();
    // SAFETY: the entry lives as long as the program. A task that preempts this one here
    // leaves a time that is no older.
    unsafe {
        if (&raw const (*clock).turn).read_volatile() != turn {
            (&raw mut (*clock).time_ns).write_volatile(now());
            (&raw mut (*clock).turn).write_volatile(turn);
        }
        (&raw const (*clock).time_ns).read_volatile()
    }
}

/// Changes with each tick, and when the collector wants later times to be told apart from
/// earlier ones.
#[inline(always)]
fn turn() -> u64 {
    let asked = TURN.get(0).copied().unwrap_or(0);
    // SAFETY: the helper has no preconditions; the kernel makes it a load.
    unsafe { bpf_jiffies64() }.wrapping_add(u64::from(asked) << 32)
}

#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Counts a hit and says how to submit its event: the reader polls, so it is woken only
/// when the ring fills faster than it polls, and that is looked at now and then.
#[inline(always)]
pub fn count_hit() -> u64 {
    let hits = add(|c| unsafe { &raw mut (*c).hits });
    if hits % HITS_PER_LOOK == 0 && EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) > WAKE_BYTES.load() {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}

#[inline(always)]
pub fn count_lost_event() {
    add(|c| unsafe { &raw mut (*c).lost_events });
}

#[inline(always)]
pub fn count_lost_stack() {
    add(|c| unsafe { &raw mut (*c).lost_stacks });
}

/// Of a hit that sends nothing.
#[inline(always)]
pub fn count_biased_sample() {
    count_hit();
    add(|c| unsafe { &raw mut (*c).biased_samples });
}

#[inline(always)]
pub fn count_stepped() {
    add(|c| unsafe { &raw mut (*c).stepped });
}

#[inline(always)]
pub fn count_left_out() {
    add(|c| unsafe { &raw mut (*c).c_left_out });
}

/// Adds one to a counter of this CPU, atomically for the sake of a task that preempts
/// this one here; returns roughly what it was (an atomic fetch needs Linux 5.12).
#[inline(always)]
fn add(field: impl FnOnce(*mut Counters) -> *mut u64) -> u64 {
    let Some(counters) = COUNTERS.get_ptr_mut(0) else {
        return 1;
    };
    add_to(field(counters), 1)
}

/// Adds to a counter in a map value.
#[inline(always)]
pub fn add_to(counter: *mut u64, amount: u64) -> u64 {
    // SAFETY: the callers' counters lie in map values, aligned, and change only here.
    unsafe {
        let before = counter.read_volatile();
        asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) amount);
        before
    }
}
