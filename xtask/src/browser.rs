//! Headless Chromium and its driver, found or installed.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::shell;

/// The Debian packages, and where the driver is then.
const PACKAGES: [&str; 2] = ["chromium", "chromium-driver"];
const DRIVER: &str = "/usr/bin/chromedriver";
const BROWSER: &str = "/usr/bin/chromium";

/// What Chromium is started with: it needs no screen and no sandbox of its own, for which root
/// is too mighty, and asks the network for nothing.
pub const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// The path of the WebDriver server, installed first, with the browser, where it is missing.
///
/// # Errors
/// When it is missing and cannot be installed.
pub fn driver() -> Result<PathBuf> {
    let is_there = || [DRIVER, BROWSER].iter().all(|path| PathBuf::from(path).exists());
    if !is_there() {
        shell::apt_install(&PACKAGES).context("no Chromium to test pages in")?;
    }
    if !is_there() {
        bail!("the packages {} did not install {DRIVER} and {BROWSER}", PACKAGES.join(" and "));
    }
    Ok(DRIVER.into())
}
