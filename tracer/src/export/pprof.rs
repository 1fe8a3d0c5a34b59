//! Reports as pprof profiles: gzip'd `profile.proto`, for `go tool pprof`.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use hashbrown::HashMap;
use prost::Message;

use super::put;
use crate::base::{Error, Result};
use crate::pprof::proto;
use crate::report::diff::{Diff, DiffSite};
use crate::report::goroutines::{Goroutines, Group};
use crate::report::snapshot::{Profile, SampledSite, Snapshot};
use crate::report::{Frame, Measure, Report, Sampling, Site, Target};

/// Writes the report as `go tool pprof` reads it.
///
/// # Errors
/// When `out` does not take it; a closed pipe is no error.
pub fn write(report: &Report, out: &mut impl Write) -> Result<()> {
    put_profile(&profile(report), out)
}

/// Writes goroutines by stack, as the runtime's own goroutine profile counts them.
///
/// # Errors
/// When `out` does not take it; a closed pipe is no error.
pub fn write_goroutines(goroutines: &Goroutines, out: &mut impl Write) -> Result<()> {
    put_profile(&goroutine_profile(goroutines), out)
}

/// Writes the runtime's heap profile as its own `/debug/pprof/heap` does: in the same
/// order of values, with each site's object size as its label `bytes`.
///
/// # Errors
/// Failed when the snapshot has no heap profile, or `out` does not take it; a closed pipe
/// is no error.
pub fn write_heap(snapshot: &Snapshot, out: &mut impl Write) -> Result<()> {
    let profile = snapshot.profile.as_ref().ok_or_else(|| {
        let why = snapshot.notes.join("; ");
        Error::failed(format!("the program's heap profile could not be read: {why}"))
    })?;
    put_profile(&heap_profile(snapshot, profile), out)
}

/// Writes the changes of a comparison: values of what shrank are negative, as with
/// `go tool pprof -diff_base`.
///
/// # Errors
/// When `out` does not take it; a closed pipe is no error.
pub fn write_diff(diff: &Diff, out: &mut impl Write) -> Result<()> {
    put_profile(&diff_profile(diff), out)
}

fn put_profile(profile: &proto::Profile, out: &mut impl Write) -> Result<()> {
    let bytes = profile.encode_to_vec();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let packed = gzip
        .write_all(&bytes)
        .and_then(|()| gzip.finish())
        .map_err(|e| Error::failed("cannot compress the profile").because(e))?;
    put(out, &packed)
}

fn profile(report: &Report) -> proto::Profile {
    let mut builder = Builder::new(&report.target);
    let sample_type = builder.heap_types();
    let sample = report.sites.iter().map(|site| builder.sample(site)).collect();
    let period_type = Some(builder.value_type("space", "bytes"));
    let default_sample_type = builder.string("alloc_space");
    // They say, too, that inuse values of 0 stand for unknown ones.
    let comment = report.capture.notes.iter().map(|text| builder.string(text)).collect();
    proto::Profile {
        sample_type,
        sample,
        time_nanos: signed(report.capture.started_unix_ns),
        duration_nanos: (report.capture.duration_s * 1e9) as i64,
        period_type,
        period: match report.capture.sampling {
            None => 1,
            Some(Sampling::Profiler { rate_bytes }) => signed(rate_bytes),
            // A number of bytes cannot say it, and no reader is to take estimates for counts.
            Some(Sampling::Windows(_)) => 0,
        },
        comment,
        default_sample_type,
        ..builder.tables()
    }
}

fn goroutine_profile(goroutines: &Goroutines) -> proto::Profile {
    let mut builder = Builder::new(&goroutines.target);
    let count = builder.value_type("goroutine", "count");
    let sample = goroutines.groups.iter().map(|group| builder.goroutine_sample(group)).collect();
    let comment = goroutines.notes.iter().map(|text| builder.string(text)).collect();
    proto::Profile {
        sample_type: vec![count],
        sample,
        time_nanos: signed(goroutines.read_unix_ns),
        period_type: Some(count),
        period: 1,
        comment,
        ..builder.tables()
    }
}

fn heap_profile(snapshot: &Snapshot, profile: &Profile) -> proto::Profile {
    let mut builder = Builder::new(&snapshot.target);
    let sample_type = builder.heap_types();
    let sample = profile.sites.iter().map(|site| builder.sampled(site)).collect();
    let period_type = Some(builder.value_type("space", "bytes"));
    let comment = snapshot.notes.iter().map(|text| builder.string(text)).collect();
    proto::Profile {
        sample_type,
        sample,
        time_nanos: signed(snapshot.read_unix_ns),
        period_type,
        period: profile.rate,
        comment,
        ..builder.tables()
    }
}

fn diff_profile(diff: &Diff) -> proto::Profile {
    // Its stacks are of two processes, and have no addresses.
    let mut builder = Builder::new(&Target::default());
    let sample_type = builder.heap_types();
    let sample = diff.sites.iter().map(|site| builder.diff_sample(site)).collect();
    let default_sample_type = builder.string(match diff.measure {
        Measure::AllocObjects => "alloc_objects",
        Measure::AllocBytes => "alloc_space",
        Measure::LiveObjects => "inuse_objects",
        Measure::LiveBytes => "inuse_space",
    });
    let comment = diff.notes.iter().map(|text| builder.string(text)).collect();
    proto::Profile { sample_type, sample, comment, default_sample_type, ..builder.tables() }
}

/// Collects what samples refer to, each thing once.
struct Builder {
    strings: Vec<String>,
    string_index: HashMap<String, i64>,
    mappings: Vec<proto::Mapping>,
    functions: Vec<proto::Function>,
    function_index: HashMap<(i64, i64), u64>,
    locations: Vec<proto::Location>,
    location_index: HashMap<(u64, Vec<proto::Line>), u64>,
}

