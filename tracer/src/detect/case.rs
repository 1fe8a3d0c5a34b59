//! What detectors look at.

use super::trend::Trend;
use crate::model::State;
use crate::report::{Report, Series, Site};

/// A capture, and the sites in it that grow.
#[derive(Debug)]
pub struct Case<'a> {
    pub state: &'a State,
    pub report: &'a Report,
    /// Those that grow fastest first.
    pub suspects: Vec<Suspect>,
}

/// A site whose live bytes grow by more than the noise.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspect {
    /// Index in [`Report::sites`].
    pub site: usize,
    pub trend: Trend,
    /// Live bytes after GC cycles.
    pub series: Series,
}

impl<'a> Case<'a> {
    /// Judges every site.
    pub fn new(state: &'a State, report: &'a Report) -> Case<'a> {
        let start_ns = state.start.as_ref().map_or(0, |start| start.time_ns);
        let suspect = |(index, site): (usize, &Site)| {
            let points = points(site, start_ns);
            let trend = Trend::of(&points).filter(Trend::is_growth)?;
            let series = Series { name: "live bytes".into(), unit: "bytes".into(), points };
            Some(Suspect { site: index, trend, series })
        };
        let mut suspects: Vec<Suspect> = report.sites.iter().enumerate().filter_map(suspect).collect();
        suspects.sort_by(|a, b| b.trend.bytes_per_s.total_cmp(&a.trend.bytes_per_s));
        Case { state, report, suspects }
    }

    /// The site of a suspect.
    pub fn site(&self, suspect: &Suspect) -> &'a Site {
        &self.report.sites[suspect.site]
    }
}

/// Live bytes of a site by seconds since the capture began.
fn points(site: &Site, start_ns: u64) -> Vec<(f64, f64)> {
    let history = site.life.iter().flat_map(|life| &life.history);
    history.map(|point| (point.time_ns.saturating_sub(start_ns) as f64 / 1e9, point.bytes)).collect()
}
