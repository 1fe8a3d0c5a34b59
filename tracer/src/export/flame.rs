//! Flame graphs: stacks as an SVG that a browser searches and zooms.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;

use inferno::flamegraph::color::PaletteMap;
use inferno::flamegraph::{self, Direction, Options};

use super::folded::{self, escaped};
use super::put;
use crate::base::{Error, Fnv1a, Result};
use crate::report::diff::Diff;
use crate::report::{Measure, Report};

/// What the colour of a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// The package of the function.
    Package,
    /// How much of what was allocated below the frame is alive: from blue, nothing, to red,
    /// all of it; grey where that is not known.
    Survival,
}

/// How to draw.
#[derive(Debug, Clone, Copy)]
pub struct FlameOptions {
    pub measure: Measure,
    pub colours: Colours,
    /// The innermost functions at the root: what allocates most, wherever it is called from.
    pub inverted: bool,
}

/// Draws the report's stacks.
///
/// # Errors
/// When nothing is there of what is to be measured, or `out` does not take it; a closed pipe is
/// no error.
pub fn write(report: &Report, options: FlameOptions, out: &mut impl Write) -> Result<()> {
    let lines = folded::lines(report, options.measure);
    if lines.is_empty() {
        return Err(Error::failed("there is nothing to draw: of no site any such object is known")
            .hint("draw what was allocated (--sort alloc-bytes)"));
    }
    let mut drawing = drawing(options);
    drawing.title = format!("{} of {}", name(options.measure), report.target.exe);
    drawing.subtitle = Some(subtitle(report));
    put(out, &draw(drawing, Some(&mut palette(report, options)?), &lines)?)
}

/// The boxes of a graph, to stand in another SVG element: with the root on top, where a reader
/// comes from.
#[derive(Debug)]
pub(super) struct Boxes {
    /// An `svg` element with one `g` per box: a `title`, a `rect` and a `text`.
    pub(super) svg: String,
    /// Where it begins and ends, in pixels; it is [`Boxes::WIDTH`] wide.
    pub(super) top: u32,
    pub(super) height: u32,
}

impl Boxes {
    pub(super) const LEFT: u32 = 10;
    pub(super) const WIDTH: u32 = 1180;
    /// The narrowest box drawn, in percent of the width; the next where too many are as wide.
    const NARROWEST: [f64; 4] = [0.05, 0.2, 1.0, 5.0];

    /// The boxes of the report's stacks, without the narrowest ones where they take more
    /// than `max_bytes`; `None`: there is nothing to draw.
    pub(super) fn draw(report: &Report, options: FlameOptions, max_bytes: usize) -> Result<Option<Boxes>> {
        let lines = folded::lines(report, options.measure);
        if lines.is_empty() {
            return Ok(None);
        }
        let mut palette = palette(report, options)?;
        let mut boxes = None;
        for min_width in Boxes::NARROWEST {
            let mut drawing = drawing(options);
            drawing.min_width = min_width;
            drawing.direction = Direction::Inverted;
            let svg = draw(drawing, Some(&mut palette), &lines)?;
            boxes = Boxes::cut_out(&String::from_utf8_lossy(&svg));
            if boxes.as_ref().is_none_or(|boxes| boxes.svg.len() <= max_bytes) {
                break;
            }
        }
        Ok(boxes)
    }

    /// Without title, search and script, which are those of a document.
    fn cut_out(svg: &str) -> Option<Boxes> {
        let (head, _) = svg.split_once("viewBox=\"")?;
        let height: u32 = head.rsplit_once(" height=\"")?.1.split('"').next()?.parse().ok()?;
        let frames = &svg[svg.find("<svg id=\"frames\"")?..];
        // What inferno keeps free above and below (flamegraph/mod.rs `ypad1`, `ypad2`).
        let (top, bottom) = (52, 22);
        let height = height.checked_sub(top + bottom)?;
        Some(Boxes { svg: frames.strip_suffix("</svg>")?.to_owned(), top, height })
    }
}

fn drawing(options: FlameOptions) -> Options<'static> {
    let mut drawing = Options::default();
    drawing.count_name = if options.measure.is_bytes() { "bytes" } else { "objects" }.into();
    drawing.reverse_stack_order = options.inverted;
    drawing.direction = if options.inverted { Direction::Inverted } else { Direction::Straight };
    drawing.deterministic = true;
    // In a browser's own font: the graph asks the network for nothing.
    drawing.font_type = "monospace".into();
    drawing
}

/// Without a palette, by how the two numbers of a line differ.
fn draw<'a>(
    mut drawing: Options<'a>,
    palette: Option<&'a mut PaletteMap>,
    lines: &[String],
) -> Result<Vec<u8>> {
    drawing.palette_map = palette;
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut drawing, lines.iter().map(String::as_str), &mut svg)
        .map_err(|e| Error::failed("cannot draw the flame graph").because(e))?;
    Ok(svg)
}

