//! What the runtime of a process itself knows of its heap at one moment, as plain data.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::goroutines::{Goroutines, Group};
use super::{Frame, Grouping, Target, rfc3339};
use crate::event;
use crate::runtime::{Amounts, HeapProfile, MemStats, SchedulerCounts, Span};
use crate::symbol::Symbolizer;

/// A process's heap at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Snapshot {
    pub target: Target,
    /// RFC 3339, UTC.
    pub read_at: String,
    /// The same in nanoseconds since the Unix epoch; no part of the JSON.
    #[serde(skip)]
    pub read_unix_ns: u64,
    /// Under the names of `runtime.MemStats`; none when it could not be read, as with
    /// the other parts.
    pub memstats: Option<MemStats>,
    pub scheduler: Option<SchedulerCounts>,
    /// By size; large objects last.
    pub size_classes: Option<Vec<SizeClass>>,
    pub profile: Option<Profile>,
    pub goroutines: Option<GoroutineGroups>,
    pub notes: Vec<String>,
}

/// The program's goroutines, as `heaptap goroutines` groups them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GoroutineGroups {
    pub count: u64,
    /// Goroutines of the runtime itself, which are in no group.
    pub system: u64,
    pub groups: Vec<Group>,
}

/// What was read of a process.
#[derive(Debug, Default)]
pub struct Readings {
    pub read_unix_ns: u64,
    pub memstats: Option<MemStats>,
    pub scheduler: Option<SchedulerCounts>,
    pub spans: Option<Vec<Span>>,
    pub profile: Option<HeapProfile>,
    pub goroutines: Option<Goroutines>,
    pub notes: Vec<String>,
}

/// The spans of one size class, with or without pointers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct SizeClass {
    /// Of a slot, in bytes; 0: large objects, with a span each.
    pub size: u64,
    /// Whether the objects hold no pointers.
    pub noscan: bool,
    pub spans: u64,
    /// Whole pages.
    pub bytes: u64,
    pub slots: u64,
    /// Slots in use. Objects that died in the last GC cycle count until their span is
    /// swept.
    pub objects: u64,
    pub object_bytes: u64,
    /// `objects` over `slots`.
    pub occupancy: f64,
    /// `bytes` without `object_bytes`: free slots, and what no slot fits into.
    pub waste_bytes: u64,
}

/// The runtime's heap profile, as its own `/debug/pprof/heap` shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// `runtime.MemProfileRate`: one sample for so many bytes allocated. 0: off.
    pub rate: i64,
    #[serde(flatten)]
    pub totals: Values,
    /// Most bytes in use first.
    pub sites: Vec<SampledSite>,
}

/// Estimates, from samples. Signed as in pprof.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values {
    pub inuse_objects: i64,
    pub inuse_bytes: i64,
    pub alloc_objects: i64,
    pub alloc_bytes: i64,
}

/// Objects of one size from one stack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampledSite {
    #[serde(flatten)]
    pub values: Values,
    /// Of each object, in bytes.
    pub object_size: u64,
    /// Innermost first.
    pub frames: Vec<Frame>,
}

/// What sampled sites are ordered and measured by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProfileMeasure {
    #[default]
    InuseBytes,
    InuseObjects,
    AllocBytes,
    AllocObjects,
}

impl Values {
    pub fn of(&self, measure: ProfileMeasure) -> i64 {
        match measure {
            ProfileMeasure::InuseBytes => self.inuse_bytes,
            ProfileMeasure::InuseObjects => self.inuse_objects,
            ProfileMeasure::AllocBytes => self.alloc_bytes,
            ProfileMeasure::AllocObjects => self.alloc_objects,
        }
    }

    fn add(&mut self, other: &Values) {
        self.inuse_objects = self.inuse_objects.saturating_add(other.inuse_objects);
        self.inuse_bytes = self.inuse_bytes.saturating_add(other.inuse_bytes);
        self.alloc_objects = self.alloc_objects.saturating_add(other.alloc_objects);
        self.alloc_bytes = self.alloc_bytes.saturating_add(other.alloc_bytes);
    }
}

impl From<Amounts> for Values {
    fn from(amounts: Amounts) -> Values {
        let Amounts { alloc_objects, alloc_bytes, inuse_objects, inuse_bytes } = amounts;
        Values { inuse_objects, inuse_bytes, alloc_objects, alloc_bytes }
    }
}

