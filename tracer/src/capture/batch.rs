//! A frame's payload: allocations as columns of deltas, other events as records between.
//!
//! Allocations come by the million and resemble their predecessors: the same few call
//! sites, ascending times and addresses. A column of small differences is what zstd
//! shrinks best. A payload refers to nothing outside itself, so one lost frame costs
//! no other.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hashbrown::HashMap;

use super::varint;
use crate::event::{Alloc, Event, SiteId, StackId};

/// Sections of a payload, in order; a reader ignores further ones.
const CALLS: usize = 0;
const CALL: usize = 1;
const TIME: usize = 2;
const PTR: usize = 3;
const SIZE: usize = 4;
const SLOT: usize = 5;
const GOROUTINE: usize = 6;
const EPOCH: usize = 7;
const CPU: usize = 8;
const RECORDS: usize = 9;
const SECTIONS: usize = 10;

/// Record kinds; a reader skips others.
const RECORD_JSON: u8 = 1;
const RECORD_STACK: u8 = 2;
const RECORD_DEATHS: u8 = 3;

/// What allocations of one place have in common.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Call {
    site: u16,
    stack: u64,
    type_addr: u64,
}

/// A call and its latest allocation, against which the next one is a difference.
#[derive(Debug, Clone, Copy, Default)]
struct Latest {
    call: Call,
    ptr: u64,
    size: u64,
    slot: u64,
}

/// The latest values a column that is not kept by call differs from.
#[derive(Debug)]
struct Running {
    time_ns: u64,
    epoch: u64,
    /// By the low byte of the CPU number: a goroutine stays on its CPU for a while.
    goroutine: [u64; 256],
}

impl Default for Running {
    fn default() -> Running {
        Running { time_ns: 0, epoch: 0, goroutine: [0; 256] }
    }
}

/// Gathers events until they are written as one frame.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    sections: [BytesMut; SECTIONS],
    index: HashMap<Call, u32>,
    latest: Vec<Latest>,
    running: Running,
    allocs: u64,
    /// `allocs` when the last record was added.
    allocs_at_record: u64,
}

impl Encoder {
    pub(super) fn is_empty(&self) -> bool {
        self.allocs == 0 && self.sections[RECORDS].is_empty()
    }

    pub(super) fn allocs(&self) -> u64 {
        self.allocs
    }

    pub(super) fn record_bytes(&self) -> usize {
        self.sections[RECORDS].len()
    }

    pub(super) fn alloc(&mut self, a: &Alloc) {
        let call = Call { site: a.site.0, stack: a.stack.0, type_addr: a.type_addr };
        let index = match self.index.get(&call) {
            Some(&index) => index,
            None => self.add_call(call),
        };
        let latest = &mut self.latest[index as usize];
        let goroutine = &mut self.running.goroutine[(a.cpu & 0xff) as usize];
        varint::put(&mut self.sections[CALL], u64::from(index));
        varint::put_delta(&mut self.sections[TIME], self.running.time_ns, a.time_ns);
        varint::put_delta(&mut self.sections[PTR], latest.ptr, a.ptr);
        varint::put_delta(&mut self.sections[SIZE], latest.size, a.size);
        varint::put_delta(&mut self.sections[SLOT], latest.slot, a.slot);
        varint::put_delta(&mut self.sections[GOROUTINE], *goroutine, a.goroutine);
        varint::put_delta(&mut self.sections[EPOCH], self.running.epoch, u64::from(a.epoch));
        varint::put(&mut self.sections[CPU], u64::from(a.cpu));
        (latest.ptr, latest.size, latest.slot) = (a.ptr, a.size, a.slot);
        *goroutine = a.goroutine;
        self.running.time_ns = a.time_ns;
        self.running.epoch = u64::from(a.epoch);
        self.allocs += 1;
    }

