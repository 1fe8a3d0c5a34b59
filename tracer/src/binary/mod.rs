//! What an executable's bytes say: ELF, build info, functions, line tables, DWARF,
//! machine code (tier 1). Pure: no I/O, and total on hostile input.

mod buildinfo;
mod c_library;
mod dwarf;
mod elf;
pub mod flow;
mod functions;
mod gopclntab;
mod moduledata;
#[cfg(test)]
pub(crate) mod testdata;

use std::sync::OnceLock;

use bytes::Bytes;

pub use buildinfo::BuildInfo;
pub use c_library::CLibrary;
pub use dwarf::Dwarf;
pub use functions::{Function, Functions};
pub use gopclntab::{LineTable, Unwind};
pub use moduledata::ModuleData;

use crate::base::{Error, Result};
use elf::Elf;
use gopclntab::Header;

/// Deeper inlining than this is damage: the compiler's budget ends it far earlier.
const MAX_INLINED: usize = 64;

/// A Go executable. All addresses are link-time addresses.
///
/// Parsing looks at headers only; each table is read on its first use and kept.
#[derive(Debug)]
pub struct Binary {
    elf: Elf,
    build_info: OnceLock<Option<BuildInfo>>,
    pclntab: OnceLock<Option<(u64, Header)>>,
    module_data: OnceLock<Option<ModuleData>>,
    line_table: OnceLock<Option<LineTable>>,
    dwarf: OnceLock<Option<gimli::DwarfSections<Bytes>>>,
    functions: OnceLock<Functions>,
    symbol_functions: OnceLock<Functions>,
    symbol_data: OnceLock<Functions>,
}

/// A symbol of `.symtab`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol {
    pub addr: u64,
    /// In bytes; 0 when the linker did not say.
    pub size: u64,
}

/// One function at an address, as the source says; inlined calls have one each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceFrame {
    pub function: String,
    /// Empty when unknown.
    pub file: String,
    /// 0 when unknown.
    pub line: u32,
}

/// A source frame as the runtime's stack traces know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TracedFrame {
    pub source: SourceFrame,
    /// Made by the compiler to call another function: a method of an embedded type, a
    /// method called through an interface, a deferred call.
    pub is_wrapper: bool,
}

impl Binary {
    /// # Errors
    /// Usage, each with its own message, when the bytes are not an ELF file, or one for
    /// another word size, byte order or architecture, not an executable, or damaged.
    pub fn parse(bytes: Bytes) -> Result<Binary> {
        Ok(Binary {
            elf: Elf::parse(bytes)?,
            build_info: OnceLock::new(),
            pclntab: OnceLock::new(),
            module_data: OnceLock::new(),
            line_table: OnceLock::new(),
            dwarf: OnceLock::new(),
            functions: OnceLock::new(),
            symbol_functions: OnceLock::new(),
            symbol_data: OnceLock::new(),
        })
    }

    /// `len` bytes at `addr`; `None` when the file does not hold all of them.
    pub fn read(&self, addr: u64, len: usize) -> Option<&[u8]> {
        self.elf.read(addr, len)
    }

    /// The little-endian u64 at `addr`. Where it is an address that the loader fills
    /// in, the link-time address, wherever the linker put that.
    pub fn read_u64(&self, addr: u64) -> Option<u64> {
        self.elf.read_u64(addr)
    }

    /// The little-endian u64 at `addr`, when the program cannot change it: outside
    /// writable segments, or in the part of one that is read-only after relocation.
    pub fn read_only_u64(&self, addr: u64) -> Option<u64> {
        // A C linker puts data without pointers last, Go's first.
        let first_variable = self.moduledata().map_or(0, |m| m.noptrdata.min(m.data));
        if self.elf.is_writable(addr) && addr >= first_variable {
            return None;
        }
        self.read_u64(addr)
    }

    /// The offset in the file of the byte at `addr`: what a uprobe is given.
    pub fn file_offset(&self, addr: u64) -> Option<u64> {
        self.elf.file_offset(addr)
    }

    /// The lowest address of a loaded segment, rounded down to its page. The load bias
    /// is the start of the file's lowest mapping minus this.
    pub fn lowest_vaddr(&self) -> u64 {
        self.elf.lowest_vaddr()
    }

    /// Whether the program is loaded at an address chosen at run time.
    pub fn is_pie(&self) -> bool {
        self.elf.is_pie()
    }

    pub fn has_symtab(&self) -> bool {
        self.elf.has_section(".symtab")
    }

    pub fn has_dwarf(&self) -> bool {
        self.elf.has_section(".debug_info")
    }

    /// A section's content, inflated if it is compressed; empty when there is none.
    ///
    /// # Errors
    /// Failed when it is damaged.
    pub(crate) fn section(&self, name: &str) -> Result<Bytes> {
        self.elf.section(name)
    }

