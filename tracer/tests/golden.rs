//! One capture, through the file format, as every kind of report.
//!
//! `UPDATE_EXPECT=1 cargo test -p tracer --test golden` re-blesses `tests/golden/`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;

use expect_test::expect_file;
use regex::Regex;
use tracer::capture::{Reader, Writer};
use tracer::event::*;
use tracer::export::flame::{Colours, FlameOptions};
use tracer::export::{csv, diff, flame, folded, gc, html, json, perfetto, pprof, text};
use tracer::model::State;
use tracer::pprof::HeapProfile;
use tracer::report::diff::{Diff, DiffOptions, Per, Side};
use tracer::report::stream::Stream;
use tracer::report::timeline::Timeline;
use tracer::report::{Grouping, Measure, Report};
use tracer::source::Replay;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 5_000 * SECOND;

/// Function, file, line, and whether it is inlined into the next.
type SourceFrame = (&'static str, &'static str, u32, bool);

/// What stands at each return address.
const SYMBOLS: &[(u64, &[SourceFrame])] = &[
    (0x40_1000, &[("runtime.makeslice", "/go/src/runtime/slice.go", 117, false)]),
    (0x40_1100, &[("runtime.newobject", "/go/src/runtime/malloc.go", 2156, false)]),
    (0x40_1200, &[("runtime.growslice", "/go/src/runtime/slice.go", 265, false)]),
    (
        0x40_1300,
        &[
            ("runtime.rawstring", "/go/src/runtime/string.go", 325, true),
            ("runtime.rawstringtmp", "/go/src/runtime/string.go", 175, true),
            ("runtime.concatstrings", "/go/src/runtime/string.go", 50, false),
        ],
    ),
    (0x40_1310, &[("runtime.concatstring2", "/go/src/runtime/string.go", 60, false)]),
    (0x40_1400, &[("runtime.malg", "/go/src/runtime/proc.go", 5000, false)]),
    (0x40_1410, &[("runtime.newproc1", "/go/src/runtime/proc.go", 5100, false)]),
    (0x40_1420, &[("runtime.newproc.func1", "/go/src/runtime/proc.go", 5070, false)]),
    (0x40_1430, &[("runtime.systemstack", "/go/src/runtime/asm_amd64.s", 509, false)]),
    (0x40_1440, &[("runtime.newproc", "/go/src/runtime/proc.go", 5068, false)]),
    (0x40_1f00, &[("runtime.main", "/go/src/runtime/proc.go", 290, false)]),
    (0x40_1ff0, &[("runtime.goexit", "/go/src/runtime/asm_amd64.s", 1771, false)]),
    (
        0x48_0100,
        &[("main.newNode", "/app/tree.go", 12, true), ("main.(*Tree).Insert", "/app/tree.go", 30, false)],
    ),
    (0x48_0180, &[("main.(*Tree).Insert", "/app/tree.go", 34, false)]),
    (0x48_0200, &[("main.читать", "/app/чтение.go", 8, false)]),
    (0x48_0300, &[("main.Map[go.shape.struct { A int; B int }]", "/app/generic.go", 21, false)]),
    (0x48_0400, &[("main.serve", "/app/main.go", 40, false)]),
    (0x48_0480, &[("main.serve", "/app/main.go", 44, false)]),
    (0x48_0500, &[("main.main", "/app/main.go", 71, false)]),
];

const NODE: u64 = 0x4a_0000;
const BYTE: u64 = 0x4a_0100;
const CLOSURE: u64 = 0x4a_0200;
const G: u64 = 0x4a_0300;
const TAIL: [u64; 3] = [0x48_0500, 0x40_1f00, 0x40_1ff0];

