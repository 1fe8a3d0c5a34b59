//! Frame headers: how far a frame reaches, and whether it arrived as it was written.

use bytes::{Buf, BufMut};

/// Precedes every frame; searched for after damage. The first byte is no ASCII and no
/// valid start of UTF-8, so text in a payload never looks like it.
pub(super) const MARKER: [u8; 4] = [0xf7, b'H', b'T', b'F'];

/// Marker, kind, encoding, two spare bytes, sequence, two lengths, two checksums.
pub(super) const HEADER_LEN: usize = 28;

/// A frame of events; other kinds are skipped.
pub(super) const KIND_EVENTS: u8 = 1;

/// The payload is one zstd frame; other encodings are skipped.
pub(super) const ENCODING_ZSTD: u8 = 1;

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) encoding: u8,
    /// Counts frames from 0, so that a reader knows how many are missing.
    pub(super) sequence: u32,
    /// Bytes of the payload once decoded.
    pub(super) raw_len: u32,
    /// Bytes of the payload as stored.
    pub(super) stored_len: u32,
    /// CRC-32C of the stored payload.
    pub(super) payload_crc: u32,
}

impl Header {
    /// Appends the header with its own checksum.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_slice(&MARKER);
        out.put_u8(self.kind);
        out.put_u8(self.encoding);
        out.put_u16_le(0);
        out.put_u32_le(self.sequence);
        out.put_u32_le(self.raw_len);
        out.put_u32_le(self.stored_len);
        out.put_u32_le(self.payload_crc);
        let crc = crc32c::crc32c(&out[start..]);
        out.put_u32_le(crc);
    }

    /// The header at the start of `bytes`, if a whole and undamaged one stands there.
    pub(super) fn parse(bytes: &[u8]) -> Option<Header> {
        let mut bytes = bytes.get(..HEADER_LEN)?;
        let (checked, mut crc) = bytes.split_at(HEADER_LEN - 4);
        if !checked.starts_with(&MARKER) || crc32c::crc32c(checked) != crc.get_u32_le() {
            return None;
        }
        bytes.advance(MARKER.len());
        let kind = bytes.get_u8();
        let encoding = bytes.get_u8();
        bytes.advance(2);
        Some(Header {
            kind,
            encoding,
            sequence: bytes.get_u32_le(),
            raw_len: bytes.get_u32_le(),
            stored_len: bytes.get_u32_le(),
            payload_crc: bytes.get_u32_le(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_any_flip_is_noticed() {
        let header =
            Header { kind: 1, encoding: 1, sequence: 7, raw_len: 300, stored_len: 200, payload_crc: 0xdead };
        let mut bytes = Vec::new();
        header.put(&mut bytes);
        assert_eq!(bytes.len(), HEADER_LEN);
        assert_eq!(Header::parse(&bytes), Some(header));
        for i in 0..HEADER_LEN {
            let mut flipped = bytes.clone();
            flipped[i] ^= 0x10;
            assert_eq!(Header::parse(&flipped), None, "byte {i}");
        }
    }
}
