//! Writes the capture of a busy service that never was: allocations of thousands of sites, GC
//! cycles, and which objects they found dead.
//!
//! `cargo xtask bench report` runs it, with a file and a number of allocations.

#[path = "../benches/common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;

use tracer::base::{Error, Result};
use tracer::capture::Writer;
use tracer::event::*;

const SECOND: u64 = 1_000_000_000;

/// Of a span.
const PAGE: u64 = 8192;

/// Frames of a stack, some of them inlined: every goroutine runs the same outer ones.
const DEPTH: u64 = 20;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(Ok(count))) = (args.next(), args.next().map(|count| count.parse())) else {
        return Err(Error::usage("give a file and a number of allocations"));
    };
    let mut writer = Writer::create(path.as_ref())?;
    writer.write(&start())?;
    writer.write(&Event::Follow { max_memory: 1 << 30 })?;
    writer.write(&counters(SECOND, 0, 0))?;
    definitions(&mut writer)?;
    let (mut epoch, mut heap, mut last) = (0, Heap::default(), Alloc::default());
    let (mut objects, mut bytes) = (0, 0);
    for alloc in common::allocations(count) {
        if alloc.epoch > epoch {
            collection(&mut writer, alloc.epoch, alloc.time_ns, heap.collect())?;
            epoch = alloc.epoch;
        }
        // One in twenty or more lives on for good, and sites differ.
        let dies = (objects * 31) % 20 > u64::from(alloc.site.0);
        let alloc = Alloc { ptr: heap.allocate(&alloc, dies), ..alloc };
        (objects, bytes) = (objects + 1, bytes + alloc.slot);
        writer.write(&Event::Alloc(alloc))?;
        last = alloc;
    }
    writer.write(&counters(last.time_ns, objects, bytes))?;
    writer.write(&Event::End(End { time_ns: last.time_ns, reason: EndReason::Interrupted }))?;
    writer.finish().map(|_: File| ())
}

/// Spans of one page, with slots of one size, each filled by one CPU at a time and used again
/// once all in it have died.
#[derive(Default)]
struct Heap {
    /// By CPU and slot size: the next free slot, and where the span ends.
    filling: BTreeMap<(u32, u64), (u64, u64)>,
    /// Objects in each span.
    held: HashMap<u64, u64>,
    free: Vec<u64>,
    spans: u64,
    /// What the next cycle finds dead.
    dying: Vec<u64>,
}

impl Heap {
    fn allocate(&mut self, alloc: &Alloc, dies: bool) -> u64 {
        let (next, end) = self.filling.entry((alloc.cpu, alloc.slot)).or_default();
        if *next + alloc.slot > *end {
            *next = self.free.pop().unwrap_or_else(|| {
                self.spans += 1;
                0xc0_0000_0000 + PAGE * self.spans
            });
            *end = *next + PAGE;
        }
        let ptr = *next;
        *next += alloc.slot;
        *self.held.entry(ptr / PAGE).or_default() += 1;
        if dies {
            self.dying.push(ptr);
        }
        ptr
    }

    /// Frees what dies; returns its addresses, ascending.
    fn collect(&mut self) -> Vec<u64> {
        let mut dead = std::mem::take(&mut self.dying);
        dead.sort_unstable();
        self.filling.clear();
        for ptr in &dead {
            let held = self.held.entry(ptr / PAGE).or_default();
            *held -= 1;
            if *held == 0 {
                self.free.push(ptr / PAGE * PAGE);
            }
        }
        dead
    }
}

fn start() -> Event {
    Event::Start(Start {
        heaptap_version: env!("CARGO_PKG_VERSION").into(),
        time_ns: SECOND,
        unix_ns: 1_767_225_600 * SECOND,
        mode: "exact".into(),
        target: Target {
            pid: 4711,
            exe: "/app/server".into(),
            go_version: "go1.27.3".into(),
            arch: "amd64".into(),
            ..Target::default()
        },
        ..Start::default()
    })
}

fn counters(at_ns: u64, objects: u64, bytes: u64) -> Event {
    Event::Counters(Counters { begin_ns: at_ns, end_ns: at_ns, objects, bytes, ..Counters::default() })
}

/// The stack of each call, what its addresses mean, and the types. Calls are the leaves of a
/// tree of functions: the farther out a frame is, the more share it.
fn definitions(writer: &mut Writer<File>) -> Result<()> {
    let mut known = BTreeSet::new();
    for call in 0..common::CALLS {
        let pcs: Vec<u64> =
            (0..DEPTH).map(|level| 0x40_0000 + (level << 16) + 16 * (call >> (level * 2 / 3))).collect();
        for (&pc, level) in pcs.iter().zip(0..DEPTH).filter(|(pc, _)| known.insert(**pc)) {
            writer.write(&Event::Symbol { pc, frames: frames(pc, level) })?;
        }
        writer.write(&Event::Stack { id: common::stack(call), pcs })?;
    }
    for number in 0..common::TYPES {
        let name = format!("inventory.(*Shelf{}).Item", number);
        let info = TypeInfo { name, size: 48, ptr_bytes: 16, ..TypeInfo::default() };
        writer.write(&Event::Type { addr: common::type_addr(number), info })?;
    }
    Ok(())
}

fn frames(pc: u64, level: u64) -> Vec<Frame> {
    let frame = |method: &str, inlined| Frame {
        function: format!("example.org/shop/service{level}/inventory.(*Shelf{}).{method}", pc >> 4 & 0xfff),
        file: format!("/src/example.org/shop/service{level}/inventory/shelf.go"),
        line: 10 + (pc >> 4) as u32 % 900,
        inlined,
        ..Frame::default()
    };
    match level % 3 {
        0 => vec![frame("get", true), frame("Get", false)],
        _ => vec![frame("Serve", false)],
    }
}

/// A cycle that found dead what was allocated since the one before, with what the runtime
/// records of it.
fn collection(writer: &mut Writer<File>, epoch: u32, time_ns: u64, dead: Vec<u64>) -> Result<()> {
    let heap = (20 << 20) + (u64::from(epoch) << 20);
    writer.write(&Event::GcEpoch { epoch, time_ns })?;
    writer.write(&Event::GcCycle(GcCycle {
        cycle: epoch,
        epoch,
        time_ns: time_ns + 100_000,
        trigger: Some(GcTrigger::Heap),
        sweep_term_ns: time_ns - 5_000_000,
        mark_ns: time_ns - 4_900_000,
        mark_term_ns: time_ns,
        end_ns: time_ns + 50_000,
        heap_before: 2 * heap,
        heap_after: 2 * heap + (1 << 20),
        heap_marked: heap,
        heap_live: heap,
        heap_goal: 2 * heap,
        gc_percent: 100,
        memory_limit: i64::MAX,
        max_procs: 4,
        stw_procs: 4,
        ..GcCycle::default()
    }))?;
    for slots in dead.chunks(10_000) {
        writer.write(&Event::Deaths { epoch, slots: slots.to_vec() })?;
    }
    writer.write(&Event::Judged(Judged { epoch, time_ns: time_ns + 60_000, took_ns: 50_000, spans: 1000 }))
}