/// (type, size, slot, innermost frames, objects); slots as an exact capture sees them.
const CALLS: &[(u64, u64, u64, &[u64], u64)] = &[
    (NODE, 40, 48, &[0x40_1100, 0x48_0100], 900),
    // The same line, called from elsewhere.
    (NODE, 40, 48, &[0x40_1100, 0x48_0100, 0x48_0180], 100),
    (NODE, 640, 704, &[0x40_1000, 0x48_0180], 10),
    (BYTE, 4096, 4096, &[0x40_1000, 0x48_0200], 12),
    (BYTE, 100, 112, &[0x40_1200, 0x48_0300], 50),
    (0, 11, 16, &[0x40_1300, 0x40_1310, 0x48_0400], 200),
    (0, 11, 0, &[0x40_1300, 0x40_1310, 0x48_0400], 100),
    // Go 1.27: a leaf called directly, its size and type decoded from the call.
    (0, 0, 24, &[0x48_0480], 70),
    (G, 440, 448, &[0x40_1400, 0x40_1410, 0x40_1420, 0x40_1430, 0x40_1440, 0x48_0480], 3),
    // In a library that is not symbolised.
    (0xbad, 64, UNKNOWN_SLOT, &[0x7f00_0000_1234], 1),
];

fn start() -> Event {
    let map =
        Mapping { start: 0x40_0000, end: 0x49_0000, offset: 0, executable: true, path: "/app/server".into() };
    Event::Start(Start {
        heaptap_version: "0.1.0".into(),
        time_ns: START,
        unix_ns: 1_767_225_600 * SECOND,
        mode: "exact".into(),
        sampling_rate: None,
        budget_percent: None,
        target: Target {
            pid: 4711,
            exe: "/app/server".into(),
            build_id: Some("9f86d081884c7d65".into()),
            go_version: "go1.26.6".into(),
            arch: "amd64".into(),
            maps: vec![map],
            ..Target::default()
        },
    })
}

fn definitions() -> Vec<Event> {
    let mut events: Vec<Event> = SYMBOLS
        .iter()
        .map(|(pc, frames)| Event::Symbol {
            pc: *pc,
            frames: frames
                .iter()
                .map(|&(function, file, line, inlined)| Frame {
                    function: function.into(),
                    file: file.into(),
                    line,
                    inlined,
                    wrapper: false,
                })
                .collect(),
        })
        .collect();
    for (addr, name, size, ptr_bytes) in [
        (NODE, "main.Node", 40, 24),
        (BYTE, "uint8", 1, 0),
        (CLOSURE, "struct { F uintptr; X0 *main.Tree }", 16, 16),
        (G, "runtime.g", 440, 400),
    ] {
        let info = TypeInfo { name: name.into(), size, ptr_bytes, ..TypeInfo::default() };
        events.push(Event::Type { addr, info });
    }
    events.push(Event::Inferred(Inferred {
        site: SiteId(0),
        stack: StackId(7),
        type_addr: Some(CLOSURE),
        size: Some(24),
    }));
    events
}

fn allocations() -> Vec<Event> {
    let mut events = Vec::new();
    let mut time_ns = START + SECOND / 2;
    for (i, (type_addr, size, slot, inner, objects)) in CALLS.iter().enumerate() {
        let stack = StackId(i as u64);
        events.push(Event::Stack { id: stack, pcs: inner.iter().chain(&TAIL).copied().collect() });
        for n in 0..*objects {
            time_ns += 1_000_000;
            events.push(Event::Alloc(Alloc {
                time_ns,
                ptr: address(i, n),
                size: *size,
                slot: *slot,
                type_addr: *type_addr,
                stack,
                goroutine: 1 + n % 3,
                site: SiteId(0),
                epoch: u32::from(i > 4),
                cpu: (n % 2) as u32,
            }));
        }
        if i == 4 {
            events.extend(collection(1, time_ns, |i, n| i < 3 && n % 3 == 0));
            // The goroutines whose next allocations are the first and second of the next call.
            for (goroutine, length) in [(1, 90_000), (1, 40_000), (2, 10_000)] {
                events.push(Event::Assist(Assist { goroutine, begin_ns: time_ns, end_ns: time_ns + length }));
            }
        }
    }
    events.extend(collection(2, time_ns + SECOND, |i, n| i == 5 && n % 4 == 1));
    events.push(Event::GcEpoch { epoch: 3, time_ns: time_ns + 2 * SECOND });
    events
}

