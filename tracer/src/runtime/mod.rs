//! What the Go runtime looks like in memory: layouts, globals, counters, types (tier 2).

mod counters;
mod globals;
mod layout;
mod offsets;
mod size_class;
mod spans;
mod types;
mod version;

pub use counters::CounterReader;
pub use globals::Global;
pub use layout::Layout;
pub use size_class::slot_size;
pub use spans::{Found, Span, SpanReader};
pub use types::TypeReader;
