//! The compiled eBPF object: loaded with its recipes, ready to be attached.

use std::os::fd::OwnedFd;

use aya::maps::{Array, HashMap};
use aya::programs::UProbe;
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use tracer_common::{GcAddresses, MAX_DEPTH, MAX_SITES, Place, Recipe, Sampler};

use super::attach::refused;
use super::{Allocations, AttachOptions, Method, c, counts, ring_size, uprobe_multi};
use crate::base::{Error, Result};
use crate::binary::flow::RSP;
use crate::event::UNKNOWN_SLOT;
use crate::plan::{self, CCall, CostClass, Purpose, Site};

/// Built from `tracer-ebpf/` by `cargo xtask build-ebpf`, which writes it here.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/heaptap.bpf.o");

/// The program's name in the object.
pub(super) const PROGRAM: &str = "heaptap";

/// What the reason of a stop, or the trigger of a cycle, is read as where its site does
/// not tell.
pub(super) const UNKNOWN_VALUE: u64 = u64::MAX;

/// The object in the kernel: maps filled, program verified.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) ebpf: Ebpf,
    /// Whether sites are told apart by attach cookie.
    pub(super) cookies: bool,
    pub(super) form: Form,
}

/// What the program was loaded for: the kernel wants to know beforehand.
#[derive(Debug)]
pub(super) enum Form {
    /// One `uprobe_multi` link; the program's descriptor.
    Multi(OwnedFd),
    /// Perf events; the program is loaded in `ebpf`.
    Perf,
}

impl Program {
    pub(super) fn load(options: &AttachOptions<'_>) -> Result<Program> {
        let cookies = !options.baseline && aya::features().bpf_cookie();
        let recipes = recipes(options)?;
        let mut ebpf = create_maps(options, cookies)?;
        fill_maps(&mut ebpf, options, &recipes)?;
        let multi = match options.method {
            Method::Auto => has_multi(),
            method => method == Method::Multi,
        };
        let form = if multi {
            Form::Multi(uprobe_multi::load(&ebpf)?)
        } else {
            uprobe(&mut ebpf)?.load().map_err(|e| refused("the kernel refuses the eBPF program", e))?;
            Form::Perf
        };
        Ok(Program { ebpf, cookies, form })
    }

    pub(super) fn method(&self) -> Method {
        match self.form {
            Form::Multi(_) => Method::Multi,
            Form::Perf => Method::Perf,
        }
    }
}

/// The kernel from which on a `uprobe_multi` link's process filter covers all threads.
pub(super) const MULTI_SINCE: KernelVersion = KernelVersion::new(6, 10, 0);

/// The kernel from which on a program may exchange a word atomically (Linux commit
/// 5ffa25502b5a).
const WINDOWS_SINCE: KernelVersion = KernelVersion::new(5, 12, 0);

/// Whether this kernel's `uprobe_multi` links can be used.
pub(super) fn has_multi() -> bool {
    KernelVersion::current().is_ok_and(|current| current >= MULTI_SINCE)
}

/// The program as aya sees it.
pub(super) fn uprobe(ebpf: &mut Ebpf) -> Result<&mut UProbe> {
    let program = ebpf.program_mut(PROGRAM).and_then(|program| program.try_into().ok());
    program.ok_or_else(|| missing(PROGRAM))
}

