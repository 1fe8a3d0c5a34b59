//! What a look has found, in the words of the event stream: objects become calls and types.

use hashbrown::{HashMap, HashSet};

use super::CallKey;
use crate::binary::Binary;
use crate::event::{ChannelHeader, Held, Holder, HolderKind, Holders, MapHeader, SiteId, StackId, Way};
use crate::model::{Call, State};
use crate::runtime::references::{self as found, Container, Look, MapTable, Place, Reference, Root, Slot};

/// Maps and channels told of besides those that hold the objects, and ways up from those of one call.
const CONTAINERS: usize = 16;
const WAYS: usize = 8;

pub(super) struct Teller<'a> {
    pub(super) binary: &'a Binary,
    pub(super) load_bias: u64,
}

/// What is needed of the model.
struct Known<'a> {
    state: &'a State,
    calls: HashMap<u32, Call>,
}

impl Known<'_> {
    /// Who allocated what is in a slot.
    fn call(&self, slot: Slot) -> Option<Call> {
        let index = self.state.live.as_ref()?.call_at(slot.base, slot.size)?;
        self.calls.get(&index).copied()
    }

    /// The type that a call allocates; 0: untyped or unknown.
    fn type_addr(&self, site: SiteId, stack: StackId, type_addr: u64) -> u64 {
        if type_addr != 0 {
            return type_addr;
        }
        self.state.inferred.get(&(site, stack)).and_then(|inferred| inferred.type_addr).unwrap_or(0)
    }

    fn type_in(&self, slot: Slot) -> u64 {
        self.call(slot).map_or(0, |call| self.type_addr(call.site, call.stack, call.type_addr))
    }
}

