//! The linker's description of the program for its own runtime: `runtime.firstmoduledata`.
//!
//! Source: runtime/symtab.go `moduledata` of Go 1.16 to 1.27. There is no symbol for it
//! in a stripped program, so it is found by its first two words, the addresses of the
//! pclntab header and of the function name table behind it.

use super::elf::{Elf, Segment};
use super::gopclntab::{Form, Header};

/// `runtime.firstmoduledata`: link-time addresses of the parts of the program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModuleData {
    /// Where the structure itself lies.
    pub addr: u64,
    /// `runtime.text`: what function offsets in gopclntab are relative to.
    pub text: u64,
    pub etext: u64,
    pub noptrdata: u64,
    pub enoptrdata: u64,
    pub data: u64,
    pub edata: u64,
    pub bss: u64,
    pub ebss: u64,
    pub noptrbss: u64,
    pub enoptrbss: u64,
    pub end: u64,
    /// Type descriptors; `abi.Type.Str` and other name offsets are relative to it.
    pub types: u64,
    pub etypes: u64,
    /// Bytes of type descriptors at `types`, which stand there in a row; Go 1.27 on.
    pub type_desc_len: Option<u64>,
    /// Go 1.18 on.
    pub rodata: Option<u64>,
    /// `go:func.*`: what funcdata offsets are relative to; Go 1.18 on.
    pub gofunc: Option<u64>,
}

/// Finds the structure that describes the pclntab at `header_addr`.
pub(crate) fn find(elf: &Elf, header_addr: u64, header: &Header) -> Option<ModuleData> {
    let names = header_addr.checked_add(header.funcname_offset())?;
    let read = |addr| read_at(elf, addr, header.form());
    let section = elf.section_range(".go.module").map(|(addr, _)| addr);
    section
        .into_iter()
        .filter(|&addr| elf.read_u64(addr) == Some(header_addr))
        .chain(stored_pairs(elf, header_addr, names))
        .chain(relocated_pairs(elf, header_addr, names))
        .find_map(read)
}

/// Addresses of aligned pairs of these words in the file, writable segments first:
/// the runtime writes to its moduledata.
fn stored_pairs(elf: &Elf, first: u64, second: u64) -> impl Iterator<Item = u64> {
    let (writable, other): (Vec<Segment>, Vec<Segment>) = elf.segments().iter().partition(|s| s.writable);
    writable.into_iter().chain(other).flat_map(move |segment| {
        let bytes = elf.segment_bytes(&segment);
        let skew = segment.addr.wrapping_neg() % 8;
        let words = bytes.get(skew as usize..).unwrap_or(&[]).chunks_exact(8);
        let matching = words.enumerate().filter(move |(_, word)| **word == first.to_le_bytes());
        matching.filter_map(move |(i, _)| {
            let addr = segment.addr.checked_add(skew + 8 * i as u64)?;
            (elf.read_u64(addr.checked_add(8)?) == Some(second)).then_some(addr)
        })
    })
}

/// The same where a linker put the words into relocations only.
fn relocated_pairs(elf: &Elf, first: u64, second: u64) -> impl Iterator<Item = u64> {
    let relocations = if elf.is_pie() { elf.relocations() } else { &[] };
    relocations
        .windows(2)
        .filter(move |pair| pair[0].value == first && pair[1].value == second)
        .filter(|pair| pair[0].place.checked_add(8) == Some(pair[1].place))
        .map(|pair| pair[0].place)
}

/// Reads the structure at `addr` and checks that its parts are in order.
fn read_at(elf: &Elf, addr: u64, form: Form) -> Option<ModuleData> {
    let word = |offset: u64| elf.read_u64(addr.checked_add(offset)?);
    let mut md = ModuleData {
        addr,
        text: word(176)?,
        etext: word(184)?,
        noptrdata: word(192)?,
        enoptrdata: word(200)?,
        data: word(208)?,
        edata: word(216)?,
        bss: word(224)?,
        ebss: word(232)?,
        noptrbss: word(240)?,
        enoptrbss: word(248)?,
        ..ModuleData::default()
    };
    // Go 1.20 put covctrs and ecovctrs before `end`.
    let end = if form == Form::Go120 { 272 } else { 256 };
    md.end = word(end)?;
    let types = end + 24;
    md.types = word(types)?;
    // Go 1.27 put typedesclen before etypes, and itaboffset and itabsize behind it. An
    // address is never below the sum of two others, so the order tells them apart.
    let (second, third) = (word(types + 8)?, word(types + 16)?);
    let has_lengths = form == Form::Go120 && md.types.checked_add(second).is_some_and(|sum| sum <= third);
    let rodata = if has_lengths {
        md.type_desc_len = Some(second);
        md.etypes = third;
        types + 40
    } else {
        md.etypes = second;
        types + 16
    };
    if form != Form::Go116 {
        md.rodata = word(rodata);
        md.gofunc = word(rodata + 8);
    }
    md.is_plausible(elf).then_some(md)
}

impl ModuleData {
    fn is_plausible(&self, elf: &Elf) -> bool {
        let ordered = self.text < self.etext
            && self.noptrdata <= self.enoptrdata
            && self.data <= self.edata
            && self.bss <= self.ebss
            && self.noptrbss <= self.enoptrbss
            && self.types <= self.etypes;
        ordered && elf.read(self.text, 1).is_some() && elf.read(self.types, 1).is_some()
    }
}