/// Where the n-th object of a call lies. Tiny ones that fit lie in the blocks of the call
/// before.
fn address(call: usize, n: u64) -> u64 {
    let base = |call: usize| 0xc0_0000_0000 + ((call as u64) << 24);
    match CALLS[call].2 {
        0 => base(call - 1) + 16 * n + 12,
        UNKNOWN_SLOT => base(call),
        slot => base(call) + n / (8192 / slot) * 8192 + n % (8192 / slot) * slot,
    }
}

/// What the user has marked: a function, once with its end, once unwound; and a line.
fn marks(time_ns: u64) -> Vec<Event> {
    let info = |name: &str, begins: &[u16], ends: &[u16]| MarkInfo {
        name: name.into(),
        is_region: !ends.is_empty(),
        begins: begins.iter().copied().map(SiteId).collect(),
        ends: ends.iter().copied().map(SiteId).collect(),
    };
    let infos = vec![info("main.serve", &[1], &[2, 3]), info("main.serve:44", &[4], &[])];
    let mark = |site, after, depth| {
        let (site, time_ns) = (SiteId(site), time_ns + after);
        Event::Mark(Mark { site, time_ns, goroutine: 18, depth })
    };
    let passed = [mark(1, 0, 96), mark(4, 1000, 96), mark(1, 2000, 200), mark(3, 250_000, 96)];
    std::iter::once(Event::Marks(infos)).chain(passed).collect()
}

/// A cycle whose marking ended at `time_ns`, the stops of the world it took, and what died.
fn collection(epoch: u32, time_ns: u64, dead: impl Fn(usize, u64) -> bool) -> [Event; 6] {
    let objects = (0..CALLS.len()).flat_map(|i| (0..CALLS[i].4).map(move |n| (i, n)));
    let slots = objects.filter(|&(i, n)| dead(i, n)).map(|(i, n)| address(i, n)).collect();
    let phase = |before: u64| time_ns - before;
    let stop =
        |reason: &str, begin_ns, end_ns| Event::Stw(Stw { reason: Some(reason.into()), begin_ns, end_ns });
    let forced = epoch == 2;
    let cycle = GcCycle {
        cycle: 30 + epoch,
        epoch,
        time_ns: time_ns + 90_000,
        forced,
        trigger: Some(if forced { GcTrigger::Cycle } else { GcTrigger::Heap }),
        leak_check: false,
        init_ns: START - 60 * SECOND,
        sweep_term_ns: phase(2_345_678),
        mark_ns: phase(2_300_000),
        mark_term_ns: phase(20_000),
        end_ns: time_ns + 12_345,
        assist_ns: 110_000,
        dedicated_ns: 1_900_000,
        fractional_ns: 0,
        idle_ns: 450_000,
        cpu_percent: 1,
        stw_procs: 4,
        max_procs: 4,
        heap_before: 6_100_000,
        heap_after: 6_400_000,
        heap_marked: 3_200_000,
        heap_live: 3_210_000,
        heap_goal: 6_500_000,
        stack_scan: 70_000,
        globals_scan: 110_000,
        gc_percent: if forced { -1 } else { 100 },
        memory_limit: if forced { 64 << 20 } else { i64::MAX },
    };
    [
        stop("GC sweep termination", phase(2_345_000), phase(2_300_500)),
        Event::GcEpoch { epoch, time_ns },
        stop("GC mark termination", phase(19_000), time_ns + 13_000),
        Event::GcCycle(cycle),
        Event::Deaths { epoch, slots },
        Event::Judged(Judged { epoch, time_ns: time_ns + 100_000, took_ns: 50_000, spans: 9 }),
    ]
}

fn counters(time_ns: u64, objects: u64, bytes: u64) -> Event {
    let by_slot = vec![(0, objects / 10), (48, objects - objects / 10)];
    Event::Counters(Counters {
        begin_ns: time_ns,
        end_ns: time_ns + 1000,
        objects,
        bytes,
        by_slot,
        large_bytes: 0,
    })
}

