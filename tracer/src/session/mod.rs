//! The loop that moves events from a source to a capture file and a model (tier 7).

mod auto;
mod baseline;
mod burst;
mod c;
mod enrich;
mod evidence;
mod gauges;
mod gc;
mod holders;
mod judge;
mod observer;
mod opening;
mod options;
mod overhead;
mod rate;
mod reading;
mod record;
mod records;
mod sampler;
mod snapshot;
mod wait;

pub use auto::choose;
pub use gc::{GcOptions, follow_gc};
pub use observer::Observer;
pub use options::{Mode, Options};
pub use rate::{GUARDIAN, guard_rate};
pub use record::{Recording, record};
pub use snapshot::snapshot;
pub use wait::stop_signal;
