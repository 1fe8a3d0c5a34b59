//! Memory that C allocates and does not free: the process grows, and the Go runtime does not.
//!
//! What is resident without a file behind it, less what the runtime holds, is not Go's. Where C's
//! allocator was followed, its objects tell which call they are for.

use super::Case;
use super::census::{self, Rise};
use crate::base::units::{format_bytes, format_count};
use crate::event::Census;
use crate::report::{CSite, Evidence, Finding, Frame, LeakKind, Severity};

/// Less is what libraries and threads need when they are first used.
const LEAST_OUTSIDE: f64 = (2 << 20) as f64;
const LEAST_OF_SITE: f64 = (64 << 10) as f64;
/// Of the growth of all resident memory that part which is not Go's.
const LEAST_SHARE: f64 = 0.25;
/// The calls that are named, those that grow fastest.
const MOST_SITES: usize = 5;

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let outside = outside(case);
    let Some(sites) = &case.report.c_sites else {
        return outside.map(|rise| unnamed(&rise, HUNT_AGAIN)).into_iter().collect();
    };
    let mut found: Vec<Finding> =
        sites.iter().filter_map(|site| of_site(case, site, outside.as_ref())).collect();
    found.sort_by(|a, b| b.growth_bytes_per_s.total_cmp(&a.growth_bytes_per_s));
    found.truncate(MOST_SITES);
    // Of an allocator that was followed to the end, and has not handed out what grows: else it is only
    // not yet known by which call.
    let of_malloc: f64 = sites.iter().filter_map(|site| Some(site.history.last()?.1)).sum();
    let is_other = |rise: &Rise| of_malloc < LEAST_SHARE * rise.grown();
    if found.is_empty() && case.state.tripped.is_none() {
        found.extend(outside.filter(is_other).map(|rise| unnamed(&rise, NOT_MALLOC)));
    }
    found
}

/// Resident memory that neither Go nor a file accounts for, if it rises, and is most of what does.
fn outside(case: &Case<'_>) -> Option<Rise> {
    let resident = |census: &Census| Some(census.memory.as_ref()?.rss_anon_bytes? as f64);
    let not_go = |census: &Census| {
        let memory = census.memory.as_ref()?;
        Some(resident(census)? - memory.sys.saturating_sub(memory.heap_released) as f64)
    };
    let rise = Rise::of(case, census::series(case, not_go))?;
    let all = census::series(case, resident);
    let grown = all.last()?.1 - all.first()?.1;
    (rise.grown() >= LEAST_OUTSIDE && rise.grown() >= LEAST_SHARE * grown).then_some(rise)
}

/// What to do where no call is named.
const HUNT_AGAIN: &str = "Hunt again with --cgo, which follows C's malloc and free and names the calls. Free with C.free what \
                          C.CString, C.CBytes and C.malloc return, mostly by a defer right behind the call, and call the \
                          library's own function where it is to free what it made.";
const NOT_MALLOC: &str = "C's malloc is not where it comes from: look for mmap and for allocators of their own in the C libraries, \
                          for threads that are created again and again, and for syscall.Mmap.";

fn unnamed(rise: &Rise, advice: &str) -> Finding {
    Finding {
        kind: LeakKind::Cgo,
        severity: Severity::Critical,
        confidence: rise.confidence,
        site: None,
        sites: Vec::new(),
        frames: Vec::new(),
        growth_bytes_per_s: rise.per_s,
        summary: format!(
            "memory that is not Go's grows: {} more each second",
            format_bytes(rise.per_s.max(0.0) as u64)
        ),
        evidence: vec![of_process(rise)],
        advice: advice.into(),
        disproof: "Resident memory less what the Go runtime holds stops growing under the same load.".into(),
    }
}

fn of_process(rise: &Rise) -> Evidence {
    rise.evidence("bytes", "are resident beyond what the Go runtime holds")
}

