//! One side of a comparison: a capture, a snapshot or a heap profile, by site.

use std::time::Duration;

use serde::Serialize;

use super::Per;
use super::change::{Amount, Measures};
use super::saved::SavedSnapshot;
use crate::base::units::format_bytes;
use crate::base::{Error, Result};
use crate::pprof::HeapProfile;
use crate::report::sites::UNKNOWN_TYPE;
use crate::report::snapshot::Profile;
use crate::report::{Frame, Measure, Report, Sampling, Site};

/// What is compared with another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// As it is called in messages: the file.
    pub name: String,
    pub kind: SideKind,
    /// RFC 3339, UTC: when a capture began, or the others were taken.
    pub at: Option<String>,
    /// `None`: it counts from the start of the program, whenever that was.
    pub duration_s: Option<f64>,
    /// GC cycles in this time. `None`: not known.
    pub gc_cycles: Option<u64>,
    /// Of its objects one was sampled for so many bytes; `None`: each, or else.
    pub rate_bytes: Option<u64>,
    pub totals: Measures<i64>,
    pub notes: Vec<String>,
    #[serde(skip)]
    pub(super) seen: Seen,
    #[serde(skip)]
    pub(super) sites: Vec<SideSite>,
}

/// What a side was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SideKind {
    Capture,
    Snapshot,
    Profile,
}

/// How objects were chosen to be seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Seen {
    /// All were.
    Exact,
    /// At points of a Poisson process over the bytes allocated, so many apart on average.
    Rate(u64),
    /// In windows of time, one in so many.
    Windows(f64),
    Unknown,
}

/// A site of one side.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SideSite {
    /// Innermost first.
    pub(super) frames: Vec<Frame>,
    /// `None`: not known; empty: untyped memory.
    pub(super) type_name: Option<String>,
    pub(super) amounts: Measures<Amount>,
}

/// 95% of a normal distribution lies within so many standard deviations.
const DEVIATIONS: f64 = 1.96;

/// Of what happens less often than so many times on average, one look in twenty sees nothing:
/// the rule of three (Hanley and Lippman-Hand 1983).
const UNSEEN: f64 = 3.0;

impl Seen {
    /// Of a rate as pprof has it.
    fn at_rate(rate: u64) -> Seen {
        match rate {
            0 => Seen::Unknown,
            1 => Seen::Exact,
            rate => Seen::Rate(rate),
        }
    }

    pub(super) fn is_estimate(self) -> bool {
        matches!(self, Seen::Rate(_) | Seen::Windows(_))
    }

    /// As many objects of a size a site may have of which none was seen, with a confidence of
    /// 95%. It is also the least that the number of a site may be off, since with few samples
    /// errors are not normally distributed.
    pub(super) fn unseen_objects(self, size: f64) -> f64 {
        match self {
            Seen::Exact | Seen::Unknown => 0.0,
            // None of n is sampled with the probability exp(-n size/rate).
            Seen::Rate(rate) => UNSEEN * rate as f64 / size.max(1.0),
            Seen::Windows(one_in) => UNSEEN * one_in,
        }
    }

    /// Half the width of the interval of a sum.
    pub(super) fn joint_error(self, a: f64, b: f64) -> f64 {
        match self {
            // The same windows saw both, so that one may be off whenever the other is.
            Seen::Windows(_) => a + b,
            _ => a.hypot(b),
        }
    }

    /// Half the widths of the intervals of an estimated number of objects, and of its bytes.
    fn errors(self, objects: i64, bytes: i64) -> (f64, f64) {
        let Seen::Rate(rate) = self else { return (0.0, 0.0) };
        if objects == 0 || bytes == 0 {
            return (0.0, 0.0);
        }
        // Negative in a difference.
        let size = (bytes as f64 / objects as f64).abs();
        let p = -(-size / rate as f64).exp_m1();
        // Of n objects one in 1/p seen: n p (1 - p) / p² (report/sampling.rs).
        let error = DEVIATIONS * (objects.unsigned_abs() as f64 * (1.0 - p) / p).sqrt();
        (error, error * size)
    }
}

impl Side {
    /// A capture.
    pub fn of_report(name: impl Into<String>, report: &Report) -> Side {
        let (capture, totals) = (&report.capture, &report.totals);
        let (seen, rate_bytes) = match capture.sampling {
            None => (Seen::Exact, None),
            Some(Sampling::Profiler { rate_bytes }) => (Seen::at_rate(rate_bytes.max(1)), Some(rate_bytes)),
            Some(Sampling::Windows(_)) => {
                (Seen::Windows(totals.alloc_objects as f64 / capture.events.max(1) as f64), None)
            }
        };
        let lives = totals.live_bytes.is_some();
        Side {
            name: name.into(),
            kind: SideKind::Capture,
            at: Some(capture.started_at.clone()),
            duration_s: Some(capture.duration_s),
            gc_cycles: Some(capture.gc_cycles),
            rate_bytes,
            totals: Measures::of_each(lives, |measure| signed(measure.total(totals))),
            notes: capture.notes.clone(),
            seen,
            sites: report.sites.iter().map(|site| SideSite::of(site, lives)).collect(),
        }
    }

