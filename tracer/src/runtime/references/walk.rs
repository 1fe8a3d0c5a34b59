//! The way from objects up to what keeps them alive, a pass over the memory for each step.

use std::collections::VecDeque;
use std::ops::Range;

use hashbrown::{HashMap, HashSet};

use super::containers::{self, Channel, Map};
use super::heap::{Heap, Slot};
use super::scan::{Hit, Region, Root, scan};
use super::{Held, MAX_PS, REFERENCES};
use crate::memory::ProcessMemory;
use crate::runtime::layout::Layout;
use crate::runtime::size_class::slot_size;

/// A word that points into an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// Where it points to, in bytes from the object's start.
    pub offset: u64,
    /// Bytes of the object from there on.
    pub room: u64,
    /// The word is followed by a length, of a string or slice, and by a capacity if it is that of
    /// a slice: as far as these two are plausible, given the room.
    pub len: Option<u64>,
    pub cap: Option<u64>,
    /// It stands in an object of which is not yet known whether it is alive.
    pub is_new: bool,
    pub on_stack: bool,
}

/// Where a holder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The word stands at this address of a global variable, or of a stack.
    Root(Root, u64),
    Object(Slot),
}

/// One that holds an object, or the holder before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Of a container its header.
    pub place: Place,
    /// The `*_type` of what is in the slot, where the runtime keeps it there.
    pub type_addr: Option<u64>,
    pub container: Option<Container>,
    /// Of a container the array in which the word stands, and how far from its start.
    pub entry: Option<(Slot, u64)>,
}

/// A holder that is more than an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Container {
    /// Index in [`super::Look::maps`].
    Map(usize),
    /// Index in [`super::Look::channels`].
    Channel(usize),
    /// The objects of a `sync.Pool`, one for each P.
    Pool,
}

impl Container {
    fn map(self) -> Option<usize> {
        match self {
            Container::Map(map) => Some(map),
            _ => None,
        }
    }
}

/// Steps from an object at most: through some structs, and maps in maps.
const STEPS: usize = 8;
/// References to a holder that are followed.
const FOLLOWED: u64 = 8;
/// Slots that are looked at in all.
const MAX_NODES: usize = 1 << 14;
/// Bytes of those of one P (sync/pool.go `poolLocal`).
const POOL_LOCAL: u64 = 128;
/// Bytes of the smallest stack (runtime/stack.go `stackMin`).
const MIN_STACK: u64 = 2048;
/// No pointer is less (vm.mmap_min_addr is mostly more).
const MIN_POINTER: u64 = 4096;

/// Maps that are recognised on the way at most.
const MAX_MAPS: usize = 1024;

pub(super) struct Walk<'a> {
    heap: &'a Heap,
    layout: &'a Layout,
    regions: &'a [Region],
    module: &'a Range<u64>,
    /// Structs that hold what was in use lately: no reason for an object to live.
    processors: &'a [u64],
    /// Largest first; those met on the way are added.
    pub(super) maps: Vec<Map>,
    pub(super) channels: Vec<Channel>,
    /// By the address of an array of entries, or of what leads to it: the header, and what it is.
    parts: HashMap<u64, (Slot, Container)>,
}

/// A slot on the way.
#[derive(Debug, Clone)]
struct Node {
    slot: Slot,
    up: Vec<Edge>,
}

