//! What heaptap writes for browsers, opened in one: clicked, sorted, searched.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tests::browser::{Page, Screen, look};
use tests::{PATIENCE, Process, heaptap};
use tracer::capture::Writer;
use tracer::event::{Alloc, End, EndReason, Event, Frame, GcCycle, StackId, Start, Target, TypeInfo};

const SECOND: u64 = 1_000_000_000;

/// Functions that allocate, each called by `main.main`; how many objects and of what size.
/// Names are not what a browser may take them for.
const SITES: [(&str, u64, u64); 5] = [
    ("main.few", 3, 8192),
    ("main.many", 900, 16),
    ("main.(*Tree).Insert", 20, 64),
    ("<script>window.taken=1</script>", 10, 48),
    ("\"><img src=x onerror=window.taken=1>", 10, 32),
];

/// Keys as WebDriver writes them.
const ENTER: &str = "\u{e007}";
const BACKSPACE: &str = "\u{e003}";

/// A report in this format of a capture of [`SITES`].
fn report(format: &str, file: &str) -> Result<(TempDir, PathBuf)> {
    let scratch = tempfile::tempdir()?;
    let (capture, out) = (scratch.path().join("c.heaptap"), scratch.path().join(file));
    write_capture(&capture)?;
    let mut report = heaptap();
    report.arg("report").arg(&capture).args(["--format", format, "-o"]).arg(&out);
    let ended = Process::spawn(&mut report)?.wait(PATIENCE)?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    Ok((scratch, out))
}

fn write_capture(path: &Path) -> Result<()> {
    let mut writer = Writer::create(path)?;
    let target = Target { exe: "/app/server".into(), go_version: "go1.27.3".into(), ..Target::default() };
    let start = Start { time_ns: SECOND, mode: "exact".into(), target, ..Start::default() };
    writer.write(&Event::Start(start))?;
    let info = TypeInfo { name: "main.Item".into(), ..TypeInfo::default() };
    writer.write(&Event::Type { addr: 0x4a_0000, info })?;
    for ((function, count, size), pc) in SITES.into_iter().zip(0x40_0001..) {
        for (pc, function) in [(pc, function), (0x48_0001, "main.main")] {
            let frame =
                Frame { function: function.into(), file: "/app/main.go".into(), line: 7, ..Frame::default() };
            writer.write(&Event::Symbol { pc, frames: vec![frame] })?;
        }
        writer.write(&Event::Stack { id: StackId(pc), pcs: vec![pc, 0x48_0001] })?;
        let alloc = Alloc {
            time_ns: SECOND,
            size,
            slot: size,
            type_addr: 0x4a_0000,
            stack: StackId(pc),
            ..Alloc::default()
        };
        for n in 0..count {
            writer.write(&Event::Alloc(Alloc { ptr: 0xc0_0000_0000 + (pc << 20) + n * size, ..alloc }))?;
        }
    }
    for cycle in 1..=30 {
        let at = |ms: u64| SECOND * (1 + u64::from(cycle)) + ms * 1_000_000;
        writer.write(&Event::GcCycle(GcCycle {
            cycle,
            epoch: cycle,
            sweep_term_ns: at(0),
            mark_ns: at(1),
            mark_term_ns: at(100),
            end_ns: at(101),
            heap_before: 6 << 20,
            heap_after: 7 << 20,
            heap_marked: 3 << 20,
            heap_goal: 7 << 20,
            ..GcCycle::default()
        }))?;
    }
    writer.write(&Event::End(End { time_ns: 40 * SECOND, reason: EndReason::Interrupted }))?;
    writer.finish()?;
    Ok(())
}

/// The functions of the rows that are shown, in their order.
async fn shown(page: &Page) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for row in page.all(".sites tbody tr:not([hidden]) summary").await? {
        names.push(row.text().await?.trim_end_matches(" main.go:7").to_owned());
    }
    Ok(names)
}

async fn first_row_has(page: &Page, function: &str) -> Result<()> {
    let path = format!("(//table[@class='sites']/tbody/tr)[1][contains(.,'{function}')]");
    page.path(&path).await.map(|_| ())
}

async fn names_took_nothing(page: &Page) -> Result<()> {
    let taken = page.script("return [window.taken ?? 0, document.images.length]").await?;
    ensure!(taken == serde_json::json!([0, 0]), "a name became markup: {taken}");
    Ok(())
}

