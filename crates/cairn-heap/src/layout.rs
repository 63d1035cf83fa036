//! The bytes of runs: see `docs/format/heap.md`. The header of the heap is in `header`.

use crate::block::{Block, start_of, tag_of};
use crate::error::{BlockFault, Error, Result};
use crate::identity::PolicyId;
use crate::mutation::{self, Mutation};

/// Bytes. Every granule is a multiple of it.
pub(crate) const UNIT: u64 = 16;
pub(crate) const RUN_HEADER_LEN: u64 = 32;
/// Bytes of a free run's links. They follow its header.
const LINKS_LEN: u64 = 16;
/// Length of the longest run, in bytes.
pub(crate) const RUN_MAX: u64 = 1 << 61;
/// Length of the longest stack, in bytes.
pub(crate) const STACK_MAX: u64 = 1 << 62;
/// Bytes of a run's header and links.
pub(crate) const RUN_PREFIX: usize = 48;
/// Offset of the first run: the end of the heap's header.
pub(crate) const ARENA: u64 = 2304;
/// Number of lists of free runs.
pub(crate) const LISTS: usize = 192;
/// Number of lists whose runs all have the same length; they come first.
const EXACT_LISTS: usize = 32;
const BLOCK_SIZE_MAX: u64 = 1 << 30;
/// Value of the field `unused` in a free run.
const FREE: u32 = u32::MAX;

const _: () = assert!(ARENA.is_multiple_of(UNIT) && RUN_HEADER_LEN.is_multiple_of(UNIT));
const _: () = assert!(RUN_PREFIX as u64 == RUN_HEADER_LEN + LINKS_LEN);

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Whether a run is free or holds a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Offsets of the next and the previous run in its list; 0 is none.
    Free { next: u64, back: u64 },
    /// The block's tag, and the number of unused bytes at the run's end.
    Live { tag: u64, unused: u32 },
}

/// State of a free run that is in no list.
pub(crate) const UNLISTED: State = State::Free { next: 0, back: 0 };

/// A run: a header, then a block or free space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Offset of its header in the stack.
    pub(crate) at: u64,
    /// Length in bytes, header included.
    pub(crate) len: u64,
    /// Length of the previous run; 0 for the first run.
    pub(crate) prev_len: u64,
    pub(crate) state: State,
}

impl Run {
    pub(crate) fn end(&self) -> u64 {
        self.at + self.len
    }

    pub(crate) fn is_free(&self) -> bool {
        matches!(self.state, State::Free { .. })
    }

    /// Its block; `None` for a free run.
    pub(crate) fn block(&self) -> Option<Block> {
        match self.state {
            State::Free { .. } => None,
            State::Live { tag, unused } => {
                let len = self.len - RUN_HEADER_LEN - u64::from(unused);
                Some(Block::new(self.at + RUN_HEADER_LEN, len, tag))
            }
        }
    }
}

/// The granule of a heap's runs, and the key of their checksums. Both follow from the fixed part of
/// the header alone. So a heap can be checked without its policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) key: u64,
    /// Offsets in the arena and lengths of runs are multiples of it. In bytes.
    pub(crate) granule: u64,
}

impl Geometry {
    pub(crate) fn of(policy: PolicyId, key: u64) -> Result<Self> {
        let granule = match policy {
            PolicyId::Slab { block_size } if (8..=BLOCK_SIZE_MAX).contains(&block_size) => {
                (block_size.max(LINKS_LEN) + RUN_HEADER_LEN).next_multiple_of(UNIT)
            }
            PolicyId::Slab { .. } => {
                let (option, expected) = ("block_size", "from 8 bytes to 1 GiB");
                return Err(Error::InvalidOption { option, expected });
            }
            PolicyId::Custom { number, .. } if number < PolicyId::CUSTOM_MIN => {
                let (option, expected) = ("a custom policy's number", "2^31 or more");
                return Err(Error::InvalidOption { option, expected });
            }
            PolicyId::Linear | PolicyId::SizeClass | PolicyId::Custom { .. } => UNIT,
        };
        Ok(Geometry { key, granule })
    }

