//! A process's memory made of byte strings, for tests and fuzzing.

use std::collections::BTreeMap;

use super::ProcessMemory;
use crate::base::{Error, Result};

/// Memory that exists only where something was written; reads elsewhere fail.
#[derive(Debug, Clone, Default)]
pub struct FakeMemory {
    /// Regions by start address; they neither overlap nor touch.
    regions: BTreeMap<u64, Vec<u8>>,
}

impl FakeMemory {
    pub fn new() -> FakeMemory {
        FakeMemory::default()
    }

    /// Puts `bytes` at `addr`, over what was there.
    pub fn write(&mut self, addr: u64, bytes: &[u8]) -> &mut FakeMemory {
        let (mut start, mut data) = (addr, bytes.to_vec());
        let end = addr.saturating_add(bytes.len() as u64);
        let touching: Vec<u64> = self
            .regions
            .range(..=end)
            .filter(|(at, old)| *at + old.len() as u64 >= addr)
            .map(|(at, _)| *at)
            .collect();
        for at in touching {
            let Some(old) = self.regions.remove(&at) else { continue };
            let old_end = at + old.len() as u64;
            if at < start {
                let mut joined = old[..(start - at) as usize].to_vec();
                joined.append(&mut data);
                (start, data) = (at, joined);
            }
            if old_end > end {
                data.extend_from_slice(&old[(end - at) as usize..]);
            }
        }
        self.regions.insert(start, data);
        self
    }

    /// Puts a little-endian u64 at `addr`.
    pub fn write_u64(&mut self, addr: u64, value: u64) -> &mut FakeMemory {
        self.write(addr, &value.to_le_bytes())
    }
}

impl ProcessMemory for FakeMemory {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<()> {
        let found = self.regions.range(..=addr).next_back().and_then(|(at, data)| {
            let from = usize::try_from(addr - at).ok()?;
            data.get(from..from.checked_add(buf.len())?)
        });
        match found {
            Some(bytes) => buf.copy_from_slice(bytes),
            None => return Err(Error::failed(format!("nothing at {addr:#x}, {} bytes", buf.len()))),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_join_and_overwrite() {
        let mut m = FakeMemory::new();
        m.write(100, b"aaaa").write(106, b"cc").write(104, b"bb").write(102, b"XX");
        assert_eq!(m.read_vec(100, 8).ok(), Some(b"aaXXbbcc".to_vec()));
        m.write(101, b"......");
        assert_eq!(m.read_vec(100, 8).ok(), Some(b"a......c".to_vec()));
        assert_eq!(m.regions.len(), 1);
        assert!(m.read_vec(99, 2).is_err());
        assert!(m.read_vec(107, 2).is_err());
    }
}
