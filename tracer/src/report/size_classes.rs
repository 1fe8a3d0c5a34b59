//! What was allocated by size class, as the runtime itself counted it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::State;

/// Objects of one size class between the first and the last reading of the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SizeClass {
    /// Of a slot, in bytes. 0: tiny objects that fitted a block that others had opened;
    /// `None`: objects too large for any class.
    pub size: Option<u64>,
    /// `None`: of large objects only the bytes are counted.
    pub objects: Option<u64>,
    pub bytes: u64,
}

/// By size, large objects last, without classes of which there was none; `None`: the counters
/// were not read twice, or not by class.
pub(super) fn build(state: &State) -> Option<Vec<SizeClass>> {
    let (first, last) = state.counters.as_ref()?;
    if first.end_ns >= last.begin_ns || last.by_slot.is_empty() {
        return None;
    }
    let before: BTreeMap<u64, u64> = first.by_slot.iter().copied().collect();
    let since = |&(size, objects): &(u64, u64)| {
        let objects = objects.saturating_sub(before.get(&size).copied().unwrap_or(0));
        SizeClass { size: Some(size), objects: Some(objects), bytes: objects.saturating_mul(size) }
    };
    let mut classes: Vec<SizeClass> =
        last.by_slot.iter().map(since).filter(|class| class.objects > Some(0)).collect();
    let large = last.large_bytes.saturating_sub(first.large_bytes);
    if large > 0 {
        classes.push(SizeClass { size: None, objects: None, bytes: large });
    }
    Some(classes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Counters, Event};

    #[test]
    fn classes_are_counted_between_the_readings() {
        let mut state = State::default();
        assert_eq!(build(&state), None);
        let counters = |end_ns, by_slot: &[(u64, u64)], large_bytes| {
            let by_slot = by_slot.to_vec();
            Event::Counters(Counters {
                begin_ns: end_ns,
                end_ns,
                by_slot,
                large_bytes,
                ..Counters::default()
            })
        };
        state.apply(&counters(1, &[(8, 5), (48, 10)], 100));
        assert_eq!(build(&state), None, "read once");
        state.apply(&counters(2, &[(0, 3), (8, 5), (48, 12)], 40_100));
        let class = |size, objects, bytes| SizeClass { size, objects, bytes };
        let expected = [class(Some(0), Some(3), 0), class(Some(48), Some(2), 96), class(None, None, 40_000)];
        assert_eq!(build(&state).as_deref(), Some(&expected[..]));
    }
}
