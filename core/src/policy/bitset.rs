//! Fixed-size bit sets.

/// A set of numbers below a fixed length.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct BitSet(Box<[u32]>);

impl BitSet {
    /// The numbers below `length` for which `is_in` is true.
    pub fn of(length: usize, mut is_in: impl FnMut(usize) -> bool) -> Self {
        let word = |base: usize| {
            (0..32).fold(0u32, |word, bit: u32| {
                let number = base.saturating_add(usize::try_from(bit).unwrap_or(0));
                word | u32::from(number < length && is_in(number)) << bit
            })
        };
        Self((0..length).step_by(32).map(word).collect())
    }

    /// Whether a number is in it.
    pub fn has(&self, number: usize) -> bool {
        let word = self.0.get(number / 32).copied().unwrap_or_default();
        word >> (number % 32) & 1 == 1
    }

    /// Whether the two sets have a number in common.
    pub fn meets(&self, other: &Self) -> bool {
        self.0
            .iter()
            .zip(&other.0)
            .any(|(one, other)| one & other != 0)
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let bases = (0usize..).step_by(32);
        self.0.iter().zip(bases).flat_map(|(&word, base)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = usize::try_from(left.trailing_zeros()).unwrap_or(0);
                // Clears the lowest bit; there is none to find in 0.
                (left != 0).then(|| {
                    left &= left.wrapping_sub(1);
                    base.saturating_add(bit)
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_was_put_in() {
        let odd = BitSet::of(70, |number| number % 2 == 1);
        let some = BitSet::of(70, |number| [0, 31, 64, 69].contains(&number));
        assert_eq!(some.iter().collect::<Vec<_>>(), [0, 31, 64, 69]);
        assert!(odd.meets(&some) && odd.has(69) && !odd.has(64) && !odd.has(1000));
        assert!(!BitSet::of(70, |number| number == 0).meets(&odd));
        assert!(BitSet::of(0, |_| true).is_empty() && BitSet::of(9, |_| false).is_empty());
    }
}
