//! Checks what the compiler does not: tiers, unsafe code, file heads and lengths, words
//! that have no place in the repository, and links between documents.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xtask::shell;

/// What `cargo xtask tidy` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// A file longer than this is two files; from `LONG_FILE` on it is time to think so.
const MAX_LINES: usize = 800;
const LONG_FILE: usize = 600;

/// Generated files say so in their first lines, and may be of any length.
const GENERATED: &str = "@generated";

/// Where unsafe code may stand; a directory stands for all below it.
const UNSAFE_ALLOWED: [&str; 5] = [
    "tracer/src/memory/live.rs",
    "tracer/src/source/live",
    "tracer/src/target/spawn.rs",
    "tracer-common",
    "tracer-ebpf",
];

/// Addresses of package registries: what comes from where is the package managers' matter.
/// Written in pieces, so that this file passes.
const REGISTRIES: [&str; 3] =
    [concat!("crates", ".io"), concat!("pypi", ".org"), concat!("proxy.golang", ".org")];

/// Directories of one machine; a path into one of them works there only.
const HOMES: [&str; 3] = ["/root/", "/home/", "/work/"];

pub(crate) fn run(_args: &Args) -> Result<()> {
    let Findings { errors, warnings } = check(&shell::root())?;
    for line in warnings.iter().map(|w| format!("warning: {w}")).chain(errors.iter().cloned()) {
        println!("{line}");
    }
    if !errors.is_empty() {
        bail!("{} findings", errors.len());
    }
    println!("tidy");
    Ok(())
}

#[derive(Debug, Default)]
struct Findings {
    errors: Vec<String>,
    warnings: Vec<String>,
}

fn check(root: &Path) -> Result<Findings> {
    let tiers = read_tiers(&fs::read_to_string(root.join("tracer/src/lib.rs"))?)?;
    let mut files = Vec::new();
    walk(root, &mut files)?;
    files.sort();
    let mut findings = Findings::default();
    for file in files {
        // What is not text is data.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let path = file.strip_prefix(root)?.to_string_lossy().into_owned();
        findings.errors.extend(foreign_words(&path, &text));
        match file.extension().and_then(|e| e.to_str()) {
            Some("rs") => check_rust(&path, &text, &tiers, &mut findings),
            Some("md") => findings.errors.extend(broken_links(root, &path, &text)),
            _ => {}
        }
    }
    Ok(findings)
}

fn check_rust(path: &str, text: &str, tiers: &Tiers, findings: &mut Findings) {
    if !text.starts_with("//! ") {
        findings.errors.push(format!("{path}:1: a file begins with a `//!` sentence saying what it is for"));
    }
    let lines = text.lines().count();
    let generated = text.lines().take(5).any(|line| line.contains(GENERATED));
    if lines > MAX_LINES && !generated {
        findings.errors.push(format!("{path}: {lines} lines, more than {MAX_LINES}"));
    } else if lines > LONG_FILE && !generated {
        findings.warnings.push(format!("{path}: {lines} lines, more than {LONG_FILE}"));
    }
    findings.errors.extend(misplaced_unsafe(path, text));
    findings.errors.extend(tier_breaches(path, text, tiers));
}

/// Every file of the repository that is not built or fetched.
fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    const SKIPPED: [&str; 5] = ["target", ".git", "corpus", "artifacts", "Cargo.lock"];
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        if SKIPPED.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// The tier of each top module of the library.
type Tiers = BTreeMap<String, u32>;

/// Reads the tiers from lib.rs, where each `// Tier N` stands above its modules.
fn read_tiers(lib: &str) -> Result<Tiers> {
    let mut tiers = Tiers::new();
    let mut tier = None;
    for line in lib.lines() {
        if let Some(rest) = line.strip_prefix("// Tier ") {
            tier = Some(rest.trim().parse().with_context(|| format!("lib.rs: {line}"))?);
        } else if let Some(name) = line.strip_prefix("pub mod ").and_then(|l| l.strip_suffix(';')) {
            tiers.insert(name.to_owned(), tier.with_context(|| format!("lib.rs: {name} has no tier"))?);
        }
    }
    Ok(tiers)
}

/// Paths in the code of one module that lead to its own tier or a higher one.
fn tier_breaches(path: &str, text: &str, tiers: &Tiers) -> Vec<String> {
    let Some(inside) = path.strip_prefix("tracer/src/") else { return Vec::new() };
    let own = inside.split(['/', '.']).next().unwrap_or_default();
    let Some(&own_tier) = tiers.get(own) else { return Vec::new() };
    let mut breaches = Vec::new();
    for (number, imported) in crate_paths(text) {
        if let Some(&tier) = tiers.get(imported)
            && imported != own
            && tier >= own_tier
        {
            breaches.push(format!(
                "{path}:{number}: {own} (tier {own_tier}) may not use {imported} (tier {tier})"
            ));
        }
    }
    breaches
}