/// Sets the program's constants and creates its maps.
fn create_maps(options: &AttachOptions<'_>, cookies: bool) -> Result<Ebpf> {
    let ring = ring_size(options.ring_bytes)?;
    if options.max_depth == 0 || options.max_depth as usize > MAX_DEPTH {
        return Err(Error::usage(format!("a stack depth of {} is out of range", options.max_depth))
            .hint(format!("give a depth from 1 to {MAX_DEPTH}")));
    }
    let windows = !options.baseline && KernelVersion::current().is_ok_and(|current| current >= WINDOWS_SINCE);
    let counted = options.allocations == Allocations::Counted;
    let log_level: u8 = if options.bpf_log { u8::MAX } else { 0 };
    let goroutine = options.c.and_then(|c| c.goroutine);
    let mut loader = EbpfLoader::new();
    for (map, entries) in c::map_sizes(options.c.is_some()) {
        loader.map_max_entries(map, entries);
    }
    loader
        .override_global("COOKIES", &u32::from(cookies), true)
        .override_global("WINDOWS", &u32::from(windows), true)
        .override_global("GATED", &u32::from(options.allocations == Allocations::Gated), true)
        .override_global("COUNTED", &u32::from(counted), true)
        .override_global("G_M", &options.curg.map_or(0, |curg| curg.g_m), true)
        .override_global("M_CURG", &options.curg.map_or(0, |curg| curg.m_curg), true)
        .override_global("G_GOID", &options.g_goid, true)
        .override_global("G_SCHED_BP", &goroutine.map_or(0, |g| g.sched_bp), true)
        .override_global("TLS_G", &goroutine.map_or(0, |g| g.tls as u64), true)
        .override_global("TASK_FSBASE", &goroutine.map_or(0, |g| g.fs_base), true)
        .override_global("DEPTH", &options.max_depth, true)
        .override_global("WAKE_BYTES", &u64::from(ring / 4), true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .map_max_entries("EVENTS", ring)
        .map_max_entries("COUNTS", if counted { counts::CALLS } else { 1 })
        .load(OBJECT)
        .map_err(|e| refused("cannot create the eBPF program's maps", e))
}

fn fill_maps(ebpf: &mut Ebpf, options: &AttachOptions<'_>, recipes: &[Recipe]) -> Result<()> {
    let mut by_index = Array::<_, Recipe>::try_from(map(ebpf, "RECIPES")?).map_err(map_error)?;
    for (index, recipe) in recipes.iter().enumerate() {
        by_index.set(index as u32, recipe, 0).map_err(map_error)?;
    }
    if let Some(addresses) = options.gc_addresses {
        let mut gc = Array::<_, GcAddresses>::try_from(map(ebpf, "GC_ADDRESSES")?).map_err(map_error)?;
        gc.set(0, addresses, 0).map_err(map_error)?;
    }
    if let Some(sampler) = options.sampler {
        set_sampler(map(ebpf, "SAMPLER")?, &sampler)?;
    }
    let mut by_ip = HashMap::<_, u64, u32>::try_from(map(ebpf, "SITES_BY_IP")?).map_err(map_error)?;
    let own = options.plan.sites.iter().map(|site| site.address.wrapping_add(options.load_bias));
    let of_c =
        options.c.into_iter().flat_map(|c| c.sites.iter().map(|s| s.address.wrapping_add(c.load_bias)));
    for (index, address) in own.chain(of_c).enumerate() {
        by_ip.insert(address, index as u32, 0).map_err(map_error)?;
    }
    Ok(())
}

/// Writes the map SAMPLER.
pub(super) fn set_sampler(map: &mut aya::maps::Map, sampler: &Sampler) -> Result<()> {
    Array::try_from(map).and_then(|mut entry| entry.set(0, *sampler, 0)).map_err(map_error)
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map> {
    ebpf.map_mut(name).ok_or_else(|| missing(name))
}

/// The built object and this source disagree: a defect, not the user's doing.
pub(super) fn missing(name: &str) -> Error {
    Error::failed(format!("the eBPF object has no {name}")).hint("rebuild it: cargo xtask build-ebpf")
}

pub(super) fn map_error(error: aya::maps::MapError) -> Error {
    Error::failed("cannot use a map of the eBPF program").because(error)
}

/// The plan's recipes in the program's form, by site index; behind them those of C's allocator.
fn recipes(options: &AttachOptions<'_>) -> Result<Vec<Recipe>> {
    let plan = options.plan;
    let sites: Vec<&Site> = plan.sites.iter().chain(options.c.map_or(&[][..], |c| &c.sites)).collect();
    if plan.sites.is_empty() {
        return Err(Error::failed("there is no site to probe in this program")
            .hint("see what was found and what was not: heaptap plan"));
    }
    if sites.len() > MAX_SITES {
        return Err(Error::failed(format!(
            "{} probe sites are more than the {MAX_SITES} one program serves",
            sites.len()
        )));
    }
    let alloc = if plan.is_sampled() { Recipe::SAMPLE } else { Recipe::ALLOC };
    Ok(sites.into_iter().enumerate().map(|(index, site)| recipe(index as u32, site, alloc)).collect())
}

/// `alloc` is what allocation sites are to the program.
fn recipe(index: u32, site: &Site, alloc: u32) -> Recipe {
    let nothing = plan::Place::None;
    let stepped = plan::Place::Const(u64::from(site.cost == CostClass::SingleStepped));
    let only = |ptr| plan::Recipe { ptr, size: nothing, type_: nothing, slot: nothing };
    let (purpose, absent, places) = match &site.purpose {
        Purpose::Alloc(places) => (alloc, 0, places.clone()),
        Purpose::GcEpoch => (Recipe::GC_EPOCH, 0, only(nothing)),
        Purpose::GcStart { trigger } => (Recipe::GC_START, UNKNOWN_VALUE, only(*trigger)),
        Purpose::GcRecord => (Recipe::GC_RECORD, 0, only(nothing)),
        Purpose::AssistBegin => (Recipe::ASSIST_BEGIN, 0, only(nothing)),
        Purpose::AssistEnd => (Recipe::ASSIST_END, 0, only(nothing)),
        Purpose::StwBegin { reason } => (Recipe::STW_BEGIN, UNKNOWN_VALUE, only(*reason)),
        Purpose::StwEnd => (Recipe::STW_END, 0, only(nothing)),
        Purpose::Mark { frame } => {
            let size = plan::Place::Const(*frame as u64);
            (Recipe::MARK, 0, plan::Recipe { size, slot: stepped, ..only(plan::Place::Reg(RSP)) })
        }
        &Purpose::CAlloc { call, pointer, size, count } => {
            let purpose = match call {
                CCall::Returns => Recipe::C_ALLOC,
                CCall::Replaces => Recipe::C_REALLOC,
                CCall::Stores => Recipe::C_STORE,
            };
            (purpose, 0, plan::Recipe { ptr: pointer, size, type_: count, slot: stepped })
        }
        Purpose::CReturn { result, depth } => {
            let size = plan::Place::Const(*depth as u64);
            (Recipe::C_RETURN, 0, plan::Recipe { size, slot: stepped, ..only(*result) })
        }
        Purpose::CFree { pointer } => (Recipe::C_FREE, 0, plan::Recipe { slot: stepped, ..only(*pointer) }),
    };
    Recipe {
        ptr: place(places.ptr, absent),
        size: place(places.size, 0),
        type_: place(places.type_, 0),
        slot: place(places.slot, UNKNOWN_SLOT),
        purpose,
        site: index,
    }
}

/// `absent` is what an event says where the site does not tell.
fn place(place: plan::Place, absent: u64) -> Place {
    match place {
        plan::Place::None => Place::new(Place::CONST, absent),
        plan::Place::Const(value) => Place::new(Place::CONST, value),
        plan::Place::Reg(number) => Place::new(Place::REG, u64::from(number)),
        plan::Place::Frame(offset) => Place::new(Place::FRAME, i64::from(offset) as u64),
        plan::Place::Stack(offset) => Place::new(Place::STACK, i64::from(offset) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_keep_their_sign_and_absence() {
        assert_eq!(place(plan::Place::Frame(-32), 0).arg as i64, -32);
        assert_eq!(place(plan::Place::Stack(56), 0), Place::new(Place::STACK, 56));
        assert_eq!(place(plan::Place::None, UNKNOWN_SLOT), Place::new(Place::CONST, u64::MAX));
    }

    #[test]
    fn the_object_holds_the_program_and_its_maps() {
        let object = aya_obj::Object::parse(OBJECT).expect("a valid object");
        assert!(object.programs.contains_key(PROGRAM));
        for map in [
            "RECIPES",
            "SITES_BY_IP",
            "GC_ADDRESSES",
            "EPOCH",
            "TURN",
            "SAMPLER",
            "COUNTERS",
            "GATE",
            "PASSED",
            "COUNTS",
            "C_CALLS",
            "C_OBJECTS",
            "C_COUNTS",
            "EVENTS",
            "AYA_LOGS",
        ] {
            assert!(object.maps.contains_key(map), "{map}");
        }
    }
}