#[test]
fn a_page_sorts_and_searches() -> Result<()> {
    let (_scratch, file) = report("html", "report.html")?;
    look(&file, Screen::Desktop, async |page| {
        page.fits().await?;
        names_took_nothing(page).await?;
        first_row_has(page, "main.few").await?;
        ensure!(shown(page).await?.len() == SITES.len(), "{:?}", shown(page).await?);

        page.path("//thead//button[.='Objects']").await?.click().await?;
        page.path("//th[@aria-sort='descending'][.='Objects']").await?;
        first_row_has(page, "main.many").await?;
        page.path("//thead//button[.='Objects']").await?.send_keys(ENTER).await?;
        page.path("//th[@aria-sort='ascending'][.='Objects']").await?;
        first_row_has(page, "main.few").await?;
        page.path("//thead//button[.='Site']").await?.click().await?;
        first_row_has(page, "onerror").await?;

        let input = page.one("#find-text").await?;
        input.send_keys("tree").await?;
        page.path("//*[@id='find-result'][contains(.,'1 of 5 sites')]").await?;
        ensure!(shown(page).await? == ["main.(*Tree).Insert"], "{:?}", shown(page).await?);
        page.path("//*[@class='hit']/*[name()='title'][contains(.,'Insert')]").await?;
        input.send_keys(&BACKSPACE.repeat("tree".len())).await?;
        page.path("//*[@id='find-result'][.='']").await?;
        ensure!(shown(page).await?.len() == SITES.len());

        let stack = page.one(".sites details ol").await?;
        ensure!(!stack.is_displayed().await?, "stacks are folded");
        page.one(".sites summary").await?.click().await?;
        page.one(".sites details[open]").await?;
        ensure!(stack.is_displayed().await?, "a stack unfolds");
        Ok(())
    })
}

#[test]
fn the_flame_graph_of_a_page_zooms() -> Result<()> {
    let (_scratch, file) = report("html", "report.html")?;
    for screen in [Screen::Desktop, Screen::Phone] {
        look(&file, screen, async |page| {
            page.fits().await?;
            let few = "//*[name()='g'][*[name()='title'][starts-with(.,'main.few')]]";
            let width = format!("{few}/*[name()='rect']");
            let narrow = page.path(&width).await?.rectangle().await?.2;
            page.path(&width).await?.click().await?;
            page.path("//*[@id='flame-box'][starts-with(.,'main.few')]").await?;
            let wide = page.path(&width).await?.rectangle().await?.2;
            let whole = page.one("#flame-graph").await?.rectangle().await?.2;
            ensure!(narrow < wide && (wide / whole - 1.0).abs() < 0.02, "{narrow}, {wide} of {whole}");
            page.path(&width).await?.click().await?;
            page.path("//*[@id='flame-box'][.='']").await?;
            ensure!(page.path(&width).await?.rectangle().await?.2 < wide);
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_phone_shows_sites_as_cards() -> Result<()> {
    let (_scratch, file) = report("html", "report.html")?;
    look(&file, Screen::Phone, async |page| {
        page.fits().await?;
        let row = page.one(".sites tbody tr").await?;
        ensure!(row.css_value("display").await? == "grid");
        page.path("//thead//button[.='Objects']").await?.click().await?;
        first_row_has(page, "main.many").await
    })
}

#[test]
fn without_scripts_everything_can_be_read() -> Result<()> {
    let (_scratch, file) = report("html", "report.html")?;
    look(&file, Screen::Scriptless, async |page| {
        ensure!(shown(page).await?.len() == SITES.len(), "{:?}", shown(page).await?);
        ensure!(page.all("thead button").await?.is_empty(), "scripts ran");
        ensure!(!page.one("#find").await?.is_displayed().await?, "a search that finds nothing");
        page.one(".sites summary").await?.click().await?;
        page.one(".sites details[open]").await?;
        let boxes = page.all("#frames > g > rect").await?;
        let widest = boxes.first().context("no boxes")?.rectangle().await?.2;
        ensure!(widest > 0.0 && page.one(".chart svg").await?.is_displayed().await?);
        Ok(())
    })
}

#[test]
fn a_flame_graph_zooms_and_searches() -> Result<()> {
    let (_scratch, file) = report("flame", "flame.svg")?;
    look(&file, Screen::Desktop, async |page| {
        let box_of = "//*[name()='g'][*[name()='title'][starts-with(.,'main.few')]]/*[name()='rect']";
        page.one("#unzoom.hide").await?;
        page.path(box_of).await?.click().await?;
        page.one("#unzoom:not(.hide)").await?;
        page.one("#unzoom").await?.click().await?;
        page.one("#unzoom.hide").await?;
        page.one("#search").await?.click().await?;
        page.answer("Tree").await?;
        page.path("//*[@id='matched'][starts-with(.,'Matched: ')]").await?;
        let taken = page.script("return window.taken ?? 0").await?;
        ensure!(taken == 0, "a name became markup");
        Ok(())
    })
}
