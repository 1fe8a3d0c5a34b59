//! Helpers the tests share: Go lines and target programs to test on, running heaptap.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use xtask::go;
pub use xtask::go::GoLine;
pub use xtask::process::{Ended, Process, Signal};
pub use xtask::targets::{Variant, build, build_with, source_dir};

/// The Go lines to test on: `HEAPTAP_TEST_GO` (as `1.24,1.27`, or `all`), else the subset.
///
/// # Errors
/// When the variable names a line that is not tested.
pub fn go_lines() -> Result<Vec<GoLine>> {
    let choice = std::env::var("HEAPTAP_TEST_GO").unwrap_or_else(|_| "subset".to_owned());
    go::parse_lines(&choice).context("HEAPTAP_TEST_GO")
}

/// The built program `heaptap`: `HEAPTAP_BIN` (set by `cargo xtask test`), else the one
/// that a plain build leaves.
pub fn heaptap() -> Command {
    let built = || xtask::shell::root().join("target/debug/heaptap");
    Command::new(std::env::var_os("HEAPTAP_BIN").map_or_else(built, PathBuf::from))
}
