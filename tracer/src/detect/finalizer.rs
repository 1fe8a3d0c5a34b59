//! Finalizers and cleanups that are not called: the goroutine that calls them is stuck and their
//! queue grows, or objects with a finalizer are never collected as they are in a cycle.

use super::census::{self, Rise};
use super::claim;
use super::held::{Held, MOST};
use super::{Case, function};
use crate::base::units::format_bytes;
use crate::event::{Census, GoroutineGroup, HolderKind, Way};
use crate::report::{Evidence, Finding, LeakKind, Severity};

/// A rise by fewer objects is no matter.
const LEAST: f64 = 50.0;

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let queued = |census: &Census| Some(census.finalizers.as_ref()?.queued? as f64);
    let stuck = Rise::of(case, census::series(case, queued)).filter(|rise| rise.grown() >= LEAST);
    if let Some(rise) = stuck {
        return vec![finding_of_queue(case, &rise)];
    }
    let types = case.state.census.iter().filter_map(|census| census.finalizers.as_ref());
    let types = census::keys(types.flat_map(|finalizers| &finalizers.types).map(|(addr, _)| *addr));
    types.into_iter().filter_map(|addr| finding_of_type(case, addr)).collect()
}

/// Those that are queued grow: somebody blocks the goroutine that calls them, or is too slow.
fn finding_of_queue(case: &Case<'_>, rise: &Rise) -> Finding {
    let runners = || {
        let finalizers = census::latest(case).and_then(|census| census.finalizers.as_ref());
        finalizers.into_iter().flat_map(|finalizers| &finalizers.runners)
    };
    let is_busy = |group: &&GoroutineGroup| group.state != "finalizer wait" && group.state != "cleanup wait";
    let stuck = runners().find(is_busy);
    let frames = stuck.map_or(Vec::new(), |group| census::frames(case, group));
    let place = frames.first().map_or("?", |frame| frame.function.as_str());
    let own = function(&frames);
    let types = types_with_finalizer(case);
    let is_such = |name: &str| types.iter().any(|known| known == name);
    let suspects = case.suspects.iter().filter(|suspect| is_such(&case.site(suspect).type_name));
    let sites: Vec<String> = suspects.clone().map(|suspect| case.site(suspect).id.clone()).collect();
    let queued = "and cleanups of dead objects wait to be called";
    let mut evidence = vec![rise.evidence("finalizers", queued)];
    if let Some(group) = stuck {
        evidence.push(Evidence::of(format!(
            "The goroutine that calls them stands in {place}, in state \"{}\"{}.",
            group.state,
            census::waited(group)
        )));
    }
    Finding {
        kind: LeakKind::Finalizer,
        severity: Severity::Critical,
        confidence: rise.confidence,
        site: sites.first().cloned(),
        growth_bytes_per_s: suspects.map(|suspect| suspect.trend.bytes_per_s).sum(),
        sites,
        summary: format!(
            "the goroutine that calls finalizers is stuck in {own}: {:.1} more objects each second wait for theirs",
            rise.per_s
        ),
        frames,
        evidence,
        advice:
            "A finalizer must not block: have it start a goroutine for what may take long, or better close \
                 objects explicitly, with defer."
                .into(),
        disproof:
            "The queue gets shorter again by itself: the finalizers are slow, and their objects are made in \
                   bursts."
                .into(),
    }
}

/// The site of the program itself that makes objects of such a type: one that is seen to grow, or
/// else that has most alive. Whoever uses a library's objects keeps them, and of these another
/// detector knows more.
fn maker_of(case: &Case<'_>, type_name: &str) -> Option<usize> {
    let held = Held::of(case);
    let is_it = |index: &usize| {
        let Some(site) = case.report.sites.get(*index) else { return false };
        let maker = site.frames.iter().find(|frame| !frame.function.starts_with("runtime."));
        let is_own = maker.is_some_and(|maker| census::innermost(&site.frames) == Some(&maker.function));
        site.type_name == type_name && is_own && !is_reachable(&held, *index)
    };
    let live = |index: &usize| case.report.sites.get(*index).and_then(|site| site.live_bytes);
    let alive = || (0..case.report.sites.len()).filter(is_it).max_by_key(live);
    case.suspects.iter().map(|suspect| suspect.site).find(is_it).or_else(alive)
}

/// Whether the objects of a site are known to be held by what is no object: then that keeps them,
/// and not their finalizers.
fn is_reachable(held: &Held<'_>, site: usize) -> bool {
    let is_held = |way: &Way| way.holders.iter().any(|holder| holder.kind != HolderKind::Object);
    held.share(site, is_held) >= MOST
}

/// The types of objects that have a finalizer.
fn types_with_finalizer(case: &Case<'_>) -> Vec<String> {
    let finalizers = census::latest(case).and_then(|census| census.finalizers.as_ref());
    let types = finalizers.into_iter().flat_map(|finalizers| &finalizers.types);
    types.filter_map(|(addr, _)| Some(case.state.types.get(addr)?.name.clone())).collect()
}

/// Objects of a type of the program itself that have a finalizer grow in number.
fn finding_of_type(case: &Case<'_>, addr: u64) -> Option<Finding> {
    let name = &case.state.types.get(&addr)?.name;
    let number = |census: &Census| {
        let types = &census.finalizers.as_ref()?.types;
        Some(types.iter().find(|(other, _)| *other == addr).map_or(0.0, |(_, count)| *count as f64))
    };
    let rise = Rise::of(case, census::series(case, number)).filter(|rise| rise.grown() >= LEAST)?;
    let index = maker_of(case, name)?;
    let site = case.report.sites.get(index)?;
    let suspect = case.suspects.iter().find(|suspect| suspect.site == index);
    let maker = function(&site.frames);
    let (_, others, explained) = census::explained(case, |site| function(&site.frames) == maker);
    let size = site.live_bytes.unwrap_or(0) as f64 / site.live_objects.unwrap_or(0).max(1) as f64;
    let growth = if explained > 0.0 { explained } else { rise.per_s * size };
    let mut sites = vec![site.id.clone()];
    sites.extend(others.into_iter().filter(|id| *id != site.id));
    let what = format!("of type {name} have a finalizer that was not called");
    let mut evidence = vec![rise.evidence("objects", &what)];
    evidence.extend(suspect.into_iter().flat_map(|suspect| claim::evidence(case, suspect)));
    Some(Finding {
        kind: LeakKind::Finalizer,
        severity: Severity::Critical,
        confidence: suspect.map_or(0.0, |suspect| suspect.confidence).max(rise.confidence),
        site: sites.first().cloned(),
        sites,
        frames: site.frames.clone(),
        growth_bytes_per_s: growth,
        summary: format!(
            "objects of type {name} that {maker} makes are never finalized: {:.1} more each second, {} with what they \
             refer to",
            rise.per_s,
            format_bytes(growth as u64)
        ),
        evidence,
        advice: "An object in a cycle of pointers that has a finalizer is never collected: set the finalizer \
                 (runtime.SetFinalizer, or runtime.AddCleanup from Go 1.24 on) on a small object of its own that \
                 points to none of the others, or close explicitly."
            .into(),
        disproof: "Something else holds the objects, as a map or a slice: then that is the leak, and finalizers are \
                   called once it lets go."
            .into(),
    })
}
