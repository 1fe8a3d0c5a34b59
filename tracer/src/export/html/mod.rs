//! The report as one HTML file that needs no network: opens anywhere, reads without scripts.

mod chart;
mod cycles;
mod findings;
mod regions;
mod sites;

use std::io::Write;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::flame::{Boxes, FlameOptions};
use super::{printable, put, text};
use crate::base::Result;
use crate::report::Report;

/// What this page runs, and all that it may: the browser refuses whatever else a name from
/// the target could smuggle in over the network.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      base-uri 'none'; form-action 'none'";
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Of a flame graph; wider boxes only where there are more.
const FLAME_BYTES: usize = 3 << 19;

/// Writes the page. The sites stand in the report's order.
///
/// # Errors
/// When `out` does not take it; a closed pipe is no error.
pub fn write(report: &Report, options: FlameOptions, out: &mut impl Write) -> Result<()> {
    let boxes = Boxes::draw(report, options, FLAME_BYTES)?;
    let exe = report.target.exe.rsplit('/').next().unwrap_or_default();
    let title = format!("heaptap: {}", printable(exe));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(concat!("heaptap ", env!("CARGO_PKG_VERSION")));
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header { h1 { (title) } }
                (contents(report, boxes.is_some()))
                main {
                    (summary(report))
                    (findings::section(report))
                    (chart::heap(report))
                    (search())
                    (sites::table(report, options.measure))
                    @if let Some(boxes) = &boxes { (flame(boxes, options)) }
                    (sites::size_classes(report))
                    (cycles::section(report))
                    (regions::section(report))
                    (sites::goroutines(report))
                    (sites::before_attach(report))
                    (notes(report))
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    let mut page = page.into_string();
    page.push('\n');
    put(out, page.as_bytes())
}

fn contents(report: &Report, has_flame: bool) -> Markup {
    html! {
        nav aria-label="Sections" {
            @for (id, name, is_there) in [
                ("summary", "Summary", true),
                ("findings", "Findings", report.verdict.is_some()),
                ("heap", "Heap", true),
                ("sites", "Sites", true),
                ("flame", "Flame graph", has_flame),
                ("classes", "Size classes", report.size_classes.is_some()),
                ("gc", "GC", true),
                ("regions", "Phases and marks", regions::is_there(report)),
                ("goroutines", "Goroutines", sites::has_goroutines(report)),
                ("before", "Before", report.before_attach.is_some()),
                ("notes", "Notes", true),
            ] {
                @if is_there { a href={ "#" (id) } { (name) } " " }
            }
        }
    }
}

fn summary(report: &Report) -> Markup {
    html! {
        section #summary aria-labelledby="summary-title" {
            h2 #summary-title { "Summary" }
            dl.summary {
                @for (name, value) in text::summary(report) {
                    div { dt { (capitalised(name)) } dd { (printable(&value)) } }
                }
            }
        }
    }
}

fn capitalised(name: &str) -> String {
    match name.split_once(' ') {
        Some(("gc", rest)) => format!("GC {rest}"),
        _ => name[..1].to_uppercase() + &name[1..],
    }
}

/// For the script, which shows it: without, there is nothing that searches.
fn search() -> Markup {
    html! {
        form #find role="search" hidden {
            label for="find-text" { "Search functions, types and files" }
            input #find-text type="search" autocomplete="off" spellcheck="false";
            output #find-result for="find-text" {}
        }
    }
}

fn flame(boxes: &Boxes, options: FlameOptions) -> Markup {
    let view = format!("{} {} {} {}", Boxes::LEFT, boxes.top, Boxes::WIDTH, boxes.height);
    html! {
        section #flame aria-labelledby="flame-title" {
            h2 #flame-title { "Flame graph: " (super::flame::name(options.measure).to_lowercase()) }
            p.hint {
                "The wider a box, the more its function and those below it have. "
                @if options.inverted { "Those that allocate are at the top, those that call them below. " }
                span.scripted hidden { "Click a box to zoom in, and again to zoom out." }
            }
            svg #flame-graph viewBox=(view) preserveAspectRatio="xMinYMin meet" role="img"
                aria-label="Flame graph; the table of sites holds the same numbers" {
                (PreEscaped(&boxes.svg))
            }
            p #flame-box .hint role="status" {}
        }
    }
}

fn notes(report: &Report) -> Markup {
    html! {
        section #notes aria-labelledby="notes-title" {
            h2 #notes-title { "Notes" }
            @if report.capture.notes.is_empty() {
                p { "Nothing was lost, and nothing is uncertain." }
            } @else {
                ul { @for note in &report.capture.notes { li { (printable(note)) } } }
            }
        }
    }
}

