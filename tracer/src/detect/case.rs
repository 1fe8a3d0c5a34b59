//! What detectors look at: a capture, and the sites in it that grow.

use super::heap::Heap;
use super::held::BySite;
use super::shape::{LEAST_CYCLES, Lives, Shape, Steadiness, Turnover};
use super::trend::{Point, Trend};
use crate::model::State;
use crate::report::{Kind, Report, Series, Site};

/// A confidence that halves its distance to 1 with so many cycles, and so many seconds.
const CYCLES: f64 = 5.0;
const SECONDS: f64 = 10.0;

/// A capture, and the sites in it that grow.
#[derive(Debug)]
pub struct Case<'a> {
    pub state: &'a State,
    pub report: &'a Report,
    /// Sites whose live bytes grow beyond noise, as a leak's do: those that grow fastest first.
    pub suspects: Vec<Suspect>,
    /// Sites that have grown, and are not suspected.
    pub(super) cleared: Vec<Cleared>,
    pub(super) heap: Heap,
    pub(super) held: BySite<'a>,
}

/// A site whose live bytes grow.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspect {
    /// Index in [`Report::sites`].
    pub site: usize,
    pub trend: Trend,
    /// From 0 to 1: that it grows without end.
    pub confidence: f64,
    /// Live bytes after GC cycles.
    pub series: Series,
    /// Most of what was alive halfway is dead: arrays that were copied into larger ones.
    pub(super) is_copied: bool,
    /// The series on which the judgement rests: the same of what had survived some cycles.
    pub(super) judged: Vec<Point>,
}

/// A site that has grown, for no leak.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cleared {
    pub(super) site: usize,
    /// By others as fast as it dies.
    pub(super) is_replaced: bool,
    pub(super) bytes: f64,
    pub(super) series: Series,
}

impl<'a> Case<'a> {
    /// Judges every site.
    pub fn new(state: &'a State, report: &'a Report) -> Case<'a> {
        let heap = Heap::of(report);
        let held = BySite::of(state, report);
        let mut case = Case { state, report, suspects: Vec::new(), cleared: Vec::new(), heap, held };
        let start_ns = state.start.as_ref().map_or(0, |start| start.time_ns);
        for (index, site) in report.sites.iter().enumerate() {
            case.judge(index, site, start_ns);
        }
        case.suspects.sort_by(|a, b| b.trend.bytes_per_s.total_cmp(&a.trend.bytes_per_s));
        case.cleared.sort_by(|a, b| b.bytes.total_cmp(&a.bytes));
        case.weigh();
        case
    }

    fn judge(&mut self, index: usize, site: &Site, start_ns: u64) {
        let Some(life) = site.life.as_ref().filter(|life| life.history.len() >= LEAST_CYCLES) else { return };
        let error = site.error_bytes.and_then(|error| error.live).unwrap_or(0) as f64;
        let lives = Lives::of(&life.history, start_ns);
        let series = |points| Series { name: "live bytes".into(), unit: "bytes".into(), points };
        let turnover = turnover(site.kind);
        match lives.shape(turnover, error) {
            Shape::Grows(steadiness) => {
                let confidence = confidence(&lives.all, steadiness);
                let is_copied = lives.is_copied();
                let (trend, judged) = (steadiness.trend, lives.judged(turnover).to_vec());
                let series = series(lives.all);
                self.suspects.push(Suspect { site: index, trend, confidence, series, is_copied, judged });
            }
            shape @ (Shape::Filled | Shape::Replaced) => {
                let bytes = lives.all.last().map_or(0.0, |point| point.1);
                let is_replaced = shape == Shape::Replaced;
                self.cleared.push(Cleared { site: index, is_replaced, bytes, series: series(lives.all) });
            }
            Shape::Other => {}
        }
    }

    /// Holds what the suspects grow by against the growth of the whole heap, which no sample
    /// and no attach in the middle of things can deceive: where it stays behind, they take the
    /// places of others that were there before.
    fn weigh(&mut self) {
        let suspected: f64 = self.suspects.iter().map(|suspect| suspect.trend.bytes_per_s).sum();
        let share = self.heap.explains(suspected);
        for suspect in &mut self.suspects {
            suspect.confidence *= share;
        }
    }

    /// Since the capture began.
    pub(super) fn seconds(&self, time_ns: u64) -> f64 {
        let start_ns = self.state.start.as_ref().map_or(0, |start| start.time_ns);
        time_ns.saturating_sub(start_ns) as f64 / 1e9
    }

    /// The site of a suspect.
    pub fn site(&self, suspect: &Suspect) -> &'a Site {
        &self.report.sites[suspect.site]
    }

    /// From 0 to 1: how much time and cycles say when nothing was found in them.
    pub(super) fn sureness(&self) -> f64 {
        let beyond = self.cycles().saturating_sub(LEAST_CYCLES as u64 / 2) as f64;
        sureness(beyond, self.report.capture.duration_s)
    }

    /// Judged GC cycles.
    pub fn cycles(&self) -> u64 {
        self.report.capture.following.map_or(0, |following| following.judged_gc_cycles)
    }
}

fn turnover(kind: Kind) -> Turnover {
    match kind {
        Kind::Growslice | Kind::Makemap | Kind::Mapassign => Turnover::Arrays,
        _ => Turnover::Objects,
    }
}

/// From 0 to 1: how much so many cycles and seconds say.
pub(super) fn sureness(cycles: f64, seconds: f64) -> f64 {
    let halved = |amount: f64, half: f64| 1.0 - (-amount / half).exp2();
    halved(cycles, CYCLES) * halved(seconds, SECONDS)
}

/// How sure it is that a steady growth is a leak: the longer and the evener, the surer.
pub(super) fn confidence(points: &[Point], steadiness: Steadiness) -> f64 {
    let beyond = points.len().saturating_sub(LEAST_CYCLES / 2) as f64;
    let seconds = match points {
        [first, .., last] => last.0 - first.0,
        _ => 0.0,
    };
    let even = 0.8 + 0.2 * steadiness.evenness;
    sureness(beyond, seconds) * even * (1.0 - steadiness.trend.p_value)
}