    fn add_call(&mut self, call: Call) -> u32 {
        let index = self.latest.len() as u32;
        let out = &mut self.sections[CALLS];
        varint::put(out, u64::from(call.site));
        out.put_u64_le(call.stack);
        let previous = self.latest.last().map_or(0, |l| l.call.type_addr);
        varint::put_delta(out, previous, call.type_addr);
        self.latest.push(Latest { call, ..Latest::default() });
        self.index.insert(call, index);
        index
    }

    pub(super) fn stack(&mut self, id: StackId, pcs: &[u64]) {
        let mut body = Vec::with_capacity(8 + 3 * pcs.len());
        body.put_u64_le(id.0);
        put_addresses(&mut body, pcs);
        self.record(RECORD_STACK, &body);
    }

    pub(super) fn deaths(&mut self, epoch: u32, slots: &[u64]) {
        let mut body = Vec::with_capacity(8 + 2 * slots.len());
        varint::put(&mut body, u64::from(epoch));
        put_addresses(&mut body, slots);
        self.record(RECORD_DEATHS, &body);
    }

    /// Adds an event given as JSON (any but `Alloc`, `Stack` and `Deaths`).
    pub(super) fn json(&mut self, body: &[u8]) {
        self.record(RECORD_JSON, body);
    }

    fn record(&mut self, kind: u8, body: &[u8]) {
        let out = &mut self.sections[RECORDS];
        varint::put(out, self.allocs - self.allocs_at_record);
        out.put_u8(kind);
        varint::put(out, body.len() as u64);
        out.put_slice(body);
        self.allocs_at_record = self.allocs;
    }

    /// Appends the payload to `out` and starts afresh.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        varint::put(out, self.allocs);
        varint::put(out, SECTIONS as u64);
        for section in &mut self.sections {
            varint::put(out, section.len() as u64);
            out.put_slice(section);
            section.clear();
        }
        self.index.clear();
        self.latest.clear();
        self.running = Running::default();
        self.allocs = 0;
        self.allocs_at_record = 0;
    }
}

/// Yields the events of one payload in the order they were written.
#[derive(Debug)]
pub(super) struct Decoder {
    sections: [Bytes; SECTIONS],
    latest: Vec<Latest>,
    running: Running,
    allocs_left: u64,
    /// Allocations to yield before the next record; `None`: no record is left.
    before_record: Option<u64>,
    /// Records of a kind this version does not know.
    pub(super) unknown_records: u64,
}

/// The payload's checksum held, yet it makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

impl Decoder {
    pub(super) fn new(mut payload: Bytes) -> Result<Decoder, Malformed> {
        let allocs_left = varint::get(&mut payload).ok_or(Malformed)?;
        let count = varint::get(&mut payload).ok_or(Malformed)?;
        let mut sections: [Bytes; SECTIONS] = Default::default();
        for section in sections.iter_mut().take(usize::try_from(count).unwrap_or(SECTIONS)) {
            let len = varint::get(&mut payload).and_then(|n| usize::try_from(n).ok()).ok_or(Malformed)?;
            if len > payload.len() {
                return Err(Malformed);
            }
            *section = payload.split_to(len);
        }
        let latest = read_calls(&mut sections[CALLS]).ok_or(Malformed)?;
        let mut decoder = Decoder {
            sections,
            latest,
            running: Running::default(),
            allocs_left,
            before_record: None,
            unknown_records: 0,
        };
        decoder.find_record()?;
        Ok(decoder)
    }

