//! Sites of C's allocator: where each of its functions is entered, and where it returns.
//!
//! Nothing is known of these functions but what the C ABI says (System V, x86-64): at the
//! first instruction the arguments are in registers, and at a return the result is in rax and
//! the stack pointer is what it was at the first. C code runs a function's first instruction
//! once for each call, other than Go's.

mod returns;

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess, Register,
};
use serde::{Deserialize, Serialize};

use super::{CostClass, Place, Purpose, Site, alloc};
use crate::base::{Error, Result};
use crate::binary::CLibrary;
use returns::{Exit, exits};

/// What a function of C's allocator does besides that it allocates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CCall {
    /// Nothing; it returns the pointer.
    Returns,
    /// It frees what it is given, if it succeeds.
    Replaces,
    /// It stores the pointer where it is told to.
    Stores,
}

const RAX: Place = Place::Reg(0);
const RDI: Place = Place::Reg(7);
const RSI: Place = Place::Reg(6);
const RDX: Place = Place::Reg(2);
const ONE: Place = Place::Const(1);

/// The functions: what each does, the pointer it is given, the size, and how many of that.
const FUNCTIONS: [(&str, CCall, Place, Place, Place); 6] = [
    ("malloc", CCall::Returns, Place::None, RDI, ONE),
    ("calloc", CCall::Returns, Place::None, RDI, RSI),
    ("realloc", CCall::Replaces, RDI, RSI, ONE),
    ("memalign", CCall::Returns, Place::None, RSI, ONE),
    ("aligned_alloc", CCall::Returns, Place::None, RSI, ONE),
    ("posix_memalign", CCall::Stores, RDI, RDX, ONE),
];
/// Without these there is no telling what is alive.
const NEEDED: [&str; 2] = ["malloc", "free"];

/// Arguments, and the stack pointer, which leads to the caller.
const KEPT: [Register; 4] = [Register::RDI, Register::RSI, Register::RDX, Register::RSP];

/// Instructions of which one may be probed for the entry.
const MAX_ENTRY: usize = 8;

/// The sites in the library's file, and what is missing, in words for the user.
///
/// # Errors
/// Failed when `malloc` or `free` is missing, or cannot be probed.
pub fn c_sites(library: &CLibrary) -> Result<(Vec<Site>, Vec<String>)> {
    let (mut sites, mut notes) = (Vec::new(), Vec::new());
    let (mut starts, mut returns) = (BTreeSet::new(), BTreeMap::new());
    for (name, call, pointer, size, count) in FUNCTIONS {
        let function = library.function(name).ok_or("the library has none");
        let added = function.and_then(|start| {
            // Two names may be of one function.
            if starts.insert(start) {
                // What is to be stored may be stored last.
                let exits = exits(library, start, call != CCall::Stores)?;
                returns.extend(exits.into_iter().map(|(at, exit)| (at, (name, start, exit))));
                sites.push(entry(library, name, start, Purpose::CAlloc { call, pointer, size, count })?);
            }
            Ok(())
        });
        tell_missing(name, added, &mut notes)?;
    }
    sites.extend(returns.into_iter().filter_map(|(at, (name, start, Exit { result, depth }))| {
        let purpose = Purpose::CReturn { result, depth };
        site(library, name, start, &instructions(library, at)?.next()?, purpose)
    }));
    let free = library.function("free").ok_or("the library has none");
    let free = free.and_then(|start| entry(library, "free", start, Purpose::CFree { pointer: RDI }));
    tell_missing("free", free.map(|site| sites.push(site)), &mut notes)?;
    Ok((sites, notes))
}

fn tell_missing(name: &str, added: Result<(), &str>, notes: &mut Vec<String>) -> Result<()> {
    match added {
        Err(why) if NEEDED.contains(&name) => {
            Err(Error::failed(format!("C's {name} cannot be followed: {why}")))
        }
        Err(why) => {
            notes.push(format!("C's {name} is not followed ({why}): its objects are missing"));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Where the arguments are still in place and the stack pointer as at the call: the first
/// instruction that is cheap to trap on, or the first of all.
fn entry(library: &CLibrary, name: &str, start: u64, purpose: Purpose) -> Result<Site, &'static str> {
    let missing = "its code is not in the file";
    let mut info = InstructionInfoFactory::new();
    let mut chosen = None;
    for instruction in instructions(library, start).ok_or(missing)?.take(MAX_ENTRY) {
        if alloc::cost_class(&instruction) == CostClass::Emulated {
            chosen = Some(instruction);
            break;
        }
        let keeps = info.info(&instruction).used_registers().iter().all(|used| {
            let written =
                !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
            !written || !KEPT.contains(&used.register().full_register())
        });
        if !keeps || instruction.flow_control() != FlowControl::Next {
            break;
        }
    }
    let chosen = chosen.or_else(|| instructions(library, start)?.next());
    site(library, name, start, &chosen.ok_or(missing)?, purpose).ok_or(missing)
}

fn instructions(library: &CLibrary, address: u64) -> Option<impl Iterator<Item = Instruction>> {
    Some(Decoder::with_ip(64, library.code(address)?, address, DecoderOptions::NONE).into_iter())
}

fn site(
    library: &CLibrary,
    name: &str,
    start: u64,
    instruction: &Instruction,
    purpose: Purpose,
) -> Option<Site> {
    Some(Site {
        function: name.to_owned(),
        offset: u32::try_from(instruction.ip().saturating_sub(start)).ok()?,
        address: instruction.ip(),
        file_offset: library.file_offset(instruction.ip())?,
        instruction: format!("{:?}", instruction.mnemonic()).to_lowercase(),
        cost: alloc::cost_class(instruction),
        purpose,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The C library that runs this test.
    fn own() -> CLibrary {
        let maps = crate::target::read_maps(std::process::id() as i32).expect("maps");
        let libc = maps.iter().find(|map| map.path.contains("/libc.so")).expect("a libc");
        CLibrary::parse(std::fs::read(&libc.path).expect("it can be read").into()).expect("a library")
    }

    #[test]
    fn each_function_has_an_entry_and_returns() {
        let library = own();
        let (sites, notes) = c_sites(&library).expect("sites");
        assert_eq!(notes, [] as [String; 0]);
        for name in ["malloc", "calloc", "realloc", "posix_memalign"] {
            let entries = sites
                .iter()
                .filter(|site| site.function == name && matches!(site.purpose, Purpose::CAlloc { .. }));
            assert_eq!(entries.count(), 1, "{name}");
        }
        let is_return = |site: &&Site| matches!(site.purpose, Purpose::CReturn { .. });
        let returns: Vec<_> = sites.iter().filter(is_return).collect();
        let known = |site: &&Site| site.cost == CostClass::Emulated || site.instruction == "ret";
        assert!(returns.len() >= 4 && returns.iter().all(known), "{returns:?}");
        let mut addresses: Vec<u64> = sites.iter().map(|site| site.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), sites.len());
    }

    #[test]
    fn what_a_library_lacks_is_said() {
        let mut notes = Vec::new();
        tell_missing("memalign", Err("the library has none"), &mut notes).expect("it is not needed");
        assert_eq!(notes, ["C's memalign is not followed (the library has none): its objects are missing"]);
        assert!(tell_missing("free", Err("the library has none"), &mut notes).is_err());
    }
}