impl Builder {
    /// What was collected; the rest of the profile is empty.
    fn tables(self) -> proto::Profile {
        proto::Profile {
            mapping: self.mappings,
            location: self.locations,
            function: self.functions,
            string_table: self.strings,
            ..proto::Profile::default()
        }
    }

    fn new(target: &Target) -> Builder {
        let mut builder = Builder {
            strings: Vec::new(),
            string_index: HashMap::new(),
            mappings: Vec::new(),
            functions: Vec::new(),
            function_index: HashMap::new(),
            locations: Vec::new(),
            location_index: HashMap::new(),
        };
        // The format wants the empty string first.
        builder.string("");
        let build_id = builder.string(target.build_id.as_deref().unwrap_or_default());
        // The executable's mapping comes first: pprof takes that one for the program.
        let (own, others): (Vec<_>, Vec<_>) =
            target.maps.iter().filter(|m| m.executable).partition(|m| m.path == target.exe);
        for (i, map) in own.iter().chain(&others).enumerate() {
            let is_own = i < own.len();
            let mapping = proto::Mapping {
                id: i as u64 + 1,
                memory_start: map.start,
                memory_limit: map.end,
                file_offset: map.offset,
                filename: builder.string(&map.path),
                build_id: if is_own { build_id } else { 0 },
                // Symbolised already: pprof need not look for the file.
                has_functions: true,
                has_filenames: true,
                has_line_numbers: true,
                has_inline_frames: true,
            };
            builder.mappings.push(mapping);
        }
        builder
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(&index) = self.string_index.get(text) {
            return index;
        }
        let index = self.strings.len() as i64;
        self.strings.push(text.into());
        self.string_index.insert(text.into(), index);
        index
    }

    fn value_type(&mut self, name: &str, unit: &str) -> proto::ValueType {
        proto::ValueType { r#type: self.string(name), unit: self.string(unit) }
    }

    fn label(&mut self, key: &str, text: &str) -> proto::Label {
        proto::Label { key: self.string(key), str: self.string(text), num: 0, num_unit: 0 }
    }

    fn goroutine_sample(&mut self, group: &Group) -> proto::Sample {
        let mut label = vec![self.label("state", group.state())];
        if let Some(creation) = &group.created_by {
            label.push(self.label("created by", &creation.function));
        }
        proto::Sample { location_id: self.stack(&group.frames), value: vec![signed(group.count)], label }
    }

    /// The values of a heap profile, in pprof's order.
    fn heap_types(&mut self) -> Vec<proto::ValueType> {
        let types = [
            ("alloc_objects", "count"),
            ("alloc_space", "bytes"),
            ("inuse_objects", "count"),
            ("inuse_space", "bytes"),
        ];
        types.map(|(name, unit)| self.value_type(name, unit)).to_vec()
    }

    fn sampled(&mut self, site: &SampledSite) -> proto::Sample {
        let values = &site.values;
        let size =
            proto::Label { key: self.string("bytes"), num: signed(site.object_size), ..Default::default() };
        proto::Sample {
            location_id: self.stack(&site.frames),
            value: vec![values.alloc_objects, values.alloc_bytes, values.inuse_objects, values.inuse_bytes],
            label: vec![size],
        }
    }

    fn sample(&mut self, site: &Site) -> proto::Sample {
        let mut label = vec![self.label("kind", site.kind.name())];
        if !site.type_name.is_empty() {
            label.push(self.label("type", &site.type_name));
        }
        proto::Sample {
            location_id: self.stack(&site.frames),
            value: vec![
                signed(site.alloc_objects),
                signed(site.alloc_bytes),
                signed(site.live_objects.unwrap_or(0)),
                signed(site.live_bytes.unwrap_or(0)),
            ],
            label,
        }
    }

    fn diff_sample(&mut self, site: &DiffSite) -> proto::Sample {
        let type_name = site.type_name.as_deref().filter(|name| !name.is_empty());
        proto::Sample {
            location_id: self.stack(&site.frames),
            // In pprof's order.
            value: Measure::ALL.map(|measure| site.changes.get(measure).map_or(0, |c| c.change)).to_vec(),
            label: type_name.map(|name| self.label("type", name)).into_iter().collect(),
        }
    }

    /// One location per return address: inlined frames are lines of the one they were
    /// inlined into.
    fn stack(&mut self, frames: &[Frame]) -> Vec<u64> {
        frames
            .chunk_by(|inner, _| inner.inlined)
            .map(|frames| {
                let address = frames.first().map_or(0, |f| f.address);
                let lines = frames.iter().map(|f| self.line(f)).collect();
                self.location(address, lines)
            })
            .collect()
    }

    fn line(&mut self, frame: &Frame) -> proto::Line {
        let name = self.string(&frame.function);
        let filename = self.string(&frame.file);
        let next = self.functions.len() as u64 + 1;
        let id = *self.function_index.entry((name, filename)).or_insert(next);
        if id == next {
            self.functions.push(proto::Function { id, name, system_name: name, filename });
        }
        proto::Line { function_id: id, line: i64::from(frame.line) }
    }

    fn location(&mut self, address: u64, line: Vec<proto::Line>) -> u64 {
        let next = self.locations.len() as u64 + 1;
        let key = (address, line);
        if let Some(&id) = self.location_index.get(&key) {
            return id;
        }
        let mapping_id = self
            .mappings
            .iter()
            .find(|m| (m.memory_start..m.memory_limit).contains(&address))
            .map_or(0, |m| m.id);
        self.locations.push(proto::Location { id: next, mapping_id, address, line: key.1.clone() });
        self.location_index.insert(key, next);
        next
    }
}

/// The format counts in i64.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
