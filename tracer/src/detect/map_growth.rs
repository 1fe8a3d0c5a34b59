//! Maps to which keys are only added: caches without eviction, registries nobody leaves, `sync.Map`.
//!
//! Looks at the maps that hold the objects of growing sites and at how full they are over time; of
//! `sync.Map`, which keeps its entries in a trie or in small maps, at who allocated these.

use super::claim::{self, Words};
use super::held::{self, Held};
use super::maps::growing;
use super::{Case, Suspect};
use crate::report::{Evidence, Finding, LeakKind, Site};

const ADVICE: &str = "Give the map a bound: delete(m, key) when an entry is done with or too old, or use a cache that \
                      evicts (an LRU, entries with a time to live).";
const DISPROOF: &str = "The map stops growing once all keys that there are have come; or entries are deleted later, as by \
                        a sweep that is rarer than this capture is long.";

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let maps = growing(case).into_iter().filter_map(|growing| {
        let words = Words {
            summary: format!(
                "{} gets ever fuller: {} more each second stay in it",
                growing.name,
                claim::rate(&growing.suspects)
            ),
            evidence: growing.evidence,
            advice: ADVICE,
            disproof: DISPROOF,
        };
        claim::finding(case, LeakKind::MapGrowth, &growing.suspects, words)
    });
    maps.chain(sync_map(case)).chain(tables(case)).collect()
}

/// The entries of all `sync.Map`s, and what these hold.
fn sync_map(case: &Case<'_>) -> Option<Finding> {
    let held = Held::of(case);
    let by_entry = |suspect: &Suspect| {
        held.share(suspect.site, |way| way.holders.iter().any(|h| held.site_of(h).is_some_and(is_sync_map)))
            >= held::MOST
    };
    let is_of_map = |suspect: &&Suspect| is_sync_map(case.site(suspect));
    let entries: Vec<&Suspect> = case.suspects.iter().filter(is_of_map).collect();
    let first = entries.first()?;
    let of_map = case.suspects.iter().filter(|suspect| is_of_map(suspect) || by_entry(suspect));
    let all: Vec<&Suspect> = of_map.collect();
    let words = Words {
        summary: format!(
            "a sync.Map that {} stores into gets ever fuller: {} more each second stay in it",
            claim::place(case, first),
            claim::rate(&all)
        ),
        evidence: vec![Evidence::of("The entries of the sync.Map itself are among what grows.")],
        advice: "Give the map a bound: Delete a key when its entry is done with or too old, or use a cache that evicts.",
        disproof: DISPROOF,
    };
    claim::finding(case, LeakKind::MapGrowth, &all, words)
}

fn is_sync_map(site: &Site) -> bool {
    site.frames.iter().any(|frame| {
        frame.function.starts_with("sync.(*Map).")
            || frame.function.starts_with("internal/sync.(*HashTrieMap")
    })
}

/// Where nobody has looked who holds anything: that tables of maps grow says it as well.
fn tables(case: &Case<'_>) -> Vec<Finding> {
    let is_table = |suspect: &&Suspect| {
        let name = case.site(suspect).type_name.as_str();
        ["map.group[", "map.bucket["]
            .iter()
            .any(|prefix| name.trim_start_matches("noalg.").starts_with(prefix))
    };
    if case.state.holding.looks > 0 {
        return Vec::new();
    }
    let finding = |suspect: &Suspect| {
        let words = Words {
            summary: format!(
                "the tables of a map grow that {} assigns to: {} more each second",
                claim::place(case, suspect),
                claim::rate(&[suspect])
            ),
            evidence: vec![Evidence::of("Who holds the objects was not looked at in this capture.")],
            advice: ADVICE,
            disproof: DISPROOF,
        };
        claim::finding(case, LeakKind::MapGrowth, &[suspect], words)
    };
    case.suspects.iter().filter(is_table).filter_map(finding).collect()
}
