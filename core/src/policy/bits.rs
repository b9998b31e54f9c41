//! Small sets of numbers.

/// A set of numbers below a length that is fixed when it is made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Bits(Box<[u32]>);

impl Bits {
    /// The numbers below a length for which a question is answered with yes.
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

    /// Whether a number is in both.
    pub fn meets(&self, other: &Self) -> bool {
        self.0
            .iter()
            .zip(&other.0)
            .any(|(one, other)| one & other != 0)
    }

    /// Whether there is none in it.
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
        let odd = Bits::of(70, |number| number % 2 == 1);
        let some = Bits::of(70, |number| [0, 31, 64, 69].contains(&number));
        assert_eq!(some.iter().collect::<Vec<_>>(), [0, 31, 64, 69]);
        assert!(odd.meets(&some) && odd.has(69) && !odd.has(64) && !odd.has(1000));
        assert!(!Bits::of(70, |number| number == 0).meets(&odd));
        assert!(Bits::of(0, |_| true).is_empty() && Bits::of(9, |_| false).is_empty());
    }
}
