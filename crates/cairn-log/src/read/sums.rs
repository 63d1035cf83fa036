//! Checksums of any stretch of a store, each in about the same time however long it is.
//!
//! Behind damage a frame may begin at every multiple of 8, and the lengths that are found there are
//! not to be trusted: what lies there may be a payload that says at each of them that a frame of a
//! gigabyte begins. Checked one by one that is quadratic. So the checksum up to every 4 KiB is kept
//! while the bytes are read once, and the checksum of what lies between two places follows from
//! those up to each of them, because it is linear: CRC(ab) = CRC(a) · x^8|b| + CRC(b).
//!
//! The arithmetic is that of `crc32_combine` in zlib's `crc32.c`.

use std::collections::VecDeque;

use crate::place::FileOffset;
use crate::read::window::Window;

/// Bytes between two sums that are kept.
const STEP: u64 = 4096;
const STEP_LEN: usize = 4096;

/// The polynomial of CRC-32C, lowest bit highest.
const POLYNOMIAL: u32 = 0x82F6_3B78;
/// The polynomial 1.
const ONE: u32 = 1 << 31;

/// Checksums of the bytes up to each [`STEP`] behind the first one that was asked for. Takes 1 KiB
/// of memory for each MiB of the longest stretch.
#[derive(Debug)]
pub(super) struct Sums {
    window: Window,
    /// Where the first sum that is kept is of: up to there it is 0.
    first: FileOffset,
    sums: VecDeque<u32>,
    /// Behind the last sum lies what cannot be read.
    ends: bool,
}

impl Sums {
    pub(super) fn new(window: Window) -> Self {
        Sums { window, first: FileOffset(0), sums: VecDeque::new(), ends: false }
    }

    /// The checksum of the bytes of the store from `from` up to `to`, going on from `seed`; `None`
    /// if they cannot all be read. The places asked for must not fall.
    pub(super) fn between(&mut self, seed: u32, from: FileOffset, to: FileOffset) -> Option<u32> {
        self.begin_at(from);
        let before = self.up_to(from).unwrap_or_else(|| {
            // What cannot be read lies before `from`.
            self.restart(from);
            0
        });
        let all = self.up_to(to)?;
        Some(shifted(before ^ seed, to - from) ^ all)
    }

    /// Forgets what lies before `from`, and begins there if that is all.
    fn begin_at(&mut self, from: FileOffset) {
        while self.sums.len() > 1 && self.first + STEP <= from {
            self.sums.pop_front();
            self.first = self.first + STEP;
        }
        if self.sums.is_empty() || from < self.first || from >= self.first + STEP {
            self.restart(from);
        }
    }

    fn restart(&mut self, from: FileOffset) {
        (self.first, self.ends) = (from, false);
        self.sums.clear();
        self.sums.push_back(0);
    }

    /// The checksum of the bytes before `to`.
    fn up_to(&mut self, to: FileOffset) -> Option<u32> {
        let steps = usize::try_from((to - self.first) / STEP).ok()?;
        while self.sums.len() <= steps && !self.ends {
            let at = self.first + STEP * (self.sums.len() as u64 - 1);
            let last = self.sums.back().copied().unwrap_or_default();
            match self.window.get(at, STEP_LEN) {
                Ok(bytes) if bytes.len() == STEP_LEN => {
                    self.sums.push_back(crc32c::crc32c_append(last, bytes));
                }
                _ => self.ends = true,
            }
        }
        let (sum, at) = (*self.sums.get(steps)?, self.first + STEP * steps as u64);
        let rest = usize::try_from(to - at).ok()?;
        let bytes = self.window.get(at, rest).ok().filter(|bytes| bytes.len() == rest)?;
        Some(crc32c::crc32c_append(sum, bytes))
    }
}

/// The checksum of what has `sum`, with so many zeros behind it, as far as it depends on `sum`.
fn shifted(sum: u32, zeros: u64) -> u32 {
    let (mut power, mut left, mut k) = (ONE, zeros, 3);
    while left > 0 {
        if left & 1 == 1 {
            power = product(POWERS[k], power);
        }
        (left, k) = (left >> 1, k + 1);
    }
    product(power, sum)
}

/// x to the power of 2^k.
const POWERS: [u32; 67] = {
    let mut powers = [ONE >> 1; 67];
    let mut k = 1;
    while k < powers.len() {
        powers[k] = product(powers[k - 1], powers[k - 1]);
        k += 1;
    }
    powers
};

/// The product of two polynomials modulo that of the checksum.
const fn product(a: u32, mut b: u32) -> u32 {
    let (mut product, mut bit) = (0, ONE);
    while bit > 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 == 1 { (b >> 1) ^ POLYNOMIAL } else { b >> 1 };
        bit >>= 1;
    }
    product
}

#[cfg(all(test, not(any(cairn_loom, cairn_shuttle))))]
mod tests {
    use std::sync::Arc;

    use cairn_io::{MemStore, Store};
    use proptest::prelude::*;

    use super::*;

    const LEN: u64 = 40_000;

    proptest! {
        #[test]
        fn a_sum_is_that_of_the_bytes(seed: u32, places in prop::collection::vec(
            (0..LEN, 0..LEN), 1..20), fill: [u8; 7]) {
            let len = usize::try_from(LEN).unwrap();
            let bytes: Vec<u8> = fill.iter().copied().cycle().take(len).collect();
            let store = MemStore::new();
            store.write_at(0, &bytes).unwrap();
            let mut sums = Sums::new(Window::new(Arc::new(store), FileOffset(LEN), false));
            let mut places = places;
            places.sort_unstable();
            for (from, len) in places {
                let to = from + len;
                let at = |place| usize::try_from(place).unwrap();
                let all = bytes.get(at(from)..at(to));
                let sum = all.map(|all| crc32c::crc32c_append(seed, all));
                prop_assert_eq!(sums.between(seed, FileOffset(from), FileOffset(to)), sum);
            }
        }
    }
}
