//! What the target program `exact` says it allocated, and how a report compares with it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::report::{Frame, Report, Site};

/// The truth: see tests/go/exact/main.go for what each field means.
#[derive(Debug, Deserialize)]
pub struct Manifest {
    pub sites: Vec<ExpectedSite>,
    pub mallocs: u64,
    pub gc_cycles: u32,
}

#[derive(Debug, Deserialize)]
pub struct ExpectedSite {
    pub name: String,
    frames: Vec<ExpectedFrame>,
    pub objects: u64,
    #[serde(default)]
    pub bytes: u64,
    /// Empty for sites whose numbers differ from run to run.
    #[serde(default)]
    rows: Option<Vec<Row>>,
}

#[derive(Debug, Deserialize)]
struct ExpectedFrame {
    function: String,
    #[serde(default)]
    marker: String,
    inlined: bool,
}

#[derive(Debug, Deserialize)]
struct Row {
    #[serde(rename = "type", default)]
    type_: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    marker: String,
    objects: u64,
    #[serde(default)]
    requested: u64,
}

/// Code positions named by comments `// site:NAME` in Go sources: file name and line.
#[derive(Debug)]
pub struct Markers(BTreeMap<String, (String, u32)>);

impl Markers {
    /// Reads the markers of the Go files in a directory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(dir: &Path) -> Result<Markers> {
        let mut markers = BTreeMap::new();
        for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
            let path = entry?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for (line, text) in (1..).zip(fs::read_to_string(&path)?.lines()) {
                if let Some((_, name)) = text.split_once("// site:") {
                    markers.insert(name.trim().to_owned(), (file.clone(), line));
                }
            }
        }
        Ok(Markers(markers))
    }

    /// Whether the frame is at the marker; anywhere is right where none is named.
    fn at(&self, marker: &str, frame: &Frame) -> bool {
        marker.is_empty()
            || self.0.get(marker).is_some_and(|(file, line)| {
                *line == frame.line && Path::new(&frame.file).file_name().is_some_and(|name| name == &**file)
            })
    }
}

impl Manifest {
    /// Every way in which the report differs from the truth; none when it is exact.
    pub fn differences(&self, report: &Report, markers: &Markers) -> Vec<String> {
        let mut differences = Vec::new();
        for expected in &self.sites {
            let found: Vec<&Site> =
                report.sites.iter().filter(|site| expected.matches(site, markers)).collect();
            differences.extend(expected.differences(&found, markers));
        }
        differences
    }

    /// The report's sites that are in code whose allocations do not vary from run to run.
    pub fn steady_sites<'r>(&self, report: &'r Report, markers: &Markers) -> Vec<&'r Site> {
        let steady = |site: &&Site| self.sites.iter().any(|e| e.rows.is_some() && e.matches(site, markers));
        report.sites.iter().filter(steady).collect()
    }
}

impl ExpectedSite {
    fn matches(&self, site: &Site, markers: &Markers) -> bool {
        let own = site.own_frames();
        // Where an allocation starts a GC cycle, the runtime may allocate for itself.
        let by_the_runtime = self.rows.is_some() && site.kind == "runtime";
        !by_the_runtime
            && own.len() >= self.frames.len()
            && self.frames.iter().zip(own).all(|(expected, frame)| {
                expected.function == frame.function
                    && expected.inlined == frame.inlined
                    && markers.at(&expected.marker, frame)
            })
    }

    fn differences(&self, found: &[&Site], markers: &Markers) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |what: &str, expected: u64, got: u64| {
            if expected != got {
                wrong.push(format!(
                    "{}: {what}: expected {expected}, got {got}{}",
                    self.name,
                    listing(found)
                ));
            }
        };
        check("objects", self.objects, sum(found, |site| site.alloc_objects));
        if self.bytes > 0 {
            check("bytes", self.bytes, sum(found, |site| site.alloc_bytes));
        }
        for row in self.rows.iter().flatten() {
            let of_row: Vec<&Site> =
                found.iter().copied().filter(|site| row.matches(site, markers)).collect();
            let what = format!("{} {}", row.kind, row.type_);
            check(&format!("{what} objects"), row.objects, sum(&of_row, |site| site.alloc_objects));
            if row.requested > 0 {
                check(&format!("{what} requested"), row.requested, sum(&of_row, |site| site.requested_bytes));
            }
        }
        wrong
    }
}

impl Row {
    fn matches(&self, site: &Site, markers: &Markers) -> bool {
        (self.type_.is_empty() || self.type_ == site.type_)
            && (self.kind.is_empty() || self.kind == site.kind)
            && site.own_frames().first().is_some_and(|frame| markers.at(&self.marker, frame))
    }
}

fn sum(sites: &[&Site], value: impl Fn(&Site) -> u64) -> u64 {
    sites.iter().map(|site| value(site)).sum()
}

/// The sites found, for people who have to find out what is wrong.
fn listing(sites: &[&Site]) -> String {
    let mut text = String::new();
    for site in sites.iter().take(5) {
        let (kind, type_, objects) = (&site.kind, &site.type_, site.alloc_objects);
        _ = write!(text, "\n    {objects} objects, {} B, {kind} {type_}", site.alloc_bytes);
        if let Some(frame) = site.own_frames().first() {
            _ = write!(text, " at {}:{}", frame.file, frame.line);
        }
    }
    text
}