impl Teller<'_> {
    pub(super) fn tell(
        &self,
        look: &Look,
        calls: &[CallKey],
        state: &State,
        tables: &dyn Fn(u64) -> Option<MapTable>,
    ) -> Holders {
        let known = Known { state, calls: state.calls.iter().map(|sums| (sums.index, sums.call)).collect() };
        let map_tables: Vec<Option<MapTable>> =
            look.maps.iter().map(|map| map_table(map, look, &known, tables)).collect();
        let mut by_call: Vec<(CallKey, Vec<&found::Held>)> = Vec::new();
        for (call, held) in calls.iter().zip(&look.held) {
            let Some(held) = held else { continue };
            match by_call.last_mut() {
                Some((last, of_call)) if last == call => of_call.push(held),
                _ => by_call.push((*call, vec![held])),
            }
        }
        let held = by_call.iter().map(|(call, of_call)| self.held(*call, of_call, look, &known, &map_tables));
        let mut named: HashSet<Container> = HashSet::new();
        named.extend(look.held.iter().flatten().flat_map(|held| &held.holders).filter_map(|h| h.container));
        let maps = look.maps.iter().zip(&map_tables).enumerate();
        let is_told = |i: usize, container| i < CONTAINERS || named.contains(&container);
        Holders {
            heap_bytes: look.heap_bytes,
            scanned_bytes: look.scanned_bytes,
            held: held.collect(),
            maps: maps
                .filter(|(i, _)| is_told(*i, Container::Map(*i)))
                .map(|(_, (map, table))| map_header(map, table.as_ref(), &known))
                .collect(),
            channels: look
                .channels
                .iter()
                .enumerate()
                .filter(|(i, _)| is_told(*i, Container::Channel(*i)))
                .map(|(_, channel)| channel_header(channel))
                .collect(),
            ..Holders::default()
        }
    }

    fn held(
        &self,
        (site, stack, type_addr): CallKey,
        objects: &[&found::Held],
        look: &Look,
        known: &Known<'_>,
        tables: &[Option<MapTable>],
    ) -> Held {
        let elem = known.state.types.get(&known.type_addr(site, stack, type_addr)).map(|info| info.size);
        let mut held = Held { site, stack, type_addr, objects: objects.len() as u64, ..Held::default() };
        let mut reaches = Vec::new();
        let mut maps: HashSet<usize> = HashSet::new();
        let mut ways: Vec<Way> = Vec::new();
        for object in objects {
            held.bytes = held.bytes.saturating_add(object.slot.size);
            held.referenced += u64::from(object.count > 0 || !object.holders.is_empty());
            let references = lasting(&object.references);
            held.interior += u64::from(!references.is_empty() && references.iter().all(|r| r.offset > 0));
            if let Some(reach) = reach(&references, elem) {
                held.sliced += 1;
                held.sliced_bytes = held.sliced_bytes.saturating_add(object.slot.size);
                reaches.push(reach);
            }
            if let Some(found::Holder { container: Some(Container::Map(map)), .. }) = object.holders.first()
                && look.maps.get(*map).is_some_and(|map| map.tables.contains(&object.slot))
            {
                maps.insert(*map);
            }
            let holders: Vec<Holder> =
                object.holders.iter().map(|holder| self.holder(holder, look, known, tables)).collect();
            match ways.iter_mut().find(|way| is_same(&way.holders, &holders)) {
                Some(way) => way.objects += 1,
                None if holders.is_empty() => {}
                None => ways.push(Way { objects: 1, holders }),
            }
        }
        reaches.sort_unstable();
        held.reach = reaches.get(reaches.len() / 2).copied().unwrap_or(0);
        for map in maps.iter().filter_map(|map| look.maps.get(*map)) {
            held.maps += 1;
            held.map_count = held.map_count.saturating_add(map.count);
            held.map_capacity = held.map_capacity.saturating_add(map.capacity);
        }
        ways.sort_by_key(|way| std::cmp::Reverse(way.objects));
        ways.truncate(WAYS);
        held.ways = ways;
        held
    }

    fn holder(
        &self,
        holder: &found::Holder,
        look: &Look,
        known: &Known<'_>,
        tables: &[Option<MapTable>],
    ) -> Holder {
        let (slot, root) = match holder.place {
            Place::Object(slot) => (slot, None),
            Place::Root(root, at) => (Slot { base: at, size: 0 }, Some(root)),
        };
        let kind = match (root, holder.container) {
            (Some(Root::Global), _) => HolderKind::Global,
            (Some(Root::Stack(_)), _) => HolderKind::Stack,
            (None, Some(Container::Map(_))) => HolderKind::Map,
            (None, Some(Container::Channel(_))) => HolderKind::Channel,
            (None, Some(Container::Pool)) => HolderKind::Pool,
            (None, None) => HolderKind::Object,
        };
        let name = match kind {
            HolderKind::Global => self.binary.variable_at(slot.base.wrapping_sub(self.load_bias)),
            _ => None,
        };
        let is_key = match (holder.container, holder.entry) {
            (Some(Container::Map(map)), Some((table, offset))) => {
                let layout = tables.get(map).copied().flatten();
                let map = look.maps.get(map).filter(|map| map.tables.contains(&table));
                map.and_then(|map| layout.map(|layout| layout.is_key(offset)).or_else(|| map.is_key(offset)))
            }
            _ => None,
        };
        let call = known.call(slot).filter(|_| root.is_none());
        let type_addr = match kind {
            HolderKind::Object => holder.type_addr.unwrap_or_else(|| known.type_in(slot)),
            HolderKind::Channel => match holder.container {
                Some(Container::Channel(i)) => look.channels.get(i).map_or(0, |channel| channel.elem_type),
                _ => 0,
            },
            _ => 0,
        };
        Holder {
            kind,
            addr: slot.base,
            name: name.unwrap_or_default().to_owned(),
            type_addr,
            size: slot.size,
            is_key,
            call: call.map(|call| (call.site, call.stack)),
        }
    }
}

/// Without those that say little: on stacks, and in objects that may be dead. Where there are no
/// others, these.
fn lasting(references: &[Reference]) -> Vec<&Reference> {
    let lasting: Vec<&Reference> = references.iter().filter(|r| !r.is_new && !r.on_stack).collect();
    if lasting.is_empty() { references.iter().collect() } else { lasting }
}

/// The bytes that slices and strings reach of an object, given the size of its elements if that is
/// known; `None`: something else refers to it, or nothing.
fn reach(references: &[&Reference], elem: Option<u64>) -> Option<u64> {
    let mut ranges = Vec::new();
    for reference in references {
        let len = reference.len?;
        // A slice's capacity mostly reaches to the end of the array.
        let by_capacity = reference.cap.map_or(1, |cap| (reference.room / cap).max(1));
        let elem = elem.filter(|elem| *elem > 0).unwrap_or(by_capacity);
        let bytes = len.saturating_mul(elem).min(reference.room);
        ranges.push((reference.offset, reference.offset.saturating_add(bytes)));
    }
    ranges.sort_unstable();
    let (mut total, mut end) = (0_u64, 0);
    for (from, to) in &ranges {
        total = total.saturating_add(to.saturating_sub((*from).max(end)));
        end = end.max(*to);
    }
    (!ranges.is_empty()).then_some(total)
}

