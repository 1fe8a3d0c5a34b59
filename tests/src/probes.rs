//! Where a program is probed, and whether a process has a probe there.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::run_heaptap;

/// An instruction at which a program is probed.
#[derive(Debug, Deserialize)]
pub struct ProbeSite {
    /// As linked.
    pub address: u64,
    purpose: serde_json::Value,
}

impl ProbeSite {
    /// Whether it is there for allocations.
    pub fn is_allocation(&self) -> bool {
        self.purpose.get("alloc").is_some()
    }
}

/// What `heaptap plan` says of a program.
///
/// # Errors
/// When it fails, or what it prints is no plan.
pub fn probe_sites(program: &Path) -> Result<Vec<ProbeSite>> {
    probe_sites_of(program, "exact")
}

/// As [`probe_sites`], of a mode.
///
/// # Errors
/// As [`probe_sites`].
pub fn probe_sites_of(program: &Path, mode: &str) -> Result<Vec<ProbeSite>> {
    #[derive(Deserialize)]
    struct Plan {
        sites: Vec<ProbeSite>,
    }
    let path = program.to_str().context("a path in UTF-8")?;
    let ended = run_heaptap(&["plan", "--mode", mode, "--binary", path, "--json"])?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    let plan: Plan = serde_json::from_str(&ended.stdout)?;
    Ok(plan.sites)
}

/// A process's code at each address; five bytes hold any probe the kernel writes.
///
/// # Errors
/// When it cannot be read.
pub fn code(pid: u32, addresses: &[u64]) -> Result<Vec<[u8; 5]>> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let read = |&address: &u64| {
        let mut bytes = [0; 5];
        memory.read_exact_at(&mut bytes, address).with_context(|| format!("code at {address:#x}"))?;
        Ok(bytes)
    };
    addresses.iter().map(read).collect()
}
