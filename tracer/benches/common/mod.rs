//! Events like those of a busy service, the same on every run.

use tracer::event::{Alloc, SiteId, StackId};

pub(crate) const CALLS: u64 = 2000;
pub(crate) const TYPES: u64 = 500;

/// Of a call.
pub(crate) fn stack(call: u64) -> StackId {
    StackId(call.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Of the descriptor of a type.
pub(crate) fn type_addr(number: u64) -> u64 {
    0x4a_0000 + 64 * number
}

/// `count` allocations by [`CALLS`] calls, some much busier than others, on four CPUs; a GC
/// cycle a second.
pub(crate) fn allocations(count: u64) -> impl Iterator<Item = Alloc> {
    // xorshift64: any fixed sequence will do.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut next_free = [[0_u64; 64]; 4];
    let mut time_ns = 1_000_000_000;
    (0..count).map(move |_| {
        let call = (random() % CALLS).min(random() % CALLS).min(random() % CALLS);
        let cpu = random() % 4;
        let class = call % 64;
        let slot = 16 * (1 + class);
        time_ns += 2000 + random() % 3000;
        let free = &mut next_free[cpu as usize][class as usize];
        // Mostly the next slot of the span; now and then another span.
        *free = if random().is_multiple_of(40) { (random() % (1 << 18)) << 13 } else { *free + slot };
        Alloc {
            time_ns,
            ptr: 0xc0_0000_0000 + *free,
            size: slot - call % 8,
            slot,
            type_addr: type_addr(call % TYPES),
            stack: stack(call),
            goroutine: 1 + call % 50,
            site: SiteId((call % 3) as u16),
            epoch: (time_ns >> 30) as u32,
            cpu: cpu as u32,
        }
    })
}
