//! Reading many small ranges at once, those near each other together.

use super::{MAX_READ, ProcessMemory, words};
use crate::base::{Error, Result};

/// Bytes between two ranges that are read along rather than split the reading: copying
/// them costs less than one more range does.
const GAP: u64 = 512;
/// Bytes of one range at most.
const PIECE: u64 = 1 << 20;

/// The bytes of many ranges.
#[derive(Debug, Clone, Default)]
pub struct Gathered {
    bytes: Vec<u8>,
    /// Of each range: where its bytes begin and end.
    ranges: Vec<(usize, usize)>,
}

impl Gathered {
    /// The bytes of each range, in the order they were asked for.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ranges.iter().map(|&(from, to)| self.bytes.get(from..to).unwrap_or_default())
    }

    /// The first word of each; 0 where it is shorter.
    pub fn words(&self) -> impl Iterator<Item = u64> {
        self.iter().map(|bytes| words(bytes).next().unwrap_or(0))
    }
}

/// Reads all ranges (address and length). Faster the more of them are in ascending order
/// and close together.
///
/// # Errors
/// When any of them is not readable, or they are longer than `MAX_READ` together.
pub fn gather(memory: &impl ProcessMemory, ranges: &[(u64, usize)]) -> Result<Gathered> {
    let pieces = pieces(ranges);
    let total = pieces.iter().fold(0, |sum: u64, p| sum.saturating_add(p.end - p.start));
    let total = usize::try_from(total).unwrap_or(usize::MAX);
    if total > MAX_READ {
        return Err(Error::failed(format!("refusing to read {total} bytes: more than {MAX_READ}")));
    }
    let mut gathered = Gathered { bytes: vec![0; total], ranges: Vec::with_capacity(ranges.len()) };
    let mut reads = Vec::with_capacity(pieces.len());
    let (mut rest, mut begin) = (gathered.bytes.as_mut_slice(), 0);
    for piece in &pieces {
        let len = (piece.end - piece.start) as usize;
        let (buffer, others) = rest.split_at_mut(len);
        reads.push((piece.start, buffer));
        rest = others;
        for (addr, len) in &ranges[piece.first..piece.last] {
            let from = begin + (addr - piece.start) as usize;
            gathered.ranges.push((from, from + len));
        }
        begin += len;
    }
    memory.read_many(&mut reads)?;
    Ok(gathered)
}

/// Neighbouring ranges that are read as one.
struct Piece {
    start: u64,
    end: u64,
    /// Which ranges: `first` up to, but without `last`.
    first: usize,
    last: usize,
}

fn pieces(ranges: &[(u64, usize)]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (i, &(addr, len)) in ranges.iter().enumerate() {
        // One that wraps around reads what is there up to the end, and fails.
        let end = addr.saturating_add(len as u64);
        match pieces.last_mut() {
            Some(piece)
                if addr >= piece.start
                    && addr <= piece.end.saturating_add(GAP)
                    && end.max(piece.end) - piece.start <= PIECE =>
            {
                piece.end = piece.end.max(end);
                piece.last = i + 1;
            }
            _ => pieces.push(Piece { start: addr, end, first: i, last: i + 1 }),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::FakeMemory;

    proptest! {
        #[test]
        fn each_range_comes_as_if_it_were_read_alone(
            ranges in prop::collection::vec((0..20_000_u64, 0..300_usize), 0..50), sorted: bool
        ) {
            let mut memory = FakeMemory::new();
            let content: Vec<u8> = (0..21_000_u32).map(|i| ((i * 7) >> 3) as u8).collect();
            memory.write(0x1000, &content);
            let mut ranges: Vec<(u64, usize)> = ranges.into_iter().map(|(a, n)| (0x1000 + a, n)).collect();
            if sorted {
                ranges.sort_unstable();
            }
            let alone: Vec<u8> =
                ranges.iter().flat_map(|&(addr, len)| memory.read_vec(addr, len).expect("there")).collect();
            let together = gather(&memory, &ranges).expect("there");
            prop_assert_eq!(together.iter().flatten().copied().collect::<Vec<u8>>(), alone);
            prop_assert!(together.iter().map(<[u8]>::len).eq(ranges.iter().map(|range| range.1)));
            ranges.push((u64::MAX - 3, 8));
            prop_assert!(gather(&memory, &ranges).is_err());
        }
    }
}
