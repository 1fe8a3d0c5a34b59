//! A program that leaks, one whose cache is at its bound, and one with too few GC cycles: what is
//! said of them, in every form.
//!
//! `UPDATE_EXPECT=1 cargo test -p tracer --test findings` re-blesses `tests/golden/`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use expect_test::expect_file;
use tracer::detect;
use tracer::event::*;
use tracer::export::flame::{Colours, FlameOptions};
use tracer::export::{findings, html, json, markdown};
use tracer::model::State;
use tracer::report::{LeakKind, Measure, Outcome, Report, Severity, StageName};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 5_000 * SECOND;
const SLOT: u64 = 4096;
/// Objects of each site and GC cycle.
const OBJECTS: u64 = 20;

/// Return address, and the function it lies in.
const SYMBOLS: [(u64, &str); 4] = [
    (0x40_1000, "runtime.newobject"),
    (0x48_0100, "main.(*Store).put"),
    (0x48_0200, "main.<b>answer</b>"),
    (0x48_0500, "main.main"),
];

/// Where an object of a site lies that was the n-th born in a cycle.
fn address(site: u64, cycle: u64, n: u64) -> u64 {
    0xc0_0000_0000 + (site << 32) + (cycle * OBJECTS + n) * SLOT
}

fn definitions() -> Vec<Event> {
    let target = Target {
        pid: 4711,
        exe: "/app/server".into(),
        go_version: "go1.26.6".into(),
        arch: "amd64".into(),
        ..Target::default()
    };
    let start = Start {
        time_ns: START,
        unix_ns: 1_767_225_600 * SECOND,
        mode: "exact".into(),
        target,
        ..Start::default()
    };
    let mut events = vec![Event::Start(start), Event::Follow { max_memory: 1 << 30 }];
    for (pc, function) in SYMBOLS {
        let frame =
            Frame { function: function.into(), file: "/app/main.go".into(), line: 7, ..Frame::default() };
        events.push(Event::Symbol { pc, frames: vec![frame] });
    }
    for (site, pc) in [(0, 0x48_0100), (1, 0x48_0200)] {
        events.push(Event::Stack { id: StackId(site), pcs: vec![0x40_1000, pc, 0x48_0500] });
    }
    let info = TypeInfo { name: "main.Item".into(), size: SLOT, ..TypeInfo::default() };
    events.push(Event::Type { addr: 0x4a_0000, info });
    events
}

/// A capture of so many GC cycles, two seconds apart. The first of two sites keeps its objects for
/// `kept` cycles, the other for none; what is alive is told in the runtime's words.
fn report(cycles: u64, kept: u64) -> Report {
    let mut state = State::default();
    definitions().iter().for_each(|event| state.apply(event));
    for cycle in 0..cycles {
        let begin_ns = START + 2 * cycle * SECOND;
        for (site, n) in (0..2).flat_map(|site| (0..OBJECTS).map(move |n| (site, n))) {
            state.apply(&Event::Alloc(Alloc {
                time_ns: begin_ns,
                ptr: address(site, cycle, n),
                size: SLOT,
                slot: SLOT,
                type_addr: 0x4a_0000,
                stack: StackId(site),
                epoch: cycle as u32,
                ..Alloc::default()
            }));
        }
        collect(&mut state, cycle, kept);
    }
    state.apply(&Event::End(End { time_ns: START + 2 * cycles * SECOND, reason: EndReason::Elapsed }));
    detect::report(&state)
}

