//! Adds to the events what only the target and its binary know: symbols, types, call sites.
//!
//! A capture carries these so that its report needs neither.

use std::collections::{HashMap, HashSet};

use crate::base::{Error, Result};
use crate::binary::Binary;
use crate::event::{
    Alloc, Census, Counted, Event, Frame, Holders, Inferred, Mapping, SiteId, StackId, UNKNOWN_SLOT,
};
use crate::memory::{LiveMemory, ProcessMemory};
use crate::plan::{CallSites, ProbePlan, Purpose};
use crate::runtime::{Layout, TypeReader, slot_size};
use crate::symbol::{Symbolizer, calls};
use crate::target::Identity;

pub(super) struct Enricher<'a> {
    symbols: Symbolizer<'a>,
    call_sites: CallSites<'a>,
    types: TypeReader<'a, Image<'a>>,
    layout: &'a Layout,
    load_bias: u64,
    maps: &'a [Mapping],
    /// By site id: whether type or size comes from the call site.
    needs_call_site: Vec<bool>,
    /// Whether stacks begin where the runtime samples objects.
    is_sampled: bool,
    known_pcs: HashSet<u64>,
    /// Types met, and whether they hold pointers; `None`: no type stands there.
    pointerful: HashMap<u64, Option<bool>>,
    /// Calls at sites that need the call site, each asked about once.
    asked: HashSet<(SiteId, StackId)>,
    /// Asked before their stack had come.
    waiting: HashMap<StackId, Vec<SiteId>>,
    stacks: HashMap<StackId, Vec<u64>>,
}

