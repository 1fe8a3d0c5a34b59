//! Who holds an object: a conservative scan of another process's memory, and from what it finds
//! the way up to a global variable or a stack.
//!
//! The process runs meanwhile: what moves between two passes is missed, and an integer may be
//! taken for a pointer. All reading is bounded.

mod containers;
mod heap;
mod scan;
mod table;
#[cfg(test)]
mod tests;
mod walk;

use std::ops::Range;

use hashbrown::HashMap;

pub use containers::{Channel, Map};
pub use heap::Slot;
pub use scan::Root;
pub use table::MapTable;
use walk::Walk;
pub use walk::{Container, Holder, Place, Reference};

use super::globals::Global;
use super::layout::Layout;
use super::spans::SpanReader;
use crate::base::{Error, Result};
use crate::binary::Binary;
use crate::memory::{MAX_READ, ProcessMemory, gather, words};
use heap::Heap;
use scan::Region;

/// An object to be asked about, as the model names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Its slot, by the page in which it begins (see [`crate::event::Event::Deaths`]).
    pub name: u64,
    pub size: u64,
}

/// What was found of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    pub slot: Slot,
    /// Words that point into it, at most [`REFERENCES`] of them.
    pub references: Vec<Reference>,
    /// How many there are.
    pub count: u64,
    /// From what points to it up to a global variable or, if there is none, to a stack: the
    /// shortest way that was found.
    pub holders: Vec<Holder>,
}

/// What one look at a process's memory found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// For each object asked about; `None`: it is not there any more.
    pub held: Vec<Option<Held>>,
    /// Those with most room, largest first, and behind them others that hold the objects.
    pub maps: Vec<Map>,
    /// By the address of a map: the `*_type` of its tables, where the runtime keeps it there.
    pub table_types: HashMap<u64, u64>,
    pub channels: Vec<Channel>,
    /// Bytes of heap that may hold pointers, and how many of all regions were scanned in the first
    /// pass.
    pub heap_bytes: u64,
    pub scanned_bytes: u64,
}

/// References to one object that are looked at.
pub const REFERENCES: u64 = 16;

/// Bytes of heap that one pass scans at most; of a larger heap, spans evenly spread over it.
const MAX_SCAN: u64 = 1 << 30;

/// Goroutines whose stacks are scanned, and bytes of each, at most.
const MAX_STACKS: usize = 1 << 17;
const MAX_STACK: u64 = 1 << 20;

/// More bytes than `runtime.moduledata` has up to the last field looked at (Go 1.26: 576).
const MODULE_DATA: usize = 576;

/// More Ps than GOMAXPROCS can reach on any machine.
const MAX_PS: u64 = 4096;

/// Looks for references in one process, again and again.
#[derive(Debug, Clone)]
pub struct ReferenceReader {
    spans: SpanReader,
    layout: Layout,
    /// Run-time addresses: of global variables, with and without initial value, and of type
    /// descriptors.
    globals: [Range<u64>; 2],
    module_data: u64,
    module: Range<u64>,
    allglen: u64,
    allgptr: u64,
    allp: u64,
}

impl ReferenceReader {
    /// `load_bias` is the run-time minus the link-time address of the executable.
    ///
    /// # Errors
    /// Failed when the heap, the goroutines or the global variables cannot be found.
    pub fn new(binary: &Binary, layout: &Layout, load_bias: u64) -> Result<ReferenceReader> {
        let module = binary
            .moduledata()
            .ok_or_else(|| Error::failed("global variables cannot be found: there is no module data"))?;
        let range = |from: u64, to: u64| from.wrapping_add(load_bias)..to.wrapping_add(load_bias);
        let locate = |global: Global| Ok::<_, Error>(global.locate(binary, layout)?.wrapping_add(load_bias));
        Ok(ReferenceReader {
            spans: SpanReader::new(binary, layout, load_bias)?,
            globals: [range(module.data, module.edata), range(module.bss, module.ebss)],
            module_data: module.addr.wrapping_add(load_bias),
            module: range(module.types, module.etypes),
            allglen: locate(Global::AllgLen)?,
            allgptr: locate(Global::AllgPtr)?,
            allp: locate(Global::Allp)?,
            layout: layout.clone(),
        })
    }

    /// Says of each object who holds it.
    ///
    /// # Errors
    /// Failed when the process is gone or its list of spans makes no sense.
    pub fn look(&self, memory: &impl ProcessMemory, wanted: &[Wanted]) -> Result<Look> {
        let heap = Heap::read(&self.spans, memory, &self.layout)?;
        let regions = self.regions(memory, &heap)?;
        let slots: Vec<Option<Slot>> = wanted.iter().map(|w| heap.named(w.name, w.size)).collect();
        let processors = self.processors(memory)?;
        let mut walk = Walk::new(memory, &heap, &self.layout, &regions, &self.module, &processors);
        let (held, scanned_bytes) = walk.up(memory, &slots);
        walk.look_at_keys(memory, &held);
        let table_types = walk.table_types(memory);
        let (maps, channels) = (walk.maps, walk.channels);
        let heap_bytes = heap.pointerful().map(|span| span.nelems * span.elem_size).sum();
        Ok(Look { held, maps, table_types, channels, heap_bytes, scanned_bytes })
    }

