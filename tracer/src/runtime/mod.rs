//! What the Go runtime looks like in memory: layouts, globals, counters, types, mark bits (tier 2).

mod census;
mod container_layout;
mod counters;
mod gc;
mod globals;
mod goroutines;
mod layout;
mod marks;
mod memstats;
mod offsets;
mod profile;
mod queues;
pub mod references;
mod scheduler;
mod size_class;
mod spans;
mod specials;
mod tls;
mod types;
mod unwind;
mod version;

pub use census::{CensusReader, Taken};
pub use counters::CounterReader;
pub use gc::{GcRecord, stw_reason};
pub use globals::Global;
pub use goroutines::{Goroutine, GoroutineReader, Goroutines, Status};
pub use layout::{Layout, Special};
pub use marks::{Marks, PageMarks, Pages};
pub use memstats::{MemStats, MemStatsReader};
pub use profile::{Amounts, Bucket, HeapProfile, ProfileReader, Record};
pub use scheduler::{SchedulerCounts, SchedulerReader};
pub use size_class::slot_size;
pub use spans::{Found, Span, SpanReader};
pub use tls::tls_offset;
pub use types::TypeReader;
pub use unwind::Stack;
