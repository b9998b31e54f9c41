//! Chance from a seed, so that a failure can be repeated.

use super::{Cut, Fate, Step};

/// A source of chance. Source of the step: SplitMix64 of Steele, Lea and Flood.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub(crate) fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    pub(crate) fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// What becomes of a step that was not synced.
    pub(crate) fn fate(&mut self, cut: Cut, step: &Step) -> Fate {
        let length = match step {
            Step::Write(_, _, data) => data.len(),
            _ => 1,
        };
        match cut {
            Cut::AllKept => Fate::Kept,
            Cut::AllLost => Fate::Lost,
            Cut::Mixed if self.one_in(2) => Fate::Kept,
            Cut::Mixed => Fate::Lost,
            Cut::Torn(1) => {
                let end = self.below(length + 1);
                Fate::Torn(1, (0..length).map(|at| at < end).collect())
            }
            Cut::Torn(unit) => {
                let units = length.div_ceil(unit);
                Fate::Torn(unit, (0..units).map(|_| self.one_in(2)).collect())
            }
        }
    }
}
