//! A library or executable as C programs link it: its symbols, and its machine code.

use bytes::Bytes;
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object as _, ObjectSymbol as _};

use super::elf::Elf;
use crate::base::Result;

/// What exports C's allocator. All addresses are link-time addresses.
#[derive(Debug)]
pub struct CLibrary {
    elf: Elf,
}

impl CLibrary {
    /// # Errors
    /// Usage when the bytes are no ELF file for x86-64.
    pub fn parse(bytes: Bytes) -> Result<CLibrary> {
        Ok(CLibrary { elf: Elf::parse(bytes)? })
    }

    /// Where a function begins: one that other objects may call, else any of that name.
    pub fn function(&self, name: &str) -> Option<u64> {
        let file = ElfFile64::<LittleEndian>::parse(&**self.elf.bytes()).ok()?;
        let mut symbols = file.dynamic_symbols().chain(file.symbols());
        let found = symbols.find(|symbol| symbol.is_definition() && symbol.name() == Ok(name))?;
        Some(found.address())
    }

    /// The code from an address to the end of its segment.
    pub fn code(&self, address: u64) -> Option<&[u8]> {
        self.elf.tail(address)
    }

    pub fn file_offset(&self, address: u64) -> Option<u64> {
        self.elf.file_offset(address)
    }

    /// As [`Binary::lowest_vaddr`](super::Binary::lowest_vaddr).
    pub fn lowest_vaddr(&self) -> u64 {
        self.elf.lowest_vaddr()
    }
}
