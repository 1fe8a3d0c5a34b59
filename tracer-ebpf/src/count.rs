//! Counting allocations in the kernel instead of sending an event for each.

use aya_ebpf::{bindings::BPF_NOEXIST, macros::map, maps::HashMap};
use tracer_common::{Count, CountKey};

use crate::send;

/// Sized by the collector, which reads it now and then; entries stay.
#[map]
static COUNTS: HashMap<CountKey, Count> = HashMap::with_max_entries(1, 0);

/// Counts one object of `size` bytes; false when there is no room for another key.
///
/// One map for all CPUs, with atomic additions: a map for each would take as many times the
/// memory, and a task that preempts this one would still need them.
#[inline(always)]
pub fn count(key: &CountKey, size: u64) -> bool {
    let count = match COUNTS.get_ptr_mut(key) {
        Some(count) => count,
        None => {
            // An error: another CPU was faster, or the map is full.
            let _inserted = COUNTS.insert(key, Count { objects: 0, requested: 0 }, u64::from(BPF_NOEXIST));
            match COUNTS.get_ptr_mut(key) {
                Some(count) => count,
                None => return false,
            }
        }
    };
    // SAFETY: the entry is never removed.
    let (objects, requested) = unsafe { (&raw mut (*count).objects, &raw mut (*count).requested) };
    send::add_to(objects, 1);
    send::add_to(requested, size);
    true
}
