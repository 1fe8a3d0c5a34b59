//! A process's memory, from wherever it comes: live or faked for tests (tier 1).

mod fake;
mod gather;
mod live;
mod word;

pub use fake::FakeMemory;
pub use gather::{Gathered, gather};
pub use live::LiveMemory;
pub use word::Word;

use crate::base::{Error, Result};

/// The memory of one process, by run-time address.
///
/// The target runs while it is read: what is returned may be torn, and callers
/// check every value before they follow it.
pub trait ProcessMemory: Send + Sync {
    /// Fills `buf` from `addr`.
    ///
    /// # Errors
    /// When any byte of the range is not readable, or the process is gone.
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<()>;

    /// Fills each buffer from its address; faster than one `read` after the other where
    /// the memory is another process's.
    ///
    /// # Errors
    /// When any of the ranges is not readable; the buffers' contents are then unspecified.
    fn read_many(&self, reads: &mut [(u64, &mut [u8])]) -> Result<()> {
        reads.iter_mut().try_for_each(|(addr, buf)| self.read(*addr, buf))
    }

    /// Reads a little-endian u64.
    fn read_u64(&self, addr: u64) -> Result<u64> {
        let mut b = [0; 8];
        self.read(addr, &mut b)?;
        Ok(u64::from_le_bytes(b))
    }

    /// Reads a little-endian u32.
    fn read_u32(&self, addr: u64) -> Result<u32> {
        let mut b = [0; 4];
        self.read(addr, &mut b)?;
        Ok(u32::from_le_bytes(b))
    }

    /// Reads `len` bytes, refusing more than `MAX_READ` (lengths come from the target).
    fn read_vec(&self, addr: u64, len: usize) -> Result<Vec<u8>> {
        if len > MAX_READ {
            return Err(Error::failed(format!(
                "refusing to read {len} bytes at {addr:#x}: more than {MAX_READ}"
            )));
        }
        let mut v = vec![0; len];
        self.read(addr, &mut v)?;
        Ok(v)
    }
}

/// The little-endian words that some bytes are; less than one at the end is left out.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))
}

/// The longest single read: 64 MiB. A longer length is damage, not data.
pub const MAX_READ: usize = 64 << 20;
