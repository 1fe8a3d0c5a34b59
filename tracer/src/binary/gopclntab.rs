//! Go's own table of functions, lines and inlined calls: gopclntab.
//!
//! Sources: runtime/symtab.go, runtime/symtabinl.go, internal/abi/symtab.go and
//! cmd/link/internal/ld/pcln.go of Go 1.16 to 1.27. Every Go program has it, stripped
//! or not. Text sections split by a linker (`moduledata.textsectmap`) do not occur on
//! amd64 and are not read.

use std::sync::OnceLock;

use bytes::Bytes;

use super::elf::{Elf, u32_at, u64_at};
use super::functions::{Entry, Functions, MAX_NAME};
use super::moduledata::ModuleData;
use super::{MAX_INLINED, SourceFrame, TracedFrame};

/// `PCDATA_InlTreeIndex` and `FUNCDATA_InlTree` of internal/abi/symtab.go.
const PCDATA_INL_TREE_INDEX: u32 = 2;
const FUNCDATA_INL_TREE: u32 = 3;

/// Which layout the table has (`abi.PCLnTabMagic`), by the first release that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Function entries are addresses.
    Go116,
    /// Function entries are offsets from `moduledata.text`.
    Go118,
    /// `_func` has a start line, inlined calls are 16 bytes.
    Go120,
}

impl Form {
    fn from_magic(magic: u32) -> Option<Form> {
        match magic {
            0xffff_fffa => Some(Form::Go116),
            0xffff_fff0 => Some(Form::Go118),
            0xffff_fff1 => Some(Form::Go120),
            _ => None,
        }
    }

    /// Bytes of a functab entry: entry and offset of its `_func`.
    fn functab_entry(self) -> usize {
        if self == Form::Go116 { 16 } else { 8 }
    }

    /// Offset of `nameOff` in `_func`, behind the entry.
    fn name_off(self) -> usize {
        if self == Form::Go116 { 8 } else { 4 }
    }

    /// Bytes of `_func` before its pcdata array.
    fn func_len(self) -> usize {
        if self == Form::Go118 { 40 } else { 44 }
    }
}

/// `runtime.pcHeader`: where the parts of the table begin, relative to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    form: Form,
    nfunc: usize,
    /// 0 in Go 1.16, 1.17 (which do not have it), in 1.26 on, and where a linker left it
    /// to a relocation.
    text_start: u64,
    funcname: usize,
    cu: usize,
    file: usize,
    pc: usize,
    pcln: usize,
}

impl Header {
    /// Reads and checks the header at the start of `bytes`.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Header> {
        let form = Form::from_magic(u32_at(bytes, 0)?)?;
        // Two bytes of zero, instruction quantum 1, pointer size 8: amd64.
        if bytes.get(4..8) != Some(&[0, 0, 1, 8]) {
            return None;
        }
        let offset = |i: usize| usize::try_from(u64_at(bytes, 8 + 8 * i)?).ok();
        // nfunc, nfiles, then textStart except in the first form.
        let first = if form == Form::Go116 { 2 } else { 3 };
        let header = Header {
            form,
            nfunc: offset(0)?,
            text_start: if form == Form::Go116 { 0 } else { u64_at(bytes, 24)? },
            funcname: offset(first)?,
            cu: offset(first + 1)?,
            file: offset(first + 2)?,
            pc: offset(first + 3)?,
            pcln: offset(first + 4)?,
        };
        let in_order = header.funcname <= header.cu
            && header.cu <= header.file
            && header.file <= header.pc
            && header.pc <= header.pcln;
        let functab = header.nfunc.checked_mul(form.functab_entry())?.checked_add(header.pcln)?;
        (in_order && header.funcname >= 64 && header.nfunc > 0 && functab < bytes.len()).then_some(header)
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }

    pub(crate) fn funcname_offset(&self) -> u64 {
        self.funcname as u64
    }
}

