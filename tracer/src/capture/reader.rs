//! Reads a capture: streams its events, and steps over what is damaged.

use std::io::{ErrorKind, Read};

use bytes::{Buf, Bytes};
use zstd::bulk::Decompressor;

use super::batch::Decoder;
use super::frame::{ENCODING_ZSTD, HEADER_LEN, Header, KIND_EVENTS, MARKER};
use super::{FILE_HEADER_LEN, FORMAT_MAJOR, MAGIC, MAX_PAYLOAD};
use crate::base::units::{format_bytes, format_count};
use crate::base::{Error, Result};
use crate::event::Event;

/// Bytes asked of the input at a time.
const CHUNK: usize = 1 << 18;

/// What of a capture could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    /// The first sixteen bytes are not as written.
    pub file_header: bool,
    /// Frames missing between intact ones, by their sequence numbers.
    pub frames_lost: u64,
    /// Bytes that belong to no intact frame, those of a cut last frame included.
    pub bytes_skipped: u64,
    /// The file ends inside a frame.
    pub cut_short: bool,
    /// Frames whose checksum held but whose contents ended early.
    pub frames_malformed: u64,
    /// Frames and records of kinds only a later heaptap knows.
    pub unknown_frames: u64,
    pub unknown_records: u64,
}

impl Damage {
    /// What is lost, in words for the user; nothing for an intact file.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.file_header {
            notes.push("the capture file's first bytes are damaged; its format was guessed".into());
        }
        let lost = self.frames_lost + self.frames_malformed;
        if lost > 0 || (self.bytes_skipped > 0 && !self.cut_short) {
            notes.push(format!(
                "the capture file is damaged: {} of its frames ({}) could not be read; counts are lower bounds",
                format_count(lost),
                format_bytes(self.bytes_skipped)
            ));
        } else if self.cut_short {
            notes.push(format!(
                "the capture file ends inside a frame: its last {} could not be read",
                format_bytes(self.bytes_skipped)
            ));
        }
        if self.unknown_frames + self.unknown_records > 0 {
            notes.push(format!(
                "{} entries of the capture were skipped: they were written by a newer heaptap",
                format_count(self.unknown_frames + self.unknown_records)
            ));
        }
        notes
    }
}

/// Whether a file with these first bytes, 44 or more, is a capture, or one whose header is damaged.
pub fn begins(head: &[u8]) -> bool {
    head.starts_with(&MAGIC) || head.get(FILE_HEADER_LEN..).and_then(Header::parse).is_some()
}

/// Streams the events of a capture; memory stays bounded whatever the input says.
pub struct Reader<R: Read> {
    input: R,
    /// For messages: the path, where there is one.
    name: String,
    buffer: Vec<u8>,
    /// Start of what is not consumed yet in `buffer`.
    position: usize,
    at_end: bool,
    frame: Option<Decoder>,
    decompressor: Decompressor<'static>,
    next_sequence: u32,
    damage: Damage,
}

impl<R: Read> Reader<R> {
    /// Starts reading `input`; `name` stands for it in messages.
    ///
    /// # Errors
    /// A usage error when it is no capture, or a newer heaptap wrote it.
    pub fn new(input: R, name: impl Into<String>) -> Result<Reader<R>> {
        let decompressor =
            Decompressor::new().map_err(|e| Error::failed("cannot set up zstd decompression").because(e))?;
        let mut reader = Reader {
            input,
            name: name.into(),
            buffer: Vec::new(),
            position: 0,
            at_end: false,
            frame: None,
            decompressor,
            next_sequence: 0,
            damage: Damage::default(),
        };
        reader.file_header()?;
        Ok(reader)
    }

