//! The checked-in eBPF object and its sidecar, which says what it was built from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::shell::root;

/// What an object is built from, relative to the top of the work tree; directories with
/// all they hold.
const SOURCES: [&str; 5] = [
    "tracer-common/Cargo.toml",
    "tracer-common/src",
    "tracer-ebpf/Cargo.lock",
    "tracer-ebpf/Cargo.toml",
    "tracer-ebpf/src",
];

/// The object that `tracer` includes.
pub fn object_path() -> PathBuf {
    root().join("tracer/bpf/heaptap.bpf.o")
}

/// Beside it, a [`Sidecar`] in JSON.
pub fn sidecar_path() -> PathBuf {
    object_path().with_extension("json")
}

/// What an object was built from, and with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    /// SHA-256 of the object, in hex.
    pub object: String,
    /// As `rustc --version` prints it.
    pub rustc: String,
    /// As `bpf-linker --version` prints it.
    pub linker: String,
    /// SHA-256 of each source file, in hex, by its path in the work tree.
    pub sources: BTreeMap<String, String>,
}

impl Sidecar {
    /// The checked-in one.
    ///
    /// # Errors
    /// When it is missing or not a sidecar.
    pub fn read() -> Result<Sidecar> {
        let path = sidecar_path();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
    }
}

/// SHA-256 of `bytes`, in hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hashes of the sources as they are now, as [`Sidecar::sources`].
///
/// # Errors
/// When one cannot be read.
pub fn sources() -> Result<BTreeMap<String, String>> {
    let mut hashes = BTreeMap::new();
    for source in SOURCES {
        hash_below(Path::new(source), &mut hashes)?;
    }
    Ok(hashes)
}

fn hash_below(source: &Path, hashes: &mut BTreeMap<String, String>) -> Result<()> {
    let path = root().join(source);
    if !path.is_dir() {
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        hashes.insert(source.to_string_lossy().into_owned(), sha256(&bytes));
        return Ok(());
    }
    for entry in fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))? {
        hash_below(&source.join(entry?.file_name()), hashes)?;
    }
    Ok(())
}
