//! The one site of the runtime's own sampler: the objects its heap profiler takes.
//!
//! Source: runtime/malloc.go `profilealloc(mp *m, x unsafe.Pointer, size uintptr)`, Go 1.19
//! to 1.27, which every allocation function calls for the objects that are sampled, before
//! it lets the thread be preempted. `size` is that of the slot.

use super::{Place, Purpose, Recipe, Site, alloc, probed, site};
use crate::base::{Error, Result};
use crate::binary::Binary;
use crate::binary::flow::{RBX, RCX, Value};

pub(super) const FUNCTION: &str = "runtime.profilealloc";

/// The site at which each sampled object is seen once.
pub(super) fn site_of(binary: &Binary) -> Result<Site> {
    find(binary).map_err(|why| {
        Error::failed(format!("{FUNCTION}: no site found ({why}): the runtime's samples cannot be seen"))
            .hint("record every allocation with --mode exact")
    })
}

fn find(binary: &Binary) -> Result<Site, &'static str> {
    let functions = binary.functions().map_err(|_| "no function table")?;
    let function = functions.by_name(FUNCTION).ok_or("no such function")?;
    let flow = probed(binary, &function).ok_or("its machine code could not be analysed")?;
    let recipe = |address| {
        let state = flow.before(address).filter(alloc::has_frame)?;
        let [ptr, slot] = [RBX, RCX].map(|reg| alloc::place(&state, Value::Arg(reg)));
        let known = ptr != Place::None && slot != Place::None;
        known.then_some(Recipe { ptr, size: Place::None, type_: Place::None, slot })
    };
    let (address, recipe) = alloc::passages(&flow)
        .find_map(|address| Some((address, recipe(address)?)))
        .ok_or("no instruction is passed just once for each")?;
    site(binary, &function, &flow, address, Purpose::Alloc(recipe)).ok_or("it is not in the file")
}
