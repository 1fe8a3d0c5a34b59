//! What one Go version's runtime looks like in memory: the only place that decides by
//! version.

use super::offsets::Offsets;
use super::version::GoVersion;
use crate::base::{Error, Result};
use crate::binary::Binary;

/// Where the runtime keeps what heaptap reads. Offsets are in bytes from the start of
/// the struct (Go's name for it on each member), sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// `runtime.g`
    pub g: G,
    /// `runtime.m`
    pub m: M,
    /// `runtime.p`: its `mcache` pointer
    pub p_mcache: u64,
    /// `runtime.mcache`
    pub mcache: Mcache,
    /// `runtime.mspan`
    pub mspan: Mspan,
    /// `runtime.mstats`
    pub memstats: Memstats,
    /// `runtime.mheap`: its `sweepgen`, a u32
    pub mheap_sweepgen: u64,
    /// `runtime.mheap`: its `allspans`, a slice of `*mspan`
    pub mheap_allspans: u64,
    /// `runtime.gcControllerState`: its `mappedReady`
    pub gc_controller_mapped_ready: u64,
    /// `runtime.work`: the count of GC cycles, a u32
    pub work_cycles: u64,
    /// `internal/abi.Type` (`runtime._type` before 1.21)
    pub types: Type,
    /// Whether objects with pointers above 512 bytes carry an 8-byte header.
    pub malloc_headers: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct G {
    pub m: u64,
    pub goid: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct M {
    pub g0: u64,
    pub curg: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mcache {
    pub tiny_allocs: u64,
    /// An array of `*mspan`, indexed by span class.
    pub alloc: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mspan {
    /// A word, as are the fields here without another size.
    pub start_addr: u64,
    pub npages: u64,
    /// A word or a u16 (`narrow_indices`).
    pub freeindex: u64,
    /// A word or a u16 (`narrow_indices`).
    pub nelems: u64,
    pub alloc_bits: u64,
    pub gcmark_bits: u64,
    /// A u32.
    pub sweepgen: u64,
    /// A u16.
    pub alloc_count: u64,
    /// A u8: the size class, doubled, plus 1 for objects without pointers.
    pub spanclass: u64,
    /// A u8.
    pub state: u64,
    /// A bool, where there are user arenas (Go 1.20).
    pub is_user_arena_chunk: Option<u64>,
    pub elemsize: u64,
    pub limit: u64,
    /// Whether `freeindex` and `nelems` are u16 (Go 1.22) instead of words.
    pub narrow_indices: bool,
    /// A u16.
    pub alloc_count_before_cache: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memstats {
    /// Three `heapStatsDelta`, one after the other.
    pub heap_stats: u64,
    pub buckhash_sys: u64,
    pub delta: HeapStatsDelta,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeapStatsDelta {
    pub size: u64,
    pub tiny_alloc_count: u64,
    pub large_alloc: u64,
    pub large_alloc_count: u64,
    /// An array of u64, indexed by size class.
    pub small_alloc_count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type {
    pub size: u64,
    pub ptr_bytes: u64,
    pub tflag: u64,
    pub kind: u64,
    /// The name, an i32 offset from its module's `types`.
    pub str: u64,
    /// Size of the descriptor of a map type.
    pub map_size: u64,
}

impl Layout {
    /// The layout of the runtime in this binary: from its DWARF, else from the tables
    /// measured for its Go version.
    ///
    /// `go_version` is as the binary tells it (`Binary::go_version`) or as the user
    /// assumes it.
    ///
    /// # Errors
    /// Usage when Go is older than 1.19. Failed when the version was never measured and
    /// the binary has no DWARF that tells.
    pub fn for_binary(binary: &Binary, go_version: &str) -> Result<Layout> {
        let version = GoVersion::parse(go_version);
        if let Some(old) = version.as_ref().filter(|v| v.minor < OLDEST) {
            return Err(too_old(old));
        }
        let measured = version.as_ref().and_then(Offsets::measured);
        let offsets = match (binary.has_dwarf().then(|| Offsets::from_dwarf(binary)), measured) {
            (Some(told), Some(measured)) => told.or(measured),
            (Some(told), None) => told,
            (None, Some(measured)) => measured,
            (None, None) => return Err(unknown(go_version)),
        };
        let mut layout = Layout::from_offsets(&offsets)
            .map_err(|field| unknown(go_version).because(format!("its DWARF does not tell {field}")))?;
        // An experiment of Go 1.22 only.
        layout.malloc_headers &= !version.is_some_and(|v| v.has_experiment("noallocheaders"));
        log::debug!("layout of {go_version}: {layout:?}");
        Ok(layout)
    }

    /// The layout measured for a release, whatever a binary may say; None when it was not
    /// measured.
    pub fn measured(go_version: &str) -> Option<Layout> {
        Layout::from_offsets(&Offsets::measured(&GoVersion::parse(go_version)?)?).ok()
    }

    /// Joins the offsets into a layout; the error names the field that is missing.
    fn from_offsets(offsets: &Offsets) -> Result<Layout, String> {
        let any = |names: &[(&str, &str)]| match offsets.find(names) {
            Some(offset) if offset <= MAX_OFFSET => Ok(offset),
            _ => Err(names.first().map_or(String::new(), |(name, field)| format!("{name}.{field}"))),
        };
        let at = |name, field| any(&[(name, field)]);
        let of_type = |field, old| any(&[("internal/abi.Type", field), ("runtime._type", old)]);
        let of_delta = |field| at("runtime.heapStatsDelta", field);
        Ok(Layout {
            g: G { m: at("runtime.g", "m")?, goid: at("runtime.g", "goid")? },
            m: M { g0: at("runtime.m", "g0")?, curg: at("runtime.m", "curg")? },
            p_mcache: at("runtime.p", "mcache")?,
            mcache: Mcache {
                tiny_allocs: at("runtime.mcache", "tinyAllocs")?,
                alloc: at("runtime.mcache", "alloc")?,
            },
            mspan: Mspan::from_offsets(&at)?,
            memstats: Memstats {
                heap_stats: at("runtime.mstats", "heapStats")? + at("runtime.consistentHeapStats", "stats")?,
                buckhash_sys: at("runtime.mstats", "buckhash_sys")?,
                delta: HeapStatsDelta {
                    size: of_delta("_size")?,
                    tiny_alloc_count: of_delta("tinyAllocCount")?,
                    large_alloc: of_delta("largeAlloc")?,
                    large_alloc_count: of_delta("largeAllocCount")?,
                    small_alloc_count: of_delta("smallAllocCount")?,
                },
            },
            mheap_sweepgen: at("runtime.mheap", "sweepgen")?,
            mheap_allspans: at("runtime.mheap", "allspans")?,
            gc_controller_mapped_ready: at("runtime.gcControllerState", "mappedReady")?,
            work_cycles: at("runtime.workType", "cycles")?,
            types: Type {
                size: of_type("Size_", "size")?,
                ptr_bytes: of_type("PtrBytes", "ptrdata")?,
                tflag: of_type("TFlag", "tflag")?,
                kind: of_type("Kind_", "kind")?,
                str: of_type("Str", "str")?,
                map_size: any(&MAP_TYPES)?,
            },
            // The field came with the headers (Go 1.22, runtime/mheap.go).
            malloc_headers: offsets.find(&[("runtime.mspan", "largeType")]).is_some(),
        })
    }
}

impl Mspan {
    /// `at` gives the offset of a struct's field, or its name when it has none.
    fn from_offsets(
        at: &impl Fn(&'static str, &'static str) -> Result<u64, String>,
    ) -> Result<Mspan, String> {
        let field = |name| at("runtime.mspan", name);
        Ok(Mspan {
            start_addr: field("startAddr")?,
            npages: field("npages")?,
            freeindex: field("freeindex")?,
            nelems: field("nelems")?,
            alloc_bits: field("allocBits")?,
            gcmark_bits: field("gcmarkBits")?,
            sweepgen: field("sweepgen")?,
            alloc_count: field("allocCount")?,
            spanclass: field("spanclass")?,
            state: field("state")?,
            is_user_arena_chunk: field("isUserArenaChunk").ok(),
            elemsize: field("elemsize")?,
            limit: field("limit")?,
            narrow_indices: field("nelems")?.wrapping_sub(field("freeindex")?) == 2,
            alloc_count_before_cache: field("allocCountBeforeCache")?,
        })
    }
}

/// The oldest Go line that heaptap reads.
const OLDEST: u32 = 19;

/// A map type's descriptor, by its names over time and experiments.
const MAP_TYPES: [(&str, &str); 4] = [
    ("internal/abi.MapType", "_size"),
    ("internal/abi.SwissMapType", "_size"),
    ("internal/abi.OldMapType", "_size"),
    ("runtime.maptype", "_size"),
];

/// No struct of the runtime that is read here is larger: 1 MiB.
const MAX_OFFSET: u64 = 1 << 20;

fn too_old(version: &GoVersion) -> Error {
    let minor = version.minor;
    Error::usage(format!("the program was built with Go 1.{minor}; heaptap reads Go 1.{OLDEST} and later"))
        .hint("rebuild the program with a newer Go")
}

fn unknown(go_version: &str) -> Error {
    Error::failed(format!(
        "the runtime's structs in {go_version} are not known, and the program has no DWARF: goroutine ids, \
         type names and the runtime's own counters cannot be read"
    ))
    .hint("pass --assume-go VERSION with a version near it, or use a build that is not stripped")
}