    /// Length of the shortest run, in bytes.
    pub(crate) fn run_min(self) -> u64 {
        self.granule.max(RUN_PREFIX as u64)
    }

    /// Length of the shortest run that holds a block of `len` bytes.
    pub(crate) fn shortest_run(self, len: u64) -> Result<u64> {
        let needed = len.checked_add(RUN_HEADER_LEN).filter(|needed| *needed <= RUN_MAX);
        let too_large = Error::TooLarge { len, max: RUN_MAX - RUN_HEADER_LEN };
        Ok(needed.ok_or(too_large)?.max(self.run_min()).next_multiple_of(self.granule))
    }

    /// The list for free runs of this length. Up to 32 granules, each length has a list. Beyond,
    /// each power of two has eight lists, and the last list also holds all longer runs.
    pub(crate) fn list_of(self, run_len: u64) -> usize {
        let granules = (run_len / self.granule).max(1);
        if granules <= EXACT_LISTS as u64 {
            return usize::try_from(granules - 1).unwrap_or(0);
        }
        let exponent = granules.ilog2();
        let eighth = usize::try_from((granules >> (exponent - 3)) & 7).unwrap_or(0);
        (EXACT_LISTS + (exponent as usize - 5) * 8 + eighth).min(LISTS - 1)
    }

    /// Offset of the run of a block at `start`.
    pub(crate) fn run_of(self, start: u64, arena_end: u64) -> Result<u64> {
        let invalid = |fault| Err(Error::InvalidBlock { start, fault });
        let at = start.checked_sub(RUN_HEADER_LEN).filter(|at| *at >= ARENA);
        let fits = |at: &u64| {
            at.checked_add(RUN_PREFIX as u64).is_some_and(|prefix_end| prefix_end <= arena_end)
        };
        match at.filter(fits) {
            None => invalid(BlockFault::OutOfArena),
            Some(at) if !(at - ARENA).is_multiple_of(self.granule) => {
                invalid(BlockFault::Misaligned)
            }
            Some(at) => Ok(at),
        }
    }

    /// Verifies the stored handle `raw` against the bytes at [`run_of`](Self::run_of); returns its
    /// run and block. `len` is the block's length, if the handle has it.
    pub(crate) fn live_run(
        self,
        raw: u128,
        len: Option<u64>,
        bytes: &[u8; RUN_PREFIX],
        arena_end: u64,
    ) -> Result<(Run, Block)> {
        let start = start_of(raw);
        let invalid = |fault| Err(Error::InvalidBlock { start, fault });
        let at = self.run_of(start, arena_end)?;
        let Some(run) = self.decode(at, bytes, arena_end) else {
            return invalid(BlockFault::NoBlock);
        };
        let Some(block) = run.block() else { return invalid(BlockFault::Freed) };
        let same = block.tag() == tag_of(raw) && len.is_none_or(|len| len == block.len());
        if same || mutation::is(Mutation::IgnoreTag) {
            Ok((run, block))
        } else {
            invalid(BlockFault::Reused)
        }
    }

    fn crc(self, at: u64, header: &[u8]) -> u32 {
        let crc = crc32c::crc32c(&self.key.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(crc, &at.to_le_bytes()), &header[4..32])
    }

