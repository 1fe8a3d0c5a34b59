//! Where events come from: a running process or a capture file (tier 4).

pub mod live;
mod replay;

pub use replay::{Replay, for_each};
