//! What was alive before a capture began, as the runtime's own heap profiler knew it.

use super::Frame;
use super::kind::is_runtime;
use super::snapshot::{Profile, SampledSite, Values};
use crate::event::{self, BaselineRow};
use crate::model::State;

/// The baseline of a capture, most bytes in use first; `None` when the profiler had no
/// samples, or was not asked.
pub(super) fn build(state: &State) -> Option<Profile> {
    let baseline = state.baseline.as_ref().filter(|baseline| !baseline.rows.is_empty())?;
    let sites = baseline.rows.iter().map(|row| site(state, row)).collect();
    Some(Profile::new(baseline.rate, sites))
}

fn site(state: &State, row: &BaselineRow) -> SampledSite {
    let mut frames = Vec::new();
    for (i, pc) in row.pcs.iter().enumerate() {
        let known = state.symbols.get(pc).map_or(&[][..], Vec::as_slice);
        // Calls that were inlined have an address of their own, but at the outer end of a
        // stack that was cut off.
        let count = if i + 1 < row.pcs.len() { 1 } else { known.len() };
        let address = pc.saturating_sub(1);
        frames.extend(known.iter().take(count).map(|f| frame(f, address)));
        if known.is_empty() {
            let unknown = event::Frame { function: format!("0x{pc:x}"), ..event::Frame::default() };
            frames.push(frame(&unknown, address));
        }
    }
    frames.retain(|f| f.function != "runtime.goexit");
    let hidden = frames.iter().position(|f| !is_runtime(&f.function)).unwrap_or(0);
    SampledSite {
        values: Values {
            inuse_objects: row.inuse_objects,
            inuse_bytes: row.inuse_bytes,
            alloc_objects: row.alloc_objects,
            alloc_bytes: row.alloc_bytes,
        },
        object_size: row.object_size,
        frames: frames.split_off(hidden),
    }
}

fn frame(f: &event::Frame, address: u64) -> Frame {
    Frame::of(f, address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Baseline, Event, Frame};

    fn named(function: &str, inlined: bool) -> Frame {
        Frame { function: function.into(), inlined, ..Frame::default() }
    }

    #[test]
    fn stacks_are_shown_from_the_programs_own_code_on() {
        let mut state = State::default();
        let row = |pcs: &[u64], bytes| BaselineRow {
            pcs: pcs.to_vec(),
            object_size: 48,
            inuse_objects: 2,
            inuse_bytes: bytes,
            ..BaselineRow::default()
        };
        // Two events: the rows of both count.
        for rows in [vec![row(&[1, 2, 3, 4], 96)], vec![row(&[9], 100)]] {
            state.apply(&Event::Baseline(Baseline { rate: 1024, rows }));
        }
        for (pc, frames) in [
            (1, vec![named("runtime.mallocgc", false)]),
            // An inlined call has an address of its own.
            (2, vec![named("main.inner", true), named("main.outer", false)]),
            (3, vec![named("main.outer", false)]),
            (4, vec![named("runtime.goexit", false)]),
        ] {
            state.apply(&Event::Symbol { pc, frames });
        }
        let profile = build(&state).expect("a baseline");
        assert_eq!((profile.rate, profile.totals.inuse_objects, profile.totals.inuse_bytes), (1024, 4, 196));
        let stacks: Vec<Vec<&str>> =
            profile.sites.iter().map(|s| s.frames.iter().map(|f| f.function.as_str()).collect()).collect();
        assert_eq!(stacks, [vec!["0x9"], vec!["main.inner", "main.outer"]]);
    }

    #[test]
    fn an_empty_baseline_is_none() {
        let mut state = State::default();
        assert_eq!(build(&state), None);
        state.apply(&Event::Baseline(Baseline { rate: 0, rows: Vec::new() }));
        assert_eq!(build(&state), None);
    }
}
