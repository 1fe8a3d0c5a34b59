//! Large arrays of which only a few bytes are still used: all that points to them are short slices
//! or strings.
//!
//! Looks at the references to the arrays that a growing site has allocated. How long a slice is stands
//! behind the pointer; a string in a struct can be mistaken for a pointer before a small number.

use super::claim::{self, Words};
use super::held::{self, Held};
use super::{Case, Suspect};
use crate::base::units::format_bytes;
use crate::report::{Evidence, Finding, Kind, LeakKind};

/// Arrays of fewer bytes are not worth a word.
const LEAST_SIZE: u64 = 256;
/// Of a retained array so much is used at most.
const USED: f64 = 0.25;

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let held = Held::of(case);
    case.suspects.iter().filter_map(|suspect| finding(case, &held, suspect)).collect()
}

fn finding(case: &Case<'_>, held: &Held<'_>, suspect: &Suspect) -> Option<Finding> {
    let is_array =
        matches!(case.site(suspect).kind, Kind::Makeslice | Kind::Growslice | Kind::String | Kind::Bytes);
    let sum = |amount: fn(&crate::event::Held) -> u64| held.of_site(suspect.site).map(amount).sum::<u64>();
    let (referenced, sliced) = (sum(|held| held.referenced), sum(|held| held.sliced));
    let size = sum(|held| held.sliced_bytes).checked_div(sliced)?;
    let reach = sum(|held| held.reach.saturating_mul(held.sliced)) / sliced;
    let is_retained = is_array
        && size >= LEAST_SIZE
        && sliced as f64 >= held::MOST * referenced as f64
        && reach as f64 <= USED * size as f64;
    if !is_retained {
        return None;
    }
    let interior = sum(|held| held.interior);
    let (size, reach) = (format_bytes(size), format_bytes(reach));
    let mut evidence = vec![Evidence::of(format!(
        "Of {referenced} arrays that were looked at, slices or strings are all that points to {sliced}: they \
         reach {reach} of {size}."
    ))];
    if interior > 0 {
        evidence.push(Evidence::of(format!("To {interior} of them everything points behind the start.")));
    }
    let words = Words {
        summary: format!(
            "a few bytes keep whole arrays alive that {} allocates: slices of {reach} hold {size} each, {} more \
             each second",
            claim::place(case, suspect),
            claim::rate(&[suspect])
        ),
        evidence,
        advice: "Copy what is kept: bytes.Clone(b[i:j]) or slices.Clone, strings.Clone(s[i:j]) for strings; then \
                 the large array can be freed.",
        disproof: "The slices that are kept are as long as the arrays, or something else needs the rest of these.",
    };
    claim::finding(case, LeakKind::SliceRetention, &[suspect], words)
}