    /// The next event; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Event>, Malformed> {
        loop {
            match &mut self.before_record {
                Some(0) => {
                    let record = self.record().ok_or(Malformed)?;
                    self.find_record()?;
                    match record {
                        Some(event) => return Ok(Some(event)),
                        None => self.unknown_records += 1,
                    }
                }
                // A record behind more allocations than there are.
                Some(_) if self.allocs_left == 0 => return Err(Malformed),
                Some(n) => {
                    *n -= 1;
                    return self.alloc().ok_or(Malformed).map(Some);
                }
                None if self.allocs_left == 0 => return Ok(None),
                None => return self.alloc().ok_or(Malformed).map(Some),
            }
        }
    }

    fn find_record(&mut self) -> Result<(), Malformed> {
        let records = &mut self.sections[RECORDS];
        self.before_record =
            if records.is_empty() { None } else { Some(varint::get(records).ok_or(Malformed)?) };
        Ok(())
    }

    fn alloc(&mut self) -> Option<Event> {
        self.allocs_left -= 1;
        let index = usize::try_from(varint::get(&mut self.sections[CALL])?).ok()?;
        let latest = self.latest.get_mut(index)?;
        let cpu = u32::try_from(varint::get(&mut self.sections[CPU])?).ok()?;
        let goroutine = &mut self.running.goroutine[(cpu & 0xff) as usize];
        latest.ptr = varint::get_delta(&mut self.sections[PTR], latest.ptr)?;
        latest.size = varint::get_delta(&mut self.sections[SIZE], latest.size)?;
        latest.slot = varint::get_delta(&mut self.sections[SLOT], latest.slot)?;
        *goroutine = varint::get_delta(&mut self.sections[GOROUTINE], *goroutine)?;
        self.running.time_ns = varint::get_delta(&mut self.sections[TIME], self.running.time_ns)?;
        self.running.epoch = varint::get_delta(&mut self.sections[EPOCH], self.running.epoch)?;
        Some(Event::Alloc(Alloc {
            time_ns: self.running.time_ns,
            ptr: latest.ptr,
            size: latest.size,
            slot: latest.slot,
            type_addr: latest.call.type_addr,
            stack: StackId(latest.call.stack),
            goroutine: *goroutine,
            site: SiteId(latest.call.site),
            epoch: u32::try_from(self.running.epoch).ok()?,
            cpu,
        }))
    }

    /// Takes one record; `Some(None)`: of a kind this version does not know.
    fn record(&mut self) -> Option<Option<Event>> {
        let records = &mut self.sections[RECORDS];
        let kind = records.try_get_u8().ok()?;
        let len = usize::try_from(varint::get(records)?).ok().filter(|&n| n <= records.len())?;
        let body = records.split_to(len);
        Some(match kind {
            // The checksum held: what does not parse is a variant from a later version.
            RECORD_JSON => serde_json::from_slice(&body).ok(),
            RECORD_STACK => Some(read_stack(body)?),
            RECORD_DEATHS => Some(read_deaths(body)?),
            _ => None,
        })
    }
}

fn read_calls(bytes: &mut Bytes) -> Option<Vec<Latest>> {
    let mut calls: Vec<Latest> = Vec::new();
    while !bytes.is_empty() {
        let site = u16::try_from(varint::get(bytes)?).ok()?;
        let stack = bytes.try_get_u64_le().ok()?;
        let previous = calls.last().map_or(0, |l| l.call.type_addr);
        let type_addr = varint::get_delta(bytes, previous)?;
        calls.push(Latest { call: Call { site, stack, type_addr }, ..Latest::default() });
    }
    Some(calls)
}

fn read_stack(mut body: Bytes) -> Option<Event> {
    let id = StackId(body.try_get_u64_le().ok()?);
    Some(Event::Stack { id, pcs: read_addresses(&mut body)? })
}

fn read_deaths(mut body: Bytes) -> Option<Event> {
    let epoch = u32::try_from(varint::get(&mut body)?).ok()?;
    Some(Event::Deaths { epoch, slots: read_addresses(&mut body)? })
}

/// Appends their number and each one's difference from the one before.
fn put_addresses(out: &mut impl BufMut, addresses: &[u64]) {
    varint::put(out, addresses.len() as u64);
    let mut previous = 0;
    for &address in addresses {
        varint::put_delta(out, previous, address);
        previous = address;
    }
}

fn read_addresses(body: &mut Bytes) -> Option<Vec<u64>> {
    // Each takes a byte at least.
    let count = usize::try_from(varint::get(body)?).ok().filter(|&n| n <= body.len())?;
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        addresses.push(varint::get_delta(body, addresses.last().copied().unwrap_or(0))?);
    }
    Some(addresses)
}
