//! The capture file: events in framed, checksummed, compressed form (tier 2).
//!
//! docs/capture-format.md describes it byte by byte; the constants here are its source.

mod batch;
mod frame;
mod reader;
#[cfg(test)]
mod tests;
mod varint;
mod writer;

pub use reader::{Damage, Reader, begins};
pub use writer::Writer;

/// First bytes of every capture file.
const MAGIC: [u8; 8] = *b"HEAPTAP\n";

/// Raised when an older reader would misread a newer file.
const FORMAT_MAJOR: u16 = 1;

/// Raised when records or columns are added that an older reader may skip.
const FORMAT_MINOR: u16 = 7;

/// Magic, major, minor, and the CRC-32C of those twelve bytes.
const FILE_HEADER_LEN: usize = 16;

/// The longest frame payload, compressed or not: bounds what a reader allocates.
const MAX_PAYLOAD: usize = 16 << 20;