impl Profile {
    /// Adds up and orders the sites.
    pub(super) fn new(rate: i64, mut sites: Vec<SampledSite>) -> Profile {
        let mut totals = Values::default();
        sites.iter().for_each(|site| totals.add(&site.values));
        sites.sort_by(|a, b| {
            let key = |site: &SampledSite| (site.values.inuse_bytes, site.values.alloc_bytes);
            key(b).cmp(&key(a)).then_with(|| a.frames.cmp(&b.frames)).then(a.object_size.cmp(&b.object_size))
        });
        Profile { rate, totals, sites }
    }
}

impl Snapshot {
    /// Sums up what was read of `target`.
    pub fn build(target: event::Target, symbols: &Symbolizer<'_>, read: Readings) -> Snapshot {
        let mut notes = read.notes;
        notes.extend(read.profile.as_ref().and_then(off));
        let mut stacks = Stacks { symbols, load_bias: target.load_bias, known: HashMap::new() };
        Snapshot {
            read_at: rfc3339(read.read_unix_ns),
            read_unix_ns: read.read_unix_ns,
            memstats: read.memstats,
            scheduler: read.scheduler,
            size_classes: read.spans.map(|spans| size_classes(&spans)),
            profile: read.profile.map(|profile| stacks.profile(&profile)),
            goroutines: read.goroutines.map(|all| {
                notes.extend(all.notes);
                GoroutineGroups { count: all.count, system: all.system, groups: all.groups }
            }),
            target: super::target(target),
            notes,
        }
    }
}

/// What to say of a profiler that is off.
fn off(profile: &HeapProfile) -> Option<String> {
    let left = if profile.buckets.is_empty() { "" } else { "; what it sampled before is shown" };
    (profile.rate <= 0).then(|| {
        format!(
            "the program's heap profiler is off (MemProfileRate is {}){left}: the linker turns it off in \
             programs without runtime/pprof; import net/http/pprof and restart it, or use `heaptap record`, \
             which needs no profiler",
            profile.rate
        )
    })
}

fn size_classes(spans: &[Span]) -> Vec<SizeClass> {
    let mut classes: BTreeMap<(bool, u64, bool), SizeClass> = BTreeMap::new();
    for span in spans {
        let is_large = span.size_class() == 0;
        let size = if is_large { 0 } else { span.elem_size };
        let class = classes.entry((is_large, size, span.is_noscan())).or_default();
        class.size = size;
        class.noscan = span.is_noscan();
        class.spans += 1;
        class.bytes = class.bytes.saturating_add(span.bytes());
        class.slots += span.nelems;
        class.objects += span.alloc_count;
        class.object_bytes = class.object_bytes.saturating_add(span.alloc_count * span.elem_size);
    }
    let finish = |class: SizeClass| SizeClass {
        occupancy: class.objects as f64 / class.slots.max(1) as f64,
        waste_bytes: class.bytes.saturating_sub(class.object_bytes),
        ..class
    };
    classes.into_values().map(finish).collect()
}

/// Turns the stacks of a profile into frames, each address looked up once.
struct Stacks<'a, 'b> {
    symbols: &'a Symbolizer<'b>,
    load_bias: u64,
    known: HashMap<u64, Vec<event::Frame>>,
}

impl Stacks<'_, '_> {
    fn profile(&mut self, read: &HeapProfile) -> Profile {
        let sites = read.shown().map(|(bucket, record)| SampledSite {
            values: Values::from(record.unsampled(read.rate)),
            object_size: bucket.size,
            frames: self.frames(&bucket.pcs, read.hides_internal_runtime),
        });
        Profile::new(read.rate, sites.collect())
    }

    /// A stack as `writeHeapProto` shows it (runtime/pprof/protomem.go, proto.go): the
    /// runtime's own frames at the inner end are left out unless there are no others.
    fn frames(&mut self, pcs: &[u64], hides_internal: bool) -> Vec<Frame> {
        let is_hidden = |function: &str| {
            function.starts_with("runtime.") || hides_internal && function.starts_with("internal/runtime/")
        };
        // `FuncForPC` looks at the return address itself, not at the call before it.
        let first = pcs.iter().position(|pc| !self.at(*pc).first().is_some_and(|f| is_hidden(&f.function)));
        let shown = pcs.get(first.unwrap_or(0)..).unwrap_or(&[]);
        let mut frames = Vec::new();
        for (i, pc) in shown.iter().enumerate() {
            let address = pc.saturating_sub(1);
            let found = self.at(address);
            // Calls that were inlined have an address of their own, but at the outer end
            // of a stack that was cut off (`runtime_expandFinalInlineFrame`).
            let count = if i + 1 < shown.len() { 1 } else { found.len() };
            let found = found.iter().take(count).filter(|f| f.function != "runtime.goexit");
            frames.extend(found.map(|f| Frame::of(f, address)));
        }
        frames
    }

