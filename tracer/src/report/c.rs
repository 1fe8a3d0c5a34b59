//! What C allocates, by the call that asked for it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::sites::{Frame, Stacks};
use crate::event::StackId;
use crate::model::{State, median_slope};

/// Allocations by C code from one stack.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CSite {
    pub alloc_objects: u64,
    /// As asked for.
    pub alloc_bytes: u64,
    /// Those of these that were not freed.
    pub live_objects: u64,
    pub live_bytes: u64,
    /// How fast `live_bytes` grows: the median over all pairs of readings; `None`: they were
    /// read once at most.
    pub live_bytes_per_minute: Option<f64>,
    /// Innermost first: the C function that called the allocator, then the stack of the
    /// goroutine that called C; without the runtime's own functions between the two.
    pub frames: Vec<Frame>,
    /// `live_bytes` over time, as seconds since the capture began; no part of the JSON.
    #[serde(skip)]
    pub history: Vec<(f64, f64)>,
}

impl CSite {
    /// The C function that called the allocator, and the stack of the Go code that called C,
    /// without what cgo has generated; where there is none, all of the stack.
    pub fn by_and_for(&self) -> (&str, &[Frame]) {
        let by = self.frames.first().map_or("", |frame| &frame.function);
        // One address has as many frames as functions were inlined, and one more.
        let of_c = self.frames.iter().take_while(|frame| frame.inlined).count() + 1;
        let caller = self.frames.get(of_c..).unwrap_or_default();
        let is_of_cgo =
            |frame: &&Frame| frame.function.contains("._Cfunc_") || frame.function.contains("._cgo_");
        let caller = caller.get(caller.iter().take_while(is_of_cgo).count()..).unwrap_or_default();
        (by, if caller.is_empty() { &self.frames } else { caller })
    }
}

/// `None`: it was not asked for. Those with most bytes alive come first.
pub(super) fn build(state: &State, origin_ns: u64) -> Option<Vec<CSite>> {
    let heap = state.c.as_ref()?;
    let mut stacks = Stacks::new(state);
    let mut by_frames: BTreeMap<Vec<Frame>, ([u64; 4], Vec<StackId>)> = BTreeMap::new();
    for counted in heap.stacks() {
        let mut frames = stacks.named(counted.stack);
        frames.retain(|frame| !BETWEEN.contains(&&*frame.function));
        let (sums, ids) = by_frames.entry(frames).or_default();
        let amounts = [counted.objects, counted.bytes, counted.freed_objects, counted.freed_bytes];
        for (sum, amount) in sums.iter_mut().zip(amounts) {
            *sum = sum.wrapping_add(amount);
        }
        ids.push(counted.stack);
    }
    let site = |(frames, ([objects, bytes, freed_objects, freed_bytes], ids)): (_, ([u64; 4], Vec<_>))| {
        let point = |ns: u64| ns.wrapping_sub(origin_ns) as i64 as f64 / 1e9;
        let history =
            heap.history(&ids).iter().map(|(ns, bytes)| (point(*ns), *bytes as f64)).collect::<Vec<_>>();
        CSite {
            alloc_objects: objects,
            alloc_bytes: bytes,
            live_objects: objects.saturating_sub(freed_objects),
            live_bytes: bytes.saturating_sub(freed_bytes),
            live_bytes_per_minute: median_slope(&history).map(|per_second| 60.0 * per_second),
            frames,
            history,
        }
    };
    let mut sites: Vec<CSite> = by_frames.into_iter().map(site).collect();
    sites.sort_by_key(|site| std::cmp::Reverse((site.live_bytes, site.alloc_bytes)));
    Some(sites)
}

/// By these a goroutine calls C (runtime/cgocall.go, asm_amd64.s).
const BETWEEN: [&str; 2] = ["runtime.cgocall", "runtime.asmcgocall"];

#[cfg(test)]
mod tests {
    use super::*;

    fn site(functions: &[(&str, bool)]) -> CSite {
        let frame = |&(function, inlined): &(&str, bool)| Frame {
            function: function.into(),
            inlined,
            ..Frame::default()
        };
        CSite {
            alloc_objects: 0,
            alloc_bytes: 0,
            live_objects: 0,
            live_bytes: 0,
            live_bytes_per_minute: None,
            frames: functions.iter().map(frame).collect(),
            history: Vec::new(),
        }
    }

    #[test]
    fn the_go_code_that_called_c_is_told_apart() {
        let helper = [("pairs", true), ("_cgo_2ad_Cfunc_pairs", false), ("main._Cfunc_pairs", false)];
        let site_of_go = site(&[helper.as_slice(), &[("main.run", false)]].concat());
        let (by, caller) = site_of_go.by_and_for();
        assert_eq!((by, &*caller[0].function), ("pairs", "main.run"));
        let thread = site(&[("on_thread", false)]);
        let (by, caller) = thread.by_and_for();
        assert_eq!((by, &*caller[0].function), ("on_thread", "on_thread"));
        assert_eq!(site(&[]).by_and_for(), ("", &[][..]));
    }
}
