//! The heap over time against the GC cycles, drawn as SVG.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::super::findings::stage_name;
use super::super::printable;
use crate::base::units::{format_bytes, format_count};
use crate::report::gc::{GcCycle, GcRecord};
use crate::report::{Report, Series, Stage};

/// More cycles than this are drawn several to a point.
const POINTS: usize = 200;

/// The drawing has this many units each way; it is stretched to its place, and what is
/// written stands beside it, so that it can be read at any width.
const SIDE: f64 = 1000.0;

/// Some cycles in a row; one of them as far as that is few enough.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    cycles: usize,
    /// The runtime's number of the first.
    number: Option<u32>,
    /// Seconds from the start of the capture.
    begin: f64,
    marked: f64,
    end: f64,
    /// Bytes: the most before and after marking, the least that was alive, the highest goal.
    before: u64,
    after: u64,
    live: u64,
    goal: u64,
    /// Of what was allocated during the capture.
    survivors: Option<u64>,
}

impl Point {
    fn of(cycle: &GcCycle, record: &GcRecord) -> Point {
        let seconds = |ns: i64| ns as f64 / 1e9;
        Point {
            cycles: 1,
            number: cycle.cycle,
            begin: seconds(record.start_ns),
            marked: seconds(cycle.mark_end_ns),
            end: seconds(record.end_ns),
            before: record.heap_before,
            after: record.heap_after,
            live: record.heap_live,
            goal: record.heap_goal,
            survivors: cycle.survivors.map(|survivors| survivors.bytes),
        }
    }

    fn and(self, next: &Point) -> Point {
        Point {
            cycles: self.cycles + next.cycles,
            number: self.number,
            begin: self.begin,
            marked: next.marked,
            end: next.end,
            before: self.before.max(next.before),
            after: self.after.max(next.after),
            live: self.live.min(next.live),
            goal: self.goal.max(next.goal),
            survivors: next.survivors.or(self.survivors),
        }
    }

    fn title(&self) -> String {
        let [before, after, live, goal] = [self.before, self.after, self.live, self.goal].map(format_bytes);
        let number = self.number.map_or("?".into(), |number| number.to_string());
        let which = match self.cycles {
            1 => format!("GC {number}"),
            several => format!("{several} cycles from GC {number} on"),
        };
        let alive =
            self.survivors.map_or(String::new(), |bytes| format!(", of the capture {}", format_bytes(bytes)));
        format!("{which} at {:.3} s: {before} → {after} → {live}, goal {goal}{alive}", self.begin)
    }
}

/// The cycles whose record was read, [`POINTS`] points of them at most.
fn points(report: &Report) -> Vec<Point> {
    let all: Vec<Point> =
        report.gc.iter().filter_map(|cycle| Some(Point::of(cycle, cycle.record.as_ref()?))).collect();
    let group = all.len().div_ceil(POINTS).max(1);
    all.chunks(group).filter_map(|cycles| cycles.iter().copied().reduce(|sum, next| sum.and(&next))).collect()
}

/// From seconds and bytes to the drawing's units.
#[derive(Debug, Clone, Copy)]
struct Scale {
    from: f64,
    seconds: f64,
    bytes: f64,
}

impl Scale {
    fn of(points: &[Point], duration_s: f64) -> Scale {
        let from = points.iter().map(|p| p.begin).fold(0.0, f64::min);
        let to = points.iter().map(|p| p.end).fold(duration_s, f64::max);
        let most = points.iter().map(|p| p.before.max(p.after).max(p.goal)).max().unwrap_or(0);
        Scale::up_to(from, to, most)
    }

    /// Of so much of the time, and so much at most.
    fn up_to(from: f64, to: f64, most: u64) -> Scale {
        let bytes = step_of_bytes(most).map_or(1.0, |step| step * (most as f64 / step).ceil());
        Scale { from, seconds: (to - from).max(1e-9), bytes }
    }

    fn x(&self, second: f64) -> f64 {
        ((second - self.from) / self.seconds * SIDE).clamp(0.0, SIDE)
    }

