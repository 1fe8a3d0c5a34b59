//! The ELF container: reads by link-time address, sections, notes, relocations.

use std::borrow::Cow;
use std::sync::OnceLock;

use bytes::Bytes;
use object::elf;
use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _, Sym as _};
use object::{CompressionFormat, LittleEndian, Object as _, ObjectSection as _};

use super::functions::{Entry, Functions};
use crate::base::{Error, Result};

/// Program headers beyond this many are damage: Go and C linkers write about ten.
const MAX_SEGMENTS: usize = 256;

/// No section of a Go program inflates to more than this; beyond it is a zip bomb.
const MAX_SECTION: u64 = 4 << 30;

/// A PT_LOAD segment's file-backed part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) addr: u64,
    /// Offset in the file.
    pub(crate) offset: u64,
    /// Bytes in the file; what the segment has more in memory reads as zero there.
    pub(crate) len: u64,
    pub(crate) writable: bool,
}

/// A little-endian x86-64 executable.
#[derive(Debug)]
pub(crate) struct Elf {
    bytes: Bytes,
    segments: Vec<Segment>,
    pie: bool,
    interpreted: bool,
    relocations: OnceLock<Vec<Relocation>>,
}

/// An R_X86_64_RELATIVE relocation: the loader writes load bias + `value` at `place`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relocation {
    pub(crate) place: u64,
    pub(crate) value: u64,
}

