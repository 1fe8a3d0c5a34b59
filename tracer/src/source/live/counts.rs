//! Allocations that the eBPF program has added up, as differences from one reading to the next.

use aya::maps::Map;
use tracer_common::{Count, CountKey};

use super::sums::Sums;
use crate::base::Result;
use crate::event::{Counted, SiteId, StackId};

/// Calls that the kernel counts apart, at most: 7.5 MiB of its memory (`memlock` of the map in
/// `/proc/PID/fdinfo`). Of more, allocations are lost.
pub(super) const CALLS: u32 = 1 << 16;

/// The program's map COUNTS.
#[derive(Debug)]
pub(super) struct Counts(Sums<CountKey, Count>);

impl Counts {
    pub(super) fn new(map: Map) -> Counts {
        Counts(Sums::new(map))
    }

    pub(super) fn read(&mut self) -> Result<Vec<Counted>> {
        let counted = |(key, before, now): (CountKey, Count, Count)| Counted {
            site: SiteId(key.site as u16),
            stack: StackId(key.stack),
            type_addr: key.type_addr,
            slot: key.slot,
            objects: now.objects.wrapping_sub(before.objects),
            requested: now.requested.wrapping_sub(before.requested),
            died: false,
        };
        Ok(self.0.changes()?.into_iter().map(counted).collect())
    }
}
