//! From program counters to functions, files and lines (tier 2).

use std::cell::OnceCell;

use crate::binary::{Binary, Dwarf, SourceFrame};
use crate::event::Frame;

/// Where a symbolizer's lines and inlined frames come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Dwarf,
    Gopclntab,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Dwarf => "dwarf",
            Source::Gopclntab => "gopclntab",
        }
    }
}

/// Turns link-time addresses of one program into source frames.
///
/// DWARF and gopclntab come from the same compiler records and give the same frames
/// (tests/tests/symbols.rs compares them over whole programs). DWARF is asked first and
/// gopclntab where DWARF has no line. Go 1.19 and older are the other way round, since
/// their DWARF leaves out calls inlined into generated wrappers and gives the wrong
/// line for calls inlined into files with `//line` directives, as cgo writes them.
pub struct Symbolizer<'a> {
    binary: &'a Binary,
    source: Source,
    dwarf: OnceCell<Option<Dwarf<'a>>>,
}

impl<'a> Symbolizer<'a> {
    /// Reads nothing yet: tables are read at the first address.
    pub fn new(binary: &'a Binary) -> Symbolizer<'a> {
        let go_first = binary.line_table().is_some_and(|table| table.is_before_go120());
        let source = if binary.has_dwarf() && !go_first { Source::Dwarf } else { Source::Gopclntab };
        Symbolizer { binary, source, dwarf: OnceCell::new() }
    }

    /// Which of the two is asked first.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The frames at `addr`, innermost first; all but the last are inlined. For a return
    /// address pass the address before it, which is inside the call.
    ///
    /// Never empty: an address nothing is known of gives one frame named `0x…`.
    pub fn frames(&self, addr: u64) -> Vec<Frame> {
        let from_go = || self.binary.line_table().map(|table| table.frames(addr));
        let from_dwarf = || self.dwarf().map(|dwarf| dwarf.frames(addr));
        let complete = |frames: &Vec<SourceFrame>| {
            !frames.is_empty() && frames.iter().all(|f| !f.function.is_empty() && f.line != 0)
        };
        let found = match self.source {
            Source::Dwarf => from_dwarf().filter(complete).or_else(|| from_go().filter(|f| !f.is_empty())),
            Source::Gopclntab => from_go().filter(|f| !f.is_empty()),
        };
        match found.or_else(|| from_dwarf().filter(complete)) {
            Some(frames) => into_frames(frames),
            None => vec![self.by_symbol(addr)],
        }
    }

    /// The function of `.symtab`: what is left for C code without DWARF.
    fn by_symbol(&self, addr: u64) -> Frame {
        let name = self.binary.symbol_functions().containing(addr).map(|f| f.name.to_owned());
        Frame { function: name.unwrap_or_else(|| format!("{addr:#x}")), ..Frame::default() }
    }

    fn dwarf(&self) -> Option<&Dwarf<'a>> {
        self.dwarf.get_or_init(|| self.binary.dwarf()).as_ref()
    }
}

fn into_frames(frames: Vec<SourceFrame>) -> Vec<Frame> {
    let last = frames.len().saturating_sub(1);
    let frame = |(i, f): (usize, SourceFrame)| Frame {
        function: printed_name(f.function),
        file: f.file,
        line: f.line,
        inlined: i < last,
    };
    frames.into_iter().enumerate().map(frame).collect()
}

/// A function's name as Go prints it, type arguments left out: `main.sum[...]`. Each
/// outermost pair of brackets is one, since Go 1.27 has generic methods of generic types
/// (runtime/traceback.go `funcNameForPrint`; up to Go 1.20 the linker shortens).
fn printed_name(name: String) -> String {
    if !name.contains('[') {
        return name;
    }
    let mut printed = String::with_capacity(name.len());
    let mut depth = 0usize;
    for c in name.chars() {
        match c {
            '[' => {
                printed.push_str(if depth == 0 { "[...]" } else { "" });
                depth += 1;
            }
            ']' if depth == 0 => return name,
            ']' => depth -= 1,
            c if depth == 0 => printed.push(c),
            _ => {}
        }
    }
    if depth == 0 { printed } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_arguments_are_left_out_of_names() {
        for (name, printed) in [
            ("main.main", "main.main"),
            ("main.sum[go.shape.int]", "main.sum[...]"),
            ("main.(*table[go.shape.string,go.shape.[]int]).put", "main.(*table[...]).put"),
            ("type:.eq.[5]internal/cpu.option", "type:.eq.[...]internal/cpu.option"),
            ("main.(*T[go.shape.int]).M[go.shape.string]", "main.(*T[...]).M[...]"),
            ("odd]name[", "odd]name["),
            ("main.f[", "main.f["),
        ] {
            assert_eq!(printed_name(name.to_owned()), printed);
        }
    }

    #[test]
    fn all_frames_but_the_outermost_are_inlined() {
        let frame = |function: &str| SourceFrame { function: function.to_owned(), ..SourceFrame::default() };
        let frames = into_frames(vec![frame("a"), frame("b"), frame("c")]);
        let inlined: Vec<_> = frames.iter().map(|f| f.inlined).collect();
        assert_eq!(inlined, [true, true, false]);
    }
}
