//! Sites of the functions and lines that the user has marked.
//!
//! A call begins behind the check for stack growth, which runs again after the stack has grown,
//! and ends at any `ret`: also those that only the unwinding of a panic comes to, which no jump
//! of the function leads to (runtime/panic.go `deferreturn`).

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};

use super::call_site::analyse;
use super::{CostClass, ProbePlan, Purpose, alloc, leaf, site};
use crate::base::{Error, Result};
use crate::binary::flow::{Flow, RSP, Value};
use crate::binary::{Binary, Function};
use crate::event::{MarkInfo, SiteId};
use crate::symbol::printed_name;

/// What is to be marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// As the user wrote it.
    pub name: String,
    pub function: String,
    /// Only where this line of it begins.
    pub line: Option<u32>,
    /// Each call with its end.
    pub is_region: bool,
}

impl Mark {
    /// Calls of a function, or passages of a line of it: `FUNC[:LINE]`.
    fn passage(text: &str) -> Mark {
        let line = text.rsplit_once(':').and_then(|(function, line)| Some((function, line.parse().ok()?)));
        let (function, line) = line.map_or((text, None), |(function, line)| (function, Some(line)));
        Mark { name: text.into(), function: function.into(), line, is_region: false }
    }

    /// All that are asked for: passages first.
    pub fn all(passages: &[String], regions: &[String]) -> Vec<Mark> {
        let regions = regions.iter().map(|text| Mark::region(text));
        passages.iter().map(|text| Mark::passage(text)).chain(regions).collect()
    }

    /// Calls of a function with their ends.
    fn region(text: &str) -> Mark {
        Mark { name: text.into(), function: text.into(), line: None, is_region: true }
    }
}

/// An instruction, and how far above the stack pointer that was when the function was called.
type Place = (u64, i64);

/// Names said when none fits.
const NAMES: usize = 3;

impl ProbePlan {
    /// Adds the sites of marks; tells of each what its sites are.
    ///
    /// # Errors
    /// Usage: there is no such function or line, or more than one, or it cannot be probed.
    pub fn add_marks(&mut self, binary: &Binary, marks: &[Mark]) -> Result<Vec<MarkInfo>> {
        marks.iter().map(|mark| self.add_mark(binary, mark)).collect()
    }

    fn add_mark(&mut self, binary: &Binary, mark: &Mark) -> Result<MarkInfo> {
        let mut info = MarkInfo { name: mark.name.clone(), is_region: mark.is_region, ..MarkInfo::default() };
        for function in find(binary, mark)? {
            let cannot = |why: &str| Error::usage(format!("{} cannot be marked: {why}", mark.name));
            let flow =
                analyse(binary, &function).ok_or_else(|| cannot("its machine code could not be analysed"))?;
            let begin = match mark.line {
                None => begin(binary, &flow, function.start),
                Some(line) => begin_of_line(binary, &flow, function.start, line),
            };
            let begin = begin.map_err(cannot)?;
            info.begins.push(self.add_site(binary, &function, &flow, begin).map_err(cannot)?);
            let ends = if mark.is_region { ends(binary, &function, &flow) } else { Vec::new() };
            if mark.is_region && ends.is_empty() {
                return Err(cannot("it never returns").hint("give it to --mark: then each call is told"));
            }
            for end in ends {
                info.ends.push(self.add_site(binary, &function, &flow, end).map_err(cannot)?);
            }
        }
        Ok(info)
    }

    fn add_site(
        &mut self,
        binary: &Binary,
        function: &Function<'_>,
        flow: &Flow<'_>,
        (address, frame): Place,
    ) -> Result<SiteId, &'static str> {
        if self.sites.iter().any(|site| site.address == address) {
            return Err("there is a probe already");
        }
        let index = u16::try_from(self.sites.len()).map_err(|_| "it has too many ends")?;
        let found = site(binary, function, flow, address, Purpose::Mark { frame });
        self.sites.push(found.ok_or("it is not in the file")?);
        Ok(SiteId(index))
    }
}

/// The function that is meant: by its whole name, or what that ends with. A generic one has
/// several: one for each shape of its arguments.
fn find<'b>(binary: &'b Binary, mark: &Mark) -> Result<Vec<Function<'b>>> {
    let wanted = &*mark.function;
    let named = |function: &Function<'_>| printed_name(function.name.to_owned());
    let ends_with = |name: &str| name.strip_suffix(wanted).is_some_and(|rest| rest.ends_with(['.', '/']));
    let functions = binary.functions()?;
    let mut found: Vec<Function<'b>> =
        functions.iter().filter(|f| f.name == wanted || named(f) == wanted).collect();
    if found.is_empty() {
        found = functions.iter().filter(|f| ends_with(&named(f))).collect();
    }
    let names: BTreeSet<String> = found.iter().map(named).collect();
    match names.len() {
        1 => Ok(found),
        0 => Err(Error::usage(format!("there is no function {wanted} to mark")).hint(format!(
            "did you mean {}? What the compiler inlined everywhere has no code of its own",
            nearest(functions.iter().map(|f| named(&f)), wanted).join(", ")
        ))),
        _ => {
            let some: Vec<&str> = names.iter().take(NAMES).map(String::as_str).collect();
            Err(Error::usage(format!("there are {} functions {wanted}", names.len()))
                .hint(format!("give the whole name, as {}", some.join(" or "))))
        }
    }
}