impl Elf {
    pub(crate) fn parse(bytes: Bytes) -> Result<Elf> {
        check_ident(&bytes)?;
        let damaged = |e| Error::usage("damaged ELF file").because(e);
        let header = elf::FileHeader64::<LittleEndian>::parse(&*bytes).map_err(damaged)?;
        // The section table is read lazily; whether it can be read is known now.
        ElfFile64::<LittleEndian>::parse(&*bytes).map_err(damaged)?;
        let headers = header.program_headers(LittleEndian, &*bytes).map_err(damaged)?;
        if headers.len() > MAX_SEGMENTS {
            return Err(Error::usage(format!("damaged ELF file: {} program headers", headers.len())));
        }
        let segments: Vec<Segment> =
            headers.iter().filter(|h| h.p_type(LittleEndian) == elf::PT_LOAD).map(segment).collect();
        if segments.is_empty() {
            return Err(Error::usage("not an executable: no loadable segment")
                .hint("give the executable of a Go program, not an object file, archive or core dump"));
        }
        let interpreted = headers.iter().any(|h| h.p_type(LittleEndian) == elf::PT_INTERP);
        let pie = header.e_type.get(LittleEndian) == elf::ET_DYN;
        Ok(Elf { segments, pie, interpreted, relocations: OnceLock::new(), bytes })
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn is_pie(&self) -> bool {
        self.pie
    }

    /// Whether the program asks for a dynamic loader.
    pub(crate) fn is_interpreted(&self) -> bool {
        self.interpreted
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The lowest PT_LOAD address, rounded down to its page.
    pub(crate) fn lowest_vaddr(&self) -> u64 {
        self.segments.iter().map(|s| s.addr & !0xfff).min().unwrap_or(0)
    }

    /// The file offset of the byte at link-time address `addr`.
    pub(crate) fn file_offset(&self, addr: u64) -> Option<u64> {
        let (segment, delta) = self.segment_at(addr)?;
        segment.offset.checked_add(delta)
    }

    /// `len` file-backed bytes at `addr`.
    pub(crate) fn read(&self, addr: u64, len: usize) -> Option<&[u8]> {
        self.tail(addr)?.get(..len)
    }

    /// The file-backed bytes from `addr` to the end of its segment.
    pub(crate) fn tail(&self, addr: u64) -> Option<&[u8]> {
        let (segment, delta) = self.segment_at(addr)?;
        self.segment_bytes(segment).get(usize::try_from(delta).ok()?..)
    }

    /// As `tail`, sharing the file's memory.
    pub(crate) fn tail_bytes(&self, addr: u64) -> Option<Bytes> {
        self.tail(addr).map(|tail| self.bytes.slice_ref(tail))
    }

    /// As much of a segment as the file has.
    pub(crate) fn segment_bytes(&self, segment: &Segment) -> &[u8] {
        let len = self.bytes.len() as u64;
        let start = segment.offset.min(len);
        let end = segment.offset.saturating_add(segment.len).clamp(start, len);
        self.bytes.get(start as usize..end as usize).unwrap_or(&[])
    }

    /// The u64 at `addr` as the loader leaves it at load bias 0: where the linker put
    /// an address only into a relocation, the relocation's.
    pub(crate) fn read_u64(&self, addr: u64) -> Option<u64> {
        let stored = u64_at(self.read(addr, 8)?, 0)?;
        if stored == 0 && self.pie { Some(self.relocated(addr).unwrap_or(0)) } else { Some(stored) }
    }

    /// Whether `addr` lies in the file-backed part of a writable segment.
    pub(crate) fn is_writable(&self, addr: u64) -> bool {
        self.segments.iter().any(|s| s.writable && addr >= s.addr && addr - s.addr < s.len)
    }

    fn segment_at(&self, addr: u64) -> Option<(&Segment, u64)> {
        self.segments.iter().find_map(|s| {
            let delta = addr.checked_sub(s.addr)?;
            (delta < s.len).then_some((s, delta))
        })
    }

    fn relocated(&self, place: u64) -> Option<u64> {
        let relocations = self.relocations();
        let i = relocations.binary_search_by_key(&place, |r| r.place).ok()?;
        Some(relocations[i].value)
    }

    /// The relative relocations, by place.
    pub(crate) fn relocations(&self) -> &[Relocation] {
        self.relocations.get_or_init(|| {
            let mut found = self.read_relocations().unwrap_or_default();
            found.sort_unstable_by_key(|r| r.place);
            found
        })
    }

    fn read_relocations(&self) -> Option<Vec<Relocation>> {
        let header = elf::FileHeader64::<LittleEndian>::parse(&*self.bytes).ok()?;
        let dynamic = header
            .program_headers(LittleEndian, &*self.bytes)
            .ok()?
            .iter()
            .find_map(|h| h.dynamic(LittleEndian, &*self.bytes).ok().flatten())?;
        let value = |tag| {
            dynamic.iter().find(|d| d.d_tag.get(LittleEndian) == tag).map(|d| d.d_val.get(LittleEndian))
        };
        let table = self.tail(value(elf::DT_RELA)?)?;
        let table = table.get(..usize::try_from(value(elf::DT_RELASZ)?).ok()?)?;
        let relative = u64::from(elf::R_X86_64_RELATIVE.0);
        let entries = table.chunks_exact(24).filter(|e| u64_at(e, 8) == Some(relative));
        entries.map(|e| Some(Relocation { place: u64_at(e, 0)?, value: u64_at(e, 16)? })).collect()
    }

    fn file(&self) -> Option<ElfFile64<'_, LittleEndian>> {
        ElfFile64::parse(&*self.bytes).ok()
    }

    /// Address and size of a section that is loaded.
    pub(crate) fn section_range(&self, name: &str) -> Option<(u64, u64)> {
        let file = self.file()?;
        let section = file.section_by_name(name)?;
        (section.address() != 0).then(|| (section.address(), section.size()))
    }

    pub(crate) fn has_section(&self, name: &str) -> bool {
        self.file().and_then(|f| f.section_by_name(name).map(|s| s.size() > 0)).unwrap_or(false)
    }

    /// A section's content, inflated if it is compressed; empty when there is none.
    pub(crate) fn section(&self, name: &str) -> Result<Bytes> {
        let Some(file) = self.file() else { return Ok(Bytes::new()) };
        let Some(section) = file.section_by_name(name) else { return Ok(Bytes::new()) };
        let damaged = |e| Error::failed(format!("section {name} is damaged")).because(e);
        let data = section.compressed_data().map_err(damaged)?;
        if data.format != CompressionFormat::None {
            // zlib, which Go uses, reaches 1:1032 at best.
            let most = (data.data.len() as u64).saturating_mul(1100).min(MAX_SECTION);
            if data.uncompressed_size > most {
                return Err(Error::failed(format!(
                    "section {name} is damaged: claims to inflate to {} bytes",
                    data.uncompressed_size
                )));
            }
        }
        Ok(match data.decompress().map_err(damaged)? {
            Cow::Borrowed(data) => self.bytes.slice_ref(data),
            Cow::Owned(data) => Bytes::from(data),
        })
    }

    /// The GNU build ID, by section or segment.
    pub(crate) fn gnu_build_id(&self) -> Option<&[u8]> {
        self.file()?.build_id().ok().flatten()
    }

    /// The description of the first note of this name and type.
    pub(crate) fn note(&self, name: &[u8], kind: u32) -> Option<&[u8]> {
        let header = elf::FileHeader64::<LittleEndian>::parse(&*self.bytes).ok()?;
        for program_header in header.program_headers(LittleEndian, &*self.bytes).ok()? {
            let Ok(Some(mut notes)) = program_header.notes(LittleEndian, &*self.bytes) else { continue };
            while let Ok(Some(note)) = notes.next() {
                if note.name() == name && note.n_type(LittleEndian).0 == kind {
                    return Some(note.desc());
                }
            }
        }
        None
    }

    /// The named symbols of `.symtab` that are defined here: functions when
    /// `functions`, else everything but functions.
    pub(crate) fn symbols(&self, functions: bool) -> Functions {
        let entries = self.file().map(|file| self.symbol_entries(&file, functions)).unwrap_or_default();
        Functions::new(self.bytes.clone(), entries)
    }

    fn symbol_entries(&self, file: &ElfFile64<'_, LittleEndian>, functions: bool) -> Vec<Entry> {
        let table = file.elf_symbol_table();
        let mut entries = Vec::new();
        for symbol in table.symbols() {
            let defined = symbol.st_shndx.get(LittleEndian).0 != 0;
            let kind = symbol.st_type();
            let wanted = if functions {
                kind == elf::STT_FUNC
            } else {
                matches!(kind, elf::STT_OBJECT | elf::STT_NOTYPE)
            };
            if !defined || !wanted {
                continue;
            }
            let Ok(name) = symbol.name(LittleEndian, table.strings()) else { continue };
            let start = symbol.st_value.get(LittleEndian);
            let end = start.saturating_add(symbol.st_size.get(LittleEndian));
            entries.extend(Entry::new(&self.bytes, name, start, end));
        }
        entries
    }
}

fn segment(header: &elf::ProgramHeader64<LittleEndian>) -> Segment {
    Segment {
        addr: header.p_vaddr(LittleEndian),
        offset: header.p_offset(LittleEndian),
        len: header.p_filesz(LittleEndian),
        writable: header.p_flags(LittleEndian) & elf::PF_W != elf::ProgramFlags(0),
    }
}

/// Refuses what is not a 64-bit little-endian x86-64 ELF executable, each by name.
fn check_ident(bytes: &[u8]) -> Result<()> {
    let hint = "heaptap reads 64-bit x86-64 Linux executables built by Go 1.19 or newer";
    if bytes.get(..4) != Some(&b"\x7fELF"[..]) {
        return Err(Error::usage("not an ELF file").hint(hint));
    }
    let machine = u16_at(bytes, 18).ok_or_else(|| Error::usage("damaged ELF file: ends in its header"))?;
    match (bytes.get(4), bytes.get(5)) {
        (Some(1), _) => return Err(Error::usage("a 32-bit program").hint(hint)),
        (Some(2), Some(1)) => {}
        (Some(2), Some(2)) => return Err(Error::usage("a program for a big-endian machine").hint(hint)),
        _ => return Err(Error::usage("damaged ELF file: neither 32 nor 64-bit")),
    }
    if machine != elf::EM_X86_64.0 {
        let name = match machine {
            183 => "arm64".to_owned(),
            243 => "riscv64".to_owned(),
            258 => "loong64".to_owned(),
            21 => "ppc64".to_owned(),
            other => format!("ELF machine {other}"),
        };
        return Err(Error::usage(format!("a program for another architecture ({name})")).hint(hint));
    }
    match u16_at(bytes, 16) {
        Some(2 | 3) => Ok(()),
        _ => Err(Error::usage("not an executable: an object file or core dump").hint(hint)),
    }
}

/// The little-endian u16 at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let b = bytes.get(offset..offset.checked_add(2)?)?;
    Some(u16::from_le_bytes(b.try_into().ok()?))
}

/// The little-endian u32 at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let b = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(b.try_into().ok()?))
}

/// The little-endian u64 at `offset`.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let b = bytes.get(offset..offset.checked_add(8)?)?;
    Some(u64::from_le_bytes(b.try_into().ok()?))
}