/// A table of cells that are text; the first `numbers` columns are set to the right.
fn plain_table<const COLUMNS: usize>(
    caption: &str,
    heading: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
    numbers: usize,
) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { (caption) }
                thead { tr { @for (i, name) in heading.into_iter().enumerate() {
                    th scope="col" .n[i < numbers] { (name) }
                } } }
                tbody { @for row in rows { tr { @for (i, cell) in row.iter().enumerate() {
                    td .n[i < numbers] { (cell) }
                } } } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::flame::Colours;
    use crate::report::gc::Stops;
    use crate::report::{
        Evidence, Finding, Frame, Kind, LeakKind, Measure, Outcome, Series, Severity, Site, Stage, StageName,
        Verdict,
    };

    const OPTIONS: FlameOptions =
        FlameOptions { measure: Measure::AllocBytes, colours: Colours::Package, inverted: false };

    fn page(report: &Report) -> String {
        let mut out = Vec::new();
        write(report, OPTIONS, &mut out).expect("a page");
        String::from_utf8(out).expect("UTF-8")
    }

    fn site(function: &str, type_name: &str, bytes: u64) -> Site {
        let frame = |function: &str| Frame {
            function: function.into(),
            file: format!("/app/{function}.go"),
            line: 7,
            inlined: false,
            address: 0,
            wrapper: false,
        };
        Site {
            id: "0".into(),
            type_name: type_name.into(),
            kind: Kind::Newobject,
            alloc_objects: 1,
            alloc_bytes: bytes,
            requested_bytes: bytes,
            live_objects: None,
            live_bytes: None,
            error_bytes: None,
            life: None,
            frames: vec![frame(function), frame("main.main")],
            calls: Vec::new(),
        }
    }

    /// A finding that says nothing but a name.
    fn accuse(report: &mut Report, name: &str) {
        let series = Series { name: name.into(), unit: name.into(), points: vec![(0.0, 1.0), (1.0, 2.0)] };
        report.verdict = Some(Verdict {
            outcome: Outcome::Leak,
            confidence: 1.0,
            summary: name.into(),
            judged_gc_cycles: 20,
            growth_bytes_per_s: None,
            stages: vec![Stage { name: StageName::Before, begin_s: 0.0 }],
        });
        report.findings = vec![Finding {
            kind: LeakKind::Growth,
            severity: Severity::Critical,
            confidence: 1.0,
            site: None,
            sites: Vec::new(),
            frames: report.sites[0].frames.clone(),
            growth_bytes_per_s: 1.0,
            summary: name.into(),
            evidence: vec![Evidence { what: name.into(), series: Some(series) }],
            advice: name.into(),
            disproof: name.into(),
        }];
    }

    #[test]
    fn names_of_the_target_cannot_leave_their_place() {
        const HOSTILE: [&str; 6] = [
            "<script>alert(1)</script>",
            "\"><img src=x onerror=alert(1)>",
            "' onmouseover='alert(1)",
            "]]><script>alert(1)</script>",
            "</style></script></title></svg><h1>",
            "&lt;b&gt; --> \u{0} \u{1b}[2J",
        ];
        // What begins with `<` is markup: the same for any names.
        let tags = |page: &str| {
            let mut tags: Vec<String> = page
                .split('<')
                .skip(1)
                .map(|tag| tag.split([' ', '>', '\n']).next().unwrap_or_default().to_owned())
                .collect();
            tags.sort();
            tags
        };
        let named = |name: &str| {
            let mut report = Report::default();
            report.target.exe = name.into();
            report.target.go_version = name.into();
            report.capture.notes = vec![name.into()];
            report.stw = vec![Stops { reason: Some(name.into()), count: 1, total_ns: 1, longest_ns: 1 }];
            report.sites = vec![site(name, name, 1 << 20), site("f", "T", 1 << 20)];
            accuse(&mut report, name);
            page(&report)
        };
        let harmless = named("main.g");
        for name in HOSTILE {
            let page = named(name);
            assert_eq!(tags(&page), tags(&harmless), "{name:?}");
            assert!(!page.contains('\u{1b}') && !page.contains('\u{0}'), "{name:?}");
            // Between quotes nothing of the target stands but in the widths of boxes.
            let quotes = |page: &str| page.matches('"').count();
            assert_eq!(quotes(&page), quotes(&harmless), "{name:?}");
        }
    }

    #[test]
    fn a_page_asks_for_nothing() {
        let page = page(&Report { sites: vec![site("f", "T", 1)], ..Report::default() });
        for way in [" src=", "<link", "@import", "url(", "fetch(", "XMLHttp"] {
            assert!(!page.contains(way), "{way}");
        }
    }

    #[test]
    fn a_report_without_anything_is_a_page() {
        let page = page(&Report::default());
        assert!(page.contains("no record of a GC cycle") && !page.contains("id=\"flame\""), "{page}");
    }

    #[test]
    fn pages_stay_small() {
        let function = |i: u64| format!("example.org/some/rather/long/path.(*Type{i}).Method{}", i % 7);
        let sites = (0..4_000).map(|i| {
            let mut site = site(&function(i), "map[string]main.Something", 1_000_000 / (i + 1));
            let frames =
                (0..30).map(|depth| Frame { function: function(i / (1 + depth)), ..site.frames[0].clone() });
            site.frames = frames.collect();
            site
        });
        let report = Report { sites: sites.collect(), ..Report::default() };
        let page = page(&report);
        assert!(page.len() < 5 << 20, "{} bytes", page.len());
        assert!(page.contains(" more sites"), "what is left out is said");
    }
}
