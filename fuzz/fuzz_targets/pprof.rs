//! Whatever a heap profile says, comparing it with another and writing that out ends without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer::export::{diff, flame, json, pprof};
use tracer::pprof::HeapProfile;
use tracer::report::diff::{Diff, DiffOptions, Per, Side};
use tracer::report::Measure;

fuzz_target!(|data: &[u8]| {
    // Snapshots are read from files, too.
    let _ = Side::of_snapshot("fuzz", data);
    let Ok(profile) = HeapProfile::read(data) else { return };
    let mut other = profile.clone();
    other.samples.truncate(profile.samples.len() / 2);
    other.rate_bytes = 512 << 10;
    for per in [None, Some(Per::Duration), Some(Per::Measure(Measure::AllocBytes))] {
        let sides = (Side::of_profile("a", profile.clone()), Side::of_profile("b", other.clone()));
        let Ok(compared) = Diff::build(sides.0, sides.1, DiffOptions { measure: None, per }) else { continue };
        diff::write(&compared, None, &mut Vec::new()).expect("text");
        json::write(&compared, &mut Vec::new()).expect("JSON");
        pprof::write_diff(&compared, &mut Vec::new()).expect("pprof");
        let drawn = flame::write_diff(&compared, &mut Vec::new());
        assert!(drawn.is_ok() || drawn.is_err_and(|e| e.to_string().contains("nothing to draw")));
    }
});
