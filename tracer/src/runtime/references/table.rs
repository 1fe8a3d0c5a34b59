//! What the arrays of a map's entries are made of: types of keys and elements, and where they lie.
//!
//! Source: cmd/compile/internal/reflectdata/map.go `MapGroupType` (map_noswiss.go `MapBucketType`
//! up to Go 1.25): a bucket is `topbits, keys [8]K, elems [8]E, overflow`, a group is `ctrl, slots
//! [8]struct { key K; elem E }` or, from Go 1.27 where it says so, `ctrl, keys [8]K, elems [8]E`.

use std::ops::Range;

use crate::memory::ProcessMemory;
use crate::runtime::layout::Type;

/// The layout of one bucket or group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapTable {
    /// `*_type` of keys and elements.
    pub key: u64,
    pub elem: u64,
    /// Bytes of the bucket or group.
    size: u64,
    /// Where its first key lies, how long keys are, and how far from one to the next.
    keys: u64,
    key_size: u64,
    stride: u64,
}

/// Entries of a bucket or group.
const ENTRIES: u64 = 8;

// internal/abi/type.go, behind the common `Type`; alike in Go 1.19 to 1.27.
const ARRAY_ELEM: u64 = 48;
const STRUCT_FIELDS: u64 = 56;
const FIELD: u64 = 24;
const FIELD_TYPE: u64 = 8;
const FIELD_OFFSET: u64 = 16;

impl MapTable {
    /// Given the `*_type` of a bucket or group; `None`: it is none.
    pub(super) fn read(
        memory: &impl ProcessMemory,
        types: &Type,
        module: &Range<u64>,
        type_addr: u64,
    ) -> Option<MapTable> {
        let word = |addr: u64| memory.read_u64(addr).ok();
        let is_type = |addr: &u64| module.contains(addr);
        let field = |of: u64, index: u64| {
            let at = word(of.checked_add(STRUCT_FIELDS)?)?.checked_add(index * FIELD)?;
            let type_addr = word(at.checked_add(FIELD_TYPE)?).filter(is_type)?;
            Some((type_addr, word(at.checked_add(FIELD_OFFSET)?)?))
        };
        let fields = |of: u64| word(of.checked_add(STRUCT_FIELDS + 8)?);
        let elem = |of: u64| word(of.checked_add(ARRAY_ELEM)?).filter(is_type);
        let size = |of: u64| word(of.checked_add(types.size)?);
        let table = Some(type_addr).filter(is_type)?;
        let (first, keys) = field(table, 1)?;
        let (key, elem, stride) = match fields(table)? {
            2 => {
                let slot = elem(first)?;
                (field(slot, 0)?.0, field(slot, 1)?.0, size(slot)?)
            }
            3 | 4 => {
                let key = elem(first)?;
                (key, elem(field(table, 2)?.0)?, size(key)?)
            }
            _ => return None,
        };
        let table = MapTable { key, elem, size: size(table)?, keys, key_size: size(key)?, stride };
        let is_sound = table.size > 0 && table.key_size <= stride && stride <= table.size / ENTRIES;
        is_sound.then_some(table)
    }

    /// Whether the word at this offset of an array of them belongs to a key.
    pub fn is_key(&self, offset: u64) -> bool {
        let Some(at) = (offset % self.size).checked_sub(self.keys) else { return false };
        self.stride > 0 && at / self.stride < ENTRIES && at % self.stride < self.key_size
    }
}
