//! What a reader of a report must know before trusting its numbers.

use super::sites::Sums;
use super::{Capture, Report, Sampling, WindowSampling, overhead};
use crate::base::units::{format_bytes, format_count};
use crate::model::State;

/// Coverage under this is worth a note: less than one object in a thousand is missing.
const FULL_COVERAGE: f64 = 0.999;

/// The capture's own notes, then those that follow from the numbers.
pub(super) fn all(state: &State, report: &Report, sums: &Sums) -> Vec<String> {
    let mut notes = state.notes.clone();
    notes.extend(completeness(state, report));
    notes.extend(overhead::notes(report.capture.breaker, state.live.is_some()));
    notes.extend(report.capture.sampling.map(estimates));
    notes.extend(before_attach(state, report));
    notes.extend(loss(state));
    notes.extend(missed_cycles(report.capture.missed_gc_cycles));
    notes.extend(coverage(state, &report.capture));
    notes.extend(uncertain(state, sums));
    if state.tiny_fits > 0 {
        notes.push(
            "each tiny object (pointer-free, under 16 bytes) counts as one object; its bytes are those of \
             the 16-byte blocks opened for such objects, as in MemStats.Mallocs and TotalAlloc"
                .into(),
        );
    }
    notes.extend(life(state));
    notes
}

fn completeness(state: &State, report: &Report) -> Option<String> {
    if state.start.is_none() {
        return Some("capture is incomplete: its beginning is missing, so the target is not known".into());
    }
    state.end.is_none().then(|| {
        format!(
            "capture is incomplete: it has no end, the recorder was stopped short or the file was cut; \
             its last event is {:.3} s after the start",
            report.capture.duration_s
        )
    })
}

fn estimates(sampling: Sampling) -> String {
    let rate_bytes = match sampling {
        Sampling::Profiler { rate_bytes } => rate_bytes,
        Sampling::Windows(windows) => return windowed(windows),
    };
    let blocks = "of tiny objects (pointer-free, under 16 bytes) it samples the 16-byte blocks they share, each \
                  as one object of the site that opened it";
    match rate_bytes {
        1 => format!("the program's own heap profiler samples every object (MemProfileRate 1); {blocks}"),
        _ => format!(
            "all numbers are estimates, from the objects that the program's own heap profiler samples: one for \
             each {} allocated on average (MemProfileRate); error_bytes says how far a site's bytes may be \
             off; {blocks}",
            format_bytes(rate_bytes)
        ),
    }
}

fn windowed(sampling: WindowSampling) -> String {
    let WindowSampling { budget_percent, windows, open_percent, unattributed_bytes } = sampling;
    let unseen = match unattributed_bytes {
        None => "; the runtime's counters, by which they would be calibrated, were not read twice".into(),
        Some(0) => String::new(),
        Some(bytes) => format!(
            "; {} are of size classes of which no window has seen an object, and in no site",
            format_bytes(bytes)
        ),
    };
    format!(
        "all numbers are estimates, from the objects allocated in {} windows of time at random, open for \
         {open_percent:.2}% of it so as to cost the target no more than {budget_percent}% of its processor \
         time; error_bytes says how far a site's bytes may be off{unseen}",
        format_count(windows)
    )
}

fn before_attach(state: &State, report: &Report) -> Option<String> {
    let baseline = state.baseline.as_ref()?;
    if let Some(before) = &report.before_attach {
        let how = if before.rate > 1 { "estimated from samples" } else { "sampled" };
        return Some(format!(
            "{} objects with {} were alive before the capture, at the sites under before_attach: {how} by the \
             program's own heap profiler; no other numbers contain them",
            format_count(u64::try_from(before.totals.inuse_objects).unwrap_or(0)),
            format_bytes(u64::try_from(before.totals.inuse_bytes).unwrap_or(0)),
        ));
    }
    // A program that had not started has nothing to tell.
    let started = state.counters.as_ref().is_some_and(|(first, _)| first.objects > 0);
    (started && baseline.rate <= 0).then(|| {
        "what was alive before the capture is unknown: the program's heap profiler is off (MemProfileRate 0)"
            .into()
    })
}

