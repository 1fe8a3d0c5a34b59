//! What is known of who holds the objects of a suspect, and of all that one container holds.

use hashbrown::HashMap;

use super::trend::{Point, fall};
use super::{Case, Suspect};
use crate::base::units::format_count;
use crate::event::{self, HolderKind, SiteId, StackId, Way};
use crate::model::{HeldTrack, State, Track};
use crate::report::{Evidence, Report, Series, Site};

/// From what share of a site's objects on a container is said to hold them.
pub(super) const MOST: f64 = 0.5;

/// What looks have found, by the site whose objects they looked at.
#[derive(Debug, Default)]
pub(super) struct BySite<'a> {
    tracks: HashMap<usize, Vec<&'a HeldTrack>>,
    sites: HashMap<(SiteId, StackId), usize>,
}

impl<'a> BySite<'a> {
    pub(super) fn of(state: &'a State, report: &Report) -> BySite<'a> {
        let mut by_site = BySite::default();
        if state.holding.looks == 0 {
            return by_site;
        }
        let mut by_index: HashMap<u32, usize> = HashMap::new();
        for (site, of_site) in report.sites.iter().enumerate() {
            by_index.extend(of_site.calls.iter().map(|call| (*call, site)));
        }
        let mut calls: HashMap<(SiteId, StackId, u64), usize> = HashMap::new();
        for sums in state.calls.iter() {
            if let Some(&site) = by_index.get(&sums.index) {
                calls.insert((sums.call.site, sums.call.stack, sums.call.type_addr), site);
                by_site.sites.insert((sums.call.site, sums.call.stack), site);
            }
        }
        let mut all: Vec<_> = state.holding.held.iter().collect();
        all.sort_unstable_by_key(|(call, _)| **call);
        for (call, of_call) in all {
            if let Some(&site) = calls.get(call) {
                by_site.tracks.entry(site).or_default().push(of_call);
            }
        }
        by_site
    }
}

/// Who holds what.
pub(super) struct Held<'a> {
    case: &'a Case<'a>,
}

