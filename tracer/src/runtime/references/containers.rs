//! The largest maps and channels of a heap, found by the shape of their headers.
//!
//! Source: runtime/map.go `hmap` (up to Go 1.23), internal/runtime/maps `Map`, `table` and
//! `groupsReference` (since), runtime/chan.go `hchan`. A header lies in a slot of its own, and its
//! fields depend on each other so much that hardly anything else looks like one.

use std::ops::Range;

use super::heap::{Heap, Slot, Use};
use crate::memory::{ProcessMemory, gather, words};
use crate::runtime::container_layout::{Buckets, Hchan, Maps, Swiss};
use crate::runtime::layout::Layout;
use crate::runtime::size_class::slot_size;

/// A map that is alive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Map {
    /// Of its header.
    pub addr: u64,
    pub count: u64,
    /// Entries that it has room for.
    pub capacity: u64,
    /// Bytes that the arrays of its entries take.
    pub table_bytes: u64,
    /// The arrays of its entries; the first is the largest.
    pub tables: Vec<Slot>,
    /// What stands between these and the header: tables and the directory.
    pub(super) inner: Vec<Slot>,
    /// Bytes of a bucket, of a map up to Go 1.23 whose keys are pointers; `None`: not known.
    pointer_bucket: Option<u64>,
}

impl Map {
    /// Whether the word at this offset of an array of its entries is a key, as far as that can be
    /// told without its type.
    pub fn is_key(&self, offset: u64) -> Option<bool> {
        let at = offset % self.pointer_bucket?;
        Some((GROUP..GROUP + GROUP * 8).contains(&at))
    }

    /// Bytes that a bucket of an array of buckets may have: mostly one number.
    pub(super) fn bucket_sizes(&self, array: Slot, layout: &Layout) -> impl Iterator<Item = u64> {
        // That from which a map grows has half as many.
        let is_half = self.tables.first().is_some_and(|largest| largest.size > array.size);
        let count = self.capacity / GROUP / if is_half { 2 } else { 1 };
        // Large arrays have spare ones (`makeBucketArray`).
        let count = if count < 16 { count } else { count + count / 16 };
        let most = (array.size / count.max(1)).min(MAX_BUCKET) / 8 * 8;
        let malloc_headers = layout.malloc_headers;
        // A size class or a page is not much more than what is asked for.
        (most / 2..=most)
            .rev()
            .step_by(8)
            .filter(move |bytes| slot_size(bytes.saturating_mul(count), true, malloc_headers) == array.size)
    }
}

/// A channel with a buffer of elements that hold pointers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Channel {
    /// Of its header.
    pub addr: u64,
    pub count: u64,
    pub capacity: u64,
    /// In bytes.
    pub elem_size: u64,
    /// The `*_type` of its elements.
    pub elem_type: u64,
    pub buffer: Slot,
}

/// Bytes of the largest bucket: eight keys and elements of at most 128 bytes, hashes and a pointer
/// (runtime/map.go).
const MAX_BUCKET: u64 = 8 + 8 * (128 + 128) + 8;
/// A hash in a bucket that is less says that there is no entry, or not any more (`minTopHash`).
const MIN_HASH: u8 = 5;
/// Entries whose keys are looked at, at least, and bytes of their array at most.
const LEAST_KEYS: usize = 16;
const KEY_BYTES: u64 = 64 << 10;
/// Entries of a bucket, and of a group.
const GROUP: u64 = 8;
/// Entries of a table at most (internal/runtime/maps `maxTableCapacity`).
const MAX_TABLE: u64 = 1024;
/// Candidates kept while headers are looked for, and maps or channels told of at most.
const CANDIDATES: usize = 4096;
const MOST: usize = 64;
/// Tables of one map that are looked at: of a map of some 60 million entries.
const MAX_TABLES: u64 = 1 << 16;
/// Bytes of spans of headers that are read at most.
const MAX_BYTES: u64 = 512 << 20;

/// The maps with most room, largest first.
pub(super) fn maps(memory: &impl ProcessMemory, heap: &Heap, layout: &Layout) -> Vec<Map> {
    let size = header_size(layout);
    let room = |bytes: &[u8]| match &layout.maps {
        Maps::Buckets(layout) => layout.room(heap, bytes),
        Maps::Swiss(layout) => layout.room(heap, bytes),
    };
    let mut maps: Vec<Map> = headers(memory, heap, size, room)
        .into_iter()
        .filter_map(|(addr, bytes)| map(memory, heap, layout, addr, &bytes))
        .filter(|map| heap.use_of(memory, Slot { base: map.addr, size }) != Use::Free)
        .take(MOST)
        .collect();
    maps.sort_by_key(|map| (std::cmp::Reverse(map.table_bytes), map.addr));
    maps
}

/// The map whose header is in this slot, if it is one with tables.
pub(super) fn map_at(memory: &impl ProcessMemory, heap: &Heap, layout: &Layout, slot: Slot) -> Option<Map> {
    let bytes = memory.read_vec(slot.base, header_size(layout) as usize).ok()?;
    let room = match &layout.maps {
        Maps::Buckets(layout) => layout.room(heap, &bytes),
        Maps::Swiss(layout) => layout.room(heap, &bytes),
    };
    map(memory, heap, layout, slot.base, &bytes).filter(|_| room.is_some())
}

