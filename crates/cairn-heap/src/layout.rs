//! The bytes: see `docs/format/heap.md`.

use crate::error::{BlockFault, Error, Result};
use crate::policy::Policy;

pub(crate) const MAGIC: [u8; 8] = *b"CAIRNHEP";
pub(crate) const VERSION: u32 = 1;

/// All runs start at multiples of it, counted from the arena's beginning.
pub(crate) const UNIT: u64 = 16;
pub(crate) const RUN_HEADER_LEN: u64 = 32;
/// A free run's links, behind its header.
pub(crate) const LINKS_LEN: u64 = 16;
/// Longest run: a stack holds less than 2^62 bytes.
pub(crate) const RUN_MAX: u64 = 1 << 61;

pub(crate) const BIN_COUNT: usize = 192;
/// Roots of a heap, numbered from 0.
pub const ROOTS: usize = 32;
/// Bytes of the area that is reserved for the user.
pub const USER_AREA_LEN: usize = 64;

const FIXED_LEN: usize = 64;
pub(crate) const NEXT_TAG: usize = 64;
pub(crate) const LAST_LEN: usize = 72;
pub(crate) const LIVE_BLOCKS: usize = 80;
pub(crate) const LIVE_BYTES: usize = 88;
pub(crate) const FREE_RUNS: usize = 96;
pub(crate) const FREE_BYTES: usize = 104;
const CRC: usize = 112;
const USER_AREA: usize = 128;
const BITMAP: usize = USER_AREA + USER_AREA_LEN;
pub(crate) const ROOT_TABLE: usize = 256;
pub(crate) const HEADS: usize = ROOT_TABLE + 16 * ROOTS;
pub(crate) const HEADER_LEN: usize = HEADS + 8 * BIN_COUNT;
/// Where the first run starts.
pub(crate) const ARENA: u64 = HEADER_LEN as u64;

const _: () = assert!(BITMAP + BIN_COUNT / 8 <= ROOT_TABLE && ARENA.is_multiple_of(UNIT));
const _: () = assert!(RUN_HEADER_LEN.is_multiple_of(UNIT) && LINKS_LEN.is_multiple_of(UNIT));

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The heap's header, all of it.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) bytes: Box<[u8; HEADER_LEN]>,
}

macro_rules! fields {
    ($($get:ident $set:ident $at:expr;)*) => {
        $(pub(crate) fn $get(&self) -> u64 {
            u64_at(&self.bytes[..], $at)
        }
        pub(crate) fn $set(&mut self, value: u64) {
            self.bytes[$at..$at + 8].copy_from_slice(&value.to_le_bytes());
        })*
    };
}

impl Header {
    /// To be read into.
    pub(crate) fn blank() -> Self {
        Header { bytes: Box::new([0; HEADER_LEN]) }
    }

    pub(crate) fn new(policy: Policy, key: u64) -> Self {
        let mut header = Header::blank();
        let (number, parameter) = policy.encode();
        header.bytes[..8].copy_from_slice(&MAGIC);
        header.bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header.bytes[16..20].copy_from_slice(&number.to_le_bytes());
        header.bytes[24..32].copy_from_slice(&parameter.to_le_bytes());
        header.bytes[32..40].copy_from_slice(&key.to_le_bytes());
        let crc = header.fixed_crc();
        header.bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        header.set_next_tag(key);
        header.seal();
        header
    }

    fn fixed_crc(&self) -> u32 {
        let crc = crc32c::crc32c(&self.bytes[..12]);
        crc32c::crc32c_append(crc32c::crc32c_append(crc, &[0; 4]), &self.bytes[16..FIXED_LEN])
    }

    fn changing_crc(&self) -> u32 {
        let crc = crc32c::crc32c(&self.bytes[32..40]);
        let crc = crc32c::crc32c_append(crc, &self.bytes[FIXED_LEN..CRC]);
        crc32c::crc32c_append(crc32c::crc32c_append(crc, &[0; 4]), &self.bytes[CRC + 4..])
    }