    /// Neither `.symtab` nor DWARF.
    pub fn is_stripped(&self) -> bool {
        !self.has_symtab() && !self.has_dwarf()
    }

    /// Whether the program asks for a dynamic loader (`PT_INTERP`).
    pub fn is_dynamic(&self) -> bool {
        self.elf.is_interpreted()
    }

    /// Whether package runtime/cgo is linked in, and so C code may run: by its functions
    /// in gopclntab, which stripping leaves (runtime/cgo/asm_amd64.s `crosscall2`).
    pub fn uses_cgo(&self) -> bool {
        let of_cgo = |f: Function<'_>| f.name == "crosscall2" || f.name.starts_with("runtime/cgo.");
        self.functions().is_ok_and(|functions| functions.iter().any(of_cgo))
    }

    /// The GNU build ID in hex, or Go's own build ID where there is none.
    pub fn build_id(&self) -> Option<String> {
        // cmd/internal/buildid `elfGoNote`'s tag.
        const NT_GO_BUILD_ID: u32 = 4;
        if let Some(id) = self.elf.gnu_build_id() {
            return Some(id.iter().map(|b| format!("{b:02x}")).collect());
        }
        let id = self.elf.note(b"Go", NT_GO_BUILD_ID)?;
        let end = id.iter().position(|&b| b == 0).unwrap_or(id.len());
        Some(String::from_utf8_lossy(&id[..end]).into_owned()).filter(|id| !id.is_empty())
    }

    /// What the go command recorded about the build.
    pub fn build_info(&self) -> Option<&BuildInfo> {
        self.build_info.get_or_init(|| buildinfo::find(&self.elf)).as_ref()
    }

    /// The Go release, experiments included, as `go version` prints it: from the build
    /// information, else from `runtime.buildVersion`, else from the one string variable
    /// of the program that holds a Go version.
    pub fn go_version(&self) -> Option<String> {
        if let Some(info) = self.build_info() {
            return Some(info.go_version.clone());
        }
        let from_symbol =
            self.symbol("runtime.buildVersion").and_then(|s| buildinfo::go_string(&self.elf, s.addr));
        match from_symbol {
            Some(version) => Some(String::from_utf8_lossy(version).into_owned()),
            None => buildinfo::version_variable(&self.elf),
        }
    }

    /// The program's functions: Go's from gopclntab, so that a stripped program has the
    /// same, else those of `.symtab`.
    ///
    /// # Errors
    /// Usage when it is not a Go program, or of Go before 1.16.
    pub fn functions(&self) -> Result<&Functions> {
        if let Some(functions) = self.functions.get() {
            return Ok(functions);
        }
        let functions = self.read_functions()?;
        Ok(self.functions.get_or_init(|| functions))
    }

    fn read_functions(&self) -> Result<Functions> {
        if let Some(table) = self.line_table() {
            return Ok(table.functions_in(self.elf.bytes()));
        }
        if gopclntab::is_before_116(&self.elf) {
            return Err(Error::usage("built by Go older than 1.16")
                .hint("heaptap reads programs of Go 1.19 or newer"));
        }
        let functions = self.elf.symbols(true);
        if functions.by_name("runtime.mallocgc").is_some() {
            return Ok(functions);
        }
        Err(match self.build_info() {
            Some(info) => {
                Error::usage(format!("damaged Go program ({}): no readable .gopclntab", info.go_version))
            }
            None => Error::usage("not a Go program: no .go.buildinfo and no .gopclntab")
                .hint("heaptap reads programs of Go 1.19 or newer"),
        })
    }

    /// The name of the function whose code holds `addr`.
    pub fn name_at(&self, addr: u64) -> Option<&str> {
        self.functions().ok()?.containing(addr).map(|f| f.name)
    }

    /// The function or variable of this name in `.symtab`; `None` when stripped.
    pub fn symbol(&self, name: &str) -> Option<Symbol> {
        let data = self.symbol_data.get_or_init(|| self.elf.symbols(false));
        let found = data.by_name(name).or_else(|| self.symbol_functions().by_name(name))?;
        Some(Symbol { addr: found.start, size: found.end - found.start })
    }

    /// The name of the variable that holds `addr`, as `main.cache`; `None` when stripped.
    pub fn variable_at(&self, addr: u64) -> Option<&str> {
        let data = self.symbol_data.get_or_init(|| self.elf.symbols(false));
        data.containing(addr).map(|variable| variable.name)
    }

    /// The functions of `.symtab`, C functions included; empty when stripped.
    pub fn symbol_functions(&self) -> &Functions {
        self.symbol_functions.get_or_init(|| self.elf.symbols(true))
    }

    /// The linker's description of the program for the runtime.
    pub fn moduledata(&self) -> Option<&ModuleData> {
        let find = || {
            let (addr, header) = self.pclntab()?;
            moduledata::find(&self.elf, *addr, header)
        };
        self.module_data.get_or_init(find).as_ref()
    }

