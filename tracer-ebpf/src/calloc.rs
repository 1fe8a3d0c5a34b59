//! C's allocator: what is alive of its objects, added up by the stack they came from.
//!
//! An object is known when the function that was called for it is about to return it, and is
//! forgotten when it is to be freed, before it is: while an address is here nobody else can get it.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_pid_tgid, bpf_get_current_task, generated::bpf_probe_read_kernel},
    macros::map,
    maps::HashMap,
    programs::ProbeContext,
};
use tracer_common::{CCount, Recipe};

use crate::{G_M, G_SCHED_BP, M_CURG, TASK_FSBASE, TLS_G, read, regs, send, stack};

/// The call of each thread that is inside the allocator.
#[map]
static C_CALLS: HashMap<u64, Call> = HashMap::with_max_entries(1, 0);
/// Objects alive, by their address.
#[map]
static C_OBJECTS: HashMap<u64, Object> = HashMap::with_max_entries(1, 0);
/// Sums by stack. These maps are sized by the collector; entries of this one stay.
#[map]
static C_COUNTS: HashMap<u64, CCount> = HashMap::with_max_entries(1, 0);

#[derive(Clone, Copy)]
struct Object {
    stack: u64,
    bytes: u64,
}

#[derive(Clone, Copy)]
struct Call {
    /// The stack pointer when it was called.
    rsp: u64,
    object: Object,
    /// Where it stores its result; 0: it returns that.
    stored_at: u64,
    /// What it frees, and where that was; at 0 nothing.
    old: Object,
    old_at: u64,
}

/// The functions call each other, with no more than this of stack between.
const NESTED: u64 = 4096;

/// An object is asked for.
#[inline(always)]
pub fn called(ctx: &ProbeContext, recipe: &Recipe) {
    let wake = hit(recipe);
    let regs = regs(ctx);
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: only this thread writes or removes its entry.
    if let Some(outer) = unsafe { C_CALLS.get(&thread) }
        && outer.rsp.wrapping_sub(regs.rsp).wrapping_sub(1) < NESTED
    {
        return;
    }
    let window = read::Window::closed();
    let bytes = read::place(regs, &window, &recipe.size);
    let bytes = bytes.wrapping_mul(read::place(regs, &window, &recipe.type_));
    let pointer = read::place(regs, &window, &recipe.ptr);
    let stack = stack::hash_and_send_behind(read::word(regs.rsp), goroutine_rbp(), wake);
    let nothing = Object { stack: 0, bytes: 0 };
    let object = Object { stack, bytes };
    let mut call = Call { rsp: regs.rsp, object, stored_at: 0, old: nothing, old_at: 0 };
    if recipe.purpose == Recipe::C_STORE {
        call.stored_at = pointer;
    } else if recipe.purpose == Recipe::C_REALLOC
        && let Some(old) = take(pointer)
    {
        call.old = old;
        call.old_at = pointer;
    }
    if C_CALLS.insert(&thread, &call, 0).is_err() {
        send::count_left_out();
    }
}

/// The call has its result.
#[inline(always)]
pub fn returned(ctx: &ProbeContext, recipe: &Recipe) {
    hit(recipe);
    let regs = regs(ctx);
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: as above.
    let Some(call) = (unsafe { C_CALLS.get(&thread) }).copied() else {
        return;
    };
    let window = read::Window::closed();
    if call.rsp != regs.rsp.wrapping_add(read::place(regs, &window, &recipe.size)) {
        return;
    }
    let _gone = C_CALLS.remove(&thread);
    let result = read::place(regs, &window, &recipe.ptr);
    let pointer = match call.stored_at {
        0 => result,
        stored_at if result as u32 == 0 => read::word(stored_at),
        _ => 0,
    };
    if call.old_at != 0 {
        if pointer != 0 || call.object.bytes == 0 {
            count_freed(&call.old);
        } else {
            let _full = C_OBJECTS.insert(&call.old_at, &call.old, 0);
        }
    }
    if pointer != 0 {
        add(pointer, &call.object);
    }
}

/// An object is to be freed.
#[inline(always)]
pub fn freed(ctx: &ProbeContext, recipe: &Recipe) {
    hit(recipe);
    if let Some(object) = take(read::place(regs(ctx), &read::Window::closed(), &recipe.ptr)) {
        count_freed(&object);
    }
}

#[inline(always)]
fn hit(recipe: &Recipe) -> u64 {
    if recipe.slot.arg != 0 {
        send::count_stepped();
    }
    send::count_hit()
}

/// Counts an object, if there is room to follow it.
#[inline(always)]
fn add(pointer: u64, object: &Object) {
    // Whoever was there is dead, though nobody saw it freed.
    if let Some(dead) = take(pointer) {
        count_freed(&dead);
    }
    let Some(count) = count_of(object.stack) else {
        return send::count_left_out();
    };
    if C_OBJECTS.insert(&pointer, object, 0).is_err() {
        return send::count_left_out();
    }
    // SAFETY: the entry is never removed.
    let (objects, bytes) = unsafe { (&raw mut (*count).objects, &raw mut (*count).bytes) };
    send::add_to(objects, 1);
    send::add_to(bytes, object.bytes);
}

#[inline(always)]
fn count_freed(object: &Object) {
    let Some(count) = C_COUNTS.get_ptr_mut(&object.stack) else {
        return;
    };
    // SAFETY: as above.
    let (objects, bytes) = unsafe { (&raw mut (*count).freed_objects, &raw mut (*count).freed_bytes) };
    send::add_to(objects, 1);
    send::add_to(bytes, object.bytes);
}

#[inline(always)]
fn count_of(stack: u64) -> Option<*mut CCount> {
    if let Some(count) = C_COUNTS.get_ptr_mut(&stack) {
        return Some(count);
    }
    let none = CCount { objects: 0, bytes: 0, freed_objects: 0, freed_bytes: 0 };
    // An error: another CPU was faster, or the map is full.
    let _inserted = C_COUNTS.insert(&stack, &none, u64::from(BPF_NOEXIST));
    C_COUNTS.get_ptr_mut(&stack)
}

/// Forgets the object at an address; one of two that ask at once gets it.
#[inline(always)]
fn take(pointer: u64) -> Option<Object> {
    // SAFETY: of a program that is right nobody else frees this object meanwhile.
    let object = unsafe { C_OBJECTS.get(&pointer) }.copied()?;
    C_OBJECTS.remove(&pointer).ok()?;
    Some(object)
}

/// The frame pointer of the goroutine that called into C on this thread, as of its switch to
/// the thread's own stack (runtime/asm_amd64.s `asmcgocall`, Go 1.19 to 1.27); 0: there is none.
#[inline(always)]
fn goroutine_rbp() -> u64 {
    if TASK_FSBASE.load() == 0 {
        return 0;
    }
    let mut fs_base = 0u64;
    // SAFETY: one word of the current task, which stays.
    let read = unsafe {
        let task = bpf_get_current_task().wrapping_add(u64::from(TASK_FSBASE.load()));
        bpf_probe_read_kernel((&raw mut fs_base).cast(), 8, task as *const _)
    };
    if read != 0 {
        return 0;
    }
    // Each word reads as 0 where the one before was.
    let g = read::word(fs_base.wrapping_add(TLS_G.load()));
    if g == 0 {
        return 0;
    }
    let m = read::word(g.wrapping_add(u64::from(G_M.load())));
    let curg = read::word(m.wrapping_add(u64::from(M_CURG.load())));
    if curg == 0 {
        return 0;
    }
    read::word(curg.wrapping_add(u64::from(G_SCHED_BP.load())))
}
