//! Reports as JSON (docs/json.md).

use std::io::Write;

use serde::Serialize;

use super::put;
use crate::base::{Error, Result};

/// Writes the report as one indented JSON document.
///
/// # Errors
/// When `out` does not take it; a closed pipe is no error.
pub fn write(report: &impl Serialize, out: &mut impl Write) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(report)
        .map_err(|e| Error::failed("cannot encode the report").because(e))?;
    json.push(b'\n');
    put(out, &json)
}
