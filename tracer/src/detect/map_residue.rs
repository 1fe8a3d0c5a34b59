//! Tables of maps that were once full and are not any more: deleting keys frees none of a table.
//!
//! Looks at the headers of the maps whose tables a growing site has allocated; and at the largest
//! maps there are, which need not grow for their room to be wasted.

use super::claim::{self, Words};
use super::held::{self, Held};
use super::maps::type_name;
use super::{Case, Suspect};
use crate::base::units::{format_bytes, format_count};
use crate::event::MapHeader;
use crate::model::Track;
use crate::report::{Evidence, Finding, LeakKind, Severity};

/// A residue has room for so many times what is in it, and each map for so many entries.
const TIMES: u64 = 4;
const LEAST_ROOM: u64 = 64;
/// A map that does not grow has to have so many times the room, and so many bytes, in so many looks.
const TIMES_OF_ONE: u64 = 8;
const LEAST_BYTES: u64 = 4 << 20;
const LEAST_LOOKS: usize = 4;

const ADVICE: &str = "Drop the map when it is empty (m = nil, or a new map), or copy what is left into a new one now \
                      and then: a map's table never shrinks, whatever is deleted from it.";
const DISPROOF: &str = "The maps are soon as full again as they were: then the room is not wasted.";

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let held = Held::of(case);
    let growing = case.suspects.iter().filter_map(|suspect| growing(case, &held, suspect));
    growing.chain(case.state.holding.maps.values().filter_map(|track| standing(case, &held, track))).collect()
}

fn growing(case: &Case<'_>, held: &Held<'_>, suspect: &Suspect) -> Option<Finding> {
    let of_site = || held.of_site(suspect.site);
    let maps: u64 = of_site().map(|held| held.maps).sum();
    let count: u64 = of_site().map(|held| held.map_count).sum();
    let capacity: u64 = of_site().map(|held| held.map_capacity).sum();
    if maps == 0 || capacity < LEAST_ROOM.saturating_mul(maps) || capacity < TIMES.saturating_mul(count) {
        return None;
    }
    let words = Words {
        summary: format!(
            "maps that {} fills are emptied, but keep their tables: {} more each second",
            claim::place(case, suspect),
            claim::rate(&[suspect])
        ),
        evidence: vec![Evidence::of(format!(
            "{} maps whose tables were looked at hold {} entries, with room for {}.",
            format_count(maps),
            format_count(count),
            format_count(capacity)
        ))],
        advice: ADVICE,
        disproof: DISPROOF,
    };
    claim::finding(case, LeakKind::MapResidue, &[suspect], words)
}

/// A large map that has not been filled again in all the time.
fn standing(case: &Case<'_>, held: &Held<'_>, track: &Track<MapHeader>) -> Option<Finding> {
    let map = &track.latest;
    let fullest = track.points.iter().map(|point| point.1).max()?;
    let least_room = track.points.iter().map(|point| point.2).min()?;
    let is_residue = track.points.len() >= LEAST_LOOKS
        && track.seen == case.state.holding.looks
        && map.bytes >= LEAST_BYTES
        && least_room >= TIMES_OF_ONE.saturating_mul(fullest);
    if !is_residue {
        return None;
    }
    let site = map.call.and_then(|call| held.site_of_call(call));
    let wasted = format_bytes(map.bytes);
    Some(Finding {
        kind: LeakKind::MapResidue,
        severity: Severity::Warning,
        confidence: 0.8,
        site: site.map(|site| site.id.clone()),
        sites: site.iter().map(|site| site.id.clone()).collect(),
        frames: site.map(|site| site.frames.clone()).unwrap_or_default(),
        growth_bytes_per_s: 0.0,
        summary: format!("{} was emptied, but keeps tables of {wasted}", type_name(case, map)),
        evidence: held::filling(case, track, "map").into_iter().collect(),
        advice: ADVICE.into(),
        disproof: DISPROOF.into(),
    })
}