fn nearest(names: impl Iterator<Item = String>, wanted: &str) -> Vec<String> {
    let mut names: Vec<(usize, String)> = names.map(|name| (distance(&name, wanted), name)).collect();
    names.sort();
    names.dedup();
    names.into_iter().take(NAMES).map(|(_, name)| name).collect()
}

/// To the name, with or without its package.
fn distance(name: &str, wanted: &str) -> usize {
    let short = name.rsplit('/').next().unwrap_or(name);
    let last = short.split_once('.').map_or(short, |(_, last)| last);
    [name, short, last].map(|name| strsim::levenshtein(name, wanted)).into_iter().min().unwrap_or(usize::MAX)
}

/// The first instruction that each call runs once: one that is cheap to probe, if it comes
/// before anything that takes time.
fn begin(binary: &Binary, flow: &Flow<'_>, start: u64) -> Result<Place, &'static str> {
    let first = body(binary, flow, start).ok_or("no instruction is known to run once for each call")?;
    if flow.reaches(first, first) {
        return Err("it begins with a loop");
    }
    let chosen = straight_on(flow, first, |_| true).find(|i| is_cheap(i) && !flow.reaches(i.ip(), i.ip()));
    place(flow, chosen.map_or(first, Instruction::ip)).ok_or("its stack could not be followed")
}

/// Where the function has no need to grow its stack any more.
fn body(binary: &Binary, flow: &Flow<'_>, start: u64) -> Option<u64> {
    let (mut grows, mut framed) = (false, None);
    flow.visit(|i, state| {
        let callee = i.is_call_near().then(|| binary.name_at(i.near_branch_target())).flatten();
        grows |= callee.is_some_and(|name| name.starts_with("runtime.morestack"));
        if framed.is_none() && (alloc::begins_frame(i) || alloc::has_frame(state)) {
            framed = Some(i.ip());
        }
    });
    framed.or((!grows).then_some(start))
}

/// The first instruction of a line, before all others of it.
fn begin_of_line(binary: &Binary, flow: &Flow<'_>, start: u64, line: u32) -> Result<Place, &'static str> {
    let table = binary.line_table().ok_or("the program has no line table")?;
    let body = body(binary, flow, start).ok_or("no instruction is known to run once for each call")?;
    let is_of_line = |i: &Instruction| table.frames(i.ip()).last().is_some_and(|frame| frame.line == line);
    let in_body = flow.dominated_by(body);
    let of_line: Vec<u64> =
        flow.reachable().filter(|i| is_of_line(i) && in_body(i.ip())).map(Instruction::ip).collect();
    if of_line.is_empty() {
        return Err("no code of it is of this line");
    }
    let before_all = |p: &&u64| {
        let dominated = flow.dominated_by(**p);
        of_line.iter().all(|other| dominated(*other))
    };
    let first = *of_line.iter().find(before_all).ok_or("its line begins in more than one place")?;
    let chosen = straight_on(flow, first, is_of_line).find(|i| is_cheap(i));
    place(flow, chosen.map_or(first, Instruction::ip)).ok_or("its stack could not be followed")
}

/// The instructions from one on that run whenever it does, and of which none is a call but
/// the last.
fn straight_on<'f>(
    flow: &'f Flow<'_>,
    first: u64,
    wanted: impl Fn(&Instruction) -> bool,
) -> impl Iterator<Item = &'f Instruction> {
    let mut ended = false;
    let straight = flow.reachable().skip_while(move |i| i.ip() < first).take_while(move |i| {
        let goes_on = !ended && flow.dominates(first, i.ip());
        ended = i.flow_control() != FlowControl::Next;
        goes_on
    });
    straight.take_while(move |i| wanted(i))
}

fn is_cheap(i: &Instruction) -> bool {
    alloc::cost_class(i) == CostClass::Emulated
}

fn place(flow: &Flow<'_>, address: u64) -> Option<Place> {
    match flow.before(address)?.reg(RSP) {
        Value::Sp(offset) => Some((address, -offset)),
        _ => None,
    }
}

/// Every return, and every jump to another function.
fn ends(binary: &Binary, function: &Function<'_>, flow: &Flow<'_>) -> Vec<Place> {
    let jumps = flow.reachable().filter(|i| {
        let is_jump = matches!(i.flow_control(), FlowControl::UnconditionalBranch);
        is_jump && flow.leaves(i) && !binary.name_at(i.near_branch_target()).is_some_and(leaf::is_no_return)
    });
    let mut ends: Vec<Place> = jumps.map(|i| (i.ip(), 0)).collect();
    let len = usize::try_from(function.end.saturating_sub(function.start)).unwrap_or(0);
    let code = binary.read(function.start, len).unwrap_or_default();
    let decoder = Decoder::with_ip(64, code, function.start, DecoderOptions::NONE);
    let returns = decoder.into_iter().filter(|i| i.flow_control() == FlowControl::Return);
    ends.extend(returns.map(|i| (i.ip(), 0)));
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_are_said() {
        let names = ["main.handle", "net/http.(*conn).serve", "main.main", "main.handler"];
        let near = nearest(names.iter().map(|&name| name.to_owned()), "handel");
        assert_eq!(near[..2], ["main.handle", "main.handler"].map(String::from));
        let near = nearest(names.iter().map(|&name| name.to_owned()), "http.(*conn).server");
        assert_eq!(near[0], "net/http.(*conn).serve");
    }
}
