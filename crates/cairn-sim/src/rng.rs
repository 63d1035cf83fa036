//! The one source of randomness: splitmix64, seeded, so that every run can be repeated.

/// Spreads the bits of `x` over the whole word; the finaliser of splitmix64 (Steele, Lea, Flood:
/// "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
pub(crate) fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Derives an independent seed from two numbers.
pub(crate) fn derive(seed: u64, salt: u64) -> u64 {
    mix(seed.wrapping_add(mix(salt.wrapping_add(0x9e37_79b9_7f4a_7c15))))
}

/// splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: u64,
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number in `0..bound`, or 0 when `bound` is 0. The bias of the multiply-shift is below 2⁻³²
    /// for the bounds used here.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next()) * bound as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// True in `numerator` of 16 cases.
    pub(crate) fn chance(&mut self, numerator: u64) -> bool {
        self.next() >> 60 < numerator
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}