fn capture() -> Vec<u8> {
    let objects: u64 = CALLS.iter().map(|call| call.4).sum();
    let sites = vec![SiteInfo { function: "runtime.mallocgc".into(), offset: 0xda }];
    let mut events = vec![
        start(),
        Event::Sites(sites),
        Event::Follow { max_memory: 1 << 30 },
        counters(START + SECOND / 4, 1000, 64000),
    ];
    events.extend(definitions());
    events.extend(allocations());
    for (second, goroutines) in [(2, 12), (3, 14)] {
        let rss_bytes = Some(90 << 20);
        let time_ns = START + second * SECOND;
        events.push(Event::Gauges(Gauges { time_ns, goroutines: Some(goroutines), rss_bytes }));
    }
    for (name, begin_s) in [("warm-up", 1), ("load <test>", 4)] {
        events.push(Event::Phase(Phase { name: name.into(), begin_ns: START + begin_s * SECOND }));
    }
    events.extend(marks(START + 8 * SECOND));
    events.push(Event::Lost { cpu: 1, events: 2, stacks: 0 });
    events.push(counters(START + 9 * SECOND, 1000 + objects + 2, 64000 + 116_128));
    events.push(Event::Cost(Cost { hits: 1460, trap_ns: 930, cpu_ns: 4 * SECOND }));
    events.push(Event::Note("the type at one site was decoded from the machine code".into()));
    events.push(Event::End(End { time_ns: START + 10 * SECOND, reason: EndReason::Interrupted }));
    let mut writer = Writer::new(Vec::new(), "memory").unwrap();
    for chunk in events.chunks(500) {
        chunk.iter().for_each(|event| writer.write(event).unwrap());
        writer.flush().unwrap();
    }
    writer.finish().unwrap()
}

fn report(file: &[u8]) -> Report {
    let mut state = State::default();
    for event in Replay::new(Reader::new(file, "memory").unwrap()) {
        state.apply(&event.unwrap());
    }
    tracer::detect::report(&state)
}

