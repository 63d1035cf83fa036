//! Policies: how long a run a request takes, and which free one. They know nothing of where runs are written.

use crate::error::{Error, Result};
use crate::layout::{BIN_COUNT, LINKS_LEN, RUN_HEADER_LEN, RUN_MAX, UNIT};

/// How a heap places blocks; chosen when it is created, and stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// Blocks of one size: a request takes as many neighbouring ones as it needs. Finding one is taking the first of a list.
    Slab {
        /// Bytes of a block that can be used, from 8 to 1 GiB.
        block_size: u64,
    },
    /// Each block comes behind the last one. Space that is freed is used again once everything behind it is free, too, or by the block before it
    /// when that grows.
    Linear,
    /// For blocks of all sizes: lists of free space by size; neighbours that are free become one.
    SizeClass,
}

const BLOCK_SIZE_MAX: u64 = 1 << 30;

impl Policy {
    /// Number and parameter in the file.
    pub(crate) fn encode(self) -> (u32, u64) {
        match self {
            Policy::Slab { block_size } => (1, block_size),
            Policy::Linear => (2, 0),
            Policy::SizeClass => (3, 0),
        }
    }

    pub(crate) fn decode(number: u32, parameter: u64) -> Option<Self> {
        match (number, parameter) {
            (1, block_size) => Some(Policy::Slab { block_size }),
            (2, 0) => Some(Policy::Linear),
            (3, 0) => Some(Policy::SizeClass),
            _ => None,
        }
    }

    pub(crate) fn fit(self) -> Result<Box<dyn Fit>> {
        match self {
            Policy::Slab { block_size } if (8..=BLOCK_SIZE_MAX).contains(&block_size) => {
                let granule = (block_size.max(LINKS_LEN) + RUN_HEADER_LEN).next_multiple_of(UNIT);
                Ok(Box::new(SlabFit { granule }))
            }
            Policy::Slab { .. } => {
                Err(Error::InvalidOption { option: "block_size", expected: "from 8 bytes to 1 GiB" })
            }
            Policy::Linear => Ok(Box::new(LinearFit)),
            Policy::SizeClass => Ok(Box::new(SizeClassFit)),
        }
    }
}

/// Where to look for a free run: in one list, as far as the first few; then the first of any later list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Search {
    pub(crate) bin: usize,
    pub(crate) look_at: usize,
}

/// A policy's arithmetic. All lengths are in bytes and include a run's header.
pub(crate) trait Fit: Send + Sync + std::fmt::Debug {
    /// Runs start at, and have lengths of, multiples of it.
    fn granule(&self) -> u64;
    /// The shortest run.
    fn run_min(&self) -> u64;
    /// Where a request looks for a free run; nowhere when it always grows the heap.
    fn search(&self, run_len: u64) -> Option<Search>;

    /// The list for free runs of this length.
    fn bin(&self, run_len: u64) -> usize {
        bin_of(run_len / self.granule())
    }

    /// The length of the run for a block of `len` bytes.
    fn run_len(&self, len: u64) -> Result<u64> {
        let too_large = || Error::TooLarge { len, max: RUN_MAX - RUN_HEADER_LEN };
        let needed = len.max(LINKS_LEN).checked_add(RUN_HEADER_LEN).filter(|n| *n <= RUN_MAX).ok_or_else(too_large)?;
        Ok(needed.next_multiple_of(self.granule()).max(self.run_min()))
    }
}

/// Lists by size in granules: one each up to 32, then eight for each power of two; the last has all that are larger.
fn bin_of(granules: u64) -> usize {
    let granules = granules.max(1);
    if granules <= EXACT_BINS as u64 {
        return usize::try_from(granules - 1).unwrap_or(0);
    }
    let exponent = granules.ilog2();
    let eighth = (granules >> (exponent - 3)) & 7;
    let bin = EXACT_BINS + (exponent as usize - 5) * 8 + usize::try_from(eighth).unwrap_or(0);
    bin.min(BIN_COUNT - 1)
}

const EXACT_BINS: usize = 32;

/// Whether all free runs of this list have the same length.
pub(crate) fn is_exact(bin: usize) -> bool {
    bin < EXACT_BINS
}

/// Free runs of the same list that are looked at, before a longer one is split.
const LOOK_AT: usize = 8;

fn search_in(bin: usize) -> Search {
    Search { bin, look_at: if is_exact(bin) { 1 } else { LOOK_AT } }
}

#[derive(Debug)]
struct SlabFit {
    granule: u64,
}

impl Fit for SlabFit {
    fn granule(&self) -> u64 {
        self.granule
    }

    fn run_min(&self) -> u64 {
        self.granule
    }

    fn search(&self, run_len: u64) -> Option<Search> {
        Some(search_in(self.bin(run_len)))
    }
}

#[derive(Debug)]
struct LinearFit;

impl Fit for LinearFit {
    fn granule(&self) -> u64 {
        UNIT
    }

    fn run_min(&self) -> u64 {
        RUN_HEADER_LEN + LINKS_LEN
    }

    fn search(&self, _: u64) -> Option<Search> {
        None
    }
}

#[derive(Debug)]
struct SizeClassFit;

impl Fit for SizeClassFit {
    fn granule(&self) -> u64 {
        UNIT
    }

    fn run_min(&self) -> u64 {
        RUN_HEADER_LEN + LINKS_LEN
    }

    fn search(&self, run_len: u64) -> Option<Search> {
        Some(search_in(self.bin(run_len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_rise_with_the_size_and_a_later_one_always_fits() {
        let mut before = 0;
        for granules in (1..5000).chain((13..62).map(|e| (1u64 << e) - 1)).chain((13..62).map(|e| 1 << e)) {
            let bin = bin_of(granules);
            assert!(bin < BIN_COUNT);
            for larger in [granules, granules + 1, granules * 2] {
                assert!(bin_of(larger) >= bin);
            }
            if granules < 5000 {
                assert!(bin == before || bin == before + 1 || granules == 1);
                before = bin;
            }
        }
        assert!((1..=32).all(|n| bin_of(n) + 1 == usize::try_from(n).unwrap()));
    }

    #[test]
    fn a_run_holds_its_block_and_no_request_wraps() {
        for policy in
            [Policy::Slab { block_size: 8 }, Policy::Slab { block_size: 100 }, Policy::Linear, Policy::SizeClass]
        {
            let fit = policy.fit().unwrap();
            for len in [1, 8, 16, 17, 100, 4096, 1 << 40] {
                let run = fit.run_len(len).unwrap();
                assert!(run >= len + RUN_HEADER_LEN && run % fit.granule() == 0 && run >= fit.run_min());
            }
            for len in [u64::MAX, u64::MAX - 31, u64::MAX - 48, 1 << 63, 1 << 62] {
                assert!(matches!(fit.run_len(len), Err(Error::TooLarge { .. })), "{len}");
            }
        }
        for block_size in [0, 7, BLOCK_SIZE_MAX + 1, u64::MAX] {
            assert!(matches!(Policy::Slab { block_size }.fit(), Err(Error::InvalidOption { .. })));
        }
    }
}
