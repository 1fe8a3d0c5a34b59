//! Maps whose keys are, or hold, pointers: each entry pins what its key points to.
//!
//! Looks at growing maps which hold a growing site's objects by their keys. Strings are no such keys:
//! what they point to is what they are.

use super::Case;
use super::claim::{self, Words};
use super::maps::growing;
use crate::report::{Finding, LeakKind};

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    growing(case)
        .into_iter()
        .filter_map(|growing| {
            let key = case.state.types.get(&growing.map.key);
            if !growing.by_key || key.is_some_and(|key| key.kind == "string") {
                return None;
            }
            let words = Words {
                summary: format!(
                    "the keys of {} keep alive what they point to: {} more each second",
                    growing.name,
                    claim::rate(&growing.suspects)
                ),
                evidence: growing.evidence,
                advice: "Use a key without pointers, as an ID or the struct's value, so that equal things share an \
                         entry; else delete(m, p) when p is done with, or use weak.Pointer keys (Go 1.24 on).",
                disproof: "The program needs what the keys point to for as long as the map is there, or deletes the \
                           entries later.",
            };
            claim::finding(case, LeakKind::MapPointerKey, &growing.suspects, words)
        })
        .collect()
}
