//! From program counters to functions, files and lines (tier 2).

use std::cell::OnceCell;

use crate::binary::{Binary, Dwarf, SourceFrame, TracedFrame};
use crate::event::Frame;

/// Turns link-time addresses of one program into source frames.
///
/// Go code is looked up in gopclntab even where there is DWARF: both come from the same
/// compiler records and agree but for a few calls in generated code, where gopclntab has
/// what the Go runtime prints (tests/tests/symbols.rs compares all three over whole
/// programs). So a program has the same frames stripped or not. DWARF tells of the rest,
/// the C code of a cgo program, and of Go code where gopclntab is damaged.
pub struct Symbolizer<'a> {
    binary: &'a Binary,
    dwarf: OnceCell<Option<Dwarf<'a>>>,
    type_arguments: bool,
}

impl<'a> Symbolizer<'a> {
    /// Reads nothing yet: tables are read at the first address that needs them.
    pub fn new(binary: &'a Binary) -> Symbolizer<'a> {
        Symbolizer { binary, dwarf: OnceCell::new(), type_arguments: false }
    }

    /// Names generic functions with their type arguments, as `main.sum[go.shape.int]`: so
    /// they are named in Go's own pprof profiles (runtime/pprof, `runtime_FrameSymbolName`).
    #[must_use]
    pub fn with_type_arguments(mut self) -> Symbolizer<'a> {
        self.type_arguments = true;
        self
    }

    /// The frames at `addr`, innermost first; all but the last are inlined. For a return
    /// address pass the address before it, which is inside the call.
    ///
    /// Never empty: an address nothing is known of gives one frame named `0x…`.
    pub fn frames(&self, addr: u64) -> Vec<Frame> {
        let from_go = self.binary.line_table().map(|table| table.traced(addr));
        let found = from_go.filter(|frames| !frames.is_empty()).or_else(|| {
            let frames = Some(self.dwarf()?.frames(addr)).filter(|frames| all_named(frames))?;
            Some(frames.into_iter().map(|source| TracedFrame { source, is_wrapper: false }).collect())
        });
        match found {
            Some(frames) => into_frames(frames, self.type_arguments),
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

/// The return addresses among those of a stack that the runtime has taken, where inlined calls
/// have an address of their own, behind that of the call they are inlined into
/// (runtime/traceback.go `tracebackPCs`). `frames` are those at an address.
pub fn calls(pcs: &[u64], frames: impl Fn(u64) -> Vec<Frame>) -> Vec<u64> {
    let place = |frame: &Frame| (frame.function.clone(), frame.file.clone(), frame.line);
    let places = |pc: &u64| frames(*pc).iter().map(place).collect::<Vec<_>>();
    let mut calls = Vec::new();
    // What is left of the frames at the latest one.
    let mut inlined = Vec::new();
    for pc in pcs {
        let here = places(pc);
        // The runtime leaves wrappers out.
        match (1..inlined.len()).find(|outer| inlined[*outer..] == here) {
            Some(outer) => drop(inlined.drain(..outer)),
            None => {
                calls.push(*pc);
                inlined = here;
            }
        }
    }
    calls
}

/// DWARF may have a line but no function: assembly.
fn all_named(frames: &[SourceFrame]) -> bool {
    !frames.is_empty() && frames.iter().all(|frame| !frame.function.is_empty())
}

fn into_frames(frames: Vec<TracedFrame>, type_arguments: bool) -> Vec<Frame> {
    let last = frames.len().saturating_sub(1);
    let frame = |(i, TracedFrame { source, is_wrapper }): (usize, TracedFrame)| {
        let function = if type_arguments { source.function } else { printed_name(source.function) };
        Frame { function, file: source.file, line: source.line, inlined: i < last, wrapper: is_wrapper }
    };
    frames.into_iter().enumerate().map(frame).collect()
}

/// A function's name as Go prints it, type arguments left out: `main.sum[...]`. Each
/// outermost pair of brackets is one, since Go 1.27 has generic methods of generic types
/// (runtime/traceback.go `funcNameForPrint`; up to Go 1.20 the linker shortens).
pub(crate) fn printed_name(name: String) -> String {
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
    fn inlined_calls_are_no_calls_of_their_own() {
        let frame = |function: &str, line| Frame { function: function.into(), line, ..Frame::default() };
        // At 1 main.inner, inlined into a wrapper, that into main.outer, which 4 returns to as well.
        let frames = |pc| match pc {
            1 => vec![frame("main.inner", 3), frame("main.wrapper", 0), frame("main.outer", 7)],
            2 => vec![frame("main.wrapper", 0), frame("main.outer", 7)],
            3 => vec![frame("main.outer", 7)],
            _ => vec![frame("main.outer", 9)],
        };
        for (pcs, want) in [
            (&[1, 2, 3, 4][..], &[1, 4][..]),
            // The runtime leaves the wrapper out; it has cut the stack off.
            (&[1, 3, 4], &[1, 4]),
            (&[4, 1, 2], &[4, 1]),
            // main.outer has called itself.
            (&[3, 3, 4], &[3, 3, 4]),
            (&[], &[]),
        ] {
            assert_eq!(calls(pcs, frames), want, "{pcs:?}");
        }
    }

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
        let frames = into_frames(vec![TracedFrame::default(); 3], false);
        let inlined: Vec<_> = frames.iter().map(|f| f.inlined).collect();
        assert_eq!(inlined, [true, true, false]);
    }
}