    /// Go's table of functions, lines and inlined calls.
    pub fn line_table(&self) -> Option<&LineTable> {
        let read = || {
            let (addr, header) = self.pclntab()?;
            LineTable::new(&self.elf, *addr, *header, self.moduledata())
        };
        self.line_table.get_or_init(read).as_ref()
    }

    /// The program's DWARF, indexed anew at each call; `None` when there is none that
    /// can be read.
    pub fn dwarf(&self) -> Option<Dwarf<'_>> {
        self.dwarf.get_or_init(|| dwarf::load(&self.elf)).as_ref().and_then(Dwarf::new)
    }

    fn pclntab(&self) -> Option<&(u64, Header)> {
        self.pclntab.get_or_init(|| gopclntab::find(&self.elf)).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::gopclntab::Form;
    use super::testdata::{PCLNTAB, TEXT, program, relocated_program};
    use super::*;
    use crate::base::ErrorKind;

    const FORMS: [Form; 3] = [Form::Go116, Form::Go118, Form::Go120];

    #[test]
    fn a_program_without_sections_gives_all_its_tables() {
        for form in FORMS {
            let binary = Binary::parse(program(form).into()).expect("an executable");
            let functions = binary.functions().expect("functions");
            let named: Vec<_> = functions.iter().map(|f| (f.name, f.start - TEXT, f.end - TEXT)).collect();
            assert_eq!(named, [("main.outer", 0, 0x20), ("main.last", 0x20, 0x30)], "{form:?}");
            let module = binary.moduledata().expect("module data");
            assert_eq!((module.text, module.etext, module.types), (TEXT, TEXT + 0x30, 0x40_0000), "{form:?}");
            assert_eq!(module.gofunc.is_some(), form != Form::Go116);
            assert_eq!(binary.go_version().as_deref(), Some("go1.99.1"));
            assert_eq!(binary.build_info().and_then(|i| i.setting("-race")), Some("true"));
            assert_eq!(binary.file_offset(PCLNTAB), Some(0x130));
            assert_eq!((binary.is_stripped(), binary.is_pie(), binary.build_id()), (true, false, None));
        }
    }

    #[test]
    fn addresses_that_only_relocations_hold_are_found() {
        for form in FORMS {
            let plain = Binary::parse(program(form).into()).expect("an executable");
            let relocated = Binary::parse(relocated_program(form).into()).expect("an executable");
            assert!(relocated.is_pie());
            assert!(plain.moduledata().is_some());
            assert_eq!(relocated.moduledata(), plain.moduledata(), "{form:?}");
        }
    }

    #[test]
    fn what_is_no_x86_64_executable_is_refused_by_name() {
        let good = program(Form::Go120);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        for (bytes, message) in [
            (b"#!/bin/sh\n".to_vec(), "not an ELF file"),
            (b"\x7fELF\x02\x01".to_vec(), "damaged ELF file: ends in its header"),
            (with(4, 1), "a 32-bit program"),
            (with(5, 2), "a program for a big-endian machine"),
            (with(18, 183), "a program for another architecture (arm64)"),
            (with(16, 1), "not an executable: an object file or core dump"),
            (with(64, 2), "not an executable: no loadable segment"),
        ] {
            let error = Binary::parse(bytes.into()).expect_err(message);
            assert_eq!((error.to_string().as_str(), error.kind()), (message, ErrorKind::Usage));
        }
    }

    #[test]
    fn a_program_that_is_not_go_is_refused_when_functions_are_asked_for() {
        let mut bytes = program(Form::Go120);
        bytes.truncate(0x130);
        let error = Binary::parse(bytes.into()).and_then(|b| b.functions().map(Functions::len));
        let error = error.expect_err("no functions");
        assert_eq!(error.to_string(), "not a Go program: no .go.buildinfo and no .gopclntab");
    }

    /// Asks everything of bytes that may be damaged.
    fn exercise(bytes: Vec<u8>) {
        let Ok(binary) = Binary::parse(bytes.into()) else { return };
        _ = (binary.build_id(), binary.go_version(), binary.uses_cgo(), binary.symbol("main.main"));
        _ = (binary.moduledata(), binary.read_u64(u64::MAX), binary.lowest_vaddr());
        if let Ok(functions) = binary.functions() {
            for function in functions.iter() {
                _ = functions.by_name(function.name);
                _ = binary.line_table().map(|t| t.frames(function.start));
            }
        }
        for addr in TEXT..TEXT + 0x40 {
            _ = binary.line_table().map(|t| t.frames(addr));
        }
    }

    proptest! {
        #[test]
        fn damaged_programs_do_not_panic(
            form in 0usize..3,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
            is_cut in any::<bool>(),
            relocated in any::<bool>(),
        ) {
            let mut bytes = if relocated { relocated_program(FORMS[form]) } else { program(FORMS[form]) };
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if is_cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            exercise(bytes);
        }
    }
}