    /// A heap profile.
    pub fn of_profile(name: impl Into<String>, profile: HeapProfile) -> Side {
        let seen = Seen::at_rate(profile.rate_bytes);
        let sites = profile.samples.into_iter().map(|sample| {
            let frames = sample.frames.into_iter().map(Frame::from).collect();
            (frames, sample.type_name.filter(|name| name != UNKNOWN_TYPE), sample.values)
        });
        let duration = Duration::from_nanos(profile.duration_ns);
        Side {
            at: (profile.time_unix_ns > 0).then(|| crate::report::rfc3339(profile.time_unix_ns)),
            duration_s: (!duration.is_zero()).then_some(duration.as_secs_f64()),
            notes: profile.comments,
            rate_bytes: (profile.rate_bytes > 0).then_some(profile.rate_bytes),
            ..Side::sampled(name.into(), SideKind::Profile, seen, sites)
        }
    }

    /// A snapshot, as `heaptap snapshot --json` prints it.
    ///
    /// # Errors
    /// Usage when it is none, or has no heap profile.
    pub fn of_snapshot(name: impl Into<String>, json: &[u8]) -> Result<Side> {
        let snapshot = SavedSnapshot::read(json)?;
        let Profile { rate, sites, .. } = snapshot.profile;
        let rate = u64::try_from(rate).unwrap_or(0);
        let sites = sites.into_iter().map(|site| {
            let of = site.values;
            (site.frames, None, [of.alloc_objects, of.alloc_bytes, of.inuse_objects, of.inuse_bytes])
        });
        Ok(Side {
            at: Some(snapshot.read_at),
            gc_cycles: snapshot.gc_cycles,
            notes: snapshot.notes,
            rate_bytes: (rate > 0).then_some(rate),
            ..Side::sampled(name.into(), SideKind::Snapshot, Seen::at_rate(rate), sites)
        })
    }

    fn sampled(
        name: String,
        kind: SideKind,
        seen: Seen,
        sites: impl Iterator<Item = (Vec<Frame>, Option<String>, [i64; 4])>,
    ) -> Side {
        let mut totals = [0_i64; 4];
        let sites = sites.map(|(frames, type_name, values)| {
            totals.iter_mut().zip(values).for_each(|(total, value)| *total = total.saturating_add(value));
            let [alloc_objects, alloc_bytes, live_objects, live_bytes] = values;
            let of_alloc = seen.errors(alloc_objects, alloc_bytes);
            let of_live = seen.errors(live_objects, live_bytes);
            let amounts = Measures {
                alloc_objects: Amount { value: alloc_objects, error: of_alloc.0 },
                alloc_bytes: Amount { value: alloc_bytes, error: of_alloc.1 },
                live_objects: Some(Amount { value: live_objects, error: of_live.0 }),
                live_bytes: Some(Amount { value: live_bytes, error: of_live.1 }),
            };
            SideSite { frames, type_name, amounts }
        });
        let sites = sites.collect();
        let [alloc_objects, alloc_bytes, live_objects, live_bytes] = totals;
        let totals = Measures {
            alloc_objects,
            alloc_bytes,
            live_objects: Some(live_objects),
            live_bytes: Some(live_bytes),
        };
        Side {
            name,
            kind,
            at: None,
            duration_s: None,
            gc_cycles: None,
            rate_bytes: None,
            totals,
            notes: Vec::new(),
            seen,
            sites,
        }
    }

    /// How much it has of what both sides are to have as much of.
    pub(super) fn quantity(&self, per: Per) -> Result<f64> {
        let (quantity, of) = match per {
            Per::Duration => (self.duration_s, "how long it took"),
            Per::Cycles => (self.gc_cycles.map(|cycles| cycles as f64), "how many GC cycles there were"),
            Per::Measure(measure) => {
                (self.totals.get(measure).map(|total| *total as f64), "which objects are alive")
            }
        };
        let other = "compare captures, or normalise by what was allocated (--per alloc-bytes)";
        match quantity {
            None => Err(Error::usage(format!("{} does not say {of}", self.name)).hint(other)),
            Some(quantity) if quantity > 0.0 => Ok(quantity),
            Some(_) => {
                Err(Error::usage(format!("{} has none of what is to be normalised by", self.name))
                    .hint(other))
            }
        }
    }

    /// How its numbers came about, in words.
    pub fn sampling(&self) -> String {
        match self.seen {
            Seen::Exact => "every allocation".into(),
            Seen::Rate(rate) => format!("estimates: one sample per {}", format_bytes(rate)),
            Seen::Windows(one_in) => format!("estimates: one object in {one_in:.0} seen, in windows"),
            Seen::Unknown => "sampled in a way it does not tell".into(),
        }
    }
}

impl SideSite {
    fn of(site: &Site, lives: bool) -> SideSite {
        let error = site.error_bytes.unwrap_or_default();
        let amounts = Measures::of_each(lives, |measure| {
            let (of_bytes, bytes) = match measure {
                Measure::AllocObjects | Measure::AllocBytes => (error.alloc, Measure::AllocBytes),
                Measure::LiveObjects | Measure::LiveBytes => (error.live.unwrap_or(0), Measure::LiveBytes),
            };
            // Of objects the same share as of bytes: those of one site have mostly one size.
            let share = measure.of(site) as f64 / bytes.of(site).max(1) as f64;
            let error = if measure.is_bytes() { of_bytes as f64 } else { of_bytes as f64 * share };
            Amount { value: signed(measure.of(site)), error }
        });
        let known = Some(&site.type_name).filter(|name| *name != UNKNOWN_TYPE);
        SideSite { frames: site.frames.clone(), type_name: known.cloned(), amounts }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
