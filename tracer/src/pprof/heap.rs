//! Heap profiles as Go programs write them: `profile.proto`, plain or gzip'd.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use hashbrown::HashMap;
use prost::Message;

use super::proto;
use crate::base::units::format_bytes;
use crate::base::{Error, Result};
use crate::event::Frame;

/// What a program allocated, and what of it was alive after its latest garbage collection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeapProfile {
    /// Nanoseconds since the Unix epoch; 0: not said.
    pub time_unix_ns: u64,
    /// Nanoseconds; 0: since the program started.
    pub duration_ns: u64,
    /// One sample was taken for so many bytes allocated; 1: of every object. 0: nobody knows.
    pub rate_bytes: u64,
    pub comments: Vec<String>,
    pub samples: Vec<HeapSample>,
}

/// Objects from one stack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeapSample {
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// `alloc_objects`, `alloc_space`, `inuse_objects` and `inuse_space`: estimates of all
    /// objects. Less than none in a difference of profiles.
    pub values: [i64; 4],
    /// As in a report; only heaptap's own profiles know types.
    pub type_name: Option<String>,
}

/// What the values of a heap profile are, in the order of [`HeapSample::values`].
const TYPES: [(&str, &str); 4] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
];

/// A profile of more bytes is not unpacked. Those of large services have a few million.
const MAX_BYTES: u64 = 64 << 20;

/// What the frames of all stacks may take together: the format names each function once,
/// however many stacks it is in.
const MAX_FRAME_BYTES: usize = 1 << 30;

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Where heap profiles come from.
const SOURCES: &str =
    "take one from the program's /debug/pprof/heap, or with `heaptap snapshot --format pprof`";

impl HeapProfile {
    /// Reads a heap profile.
    ///
    /// # Errors
    /// Usage when it is no heap profile, failed when it is damaged. Whatever the bytes are, it
    /// takes some 4 GiB of memory at most.
    pub fn read(input: impl Read) -> Result<HeapProfile> {
        let bytes = unpacked(input)?;
        if bytes.is_empty() {
            return Err(Error::failed("the file is empty").hint(SOURCES));
        }
        if bytes.starts_with(b"heap profile:") {
            return Err(Error::usage("it is a heap profile in text form, which has no types of values")
                .hint("fetch it again without debug=1"));
        }
        let profile = proto::Profile::decode(bytes.as_slice())
            .map_err(|e| Error::usage("it is no pprof profile, or it is damaged").because(e).hint(SOURCES))?;
        Contents { profile: &profile, room: MAX_FRAME_BYTES }.heap_profile()
    }
}

/// The bytes of a profile, up to the limit.
fn unpacked(input: impl Read) -> Result<Vec<u8>> {
    let cannot = |e| Error::failed("cannot read the profile").because(e);
    let packed = limited(input).map_err(cannot)?;
    let bytes = if packed.starts_with(&GZIP) {
        limited(MultiGzDecoder::new(packed.as_slice())).map_err(|e| {
            Error::failed("its gzip'd data is damaged or cut off").because(e).hint("fetch or copy it again")
        })?
    } else {
        packed
    };
    if bytes.len() as u64 > MAX_BYTES {
        let most = format_bytes(MAX_BYTES);
        return Err(
            Error::usage(format!("it has more than {most}, which no heap profile takes")).hint(SOURCES)
        );
    }
    Ok(bytes)
}

/// What there is, or one byte more than is allowed.
fn limited(input: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn damaged(what: &str) -> Error {
    Error::failed(format!("the profile is damaged: {what}")).hint("fetch or copy it again")
}

/// A profile as it was decoded: what refers to what is not checked yet.
struct Contents<'a> {
    profile: &'a proto::Profile,
    /// Bytes that frames may still take.
    room: usize,
}

impl<'a> Contents<'a> {
    fn heap_profile(mut self) -> Result<HeapProfile> {
        let profile = self.profile;
        let places = self.places()?;
        let stacks = Stacks::of(profile);
        let mut samples = Vec::new();
        for sample in &profile.sample {
            let mut values = [0; 4];
            for (value, place) in values.iter_mut().zip(places) {
                *value = *sample.value.get(place).ok_or_else(|| damaged("a sample lacks a value"))?;
            }
            let frames = self.frames(&stacks, &sample.location_id)?;
            samples.push(HeapSample { frames, values, type_name: self.type_name(sample)? });
        }
        let comments = profile.comment.iter().map(|&index| self.text(index).map(str::to_owned));
        Ok(HeapProfile {
            time_unix_ns: u64::try_from(profile.time_nanos).unwrap_or(0),
            duration_ns: u64::try_from(profile.duration_nanos).unwrap_or(0),
            rate_bytes: u64::try_from(profile.period).unwrap_or(0),
            comments: comments.collect::<Result<_>>()?,
            samples,
        })
    }

