//! Maps that get ever fuller, and what is in them: for the detectors of such.

use super::held::{self, Held};
use super::{Case, Suspect};
use crate::event::{HolderKind, MapHeader};
use crate::model::Track;
use crate::report::{Evidence, Kind};

/// A map has to have been seen so often before it is said not to grow.
const LEAST_LOOKS: usize = 3;

/// A map that grows, and the suspects whose objects it holds.
pub(super) struct Growing<'a> {
    pub(super) map: &'a MapHeader,
    pub(super) suspects: Vec<&'a Suspect>,
    /// Whether its keys are what holds the objects of the first of these.
    pub(super) by_key: bool,
    pub(super) evidence: Vec<Evidence>,
    /// `map[K]V` and where it is.
    pub(super) name: String,
}

/// All of them; those that hold what grows fastest first.
pub(super) fn growing<'a>(case: &'a Case<'a>) -> Vec<Growing<'a>> {
    let held = Held::of(case);
    let of_map = |(addr, suspects): (u64, Vec<&'a Suspect>)| {
        let track: &Track<MapHeader> = case.state.holding.maps.get(&addr)?;
        if held::has_grown(track) == Some(false) {
            return None;
        }
        let main = suspects.first()?;
        let by_key = held.share(main.site, |way| {
            way.holders.iter().any(|holder| {
                holder.kind == HolderKind::Map && holder.addr == addr && holder.is_key == Some(true)
            })
        });
        let name = format!("{}{}", type_name(case, &track.latest), held.place(main.site, addr));
        let evidence = held::filling(case, track, "map").into_iter().collect();
        Some(Growing { map: &track.latest, suspects, by_key: by_key >= held::MOST, evidence, name })
    };
    held.containers(HolderKind::Map).into_iter().filter_map(of_map).collect()
}

/// Sites of tables and the like of maps that do not get fuller: these are replaced, or are what
/// overflows until they are.
pub(super) fn steady(case: &Case<'_>) -> Vec<usize> {
    let held = Held::of(case);
    let is_steady = |addr: &u64| {
        let Some(track) = case.state.holding.maps.get(addr) else { return false };
        let (Some(first), Some(last)) = (track.points.first(), track.points.last()) else { return false };
        let is_steady = last.1 <= first.1 + first.1 / 20 || held::has_grown(track) == Some(false);
        // One that was emptied may be one of many.
        track.points.len() >= LEAST_LOOKS && is_steady && last.1 >= last.2 / 4
    };
    held.containers(HolderKind::Map)
        .into_iter()
        .filter(|(addr, _)| is_steady(addr))
        .flat_map(|(_, suspects)| suspects)
        .filter(|suspect| matches!(case.site(suspect).kind, Kind::Mapassign | Kind::Makemap))
        .map(|suspect| suspect.site)
        .collect()
}

/// `map[K]V`, or `a map` where its types are not known.
pub(super) fn type_name(case: &Case<'_>, map: &MapHeader) -> String {
    let name = |type_addr| case.state.types.get(&type_addr).map(|info| info.name.as_str());
    match (name(map.key), name(map.elem)) {
        (Some(key), Some(elem)) => format!("map[{key}]{elem}"),
        _ => "a map".into(),
    }
}