/// A word in a node, a container's header that it belongs to, or a root.
#[derive(Debug, Clone, Copy)]
struct Edge {
    at: u64,
    /// `None`: `at` is in a root.
    node: Option<usize>,
    root: Option<Root>,
    /// It is of a `sync.Pool`.
    is_pool: bool,
    is_new: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        memory: &impl ProcessMemory,
        heap: &'a Heap,
        layout: &'a Layout,
        regions: &'a [Region],
        module: &'a Range<u64>,
        processors: &'a [u64],
    ) -> Walk<'a> {
        let mut walk = Walk {
            heap,
            layout,
            regions,
            module,
            processors,
            maps: containers::maps(memory, heap, layout),
            channels: containers::channels(memory, heap, layout, module),
            parts: HashMap::new(),
        };
        (0..walk.maps.len()).for_each(|map| walk.add_parts(map));
        for (i, channel) in walk.channels.iter().enumerate() {
            let header = heap.slot_at(channel.addr).unwrap_or_default();
            walk.parts.insert(channel.buffer.base, (header, Container::Channel(i)));
        }
        walk
    }

    fn add_parts(&mut self, index: usize) {
        let Some(map) = self.maps.get(index) else { return };
        let header = self.heap.slot_at(map.addr).unwrap_or_default();
        let parts = map.tables.iter().chain(&map.inner);
        self.parts.extend(parts.map(|part| (part.base, (header, Container::Map(index)))));
    }

    /// Looks for maps among the slots that were met.
    fn recognise(&mut self, memory: &impl ProcessMemory, graph: &Graph) {
        let size = containers::header_size(self.layout);
        for node in graph.nodes.iter().filter(|node| node.slot.size == size) {
            let is_known = self.maps.iter().any(|map| map.addr == node.slot.base);
            if is_known || self.maps.len() >= MAX_MAPS {
                continue;
            }
            if let Some(map) = containers::map_at(memory, self.heap, self.layout, node.slot) {
                self.maps.push(map);
                self.add_parts(self.maps.len() - 1);
            }
        }
    }

    /// Who holds each of these, and the bytes that the first pass scanned.
    pub(super) fn up(
        &mut self,
        memory: &impl ProcessMemory,
        slots: &[Option<Slot>],
    ) -> (Vec<Option<Held>>, u64) {
        let mut graph = Graph::default();
        let starts: Vec<Option<usize>> = slots.iter().map(|slot| graph.node((*slot)?)).collect();
        let mut held: HashMap<usize, Held> = HashMap::new();
        let mut frontier: Vec<usize> = (0..graph.nodes.len()).collect();
        let mut scanned = 0;
        for step in 0..STEPS {
            let of_scan = self.enter_containers(&mut graph, frontier);
            if of_scan.is_empty() {
                break;
            }
            let targets: Vec<Slot> = of_scan.iter().map(|&node| graph.nodes[node].slot).collect();
            let most = if step == 0 { REFERENCES } else { FOLLOWED };
            let mut found = scan(memory, self.heap, self.regions, &targets, most);
            found.hits.retain(|hit| !self.is_of_processor(hit) && !self.is_end_of_stack(memory, hit));
            scanned = scanned.max(found.bytes);
            frontier = Vec::new();
            for hit in &found.hits {
                self.follow(&mut graph, of_scan[hit.target], hit, &mut frontier);
            }
            if step == 0 {
                for (i, node) in of_scan.iter().enumerate() {
                    let hits = found.hits.iter().filter(|hit| hit.target == i);
                    let references = hits.map(|hit| self.reference(targets[i], hit)).collect();
                    held.insert(*node, Held { references, count: found.counts[i], ..Held::default() });
                }
            }
        }
        self.recognise(memory, &graph);
        let of_start = |start: usize| {
            let holders = self.holders(memory, &graph, start);
            Held { slot: graph.nodes[start].slot, holders, ..held.get(&start).cloned().unwrap_or_default() }
        };
        (starts.into_iter().map(|start| start.map(of_start)).collect(), scanned)
    }

    fn is_of_processor(&self, hit: &Hit) -> bool {
        let slot = self.heap.slot_at(hit.at);
        hit.root.is_none() && slot.is_some_and(|slot| self.processors.contains(&self.heap.start(slot)))
    }

    /// Whether the word is where a goroutine's stack ends (runtime/runtime2.go `stack`), which is
    /// where the object that lies behind it begins.
    fn is_end_of_stack(&self, memory: &impl ProcessMemory, hit: &Hit) -> bool {
        if hit.root.is_some() || !hit.value.is_multiple_of(MIN_STACK) {
            return false;
        }
        let Ok(low) = memory.read_u64(hit.at.wrapping_sub(8)) else { return false };
        let len = hit.value.saturating_sub(low);
        len >= MIN_STACK && len.is_power_of_two() && self.heap.slot_at(low).is_none()
    }

    /// Where nodes are arrays of a container's entries, goes on with its header instead. Returns
    /// what remains to be scanned for.
    fn enter_containers(&self, graph: &mut Graph, frontier: Vec<usize>) -> Vec<usize> {
        let mut rest = Vec::new();
        for node in frontier {
            let slot = graph.nodes[node].slot;
            let Some(&(header, _)) = self.parts.get(&slot.base) else {
                rest.push(node);
                continue;
            };
            let known = graph.nodes.len();
            let Some(above) = graph.node(header) else { continue };
            graph.nodes[node].up.push(Edge {
                at: slot.base,
                node: Some(above),
                root: None,
                is_pool: false,
                is_new: false,
            });
            if above == known {
                rest.push(above);
            }
        }
        rest
    }

    /// Adds what a hit tells of `node`.
    fn follow(&self, graph: &mut Graph, node: usize, hit: &Hit, frontier: &mut Vec<usize>) {
        let above = match hit.root {
            Some(_) => None,
            None => {
                let known = graph.nodes.len();
                let Some(above) = self.heap.slot_at(hit.at).and_then(|slot| graph.node(slot)) else { return };
                if above == known {
                    frontier.push(above);
                }
                Some(above)
            }
        };
        let is_pool = self.is_pool(graph.nodes[node].slot, hit);
        graph.nodes[node].up.push(Edge {
            at: hit.at,
            node: above,
            root: hit.root,
            is_pool,
            is_new: hit.is_new,
        });
    }

    /// Whether the word is that of a `sync.Pool` for its objects: it is followed by the number of
    /// Ps and, which tells it from a slice, by a pointer or none (sync/pool.go `Pool`: `local`,
    /// `localSize`, `victim`, `victimSize`, `New`).
    fn is_pool(&self, slot: Slot, hit: &Hit) -> bool {
        let [ps, pointer] = hit.next;
        hit.value == self.heap.start(slot)
            && (1..=MAX_PS).contains(&ps)
            && (pointer == 0 || pointer >= MIN_POINTER)
            && [false, true].iter().any(|headers| slot_size(POOL_LOCAL * ps, true, *headers) == slot.size)
    }

    fn reference(&self, slot: Slot, hit: &Hit) -> Reference {
        let offset = hit.value.saturating_sub(self.heap.start(slot));
        let room = slot.end().saturating_sub(hit.value);
        let [len, cap] = hit.next;
        let len = Some(len).filter(|len| (1..=room).contains(len));
        let cap = len.and_then(|len| Some(cap).filter(|cap| (len..=room).contains(cap)));
        let on_stack = matches!(hit.root, Some(Root::Stack(_)));
        Reference { offset, room, len, cap, is_new: hit.is_new, on_stack }
    }

    /// The shortest way from a node to a global variable, else to a stack, else as far as it goes;
    /// by objects that have survived, if there is one.
    fn holders(&self, memory: &impl ProcessMemory, graph: &Graph, start: usize) -> Vec<Holder> {
        let (end, edges) = graph.way_up(start, false);
        if end == End::Global {
            return self.told(memory, graph, &edges);
        }
        let (any_end, any_edges) = graph.way_up(start, true);
        self.told(memory, graph, if any_end < end { &any_edges } else { &edges })
    }

    fn told(&self, memory: &impl ProcessMemory, graph: &Graph, edges: &[Edge]) -> Vec<Holder> {
        let mut holders: Vec<Holder> = Vec::new();
        // Of each where the word stands in it.
        let mut offsets: Vec<u64> = Vec::new();
        // The array of a container's entries in which the way enters it.
        let mut entry = None;
        for edge in edges {
            if edge.is_pool
                && let Some(last) = holders.last_mut()
            {
                last.container = Some(Container::Pool);
            }
            let slot = match (edge.root, edge.node) {
                (Some(root), _) => {
                    let place = Place::Root(root, edge.at);
                    holders.push(Holder { place, type_addr: None, container: None, entry: None });
                    continue;
                }
                (None, Some(node)) => graph.nodes[node].slot,
                (None, None) => continue,
            };
            let offset = edge.at.saturating_sub(self.heap.start(slot));
            if let Some((_, container)) = self.parts.get(&slot.base) {
                let mut below = offset;
                while entry.is_none()
                    && holders.pop_if(|last| self.overflows(*container, slot, below, last)).is_some()
                {
                    below = offsets.pop().unwrap_or_default();
                }
                // As if it stood in the first bucket of the array.
                entry = entry.or(Some((slot, below)));
                continue;
            }
            let map = self.maps.iter().position(|map| map.addr == slot.base).map(Container::Map);
            let channel = || self.channels.iter().position(|channel| channel.addr == slot.base);
            let container = map.or_else(|| channel().map(Container::Channel));
            let type_addr = if container.is_some() { None } else { self.type_of(memory, slot) };
            holders.push(Holder { place: Place::Object(slot), type_addr, container, entry: entry.take() });
            offsets.push(offset);
        }
        holders
    }

    /// Whether a holder is a bucket beside a map's array of buckets, for entries that one of them had
    /// no room for: the last word of which leads to it (runtime/map.go `bmap`, up to Go 1.23). `offset`
    /// is where the word stands in the array, or in the bucket.
    fn overflows(&self, container: Container, array: Slot, offset: u64, holder: &Holder) -> bool {
        let Container::Map(map) = container else { return false };
        let (Some(map), Place::Object(bucket)) = (self.maps.get(map), holder.place) else { return false };
        let is_bucket = |bytes: u64| {
            slot_size(bytes, true, self.layout.malloc_headers) == bucket.size && offset % bytes == bytes - 8
        };
        holder.container.is_none() && map.bucket_sizes(array, self.layout).any(is_bucket)
    }

    /// Finds out whether keys are pointers, of the maps that hold any of these.
    pub(super) fn look_at_keys(&mut self, memory: &impl ProcessMemory, held: &[Option<Held>]) {
        let holders = held.iter().flatten().flat_map(|held| &held.holders);
        let maps: HashSet<usize> = holders.filter_map(|holder| holder.container?.map()).collect();
        for map in maps {
            if let Some(map) = self.maps.get_mut(map) {
                containers::look_at_keys(memory, self.heap, self.layout, map);
            }
        }
    }

    /// The `*_type` of the tables of maps, where the runtime keeps it there, by the map's address.
    pub(super) fn table_types(&self, memory: &impl ProcessMemory) -> HashMap<u64, u64> {
        let of_map = |map: &Map| Some((map.addr, self.type_of(memory, *map.tables.first()?)?));
        self.maps.iter().filter_map(of_map).collect()
    }

    fn type_of(&self, memory: &impl ProcessMemory, slot: Slot) -> Option<u64> {
        let type_addr = memory.read_u64(self.heap.type_word(slot)?).ok()?;
        self.module.contains(&type_addr).then_some(type_addr)
    }
}

