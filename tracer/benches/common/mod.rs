//! Events like those of a busy service, the same on every run.

use tracer::event::{Alloc, Event, SiteId, StackId};

/// `count` allocations by 2000 calls, some much busier than others, on four CPUs.
pub(crate) fn allocations(count: u64) -> Vec<Event> {
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
    (0..count)
        .map(|_| {
            let call = (random() % 2000).min(random() % 2000).min(random() % 2000);
            let cpu = random() % 4;
            let class = call % 64;
            let slot = 16 * (1 + class);
            time_ns += 2000 + random() % 3000;
            let free = &mut next_free[cpu as usize][class as usize];
            // Mostly the next slot of the span; now and then another span.
            *free = if random().is_multiple_of(40) { (random() % (1 << 18)) << 13 } else { *free + slot };
            Event::Alloc(Alloc {
                time_ns,
                ptr: 0xc0_0000_0000 + *free,
                size: slot - call % 8,
                slot,
                type_addr: 0x4a_0000 + 64 * (call % 500),
                stack: StackId(call.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                goroutine: 1 + call % 50,
                site: SiteId((call % 3) as u16),
                epoch: (time_ns >> 30) as u32,
                cpu: cpu as u32,
            })
        })
        .collect()
}
