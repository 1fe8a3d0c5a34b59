//! Joins calls with their stacks, symbols and types into the sites a user sees.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::kind::{Kind, classify, is_runtime};
use super::life::{Life, Lives};
use super::sampling::{ErrorBytes, Estimator, SeenCall};
use crate::base::Fnv1a;
use crate::event::{self, StackId};
use crate::model::{Call, CallSums, State, Tally};

/// Allocations of one type, by one kind of expression, from one stack.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Site {
    /// A hash of frames, type and kind: the same in every capture of the same program.
    pub id: String,
    /// The element type, as Go prints it; empty for untyped memory, `?` when unknown.
    #[serde(rename = "type")]
    pub type_name: String,
    pub kind: Kind,
    pub alloc_objects: u64,
    /// By size class.
    pub alloc_bytes: u64,
    pub requested_bytes: u64,
    /// Survivors of the latest GC cycle that was judged; `None`: there was none.
    pub live_objects: Option<u64>,
    /// By size class.
    pub live_bytes: Option<u64>,
    /// `None`: every object was seen.
    pub error_bytes: Option<ErrorBytes>,
    /// `None`: objects were not followed.
    pub life: Option<Life>,
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// Indices of the calls it is made of, as the live heap has them; no part of the JSON.
    #[serde(skip)]
    pub calls: Vec<u32>,
}

/// One function of a site's stack.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Frame {
    pub function: String,
    pub file: String,
    /// 0 when unknown.
    pub line: u32,
    /// Whether it was inlined into the next frame.
    pub inlined: bool,
    /// Return address less one, in the target's address space; no part of the JSON,
    /// and 0 where there is none.
    #[serde(skip)]
    pub address: u64,
    /// As in [`event::Frame`]; no part of the JSON.
    #[serde(skip)]
    pub wrapper: bool,
}

impl Frame {
    pub(super) fn of(frame: &event::Frame, address: u64) -> Frame {
        Frame { address, ..Frame::from(frame.clone()) }
    }
}

impl From<event::Frame> for Frame {
    /// Without an address.
    fn from(event::Frame { function, file, line, inlined, wrapper }: event::Frame) -> Frame {
        Frame { function, file, line, inlined, address: 0, wrapper }
    }
}

/// Totals, and what in them is uncertain.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) objects: u64,
    pub(super) bytes: u64,
    pub(super) requested: u64,
    /// Between the readings of the runtime's counters.
    pub(super) counted_objects: u64,
    pub(super) counted_bytes: u64,
    /// Objects whose requested size is taken to be their slot's.
    pub(super) sized_by_class: u64,
    /// Objects whose size class is unknown.
    pub(super) unslotted_objects: u64,
    /// Objects whose type is unknown.
    pub(super) untyped_objects: u64,
    /// Return addresses without a symbol.
    pub(super) unknown_addresses: u64,
    /// Objects whose stack was lost.
    pub(super) stackless_objects: u64,
    /// Objects and bytes that survived the latest GC cycle that was judged.
    pub(super) live: Option<(u64, u64)>,
}

/// What makes two allocations belong to one site. Frames are indices of interned ones.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct SiteKey {
    frames: Vec<u32>,
    type_name: String,
    kind: Kind,
}

#[derive(Debug, Default, Clone, Copy)]
struct Amount {
    objects: u64,
    bytes: u64,
    requested: u64,
}

/// What a site is made of.
#[derive(Debug, Default)]
struct Parts {
    amount: Amount,
    /// Of the frames.
    addresses: Vec<u64>,
    calls: Vec<SeenCall>,
}