    /// What could not be read so far; final once the events have ended.
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// The next event; `None` at the end. Damage is stepped over and counted.
    ///
    /// # Errors
    /// Only when the input itself fails.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(frame) = &mut self.frame {
                match frame.next() {
                    Ok(Some(event)) => return Ok(Some(event)),
                    Ok(None) => {}
                    Err(_) => self.damage.frames_malformed += 1,
                }
                self.damage.unknown_records += frame.unknown_records;
                self.frame = None;
            }
            if !self.find_frame()? {
                return Ok(None);
            }
        }
    }

    fn file_header(&mut self) -> Result<()> {
        self.fill(FILE_HEADER_LEN + HEADER_LEN)?;
        let bytes = self.pending();
        let not_a_capture = || {
            Error::usage(format!("{} is not a heaptap capture", self.name))
                .hint("captures are written by `heaptap record -o FILE`")
        };
        let Some((checked, mut rest)) = bytes.split_at_checked(FILE_HEADER_LEN - 4) else {
            return Err(not_a_capture());
        };
        let intact = rest.try_get_u32_le() == Ok(crc32c::crc32c(checked)) && checked.starts_with(&MAGIC);
        if !intact {
            // One flipped byte need not cost the whole capture.
            if bytes.get(FILE_HEADER_LEN..).and_then(Header::parse).is_none() {
                return Err(not_a_capture());
            }
            self.damage.file_header = true;
        } else if let Some(mut version) = checked.get(MAGIC.len()..) {
            let major = version.get_u16_le();
            if major > FORMAT_MAJOR {
                return Err(Error::usage(format!(
                    "{} was written by a newer heaptap (format {major}, this one reads {FORMAT_MAJOR})",
                    self.name
                ))
                .hint("report it with the heaptap that recorded it, or update this one"));
            }
        }
        self.position += FILE_HEADER_LEN;
        Ok(())
    }

    /// Makes the next intact frame of events the current one; false at the end.
    fn find_frame(&mut self) -> Result<bool> {
        loop {
            self.fill(HEADER_LEN)?;
            let left = self.pending().len();
            if left < HEADER_LEN {
                self.damage.cut_short |= left > 0;
                self.damage.bytes_skipped += left as u64;
                self.position += left;
                return Ok(false);
            }
            let Some(header) = Header::parse(self.pending()) else {
                self.skip_to_marker();
                continue;
            };
            let stored = header.stored_len as usize;
            if stored > MAX_PAYLOAD {
                self.skip_to_marker();
                continue;
            }
            self.fill(HEADER_LEN + stored)?;
            let Some(payload) = self.pending().get(HEADER_LEN..HEADER_LEN + stored) else {
                self.damage.cut_short = true;
                self.skip_to_marker();
                continue;
            };
            if crc32c::crc32c(payload) != header.payload_crc {
                self.skip_to_marker();
                continue;
            }
            let start = self.position + HEADER_LEN;
            self.position = start + stored;
            self.count_missing(header.sequence);
            if let Some(frame) = self.decode(header, start..start + stored) {
                self.frame = Some(frame);
                return Ok(true);
            }
        }
    }

    /// The frame's decoder; `None`, and counted, when it is unknown or malformed.
    fn decode(&mut self, header: Header, stored: std::ops::Range<usize>) -> Option<Decoder> {
        if header.kind != KIND_EVENTS || header.encoding != ENCODING_ZSTD {
            self.damage.unknown_frames += 1;
            return None;
        }
        let raw_len = header.raw_len as usize;
        let decoder = (raw_len <= MAX_PAYLOAD)
            .then(|| self.decompressor.decompress(&self.buffer[stored], raw_len).ok())
            .flatten()
            .and_then(|raw| Decoder::new(Bytes::from(raw)).ok());
        if decoder.is_none() {
            self.damage.frames_malformed += 1;
        }
        decoder
    }

    fn count_missing(&mut self, sequence: u32) {
        // A number from before is a repeated frame, not four thousand million lost ones.
        if sequence >= self.next_sequence {
            self.damage.frames_lost += u64::from(sequence - self.next_sequence);
        }
        self.next_sequence = sequence.wrapping_add(1);
    }

    /// Skips at least one byte, up to what may be the start of a frame.
    fn skip_to_marker(&mut self) {
        let pending = self.pending();
        let skip = pending
            .windows(MARKER.len())
            .skip(1)
            .position(|w| w == MARKER)
            .map(|n| n + 1)
            // A marker may begin in the last bytes; at the end of input they are lost too.
            .unwrap_or_else(|| {
                if self.at_end {
                    pending.len()
                } else {
                    pending.len().saturating_sub(MARKER.len() - 1).max(1)
                }
            });
        self.position += skip;
        self.damage.bytes_skipped += skip as u64;
    }

    fn pending(&self) -> &[u8] {
        &self.buffer[self.position..]
    }

    /// Reads until `want` bytes are pending or the input ends.
    fn fill(&mut self, want: usize) -> Result<()> {
        if self.pending().len() >= want || self.at_end {
            return Ok(());
        }
        self.buffer.drain(..self.position);
        self.position = 0;
        while self.buffer.len() < want && !self.at_end {
            let start = self.buffer.len();
            self.buffer.resize(start + CHUNK.max(want - start), 0);
            match self.input.read(&mut self.buffer[start..]) {
                Ok(n) => {
                    self.buffer.truncate(start + n);
                    self.at_end = n == 0;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => self.buffer.truncate(start),
                Err(e) => {
                    self.buffer.truncate(start);
                    return Err(Error::failed(format!("cannot read {}", self.name)).because(e));
                }
            }
        }
        Ok(())
    }
}
