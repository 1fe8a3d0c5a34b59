//! The gate that allocations pass while a window is open: opened by the collector, and shut
//! by the program itself once as many have passed as the window is allowed.

use aya_ebpf::{macros::map, maps::Array};
use tracer_common::Passed;

use crate::send;

/// The allocations that may pass, counted from when the program was loaded; up to as many
/// as have passed, the gate is shut. Written by the collector.
#[map]
static GATE: Array<u64> = Array::with_max_entries(1, 0);
/// Those that have.
#[map]
static PASSED: Array<Passed> = Array::with_max_entries(1, 0);

/// Whether an allocation passes. As several CPUs may ask at once, as many more may pass
/// than are allowed.
#[inline(always)]
pub fn pass() -> bool {
    let (Some(allowed), Some(passed)) = (GATE.get(0), PASSED.get_ptr_mut(0)) else {
        return false;
    };
    // SAFETY: both point into maps; the collector may be writing.
    let allowed = unsafe { core::ptr::from_ref(allowed).read_volatile() };
    // SAFETY: as above.
    let (objects, last_ns) = unsafe { (&raw mut (*passed).objects, &raw mut (*passed).last_ns) };
    // SAFETY: as above.
    if unsafe { objects.read_volatile() } >= allowed {
        return false;
    }
    if send::add_to(objects, 1) + 1 >= allowed {
        // SAFETY: as above.
        unsafe { last_ns.write_volatile(send::now()) };
    }
    true
}
