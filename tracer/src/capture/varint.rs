//! LEB128 integers and zigzag deltas, the alphabet of the allocation columns.

use bytes::{Buf, BufMut, Bytes};

/// Appends `value` as LEB128: seven bits a byte, least significant first.
pub(super) fn put(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Takes a LEB128 integer off the front; `None` when the bytes end or exceed 64 bits.
pub(super) fn get(bytes: &mut Bytes) -> Option<u64> {
    let chunk: &[u8] = bytes;
    // Most deltas fit one byte.
    let first = *chunk.first()?;
    if first < 0x80 {
        bytes.advance(1);
        return Some(u64::from(first));
    }
    let mut value = u64::from(first & 0x7f);
    for (i, &byte) in chunk.iter().enumerate().take(10).skip(1) {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && byte > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte < 0x80 {
            bytes.advance(i + 1);
            return Some(value);
        }
    }
    None
}

/// Appends how `value` differs from `previous`, small for a small step either way.
pub(super) fn put_delta(out: &mut impl BufMut, previous: u64, value: u64) {
    let delta = value.wrapping_sub(previous) as i64;
    put(out, ((delta << 1) ^ (delta >> 63)) as u64);
}

/// The value whose difference from `previous` comes next.
pub(super) fn get_delta(bytes: &mut Bytes, previous: u64) -> Option<u64> {
    let zigzag = get(bytes)?;
    let delta = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
    Some(previous.wrapping_add(delta))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_integer_and_delta_comes_back(a: u64, b: u64) {
            let mut out = Vec::new();
            put(&mut out, a);
            put_delta(&mut out, a, b);
            let mut bytes = Bytes::from(out);
            prop_assert_eq!(get(&mut bytes), Some(a));
            prop_assert_eq!(get_delta(&mut bytes, a), Some(b));
            prop_assert!(bytes.is_empty());
        }
    }

    #[test]
    fn overlong_and_cut_integers_are_refused() {
        for bad in [&[][..], &[0x80], &[0xff; 9], &[0xff; 10], &[0xff; 11]] {
            assert_eq!(get(&mut Bytes::copy_from_slice(bad)), None, "{bad:x?}");
        }
    }
}