    /// The type descriptors of keys and elements of a map, given that of its tables.
    pub fn map_table(&self, memory: &impl ProcessMemory, type_addr: u64) -> Option<MapTable> {
        MapTable::read(memory, &self.layout.types, &self.module, type_addr)
    }

    /// Where words may lie that keep an object alive.
    fn regions(&self, memory: &impl ProcessMemory, heap: &Heap) -> Result<Vec<Region>> {
        let global = |(range, pointers): (&Range<u64>, Option<Vec<u8>>)| Region {
            start: range.start,
            len: range.end.saturating_sub(range.start),
            root: Some(Root::Global),
            pointers,
        };
        let masks = self.pointer_masks(memory);
        let mut regions: Vec<Region> = self.globals.iter().zip(masks).map(global).collect();
        regions.extend(self.stacks(memory)?);
        let all: u64 = heap.pointerful().map(|span| span.nelems * span.elem_size).sum();
        let stride = all.div_ceil(MAX_SCAN).max(1) as usize;
        regions.extend(heap.pointerful().step_by(stride).map(|span| Region {
            start: span.base,
            len: span.nelems * span.elem_size,
            ..Region::default()
        }));
        Ok(regions)
    }

    /// Which words of the global variables are pointers (runtime/symtab.go `moduledata`:
    /// `gcdatamask` and behind it `gcbssmask`, each a count of bits and where they are). Some of
    /// the runtime's own are addresses in the heap that keep nothing alive, as that from which it
    /// looks for free pages (runtime/mpagealloc.go `searchAddr`).
    ///
    /// The masks are known by their lengths, so that no version's offsets are needed.
    fn pointer_masks(&self, memory: &impl ProcessMemory) -> [Option<Vec<u8>>; 2] {
        let counts = self.globals.each_ref().map(|range| range.end.saturating_sub(range.start) / 8);
        let Ok(module) = memory.read_vec(self.module_data, MODULE_DATA) else { return [None, None] };
        let words: Vec<u64> = words(&module).collect();
        let found = words.array_windows().find(|[data, _, bss, _]| [*data, *bss] == counts);
        let Some(&[data, data_mask, bss, bss_mask]) = found else { return [None, None] };
        [(data, data_mask), (bss, bss_mask)].map(|(count, mask)| {
            let bytes = usize::try_from(count.div_ceil(8)).ok().filter(|bytes| *bytes <= MAX_READ)?;
            memory.read_vec(mask, bytes).ok()
        })
    }

    /// The runtime's Ps, each of which remembers objects that were in use lately (runtime/mwbbuf.go
    /// `wbBuf`).
    fn processors(&self, memory: &impl ProcessMemory) -> Result<Vec<u64>> {
        let len = memory.read_u64(self.allp.wrapping_add(8))?.min(MAX_PS);
        let list = memory.read_vec(memory.read_u64(self.allp)?, 8 * len as usize)?;
        Ok(words(&list).collect())
    }

    /// The used parts of goroutines' stacks, as far as that is known while they run.
    fn stacks(&self, memory: &impl ProcessMemory) -> Result<Vec<Region>> {
        let len = (memory.read_u64(self.allglen)? as usize).min(MAX_STACKS);
        let list = memory.read_vec(memory.read_u64(self.allgptr)?, 8 * len)?;
        let addrs: Vec<u64> = words(&list).collect();
        let g = &self.layout.g;
        let bytes = [g.goid, g.stack + 8, g.sched_sp].into_iter().max().unwrap_or(0) as usize + 8;
        let mut stacks = Vec::new();
        for batch in addrs.chunks((MAX_READ / 4 / bytes).max(1)) {
            let ranges: Vec<(u64, usize)> = batch.iter().map(|addr| (*addr, bytes)).collect();
            let read = gather(memory, &ranges)?;
            stacks.extend(read.iter().filter_map(|bytes| self.stack(bytes)));
        }
        Ok(stacks)
    }

    fn stack(&self, bytes: &[u8]) -> Option<Region> {
        let g = &self.layout.g;
        let word = |at: u64| bytes.get(at as usize..)?.first_chunk().map(|b| u64::from_le_bytes(*b));
        let (low, high, sp) = (word(g.stack)?, word(g.stack + 8)?, word(g.sched_sp)?);
        // A dead goroutine has no stack, or none in use.
        let start = if (low..high).contains(&sp) { sp & !7 } else { return None };
        let root = Some(Root::Stack(word(g.goid)?));
        Some(Region { start, len: (high - start).min(MAX_STACK), root, pointers: None })
    }
}