    fn y(&self, bytes: u64) -> f64 {
        (SIDE - bytes as f64 / self.bytes * SIDE).clamp(0.0, SIDE)
    }

    /// Round numbers of bytes.
    fn levels(&self) -> Vec<u64> {
        let step = step_of_bytes(self.bytes as u64).unwrap_or(self.bytes);
        let steps = (self.bytes / step).round() as u64;
        (0..=steps).map(|n| (n as f64 * step) as u64).collect()
    }

    /// Round numbers of seconds.
    fn instants(&self) -> Vec<f64> {
        let rough = self.seconds / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0].into_iter().map(|n| n * power).find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let first = (self.from / step).ceil();
        (0..=6).map(|n| (first + f64::from(n)) * step).filter(|t| self.x(*t) < 0.99 * SIDE).collect()
    }
}

/// A power of two of which four to eight make `most`.
fn step_of_bytes(most: u64) -> Option<f64> {
    Some(f64::from(most.max(8).ilog2() - 2).exp2()).filter(|_| most > 0)
}

/// A line through (seconds, bytes).
fn line(scale: Scale, points: impl Iterator<Item = (f64, u64)>) -> String {
    let mut text = String::new();
    for (second, bytes) in points {
        // Writing to a String cannot fail.
        let _ = write!(text, "{:.1},{:.1} ", scale.x(second), scale.y(bytes));
    }
    text
}

pub(super) fn heap(report: &Report) -> Markup {
    let points = points(report);
    html! {
        section #heap aria-labelledby="heap-title" {
            h2 #heap-title { "Heap over time" }
            @if points.is_empty() {
                p { "There is no record of a GC cycle, and so nothing to draw." }
            } @else {
                (figure(&points, Scale::of(&points, report.capture.duration_s)))
            }
        }
    }
}

fn figure(points: &[Point], scale: Scale) -> Markup {
    let has_survivors = points.iter().any(|p| p.survivors.is_some());
    let cycles: usize = points.iter().map(|p| p.cycles).sum();
    html! {
        figure {
            ul.legend {
                li.heap-line { "heap" }
                li.goal-line { "goal" }
                @if has_survivors { li.survivor-line { "alive, allocated during the capture" } }
                li.mark-area { "GC marks" }
            }
            div.chart {
                (drawing(points, scale, cycles))
                (axes(scale, format_bytes))
            }
            figcaption {
                "Bytes of objects: when a cycle began, when marking ended, and what of it was marked."
                @if points.len() < cycles {
                    " Each point stands for " (format_count(points[0].cycles as u64)) " cycles."
                }
            }
        }
    }
}

/// What is written beside a drawing.
fn axes(scale: Scale, level: fn(u64) -> String) -> Markup {
    html! {
        @for bytes in scale.levels() {
            span.level style=(format!("bottom:{:.2}%", 100.0 - scale.y(bytes) / SIDE * 100.0)) { (level(bytes)) }
        }
        @for second in scale.instants() {
            span.instant style=(format!("left:{:.2}%", scale.x(second) / SIDE * 100.0)) {
                (format!("{}", (second * 1e6).round() / 1e6)) " s"
            }
        }
    }
}

/// A series of a finding, with lines where stages of the hunt began.
pub(super) fn series(series: &Series, stages: &[Stage]) -> Markup {
    let time = |n: Option<&(f64, f64)>| n.map_or(0.0, |point| point.0);
    let points = || series.points.iter().map(|&(second, value)| (second, value.max(0.0) as u64));
    let most = points().map(|point| point.1).max().unwrap_or(0);
    let scale = Scale::up_to(time(series.points.first()).min(0.0), time(series.points.last()), most);
    let name = printable(&series.name);
    let label = format!("{name} over time, {} points", series.points.len());
    let level = if series.unit == "bytes" { format_bytes } else { format_count };
    html! {
        figure {
            div.chart.small {
                svg viewBox=(format!("0 0 {SIDE} {SIDE}")) preserveAspectRatio="none" role="img" aria-label=(label) {
                    @for value in scale.levels() {
                        line.grid x1="0" x2=(SIDE) y1=(format!("{:.1}", scale.y(value))) y2=(format!("{:.1}", scale.y(value))) {}
                    }
                    @for stage in stages {
                        line.stage x1=(format!("{:.1}", scale.x(stage.begin_s))) x2=(format!("{:.1}", scale.x(stage.begin_s)))
                            y1="0" y2=(SIDE) { title { (stage_name(stage.name)) } }
                    }
                    polyline.heap-line points=(line(scale, points())) {}
                }
                (axes(scale, level))
            }
            figcaption { (name) ", in " (printable(&series.unit)) }
        }
    }
}

