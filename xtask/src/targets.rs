//! Go target programs, built per Go line and variant, and cached: those below `tests/go/`, and
//! others of one file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::go::GoLine;
use crate::shell;

/// How a target program is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variant {
    /// `go build`: symbols and DWARF.
    Plain,
    /// `-ldflags "-s -w"`: neither symbols nor DWARF, as released programs are.
    Stripped,
    /// `-buildmode=pie`: loaded at an address chosen at start.
    Pie,
    /// With cgo, linked by the C linker.
    Cgo,
}

impl Variant {
    pub const ALL: [Variant; 4] = [Variant::Plain, Variant::Stripped, Variant::Pie, Variant::Cgo];
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Variant::Plain => "plain",
            Variant::Stripped => "stripped",
            Variant::Pie => "pie",
            Variant::Cgo => "cgo",
        })
    }
}

/// The directory of a target program's source.
pub fn source_dir(name: &str) -> PathBuf {
    shell::root().join("tests/go").join(name)
}

/// Builds the target program `tests/go/NAME` and returns the executable, which is called
/// NAME. An executable already built from the same sources is used again.
///
/// # Errors
/// When there is no such program, no toolchain, or it does not compile.
pub fn build(name: &str, line: GoLine, variant: Variant) -> Result<PathBuf> {
    build_with(name, line, variant, &[])
}

/// As [`build`], with more environment for the compiler, as `("GOAMD64", "v3")`.
///
/// # Errors
/// As [`build`].
pub fn build_with(name: &str, line: GoLine, variant: Variant, env: &[(&str, &str)]) -> Result<PathBuf> {
    let source = source_dir(name);
    let mut hash = Sha256::new();
    hash_sources(&source, &mut hash).with_context(|| format!("reading {}", source.display()))?;
    cached(name, &source, ".", hash, line, variant, env)
}

/// As [`build_with`], of a program that is one Go file, and is to be called `name`.
///
/// # Errors
/// As [`build`].
pub fn build_file(
    file: &Path,
    name: &str,
    line: GoLine,
    variant: Variant,
    env: &[(&str, &str)],
) -> Result<PathBuf> {
    let source = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let dir = file.parent().context("a file in a directory")?;
    let package = file.file_name().and_then(|name| name.to_str()).context("a name in UTF-8")?;
    cached(name, dir, package, Sha256::new_with_prefix(source), line, variant, env)
}

/// The program of these sources: built, unless it has been before.
fn cached(
    name: &str,
    source: &Path,
    package: &str,
    mut hash: Sha256,
    line: GoLine,
    variant: Variant,
    env: &[(&str, &str)],
) -> Result<PathBuf> {
    for (key, value) in env {
        hash.update(format!("{key}={value};"));
    }
    let digest: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let all = shell::root().join("target/go-targets");
    let dir = all.join(format!("{name}-{}-{variant}-{digest}", line.version));
    let program = dir.join(name);
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&all)?;
    let scratch = tempfile::tempdir_in(&all)?;
    let mut go = line.command()?;
    go.current_dir(source).arg("build").arg("-o").arg(scratch.path().join(name));
    choose(&mut go, variant, env)?;
    shell::run(go.arg(package)).with_context(|| format!("building {} with Go {line}", source.display()))?;
    // Another process may have built the same meanwhile: then its copy is as good.
    if let Err(error) = fs::rename(scratch.path(), &dir)
        && !program.exists()
    {
        return Err(error).with_context(|| format!("moving the program to {}", dir.display()));
    }
    Ok(program)
}

/// Flags and environment of the variant.
fn choose(go: &mut Command, variant: Variant, env: &[(&str, &str)]) -> Result<()> {
    let cgo = variant == Variant::Cgo || env.contains(&("CGO_ENABLED", "1"));
    if cgo && !shell::on_path("gcc") {
        shell::apt_install(&["gcc", "libc6-dev"])?;
    }
    go.env("CGO_ENABLED", if cgo { "1" } else { "0" }).envs(env.iter().copied());
    match variant {
        Variant::Plain => {}
        Variant::Stripped => _ = go.arg("-ldflags=-s -w"),
        Variant::Pie => _ = go.arg("-buildmode=pie"),
        Variant::Cgo => _ = go.arg("-ldflags=-linkmode=external"),
    }
    Ok(())
}

fn hash_sources(dir: &Path, hash: &mut Sha256) -> Result<()> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    for file in files {
        hash.update(file.as_os_str().as_encoded_bytes());
        if file.is_dir() {
            hash_sources(&file, hash)?;
        } else {
            hash.update(fs::read(&file)?);
        }
    }
    Ok(())
}
