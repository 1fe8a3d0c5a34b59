//! Vocabulary every tier uses: errors with a kind and a hint, units, notes, bitmaps, the clock, a hash (tier 0).

mod bits;
mod clock;
mod error;
mod hash;
pub mod units;

pub use bits::set_bits;
pub use clock::{monotonic_ns, thread_cpu_ns};
pub use error::{Error, ErrorKind, Result};
pub use hash::Fnv1a;

/// A value with what the reader should know about it: each note is a reason, in
/// words a user understands, why the value is partial or uncertain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noted<T> {
    pub value: T,
    pub notes: Vec<String>,
}

impl<T> Noted<T> {
    pub fn new(value: T) -> Noted<T> {
        Noted { value, notes: Vec::new() }
    }
}
