//! Generates the table of Go runtime struct offsets that the tracer is built with.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use xtask::shell;

/// What `cargo xtask gen-layouts` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Measured offsets as JSON: Go version to struct to field to offset; `_variants`
    /// holds the structs in which a release or an experiment differs from its `_base`
    measurements: PathBuf,
}

/// The columns: what a layout is called in the measurements, and the first release (and
/// the experiment) that it holds for.
const COLUMNS: [(&str, &str); 12] = [
    ("1.19.8", "1.19.0"),
    ("1.21.13", "1.21.0"),
    ("1.22.10", "1.22.0"),
    ("1.23.1", "1.23.0"),
    // `work` changed in the patch release 1.23.4.
    ("1.23.9", "1.23.4"),
    ("1.24.11", "1.24.0"),
    ("1.24.11 GOEXPERIMENT=noswissmap", "1.24.0-X:noswissmap"),
    ("1.25.5", "1.25.0"),
    ("1.25.5 GOEXPERIMENT=greenteagc", "1.25.0-X:greenteagc"),
    ("1.26.6", "1.26.0"),
    ("1.26.6 GOEXPERIMENT=nogreenteagc", "1.26.0-X:nogreenteagc"),
    ("1.27.3", "1.27.0"),
];

/// The rows: a struct, and those of its fields that heaptap reads. `_size` is the size
/// of the struct. A struct or field that was renamed appears under each of its names.
const ROWS: [(&str, &[&str]); 36] = [
    ("internal/abi.MapType", &["_size"]),
    ("internal/abi.OldMapType", &["_size"]),
    ("internal/abi.SwissMapType", &["_size"]),
    ("internal/abi.Type", &["Size_", "PtrBytes", "TFlag", "Kind_", "Str"]),
    ("internal/runtime/maps.Map", &["_size", "used", "dirPtr", "dirLen", "globalDepth"]),
    ("internal/runtime/maps.groupsReference", &["data", "lengthMask"]),
    ("internal/runtime/maps.table", &["_size", "used", "capacity", "groups"]),
    ("runtime._type", &["size", "ptrdata", "tflag", "kind", "str"]),
    ("runtime.bucket", &["_size", "allnext", "typ", "size", "nstk"]),
    ("runtime.cleanupQueue", &["queued", "executed"]),
    ("runtime.consistentHeapStats", &["stats"]),
    ("runtime.finBlock", &["alllink", "cnt"]),
    ("runtime.finblock", &["alllink", "cnt"]),
    ("runtime.fixalloc", &["inuse"]),
    (
        "runtime.g",
        &[
            "m",
            "goid",
            "stack",
            "sched",
            "syscallsp",
            "syscallpc",
            "atomicstatus",
            "waitsince",
            "waitreason",
            "lockedm",
            "parentGoid",
            "gopc",
            "startpc",
        ],
    ),
    (
        "runtime.gcControllerState",
        &[
            "gcPercent",
            "memoryLimit",
            "gcPercentHeapGoal",
            "sweepDistMinTrigger",
            "triggered",
            "lastHeapGoal",
            "heapLive",
            "lastStackScan",
            "maxStackScan",
            "globalsScan",
            "heapMarked",
            "assistTime",
            "dedicatedMarkTime",
            "fractionalMarkTime",
            "idleMarkTime",
            "heapInUse",
            "heapReleased",
            "heapFree",
            "mappedReady",
        ],
    ),
    ("runtime.gList", &["_size", "size"]),
    ("runtime.gobuf", &["sp", "pc", "bp"]),
    ("runtime.hchan", &["_size", "qcount", "dataqsiz", "buf", "elemsize", "elemtype"]),
    ("runtime.heapArena", &["spans", "pageSpecials"]),
    (
        "runtime.heapStatsDelta",
        &[
            "_size",
            "inStacks",
            "inWorkBufs",
            "inPtrScalarBits",
            "tinyAllocCount",
            "largeAlloc",
            "largeAllocCount",
            "smallAllocCount",
            "largeFree",
            "largeFreeCount",
            "smallFreeCount",
        ],
    ),
    ("runtime.hmap", &["_size", "count", "B", "buckets", "oldbuckets"]),
    ("runtime.m", &["g0", "curg", "p"]),
    ("runtime.maptype", &["_size"]),
    ("runtime.mcache", &["nextSample", "memProfRate", "tinyAllocs", "alloc"]),
    ("runtime.memRecord", &["future"]),
    ("runtime.memRecordCycle", &["_size", "allocs", "frees", "alloc_bytes", "free_bytes"]),
    (
        "runtime.mheap",
        &[
            "sweepgen",
            "allspans",
            "arenas",
            "allArenas",
            "heapArenas",
            "userArenaArenas",
            "spanalloc",
            "cachealloc",
            "specialCleanupAlloc",
            "specialWeakHandleAlloc",
            "specialTinyBlockAlloc",
        ],
    ),
    (
        "runtime.mspan",
        &[
            "startAddr",
            "npages",
            "freeindex",
            "nelems",
            "allocBits",
            "gcmarkBits",
            "sweepgen",
            "allocCount",
            "spanclass",
            "state",
            "isUserArenaChunk",
            "allocCountBeforeCache",
            "elemsize",
            "limit",
            "largeType",
            "specials",
        ],
    ),
    (
        "runtime.mstats",
        &[
            "heapStats",
            "stacks_sys",
            "mspan_sys",
            "mcache_sys",
            "buckhash_sys",
            "gcMiscSys",
            "other_sys",
            "last_gc_unix",
            "pause_total_ns",
            "numgc",
            "numforcedgc",
            "gc_cpu_fraction",
        ],
    ),
    ("runtime.p", &["mcache", "gFree", "timers", "numTimers", "deletedTimers", "cleanupsQueued"]),
    ("runtime.schedt", &["mnext", "nmfreed", "ngsys", "gFree"]),
    ("runtime.special", &["next", "offset", "kind"]),
    ("runtime.specialfinalizer", &["fn", "ot"]),
    ("runtime.timers", &["len", "zombies"]),
    (
        "runtime.workType",
        &[
            "goroutineLeak",
            "userForced",
            "cycles",
            "stwprocs",
            "maxprocs",
            "tSweepTerm",
            "tMark",
            "tMarkTerm",
            "tEnd",
            "heap0",
            "heap1",
            "heap2",
            "cpuStats",
        ],
    ),
];