    /// Makes the checksum right.
    pub(crate) fn seal(&mut self) {
        let crc = self.changing_crc();
        self.bytes[CRC..CRC + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// What never changes: who this is.
    pub(crate) fn identify(&self, stack_len: u64) -> Result<(Policy, u64)> {
        if self.bytes[..8] != MAGIC {
            return Err(Error::NotAHeap { len: stack_len });
        }
        if u32_at(&self.bytes[..], 12) != self.fixed_crc() {
            return Err(Error::Corrupt {
                offset: 0,
                what: "the fixed part of the heap's header does not match its checksum",
            });
        }
        let found = u32_at(&self.bytes[..], 8);
        if found != VERSION {
            return Err(Error::UnsupportedVersion { found, supported: VERSION });
        }
        let policy = Policy::decode(u32_at(&self.bytes[..], 16), u64_at(&self.bytes[..], 24))
            .filter(|policy| policy.fit().is_ok())
            .ok_or(Error::Corrupt { offset: 16, what: "there is no such policy" })?;
        Ok((policy, self.key()))
    }

    /// What changes is what was written, and by a heap: tags only rise.
    pub(crate) fn verify(&self) -> Result<()> {
        let corrupt = |offset: usize, what| Err(Error::Corrupt { offset: offset as u64, what });
        if u32_at(&self.bytes[..], CRC) != self.changing_crc() {
            return corrupt(FIXED_LEN, "the heap's header does not match its checksum");
        }
        if self.next_tag() < self.key() {
            return corrupt(NEXT_TAG, "the next tag is below the first one");
        }
        Ok(())
    }

    pub(crate) fn key(&self) -> u64 {
        u64_at(&self.bytes[..], 32)
    }

    fields! {
        next_tag set_next_tag NEXT_TAG;
        last_len set_last_len LAST_LEN;
        live_blocks set_live_blocks LIVE_BLOCKS;
        live_bytes set_live_bytes LIVE_BYTES;
        free_runs set_free_runs FREE_RUNS;
        free_bytes set_free_bytes FREE_BYTES;
    }

    pub(crate) fn user_area(&self) -> &[u8; USER_AREA_LEN] {
        self.bytes[USER_AREA..BITMAP].try_into().expect("as long as the area")
    }

    pub(crate) fn user_area_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[USER_AREA..BITMAP]
    }

    /// Raw handle; 0 is none.
    pub(crate) fn root(&self, slot: usize) -> u128 {
        let at = ROOT_TABLE + 16 * slot;
        u128::from_le_bytes(self.bytes[at..at + 16].try_into().expect("sixteen bytes"))
    }

    pub(crate) fn set_root(&mut self, slot: usize, raw: u128) {
        let at = ROOT_TABLE + 16 * slot;
        self.bytes[at..at + 16].copy_from_slice(&raw.to_le_bytes());
    }

    /// Where the first run of a list starts; 0 is nowhere.
    pub(crate) fn head(&self, bin: usize) -> u64 {
        u64_at(&self.bytes[..], HEADS + 8 * bin)
    }

    pub(crate) fn set_head(&mut self, bin: usize, at: u64) {
        let head = HEADS + 8 * bin;
        self.bytes[head..head + 8].copy_from_slice(&at.to_le_bytes());
        let bit = 1 << (bin % 8);
        let byte = &mut self.bytes[BITMAP + bin / 8];
        *byte = if at == 0 { *byte & !bit } else { *byte | bit };
    }

    /// Whether the bitmap says that the list has a run.
    pub(crate) fn has(&self, bin: usize) -> bool {
        self.bytes[BITMAP + bin / 8] & 1 << (bin % 8) != 0
    }

    /// The first list at or after `bin` that has a run.
    pub(crate) fn first_bin(&self, bin: usize) -> Option<usize> {
        (bin..BIN_COUNT).find(|bin| self.has(*bin))
    }

    /// Where this header differs from another one, ranges close to each other as one.
    pub(crate) fn differences(&self, before: &Header) -> Vec<std::ops::Range<usize>> {
        let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
        for at in (0..HEADER_LEN).step_by(8).filter(|at| self.bytes[*at..at + 8] != before.bytes[*at..at + 8]) {
            match ranges.last_mut() {
                Some(last) if at - last.end <= 24 => last.end = at + 8,
                _ => ranges.push(at..at + 8),
            }
        }
        ranges
    }
}

/// What a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its place in its list, as offsets; 0 is the end.
    Free { next: u64, back: u64 },
    /// The block's tag, and how many bytes at the end belong to the run, but not to the block.
    Live { tag: u64, unused: u32 },
}