/// The sites of a capture, in no particular order, and their sums.
pub(super) fn build(state: &State, estimator: &Estimator<'_>) -> (Vec<Site>, Sums) {
    let mut sums = Sums::default();
    let mut stacks = Stacks::new(state);
    let mut sites: BTreeMap<SiteKey, Parts> = BTreeMap::new();
    let mut calls: Vec<CallSums> = state.calls.iter().collect();
    calls.sort_unstable_by_key(|sums| sums.call);
    for of_call in calls {
        let weight = estimator.weight(&of_call);
        let CallSums { call, index, all, counted } = of_call;
        let seen = all.objects;
        let (all, counted) = (weight.scale_all(&all), weight.scale_all(&counted));
        let resolved = Resolved::new(state, &call);
        let amount = resolved.amount(&all);
        sums.add(&resolved, &all, amount);
        sums.counted_objects = sums.counted_objects.saturating_add(counted.objects);
        sums.counted_bytes = sums.counted_bytes.wrapping_add(counted.bytes);
        let stack = stacks.get(call.stack);
        let stackless = if stack.lost { all.objects } else { 0 };
        sums.stackless_objects = sums.stackless_objects.saturating_add(stackless);
        let kind = stack.kind(&resolved.type_name);
        let key = SiteKey { frames: stack.frames.clone(), type_name: resolved.type_name, kind };
        let parts = sites
            .entry(key)
            .or_insert_with(|| Parts { addresses: stack.addresses.clone(), ..Parts::default() });
        parts.amount.objects = parts.amount.objects.saturating_add(amount.objects);
        parts.amount.bytes = parts.amount.bytes.wrapping_add(amount.bytes);
        parts.amount.requested = parts.amount.requested.wrapping_add(amount.requested);
        parts.calls.push(SeenCall { index, weight, seen });
    }
    sums.unknown_addresses = stacks.unknown.len() as u64;
    let frames = stacks.interned;
    let lives = state.live.as_ref().map(|live| Lives::new(live, state.windows.is_some()));
    let sites: Vec<Site> =
        sites.into_iter().map(|(key, parts)| site(key, &parts, estimator, lives.as_ref(), &frames)).collect();
    let live = |site: &Site| Some((site.live_objects?, site.live_bytes?));
    sums.live = state.live.as_ref().and_then(|live| live.latest_judged()).map(|_| {
        sites.iter().filter_map(live).fold((0, 0), |(objects, bytes), (o, b)| {
            (u64::wrapping_add(objects, o), u64::wrapping_add(bytes, b))
        })
    });
    (sites, sums)
}

fn site(
    key: SiteKey,
    parts: &Parts,
    estimator: &Estimator<'_>,
    lives: Option<&Lives<'_>>,
    interned: &[event::Frame],
) -> Site {
    let sum = parts.amount;
    let (live, life) = match lives.map(|lives| lives.of(&parts.calls)) {
        Some((live, life)) => (live, Some(life)),
        None => (None, None),
    };
    let frames: Vec<Frame> = key
        .frames
        .iter()
        .zip(&parts.addresses)
        .filter_map(|(&i, &address)| interned.get(i as usize).map(|f| (f, address)))
        .map(|(f, address)| Frame::of(f, address))
        .collect();
    Site {
        id: site_id(&frames, &key.type_name, key.kind),
        type_name: key.type_name,
        kind: key.kind,
        alloc_objects: sum.objects,
        alloc_bytes: sum.bytes,
        requested_bytes: sum.requested,
        live_objects: live.map(|(objects, _)| objects),
        live_bytes: live.map(|(_, bytes)| bytes),
        error_bytes: estimator.error(&parts.calls, lives.filter(|_| live.is_some())),
        life,
        frames,
        calls: parts.calls.iter().map(|call| call.index).collect(),
    }
}

/// A hash of what is the same in every run: no addresses, and no file paths
/// (those depend on where the program was built).
fn site_id(frames: &[Frame], type_name: &str, kind: Kind) -> String {
    let mut hash = Fnv1a::default();
    let mut add = |text: &str| {
        hash.add(text.as_bytes());
        hash.add(&[0]);
    };
    for frame in frames {
        add(&frame.function);
        add(&frame.line.to_string());
    }
    add(type_name);
    add(kind.name());
    format!("{:016x}", hash.hash())
}

impl Sums {
    fn add(&mut self, resolved: &Resolved, all: &Tally, amount: Amount) {
        self.objects = self.objects.saturating_add(amount.objects);
        self.bytes = self.bytes.wrapping_add(amount.bytes);
        self.requested = self.requested.wrapping_add(amount.requested);
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.sized_by_class, if resolved.size.is_none() { all.unsized_objects } else { 0 });
        add(&mut self.unslotted_objects, all.unslotted_objects);
        add(&mut self.untyped_objects, if resolved.type_name == UNKNOWN_TYPE { all.objects } else { 0 });
    }
}

/// The name of a type that could not be read.
pub(super) const UNKNOWN_TYPE: &str = "?";

/// A call's type and size, with what was learnt from the calling code.
struct Resolved {
    type_name: String,
    /// The constant the calling code asks for, where the trap could not read the size.
    size: Option<u64>,
}

impl Resolved {
    fn new(state: &State, call: &Call) -> Resolved {
        let inferred = state.inferred.get(&(call.site, call.stack));
        let addr = match (call.type_addr, inferred) {
            (0, Some(inferred)) => inferred.type_addr,
            (addr, _) => Some(addr),
        };
        let type_name = match addr {
            Some(0) => "",
            Some(addr) => state.types.get(&addr).map_or(UNKNOWN_TYPE, |info| &info.name),
            None => UNKNOWN_TYPE,
        };
        Resolved { type_name: type_name.into(), size: inferred.and_then(|i| i.size).filter(|&size| size > 0) }
    }