    /// The functions at a run-time address, innermost first.
    fn at(&mut self, address: u64) -> &[event::Frame] {
        let (symbols, bias) = (self.symbols, self.load_bias);
        self.known.entry(address).or_insert_with(|| symbols.frames(address.wrapping_sub(bias)))
    }
}

/// Sampled sites with the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileRow {
    pub values: Values,
    /// `main.handle`, by line with ` handler.go:17`.
    pub place: String,
}

/// The rows of `sites`, most of `measure` first.
pub fn profile_rows(sites: &[SampledSite], grouping: Grouping, measure: ProfileMeasure) -> Vec<ProfileRow> {
    let mut groups: BTreeMap<String, Values> = BTreeMap::new();
    for site in sites {
        groups.entry(super::table::place(&site.frames, grouping)).or_default().add(&site.values);
    }
    let mut rows: Vec<ProfileRow> =
        groups.into_iter().map(|(place, values)| ProfileRow { values, place }).collect();
    // The map's order stands among equals.
    rows.sort_by_key(|row| std::cmp::Reverse((row.values.of(measure), row.values.alloc_bytes)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(class: u8, elem_size: u64, nelems: u64, alloc_count: u64) -> Span {
        Span {
            addr: 0,
            base: 0xc000_0000,
            pages: 1,
            limit: 0xc000_2000,
            free_index: 0,
            nelems,
            alloc_count,
            elem_size,
            sweepgen: 0,
            span_class: class,
            is_user_arena_chunk: false,
            alloc_bits: 0,
            gcmark_bits: 0,
        }
    }

    #[test]
    fn spans_add_up_by_size_and_pointers() {
        // Size class 4, 32 bytes: twice with pointers, once without; then two large objects.
        let classes = size_classes(&[
            span(1, 8192, 1, 1),
            span(8, 32, 250, 100),
            span(9, 32, 256, 256),
            span(8, 32, 250, 50),
            span(1, 8000, 1, 1),
        ]);
        let rows: Vec<_> =
            classes.iter().map(|c| (c.size, c.noscan, c.spans, c.objects, c.waste_bytes)).collect();
        let free = 2 * 8192 - 150 * 32;
        assert_eq!(rows, [(32, false, 2, 150, free), (32, true, 1, 256, 0), (0, true, 2, 2, 192)]);
        assert!((classes[0].occupancy - 0.3).abs() < 1e-9);
    }

    fn site(function: &str, line: u32, inuse_bytes: i64, alloc_bytes: i64) -> SampledSite {
        let frame = Frame { function: function.into(), file: "/app/a.go".into(), line, ..Frame::default() };
        let values = Values { inuse_bytes, alloc_bytes, ..Values::default() };
        SampledSite { values, object_size: 16, frames: vec![frame] }
    }

    #[test]
    fn rows_hold_sites_of_one_place() {
        let sites = [site("main.a", 1, 10, 100), site("main.a", 2, 5, 500), site("main.b", 7, 12, 12)];
        let rows = |grouping, measure| -> Vec<(String, i64)> {
            let rows = profile_rows(&sites, grouping, measure);
            rows.into_iter().map(|row| (row.place.clone(), row.values.of(measure))).collect()
        };
        assert_eq!(
            rows(Grouping::Function, ProfileMeasure::InuseBytes),
            [("main.a".to_owned(), 15), ("main.b".to_owned(), 12)]
        );
        assert_eq!(rows(Grouping::Line, ProfileMeasure::AllocBytes)[0], ("main.a a.go:2".to_owned(), 500));
        let profile = Profile::new(1, sites.to_vec());
        assert_eq!((profile.totals.inuse_bytes, profile.sites[0].values.inuse_bytes), (27, 12));
    }

    #[test]
    fn a_profiler_that_is_off_is_told_how_to_go_on() {
        let bucket = crate::runtime::Bucket::default();
        let said = |rate, buckets| off(&HeapProfile { rate, buckets, hides_internal_runtime: true });
        assert_eq!(said(1, Vec::new()), None);
        assert!(said(0, Vec::new()).is_some_and(|note| note.contains("heaptap record")));
        assert!(said(0, vec![bucket]).is_some_and(|note| note.contains("what it sampled before")));
    }
}