/// Draws the stacks of a comparison as wide as they are on its second side: red what grew, blue
/// what shrank, the more the deeper.
///
/// # Errors
/// As [`write`].
pub fn write_diff(diff: &Diff, out: &mut impl Write) -> Result<()> {
    let lines = folded::diff_lines(diff);
    if lines.is_empty() {
        return Err(Error::failed("there is nothing to draw: the second side has no site of this measure")
            .hint("draw another (--measure alloc-bytes), or compare the other way round"));
    }
    let options = FlameOptions { measure: diff.measure, colours: Colours::Package, inverted: false };
    let mut drawing = drawing(options);
    drawing.title = format!("Change of {}", name(diff.measure).to_lowercase());
    drawing.subtitle = Some(format!("from {} to {}", diff.before.name, diff.after.name));
    put(out, &draw(drawing, None, &lines)?)
}

pub(super) fn name(measure: Measure) -> &'static str {
    match measure {
        Measure::AllocBytes => "Bytes allocated by call site",
        Measure::AllocObjects => "Objects allocated by call site",
        Measure::LiveBytes => "Bytes in use by call site",
        Measure::LiveObjects => "Objects in use by call site",
    }
}

fn subtitle(report: &Report) -> String {
    let capture = &report.capture;
    format!("{} lane, {:.1} s from {}", capture.mode, capture.duration_s, capture.started_at)
}

/// A colour for each function: inferno wants them as lines `NAME->rgb(R,G,B)`.
fn palette(report: &Report, options: FlameOptions) -> Result<PaletteMap> {
    let mut lines = String::new();
    match options.colours {
        Colours::Package => {
            let functions: BTreeSet<&str> =
                report.sites.iter().flat_map(|site| &site.frames).map(|f| f.function.as_str()).collect();
            for function in functions {
                add(&mut lines, function, of_package(package(function)));
            }
        }
        Colours::Survival => {
            let mut sums: BTreeMap<&str, (u64, Option<u64>)> = BTreeMap::new();
            for site in &report.sites {
                // A function that calls itself has its objects once.
                let functions: BTreeSet<&str> = site.frames.iter().map(|f| f.function.as_str()).collect();
                for function in functions {
                    let (all, live) = sums.entry(function).or_insert((0, Some(0)));
                    *all = all.saturating_add(site.alloc_bytes);
                    *live = live.zip(site.live_bytes).map(|(sum, live)| sum.saturating_add(live));
                }
            }
            for (function, (all, live)) in sums {
                let share = live.filter(|_| all > 0).map(|live| (live as f64 / all as f64).min(1.0));
                add(&mut lines, function, share.map_or((160, 160, 160), of_share));
            }
        }
    }
    PaletteMap::from_reader(&mut lines.as_bytes())
        .map_err(|e| Error::failed("cannot colour the flame graph").because(e))
}

fn add(lines: &mut String, function: &str, (r, g, b): (u8, u8, u8)) {
    // Writing to a String cannot fail.
    let _ = writeln!(lines, "{}->rgb({r},{g},{b})", escaped(function));
}

/// The package of a function as Go prints it: up to the first dot of the last element of its
/// path, type parameters aside.
fn package(function: &str) -> &str {
    let path = function.split('[').next().unwrap_or(function);
    let last = path.rfind('/').map_or(0, |slash| slash + 1);
    path.find('.').map_or(path, |_| match path[last..].find('.') {
        Some(dot) => &path[..last + dot],
        None => path,
    })
}

/// Bright enough for black letters; the same in every graph.
fn of_package(package: &str) -> (u8, u8, u8) {
    let mut hash = Fnv1a::default();
    hash.add(package.as_bytes());
    let part = |shift: u32| 130 + (hash.hash() >> shift) as u8 % 120;
    (part(48), part(32), part(16))
}

/// From blue to red.
fn of_share(alive: f64) -> (u8, u8, u8) {
    let between = |from: f64, to: f64| (from + (to - from) * alive) as u8;
    (between(120.0, 240.0), between(170.0, 90.0), between(235.0, 70.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_told_from_functions() {
        for (function, expected) in [
            ("main.main", "main"),
            ("net/http.(*conn).serve", "net/http"),
            ("gopkg.in/yaml.v3.Unmarshal", "gopkg.in/yaml"),
            ("main.Map[go.shape.struct { A int }]", "main"),
            ("slices.Sort[a/b.T]", "slices"),
            ("0x7f00", "0x7f00"),
            ("", ""),
        ] {
            assert_eq!(package(function), expected, "{function}");
        }
    }

    #[test]
    fn survival_goes_from_blue_to_red() {
        assert_eq!((of_share(0.0), of_share(1.0)), ((120, 170, 235), (240, 90, 70)));
    }
}
