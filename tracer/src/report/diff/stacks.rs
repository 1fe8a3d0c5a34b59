//! Which sites of two sides are the same.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use super::change::{Amount, Measures};
use super::side::{Seen, Side, SideSite};
use crate::report::Frame;
use crate::report::kind::{is_allocating, is_runtime};
use crate::symbol::printed_name;

/// A site of either side or both.
#[derive(Debug)]
pub(super) struct Matched {
    pub(super) type_name: Option<String>,
    pub(super) frames: Vec<Frame>,
    /// `None`: that side has no such site.
    pub(super) amounts: [Option<Measures<Amount>>; 2],
}

/// The functions of a stack, innermost first, by number.
type Stack = Vec<u32>;

/// Sites with the same functions, by side.
type Sites<'a> = [Vec<&'a SideSite>; 2];

/// A stack of as many frames may be one that was cut off: the runtime's profiler kept 32 before
/// Go 1.23, of which some are its own, and 128 since.
const MAY_BE_CUT: usize = 24;

/// The sites of both, in a fixed order.
pub(super) fn matched(before: &Side, after: &Side) -> Vec<Matched> {
    let mut names = Names { elided: elides(before) || elides(after), numbers: HashMap::new() };
    let mut stacks: BTreeMap<Stack, Sites<'_>> = BTreeMap::new();
    for (number, side) in [before, after].into_iter().enumerate() {
        for site in &side.sites {
            let sites = stacks.entry(names.stack(&site.frames)).or_default();
            sites[number].push(site);
        }
    }
    let seen = [before.seen, after.seen];
    join_cut_off(stacks).iter().flat_map(|sites| by_type(sites, seen)).collect()
}

/// Numbers of functions.
struct Names<'a> {
    /// Whether type arguments do not count.
    elided: bool,
    numbers: HashMap<Cow<'a, str>, u32>,
}

impl<'a> Names<'a> {
    fn stack(&mut self, frames: &'a [Frame]) -> Stack {
        shown(frames).map(|frame| self.number(&frame.function)).collect()
    }

    fn number(&mut self, function: &'a str) -> u32 {
        let name =
            if self.elided { Cow::Owned(printed_name(function.to_owned())) } else { Cow::Borrowed(function) };
        let next = self.numbers.len() as u32;
        *self.numbers.entry(name).or_insert(next)
    }
}

/// A stack whoever has written it: without where goroutines start, without wrappers, and without
/// the runtime's own functions at its inner end; if there are no others, at least without those
/// that allocate.
fn shown(frames: &[Frame]) -> impl Iterator<Item = &Frame> {
    let frames = match frames {
        [rest @ .., last] if !rest.is_empty() && last.function == "runtime.goexit" => rest,
        all => all,
    };
    let from = |is_hidden: &dyn Fn(&str) -> bool| frames.iter().position(|frame| !is_hidden(&frame.function));
    let first = from(&|function| is_runtime(function) || is_allocating(function));
    let first = first.or_else(|| from(&is_allocating)).unwrap_or(0);
    frames.iter().skip(first).filter(|frame| !frame.wrapper)
}

/// Whether names come without type arguments: in captures, and in profiles of Go before 1.21.
fn elides(side: &Side) -> bool {
    side.sites.iter().flat_map(|site| &site.frames).any(|frame| frame.function.contains("[...]"))
}

/// Takes a long stack for the inner part of those that begin with it: each side cuts stacks off
/// at a depth of its own.
fn join_cut_off(stacks: BTreeMap<Stack, Sites<'_>>) -> Vec<Sites<'_>> {
    let mut joined: Vec<Sites<'_>> = Vec::new();
    let mut inner: Option<Stack> = None;
    // In this order all that begin with a stack follow it.
    for (stack, sites) in stacks {
        match (&inner, joined.last_mut()) {
            (Some(cut), Some(last)) if cut.len() >= MAY_BE_CUT && stack.starts_with(cut) => {
                last.iter_mut().zip(sites).for_each(|(all, more)| all.extend(more));
            }
            _ => {
                joined.push(sites);
                inner = Some(stack);
            }
        }
    }
    joined
}

/// The sites of one stack: by type where all types are known, else one.
fn by_type(sites: &Sites<'_>, seen: [Seen; 2]) -> Vec<Matched> {
    let types: BTreeSet<Option<&str>> =
        sites.iter().flatten().map(|site| site.type_name.as_deref()).collect();
    if !types.contains(&None) {
        return types
            .into_iter()
            .map(|of| matched_site(sites, seen, of, |site| site.type_name.as_deref() == of))
            .collect();
    }
    // Some are not known: those that are may be the same.
    let mut known = types.into_iter().flatten();
    let only = known.next().filter(|_| known.next().is_none());
    vec![matched_site(sites, seen, only, |_| true)]
}

fn matched_site(
    sites: &Sites<'_>,
    seen: [Seen; 2],
    type_name: Option<&str>,
    is_of_type: impl Fn(&SideSite) -> bool,
) -> Matched {
    let mut amounts = [None, None];
    let mut frames: &[Frame] = &[];
    for ((sum, sites), seen) in amounts.iter_mut().zip(sites).zip(seen) {
        let mut of_type = sites.iter().filter(|site| is_of_type(site));
        let Some(first) = of_type.next() else { continue };
        // Those of the second side, if it has any.
        frames = &first.frames;
        let mut all: Measures<Amount> = first.amounts;
        of_type.for_each(|site| all.add(&site.amounts, seen));
        *sum = Some(all);
    }
    Matched { type_name: type_name.map(str::to_owned), frames: shown(frames).cloned().collect(), amounts }
}
