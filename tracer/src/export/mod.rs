//! Reports put out as text, JSON, CSV, pprof, folded stacks, flame graphs, pages or Markdown (tier 6).

pub mod csv;
pub mod diff;
pub mod findings;
pub mod flame;
pub mod folded;
pub mod gc;
pub mod goroutines;
pub mod html;
pub mod json;
pub mod markdown;
pub mod perfetto;
pub mod pprof;
pub mod snapshot;
pub mod stream;
pub mod text;

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::Path;

use crate::base::{Error, Result};

/// Hands `bytes` to `out`. A reader that closed the pipe has seen enough: success.
///
/// # Errors
/// When `out` does not take them.
fn put(out: &mut impl Write, bytes: &[u8]) -> Result<()> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Error::failed("cannot write the report").because(e))
        }
        _ => Ok(()),
    }
}

/// Creates the file `path` with what `write` puts out.
///
/// # Errors
/// When it cannot be created or written; those of `write`.
pub fn to_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let cannot = |e| Error::failed(format!("cannot write {}", path.display())).because(e);
    let mut out = BufWriter::new(File::create(path).map_err(cannot)?);
    write(&mut out)?;
    out.flush().map_err(cannot)
}

/// Names come from the target: control characters must not reach a terminal.
fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        Cow::Owned(text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}