/// What of the live numbers is uncertain, or why there are none.
fn life(state: &State) -> Vec<String> {
    let Some(live) = &state.live else {
        return vec![
            "objects are not followed after their allocation: live (pprof: inuse) objects and bytes \
             are not known"
                .into(),
        ];
    };
    let mut notes = Vec::new();
    let unjudged = state.gc_epochs.keys().filter(|epoch| !state.judged.contains_key(epoch)).count() as u64;
    match live.latest_judged() {
        None => notes.push(
            "no GC cycle ended during the capture, or none could be judged: which objects are alive is not \
             known; record for longer"
                .into(),
        ),
        Some(latest) => {
            let last = state.gc_epochs.last_key_value().map_or(latest, |(epoch, _)| *epoch);
            if last > latest {
                notes.push(format!(
                    "live objects are as of a GC cycle {} before the last one",
                    format_count(u64::from(last - latest))
                ));
            }
        }
    }
    if unjudged > 0 {
        notes.push(format!(
            "the marks of {} of {} GC cycles were not all read before the next: what died in these \
             counts as dead later, at a greater age",
            format_count(unjudged),
            format_count(state.gc_epochs.len() as u64)
        ));
    }
    if let Some((calls, rarest)) = live.sampled() {
        notes.push(format!(
            "--max-memory was reached: the objects of {} calls are followed one in up to {}; their live \
             and died numbers are estimates",
            format_count(calls as u64),
            format_count(rarest)
        ));
    }
    if live.unslotted() > 0 {
        let count = format_count(live.unslotted());
        notes.push(format!("objects not followed, as their size class is unknown: {count}"));
    }
    if state.lost.values().any(|lost| lost.0 > 0) {
        notes.push(
            "an object whose slot was used again by a lost allocation counts as alive in its stead".into(),
        );
    }
    notes
}

fn loss(state: &State) -> Vec<String> {
    let mut notes = Vec::new();
    let per_cpu = |pick: fn(&(u64, u64)) -> u64| {
        let counts: Vec<String> = state
            .lost
            .iter()
            .filter(|(_, lost)| pick(lost) > 0)
            .map(|(cpu, lost)| format!("{} on CPU {cpu}", format_count(pick(lost))))
            .collect();
        (!counts.is_empty()).then(|| counts.join(", "))
    };
    if let Some(counts) = per_cpu(|lost| lost.0) {
        notes.push(format!(
            "events were lost ({counts}): counts are lower bounds; record again with a larger --buffer"
        ));
    }
    if let Some(counts) = per_cpu(|lost| lost.1) {
        notes.push(format!("stacks were lost ({counts}): their allocations are counted without a call site"));
    }
    notes
}

fn missed_cycles(missed: u64) -> Option<String> {
    (missed > 0).then(|| {
        format!("{} GC cycles were missed, wholly or in part: their events were lost", format_count(missed))
    })
}

fn coverage(state: &State, capture: &Capture) -> Option<String> {
    let Some(coverage) = capture.coverage else {
        // Where they were never read, the recorder noted why.
        let read = state.counters.is_some();
        return read.then(|| "coverage is not known: the runtime's counters were not read twice".into());
    };
    // How well it was estimated is no matter of what was seen.
    if capture.sampling.is_some() {
        return None;
    }
    let worst = coverage.objects.min(coverage.bytes);
    let highest = coverage.objects.max(coverage.bytes);
    if worst < FULL_COVERAGE {
        return Some(format!(
            "only {:.2}% of the objects and {:.2}% of the bytes that the runtime counted were seen",
            100.0 * coverage.objects,
            100.0 * coverage.bytes
        ));
    }
    (highest > 2.0 - FULL_COVERAGE)
        .then(|| "more was seen than the runtime counted: its counters were read while they changed".into())
}

fn uncertain(state: &State, sums: &Sums) -> Vec<String> {
    let stack_loss_is_known = state.lost.values().any(|lost| lost.1 > 0);
    [
        (
            sums.sized_by_class,
            "objects whose requested size is known by size class only (requested_bytes holds the slot's)",
        ),
        (
            sums.unslotted_objects,
            "objects of unknown size class (the size asked for, if known, counts as bytes)",
        ),
        (sums.untyped_objects, "objects of a type that could not be read"),
        (sums.unknown_addresses, "return addresses without a symbol (shown as numbers)"),
        (
            if stack_loss_is_known { 0 } else { sums.stackless_objects },
            "objects whose stack is not in the capture",
        ),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{what}: {}", format_count(count)))
    .collect()
}
