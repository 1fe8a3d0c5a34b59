//! Writes a capture: batches events and puts each batch out as one frame.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use bytes::BufMut;
use zstd::bulk::Compressor;

use super::batch::Encoder;
use super::frame::{ENCODING_ZSTD, HEADER_LEN, Header, KIND_EVENTS};
use super::{FORMAT_MAJOR, FORMAT_MINOR, MAGIC, MAX_PAYLOAD};
use crate::base::{Error, Result};
use crate::event::Event;

/// Allocations per frame: enough for the columns to compress, few enough to lose.
const BATCH_ALLOCS: u64 = 1 << 15;

/// A frame ends once its records fill this many bytes.
const BATCH_RECORD_BYTES: usize = 1 << 20;

/// The longest record: leaves room for a full batch before it in one payload.
const MAX_RECORD: usize = MAX_PAYLOAD / 4;

/// zstd level: on recorded captures 3 saves 4 to 8 % of the bytes for twice the time.
const LEVEL: i32 = 1;

/// Writes events to a file or any other byte sink.
pub struct Writer<W: Write> {
    out: W,
    /// For messages: the path, where there is one.
    name: String,
    batch: Encoder,
    compressor: Compressor<'static>,
    sequence: u32,
    /// Reused for each frame.
    raw: Vec<u8>,
    frame: Vec<u8>,
}

impl Writer<File> {
    /// Creates (or replaces) the capture file `path`.
    ///
    /// # Errors
    /// A usage error when the file cannot be created.
    pub fn create(path: &Path) -> Result<Writer<File>> {
        let file = File::create(path).map_err(|e| {
            let hint = match e.kind() {
                ErrorKind::NotFound => "create the directory first, or choose another file with -o",
                _ => "choose another file with -o",
            };
            Error::usage(format!("cannot write {}", path.display())).because(e).hint(hint)
        })?;
        Writer::new(file, path.display().to_string())
    }
}

impl<W: Write> Writer<W> {
    /// Starts a capture on `out`; `name` stands for it in messages.
    ///
    /// # Errors
    /// When the file header cannot be written.
    pub fn new(out: W, name: impl Into<String>) -> Result<Writer<W>> {
        let compressor =
            Compressor::new(LEVEL).map_err(|e| Error::failed("cannot set up zstd compression").because(e))?;
        let mut writer = Writer {
            out,
            name: name.into(),
            batch: Encoder::default(),
            compressor,
            sequence: 0,
            raw: Vec::new(),
            frame: Vec::new(),
        };
        let mut header = MAGIC.to_vec();
        header.put_u16_le(FORMAT_MAJOR);
        header.put_u16_le(FORMAT_MINOR);
        let crc = crc32c::crc32c(&header);
        header.put_u32_le(crc);
        writer.out.write_all(&header).map_err(|e| writer.failed(e))?;
        Ok(writer)
    }

    /// Adds one event; written out with its batch.
    ///
    /// # Errors
    /// When a full batch cannot be written, or the event is larger than a frame.
    pub fn write(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Alloc(alloc) => self.batch.alloc(alloc),
            Event::Stack { id, pcs } => {
                self.room_for(10 * pcs.len())?;
                self.batch.stack(*id, pcs);
            }
            Event::Deaths { epoch, slots } => {
                self.room_for(10 * slots.len())?;
                self.batch.deaths(*epoch, slots);
            }
            other => {
                let json = serde_json::to_vec(other)
                    .map_err(|e| Error::failed("cannot encode an event").because(e))?;
                self.room_for(json.len())?;
                self.batch.json(&json);
            }
        }
        if self.batch.allocs() >= BATCH_ALLOCS || self.batch.record_bytes() >= BATCH_RECORD_BYTES {
            self.put_frame()?;
        }
        Ok(())
    }

    fn room_for(&self, record: usize) -> Result<()> {
        if record > MAX_RECORD {
            return Err(Error::failed(format!(
                "an event of {record} bytes does not fit a frame of {}: at most {MAX_RECORD}",
                self.name
            )));
        }
        Ok(())
    }

    /// Writes out what is batched: from here on it survives the recorder's death.
    ///
    /// # Errors
    /// When the sink does not take it, such as a full disk.
    pub fn flush(&mut self) -> Result<()> {
        if !self.batch.is_empty() {
            self.put_frame()?;
        }
        self.out.flush().map_err(|e| self.failed(e))
    }

    /// Flushes and gives the sink back.
    ///
    /// # Errors
    /// As [`Writer::flush`].
    pub fn finish(mut self) -> Result<W> {
        self.flush()?;
        Ok(self.out)
    }

    fn put_frame(&mut self) -> Result<()> {
        self.raw.clear();
        self.batch.finish(&mut self.raw);
        let stored = self.compressor.compress(&self.raw).map_err(|e| self.failed(e))?;
        self.frame.clear();
        self.frame.reserve(HEADER_LEN + stored.len());
        let header = Header {
            kind: KIND_EVENTS,
            encoding: ENCODING_ZSTD,
            sequence: self.sequence,
            raw_len: self.raw.len() as u32,
            stored_len: stored.len() as u32,
            payload_crc: crc32c::crc32c(&stored),
        };
        header.put(&mut self.frame);
        self.frame.put_slice(&stored);
        self.sequence = self.sequence.wrapping_add(1);
        // One write per frame: a killed recorder leaves whole frames.
        self.out.write_all(&self.frame).map_err(|e| self.failed(e))
    }

    fn failed(&self, e: std::io::Error) -> Error {
        let error = Error::failed(format!("cannot write to {}", self.name));
        match e.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                error.because(e).hint("free some space, or choose another file with -o")
            }
            _ => error.because(e),
        }
    }
}
