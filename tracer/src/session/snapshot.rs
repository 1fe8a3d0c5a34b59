//! Reading what the runtime of a process itself knows, without a probe and without
//! stopping it.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::{Error, ErrorKind, Noted, Result};
use crate::memory::LiveMemory;
use crate::report::goroutines::{Goroutines, Shown};
use crate::report::snapshot::{Readings, Snapshot};
use crate::runtime::{GoroutineReader, Layout, MemStatsReader, ProfileReader, SchedulerReader, SpanReader};
use crate::symbol::Symbolizer;
use crate::target::Identity;

/// Reads a process. What cannot be read of it is left out, and a note says why.
///
/// `for_pprof`: with names as Go's own pprof profiles have them, type arguments included.
///
/// # Errors
/// When the runtime's layout is unknown, its memory may not be read, or nothing of it
/// can be.
pub fn snapshot(target: &Identity, for_pprof: bool) -> Result<Snapshot> {
    let Identity { binary, target } = target;
    let layout = Layout::for_binary(binary, &target.go_version)?;
    let memory = LiveMemory::new(target.pid as i32);
    let bias = target.load_bias;
    let mut parts = Parts::default();
    let profile = ProfileReader::new(binary, &layout, bias).and_then(|reader| reader.read(&memory));
    let memstats = MemStatsReader::new(binary, &layout, bias).and_then(|reader| reader.read(&memory));
    let scheduler = SchedulerReader::new(binary, &layout, bias).and_then(|reader| reader.read(&memory));
    let spans = SpanReader::new(binary, &layout, bias).and_then(|reader| reader.all(&memory));
    let goroutines = GoroutineReader::new(binary, &layout, bias).and_then(|mut reader| reader.read(&memory));
    let read_unix_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    // Their notes go with them.
    let goroutines = goroutines.map(|read| {
        Noted::new(Goroutines::build(target.clone(), binary, read, read_unix_ns, Shown::default()))
    });
    let readings = Readings {
        read_unix_ns,
        profile: parts.take("its heap profile", profile)?,
        memstats: parts.take("its memory statistics", memstats)?,
        scheduler: parts.take("its scheduler", scheduler.map(Noted::new))?,
        goroutines: parts.take("its goroutines", goroutines)?,
        spans: parts.take("its spans", spans)?,
        notes: Vec::new(),
    };
    let notes = parts.notes()?;
    let symbols = Symbolizer::new(binary);
    let symbols = if for_pprof { symbols.with_type_arguments() } else { symbols };
    Ok(Snapshot::build(target.clone(), &symbols, Readings { notes, ..readings }))
}

/// What became of the parts of a snapshot.
#[derive(Debug, Default)]
struct Parts {
    read: usize,
    notes: Vec<String>,
    failure: Option<Error>,
}

impl Parts {
    /// The part as far as it could be read. Not being permitted to is fatal.
    fn take<T>(&mut self, what: &str, part: Result<Noted<T>>) -> Result<Option<T>> {
        match part {
            Ok(part) => {
                self.read += 1;
                self.notes.extend(part.notes);
                Ok(Some(part.value))
            }
            Err(e) if e.kind() == ErrorKind::Environment => Err(e),
            Err(e) => {
                self.notes.push(format!("{what} could not be read: {e}"));
                self.failure.get_or_insert(e);
                Ok(None)
            }
        }
    }

    /// What to say of all parts; the first failure when none could be read.
    fn notes(self) -> Result<Vec<String>> {
        match self.failure {
            Some(e) if self.read == 0 => Err(e),
            _ => Ok(self.notes),
        }
    }
}
