//! The goroutines of a process, read from outside: state, wait reason, stack, creation.
//!
//! Source: runtime/runtime2.go `g`, runtime/proc.go `allgs`, runtime/traceback.go
//! `tracebackothers`, alike in Go 1.19 to 1.27.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Layout;
use super::counters::u64_at;
use super::globals::Global;
use super::layout::G;
use super::unwind::{Stack, StackBytes, Start, Unwinder};
use crate::base::{Error, Noted, Result, monotonic_ns};
use crate::binary::Binary;
use crate::memory::{MAX_READ, ProcessMemory, words};

/// What a goroutine does (runtime/runtime2.go `_Gidle` and following).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    Idle,
    Runnable,
    Running,
    Syscall,
    Waiting,
    Dead,
    /// Its stack is being moved.
    CopyStack,
    Preempted,
    /// Waits for what nothing can reach; Go 1.26 on, after a profile that looks for it.
    Leaked,
    /// Kept for C threads that call into Go; Go 1.26 on, dead before.
    DeadExtra,
    Unknown,
}

impl Status {
    fn from_word(word: u32) -> Status {
        // The garbage collector sets this bit while it looks at the stack (`_Gscan`).
        match word & !0x1000 {
            0 => Status::Idle,
            1 => Status::Runnable,
            2 => Status::Running,
            3 => Status::Syscall,
            4 => Status::Waiting,
            6 => Status::Dead,
            8 => Status::CopyStack,
            9 => Status::Preempted,
            10 => Status::Leaked,
            11 => Status::DeadExtra,
            _ => Status::Unknown,
        }
    }

    /// As the runtime prints it (`gStatusStrings`).
    pub fn name(self) -> &'static str {
        match self {
            Status::Idle => "idle",
            Status::Runnable => "runnable",
            Status::Running => "running",
            Status::Syscall => "syscall",
            Status::Waiting => "waiting",
            Status::Dead => "dead",
            Status::CopyStack => "copystack",
            Status::Preempted => "preempted",
            Status::Leaked => "leaked",
            Status::DeadExtra => "waiting for cgo callback",
            Status::Unknown => "???",
        }
    }

    fn is_dead(self) -> bool {
        matches!(self, Status::Dead | Status::DeadExtra)
    }
}

/// One goroutine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goroutine {
    pub id: u64,
    /// The goroutine that created it; `None` for those of the runtime's start, and
    /// before Go 1.21.
    pub parent: Option<u64>,
    pub status: Status,
    /// Index in [`Goroutines::wait_reasons`], 0 for none; of meaning while it waits.
    pub wait_reason: u8,
    /// When the first garbage collection began that found it blocked, in nanoseconds of
    /// the monotonic clock: it has been blocked at least since then. The runtime notes
    /// no other time (runtime/mgcmark.go `markroot`).
    pub wait_since_ns: Option<u64>,
    /// Whether it runs on one thread only (`runtime.LockOSThread`).
    pub is_locked: bool,
    /// The return address of the `go` statement that created it.
    pub go_pc: u64,
    /// Entry of the function it began with.
    pub start_pc: u64,
    /// What its stack takes, used or not.
    pub stack_bytes: u64,
    /// Index in [`Goroutines::stacks`]; `None` while it runs.
    pub stack: Option<usize>,
}

/// All goroutines that are not dead, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Goroutines {
    pub all: Vec<Goroutine>,
    /// Each different stack once.
    pub stacks: Vec<Stack>,
    /// The runtime's words for the reasons that occur.
    pub wait_reasons: BTreeMap<u8, String>,
    /// When they were read, in nanoseconds of the monotonic clock.
    pub read_at_ns: u64,
}

/// Reads the goroutines of one process, again and again.
pub struct GoroutineReader<'a> {
    unwinder: Unwinder<'a>,
    g: G,
    /// Run-time addresses.
    allglen: u64,
    allgptr: u64,
    wait_reason_strings: u64,
}

/// Goroutines read together: what one `process_vm_readv` can (UIO_MAXIOV).
const BATCH: usize = 1024;

/// Read of each stack at first, in bytes from the stack pointer up: nearly all of nearly
/// every stack, and a limit to what a batch holds (64 MiB).
const FIRST_WINDOW: u64 = 64 << 10;

/// Times that goroutines which moved on while they were read are read again.
const ATTEMPTS: usize = 3;