/// Finds the header: by its section, else anywhere it may be. Programs linked as PIE by
/// a C linker have no section of their own for it up to Go 1.25.
pub(crate) fn find(elf: &Elf) -> Option<(u64, Header)> {
    let sections = [".gopclntab", ".data.rel.ro.gopclntab"];
    let by_section = sections.iter().filter_map(|name| elf.section_range(name)).map(|(addr, _)| addr);
    let scanned = elf.segments().iter().flat_map(|segment| {
        let skew = segment.addr.wrapping_neg() % 8;
        let words = elf.segment_bytes(segment).get(skew as usize..).unwrap_or(&[]).chunks_exact(8);
        let start = segment.addr.saturating_add(skew);
        let matching = words.enumerate().filter(|(_, word)| {
            word[4..] == [0, 0, 1, 8] && u32_at(word, 0).and_then(Form::from_magic).is_some()
        });
        matching.map(move |(i, _)| start.saturating_add(8 * i as u64))
    });
    by_section.chain(scanned).find_map(|addr| Some((addr, Header::parse(elf.tail(addr)?)?)))
}

/// Whether the program has the table of Go 1.2 to 1.15, which heaptap does not read.
pub(crate) fn is_before_116(elf: &Elf) -> bool {
    let Some((addr, _)) = elf.section_range(".gopclntab") else { return false };
    elf.read(addr, 8) == Some(&[0xfb, 0xff, 0xff, 0xff, 0, 0, 1, 8])
}

/// The table with what it refers to, ready for look-ups.
#[derive(Debug)]
pub struct LineTable {
    /// From the header to the end of its segment.
    bytes: Bytes,
    header: Header,
    /// `moduledata.text`.
    text: u64,
    /// `moduledata.gofunc` to the end of its segment.
    gofunc: Bytes,
    /// `abi.FuncIDWrapper`, whose number differs between releases.
    wrapper_id: OnceLock<Option<u8>>,
}

/// What the runtime's unwinder knows of the code at an address (runtime/traceback.go
/// `unwinder.resolveInternal`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unwind<'a> {
    /// Where the function begins.
    pub entry: u64,
    /// The function's name.
    pub function: &'a [u8],
    /// Bytes from the stack pointer to the return address; `None` for code that the
    /// runtime does not unwind (C code in the race detector).
    pub sp_delta: Option<i32>,
    /// Nothing called it: the last frame of a stack.
    pub is_outermost: bool,
    /// It writes to the stack pointer in ways `sp_delta` does not tell.
    pub writes_sp: bool,
}

/// `abi.FuncFlagTopFrame` and `abi.FuncFlagSPWrite` of internal/abi/symtab.go.
pub(super) const FLAG_TOP_FRAME: u8 = 1;
const FLAG_SP_WRITE: u8 = 2;

impl LineTable {
    pub(crate) fn new(
        elf: &Elf,
        addr: u64,
        header: Header,
        module: Option<&ModuleData>,
    ) -> Option<LineTable> {
        let text = match module {
            Some(module) => module.text,
            None if header.text_start != 0 => header.text_start,
            None => elf.section_range(".text")?.0,
        };
        let gofunc = module.and_then(|m| m.gofunc).and_then(|addr| elf.tail_bytes(addr)).unwrap_or_default();
        Some(LineTable { bytes: elf.tail_bytes(addr)?, header, text, gofunc, wrapper_id: OnceLock::new() })
    }

    /// Reads a table that begins at the start of `bytes`, for code that begins at
    /// `text`, with inline trees relative to the start of `gofunc`.
    pub fn parse(bytes: Bytes, text: u64, gofunc: Bytes) -> Option<LineTable> {
        let header = Header::parse(&bytes)?;
        Some(LineTable { bytes, header, text, gofunc, wrapper_id: OnceLock::new() })
    }

    /// The functions, named as the table names them. Their names are slices of `file`,
    /// of which this table is a part.
    pub(crate) fn functions_in(&self, file: &Bytes) -> Functions {
        let entries = (0..self.header.nfunc).filter_map(|i| {
            let func = self.func(i)?;
            // The entry behind the last function's is the end of the code.
            let end = self.functab(i + 1).map_or(func.entry, |(entry, _)| entry);
            Entry::new(file, self.name(func.name_off)?, func.entry, end)
        });
        Functions::new(file.clone(), entries.collect())
    }

    /// As `functions_in`, for a table read by itself.
    pub fn functions(&self) -> Functions {
        self.functions_in(&self.bytes)
    }

    /// What the source says at `addr`: the innermost inlined call first, the function
    /// that holds the code last. Empty when no function does.
    ///
    /// As runtime.CallersFrames: an inlined frame's line is that of its own current
    /// statement, its caller's that of `parentPc`.
    pub fn frames(&self, addr: u64) -> Vec<SourceFrame> {
        self.traced(addr).into_iter().map(|frame| frame.source).collect()
    }