    /// Where in each sample the values of a heap profile are.
    fn places(&self) -> Result<[usize; 4]> {
        let mut types = Vec::new();
        for of_value in &self.profile.sample_type {
            types.push((self.text(of_value.r#type)?, self.text(of_value.unit)?));
        }
        let mut places = [0; 4];
        for (place, wanted) in places.iter_mut().zip(TYPES) {
            *place =
                types.iter().position(|of_value| *of_value == wanted).ok_or_else(|| other_kind(&types))?;
        }
        Ok(places)
    }

    fn text(&self, index: i64) -> Result<&'a str> {
        let found = usize::try_from(index).ok().and_then(|index| self.profile.string_table.get(index));
        found.map(String::as_str).ok_or_else(|| damaged("a string is missing"))
    }

    /// As heaptap's exporter writes it: a type unless the memory has none, beside a kind.
    fn type_name(&self, sample: &proto::Sample) -> Result<Option<String>> {
        let mut found = None;
        for label in &sample.label {
            match self.text(label.key)? {
                "type" => return Ok(Some(self.text(label.str)?.to_owned())),
                "kind" => found = Some(String::new()),
                _ => {}
            }
        }
        Ok(found)
    }

    fn frames(&mut self, stacks: &Stacks<'a>, locations: &[u64]) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        for id in locations {
            let location = stacks.locations.get(id).ok_or_else(|| damaged("a location is missing"))?;
            for (i, line) in location.line.iter().enumerate() {
                let function = stacks.functions.get(&line.function_id);
                let function = function.ok_or_else(|| damaged("a function is missing"))?;
                let (name, file) = (self.text(function.name)?, self.text(function.filename)?);
                self.take(size_of::<Frame>() + name.len() + file.len())?;
                frames.push(Frame {
                    function: name.to_owned(),
                    file: file.to_owned(),
                    line: u32::try_from(line.line).unwrap_or(0),
                    inlined: i + 1 < location.line.len(),
                    // Profiles leave those out.
                    wrapper: false,
                });
            }
            if location.line.is_empty() {
                let function = format!("0x{:x}", location.address);
                self.take(size_of::<Frame>() + function.len())?;
                frames.push(Frame { function, ..Frame::default() });
            }
        }
        Ok(frames)
    }

    fn take(&mut self, bytes: usize) -> Result<()> {
        self.room = self.room.checked_sub(bytes).ok_or_else(|| {
            let most = format_bytes(MAX_FRAME_BYTES as u64);
            Error::usage(format!("its stacks would take more than {most}, as no heap profile's do"))
                .hint(SOURCES)
        })?;
        Ok(())
    }
}

fn other_kind(types: &[(&str, &str)]) -> Error {
    // Of a hostile file they may be many.
    let names: Vec<String> = types.iter().take(8).map(|(name, unit)| format!("{name}/{unit}")).collect();
    let of = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    Error::usage(format!("it is no heap profile of a Go program, but one of {of}")).hint(SOURCES)
}

/// Locations and functions by their ids.
struct Stacks<'a> {
    locations: HashMap<u64, &'a proto::Location>,
    functions: HashMap<u64, &'a proto::Function>,
}