fn printed(write: impl Fn(&mut Vec<u8>) -> tracer::base::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn text() {
    let mut report = report(&capture());
    let options = text::TableOptions::default();
    expect_file!["golden/report.txt"].assert_eq(&printed(|out| text::write(&report, &options, out)));

    let options =
        text::TableOptions { sort: Measure::AllocObjects, grouping: Grouping::Line, limit: Some(3) };
    expect_file!["golden/lines.txt"].assert_eq(&printed(|out| text::write(&report, &options, out)));

    report.retain(&Regex::new("Tree").unwrap());
    let options = text::TableOptions { sort: Measure::LiveBytes, ..Default::default() };
    expect_file!["golden/filtered.txt"].assert_eq(&printed(|out| text::write(&report, &options, out)));
}

#[test]
fn timeline() {
    let report = report(&capture());
    expect_file!["golden/gc.txt"].assert_eq(&printed(|out| gc::write(&report, None, out)));
    let latest = printed(|out| gc::write(&report, Some(1), out));
    assert!(latest.contains("after 2 earlier ones") && !latest.contains("31 "), "{latest}");
}

#[test]
fn json() {
    expect_file!["golden/report.json"].assert_eq(&printed(|out| json::write(&report(&capture()), out)));
}

#[test]
fn comma_separated() {
    let report = report(&capture());
    expect_file!["golden/report.csv"].assert_eq(&printed(|out| csv::write(&report, out)));
}

#[test]
fn flame_graphs() {
    let report = report(&capture());
    for (file, measure, colours, inverted) in [
        (expect_file!["golden/report.svg"], Measure::AllocBytes, Colours::Package, false),
        (expect_file!["golden/inverted.svg"], Measure::LiveObjects, Colours::Survival, true),
    ] {
        let options = FlameOptions { measure, colours, inverted };
        file.assert_eq(&printed(|out| flame::write(&report, options, out)));
    }
    let none = Report::default();
    let options = FlameOptions { measure: Measure::LiveBytes, colours: Colours::Package, inverted: false };
    let error = flame::write(&none, options, &mut Vec::new()).unwrap_err();
    assert!(error.hint_text().is_some_and(|hint| hint.contains("--sort")), "{error}");
}

#[test]
fn pages() {
    let options = FlameOptions { measure: Measure::AllocBytes, colours: Colours::Package, inverted: false };
    let page = printed(|out| html::write(&report(&capture()), options, out));
    let page = ["style", "script"].into_iter().fold(page, emptied);
    // A line for each row, to be read and compared.
    let page =
        ["<section", "<tr>", "<g>"].into_iter().fold(page, |p, tag| p.replace(tag, &format!("\n{tag}")));
    expect_file!["golden/report.html"].assert_eq(&page);
}

/// Without what stands in the only element of this name.
fn emptied(page: String, element: &str) -> String {
    let (before, rest) = page.split_once(&format!("<{element}>")).unwrap();
    let (_, after) = rest.split_once(&format!("</{element}>")).unwrap();
    format!("{before}<{element}></{element}>{after}")
}

#[test]
fn folded() {
    let report = report(&capture());
    expect_file!["golden/report.folded"]
        .assert_eq(&printed(|out| folded::write(&report, Measure::AllocBytes, out)));
}

/// Of a Perfetto trace, the fields that are messages: numbers from the outermost on.
const MESSAGES: &[&str] = &["1", "1.6", "1.6.1", "1.11", "1.11.4", "1.60", "1.60.3", "1.60.8"];

/// Prints protobuf fields as `protoc --decode_raw` does, a line each.
fn print_fields(mut bytes: &[u8], message: &str, indent: usize, text: &mut String) {
    let margin = " ".repeat(indent);
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let path = format!("{message}{}", key >> 3);
        let value = varint(&mut bytes);
        if key & 7 == 0 {
            text.push_str(&format!("{margin}{}: {value}\n", key >> 3));
            continue;
        }
        assert_eq!(key & 7, 2, "neither a number nor bytes at {path}");
        let (field, rest) = bytes.split_at(value as usize);
        bytes = rest;
        if MESSAGES.contains(&&*path) {
            text.push_str(&format!("{margin}{} {{\n", key >> 3));
            print_fields(field, &format!("{path}."), indent + 2, text);
            text.push_str(&format!("{margin}}}\n"));
        } else {
            text.push_str(&format!("{margin}{}: {:?}\n", key >> 3, std::str::from_utf8(field).unwrap()));
        }
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let end = 1 + bytes.iter().position(|byte| byte & 0x80 == 0).unwrap();
    let (taken, rest) = bytes.split_at(end);
    *bytes = rest;
    taken.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
}

#[test]
fn perfetto_traces() {
    let mut timeline = Timeline::default();
    for event in Replay::new(Reader::new(capture().as_slice(), "memory").unwrap()) {
        timeline.apply(&event.unwrap());
    }
    let mut trace = Vec::new();
    perfetto::write(&report(&capture()), &timeline, &mut trace).unwrap();
    let mut text = String::new();
    print_fields(&trace, "", 0, &mut text);
    expect_file!["golden/report.perfetto.txt"].assert_eq(&text);
}

/// As if a summary were due with every 400th event.
#[test]
fn stream() {
    let mut state = State::default();
    let mut stream = Stream::default();
    let mut lines = Vec::new();
    for (number, event) in Replay::new(Reader::new(capture().as_slice(), "memory").unwrap()).enumerate() {
        let event = event.unwrap();
        state.apply(&event);
        lines.extend(stream.line(&event, &state));
        if number % 400 == 399 || matches!(event, Event::Cost(_)) {
            let (line, told) = stream.summary(&state, state.latest_ns, 0);
            stream.told(told);
            lines.push(line);
        }
    }
    let text: String = lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
    expect_file!["golden/stream.jsonl"].assert_eq(&text);
}

#[test]
fn the_same_capture_gives_the_same_bytes() {
    let file = capture();
    for write in [
        |report: &Report, out: &mut Vec<u8>| json::write(report, out),
        |report: &Report, out: &mut Vec<u8>| pprof::write(report, out),
        |report: &Report, out: &mut Vec<u8>| gc::write(report, None, out),
    ] {
        let mut outs = [Vec::new(), Vec::new()];
        for out in &mut outs {
            write(&report(&file), out).unwrap();
        }
        assert_eq!(outs[0], outs[1]);
    }
}

#[test]
fn pprof_is_gzip_with_the_names_inside() {
    let mut out = Vec::new();
    pprof::write(&report(&capture()), &mut out).unwrap();
    let mut profile = Vec::new();
    flate2::read::GzDecoder::new(out.as_slice()).read_to_end(&mut profile).unwrap();
    for name in [
        "alloc_objects",
        "inuse_space",
        "main.(*Tree).Insert",
        "/app/tree.go",
        "main.Node",
        "9f86d081884c7d65",
    ] {
        assert!(profile.windows(name.len()).any(|w| w == name.as_bytes()), "{name}");
    }
}

#[test]
fn a_killed_recorder_leaves_a_report_that_says_so() {
    let file = capture();
    let report = report(&file[..file.len() * 9 / 10]);
    let notes = report.capture.notes.join("\n");
    assert!(notes.contains("ends inside a frame"), "{notes}");
    assert!(notes.contains("capture is incomplete: it has no end"), "{notes}");
    assert!(report.capture.coverage.is_none());
    assert!(report.totals.alloc_objects > 900);
}

/// Another capture of the program, as a pprof profile: a site is gone, one is new, one has moved
/// by two lines and doubled, and one has shrunk.
fn profile_of_another() -> HeapProfile {
    let mut other = report(&capture());
    other.sites.retain(|site| !site.frames[0].function.starts_with("main.Map"));
    for site in &mut other.sites {
        match site.frames[0].function.as_str() {
            "main.читать" => {
                site.frames[0].line += 2;
                site.alloc_objects *= 2;
                site.alloc_bytes *= 2;
                site.live_bytes = site.live_bytes.map(|bytes| bytes * 2);
            }
            "main.newNode" => site.live_objects = site.live_objects.map(|objects| objects / 3),
            _ => {}
        }
    }
    let mut new = other.sites[0].clone();
    new.frames[0].function = "main.новый".into();
    other.sites.push(new);
    let mut out = Vec::new();
    pprof::write(&other, &mut out).unwrap();
    HeapProfile::read(out.as_slice()).unwrap()
}

fn compared(options: DiffOptions) -> Diff {
    let before = Side::of_report("before.heaptap", &report(&capture()));
    Diff::build(before, Side::of_profile("after.pb.gz", profile_of_another()), options).unwrap()
}

#[test]
fn differences() {
    let plain = compared(DiffOptions::default());
    expect_file!["golden/diff.txt"].assert_eq(&printed(|out| diff::write(&plain, None, out)));
    expect_file!["golden/diff.json"].assert_eq(&printed(|out| json::write(&plain, out)));
    let per = Some(Per::Measure(Measure::AllocObjects));
    let normalised = compared(DiffOptions { measure: Some(Measure::AllocBytes), per });
    expect_file!["golden/diff-normalised.txt"]
        .assert_eq(&printed(|out| diff::write(&normalised, Some(3), out)));
    expect_file!["golden/diff.svg"].assert_eq(&printed(|out| flame::write_diff(&normalised, out)));
}

#[test]
fn a_profile_of_differences_adds_up_to_them() {
    let plain = compared(DiffOptions::default());
    let mut out = Vec::new();
    pprof::write_diff(&plain, &mut out).unwrap();
    let profile = HeapProfile::read(out.as_slice()).unwrap();
    let sum = |value: usize| profile.samples.iter().map(|sample| sample.values[value]).sum::<i64>();
    assert_eq!(sum(1), plain.totals.alloc_bytes.change);
    assert_eq!(Some(sum(2)), plain.totals.live_objects.map(|total| total.change));
    let gone = profile.samples.iter().find(|sample| sample.frames[0].function.starts_with("main.Map"));
    assert!(gone.is_some_and(|sample| sample.values[0] == -50), "{gone:?}");
}

#[test]
fn nothing_is_no_difference() {
    let empty = |name| Side::of_report(name, &Report::default());
    let none = Diff::build(empty("a"), empty("b"), DiffOptions::default()).unwrap();
    let text = printed(|out| diff::write(&none, None, out));
    assert!(text.contains("A has no site at all") && !text.contains("SITE"), "{text}");
    let error = flame::write_diff(&none, &mut Vec::new()).unwrap_err();
    assert!(error.hint_text().is_some_and(|hint| hint.contains("--measure")), "{error}");
}
