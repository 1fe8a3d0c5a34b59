//! Channels with large buffers that are filled faster than they are drained, or not drained at all.
//!
//! Looks at channels whose buffer holds the objects of growing sites, and how full it is over time.

use super::Case;
use super::claim::{self, Words};
use super::held::{self, Held};
use crate::event::HolderKind;
use crate::report::{Finding, LeakKind};

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let held = Held::of(case);
    let finding = |(addr, suspects): (u64, Vec<&super::Suspect>)| {
        let track = case.state.holding.channels.get(&addr)?;
        let is_full = track.latest.count.saturating_mul(2) >= track.latest.capacity;
        if held::has_grown(track) == Some(false) && !is_full {
            return None;
        }
        let main = suspects.first()?;
        let elem = case.state.types.get(&track.latest.elem_type).map_or("?", |info| info.name.as_str());
        let words = Words {
            summary: format!(
                "a chan {elem}{} is not drained: {} more each second wait in it",
                held.place(main.site, addr),
                claim::rate(&suspects)
            ),
            evidence: held::filling(case, track, "channel").into_iter().collect(),
            advice: "See to it that somebody receives as long as anybody sends: no return from `for v := range ch` at \
                     the first error; make the buffer small, and drop or refuse with `select { case ch <- v: default: }`.",
            disproof: "The channel is drained when the load falls, before its buffer is full.",
        };
        claim::finding(case, LeakKind::ChannelBacklog, &suspects, words)
    };
    held.containers(HolderKind::Channel).into_iter().filter_map(finding).collect()
}
