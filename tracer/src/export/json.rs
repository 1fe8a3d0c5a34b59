//! The JSON report (docs/json.md).

use std::io::Write;

use super::put;
use crate::base::{Error, Result};
use crate::report::Report;

/// Writes the report as one indented JSON document.
///
/// # Errors
/// When `out` does not take it; a closed pipe is no error.
pub fn write(report: &Report, out: &mut impl Write) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(report)
        .map_err(|e| Error::failed("cannot encode the report").because(e))?;
    json.push(b'\n');
    put(out, &json)
}