const TABLE: &str = "tracer/src/runtime/tables/offsets.tsv";

const HEAD: &str = "\
# Byte offsets in structs of the Go runtime, linux/amd64; read by runtime/offsets.rs.
# Generated by `cargo xtask gen-layouts`; do not edit. Measured from the DWARF of a
# program built with each toolchain and its default flags (see docs on adding a Go version).
# A column holds from the release that heads it up to the next column of the same line;
# `-X:` marks an experiment. `-`: no such field there.
";

pub(crate) fn run(args: &Args) -> Result<()> {
    let text =
        fs::read(&args.measurements).with_context(|| format!("reading {}", args.measurements.display()))?;
    let measured = Measured(serde_json::from_slice(&text)?);
    measured.check_variants()?;
    let path = shell::root().join(TABLE);
    fs::write(&path, measured.table()?).with_context(|| format!("writing {}", path.display()))
}

/// The measurements as they came.
struct Measured(Value);

impl Measured {
    fn table(&self) -> Result<String> {
        let mut out = HEAD.to_owned();
        let headings: Vec<&str> = COLUMNS.iter().map(|(_, heading)| *heading).collect();
        writeln!(out, "struct\tfield\t{}", headings.join("\t"))?;
        for (name, fields) in ROWS {
            for field in fields {
                let cells: Vec<String> = COLUMNS
                    .iter()
                    .map(|(column, _)| {
                        self.offset(column, name, field).map_or("-".to_owned(), |o| o.to_string())
                    })
                    .collect();
                if cells.iter().all(|cell| cell == "-") {
                    bail!("no measurement has {name}.{field}");
                }
                writeln!(out, "{name}\t{field}\t{}", cells.join("\t"))?;
            }
        }
        Ok(out)
    }

    /// The offset in a column, which may be a release or a variant of one.
    fn offset(&self, column: &str, name: &str, field: &str) -> Option<u64> {
        let Some(variant) = self.0["_variants"].get(column) else {
            return self.0[column][name][field].as_u64();
        };
        let absent = variant["absent"].as_array().is_some_and(|a| a.iter().any(|n| n == name));
        match variant["structs"].get(name) {
            Some(changed) => changed[field].as_u64(),
            None if absent => None,
            None => self.offset(variant["_base"].as_str()?, name, field),
        }
    }

    /// Sees to it that no variant without a column of its own differs in what is kept.
    fn check_variants(&self) -> Result<()> {
        for variant in self.0["_variants"].as_object().into_iter().flat_map(|v| v.keys()) {
            let base = self.0["_variants"][variant]["_base"].as_str().context("a variant without _base")?;
            for (name, fields) in ROWS {
                let differs =
                    |field: &&&str| self.offset(variant, name, field) != self.offset(base, name, field);
                if COLUMNS.iter().all(|(column, _)| column != variant)
                    && let Some(field) = fields.iter().find(differs)
                {
                    bail!("{name}.{field} differs between {base} and {variant}: add a column");
                }
            }
        }
        Ok(())
    }
}
