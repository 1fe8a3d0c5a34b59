//! The goroutines of a process grouped by state, stack and creation, as a goroutine dump
//! shows them.
//!
//! What is shown follows runtime/traceback.go (`goroutineheader`, `showframe`,
//! `isSystemGoroutine`, `printcreatedby`) of Go 1.27, to which older releases agree but
//! for exported methods of package runtime.

use std::collections::{BTreeMap, HashMap};

use regex::Regex;
use serde::Serialize;

use super::{Frame, Target, rfc3339};
use crate::base::Noted;
use crate::binary::Binary;
use crate::event;
use crate::runtime::{self, Goroutine, Stack, Status};
use crate::symbol::Symbolizer;

/// All goroutines of a process at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Goroutines {
    pub target: Target,
    /// RFC 3339, UTC.
    pub read_at: String,
    /// The same in nanoseconds since the Unix epoch; no part of the JSON.
    #[serde(skip)]
    pub read_unix_ns: u64,
    /// Goroutines in `groups`.
    pub count: u64,
    /// Goroutines of the runtime itself that were left out.
    pub system: u64,
    /// The largest first.
    pub groups: Vec<Group>,
    pub notes: Vec<String>,
}

/// Goroutines alike in everything but their id, parent and time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    pub count: u64,
    /// `waiting`, `runnable`, `running`, `syscall`, ...
    pub status: &'static str,
    /// `chan receive`, `select`, `IO wait`, ...; none unless they wait.
    pub wait_reason: Option<String>,
    pub locked_to_thread: bool,
    pub stack: StackState,
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// The `go` statement; none for the main goroutine.
    pub created_by: Option<Creation>,
    /// By id.
    pub goroutines: Vec<Member>,
}

/// How much of a stack is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StackState {
    Whole,
    /// The outermost frames are missing.
    Partial,
    /// None of it: a running goroutine keeps it in its thread's registers.
    Unavailable,
}

/// Where goroutines were created.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Creation {
    pub function: String,
    pub file: String,
    /// 0 when unknown.
    pub line: u32,
}

/// One goroutine of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Member {
    pub id: u64,
    /// The goroutine that created it; none before Go 1.21.
    pub parent: Option<u64>,
    /// Nanoseconds it has been blocked at least; none when no garbage collection has
    /// found it blocked yet: only those note the time.
    pub wait_ns: Option<u64>,
}

/// What of the runtime's own is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shown {
    /// Its goroutines, as the garbage collector's workers.
    pub system: bool,
    /// Its functions, and those the compiler made.
    pub runtime_frames: bool,
}

impl Group {
    /// What the goroutines do, as a dump's header has it.
    pub fn state(&self) -> &str {
        self.wait_reason.as_deref().unwrap_or(self.status)
    }

    /// A fixed order among groups of one size.
    fn order(&self) -> impl Ord {
        (self.status, &self.wait_reason, self.locked_to_thread, self.stack, &self.frames, &self.created_by)
    }
}

impl Goroutines {
    /// Groups what was read of the target, at `read_unix_ns` since the Unix epoch.
    pub fn build(
        target: event::Target,
        binary: &Binary,
        read: Noted<runtime::Goroutines>,
        read_unix_ns: u64,
        shown: Shown,
    ) -> Goroutines {
        let Noted { value: read, notes } = read;
        let mut tracer = Tracer::new(binary, target.load_bias, shown.runtime_frames);
        let traces: Vec<usize> = read.stacks.iter().map(|stack| tracer.trace(stack)).collect();
        let mut groups: HashMap<Key, Group> = HashMap::new();
        let mut system = 0;
        for goroutine in &read.all {
            let trace = goroutine.stack.and_then(|stack| traces.get(stack)).copied();
            if !shown.system && tracer.is_system(goroutine.start_pc, trace) {
                system += 1;
                continue;
            }
            let key = Key::new(goroutine, trace, tracer.creation(goroutine));
            let group =
                groups.entry(key).or_insert_with_key(|key| tracer.empty_group(key, &read.wait_reasons));
            group.count += 1;
            group.goroutines.push(member(goroutine, read.read_at_ns));
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.order().cmp(&b.order())));
        Goroutines {
            target: super::target(target),
            read_at: rfc3339(read_unix_ns),
            read_unix_ns,
            count: groups.iter().map(|group| group.count).sum(),
            system,
            groups,
            notes,
        }
    }

    /// Keeps the groups with a function that matches, in any frame or as their creator;
    /// the counts above them stay.
    pub fn retain(&mut self, function: &Regex) {
        self.groups.retain(|group| {
            let creator = group.created_by.iter().map(|creation| &creation.function);
            group.frames.iter().map(|f| &f.function).chain(creator).any(|name| function.is_match(name))
        });
    }
}

