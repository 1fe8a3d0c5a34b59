//! What was alive before the recording, as the runtime's own heap profiler has sampled it.

use crate::base::Noted;
use crate::event::{Baseline, BaselineRow};
use crate::memory::LiveMemory;
use crate::runtime::{Bucket, Layout, ProfileReader};
use crate::target::Identity;

/// Rows of the baseline in one event, so that no event outgrows a frame of the file.
const ROWS: usize = 256;

/// The baseline in pieces; none, and a note, where it is unknown.
pub(super) fn baseline(target: &Identity, layout: &Layout, memory: &LiveMemory) -> Noted<Vec<Baseline>> {
    let profile = ProfileReader::new(&target.binary, layout, target.target.load_bias)
        .and_then(|reader| reader.read(memory));
    match profile {
        Ok(Noted { value: profile, notes }) => {
            let rate = profile.rate;
            let rows: Vec<BaselineRow> = profile.buckets.iter().filter_map(|b| alive(b, rate)).collect();
            let mut value = vec![Baseline { rate, rows: Vec::new() }];
            value.extend(rows.chunks(ROWS).map(|rows| Baseline { rate, rows: rows.to_vec() }));
            Noted { value, notes }
        }
        Err(e) => Noted {
            value: Vec::new(),
            notes: vec![format!("what was alive before the capture is unknown: {e}")],
        },
    }
}

/// What a bucket of the heap profile says is alive, as of now: objects that the GC has
/// not yet looked at are taken to be.
fn alive(bucket: &Bucket, rate: i64) -> Option<BaselineRow> {
    let amounts = bucket.all().unsampled(rate);
    (amounts.inuse_objects > 0).then(|| BaselineRow {
        pcs: bucket.pcs.clone(),
        object_size: bucket.size,
        inuse_objects: amounts.inuse_objects,
        inuse_bytes: amounts.inuse_bytes,
        alloc_objects: amounts.alloc_objects,
        alloc_bytes: amounts.alloc_bytes,
    })
}
