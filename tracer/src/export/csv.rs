//! Sites as comma-separated values, quoted as in RFC 4180, for spreadsheets and data frames.

use std::io::Write;

use serde::Serialize;

use super::put;
use crate::base::{Error, Result};
use crate::report::{Kind, Report, Site};

/// A line. What is not known is an empty field.
#[derive(Debug, Serialize)]
struct Line<'a> {
    site: &'a str,
    function: &'a str,
    file: &'a str,
    line: u32,
    #[serde(rename = "type")]
    type_name: &'a str,
    kind: Kind,
    alloc_objects: u64,
    alloc_bytes: u64,
    requested_bytes: u64,
    live_objects: Option<u64>,
    live_bytes: Option<u64>,
    alloc_error_bytes: Option<u64>,
    live_error_bytes: Option<u64>,
    died_objects: Option<u64>,
    died_bytes: Option<u64>,
    growth_bytes_per_cycle: Option<f64>,
    growth_bytes_per_minute: Option<f64>,
    /// Functions, innermost first.
    stack: String,
}

impl<'a> Line<'a> {
    fn of(site: &'a Site) -> Line<'a> {
        let (top, life) = (site.frames.first(), site.life.as_ref());
        let functions: Vec<&str> = site.frames.iter().map(|frame| frame.function.as_str()).collect();
        Line {
            site: &site.id,
            function: top.map_or("", |frame| &frame.function),
            file: top.map_or("", |frame| &frame.file),
            line: top.map_or(0, |frame| frame.line),
            type_name: &site.type_name,
            kind: site.kind,
            alloc_objects: site.alloc_objects,
            alloc_bytes: site.alloc_bytes,
            requested_bytes: site.requested_bytes,
            live_objects: site.live_objects,
            live_bytes: site.live_bytes,
            alloc_error_bytes: site.error_bytes.map(|error| error.alloc),
            live_error_bytes: site.error_bytes.and_then(|error| error.live),
            died_objects: life.map(|life| life.died_objects),
            died_bytes: life.map(|life| life.died_bytes),
            growth_bytes_per_cycle: life.and_then(|life| life.growth_bytes_per_cycle),
            growth_bytes_per_minute: life.and_then(|life| life.growth_bytes_per_minute),
            stack: functions.join(";"),
        }
    }
}

/// The names of the columns: of a report without sites, all there is.
const HEAD: &str = "site,function,file,line,type,kind,alloc_objects,alloc_bytes,requested_bytes,live_objects,\
                    live_bytes,alloc_error_bytes,live_error_bytes,died_objects,died_bytes,\
                    growth_bytes_per_cycle,growth_bytes_per_minute,stack\n";

/// Writes a line of names, and one per site in the report's order.
///
/// # Errors
/// When `out` does not take it; a closed pipe is no error.
pub fn write(report: &Report, out: &mut impl Write) -> Result<()> {
    let cannot = |e: Box<dyn std::error::Error + Send + Sync>| Error::failed("cannot write CSV").because(e);
    let mut lines = csv::WriterBuilder::new().has_headers(false).from_writer(HEAD.as_bytes().to_vec());
    for site in &report.sites {
        lines.serialize(Line::of(site)).map_err(|e| cannot(e.into()))?;
    }
    let text = lines.into_inner().map_err(|e| cannot(e.to_string().into()))?;
    put(out, &text)
}