/// What makes two goroutines belong to one group: all that a dump prints but addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    status: Status,
    wait_reason: u8,
    is_locked: bool,
    /// Index of a trace.
    trace: Option<usize>,
    /// Index of a creation.
    created_by: Option<usize>,
}

impl Key {
    fn new(goroutine: &Goroutine, trace: Option<usize>, created_by: Option<usize>) -> Key {
        let waits = matches!(goroutine.status, Status::Waiting | Status::Leaked);
        Key {
            status: goroutine.status,
            wait_reason: if waits { goroutine.wait_reason } else { 0 },
            is_locked: goroutine.is_locked,
            trace,
            created_by,
        }
    }
}

fn member(goroutine: &Goroutine, now_ns: u64) -> Member {
    let is_blocked = matches!(goroutine.status, Status::Waiting | Status::Syscall);
    let since = goroutine.wait_since_ns.filter(|_| is_blocked);
    Member {
        id: goroutine.id,
        parent: goroutine.parent,
        wait_ns: since.map(|since| now_ns.saturating_sub(since)),
    }
}

/// A stack as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Trace {
    frames: Vec<Frame>,
    is_whole: bool,
    /// No function outside package runtime is on it.
    is_all_runtime: bool,
}

/// Joins addresses with symbols, each once.
struct Tracer<'a> {
    symbols: Symbolizer<'a>,
    load_bias: u64,
    runtime_frames: bool,
    known: HashMap<u64, Vec<event::Frame>>,
    traces: Vec<Trace>,
    /// By traces without addresses.
    trace_index: HashMap<Trace, usize>,
    creations: Vec<Creation>,
    /// By return address of the `go` statement.
    creation_index: HashMap<u64, Option<usize>>,
}

