//! The runtime's own samples: which of them its rate accounts for.
//!
//! Source: runtime/malloc.go `profilealloc` and `mallocgc`, runtime/mcache.go, Go 1.19 to
//! 1.27. Where a probe sits in `profilealloc`, the mcache is still as it was.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap},
    programs::ProbeContext,
};
use tracer_common::Sampler;

use crate::{read, regs};

#[map]
static SAMPLER: Array<Sampler> = Array::with_max_entries(1, 0);

/// The mcaches, one of each P, that have sampled an object at the rate.
#[map]
static SAMPLED: HashMap<u64, u8> = HashMap::with_max_entries(1 << 12, 0);

/// Whether an object is sampled for another reason than the rate.
///
/// From Go 1.24 on a P samples its next object, whatever its size, when the rate is not the
/// one it knows. Before that it does so when its next sample was drawn at a rate of 0, and
/// one drawn at any other rate it does not draw anew.
#[inline(always)]
pub fn is_biased(ctx: &ProbeContext) -> bool {
    let Some(sampler) = SAMPLER.get(0) else {
        return false;
    };
    if read::word(sampler.rate_address) != sampler.rate {
        return true;
    }
    // At rate 1 every object is sampled. Where samples are far apart, what is read below is in
    // no cache: it took a third of the program's time.
    if sampler.rate == 1 || sampler.is_settled != 0 {
        return false;
    }
    let m = read::word(regs(ctx).r14.wrapping_add(sampler.g_m));
    let p = read::word(m.wrapping_add(sampler.m_p));
    let mcache = read::word(p.wrapping_add(sampler.p_mcache));
    if sampler.mcache_rate != Sampler::NO_FIELD {
        return read::word(mcache.wrapping_add(sampler.mcache_rate)) != sampler.rate;
    }
    // A full map lets samples pass.
    let is_first = SAMPLED.insert(&mcache, &0, u64::from(BPF_NOEXIST)).is_ok();
    is_first && (sampler.was_set != 0 || read::word(mcache.wrapping_add(sampler.next_sample)) == 0)
}
