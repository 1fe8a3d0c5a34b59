//! The format of pprof profiles: its messages, and heap profiles read from it (tier 2).

mod heap;
pub(crate) mod proto;

pub use heap::{HeapProfile, HeapSample};