/// Whether two ways lead through objects of the same sort, and the same containers and variables.
fn is_same(a: &[Holder], b: &[Holder]) -> bool {
    let is_alike = |(a, b): (&Holder, &Holder)| {
        let is_placed = match a.kind {
            HolderKind::Global => a.addr == b.addr || a.name == b.name && !a.name.is_empty(),
            HolderKind::Map | HolderKind::Channel => a.addr == b.addr,
            _ => true,
        };
        let is_typed = if a.type_addr == 0 { a.size == b.size } else { true };
        a.kind == b.kind && a.type_addr == b.type_addr && a.is_key == b.is_key && is_placed && is_typed
    };
    a.len() == b.len() && a.iter().zip(b).all(is_alike)
}

/// What the tables of a map are made of: as the runtime says beside them, or who allocated them.
fn map_table(
    map: &found::Map,
    look: &Look,
    known: &Known<'_>,
    tables: &dyn Fn(u64) -> Option<MapTable>,
) -> Option<MapTable> {
    let told = look.table_types.get(&map.addr).copied();
    let seen = || map.tables.iter().map(|table| known.type_in(*table)).find(|type_addr| *type_addr != 0);
    tables(told.or_else(seen)?)
}

fn map_header(map: &found::Map, table: Option<&MapTable>, known: &Known<'_>) -> MapHeader {
    let call = map.tables.iter().find_map(|table| known.call(*table));
    MapHeader {
        addr: map.addr,
        count: map.count,
        capacity: map.capacity,
        bytes: map.table_bytes,
        key: table.map_or(0, |table| table.key),
        elem: table.map_or(0, |table| table.elem),
        call: call.map(|call| (call.site, call.stack)),
    }
}

fn channel_header(channel: &found::Channel) -> ChannelHeader {
    ChannelHeader {
        addr: channel.addr,
        count: channel.count,
        capacity: channel.capacity,
        elem_size: channel.elem_size,
        elem_type: channel.elem_type,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(offset: u64, len: u64, cap: u64) -> Reference {
        let cap = (cap > 0).then_some(cap);
        Reference { offset, room: 1000 - offset, len: Some(len), cap, is_new: false, on_stack: false }
    }

    #[test]
    fn slices_reach_what_they_cover_together() {
        let pointer = Reference { len: None, ..slice(0, 1, 0) };
        for (references, elem, want) in [
            (vec![slice(100, 16, 900)], None, Some(16)),
            // Strings overlap: 0 to 10 and 5 to 20.
            (vec![slice(0, 10, 0), slice(5, 15, 0)], None, Some(20)),
            // Elements of 8 bytes, as the capacity or the type says.
            (vec![slice(0, 10, 125)], None, Some(80)),
            (vec![slice(0, 10, 125)], Some(8), Some(80)),
            (vec![slice(0, 10, 10)], Some(8), Some(80)),
            (vec![slice(900, 90, 0)], Some(1 << 40), Some(100)),
            (vec![slice(0, 10, 0), pointer], None, None),
            (vec![], None, None),
        ] {
            let references: Vec<&Reference> = references.iter().collect();
            assert_eq!(reach(&references, elem), want, "{references:?} {elem:?}");
        }
    }

    #[test]
    fn what_passes_by_counts_only_where_there_is_nothing_else() {
        let lasts = slice(0, 10, 0);
        let (new, on_stack) = (Reference { is_new: true, ..lasts }, Reference { on_stack: true, ..lasts });
        assert_eq!(lasting(&[new, lasts, on_stack]), [&lasts]);
        assert_eq!(lasting(&[new, on_stack]), [&new, &on_stack]);
    }

    #[test]
    fn ways_to_one_place_are_one() {
        let object = Holder { type_addr: 7, size: 64, addr: 1, ..Holder::default() };
        let map = Holder { kind: HolderKind::Map, addr: 5, ..Holder::default() };
        let root = Holder { kind: HolderKind::Global, addr: 9, ..Holder::default() };
        let way = [object.clone(), map.clone(), root.clone()];
        let elsewhere = Holder { addr: 2, ..object.clone() };
        assert!(is_same(&way, &[elsewhere, map.clone(), root.clone()]));
        for other in [
            [Holder { type_addr: 8, ..object.clone() }, map.clone(), root.clone()],
            [object.clone(), Holder { addr: 6, ..map.clone() }, root.clone()],
            [object.clone(), Holder { is_key: Some(true), ..map.clone() }, root.clone()],
            [object, map, Holder { addr: 10, ..root }],
        ] {
            assert!(!is_same(&way, &other), "{other:?}");
        }
        assert!(!is_same(&way, &way[..2]));
    }
}
