//! What C allocates, against what a program with C code says it did.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tests::report::Frame;
use tests::{PATIENCE, Variant, build, check_lines, end_recording, start_recording_with, start_target};

#[derive(Debug, Default, PartialEq, Deserialize)]
struct Sums {
    #[serde(alias = "alloc_objects")]
    objects: u64,
    #[serde(alias = "alloc_bytes")]
    bytes: u64,
    live_objects: u64,
    live_bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Site {
    #[serde(flatten)]
    sums: Sums,
    frames: Vec<Frame>,
}

#[derive(Debug, Deserialize)]
struct Report {
    c_sites: Vec<Site>,
    capture: Capture,
}

#[derive(Debug, Deserialize)]
struct Capture {
    notes: Vec<String>,
}

impl Report {
    /// Sums over the sites with this function, but for what a new thread needs: Go's runtime may
    /// start one in any of its functions.
    fn sums(&self, function: &str) -> Sums {
        let mut sums = Sums::default();
        let of_thread = |f: &Frame| f.function == "x_cgo_thread_start" || f.function.starts_with("ld-linux");
        let is_such = |site: &&Site| {
            site.frames.iter().any(|f| f.function == function) && !site.frames.first().is_some_and(of_thread)
        };
        for site in self.c_sites.iter().filter(is_such) {
            sums.objects += site.sums.objects;
            sums.bytes += site.sums.bytes;
            sums.live_objects += site.sums.live_objects;
            sums.live_bytes += site.sums.live_bytes;
        }
        sums
    }
}

mod privileged {
    use super::*;

    #[test]
    fn every_allocation_of_c_is_counted_and_every_free() -> Result<()> {
        check_lines(|line| {
            let mut target = start_target(&build("callocs", line, Variant::Cgo)?, &[])?;
            let scratch = tempfile::tempdir()?;
            let capture = scratch.path().join("c.heaptap");
            let record = start_recording_with(target.pid(), &capture, &["--cgo"])?;
            target.send("go")?;
            let said = target.stdout_line(|line| line.starts_with('{'), PATIENCE)?;
            end_recording(record)?;

            let expected: BTreeMap<String, Sums> = serde_json::from_str(&said)?;
            let report = tests::run_heaptap(&["report", capture.to_str().context("a path")?, "--json"])?;
            let report: Report = serde_json::from_str(&report.stdout)?;
            for (function, sums) in &expected {
                let seen = report.sums(function);
                ensure!(seen == *sums, "{function}: {seen:?}, not {sums:?}: {:#?}", report.c_sites);
            }
            let odd: Vec<_> = report.capture.notes.iter().filter(|note| note.contains("C's")).collect();
            ensure!(odd.is_empty(), "{odd:?}");
            Ok(())
        })
    }
}
