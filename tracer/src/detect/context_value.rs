//! Values hung on contexts that live long: each `context.WithValue` keeps all before it.
//!
//! Looks for growing numbers of `context.valueCtx`, and at what these hold.

use super::claim::{self, Words};
use super::held::{self, Held};
use super::{Case, Suspect};
use crate::base::units::format_count;
use crate::report::{Evidence, Finding, LeakKind};

/// The type of a context with a value.
pub(super) const VALUE: &str = "context.valueCtx";

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let held = Held::of(case);
    let is_value = |suspect: &Suspect| case.site(suspect).type_name == VALUE;
    let Some(first) = case.suspects.iter().find(|suspect| is_value(suspect)) else { return Vec::new() };
    let is_held = |suspect: &Suspect| {
        held.share(suspect.site, |way| way.holders.iter().any(|holder| held.type_of(holder) == VALUE))
            >= held::MOST
    };
    let all: Vec<&Suspect> = case.suspects.iter().filter(|s| is_value(s) || is_held(s)).collect();
    let alive = case.site(first).live_objects.unwrap_or(0);
    let words = Words {
        summary: format!(
            "values pile up on contexts that {} makes: {} more each second",
            claim::place(case, first),
            claim::rate(&all)
        ),
        evidence: vec![Evidence::of(format!("{} {VALUE} are alive.", format_count(alive)))],
        advice: "Derive a context for each request or message from the one that lives long, and let it end with that; \
                 never store what context.WithValue returns where its parent came from.",
        disproof: "The contexts are of requests that are still under way.",
    };
    claim::finding(case, LeakKind::ContextValue, &all, words).into_iter().collect()
}