/// How a way up ends, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Global,
    Stack,
    Nowhere,
}

#[derive(Debug, Default)]
struct Graph {
    nodes: Vec<Node>,
    by_base: HashMap<u64, usize>,
}

impl Graph {
    /// The shortest way from a node to the best end there is, and which that is; with `by_new` also
    /// by objects of which is not known whether they are alive.
    fn way_up(&self, start: usize, by_new: bool) -> (End, Vec<Edge>) {
        // By node: from which one, and by which of its edges, it was reached.
        let mut from: HashMap<usize, (usize, Edge)> = HashMap::new();
        let mut queue = VecDeque::from([start]);
        let mut best = (End::Nowhere, start, None);
        while let Some(node) = queue.pop_front()
            && best.0 != End::Global
        {
            if best.0 == End::Nowhere {
                // The farthest one is told.
                best.1 = node;
            }
            for edge in self.nodes[node].up.iter().filter(|edge| by_new || !edge.is_new) {
                match (edge.root, edge.node) {
                    (Some(root), _) => {
                        let end = if root == Root::Global { End::Global } else { End::Stack };
                        if end < best.0 {
                            best = (end, node, Some(*edge));
                        }
                    }
                    (None, Some(above)) if above != start && !from.contains_key(&above) => {
                        from.insert(above, (node, *edge));
                        queue.push_back(above);
                    }
                    _ => {}
                }
            }
        }
        let (end, mut node, last) = best;
        let mut edges: Vec<Edge> = last.into_iter().collect();
        while let Some((below, edge)) = from.get(&node) {
            edges.push(*edge);
            node = *below;
        }
        edges.reverse();
        (end, edges)
    }

    /// The node of a slot; `None`: there are too many.
    fn node(&mut self, slot: Slot) -> Option<usize> {
        if let Some(&node) = self.by_base.get(&slot.base) {
            return Some(node);
        }
        if self.nodes.len() >= MAX_NODES || slot.size == 0 {
            return None;
        }
        self.nodes.push(Node { slot, up: Vec::new() });
        self.by_base.insert(slot.base, self.nodes.len() - 1);
        Some(self.nodes.len() - 1)
    }
}