    /// As [`LineTable::frames`], with what decides whether a stack trace shows them.
    pub fn traced(&self, addr: u64) -> Vec<TracedFrame> {
        let mut frames = Vec::new();
        let Some(func) = self.func_at(addr) else { return frames };
        let mut pc = addr;
        while frames.len() < MAX_INLINED {
            let call = self.inlined_call(&func, pc);
            let name_off = call.map_or(func.name_off, |c| c.name_off);
            let (file, line) = self.file_line(&func, pc).unwrap_or_default();
            let function = self.name(name_off).map(|n| String::from_utf8_lossy(n).into_owned());
            let source = SourceFrame { function: function.unwrap_or_default(), file, line };
            let id = call.map_or(func.id, |c| c.id);
            frames.push(TracedFrame { source, is_wrapper: self.wrapper_id() == Some(id) });
            let Some(call) = call else { break };
            let Some(parent) = func.entry.checked_add(u64::from(call.parent_pc)) else { break };
            pc = parent;
        }
        frames
    }

    /// How many bytes of its caller's frame, from rsp upwards, the function at `addr` may
    /// write: stack-assigned arguments and results, and the spill space of arguments in
    /// registers (`_func.args`, from cmd/compile/internal/abi `ArgWidth`). `None` where
    /// an assembly function does not say (internal/abi/symtab.go `ArgsSizeUnknown`).
    pub fn argument_bytes(&self, addr: u64) -> Option<u32> {
        const ARGS_SIZE_UNKNOWN: u32 = 0x8000_0000;
        let args = self.func_at(addr)?.args;
        (args < ARGS_SIZE_UNKNOWN).then_some(args)
    }

