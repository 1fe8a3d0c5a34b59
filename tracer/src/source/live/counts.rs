//! Allocations that the eBPF program has added up, as differences from one reading to the next.

use std::collections::HashMap as Known;

use aya::maps::{HashMap, Map};
use tracer_common::{Count, CountKey};

use super::object::map_error;
use crate::base::Result;
use crate::event::{Counted, SiteId, StackId};

/// Calls that the kernel counts apart, at most: 7.5 MiB of its memory (`memlock` of the map in
/// `/proc/PID/fdinfo`). Of more, allocations are lost.
pub(super) const CALLS: u32 = 1 << 16;

/// The program's map COUNTS.
#[derive(Debug)]
pub(super) struct Counts {
    map: Map,
    /// As it was last read.
    known: Known<CountKey, Count>,
}

impl Counts {
    pub(super) fn new(map: Map) -> Counts {
        Counts { map, known: Known::new() }
    }

    pub(super) fn read(&mut self) -> Result<Vec<Counted>> {
        let map: HashMap<_, CountKey, Count> = (&self.map).try_into().map_err(map_error)?;
        let mut counted = Vec::new();
        for entry in map.iter() {
            let (key, now) = entry.map_err(map_error)?;
            let before = self.known.insert(key, now).unwrap_or_default();
            if now.objects != before.objects {
                counted.push(Counted {
                    site: SiteId(key.site as u16),
                    stack: StackId(key.stack),
                    type_addr: key.type_addr,
                    slot: key.slot,
                    objects: now.objects.wrapping_sub(before.objects),
                    requested: now.requested.wrapping_sub(before.requested),
                });
            }
        }
        Ok(counted)
    }
}
