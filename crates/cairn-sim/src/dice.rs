//! Random numbers for those who write workloads.

use crate::rng::{Rng, derive};

/// Random numbers from a seed, the same in every run.
///
/// ```
/// let mut dice = cairn_sim::Dice::new(7);
/// let first = dice.below(100);
/// assert_eq!(cairn_sim::Dice::new(7).below(100), first);
/// ```
#[derive(Clone, Debug)]
pub struct Dice {
    rng: Rng,
}

impl Dice {
    /// Dice that fall as `seed` says.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::new(derive(seed, 0x6469_6365)) }
    }

    /// Dice of their own for one part of what a seed decides.
    #[must_use]
    pub fn part(seed: u64, part: u64) -> Self {
        Self::new(derive(seed, part))
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.rng.below(bound)
    }

    /// True in `numerator` of `denominator` cases.
    pub fn chance(&mut self, numerator: usize, denominator: usize) -> bool {
        self.rng.below(denominator) < numerator
    }

    /// One of `of`.
    ///
    /// # Panics
    /// When `of` is empty.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.rng.below(of.len())]
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.rng.next()
    }
}
