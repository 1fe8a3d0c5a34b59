//! Contexts that are never cancelled: the parent's set of children, and a timer, keep them.
//!
//! Looks for growing sites within package context: they are of contexts, of sets of children, or of
//! timers. Values on contexts are another matter.

use super::claim::{self, Words};
use super::{Case, Suspect, function};
use crate::base::units::format_count;
use crate::report::{Evidence, Finding, LeakKind, Site};

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let of_context: Vec<&Suspect> = case.suspects.iter().filter(|s| is_of_context(case.site(s))).collect();
    let function_of = |suspect: &Suspect| function(&case.site(suspect).frames);
    let mut by_function: Vec<(&str, Vec<&Suspect>)> = Vec::new();
    for &suspect in of_context.iter().filter(|suspect| is_context(case.site(suspect))) {
        let function = function_of(suspect);
        match by_function.iter_mut().find(|(known, _)| *known == function) {
            Some((_, suspects)) => suspects.push(suspect),
            None => by_function.push((function, vec![suspect])),
        }
    }
    let alive = |suspects: &[&Suspect]| -> u64 {
        suspects.iter().filter_map(|suspect| case.site(suspect).live_objects).sum()
    };
    by_function.sort_by_key(|(_, suspects)| std::cmp::Reverse(alive(suspects)));
    // Of timers that have been stopped the runtime keeps up to a quarter of all there are, with their
    // contexts (runtime/time.go `timers.adjust`): where many leak, some of others stay, too.
    if let Some(((_, most), others)) = by_function.split_first_mut() {
        let share = alive(most) / 3;
        others.iter_mut().filter(|(_, of)| alive(of) <= share).for_each(|(_, of)| most.append(of));
        by_function.retain(|(_, suspects)| !suspects.is_empty());
    }
    // The set of children grows for whoever comes next, be its context cancelled or not.
    for &suspect in of_context.iter().filter(|suspect| !is_context(case.site(suspect))) {
        let function = function_of(suspect);
        let own = by_function.iter().position(|(known, _)| *known == function).unwrap_or(0);
        if let Some((_, suspects)) = by_function.get_mut(own) {
            suspects.push(suspect);
        }
    }
    by_function.into_iter().filter_map(|(function, suspects)| finding(case, function, &suspects)).collect()
}

fn finding(case: &Case<'_>, function: &str, suspects: &[&Suspect]) -> Option<Finding> {
    let of_contexts: Vec<&Site> =
        suspects.iter().map(|suspect| case.site(suspect)).filter(|site| is_context(site)).collect();
    let alive: u64 = of_contexts.iter().filter_map(|site| site.live_objects).sum();
    let name = of_contexts.first().map_or("context.cancelCtx", |site| site.type_name.as_str());
    let words = Words {
        summary: format!(
            "contexts that {function} makes are never cancelled: {} more each second",
            claim::rate(suspects)
        ),
        evidence: vec![Evidence::of(format!("{} {name} are alive.", format_count(alive)))],
        advice: "Call the cancel function in any case: `ctx, cancel := context.WithTimeout(parent, d)` and then `defer \
                 cancel()`, not only when something fails (go vet's lostcancel finds those that are dropped).",
        disproof: "The contexts are of requests that are still under way, or end with their timeout before long.",
    };
    claim::finding(case, LeakKind::Context, suspects, words)
}

fn is_context(site: &Site) -> bool {
    ["cancelCtx", "timerCtx", "afterFuncCtx", "withoutCancelCtx", "stopCtx"]
        .iter()
        .any(|name| site.type_name.strip_prefix("context.") == Some(name))
}

/// Whether package context has allocated it, but for values.
fn is_of_context(site: &Site) -> bool {
    let is_inside = site.frames.iter().any(|frame| {
        frame.function.starts_with("context.With") || frame.function.starts_with("context.(*cancelCtx)")
    });
    is_context(site) || is_inside && site.type_name != super::context_value::VALUE
}