    fn amount(&self, tally: &Tally) -> Amount {
        let learnt = match self.size {
            Some(size) => size.wrapping_mul(tally.unsized_objects),
            None => tally.unsized_bytes,
        };
        Amount { objects: tally.objects, bytes: tally.bytes, requested: tally.requested.wrapping_add(learnt) }
    }
}

/// A stack as a site shows it.
#[derive(Debug, Clone, Default)]
struct Stack {
    /// Interned frames, innermost first, and the address of each.
    frames: Vec<u32>,
    addresses: Vec<u64>,
    /// Functions of the runtime's frames that were cut off, innermost first.
    hidden: Vec<String>,
    /// Function of the first frame.
    top: String,
    lost: bool,
}

impl Stack {
    fn kind(&self, type_name: &str) -> Kind {
        let hidden: Vec<&str> = self.hidden.iter().map(String::as_str).collect();
        classify(&hidden, &self.top, type_name)
    }
}

/// Symbolised stacks, each worked out once, with each distinct frame held once.
pub(super) struct Stacks<'a> {
    state: &'a State,
    known: HashMap<StackId, Stack>,
    interned: Vec<event::Frame>,
    index: HashMap<event::Frame, u32>,
    /// Return addresses without a symbol.
    unknown: std::collections::BTreeSet<u64>,
}

impl<'a> Stacks<'a> {
    pub(super) fn new(state: &'a State) -> Stacks<'a> {
        Stacks {
            state,
            known: HashMap::new(),
            interned: Vec::new(),
            index: HashMap::new(),
            unknown: Default::default(),
        }
    }

    /// The frames that a site with this stack has, by name: without addresses.
    pub(super) fn named(&mut self, id: StackId) -> Vec<Frame> {
        let shown = self.get(id).frames.clone();
        shown.iter().filter_map(|&i| self.interned.get(i as usize)).map(|f| Frame::of(f, 0)).collect()
    }

    fn get(&mut self, id: StackId) -> &Stack {
        if !self.known.contains_key(&id) {
            let stack = self.symbolise(id);
            self.known.insert(id, stack);
        }
        &self.known[&id]
    }

    fn symbolise(&mut self, id: StackId) -> Stack {
        let Some(pcs) = self.state.stacks.get(&id) else {
            return Stack { lost: true, ..self.placeholder("(stack lost)") };
        };
        let mut frames: Vec<(event::Frame, u64)> = Vec::with_capacity(pcs.len());
        for &pc in pcs {
            let address = pc.saturating_sub(1);
            match self.state.symbols.get(&pc).filter(|known| !known.is_empty()) {
                Some(known) => frames.extend(known.iter().map(|f| (f.clone(), address))),
                None => {
                    self.unknown.insert(pc);
                    let function = format!("0x{pc:x}");
                    frames.push((event::Frame { function, ..event::Frame::default() }, address));
                }
            }
        }
        // Every goroutine starts there: it says nothing.
        if frames.len() > 1 && frames.last().is_some_and(|(f, _)| f.function == "runtime.goexit") {
            frames.pop();
        }
        let Some((top, _)) = frames.first() else { return self.placeholder("(no stack)") };
        let all = top.function.clone();
        let hidden = frames.iter().position(|(f, _)| !is_runtime(&f.function));
        let top = hidden.and_then(|n| frames.get(n)).map_or(all, |(f, _)| f.function.clone());
        let shown = frames.split_off(hidden.unwrap_or(0));
        Stack {
            addresses: shown.iter().map(|(_, address)| *address).collect(),
            frames: shown.into_iter().map(|(f, _)| self.intern(f)).collect(),
            hidden: frames.into_iter().map(|(f, _)| f.function).collect(),
            top,
            lost: false,
        }
    }

    /// A stack of one frame that stands for none.
    fn placeholder(&mut self, function: &str) -> Stack {
        let frame = event::Frame { function: function.into(), ..event::Frame::default() };
        Stack {
            frames: vec![self.intern(frame)],
            addresses: vec![0],
            top: function.into(),
            ..Stack::default()
        }
    }

    fn intern(&mut self, frame: event::Frame) -> u32 {
        if let Some(&index) = self.index.get(&frame) {
            return index;
        }
        let index = self.interned.len() as u32;
        self.interned.push(frame.clone());
        self.index.insert(frame, index);
        index
    }
}