impl<'a> Enricher<'a> {
    pub(super) fn new(
        target: &'a Identity,
        layout: &'a Layout,
        plan: &ProbePlan,
        memory: &'a LiveMemory,
    ) -> Result<Enricher<'a>> {
        let load_bias = target.target.load_bias;
        let module = target.binary.moduledata().ok_or_else(|| {
            Error::usage("the executable has no module data: its types cannot be named")
                .hint("is it built with the standard Go toolchain?")
        })?;
        let needs = |p: &Purpose| matches!(p, Purpose::Alloc(r) if r.needs_call_site());
        Ok(Enricher {
            symbols: Symbolizer::new(&target.binary),
            call_sites: CallSites::new(&target.binary, move |addr| {
                let pointer = memory.read_u64(addr.wrapping_add(load_bias)).ok().filter(|p| *p != 0)?;
                Some(pointer.wrapping_sub(load_bias))
            }),
            types: TypeReader::new(
                Image { binary: &target.binary, load_bias, memory },
                layout,
                module.types.wrapping_add(load_bias)..module.etypes.wrapping_add(load_bias),
            ),
            layout,
            load_bias,
            maps: &target.target.maps,
            needs_call_site: plan.sites.iter().map(|s| needs(&s.purpose)).collect(),
            is_sampled: plan.is_sampled(),
            known_pcs: HashSet::new(),
            pointerful: HashMap::new(),
            asked: HashSet::new(),
            waiting: HashMap::new(),
            stacks: HashMap::new(),
        })
    }

    /// Hands to `out` whatever must stand beside `event` in a capture, and completes an
    /// allocation's slot size where the trap could not read it.
    pub(super) fn explain(&mut self, event: &mut Event, out: &mut Vec<Event>) {
        match event {
            Event::Alloc(alloc) => self.explain_alloc(alloc, out),
            Event::Counted(all) => all.iter_mut().for_each(|counted| self.explain_counted(counted, out)),
            Event::Stack { id, pcs } => self.explain_stack(*id, pcs, out),
            Event::Census(census) => self.explain_census(census, out),
            Event::Holders(holders) => {
                for type_addr in types_of(holders) {
                    self.explain_type(type_addr, out);
                }
            }
            _ => {}
        }
    }

    fn explain_alloc(&mut self, alloc: &mut Alloc, out: &mut Vec<Event>) {
        alloc.slot = self.explain_object(alloc.type_addr, alloc.size, alloc.slot, out);
        self.explain_call(alloc.site, alloc.stack, out);
    }

    fn explain_counted(&mut self, counted: &mut Counted, out: &mut Vec<Event>) {
        // Where the slot is not known, all were of one size.
        let size = counted.requested / counted.objects.max(1);
        counted.slot = self.explain_object(counted.type_addr, size, counted.slot, out);
        self.explain_call(counted.site, counted.stack, out);
    }

    /// Says what the type is; returns the slot, completed if it can be.
    fn explain_object(&mut self, type_addr: u64, size: u64, slot: u64, out: &mut Vec<Event>) -> u64 {
        match self.explain_type(type_addr, out) {
            Some(pointerful) if slot == UNKNOWN_SLOT && size > 0 => {
                slot_size(size, pointerful, self.layout.malloc_headers)
            }
            _ => slot,
        }
    }

    fn explain_call(&mut self, site: SiteId, stack: StackId, out: &mut Vec<Event>) {
        let needed = self.needs_call_site.get(usize::from(site.0)).copied().unwrap_or(false);
        if !needed || !self.asked.insert((site, stack)) {
            return;
        }
        match self.stacks.get(&stack).cloned() {
            Some(pcs) => self.infer(site, stack, &pcs, out),
            None => self.waiting.entry(stack).or_default().push(site),
        }
    }

    fn explain_stack(&mut self, id: StackId, pcs: &[u64], out: &mut Vec<Event>) {
        self.explain_pcs(pcs, out);
        for site in self.waiting.remove(&id).unwrap_or_default() {
            self.infer(site, id, pcs, out);
        }
        if self.needs_call_site.contains(&true) {
            self.stacks.insert(id, pcs.to_vec());
        }
    }

    fn explain_census(&mut self, census: &Census, out: &mut Vec<Event>) {
        let groups = census.goroutines.iter().flat_map(|goroutines| &goroutines.groups);
        let runners = census.finalizers.iter().flat_map(|finalizers| &finalizers.runners);
        let pcs: Vec<u64> = groups.chain(runners).map(|group| group.go_pc).collect();
        self.explain_pcs(&pcs, out);
        for (type_addr, _) in census.finalizers.iter().flat_map(|finalizers| &finalizers.types) {
            self.explain_type(*type_addr, out);
        }
    }

    /// The return addresses of a stack of the runtime's heap profile, in which inlined calls have
    /// an address of their own, and the innermost may be left out.
    pub(super) fn profiled_calls(&mut self, pcs: &[u64]) -> Vec<u64> {
        let mut calls = calls(pcs, |pc| self.frames(pc));
        let innermost = calls.first().map(|pc| pc.wrapping_sub(self.load_bias));
        if let Some(left_out) = innermost.and_then(|pc| self.call_sites.left_out(pc)) {
            calls.insert(0, left_out.wrapping_add(self.load_bias));
        }
        calls
    }

    /// Says what return addresses mean, the first time.
    pub(super) fn explain_pcs(&mut self, pcs: &[u64], out: &mut Vec<Event>) {
        for pc in pcs {
            if self.known_pcs.insert(*pc) {
                out.push(Event::Symbol { pc: *pc, frames: self.frames(*pc) });
            }
        }
    }

    fn infer(&mut self, site: SiteId, stack: StackId, pcs: &[u64], out: &mut Vec<Event>) {
        let linked: Vec<u64> = pcs.iter().map(|pc| pc.wrapping_sub(self.load_bias)).collect();
        let passed = match self.is_sampled {
            true => self.call_sites.passed_before_sampling(&linked),
            false => self.call_sites.passed(&linked),
        };
        let type_addr = passed.type_addr.map(|t| if t == 0 { 0 } else { t.wrapping_add(self.load_bias) });
        self.explain_type(type_addr.unwrap_or(0), out);
        out.push(Event::Inferred(Inferred { site, stack, type_addr, size: passed.size }));
    }

    /// Whether values of the type at `addr` hold pointers; says what it is the first time.
    /// Untyped memory holds none.
    fn explain_type(&mut self, addr: u64, out: &mut Vec<Event>) -> Option<bool> {
        if addr == 0 {
            return Some(false);
        }
        if let Some(known) = self.pointerful.get(&addr) {
            return *known;
        }
        // An address that is no type stays unnamed: the report shows it as unknown.
        let info = self.types.read(addr).ok();
        let pointerful = info.as_ref().map(|info| info.ptr_bytes > 0);
        self.pointerful.insert(addr, pointerful);
        out.extend(info.map(|info| Event::Type { addr, info }));
        pointerful
    }

    /// The functions at a return address: those of the call before it.
    fn frames(&self, pc: u64) -> Vec<Frame> {
        let call = pc.wrapping_sub(1);
        let map = self.maps.iter().find(|m| (m.start..m.end).contains(&call));
        match map {
            Some(m) if !self.is_own(m) => {
                let name = m.path.rsplit('/').next().unwrap_or("");
                let at = call - m.start + m.offset;
                vec![Frame { function: format!("{name}+{at:#x}"), file: m.path.clone(), ..Frame::default() }]
            }
            _ => self.symbols.frames(call.wrapping_sub(self.load_bias)),
        }
    }

    /// Whether a mapping is of the target's own executable, the one with symbols.
    fn is_own(&self, map: &Mapping) -> bool {
        self.maps.iter().find(|m| m.executable).is_some_and(|first| first.path == map.path)
    }
}

/// The types that a look for holders speaks of.
fn types_of(holders: &Holders) -> impl Iterator<Item = u64> {
    let steps = holders.held.iter().flat_map(|held| &held.ways).flat_map(|way| &way.holders);
    let of_steps = steps.map(|holder| holder.type_addr);
    let of_maps = holders.maps.iter().flat_map(|map| [map.key, map.elem]);
    of_steps.chain(of_maps).chain(holders.channels.iter().map(|channel| channel.elem_type))
}

/// The target's memory, what the executable holds of it taken from the file: that is
/// there before the program has relocated itself and after it has ended.
struct Image<'a> {
    binary: &'a Binary,
    load_bias: u64,
    memory: &'a LiveMemory,
}

impl ProcessMemory for Image<'_> {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<()> {
        match self.binary.read(addr.wrapping_sub(self.load_bias), buf.len()) {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => self.memory.read(addr, buf),
        }
    }
}