    /// The bytes of a run's header, and of a free run's links.
    pub(crate) fn encode(self, run: &Run) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        let (unused, tag) = match run.state {
            State::Free { .. } => (FREE, 0),
            State::Live { tag, unused } => (unused, tag),
        };
        bytes.extend(unused.to_le_bytes());
        bytes.extend(run.len.to_le_bytes());
        bytes.extend(run.prev_len.to_le_bytes());
        bytes.extend(tag.to_le_bytes());
        let crc = self.crc(run.at, &bytes);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        if let State::Free { next, back } = run.state {
            bytes.extend(next.to_le_bytes());
            bytes.extend(back.to_le_bytes());
        }
        bytes
    }

    /// Decodes a run from its first [`RUN_PREFIX`] bytes; `None` if they are not a valid header, or
    /// if the run would reach beyond `arena_end`.
    pub(crate) fn decode(self, at: u64, bytes: &[u8; RUN_PREFIX], arena_end: u64) -> Option<Run> {
        if self.crc(at, bytes) != u32_at(bytes, 0) {
            return None;
        }
        let (unused, len, prev_len, tag) =
            (u32_at(bytes, 4), u64_at(bytes, 8), u64_at(bytes, 16), u64_at(bytes, 24));
        let fits = len >= RUN_PREFIX as u64
            && len.is_multiple_of(self.granule)
            && at.checked_add(len).is_some_and(|end| end <= arena_end)
            && prev_len <= at - ARENA
            && prev_len.is_multiple_of(self.granule);
        let state = match unused {
            FREE if tag == 0 => State::Free { next: u64_at(bytes, 32), back: u64_at(bytes, 40) },
            _ if tag != 0 && u64::from(unused) < len - RUN_HEADER_LEN.min(len) => {
                State::Live { tag, unused }
            }
            _ => return None,
        };
        fits.then_some(Run { at, len, prev_len, state })
    }
}

/// Whether all free runs of this list have the same length.
pub(crate) fn is_exact(list: usize) -> bool {
    list < EXACT_LISTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_rise_with_the_length_and_a_later_one_always_fits() {
        let geometry = Geometry::of(PolicyId::SizeClass, 1).unwrap();
        let list_of = |granules: u64| geometry.list_of(granules * UNIT);
        let mut before = 0;
        for granules in
            (1..5000).chain((13..57).map(|e| (1u64 << e) - 1)).chain((13..57).map(|e| 1 << e))
        {
            let list = list_of(granules);
            assert!(list < LISTS);
            for larger in [granules, granules + 1, granules * 2] {
                assert!(list_of(larger) >= list);
            }
            if granules < 5000 {
                assert!(list == before || list == before + 1 || granules == 1);
                before = list;
            }
        }
        assert!((1..=32).all(|n| list_of(n) + 1 == usize::try_from(n).unwrap()));
    }

    #[test]
    fn a_run_holds_its_block_and_no_request_wraps() {
        for policy in [
            PolicyId::Slab { block_size: 8 },
            PolicyId::Slab { block_size: 100 },
            PolicyId::Linear,
            PolicyId::SizeClass,
            PolicyId::Custom { number: PolicyId::CUSTOM_MIN, parameter: 7 },
        ] {
            let geometry = Geometry::of(policy, 1).unwrap();
            for len in [1, 8, 16, 17, 100, 4096, 1 << 40] {
                let run = geometry.shortest_run(len).unwrap();
                assert!(run >= len + RUN_HEADER_LEN && run >= geometry.run_min());
                assert!(run.is_multiple_of(geometry.granule));
            }
            for len in [u64::MAX, u64::MAX - 31, u64::MAX - 48, 1 << 63, 1 << 62] {
                let refused = geometry.shortest_run(len);
                assert!(matches!(refused, Err(Error::TooLarge { .. })), "{len}");
            }
        }
        let custom = |number| PolicyId::Custom { number, parameter: 0 };
        let slab = |block_size| PolicyId::Slab { block_size };
        for policy in [0, 1, 4, PolicyId::CUSTOM_MIN - 1]
            .map(custom)
            .into_iter()
            .chain([0, 7, BLOCK_SIZE_MAX + 1, u64::MAX].map(slab))
        {
            let refused = Geometry::of(policy, 1);
            assert!(matches!(refused, Err(Error::InvalidOption { .. })), "{policy}");
        }
    }
}
