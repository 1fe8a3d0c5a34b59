//! pprof profiles, decoded as far as the tests compare them.

use std::io::Read;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use prost::Message;

/// github.com/google/pprof `proto/profile.proto`, in part.
#[derive(Clone, PartialEq, Message)]
struct Proto {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// A profile whose samples can be compared with another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// As `inuse_space/bytes`.
    pub types: Vec<String>,
    pub period: i64,
    /// Frames as `function file:line`, innermost first, and the values; sorted.
    pub samples: Vec<(Vec<String>, Vec<i64>)>,
}

impl Profile {
    /// Decodes a gzip'd profile.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn decode(gzipped: &[u8]) -> Result<Profile> {
        let mut bytes = Vec::new();
        GzDecoder::new(gzipped).read_to_end(&mut bytes)?;
        let proto = Proto::decode(bytes.as_slice())?;
        let mut samples = Vec::new();
        for sample in &proto.sample {
            let stacks = sample.location_id.iter().map(|id| proto.frames(*id)).collect::<Result<Vec<_>>>()?;
            samples.push((stacks.concat(), sample.value.clone()));
        }
        samples.sort();
        let types = proto.sample_type.iter().map(|t| {
            let (name, unit) = (proto.text(t.r#type)?, proto.text(t.unit)?);
            Ok(format!("{name}/{unit}"))
        });
        Ok(Profile { types: types.collect::<Result<_>>()?, period: proto.period, samples })
    }
}

impl Proto {
    fn text(&self, index: i64) -> Result<&str> {
        self.string_table.get(usize::try_from(index)?).map(String::as_str).context("a string")
    }

    /// The lines of a location.
    fn frames(&self, id: u64) -> Result<Vec<String>> {
        let location = self.location.iter().find(|l| l.id == id).context("a location")?;
        let frame = |line: &Line| {
            let function = self.function.iter().find(|f| f.id == line.function_id).context("a function")?;
            let (name, file) = (self.text(function.name)?, self.text(function.filename)?);
            Ok(format!("{name} {file}:{}", line.line))
        };
        location.line.iter().map(frame).collect()
    }
}