impl<'a> GoroutineReader<'a> {
    /// `load_bias` is the run-time minus the link-time address of the executable.
    ///
    /// # Errors
    /// Failed when one of the runtime's variables, or the function table, is not found.
    pub fn new(binary: &'a Binary, layout: &Layout, load_bias: u64) -> Result<GoroutineReader<'a>> {
        let locate = |global: Global| Ok::<_, Error>(global.locate(binary, layout)?.wrapping_add(load_bias));
        let table = binary.line_table().ok_or_else(|| {
            Error::failed("stacks cannot be unwound: the program has no readable .gopclntab")
        })?;
        Ok(GoroutineReader {
            unwinder: Unwinder::new(table, load_bias),
            g: layout.g.clone(),
            allglen: locate(Global::AllgLen)?,
            allgptr: locate(Global::AllgPtr)?,
            wait_reason_strings: locate(Global::WaitReasonStrings)?,
        })
    }

    /// Reads them all.
    ///
    /// The process runs meanwhile, so goroutines are read as of slightly different
    /// times; each by itself is consistent. Those that ran whenever they were looked at
    /// come without a stack, which a note counts.
    ///
    /// # Errors
    /// Failed when the process is gone or its list of goroutines makes no sense.
    pub fn read(&mut self, memory: &impl ProcessMemory) -> Result<Noted<Goroutines>> {
        let addrs = self.addresses(memory)?;
        let mut gathered = Gathered::default();
        for batch in addrs.chunks(BATCH) {
            self.read_batch(memory, batch, &mut gathered)?;
        }
        let unreadable = gathered.unreadable;
        let mut noted = Noted::new(gathered.into_goroutines());
        noted.value.wait_reasons = self.wait_reasons(memory, &noted.value.all);
        noted.value.read_at_ns = monotonic_ns();
        noted.notes = notes(&noted.value, unreadable);
        Ok(noted)
    }

    /// The addresses of all `g`. The runtime lets this list grow without a lock to its
    /// readers: it stores a longer list before its length (runtime/proc.go `allgadd`).
    fn addresses(&self, memory: &impl ProcessMemory) -> Result<Vec<u64>> {
        let len = memory.read_u64(self.allglen)?;
        let Some(bytes) = usize::try_from(len).ok().and_then(|len| len.checked_mul(8)) else {
            return Err(senseless(len));
        };
        if bytes > MAX_READ {
            return Err(senseless(len));
        }
        if len == 0 {
            return Ok(Vec::new());
        }
        let list = memory.read_vec(memory.read_u64(self.allgptr)?, bytes)?;
        Ok(words(&list).filter(|g| *g != 0).collect())
    }

    /// Reads some goroutines into `into`.
    fn read_batch(&mut self, memory: &impl ProcessMemory, addrs: &[u64], into: &mut Gathered) -> Result<()> {
        let mut before: Vec<Seen> = self.look(memory, addrs)?.into_iter().flatten().collect();
        into.unreadable += addrs.len() - before.len();
        for attempt in 1..=ATTEMPTS {
            before.retain(|seen| !seen.goroutine.status.is_dead());
            let mut windows = read_windows(memory, &before);
            let addrs: Vec<u64> = before.iter().map(|seen| seen.addr).collect();
            let mut moved = Vec::new();
            for ((old, new), window) in before.iter().zip(self.look(memory, &addrs)?).zip(&mut windows) {
                let Some(new) = new else { continue };
                if old.is_at_rest(&new) {
                    let stack = new.start.zip(window.take()).map(|(start, bytes)| {
                        let mut bytes = StackBytes { memory, start: start.sp, end: new.stack_end, bytes };
                        self.unwinder.unwind(start, &mut bytes)
                    });
                    into.add(new.goroutine, stack);
                } else if new.start.is_none() || attempt == ATTEMPTS {
                    into.add(new.goroutine, None);
                } else {
                    moved.push(new);
                }
            }
            before = moved;
        }
        Ok(())
    }

    /// What each `g` says now; `None` where it cannot be read.
    fn look(&self, memory: &impl ProcessMemory, addrs: &[u64]) -> Result<Vec<Option<Seen>>> {
        let len = self.g_len();
        let mut bytes = vec![0; len * addrs.len()];
        let mut reads: Vec<(u64, &mut [u8])> =
            addrs.iter().copied().zip(bytes.chunks_exact_mut(len)).collect();
        let readable = read_what_can_be(memory, &mut reads);
        // A process that has ended has no readable memory at all.
        if let (Some(addr), false) = (addrs.first(), readable.contains(&true)) {
            memory.read_u64(*addr)?;
        }
        let looked = addrs.iter().zip(bytes.chunks_exact(len)).zip(readable);
        Ok(looked.map(|((addr, g), readable)| readable.then(|| self.parse(*addr, g)).flatten()).collect())
    }

    fn g_len(&self) -> usize {
        let g = &self.g;
        let last = [g.goid, g.stack + 8, g.sched_sp, g.sched_pc, g.syscall_sp, g.syscall_pc, g.status]
            .into_iter()
            .chain([g.wait_since, g.wait_reason, g.locked_m, g.go_pc, g.start_pc])
            .chain(g.parent);
        // The widest field is a word.
        last.max().unwrap_or(0) as usize + 8
    }

    fn parse(&self, addr: u64, bytes: &[u8]) -> Option<Seen> {
        let g = &self.g;
        let word = |offset: u64| u64_at(bytes, offset as usize);
        let status = Status::from_word(word(g.status)? as u32);
        let (stack_start, stack_end) = (word(g.stack)?, word(g.stack + 8)?);
        let (syscall_sp, sched_sp) = (word(g.syscall_sp)?, word(g.sched_sp)?);
        let runs = matches!(status, Status::Running | Status::CopyStack);
        let start = if syscall_sp != 0 {
            Some(Start { pc: word(g.syscall_pc)?, sp: syscall_sp, in_syscall: true })
        } else if runs {
            None
        } else {
            Some(Start { pc: word(g.sched_pc)?, sp: sched_sp, in_syscall: false })
        };
        let goroutine = Goroutine {
            id: word(g.goid)?,
            parent: g.parent.and_then(word).filter(|id| *id != 0),
            status,
            wait_reason: *bytes.get(g.wait_reason as usize)?,
            wait_since_ns: Some(word(g.wait_since)?).filter(|since| *since != 0),
            is_locked: word(g.locked_m)? != 0,
            go_pc: word(g.go_pc)?,
            start_pc: word(g.start_pc)?,
            stack_bytes: stack_end.saturating_sub(stack_start),
            stack: None,
        };
        let start = start.filter(|start| (stack_start..stack_end).contains(&start.sp));
        Some(Seen { addr, goroutine, start, stack_end })
    }

    /// The runtime's words for the reasons that these goroutines wait for.
    fn wait_reasons(&self, memory: &impl ProcessMemory, all: &[Goroutine]) -> BTreeMap<u8, String> {
        let waiting = all.iter().filter(|g| matches!(g.status, Status::Waiting | Status::Leaked));
        let reasons: BTreeSet<u8> = waiting.map(|g| g.wait_reason).filter(|reason| *reason != 0).collect();
        let word = |reason: u8| {
            let string = self.wait_reason_strings.wrapping_add(16 * u64::from(reason));
            let header = memory.read_vec(string, 16).ok()?;
            let len = usize::try_from(u64_at(&header, 8)?).ok().filter(|len| *len <= MAX_REASON)?;
            let text = String::from_utf8(memory.read_vec(u64_at(&header, 0)?, len).ok()?).ok()?;
            Some((reason, text)).filter(|(_, text)| !text.is_empty() && !text.contains(char::is_control))
        };
        reasons.into_iter().filter_map(word).collect()
    }
}

/// The words for a reason to wait are shorter, in bytes.
const MAX_REASON: usize = 128;

/// A `g` as it was at one moment.
#[derive(Debug, Clone, Copy)]
struct Seen {
    addr: u64,
    goroutine: Goroutine,
    /// `None` while it runs, and where it makes no sense.
    start: Option<Start>,
    stack_end: u64,
}

impl Seen {
    /// Whether it has not run between the two looks, so that its stack was the same.
    fn is_at_rest(&self, later: &Seen) -> bool {
        self.goroutine.id == later.goroutine.id
            && self.start == later.start
            && self.stack_end == later.stack_end
    }
}

/// The used part of each stack, up to a limit; `None` where there is none to read.
fn read_windows(memory: &impl ProcessMemory, seen: &[Seen]) -> Vec<Option<Vec<u8>>> {
    let window = |seen: &Seen| {
        let used = seen.start.map_or(0, |start| seen.stack_end.saturating_sub(start.sp));
        vec![0; used.min(FIRST_WINDOW) as usize]
    };
    let mut windows: Vec<Vec<u8>> = seen.iter().map(window).collect();
    let addrs = seen.iter().map(|seen| seen.start.map_or(0, |start| start.sp));
    let mut reads: Vec<(u64, &mut [u8])> =
        addrs.zip(&mut windows).map(|(addr, window)| (addr, window.as_mut_slice())).collect();
    let readable = read_what_can_be(memory, &mut reads);
    let windows = windows.into_iter().zip(readable);
    windows.map(|(window, readable)| Some(window).filter(|w| readable && !w.is_empty())).collect()
}

/// Fills the buffers whose ranges are readable, and says which.
fn read_what_can_be(memory: &impl ProcessMemory, reads: &mut [(u64, &mut [u8])]) -> Vec<bool> {
    if memory.read_many(reads).is_ok() {
        return vec![true; reads.len()];
    }
    reads.iter_mut().map(|(addr, bytes)| memory.read(*addr, bytes).is_ok()).collect()
}

/// Goroutines and their stacks while they are being read.
#[derive(Debug, Default)]
struct Gathered {
    all: Vec<Goroutine>,
    stacks: HashMap<Stack, usize>,
    /// How many could not be read at all.
    unreadable: usize,
}

impl Gathered {
    fn add(&mut self, goroutine: Goroutine, stack: Option<Stack>) {
        let next = self.stacks.len();
        let stack = stack.map(|stack| *self.stacks.entry(stack).or_insert(next));
        self.all.push(Goroutine { stack, ..goroutine });
    }

