//! How a recording begins: what its source is asked for, and what its capture says first.

use std::time::{SystemTime, UNIX_EPOCH};

use tracer_common::GcAddresses;

use super::options::{Mode, Options};
use crate::base::monotonic_ns;
use crate::event::{SiteInfo, Start};
use crate::plan::{ProbePlan, Site};
use crate::source::live::{Allocations, AttachOptions, Method};
use crate::target::Identity;

/// Where and how events are to be sent; what only some recordings need is left out.
pub(super) fn attach_options<'a>(
    target: &Identity,
    plan: &'a ProbePlan,
    gc_addresses: Option<GcAddresses>,
    options: &Options,
) -> AttachOptions<'a> {
    AttachOptions {
        pid: target.target.pid,
        plan,
        load_bias: target.target.load_bias,
        gc_addresses,
        curg: None,
        g_goid: 0,
        step_traps: 1,
        sampler: None,
        c: None,
        ring_bytes: options.ring_bytes,
        max_depth: options.max_depth,
        bpf_log: options.bpf_log,
        method: Method::Auto,
        baseline: false,
        allocations: Allocations::Sent,
    }
}

/// What becomes of allocations, or samples, if these are not read.
pub(super) fn allocations(are_read: bool, options: &Options) -> Allocations {
    match options.mode {
        Mode::Burst => Allocations::Gated,
        _ if options.counts_only => Allocations::Counted,
        _ if are_read => Allocations::Unseen,
        _ => Allocations::Sent,
    }
}

/// The first event.
pub(super) fn start_of(target: &Identity, mode: Mode) -> Start {
    Start {
        heaptap_version: env!("CARGO_PKG_VERSION").into(),
        time_ns: monotonic_ns(),
        unix_ns: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64),
        mode: mode.name().into(),
        target: target.target.clone(),
        ..Start::default()
    }
}

/// A probe's site as a capture has it.
pub(super) fn site_info(site: &Site) -> SiteInfo {
    SiteInfo { function: site.function.clone(), offset: site.offset }
}
