//! A snapshot as it was saved in JSON, as far as it is compared.

use serde::Deserialize;

use crate::base::{Error, Result};
use crate::report::snapshot::Profile;

/// What of a snapshot is compared.
pub(super) struct SavedSnapshot {
    pub(super) read_at: String,
    /// Since the program started.
    pub(super) gc_cycles: Option<u64>,
    pub(super) profile: Profile,
    pub(super) notes: Vec<String>,
}

#[derive(Deserialize)]
struct Document {
    read_at: Option<String>,
    #[serde(default)]
    memstats: Option<MemStats>,
    #[serde(default)]
    profile: Option<Profile>,
    #[serde(default)]
    notes: Vec<String>,
}

#[derive(Deserialize)]
struct MemStats {
    #[serde(rename = "NumGC")]
    num_gc: u64,
}

impl SavedSnapshot {
    pub(super) fn read(json: &[u8]) -> Result<SavedSnapshot> {
        let none = "save one with `heaptap snapshot --json -o FILE`, or compare capture files themselves";
        let document: Document = serde_json::from_slice(json)
            .map_err(|e| Error::usage("it is no snapshot, or it is damaged").because(e).hint(none))?;
        let Some(read_at) = document.read_at else {
            return Err(Error::usage("it is JSON, but no snapshot").hint(none));
        };
        let profile = document.profile.ok_or_else(|| {
            Error::usage("the snapshot has no heap profile")
                .hint("its notes say why; compare captures instead")
        })?;
        let gc_cycles = document.memstats.map(|stats| stats.num_gc);
        Ok(SavedSnapshot { read_at, gc_cycles, profile, notes: document.notes })
    }
}
