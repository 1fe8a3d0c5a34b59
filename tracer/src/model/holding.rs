//! Who holds objects, as of the latest look, and how maps and channels have filled over time.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;

use crate::event::{ChannelHeader, Held, HolderKind, Holders, MapHeader, SiteId, StackId, Way};

/// What all looks at the target's memory have found.
#[derive(Debug, Default)]
pub struct Holding {
    pub looks: u64,
    /// By call; those that were not looked at again stand as of the time before.
    pub held: HashMap<(SiteId, StackId, u64), HeldTrack>,
    /// By address.
    pub maps: BTreeMap<u64, Track<MapHeader>>,
    pub channels: BTreeMap<u64, Track<ChannelHeader>>,
}

/// What was found of the objects of a call over time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeldTrack {
    pub latest: Held,
    /// Of the looks before: a container that changes just then may not be recognised in one.
    before: VecDeque<Held>,
    /// When (CLOCK_MONOTONIC nanoseconds), and how large they were on average, in bytes.
    pub sizes: Vec<(u64, u64)>,
    /// Of all looks: objects that a global variable holds, and those of them in a `sync.Pool`. Others
    /// are in use by a goroutine.
    pub objects: u64,
    pub pooled: u64,
}

/// A container over time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Track<T> {
    pub latest: T,
    /// The number of the look that this is of.
    pub seen: u64,
    /// When (CLOCK_MONOTONIC nanoseconds), how many elements, and room for how many: of all the
    /// time it was seen, the farther back the fewer.
    pub points: Vec<(u64, u64, u64)>,
}

/// Looks before the latest whose ways are remembered.
const BEFORE: usize = 2;
/// Containers of each kind that are remembered, and points of each.
const CONTAINERS: usize = 256;
const POINTS: usize = 64;

impl Holding {
    pub(super) fn add(&mut self, holders: &Holders) {
        self.looks += 1;
        for held in &holders.held {
            let call = (held.site, held.stack, held.type_addr);
            self.held.entry(call).or_default().add(held, holders.time_ns);
        }
        for map in &holders.maps {
            let point = (holders.time_ns, map.count, map.capacity);
            self.maps.entry(map.addr).or_default().add(map, self.looks, point);
        }
        for channel in &holders.channels {
            let point = (holders.time_ns, channel.count, channel.capacity);
            self.channels.entry(channel.addr).or_default().add(channel, self.looks, point);
        }
        forget(&mut self.maps);
        forget(&mut self.channels);
    }
}

impl HeldTrack {
    fn add(&mut self, held: &Held, time_ns: u64) {
        let is_kept = |way: &&Way| way.holders.last().is_some_and(|last| last.kind == HolderKind::Global);
        let is_pooled = |way: &&Way| way.holders.iter().any(|holder| holder.kind == HolderKind::Pool);
        let kept = || held.ways.iter().filter(is_kept);
        let count = |sum: u64, way: &Way| sum.saturating_add(way.objects);
        self.objects = kept().fold(self.objects, count);
        self.pooled = kept().filter(is_pooled).fold(self.pooled, count);
        if let Some(size) = held.bytes.checked_div(held.objects) {
            self.sizes.push((time_ns, size));
            thin_out(&mut self.sizes);
        }
        let before = std::mem::replace(&mut self.latest, held.clone());
        self.before.push_back(before);
        if self.before.len() > BEFORE {
            self.before.pop_front();
        }
    }

    /// The ways up that the latest few looks found.
    pub fn ways(&self) -> impl Iterator<Item = &Way> {
        self.before.iter().chain([&self.latest]).flat_map(|held| &held.ways)
    }
}

impl<T: Clone> Track<T> {
    fn add(&mut self, latest: &T, look: u64, point: (u64, u64, u64)) {
        self.latest = latest.clone();
        self.seen = look;
        self.points.push(point);
        thin_out(&mut self.points);
    }
}

/// Leaves every other point, when there are too many; the latest one stays.
fn thin_out<T>(points: &mut Vec<T>) {
    if points.len() > POINTS {
        let mut number = 0;
        points.retain(|_| {
            number += 1;
            number % 2 == 1
        });
    }
}

/// Drops those not seen for longest, so that there are not too many.
fn forget<T>(tracks: &mut BTreeMap<u64, Track<T>>) {
    if tracks.len() <= CONTAINERS {
        return;
    }
    let mut seen: Vec<u64> = tracks.values().map(|track| track.seen).collect();
    seen.sort_unstable_by(|a, b| b.cmp(a));
    let least = seen.get(CONTAINERS - 1).copied().unwrap_or(0);
    let mut room = CONTAINERS;
    tracks.retain(|_, track| {
        let stays = track.seen >= least && room > 0;
        room -= usize::from(stays);
        stays
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Holder;

    #[test]
    fn the_fill_of_a_map_is_remembered_in_bounds() {
        let mut holding = Holding::default();
        for look in 1..=1000 {
            let map = MapHeader { addr: 8, count: look, capacity: 1024, ..MapHeader::default() };
            let passing = MapHeader { addr: 16 * look, ..MapHeader::default() };
            let [pool, global, stack] = [HolderKind::Pool, HolderKind::Global, HolderKind::Stack]
                .map(|kind| Holder { kind, ..Holder::default() });
            let way = |objects, holders| Way { objects, holders };
            let ways = vec![
                way(1, vec![pool, global.clone()]),
                way(2, vec![global]),
                way(7, vec![stack]),
                way(9, vec![]),
            ];
            let held = Held { objects: 19, bytes: 190 * look, ways, ..Held::default() };
            let (maps, held) = (vec![map, passing], vec![held]);
            holding.add(&Holders { time_ns: look, maps, held, ..Holders::default() });
        }
        let held = holding.held.values().next().expect("of the only call");
        assert_eq!((held.objects, held.pooled, held.sizes.last()), (3000, 1000, Some(&(1000, 10_000))));
        assert!(held.sizes.len() <= POINTS && held.ways().count() == 3 * held.latest.ways.len());
        let track = &holding.maps[&8];
        assert_eq!((track.latest.count, track.points.first()), (1000, Some(&(1, 1, 1024))));
        assert!(track.points.len() <= POINTS && track.points.len() > POINTS / 4);
        assert!(track.points.is_sorted());
        assert!(holding.maps.len() <= CONTAINERS && holding.maps.contains_key(&16_000));
    }
}