fn of_site(case: &Case<'_>, site: &CSite, outside: Option<&Rise>) -> Option<Finding> {
    let rise = Rise::of(case, site.history.clone()).filter(|rise| rise.grown() >= LEAST_OF_SITE)?;
    let (by, caller) = site.by_and_for();
    let caller = caller.first().map_or(by, |frame: &Frame| &frame.function);
    let rate = format_bytes(rise.per_s.max(0.0) as u64);
    let what = format!(
        "that C allocated for {caller} are not freed ({} of {} objects)",
        format_count(site.live_objects),
        format_count(site.alloc_objects)
    );
    let mut evidence = vec![rise.evidence("bytes", &what)];
    evidence.extend(outside.map(of_process));
    Some(Finding {
        kind: LeakKind::Cgo,
        severity: Severity::Critical,
        confidence: rise.confidence,
        site: None,
        sites: Vec::new(),
        frames: site.frames.clone(),
        growth_bytes_per_s: rise.per_s,
        summary: format!("C memory that {caller} asks for is never freed: {rate} more each second"),
        evidence,
        advice: format!(
            "Free what {caller} gets from C when it is done with: defer C.free(unsafe.Pointer(p)) right behind the \
             call that returned p, or the library's own function for that; Go's garbage collector does not."
        ),
        disproof:
            "C frees these objects after all, later than this capture lasted, or their bytes stop growing \
                   under the same load."
                .into(),
    })
}

#[cfg(test)]
mod tests {
    use crate::detect;
    use crate::event::{CCounted, CCounts, Census, Event, Frame, MemoryCensus, StackId, Start};
    use crate::model::State;
    use crate::report::{Finding, LeakKind};

    const SECOND: u64 = 1_000_000_000;
    const MIB: u64 = 1 << 20;

    /// What is found when after so many seconds so much is resident, and Go's.
    fn found(with_c: bool, resident: impl Fn(u64) -> u64, go: impl Fn(u64) -> u64) -> Vec<Finding> {
        let mut state = State::default();
        state.apply(&Event::Start(Start { time_ns: SECOND, ..Start::default() }));
        if with_c {
            state.apply(&Event::FollowC { library: "libc.so.6".into() });
        }
        for (pc, function) in (1..).zip(["_cgo_1_Cfunc_make", "main._Cfunc_make", "main.leak"]) {
            let frame = Frame { function: function.into(), ..Frame::default() };
            state.apply(&Event::Symbol { pc, frames: vec![frame] });
        }
        state.apply(&Event::Stack { id: StackId(9), pcs: vec![1, 2, 3] });
        for n in 0..60 {
            let memory = MemoryCensus {
                rss_anon_bytes: Some(resident(n)),
                sys: go(n) + 8 * MIB,
                heap_released: 8 * MIB,
                ..MemoryCensus::default()
            };
            let begin_ns = (1 + n) * SECOND;
            state.apply(&Event::Census(Census { begin_ns, memory: Some(memory), ..Census::default() }));
            let stacks = vec![CCounted {
                stack: StackId(9),
                objects: 10,
                bytes: (resident(n + 1) - resident(n)).saturating_sub(go(n + 1) - go(n)),
                ..CCounted::default()
            }];
            state.apply(&Event::CCounts(CCounts { time_ns: begin_ns, stacks }));
        }
        detect::report(&state).findings
    }

    #[test]
    fn what_c_does_not_free_is_named_with_its_caller() {
        let [leak] = &found(true, |n| (20 + n) * MIB, |_| 10 * MIB)[..] else { panic!("one leak") };
        assert_eq!((leak.kind, leak.frames[2].function.as_str()), (LeakKind::Cgo, "main.leak"));
        assert!(leak.summary.contains("main.leak asks for is never freed: 1.0 MiB more each second"));
        assert!(leak.confidence > 0.9 && leak.evidence.len() == 2, "{leak:?}");
    }

    #[test]
    fn without_its_allocator_only_that_c_grows_is_known() {
        let [leak] = &found(false, |n| (20 + n) * MIB, |_| 10 * MIB)[..] else { panic!("one leak") };
        assert_eq!((leak.kind, leak.frames.len()), (LeakKind::Cgo, 0));
        assert!(leak.advice.contains("--cgo"), "{leak:?}");
    }

    #[test]
    fn what_go_holds_or_what_has_stopped_growing_is_no_leak_of_c() {
        for with_c in [false, true] {
            let of_go = found(with_c, |n| (20 + n) * MIB, |n| (10 + n) * MIB);
            assert!(of_go.iter().all(|finding| finding.kind != LeakKind::Cgo), "{of_go:?}");
            let full = found(with_c, |n| (20 + n.min(15)) * MIB, |_| 10 * MIB);
            assert!(full.iter().all(|finding| finding.kind != LeakKind::Cgo), "{full:?}");
        }
    }
}