    fn into_goroutines(mut self) -> Goroutines {
        self.all.sort_by_key(|goroutine| goroutine.id);
        let mut stacks: Vec<(Stack, usize)> = self.stacks.into_iter().collect();
        stacks.sort_by_key(|(_, index)| *index);
        let stacks = stacks.into_iter().map(|(stack, _)| stack).collect();
        Goroutines { all: self.all, stacks, ..Goroutines::default() }
    }
}

fn notes(goroutines: &Goroutines, unreadable: usize) -> Vec<String> {
    let without_stack =
        goroutines.all.iter().filter(|g| g.stack.is_none() && g.status != Status::Running).count();
    let cut = goroutines.stacks.iter().filter(|stack| !stack.is_whole).count();
    let counted = [
        (unreadable, "goroutines could not be read"),
        (
            without_stack,
            "goroutines ran or were moved whenever they were looked at; their stacks are not known",
        ),
        (cut, "different stacks could not be followed to their outermost frame"),
    ];
    counted.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect()
}

fn senseless(len: u64) -> Error {
    Error::failed(format!("the runtime's list of goroutines makes no sense: {len} of them"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::binary::LineTable;
    use crate::binary::testdata::{TEXT, line_table};
    use crate::memory::FakeMemory;

    const GLOBALS: u64 = 0x1000;
    const LIST: u64 = 0x2000;
    const GS: u64 = 0x10_0000;
    const STACKS: u64 = 0xc000_0000;
    /// Behind a call in `main.outer`, whose frame has 24 bytes and a return address.
    const IN_OUTER: u64 = TEXT + 12;
    /// Behind a call in `main.last`, the outermost function.
    const IN_LAST: u64 = TEXT + 0x24;

    fn reader<'a>(table: &'a LineTable, go: &str) -> GoroutineReader<'a> {
        GoroutineReader {
            unwinder: Unwinder::new(table, 0),
            g: Layout::measured(go).expect(go).g,
            allglen: GLOBALS,
            allgptr: GLOBALS + 8,
            wait_reason_strings: GLOBALS + 0x100,
        }
    }

    /// A process with as many goroutines as are added.
    struct Process {
        memory: FakeMemory,
        g: G,
        count: u64,
    }

    impl Process {
        fn new(go: &str) -> Process {
            let mut memory = FakeMemory::new();
            memory.write(GLOBALS, &[0; 0x1000]).write_u64(GLOBALS + 8, LIST);
            memory.write_u64(GLOBALS + 0x110, 0x9000).write_u64(GLOBALS + 0x118, 12);
            memory.write(0x9000, b"chan receive");
            Process { memory, g: Layout::measured(go).expect(go).g, count: 0 }
        }

        /// Adds one with this status whose stack, from the stack pointer up, is `stack`.
        fn add(&mut self, status: u32, pc: u64, stack: &[u64]) -> u64 {
            let addr = GS + 0x1000 * self.count;
            let low = STACKS + 0x100_0000 * self.count;
            let bytes: Vec<u8> = stack.iter().flat_map(|word| word.to_le_bytes()).collect();
            self.memory.write(addr, &[0; 0x400]).write(low + 0x100, &bytes);
            self.memory.write_u64(LIST + 8 * self.count, addr);
            self.count += 1;
            self.memory.write_u64(GLOBALS, self.count);
            let end = low + 0x100 + bytes.len() as u64;
            for (field, value) in [
                (self.g.stack, low),
                (self.g.stack + 8, end),
                (self.g.sched_sp, low + 0x100),
                (self.g.sched_pc, pc),
                (self.g.status, u64::from(status)),
                (self.g.wait_reason, 1),
                (self.g.goid, self.count),
                (self.g.go_pc, IN_LAST),
            ] {
                self.memory.write_u64(addr + field, value);
            }
            addr
        }
    }

    #[test]
    fn states_and_stacks_are_read() {
        let table = line_table();
        for go in ["go1.19.8", "go1.24.11", "go1.27.3"] {
            let mut process = Process::new(go);
            process.add(0x1004, IN_OUTER, &[0, 0, 0, IN_OUTER, 0, 0, 0, IN_LAST, 0, 0]);
            process.add(6, IN_OUTER, &[0]);
            process.add(2, IN_OUTER, &[0]);
            process.add(1, TEXT, &[IN_LAST, 0]);
            let read = reader(&table, go).read(&process.memory).expect(go);
            assert_eq!(read.notes, [] as [&str; 0], "{go}");
            let statuses: Vec<_> = read.value.all.iter().map(|g| (g.id, g.status, g.stack)).collect();
            let want =
                [(1, Status::Waiting, Some(0)), (3, Status::Running, None), (4, Status::Runnable, Some(1))];
            assert_eq!(statuses, want, "{go}");
            let stack = |addresses: &[u64]| Stack { addresses: addresses.to_vec(), is_whole: true };
            // Where nothing has run yet, the address is not behind a call.
            let want = [stack(&[IN_OUTER - 1, IN_OUTER - 1, IN_LAST - 1]), stack(&[TEXT, IN_LAST - 1])];
            assert_eq!(read.value.stacks, want, "{go}");
            assert_eq!(read.value.wait_reasons.get(&1).map(String::as_str), Some("chan receive"));
        }
    }

    #[test]
    fn a_stack_longer_than_a_window_is_followed_to_its_end() {
        let (table, mut process) = (line_table(), Process::new("go1.27.3"));
        let frames = 3 * FIRST_WINDOW / 32;
        let mut stack = [0, 0, 0, IN_OUTER].repeat(frames as usize);
        stack.extend([0, 0, 0, IN_LAST, 0]);
        process.add(4, IN_OUTER, &stack);
        let read = reader(&table, "go1.27.3").read(&process.memory).expect("goroutines");
        let stack = &read.value.stacks[0];
        assert_eq!((stack.addresses.len() as u64, stack.is_whole), (frames + 2, true));
    }

    #[test]
    fn damage_is_noted_or_refused() {
        let (table, mut process) = (line_table(), Process::new("go1.27.3"));
        let wild = process.add(4, IN_OUTER, &[0, 0, 0, IN_LAST]);
        process.memory.write_u64(wild + process.g.sched_sp, 8);
        process.add(4, 0x1234, &[0]);
        process.add(4, IN_OUTER, &[0, 0, 0, 0x1234]);
        // Neither is memory.
        process.memory.write_u64(LIST + 24, 0x7777_0000).write_u64(LIST + 32, 0).write_u64(GLOBALS, 5);
        let read = reader(&table, "go1.27.3").read(&process.memory).expect("goroutines");
        let stacks: Vec<_> = read.value.all.iter().map(|g| g.stack).collect();
        assert_eq!(stacks, [None, Some(0), Some(1)]);
        assert!(read.value.stacks.iter().all(|stack| !stack.is_whole));
        assert_eq!(read.notes.len(), 3, "{:?}", read.notes);

        process.memory.write_u64(GLOBALS, u64::MAX);
        assert!(reader(&table, "go1.27.3").read(&process.memory).is_err());
        process.memory.write_u64(GLOBALS, 3).write_u64(GLOBALS + 8, 0x8888_0000);
        assert!(reader(&table, "go1.27.3").read(&process.memory).is_err());
    }

    proptest! {
        #[test]
        fn whatever_memory_holds_reading_ends(
            words in prop::collection::vec((0u64..60, any::<u64>()), 0..20),
            stack in prop::collection::vec(0u64..0x40, 1..200),
            status in 0u32..16,
            go in prop::sample::select(vec!["go1.19.8", "go1.27.3"]),
        ) {
            let (table, mut process) = (line_table(), Process::new(go));
            let stack: Vec<u64> = stack.into_iter().map(|offset| TEXT + offset).collect();
            let g = process.add(status, IN_OUTER, &stack);
            for (field, value) in words {
                process.memory.write_u64(g + 8 * field, value);
            }
            let read = reader(&table, go).read(&process.memory);
            for stack in read.map(|read| read.value.stacks).unwrap_or_default() {
                prop_assert!(stack.addresses.len() <= 200);
                prop_assert!(stack.addresses.iter().all(|a| (TEXT - 1..TEXT + 0x30).contains(a)));
            }
        }
    }
}