fn map(memory: &impl ProcessMemory, heap: &Heap, layout: &Layout, addr: u64, bytes: &[u8]) -> Option<Map> {
    let mut map = match &layout.maps {
        Maps::Buckets(layout) => layout.map(heap, addr, bytes),
        Maps::Swiss(layout) => layout.map(memory, heap, addr, bytes),
    }?;
    map.tables.sort_unstable_by_key(|table| (std::cmp::Reverse(table.size), table.base));
    Some(map)
}

/// Finds out whether keys are pointers, of a map up to Go 1.23: later ones say what they are of.
pub(super) fn look_at_keys(memory: &impl ProcessMemory, heap: &Heap, layout: &Layout, map: &mut Map) {
    if let Maps::Buckets(_) = &layout.maps {
        map.pointer_bucket = pointer_bucket(memory, heap, layout, map);
    }
}

/// If the keys that are looked at are pointers into the heap: how large a bucket is. Some may be younger
/// than what is known of the heap.
fn pointer_bucket(memory: &impl ProcessMemory, heap: &Heap, layout: &Layout, map: &Map) -> Option<u64> {
    let array = *map.tables.first()?;
    let bytes = memory.read_vec(heap.start(array), array.size.min(KEY_BYTES) as usize).ok()?;
    let is_it = |bucket: &u64| {
        let keys = bytes.chunks_exact(*bucket as usize).flat_map(|bucket| {
            let full = (0..GROUP).filter(|i| bucket.get(*i as usize).is_some_and(|hash| *hash >= MIN_HASH));
            full.map(|i| word(bucket, GROUP + 8 * i).unwrap_or(0))
        });
        let (count, pointers) = keys.fold((0, 0), |(count, pointers), key| {
            (count + 1, pointers + usize::from(heap.slot_at(key).is_some()))
        });
        count >= LEAST_KEYS && 8 * pointers >= 7 * count
    };
    map.bucket_sizes(array, layout).filter(|bucket| *bucket >= GROUP * 9 + 8).find(is_it)
}

/// Of the header of a map, in bytes.
pub(super) fn header_size(layout: &Layout) -> u64 {
    match &layout.maps {
        Maps::Buckets(layout) => layout.size,
        Maps::Swiss(layout) => layout.size,
    }
}

/// The channels with most room for elements that hold pointers, largest first; `module` is where
/// type descriptors lie.
pub(super) fn channels(
    memory: &impl ProcessMemory,
    heap: &Heap,
    layout: &Layout,
    module: &Range<u64>,
) -> Vec<Channel> {
    let size = layout.hchan.size;
    let room = |bytes: &[u8]| layout.hchan.room(bytes, module);
    headers(memory, heap, size, room)
        .into_iter()
        .filter_map(|(addr, bytes)| layout.hchan.channel(memory, heap, layout, addr, &bytes))
        .filter(|channel| heap.use_of(memory, Slot { base: channel.addr, size }) != Use::Free)
        .take(MOST)
        .collect()
}

/// Slots that may be headers of `size` bytes: those with most room first.
fn headers(
    memory: &impl ProcessMemory,
    heap: &Heap,
    size: u64,
    room: impl Fn(&[u8]) -> Option<u64>,
) -> Vec<(u64, Vec<u8>)> {
    let slot = slot_size(size, true, true);
    let mut all: Vec<(u64, u64, Vec<u8>)> = Vec::new();
    let mut bytes = Vec::new();
    let mut left = MAX_BYTES;
    for span in heap.pointerful().filter(|span| span.elem_size == slot) {
        let len = span.nelems * span.elem_size;
        left = match left.checked_sub(len) {
            Some(left) => left,
            None => break,
        };
        bytes.resize(len as usize, 0);
        if memory.read(span.base, &mut bytes).is_err() {
            continue;
        }
        for (i, header) in bytes.chunks_exact(slot as usize).enumerate() {
            if let Some(room) = room(header) {
                all.push((room, span.base + slot * i as u64, header.to_vec()));
            }
        }
        if all.len() >= 2 * CANDIDATES {
            all.sort_unstable_by_key(|(room, addr, _)| (std::cmp::Reverse(*room), *addr));
            all.truncate(CANDIDATES);
        }
    }
    all.sort_unstable_by_key(|(room, addr, _)| (std::cmp::Reverse(*room), *addr));
    all.into_iter().map(|(_, addr, bytes)| (addr, bytes)).collect()
}

impl Swiss {
    /// Entries that it may have room for, if it looks like a map with tables.
    fn room(&self, heap: &Heap, bytes: &[u8]) -> Option<u64> {
        let (used, len) = (word(bytes, self.used)?, word(bytes, self.directory_len)?);
        let depth = u32::from(*bytes.get(self.depth as usize)?);
        let is_map = (1..=1 << 40).contains(&len)
            && len.is_power_of_two()
            && len.trailing_zeros() == depth
            && used <= len * MAX_TABLE;
        let directory = is_map.then(|| start_of(heap, bytes, self.directory)).flatten()?;
        (directory.size >= 8 * len).then_some(len * MAX_TABLE)
    }