    /// What unwinding past `addr` takes; `None` outside Go code.
    pub fn unwind(&self, addr: u64) -> Option<Unwind<'_>> {
        let func = self.func_at(addr)?;
        Some(Unwind {
            entry: func.entry,
            function: self.name(func.name_off)?,
            sp_delta: self.pc_value(&func, func.pcsp, addr),
            is_outermost: func.flags & FLAG_TOP_FRAME != 0,
            writes_sp: func.flags & FLAG_SP_WRITE != 0,
        })
    }

    /// The linker marks `runtime.deferreturn` as a wrapper too
    /// (cmd/internal/objabi/funcid.go), and every program has it.
    fn wrapper_id(&self) -> Option<u8> {
        let find = || {
            let mut funcs = (0..self.header.nfunc).filter_map(|i| self.func(i));
            Some(funcs.find(|func| self.name(func.name_off) == Some(b"runtime.deferreturn"))?.id)
        };
        *self.wrapper_id.get_or_init(find)
    }

    fn file_line(&self, func: &Func, pc: u64) -> Option<(String, u32)> {
        let file = u32::try_from(self.pc_value(func, func.pcfile, pc)?).ok()?;
        let line = u32::try_from(self.pc_value(func, func.pcln, pc)?).ok()?;
        let index = func.cu_offset.checked_add(file)? as usize;
        let offset = u32_at(self.bytes.get(self.header.cu..)?, index.checked_mul(4)?)?;
        if offset == u32::MAX {
            return None;
        }
        let name = c_string(self.bytes.get(self.header.file..)?.get(offset as usize..)?)?;
        Some((String::from_utf8_lossy(name).into_owned(), line))
    }

    fn name(&self, offset: u32) -> Option<&[u8]> {
        c_string(self.bytes.get(self.header.funcname..)?.get(offset as usize..)?)
    }

    /// Entry address and `_func` offset of the i-th function; behind the last stands
    /// the end of the code.
    fn functab(&self, i: usize) -> Option<(u64, usize)> {
        let size = self.header.form.functab_entry();
        let at = self.header.pcln.checked_add(i.checked_mul(size)?)?;
        if self.header.form == Form::Go116 {
            return Some((u64_at(&self.bytes, at)?, usize::try_from(u64_at(&self.bytes, at + 8)?).ok()?));
        }
        let entry = self.text.checked_add(u64::from(u32_at(&self.bytes, at)?))?;
        // The last entry is cut after its address (cmd/link pcln.go `writeFuncTab`).
        let func = u32_at(&self.bytes, at + 4).unwrap_or(0);
        Some((entry, func as usize))
    }

    fn func_at(&self, addr: u64) -> Option<Func> {
        let (mut low, mut high) = (0, self.header.nfunc);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.functab(middle)?.0 <= addr { low = middle + 1 } else { high = middle }
        }
        let index = low.checked_sub(1)?;
        (addr < self.functab(index + 1)?.0).then(|| self.func(index)).flatten()
    }

    fn func(&self, i: usize) -> Option<Func> {
        let (entry, offset) = self.functab(i)?;
        let raw = self.bytes.get(self.header.pcln..)?.get(offset..)?;
        let form = self.header.form;
        let field = |i: usize| u32_at(raw, form.name_off() + 4 * i);
        let func_len = form.func_len();
        Some(Func {
            entry,
            name_off: field(0)?,
            args: field(1)?,
            pcsp: field(3)?,
            pcfile: field(4)?,
            pcln: field(5)?,
            cu_offset: field(7)?,
            // Function id, flags, padding and the number of funcdata end the structure.
            id: *raw.get(func_len - 4)?,
            flags: *raw.get(func_len - 3)?,
            inl_index: self.inl_index(raw, field(6)?),
            inl_tree: self.inl_tree(raw, func_len, field(6)?),
        })
    }

    fn inl_index(&self, raw: &[u8], npcdata: u32) -> u32 {
        let at = self.header.form.func_len() + 4 * PCDATA_INL_TREE_INDEX as usize;
        if npcdata <= PCDATA_INL_TREE_INDEX { 0 } else { u32_at(raw, at).unwrap_or(0) }
    }

    /// Offset of the inline tree in gofunc. Before Go 1.18 it is an address instead;
    /// heaptap does not read those.
    fn inl_tree(&self, raw: &[u8], func_len: usize, npcdata: u32) -> Option<usize> {
        let nfuncdata = u32::from(*raw.get(func_len - 1)?);
        if self.header.form == Form::Go116 || nfuncdata <= FUNCDATA_INL_TREE {
            return None;
        }
        let index = usize::try_from(npcdata).ok()?.checked_add(FUNCDATA_INL_TREE as usize)?;
        let offset = u32_at(raw, func_len.checked_add(index.checked_mul(4)?)?)?;
        (offset != u32::MAX).then_some(offset as usize)
    }

    /// The call inlined at `pc`, if the code there comes from one.
    fn inlined_call(&self, func: &Func, pc: u64) -> Option<InlinedCall> {
        let tree = self.gofunc.get(func.inl_tree?..)?;
        let index = usize::try_from(self.pc_value(func, func.inl_index, pc)?).ok()?;
        // runtime.inlinedCall; before Go 1.20 parent, funcID, file and line come first.
        let (size, id, name_off, parent_pc) =
            if self.header.form == Form::Go118 { (20, 2, 12, 16) } else { (16, 0, 4, 8) };
        let call = tree.get(index.checked_mul(size)?..)?;
        Some(InlinedCall {
            id: *call.get(id)?,
            name_off: u32_at(call, name_off)?,
            parent_pc: u32_at(call, parent_pc)?,
        })
    }

    /// The value at `pc` of the pc-value table at `offset` of pctab (runtime.pcvalue):
    /// pairs of zigzag value delta and pc delta, each a varint, until a delta of 0.
    fn pc_value(&self, func: &Func, offset: u32, pc: u64) -> Option<i32> {
        if offset == 0 {
            return None;
        }
        let mut rest = self.bytes.get(self.header.pc..self.header.pcln)?.get(offset as usize..)?;
        let (mut at, mut value, mut first) = (func.entry, -1i32, true);
        loop {
            let delta = varint(&mut rest)?;
            if delta == 0 && !first {
                return None;
            }
            first = false;
            value = value.wrapping_add((delta >> 1) as i32 ^ -((delta & 1) as i32));
            at = at.checked_add(u64::from(varint(&mut rest)?))?;
            if pc < at {
                return Some(value);
            }
        }
    }
}

