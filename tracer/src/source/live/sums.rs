//! Sums that the eBPF program keeps in a map, as what has changed from one reading to the next.

use std::collections::HashMap as Known;
use std::hash::Hash;

use aya::Pod;
use aya::maps::{HashMap, Map};

use super::object::map_error;
use crate::base::Result;

#[derive(Debug)]
pub(super) struct Sums<K, V> {
    map: Map,
    /// As it was last read.
    known: Known<K, V>,
}

impl<K: Pod + Eq + Hash, V: Pod + Default + PartialEq> Sums<K, V> {
    pub(super) fn new(map: Map) -> Sums<K, V> {
        Sums { map, known: Known::new() }
    }

    /// Each key whose sums are others than at the last reading, with those and with these.
    pub(super) fn changes(&mut self) -> Result<Vec<(K, V, V)>> {
        let map: HashMap<_, K, V> = (&self.map).try_into().map_err(map_error)?;
        let mut changes = Vec::new();
        for entry in map.iter() {
            let (key, now) = entry.map_err(map_error)?;
            let before = self.known.insert(key, now).unwrap_or_default();
            if now != before {
                changes.push((key, before, now));
            }
        }
        Ok(changes)
    }
}