impl<'a> Tracer<'a> {
    fn new(binary: &'a Binary, load_bias: u64, runtime_frames: bool) -> Tracer<'a> {
        Tracer {
            symbols: Symbolizer::new(binary),
            load_bias,
            runtime_frames,
            known: HashMap::new(),
            traces: Vec::new(),
            trace_index: HashMap::new(),
            creations: Vec::new(),
            creation_index: HashMap::new(),
        }
    }

    fn look_up(&mut self, address: u64) -> &[event::Frame] {
        let linked = address.wrapping_sub(self.load_bias);
        self.known.entry(address).or_insert_with(|| self.symbols.frames(linked))
    }

    /// The index of a stack's trace; stacks that look the same have the same.
    fn trace(&mut self, stack: &Stack) -> usize {
        let trace = self.new_trace(stack);
        let mut plain = trace.clone();
        plain.frames.iter_mut().for_each(|frame| frame.address = 0);
        let next = self.traces.len();
        let index = *self.trace_index.entry(plain).or_insert(next);
        if index == next {
            self.traces.push(trace);
        }
        index
    }

    fn new_trace(&mut self, stack: &Stack) -> Trace {
        let mut all: Vec<Frame> = Vec::new();
        for address in &stack.addresses {
            all.extend(self.look_up(*address).iter().map(|frame| Frame::of(frame, *address)));
        }
        let is_all_runtime = all.iter().all(|frame| frame.function.starts_with("runtime."));
        let mut shown = Vec::new();
        let mut callee = "";
        for frame in &all {
            if self.runtime_frames || is_shown(&frame.function, frame.wrapper, shown.is_empty(), callee) {
                shown.push(frame.clone());
            }
            callee = &frame.function;
        }
        // As a dump does: rather the runtime's frames than none.
        if shown.is_empty() {
            shown = all;
        }
        Trace { frames: shown, is_whole: stack.is_whole, is_all_runtime }
    }

    /// The index of the `go` statement that created a goroutine. A dump names the
    /// function that holds the code, even where the line is of a call inlined there.
    fn creation(&mut self, goroutine: &Goroutine) -> Option<usize> {
        // The main goroutine, which the runtime creates.
        if goroutine.id == 1 || goroutine.go_pc == 0 {
            return None;
        }
        if let Some(known) = self.creation_index.get(&goroutine.go_pc) {
            return *known;
        }
        let frames = self.look_up(goroutine.go_pc.wrapping_sub(1));
        let ends = frames.first().zip(frames.last());
        let created_by = ends.map(|(inner, outer)| Creation {
            function: outer.function.clone(),
            file: inner.file.clone(),
            line: inner.line,
        });
        let is_wrapper = frames.last().is_some_and(|outer| outer.wrapper);
        let runtime_frames = self.runtime_frames;
        let created_by =
            created_by.filter(|c| runtime_frames || is_shown(&c.function, is_wrapper, false, ""));
        let index = created_by.map(|creation| {
            let known = self.creations.iter().position(|c| *c == creation);
            known.unwrap_or_else(|| {
                self.creations.push(creation);
                self.creations.len() - 1
            })
        });
        self.creation_index.insert(goroutine.go_pc, index);
        index
    }

    /// Whether it is the runtime's own, unless it runs the program's finalizers.
    fn is_system(&mut self, start_pc: u64, trace: Option<usize>) -> bool {
        let calls_out = trace.and_then(|trace| self.traces.get(trace)).is_none_or(|t| !t.is_all_runtime);
        let Some(outermost) = self.look_up(start_pc).last() else { return false };
        match outermost.function.as_str() {
            "runtime.main" | "runtime.corostart" | "runtime.handleAsyncEvent" => false,
            "runtime.runfinq" | "runtime.runFinalizers" | "runtime.runCleanups" => !calls_out,
            name => name.starts_with("runtime."),
        }
    }

    fn empty_group(&self, key: &Key, wait_reasons: &BTreeMap<u8, String>) -> Group {
        let trace = key.trace.and_then(|trace| self.traces.get(trace));
        let reason = wait_reasons.get(&key.wait_reason).cloned();
        // A dump says so behind the reason.
        let leaked = if key.status == Status::Leaked { " (leaked)" } else { "" };
        Group {
            count: 0,
            status: key.status.name(),
            wait_reason: reason.map(|reason| reason + leaked),
            locked_to_thread: key.is_locked,
            stack: match trace {
                None => StackState::Unavailable,
                Some(trace) if trace.is_whole => StackState::Whole,
                Some(_) => StackState::Partial,
            },
            frames: trace.map_or_else(Vec::new, |trace| trace.frames.clone()),
            created_by: key.created_by.and_then(|index| self.creations.get(index)).cloned(),
            goroutines: Vec::new(),
        }
    }
}

/// Whether a dump shows a function that called `callee`, empty for none
/// (runtime/traceback.go `showfuncinfo`).
fn is_shown(function: &str, is_wrapper: bool, is_first: bool, callee: &str) -> bool {
    let panics = ["runtime.gopanic", "runtime.sigpanic", "runtime.panicwrap"];
    if is_wrapper && !panics.contains(&callee) {
        return false;
    }
    match function.strip_prefix("runtime.") {
        None => function.contains('.'),
        Some("runFinalizers" | "runCleanups") => true,
        Some("gopanic") => !is_first,
        Some(name) => is_exported(name),
    }
}

/// Whether a function or method of package runtime is for others to call.
fn is_exported(name: &str) -> bool {
    let is_upper = |name: &str| name.starts_with(|c: char| c.is_ascii_uppercase());
    match name.rsplit_once('.') {
        None => is_upper(name),
        Some((receiver, method)) => {
            let pointer = receiver.strip_prefix("(*").and_then(|r| r.strip_suffix(')'));
            is_upper(method) && is_upper(pointer.unwrap_or(receiver))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_shown_as_in_a_dump() {
        for (function, is_wrapper, is_first, callee, shown) in [
            ("main.main", false, true, "", true),
            ("net/http.(*conn).serve", false, false, "", true),
            ("runtime/pprof.StartCPUProfile", false, true, "", true),
            ("runtime.gopark", false, true, "", false),
            ("runtime.main.func1", false, true, "", false),
            ("runtime.Gosched", false, true, "", true),
            ("runtime.(*Frames).Next", false, true, "", true),
            ("runtime.(*mheap).Lock", false, true, "", false),
            ("runtime.gopanic", false, true, "", false),
            ("runtime.gopanic", false, false, "main.f", true),
            ("runtime.runFinalizers", false, false, "", true),
            ("main.T.M", true, false, "main.(*T).M", false),
            ("main.(*T).M", true, false, "runtime.panicwrap", true),
            ("pause", false, true, "", false),
        ] {
            assert_eq!(is_shown(function, is_wrapper, is_first, callee), shown, "{function}");
        }
    }

    #[test]
    fn blocked_goroutines_have_a_time_when_the_runtime_noted_one() {
        let goroutine = |status, wait_since_ns| Goroutine {
            id: 7,
            parent: Some(1),
            status,
            wait_reason: 1,
            wait_since_ns,
            is_locked: false,
            go_pc: 0,
            start_pc: 0,
            stack_bytes: 0,
            stack: None,
        };
        let waited = |status, since| member(&goroutine(status, since), 100).wait_ns;
        assert_eq!(waited(Status::Waiting, Some(30)), Some(70));
        assert_eq!(waited(Status::Syscall, Some(30)), Some(70));
        assert_eq!(waited(Status::Waiting, None), None);
        // Left from before it ran.
        assert_eq!(waited(Status::Runnable, Some(30)), None);
        // The collector began between the two clocks.
        assert_eq!(waited(Status::Waiting, Some(130)), Some(0));
    }
}