impl<'a> Held<'a> {
    pub(super) fn of(case: &'a Case<'a>) -> Held<'a> {
        Held { case }
    }

    /// What the latest looks have found of the objects of a site, by call.
    pub(super) fn of_site(&self, site: usize) -> impl Iterator<Item = &'a event::Held> {
        self.tracks(site).iter().map(|track| &track.latest)
    }

    /// The same over time.
    pub(super) fn tracks(&self, site: usize) -> &[&'a HeldTrack] {
        self.case.held.tracks.get(&site).map_or(&[], Vec::as_slice)
    }

    /// The ways up from a site's objects, as the latest few looks found them.
    pub(super) fn ways(&self, site: usize) -> impl Iterator<Item = &'a Way> {
        self.tracks(site).iter().flat_map(|track| track.ways())
    }

    /// Of the objects of a site to which a way is known, the share of those with such a way.
    pub(super) fn share(&self, site: usize, is_such: impl Fn(&Way) -> bool) -> f64 {
        let (all, such) = self.ways(site).fold((0, 0), |(all, such), way| {
            (all + way.objects, such + if is_such(way) { way.objects } else { 0 })
        });
        if all == 0 { 0.0 } else { such as f64 / all as f64 }
    }

    /// The site that allocated a holder.
    pub(super) fn site_of(&self, holder: &event::Holder) -> Option<&'a Site> {
        self.site_of_call(holder.call?)
    }

    /// The site of a call that has objects alive.
    pub(super) fn site_of_call(&self, call: (SiteId, StackId)) -> Option<&'a Site> {
        self.case.report.sites.get(*self.case.held.sites.get(&call)?)
    }

    /// The type of a holder, as far as it is known.
    pub(super) fn type_of(&self, holder: &event::Holder) -> &'a str {
        let told = self.case.state.types.get(&holder.type_addr).map(|info| info.name.as_str());
        told.or_else(|| self.site_of(holder).map(|site| site.type_name.as_str())).unwrap_or_default()
    }

    /// Containers of a kind that hold most objects of a suspect, by address, with these suspects:
    /// those that grow fastest first.
    pub(super) fn containers(&self, kind: HolderKind) -> Vec<(u64, Vec<&'a Suspect>)> {
        let mut containers: Vec<(u64, Vec<&Suspect>)> = Vec::new();
        for suspect in &self.case.suspects {
            let Some(addr) = self.container_of(suspect, kind) else { continue };
            match containers.iter_mut().find(|(known, _)| *known == addr) {
                Some((_, of_container)) => of_container.push(suspect),
                None => containers.push((addr, vec![suspect])),
            }
        }
        containers
    }

    fn container_of(&self, suspect: &Suspect, kind: HolderKind) -> Option<u64> {
        let mut objects: HashMap<u64, u64> = HashMap::new();
        for way in self.ways(suspect.site) {
            for holder in way.holders.iter().filter(|holder| holder.kind == kind) {
                *objects.entry(holder.addr).or_default() += way.objects;
            }
        }
        let (&addr, _) = objects.iter().max_by_key(|(addr, objects)| (**objects, **addr))?;
        let holds = |way: &Way| way.holders.iter().any(|h| h.kind == kind && h.addr == addr);
        (self.share(suspect.site, holds) >= MOST).then_some(addr)
    }

    /// Where a container is, as far as that is known: `in main.cache`.
    pub(super) fn place(&self, site: usize, addr: u64) -> String {
        let of_container = |way: &&Way| way.holders.iter().any(|holder| holder.addr == addr);
        let Some(way) = self.ways(site).filter(of_container).max_by_key(|way| way.objects) else {
            return String::new();
        };
        let above = way.holders.iter().skip_while(|holder| holder.addr != addr).skip(1);
        let steps: Vec<String> = above.filter_map(|holder| self.step(holder)).collect();
        if steps.is_empty() { String::new() } else { format!(" in {}", steps.join(" of ")) }
    }

    fn step(&self, holder: &event::Holder) -> Option<String> {
        match holder.kind {
            HolderKind::Global if holder.name.is_empty() => {
                Some(format!("the global variable at {:#x}", holder.addr))
            }
            HolderKind::Global => Some(holder.name.clone()),
            HolderKind::Stack => Some("a goroutine's stack".into()),
            HolderKind::Map => Some("a map".into()),
            HolderKind::Channel => Some("a channel".into()),
            HolderKind::Pool => Some("a sync.Pool".into()),
            HolderKind::Object => {
                Some(self.type_of(holder)).filter(|name| !name.is_empty()).map(str::to_owned)
            }
        }
    }
}

/// How full a container was, over time.
pub(super) fn filling<T>(case: &Case<'_>, track: &Track<T>, what: &str) -> Option<Evidence> {
    let (first, last) = (track.points.first()?, track.points.last()?);
    let points = track.points.iter().map(|(ns, count, _)| (case.seconds(*ns), *count as f64)).collect();
    Some(Evidence {
        what: format!(
            "The {what} held {} elements and then {}, with room for {}.",
            format_count(first.1),
            format_count(last.1),
            format_count(last.2)
        ),
        series: Some(Series { name: format!("elements of the {what}"), unit: "elements".into(), points }),
    })
}

/// Whether a container has got ever fuller over all looks; `None`: it was seen only once.
///
/// What has fallen by an eighth of its range is emptied, too, as the load says.
pub(super) fn has_grown<T>(track: &Track<T>) -> Option<bool> {
    let points: Vec<Point> = track.points.iter().map(|(ns, count, _)| (*ns as f64, *count as f64)).collect();
    match points.as_slice() {
        [] | [_] => None,
        [first, .., last] => Some(8.0 * fall(&points) < last.1 - first.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_emptied_now_and_then_does_not_get_ever_fuller() {
        let track = |counts: &[u64]| Track {
            latest: (),
            seen: 0,
            points: counts.iter().zip(1..).map(|(count, ns)| (ns, *count, 8192)).collect(),
        };
        assert_eq!(has_grown(&track(&[5])), None);
        assert_eq!(has_grown(&track(&[500, 900, 880, 1400])), Some(true));
        // As two hunts saw the sessions of a service whose load goes up and down.
        assert_eq!(has_grown(&track(&[1004, 996, 2620, 2126, 3248])), Some(false));
        assert_eq!(has_grown(&track(&[596, 1616, 1348, 412, 1632, 3248])), Some(false));
        assert_eq!(has_grown(&track(&[7, 7])), Some(false));
    }
}
