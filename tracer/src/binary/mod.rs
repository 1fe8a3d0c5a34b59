//! What an executable's bytes say: ELF, build info, functions, line tables, DWARF,
//! machine code (tier 1). Pure: no I/O, and total on hostile input.

mod buildinfo;
mod dwarf;
mod elf;
pub mod flow;
mod functions;
mod gopclntab;
mod moduledata;

use std::sync::OnceLock;

use bytes::Bytes;

pub use buildinfo::BuildInfo;
pub use dwarf::Dwarf;
pub use functions::{Function, Functions};
pub use gopclntab::LineTable;
pub use moduledata::ModuleData;

use crate::base::{Error, Result};
use elf::Elf;
use gopclntab::Header;

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
        let first_variable = self.moduledata().map_or(0, |m| m.noptrdata);
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
