//! Garbage collections and other stops of the world. All of it happens once a cycle, once
//! for an assist or seldom, so plainness counts for more than speed.

use core::ptr::write_volatile;

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::map,
    maps::{Array, HashMap},
    programs::ProbeContext,
};
use tracer_common::{AssistRecord, EpochRecord, GcRecord, Header, MAX_GC_WORDS, Recipe, StwRecord};

use crate::{EPOCH, EVENTS, G_M, GC_ADDRESSES, M_CURG, read, regs, send};

/// What was seen of the cycle and the stop that are under way. The runtime lets only one
/// of each be at a time (`gcsema`, `worldsema`), so no two CPUs write it at once.
#[map]
static UNDER_WAY: Array<UnderWay> = Array::with_max_entries(1, 0);

struct UnderWay {
    trigger: u64,
    /// As in a [`GcRecord`].
    flags: u64,
    reason: u64,
    /// 0: the world runs, or was stopped before anyone looked.
    stopped_ns: u64,
}

#[inline(always)]
fn under_way() -> Option<&'static mut UnderWay> {
    // SAFETY: the pointer is into the map, whose entry lives as long as the program; as
    // to other CPUs see above.
    UNDER_WAY.get_ptr_mut(0).map(|entry| unsafe { &mut *entry })
}

/// A new epoch begins. The world is stopped: no other CPU reads or writes it now.
#[inline(always)]
pub fn epoch(recipe: &Recipe) {
    let wake = send::count_hit();
    let Some(epoch) = EPOCH.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the pointer is into the map.
    let epoch = unsafe {
        *epoch += 1;
        *epoch
    };
    let record = EpochRecord { header: send::header(Header::GC_EPOCH, recipe, epoch), time_ns: send::now() };
    if EVENTS.output::<EpochRecord>(&record, wake).is_err() {
        send::count_lost_event();
    }
    if let (Some(addresses), Some(cycle)) = (GC_ADDRESSES.get(0), under_way())
        && addresses.leak_check != 0
        && read::word(addresses.leak_check) & 0xff != 0
    {
        cycle.flags |= GcRecord::LEAK_CHECK;
    }
}

/// A cycle starts.
#[inline(always)]
pub fn start(ctx: &ProbeContext, recipe: &Recipe) {
    send::count_hit();
    if let Some(cycle) = under_way() {
        cycle.trigger = read::place(regs(ctx), &read::Window::closed(), &recipe.ptr);
        cycle.flags = GcRecord::STARTED;
    }
}

/// A cycle has ended, and the next one cannot start before this returns.
#[inline(always)]
pub fn record(recipe: &Recipe) {
    let wake = send::count_hit();
    let (Some(addresses), Some(cycle)) = (GC_ADDRESSES.get(0), under_way()) else {
        return;
    };
    let (trigger, flags) = (cycle.trigger, cycle.flags);
    cycle.flags = 0;
    let Some(mut entry) = EVENTS.reserve::<GcRecord>(0) else {
        send::count_lost_event();
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is reserved memory of that type, and every field is written.
    // Volatile: the compiler must not make it a call of memset or memcpy.
    unsafe {
        (*record).header = send::header(Header::GC_RECORD, recipe, send::epoch());
        (*record).time_ns = send::now();
        (*record).trigger = trigger;
        (*record).flags = flags;
        for i in 0..MAX_GC_WORDS {
            // At address 0 nothing is readable.
            write_volatile(&raw mut (*record).words[i], read::word(addresses.words[i]));
        }
    }
    entry.submit(wake);
}

/// When the assists that are under way began, by thread: they cannot change it.
#[map]
static ASSISTS: HashMap<u64, u64> = HashMap::with_max_entries(1 << 12, 0);

/// A goroutine has to mark.
#[inline(always)]
pub fn assist_begin() {
    send::count_hit();
    // A full map costs the assist only.
    let _full = ASSISTS.insert(&bpf_get_current_pid_tgid(), &send::now(), 0);
}

/// It has marked enough.
#[inline(always)]
pub fn assist_end(ctx: &ProbeContext, recipe: &Recipe) {
    let wake = send::count_hit();
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: only this thread writes or removes its entry.
    let Some(begin_ns) = (unsafe { ASSISTS.get(&thread) }).copied() else {
        return;
    };
    let record = AssistRecord {
        header: send::header(Header::ASSIST, recipe, send::epoch()),
        begin_ns,
        end_ns: send::now(),
        g: assisting(regs(ctx).r14),
    };
    let _gone = ASSISTS.remove(&thread);
    if EVENTS.output::<AssistRecord>(&record, wake).is_err() {
        send::count_lost_event();
    }
}

/// The goroutine on whose behalf `g` marks: itself, or, where that is the thread's own g0
/// (as in `gcAssistAlloc1`, which runs on the system stack), the one that switched to it.
#[inline(always)]
fn assisting(g: u64) -> u64 {
    let m = read::word(g.wrapping_add(u64::from(G_M.load())));
    match read::word(m.wrapping_add(u64::from(M_CURG.load()))) {
        0 => g,
        curg => curg,
    }
}

/// The world is to be stopped.
#[inline(always)]
pub fn stw_begin(ctx: &ProbeContext, recipe: &Recipe) {
    send::count_hit();
    if let Some(stop) = under_way() {
        stop.reason = read::place(regs(ctx), &read::Window::closed(), &recipe.ptr);
        stop.stopped_ns = send::now();
    }
}

/// The world is started again.
#[inline(always)]
pub fn stw_end(recipe: &Recipe) {
    let wake = send::count_hit();
    let Some(stop) = under_way() else {
        return;
    };
    if stop.stopped_ns == 0 {
        return;
    }
    let record = StwRecord {
        header: send::header(Header::STW, recipe, send::epoch()),
        begin_ns: stop.stopped_ns,
        end_ns: send::now(),
        reason: stop.reason,
    };
    stop.stopped_ns = 0;
    if EVENTS.output::<StwRecord>(&record, wake).is_err() {
        send::count_lost_event();
    }
}