/// A cycle that finds dead what is not kept any more.
fn collect(state: &mut State, cycle: u64, kept: u64) {
    let dead = |site, born: Option<u64>| {
        born.into_iter().flat_map(move |born| (0..OBJECTS).map(move |n| address(site, born, n)))
    };
    let slots = dead(0, cycle.checked_sub(kept)).chain(dead(1, Some(cycle))).collect();
    let (epoch, end_ns) = (cycle as u32 + 1, START + (2 * cycle + 1) * SECOND);
    let heap_marked = (4 << 20) + cycle.min(kept) * OBJECTS * SLOT;
    state.apply(&Event::GcEpoch { epoch, time_ns: end_ns });
    state.apply(&Event::GcCycle(GcCycle {
        cycle: epoch,
        epoch,
        time_ns: end_ns,
        sweep_term_ns: end_ns - 3_000_000,
        mark_ns: end_ns - 2_900_000,
        mark_term_ns: end_ns - 100_000,
        end_ns,
        heap_before: heap_marked + 2 * OBJECTS * SLOT,
        heap_after: heap_marked + 2 * OBJECTS * SLOT,
        heap_marked,
        heap_goal: 2 * heap_marked,
        gc_percent: 100,
        memory_limit: i64::MAX,
        max_procs: 4,
        ..GcCycle::default()
    }));
    state.apply(&Event::Deaths { epoch, slots });
    state.apply(&Event::Judged(Judged { epoch, time_ns: end_ns + 100_000, took_ns: 50_000, spans: 9 }));
}

fn printed(write: impl Fn(&mut Vec<u8>) -> tracer::base::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

const FOREVER: u64 = 1 << 20;

#[test]
fn a_leak_is_said_in_every_form() {
    let report = report(50, FOREVER);
    expect_file!["golden/findings.txt"].assert_eq(&printed(|out| findings::write(&report, out)));
    expect_file!["golden/findings.md"].assert_eq(&printed(|out| markdown::write(&report, out)));
    expect_file!["golden/findings.json"].assert_eq(&printed(|out| json::write(&report, out)));
    let options = FlameOptions { measure: Measure::LiveBytes, colours: Colours::Survival, inverted: false };
    let page = printed(|out| html::write(&report, options, out));
    let (_, from) = page.split_once("<section id=\"findings\"").unwrap();
    let (section, _) = from.split_once("</section>").unwrap();
    let lines = ["<article", "<li", "<p", "<figure", "<line", "<span"]
        .into_iter()
        .fold(section.to_owned(), |page, tag| page.replace(tag, &format!("\n{tag}")));
    expect_file!["golden/findings.html"].assert_eq(&lines);
}

#[test]
fn a_leak_is_one_finding_with_three_stages() {
    let report = report(50, FOREVER);
    let [finding] = report.findings.as_slice() else { panic!("{:?}", report.findings) };
    assert_eq!((finding.kind, finding.severity), (LeakKind::Growth, Severity::Critical));
    assert_eq!(finding.frames[0].function, "main.(*Store).put");
    let rate = (OBJECTS * SLOT) as f64 / 2.0;
    assert!((finding.growth_bytes_per_s / rate - 1.0).abs() < 0.05, "{}", finding.growth_bytes_per_s);
    let verdict = report.verdict.as_ref().unwrap();
    let stages: Vec<StageName> = verdict.stages.iter().map(|stage| stage.name).collect();
    assert_eq!(verdict.outcome, Outcome::Leak);
    assert_eq!(stages, [StageName::Before, StageName::Suspect, StageName::Leaking]);
    assert!(verdict.stages.is_sorted_by(|a, b| a.begin_s <= b.begin_s), "{:?}", verdict.stages);
}

#[test]
fn confidence_rises_with_time() {
    let confidence = |cycles| report(cycles, FOREVER).verdict.map(|verdict| verdict.confidence);
    assert!(confidence(60) > confidence(30));
    let outcome = |cycles| report(cycles, FOREVER).verdict.map(|verdict| verdict.outcome);
    assert_eq!(
        [outcome(4), outcome(12), outcome(30)],
        [Outcome::Unsure, Outcome::Unsure, Outcome::Leak].map(Some)
    );
}

#[test]
fn what_is_replaced_is_no_leak() {
    for kept in [5, 15, 25] {
        let report = report(60, kept);
        assert!(report.findings.is_empty(), "{kept}: {:?}", report.findings);
        assert_ne!(report.verdict.unwrap().outcome, Outcome::Leak, "{kept}");
    }
    assert_eq!(report(60, 25).verdict.unwrap().outcome, Outcome::CacheFull);
}

#[test]
fn few_cycles_are_said_to_be_few() {
    let verdict = report(5, FOREVER).verdict.unwrap();
    assert_eq!(verdict.outcome, Outcome::Unsure);
    assert!(verdict.summary.contains("too few GC cycles to judge; seen 5"), "{}", verdict.summary);
}
