//! Bitmaps.

/// Numbers of the bits that are 1, ascending: bit 0 is the lowest one of the first word.
pub fn set_bits(words: impl IntoIterator<Item = u64>) -> impl Iterator<Item = usize> {
    (0..).zip(words).flat_map(|(i, word)| {
        let mut left = word;
        std::iter::from_fn(move || {
            let bit = left.checked_ilog2().map(|_| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(64 * i + bit)
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_are_numbered_from_the_lowest(words in prop::collection::vec(any::<u64>(), 0..5)) {
            let numbers: Vec<usize> = set_bits(words.iter().copied()).collect();
            prop_assert!(numbers.is_sorted_by(|a, b| a < b));
            let mut set = vec![0_u64; words.len()];
            numbers.iter().for_each(|number| set[number / 64] |= 1 << (number % 64));
            prop_assert_eq!(set, words);
        }
    }
}