fn drawing(points: &[Point], scale: Scale, cycles: usize) -> Markup {
    let heap = points.iter().flat_map(|p| [(p.begin, p.before), (p.marked, p.after), (p.end, p.live)]);
    // A goal is in force until the cycle that meets it has ended.
    let starts = std::iter::once(scale.from).chain(points.iter().map(|p| p.end));
    let goal = points.iter().zip(starts).flat_map(|(p, from)| [(from, p.goal), (p.end, p.goal)]);
    let survivors = points.iter().filter_map(|p| Some((p.marked, p.survivors?)));
    let label = format!(
        "Heap size over time, through {} GC cycles; the table of cycles holds the numbers",
        format_count(cycles as u64)
    );
    html! {
        svg viewBox=(format!("0 0 {SIDE} {SIDE}")) preserveAspectRatio="none" role="img" aria-label=(label) {
            @for bytes in scale.levels() {
                line.grid x1="0" x2=(SIDE) y1=(format!("{:.1}", scale.y(bytes))) y2=(format!("{:.1}", scale.y(bytes))) {}
            }
            @for p in points {
                rect.mark x=(format!("{:.1}", scale.x(p.begin))) y="0" height=(SIDE)
                    width=(format!("{:.1}", (scale.x(p.end) - scale.x(p.begin)).max(1.0))) { title { (p.title()) } }
            }
            polyline.goal-line points=(line(scale, goal)) {}
            polyline.heap-line points=(line(scale, heap)) {}
            polyline.survivor-line points=(line(scale, survivors)) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycle(number: u32, begin_s: f64) -> GcCycle {
        let ns = |seconds: f64| (seconds * 1e9) as i64;
        let cycle = crate::event::GcCycle {
            cycle: number,
            heap_before: 100 << u64::from(number % 3),
            heap_after: 120,
            heap_marked: 50,
            heap_goal: 130,
            ..Default::default()
        };
        let mut row = GcCycle::of(&cycle, 0);
        row.mark_end_ns = ns(begin_s + 0.1);
        let record = row.record.as_mut().expect("a record");
        (record.start_ns, record.end_ns) = (ns(begin_s), ns(begin_s + 0.2));
        row
    }

    #[test]
    fn many_cycles_are_few_points() {
        let gc: Vec<GcCycle> = (0..1000).map(|n| cycle(n, f64::from(n))).collect();
        let points = points(&Report { gc, ..Report::default() });
        assert_eq!((points.len(), points[0].cycles), (200, 5));
        assert_eq!((points[0].before, points[0].live), (400, 50), "peaks are kept");
        assert!((points[199].end - 999.2).abs() < 1e-6);
    }

    #[test]
    fn axes_have_round_numbers() {
        let points = points(&Report { gc: vec![cycle(1, -0.05), cycle(2, 9.0)], ..Report::default() });
        let scale = Scale::of(&points, 10.0);
        assert_eq!(scale.levels(), [0, 64, 128, 192, 256, 320, 384, 448]);
        assert_eq!(scale.instants(), [0.0, 5.0]);
        assert_eq!((scale.x(-0.05), scale.y(448), scale.y(0)), (0.0, 0.0, SIDE));
        let nothing = Scale::of(&[], 0.0);
        assert!(nothing.instants().len() < 8 && nothing.levels().len() < 10);
    }
}