/// The first names after each `crate::` of the code, groups included, with their lines.
fn crate_paths(text: &str) -> Vec<(usize, &str)> {
    let mut paths = Vec::new();
    for (start, root) in text.match_indices("crate::") {
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let before = &text[line_start..start];
        if before.contains("//") || before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let number = text[..start].matches('\n').count() + 1;
        let rest = &text[start + root.len()..];
        match rest.strip_prefix('{') {
            Some(group) => paths.extend(group_heads(group).into_iter().map(|name| (number, name))),
            None => paths.push((number, leading_name(rest))),
        }
    }
    paths
}

/// The first name of each path in a `{…}` group whose brace is already taken.
fn group_heads(group: &str) -> Vec<&str> {
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut part = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                heads.push(leading_name(group[part..at].trim_start()));
                part = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads
}

fn leading_name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

fn misplaced_unsafe(path: &str, text: &str) -> Vec<String> {
    if UNSAFE_ALLOWED.iter().any(|allowed| Path::new(path).starts_with(allowed)) {
        return Vec::new();
    }
    let is_unsafe = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
            .iter()
            .any(|form| code.split_once(form).is_some_and(|(before, _)| before.matches('"').count() % 2 == 0))
    };
    let lines = text.lines().enumerate().filter(|(_, line)| is_unsafe(line));
    lines.map(|(i, _)| format!("{path}:{}: unsafe code is not allowed in this file", i + 1)).collect()
}

/// Registry addresses, and paths of one machine.
fn foreign_words(path: &str, text: &str) -> Vec<String> {
    let into_home = |line: &str| {
        HOMES.into_iter().find(|home| {
            line.match_indices(home).any(|(at, _)| line[at + home.len()..].starts_with(char::is_alphanumeric))
        })
    };
    let in_line = |line: &str| REGISTRIES.into_iter().find(|host| line.contains(host)).or(into_home(line));
    let lines = (1..).zip(text.lines());
    lines
        .filter_map(|(n, line)| Some(format!("{path}:{n}: {:?} has no place here", in_line(line)?)))
        .collect()
}

/// Links of a document to files that are not there. Addresses and anchors are left alone.
fn broken_links(root: &Path, path: &str, text: &str) -> Vec<String> {
    let dir = root.join(path).parent().map(Path::to_path_buf).unwrap_or_default();
    let mut broken = Vec::new();
    for (i, line) in text.lines().enumerate() {
        for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !dir.join(file).exists() {
                broken.push(format!("{path}:{}: link to {file}, which does not exist", i + 1));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let findings = check(&shell::root()).expect("readable sources");
        assert!(findings.errors.is_empty(), "\n{}", findings.errors.join("\n"));
    }

    #[test]
    fn tiers_are_kept() {
        let lib = "// Tier 0\npub mod base;\n\n// Tier 1\npub mod binary;\npub mod memory;\n";
        let tiers = read_tiers(lib).expect("tiers");
        let breaches = |path: &str, text: &str| tier_breaches(path, text, &tiers).len();
        assert_eq!(breaches("tracer/src/binary/elf.rs", "use crate::base::Error;"), 0);
        assert_eq!(breaches("tracer/src/binary/elf.rs", "use crate::binary::Elf;"), 0);
        assert_eq!(breaches("tracer/src/binary/elf.rs", "use crate::memory::Live;"), 1);
        assert_eq!(breaches("tracer/src/base/mod.rs", "use crate::{memory, binary::{Elf, Pe}};"), 2);
        assert_eq!(breaches("tracer/src/base/mod.rs", "fn f() { crate::binary::f() }"), 1);
        assert_eq!(breaches("tracer/src/base/mod.rs", "// see crate::binary"), 0);
        assert!(read_tiers("pub mod base;").is_err());
    }

    #[test]
    fn unsafe_code_stays_where_it_is_listed() {
        let code = "let x = unsafe { f() };";
        assert_eq!(misplaced_unsafe("tracer/src/memory/live.rs", code).len(), 0);
        assert_eq!(misplaced_unsafe("tracer-common/src/lib.rs", code).len(), 0);
        assert_eq!(misplaced_unsafe("tracer/src/model/mod.rs", code).len(), 1);
        assert_eq!(misplaced_unsafe("tracer/src/model/mod.rs", "// unsafe { }").len(), 0);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        assert_eq!(foreign_words("x", concat!("see /home", "/gopher/src")).len(), 1);
        assert_eq!(foreign_words("x", "no path may begin with \"/home/\"").len(), 0);
    }

    #[test]
    fn links_lead_somewhere() {
        let text = "[a](Cargo.toml) [b](https://example.org/x) [c](#part)\n[d](no-such.md#part)";
        let broken = broken_links(&shell::root(), "README.md", text);
        assert_eq!(broken, ["README.md:2: link to no-such.md, which does not exist"]);
    }
}