/// A run: header, and free space or a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) at: u64,
    pub(crate) len: u64,
    /// Length of the run before it; 0 for the first.
    pub(crate) prev_len: u64,
    pub(crate) state: State,
}

/// What is written for a run at most: its header and links.
pub(crate) const RUN_PREFIX: usize = 48;
const _: () = assert!(RUN_PREFIX as u64 == RUN_HEADER_LEN + LINKS_LEN);
const FREE: u32 = u32::MAX;

fn run_crc(key: u64, at: u64, header: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&key.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &at.to_le_bytes()), &header[4..32])
}

impl Run {
    pub(crate) fn end(&self) -> u64 {
        self.at + self.len
    }

    pub(crate) fn is_free(&self) -> bool {
        matches!(self.state, State::Free { .. })
    }

    /// Length of the block in it, in bytes.
    pub(crate) fn block_len(&self) -> u64 {
        match self.state {
            State::Free { .. } => 0,
            State::Live { unused, .. } => self.len - RUN_HEADER_LEN - u64::from(unused),
        }
    }

    /// The header, and a free run's links.
    pub(crate) fn encode(&self, key: u64) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        let (unused, tag) = match self.state {
            State::Free { .. } => (FREE, 0),
            State::Live { tag, unused } => (unused, tag),
        };
        bytes.extend(unused.to_le_bytes());
        bytes.extend(self.len.to_le_bytes());
        bytes.extend(self.prev_len.to_le_bytes());
        bytes.extend(tag.to_le_bytes());
        let crc = run_crc(key, self.at, &bytes);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        if let State::Free { next, back } = self.state {
            bytes.extend(next.to_le_bytes());
            bytes.extend(back.to_le_bytes());
        }
        bytes
    }

    /// Reads a run from its first [`RUN_PREFIX`] bytes; `None` when they are none. `arena_end` bounds what it may say.
    pub(crate) fn decode(key: u64, at: u64, bytes: &[u8; RUN_PREFIX], granule: u64, arena_end: u64) -> Option<Run> {
        if run_crc(key, at, bytes) != u32_at(bytes, 0) {
            return None;
        }
        let (unused, len, prev_len, tag) = (u32_at(bytes, 4), u64_at(bytes, 8), u64_at(bytes, 16), u64_at(bytes, 24));
        let fits = len >= RUN_PREFIX as u64
            && len.is_multiple_of(granule)
            && at.checked_add(len).is_some_and(|end| end <= arena_end)
            && prev_len <= at - ARENA
            && prev_len.is_multiple_of(granule);
        let state = match unused {
            FREE if tag == 0 => State::Free { next: u64_at(bytes, 32), back: u64_at(bytes, 40) },
            _ if tag != 0 && u64::from(unused) < len - RUN_HEADER_LEN.min(len) => State::Live { tag, unused },
            _ => return None,
        };
        fits.then_some(Run { at, len, prev_len, state })
    }
}

/// Where the run of a block that starts at `start` would start.
pub(crate) fn run_of(start: u64, granule: u64, arena_end: u64) -> Result<u64> {
    let invalid = |fault| Error::InvalidBlock { start, fault };
    match start.checked_sub(RUN_HEADER_LEN) {
        Some(at) if at >= ARENA && at.checked_add(RUN_PREFIX as u64).is_some_and(|end| end <= arena_end) => {
            if (at - ARENA).is_multiple_of(granule) { Ok(at) } else { Err(invalid(BlockFault::Misaligned)) }
        }
        _ => Err(invalid(BlockFault::OutOfArena)),
    }
}