/// The parts of `runtime._func` that are used.
#[derive(Debug, Clone, Copy)]
struct Func {
    entry: u64,
    name_off: u32,
    args: u32,
    /// Offset in pctab; 0 for none.
    pcsp: u32,
    pcfile: u32,
    pcln: u32,
    cu_offset: u32,
    /// `abi.FuncID`.
    id: u8,
    /// `abi.FuncFlag`.
    flags: u8,
    /// Offset in pctab; 0 for none.
    inl_index: u32,
    inl_tree: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
struct InlinedCall {
    /// `abi.FuncID`.
    id: u8,
    name_off: u32,
    /// Offset from the function's entry to an instruction at the call's place.
    parent_pc: u32,
}

fn varint(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The bytes before the first NUL.
fn c_string(bytes: &[u8]) -> Option<&[u8]> {
    let longest = bytes.get(..MAX_NAME).unwrap_or(bytes);
    longest.get(..longest.iter().position(|&b| b == 0)?)
}

#[cfg(test)]
mod tests {
    use super::super::testdata::{TEXT, gofunc, pclntab};
    use super::*;

    fn frames(table: &LineTable, offset: u64) -> Vec<(String, String, u32)> {
        table.frames(TEXT + offset).into_iter().map(|f| (f.function, f.file, f.line)).collect()
    }

    #[test]
    fn unwinding_is_read_in_every_form() {
        for form in [Form::Go116, Form::Go118, Form::Go120] {
            let table = LineTable::parse(pclntab(form).into(), TEXT, gofunc(form).into()).expect("a table");
            let outer = Unwind {
                entry: TEXT,
                function: b"main.outer",
                sp_delta: Some(0),
                is_outermost: false,
                writes_sp: false,
            };
            assert_eq!(table.unwind(TEXT), Some(outer), "{form:?}");
            assert_eq!(table.unwind(TEXT + 4), Some(Unwind { sp_delta: Some(24), ..outer }), "{form:?}");
            let last = table.unwind(TEXT + 0x21).expect("main.last");
            assert_eq!((last.function, last.is_outermost), (&b"main.last"[..], true), "{form:?}");
            assert_eq!(table.unwind(TEXT + 0x30), None);
        }
    }

    #[test]
    fn lines_and_inlined_calls_are_read_in_every_form() {
        for form in [Form::Go116, Form::Go118, Form::Go120] {
            let table = LineTable::parse(pclntab(form).into(), TEXT, gofunc(form).into()).expect("a table");
            let frame = |function: &str, file: &str, line| (function.to_owned(), file.to_owned(), line);
            let outer = |line| frame("main.outer", "/src/outer.go", line);
            assert_eq!(frames(&table, 0), [outer(10)], "{form:?}");
            assert_eq!(frames(&table, 31), [outer(11)]);
            assert_eq!(frames(&table, 0x20), [frame("main.last", "/src/inner.go", 60)]);
            // The inlined call's place is that of the code at its `parentPc`.
            let inlined = [frame("main.inner", "/src/inner.go", 50), outer(10)];
            if form == Form::Go116 {
                assert_eq!(frames(&table, 8), [frame("main.outer", "/src/inner.go", 50)]);
            } else {
                assert_eq!(frames(&table, 8), inlined, "{form:?}");
            }
            assert_eq!(frames(&table, 0x30), []);
            assert_eq!(table.frames(TEXT - 1), []);
        }
    }

    #[test]
    fn a_call_that_is_its_own_parent_ends() {
        let form = Form::Go120;
        let mut tree = gofunc(form);
        tree[8] = 8;
        let table = LineTable::parse(pclntab(form).into(), TEXT, tree.into()).expect("a table");
        assert_eq!(table.frames(TEXT + 8).len(), MAX_INLINED);
    }

    #[test]
    fn headers_that_do_not_hold_together_are_refused() {
        let good = pclntab(Form::Go120);
        assert!(Header::parse(&good).is_some());
        for (at, byte) in [(0, 0xf2), (4, 1), (7, 4), (15, 1), (39, 1)] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert!(Header::parse(&bytes).is_none(), "byte {at}");
        }
        assert!(Header::parse(&good[..60]).is_none());
    }

    #[test]
    fn varints_longer_than_a_u32_are_refused() {
        let read = |bytes: &[u8]| varint(&mut &bytes[..]);
        assert_eq!(read(&[0x96, 1]), Some(150));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Some(u32::MAX));
        assert_eq!(read(&[0xff; 6]), None);
        assert_eq!(read(&[0x80]), None);
    }
}