    fn map(&self, memory: &impl ProcessMemory, heap: &Heap, addr: u64, bytes: &[u8]) -> Option<Map> {
        let (directory, len) = (word(bytes, self.directory)?, word(bytes, self.directory_len)?);
        let slot = start_of(heap, bytes, self.directory)?;
        let count = len.min(MAX_TABLES).min(slot.size / 8);
        let list = memory.read_vec(directory, 8 * count as usize).ok()?;
        let mut tables: Vec<u64> = words(&list).collect();
        // Tables that have not yet been split stand there several times.
        tables.sort_unstable();
        tables.dedup();
        let ranges: Vec<(u64, usize)> =
            tables.iter().map(|&table| (table, self.table.size as usize)).collect();
        let read = gather(memory, &ranges).ok()?;
        let mut map = Map { addr, count: word(bytes, self.used)?, inner: vec![slot], ..Map::default() };
        for (table, bytes) in tables.iter().zip(read.iter()) {
            let (used, capacity) = (half(bytes, self.table.used)?, half(bytes, self.table.capacity)?);
            let mask = word(bytes, self.table.groups_mask)?;
            let (table, array) = (heap.slot_at(*table)?, start_of(heap, bytes, self.table.groups)?);
            if used > capacity || mask.checked_add(1)?.checked_mul(GROUP)? != capacity {
                return None;
            }
            map.capacity += capacity;
            map.table_bytes += array.size;
            map.tables.push(array);
            map.inner.push(table);
        }
        Some(map)
    }
}

impl Buckets {
    /// Entries that it has room for, if it looks like a map with buckets.
    fn room(&self, heap: &Heap, bytes: &[u8]) -> Option<u64> {
        let log = *bytes.get(self.log_buckets as usize)?;
        let room = GROUP.checked_shl(u32::from(log)).filter(|_| (1..40).contains(&log))?;
        // At most 6.5 entries a bucket, but for those that overflow.
        let is_map = word(bytes, self.count)? <= 2 * room;
        let buckets = is_map.then(|| start_of(heap, bytes, self.buckets)).flatten()?;
        // Each bucket has eight bytes of hashes, and mostly keys.
        (buckets.size >= room).then_some(room)
    }

    fn map(&self, heap: &Heap, addr: u64, bytes: &[u8]) -> Option<Map> {
        let old = match word(bytes, self.old_buckets)? {
            0 => None,
            _ => Some(start_of(heap, bytes, self.old_buckets)?),
        };
        let tables: Vec<Slot> = [start_of(heap, bytes, self.buckets)?].into_iter().chain(old).collect();
        let table_bytes = tables.iter().map(|slot| slot.size).sum();
        Some(Map {
            addr,
            count: word(bytes, self.count)?,
            capacity: self.room(heap, bytes)?,
            table_bytes,
            tables,
            ..Map::default()
        })
    }
}

impl Hchan {
    /// Bytes of its buffer, if it looks like a channel that has one.
    fn room(&self, bytes: &[u8], module: &Range<u64>) -> Option<u64> {
        let (count, capacity) = (word(bytes, self.count)?, word(bytes, self.capacity)?);
        let elem_size = half(bytes, self.elem_size)?;
        let is_channel = capacity > 0
            && count <= capacity
            && elem_size > 0
            && module.contains(&word(bytes, self.elem_type)?)
            && word(bytes, self.buffer)? != 0;
        capacity.checked_mul(elem_size).filter(|_| is_channel)
    }

    fn channel(
        &self,
        memory: &impl ProcessMemory,
        heap: &Heap,
        layout: &Layout,
        addr: u64,
        bytes: &[u8],
    ) -> Option<Channel> {
        let buffer = start_of(heap, bytes, self.buffer)?;
        let channel = Channel {
            addr,
            count: word(bytes, self.count)?,
            capacity: word(bytes, self.capacity)?,
            elem_size: half(bytes, self.elem_size)?,
            elem_type: word(bytes, self.elem_type)?,
            buffer,
        };
        let size = memory.read_u64(channel.elem_type.wrapping_add(layout.types.size)).ok()?;
        let fits = channel.capacity.checked_mul(size)? <= buffer.size;
        (fits && size == channel.elem_size).then_some(channel)
    }
}

/// The slot of the object that the pointer at this offset points to the start of.
fn start_of(heap: &Heap, bytes: &[u8], at: u64) -> Option<Slot> {
    let pointer = word(bytes, at)?;
    heap.slot_at(pointer).filter(|slot| heap.start(*slot) == pointer)
}

fn word(bytes: &[u8], at: u64) -> Option<u64> {
    bytes.get(at as usize..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

fn half(bytes: &[u8], at: u64) -> Option<u64> {
    bytes.get(at as usize..)?.first_chunk().map(|b| u64::from(u16::from_le_bytes(*b)))
}