impl<'a> Stacks<'a> {
    fn of(profile: &'a proto::Profile) -> Stacks<'a> {
        Stacks {
            locations: profile.location.iter().map(|location| (location.id, location)).collect(),
            functions: profile.function.iter().map(|function| (function.id, function)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// A profile with a sample of one stack, in which `main.inner` was inlined.
    fn profile() -> proto::Profile {
        let strings = [
            "",
            "alloc_objects",
            "count",
            "alloc_space",
            "bytes",
            "inuse_objects",
            "inuse_space",
            "main.inner",
            "main.outer",
            "/a.go",
            "type",
            "main.T",
            "samples",
            "said",
        ];
        let of_value = |r#type, unit| proto::ValueType { r#type, unit };
        let line = |function_id, line| proto::Line { function_id, line };
        let function = |id, name| proto::Function { id, name, system_name: name, filename: 9 };
        proto::Profile {
            sample_type: vec![of_value(1, 2), of_value(3, 4), of_value(5, 2), of_value(6, 4)],
            sample: vec![proto::Sample {
                location_id: vec![1, 2],
                value: vec![10, 480, 1, -48],
                label: vec![proto::Label { key: 10, str: 11, ..Default::default() }],
            }],
            location: vec![
                proto::Location { id: 1, line: vec![line(1, 5), line(2, 7)], ..Default::default() },
                proto::Location { id: 2, address: 0x40, ..Default::default() },
            ],
            function: vec![function(1, 7), function(2, 8)],
            string_table: strings.map(String::from).to_vec(),
            time_nanos: 5,
            period: 512,
            comment: vec![13],
            ..proto::Profile::default()
        }
    }

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(bytes).and_then(|()| gzip.finish()).expect("gzip")
    }

    fn read(profile: &proto::Profile) -> Result<HeapProfile> {
        HeapProfile::read(profile.encode_to_vec().as_slice())
    }

    #[test]
    fn a_profile_is_read_plain_and_packed() {
        let bytes = profile().encode_to_vec();
        let heap = HeapProfile::read(bytes.as_slice()).expect("a heap profile");
        assert_eq!(HeapProfile::read(gzipped(&bytes).as_slice()).expect("a heap profile"), heap);
        assert_eq!((heap.time_unix_ns, heap.duration_ns, heap.rate_bytes), (5, 0, 512));
        assert_eq!(heap.comments, ["said"]);
        let [sample] = &heap.samples[..] else { panic!("{heap:?}") };
        assert_eq!(sample.values, [10, 480, 1, -48]);
        assert_eq!(sample.type_name.as_deref(), Some("main.T"));
        let frames: Vec<_> = sample.frames.iter().map(|f| (f.function.as_str(), f.line, f.inlined)).collect();
        assert_eq!(frames, [("main.inner", 5, true), ("main.outer", 7, false), ("0x40", 0, false)]);
    }

    #[test]
    fn values_are_told_by_their_types() {
        let mut turned = profile();
        turned.sample_type.rotate_left(2);
        turned.sample[0].value.rotate_left(2);
        assert_eq!(read(&turned).expect("a heap profile"), read(&profile()).expect("a heap profile"));
    }

    fn fails(bytes: &[u8], with: &str) {
        let error = HeapProfile::read(bytes).expect_err(with);
        assert!(error.to_string().contains(with), "{error}");
        assert!(error.hint_text().is_some(), "{error}");
    }

    #[test]
    fn what_is_no_heap_profile_is_refused_by_name() {
        let mut cpu = profile();
        cpu.sample_type.truncate(1);
        cpu.sample_type[0].r#type = 12;
        fails(&cpu.encode_to_vec(), "one of samples/count");
        fails(&proto::Profile::default().encode_to_vec(), "is empty");
        fails(b"", "is empty");
        fails(b"heap profile: 1: 48 [1: 48] @ heap/1048576", "in text form");
        fails(b"hello, world", "no pprof profile");
        fails(&gzipped(b"\x80"), "no pprof profile");
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let whole = gzipped(&profile().encode_to_vec());
        fails(&whole[..whole.len() - 9], "cut off");
        type Damage = fn(&mut proto::Profile);
        let breaks: [(Damage, &str); 6] = [
            (|p| p.sample[0].value.truncate(3), "lacks a value"),
            (|p| p.sample[0].location_id.push(9), "a location is missing"),
            (|p| p.function.truncate(1), "a function is missing"),
            (|p| p.function[0].name = -1, "a string is missing"),
            (|p| p.comment.push(99), "a string is missing"),
            (|p| p.sample_type[0].unit = i64::MAX, "a string is missing"),
        ];
        for (damage, said) in breaks {
            let mut profile = profile();
            damage(&mut profile);
            fails(&profile.encode_to_vec(), said);
        }
    }

    #[test]
    fn what_claims_to_be_huge_is_refused() {
        fails(&gzipped(&vec![0; MAX_BYTES as usize + 1]), "more than 64.0 MiB");
        // A few kilobytes that stand for a stack of many million frames.
        let mut deep = profile();
        deep.location[0].line = vec![deep.location[0].line[0]; 5_000];
        deep.sample[0].location_id = vec![1; 5_000];
        let error = Contents { profile: &deep, room: 1 << 20 }.heap_profile().expect_err("too much");
        assert!(error.to_string().contains("would take more than"), "{error}");
    }
}
