//! A Go program in a thousand bytes, to test the parsers on without a Go toolchain.
//!
//! `main.outer` has code of `main.inner` inlined, `main.last` has not. For unwinding,
//! `main.outer` has a frame of 24 bytes from its fourth byte on, and `main.last` is the
//! last frame of a stack.

use super::LineTable;
use super::gopclntab::{FLAG_TOP_FRAME, Form};

pub(super) const BASE: u64 = 0x40_0000;
/// Where the code of `main.outer` begins; `main.last` follows after 0x20 bytes.
pub(crate) const TEXT: u64 = BASE + 0x100;
const CODE_LEN: usize = 0x30;
pub(super) const PCLNTAB: u64 = TEXT + CODE_LEN as u64;

const NAMES: &[u8] = b"main.outer\0main.inner\0main.last\0";
/// Offsets in `NAMES`.
const OUTER: u32 = 0;
const INNER: u32 = 11;
const LAST: u32 = 22;
const FILES: &[u8] = b"/src/outer.go\0/src/inner.go\0";

fn put32(out: &mut Vec<u8>, values: &[u32]) {
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

fn put64(out: &mut Vec<u8>, values: &[u64]) {
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// Appends a pc-value table of (value, pc where it ends) and returns its offset.
fn pc_values(out: &mut Vec<u8>, runs: &[(i32, u8)]) -> u32 {
    let offset = out.len() as u32;
    let (mut value, mut pc) = (-1, 0);
    for &(next, end) in runs {
        let delta = next - value;
        out.push(((delta << 1) ^ (delta >> 31)) as u8);
        out.push(end - pc);
        (value, pc) = (next, end);
    }
    out.push(0);
    offset
}

/// The table, for code at `TEXT`, with the inline tree at the start of gofunc.
pub(super) fn pclntab(form: Form) -> Vec<u8> {
    let mut pctab = vec![0];
    let pcfile = pc_values(&mut pctab, &[(0, 8), (1, 16), (0, 32)]);
    let pcln = pc_values(&mut pctab, &[(10, 8), (50, 16), (11, 32)]);
    let inlined = pc_values(&mut pctab, &[(-1, 8), (0, 16), (-1, 32)]);
    let last_file = pc_values(&mut pctab, &[(1, 16)]);
    let last_line = pc_values(&mut pctab, &[(60, 16)]);
    let frame = pc_values(&mut pctab, &[(0, 4), (24, 32)]);
    let last_frame = pc_values(&mut pctab, &[(8, 16)]);

    let entry_len = if form == Form::Go116 { 16 } else { 8 };
    let functab_len = 3 * entry_len;
    let outer = func(form, 0, OUTER, [frame, pcfile, pcln], Some(inlined));
    let last = func(form, 0x20, LAST, [last_frame, last_file, last_line], None);
    let offsets = [functab_len as u64, functab_len as u64 + outer.len() as u64, 0];
    let mut pcln_table = Vec::new();
    for (entry, offset) in [0u64, 0x20, CODE_LEN as u64].into_iter().zip(offsets) {
        match form {
            Form::Go116 => put64(&mut pcln_table, &[TEXT + entry, offset]),
            _ => put32(&mut pcln_table, &[entry as u32, offset as u32]),
        }
    }
    pcln_table.extend(outer.into_iter().chain(last));

    let parts: [&[u8]; 4] = [NAMES, &[0, 0, 0, 0, 14, 0, 0, 0], FILES, &pctab];
    let magic = match form {
        Form::Go116 => 0xffff_fffau32,
        Form::Go118 => 0xffff_fff0,
        Form::Go120 => 0xffff_fff1,
    };
    let mut out = Vec::new();
    put32(&mut out, &[magic, 0x0801_0000]);
    put64(&mut out, if form == Form::Go116 { &[2, 2] } else { &[2, 2, 0] });
    let mut at = out.len() as u64 + 5 * 8;
    for part in parts {
        put64(&mut out, &[at]);
        at = (at + part.len() as u64).next_multiple_of(8);
    }
    put64(&mut out, &[at]);
    for part in parts {
        out.extend(part);
        align(&mut out, 8);
    }
    out.extend(pcln_table);
    out
}

/// The table of Go 1.20 and later, read.
pub(crate) fn line_table() -> LineTable {
    LineTable::parse(pclntab(Form::Go120).into(), TEXT, gofunc(Form::Go120).into()).expect("a table")
}

fn func(form: Form, entry: u32, name: u32, tables: [u32; 3], inlined: Option<u32>) -> Vec<u8> {
    let mut out = Vec::new();
    match form {
        Form::Go116 => put64(&mut out, &[TEXT + u64::from(entry)]),
        _ => put32(&mut out, &[entry]),
    }
    let (npcdata, nfuncdata) = if inlined.is_some() { (3, 4) } else { (0, 0) };
    let [pcsp, pcfile, pcln] = tables;
    put32(&mut out, &[name, 0, 0, pcsp, pcfile, pcln, npcdata, 0]);
    if form == Form::Go120 {
        put32(&mut out, &[9]);
    }
    let flags = if name == LAST { FLAG_TOP_FRAME } else { 0 };
    out.extend([0, flags, 0, nfuncdata]);
    if let Some(inlined) = inlined {
        put32(&mut out, &[0, 0, inlined]);
        put32(&mut out, &[u32::MAX, u32::MAX, u32::MAX, 0]);
    }
    align(&mut out, 8);
    out
}

/// The inline tree: one call, of `main.inner`, placed at offset 4 of `main.outer`.
pub(super) fn gofunc(form: Form) -> Vec<u8> {
    let mut out = Vec::new();
    match form {
        Form::Go120 => put32(&mut out, &[0, INNER, 4, 49]),
        _ => put32(&mut out, &[0xffff, 0, 10, INNER, 4]),
    }
    out
}

/// An ELF file without sections: code, pclntab, inline tree, module data, build info.
pub(super) fn program(form: Form) -> Vec<u8> {
    let mut image = vec![0; (TEXT - BASE) as usize + CODE_LEN];
    image.extend(pclntab(form));
    align(&mut image, 8);
    let gofunc_at = BASE + image.len() as u64;
    image.extend(gofunc(form));
    align(&mut image, 16);
    module_data(&mut image, form, gofunc_at);
    align(&mut image, 16);
    image.extend(b"\xff Go buildinf:\x08\x02");
    image.extend([0; 16]);
    let modinfo = "0123456789abcdefpath\tx\nbuild\t-race=true\n0123456789abcdef";
    for text in ["go1.99.1", modinfo] {
        image.push(text.len() as u8);
        image.extend(text.bytes());
    }

    let mut header = Vec::new();
    header.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    put32(&mut header, &[0x003e_0002, 1]);
    put64(&mut header, &[TEXT, 64, 0]);
    put32(&mut header, &[0, 0x0038_0040, 0x0040_0001, 0]);
    put32(&mut header, &[1, 7]);
    let len = image.len() as u64;
    put64(&mut header, &[0, BASE, BASE, len, len, 0x1000]);
    image[..header.len()].copy_from_slice(&header);
    image
}

/// The same as PIE, from a linker that leaves the addresses in the module data to
/// relocations and writes zeros in their place.
pub(super) fn relocated_program(form: Form) -> Vec<u8> {
    let mut image = program(form);
    let mut pair = Vec::new();
    put64(&mut pair, &module_data_start(form));
    let module = image.windows(16).position(|words| words == pair).unwrap_or(0);
    let mut relocations = Vec::new();
    for at in (module..module + 52 * 8).step_by(8) {
        let value = u64::from_le_bytes(image[at..at + 8].try_into().unwrap_or_default());
        if value != 0 {
            put64(&mut relocations, &[BASE + at as u64, 8, value]);
            image[at..at + 8].fill(0);
        }
    }
    align(&mut image, 8);
    let table = BASE + image.len() as u64;
    image.extend(&relocations);
    let dynamic = BASE + image.len() as u64;
    put64(&mut image, &[7, table, 8, relocations.len() as u64, 0, 0]);

    let len = image.len() as u64;
    let mut headers = Vec::new();
    put32(&mut headers, &[1, 7]);
    put64(&mut headers, &[0, BASE, BASE, len, len, 0x1000]);
    put32(&mut headers, &[2, 6]);
    put64(&mut headers, &[dynamic - BASE, dynamic, dynamic, 48, 48, 8]);
    image[64..64 + headers.len()].copy_from_slice(&headers);
    image[16] = 3;
    image[56] = 2;
    image
}

/// The first two words: the addresses of header and names.
fn module_data_start(form: Form) -> [u64; 2] {
    [PCLNTAB, PCLNTAB + if form == Form::Go116 { 64 } else { 72 }]
}

fn module_data(image: &mut Vec<u8>, form: Form, gofunc: u64) {
    let addr = BASE + image.len() as u64;
    let end = TEXT + CODE_LEN as u64;
    let mut words = [0u64; 52];
    words[..2].copy_from_slice(&module_data_start(form));
    words[22..24].copy_from_slice(&[TEXT, end]);
    words[24..32].fill(addr);
    let types = if form == Form::Go120 { 37 } else { 35 };
    words[types..types + 4].copy_from_slice(&[BASE, end, BASE, gofunc]);
    put64(image, &words);
}
