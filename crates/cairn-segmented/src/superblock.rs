//! The first block of every segment file; `docs/format/segmented-store.md` is the specification.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use cairn_io::preamble::{self, Checksum, HEAD_LEN, ID_LEN, Preamble, Refusal};

use crate::error::Error;

/// Payload starts here, and with it the store's bytes; in bytes.
pub(crate) const SUPERBLOCK_SIZE: usize = 4096;
pub(crate) const PAYLOAD_START: u64 = SUPERBLOCK_SIZE as u64;

pub(crate) const VERSION: u32 = 1;
const SUPERBLOCK_SIZE_U32: u32 = 4096;
const _: () = assert!(SUPERBLOCK_SIZE_U32 as usize == SUPERBLOCK_SIZE);

const PREAMBLE: Preamble<SUPERBLOCK_SIZE> = Preamble::new(*b"CairnSeg", VERSION, Checksum::AtEnd);
/// The length of the superblock stands where other formats have their checksum.
const LENGTH_AT: usize = HEAD_LEN - 4;
const SEGMENT_SIZE_AT: usize = HEAD_LEN + ID_LEN;
const INDEX_AT: usize = SEGMENT_SIZE_AT + 8;
const CREATED_AT: usize = INDEX_AT + 8;
const CRC_AT: usize = SUPERBLOCK_SIZE - 4;

pub(crate) const SEGMENT_SIZE_UNIT: u64 = 4096;
pub(crate) const SEGMENT_SIZE_MAX: u64 = 1 << 40;

/// What a superblock says, its checksum and its own limits checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) uuid: [u8; 16],
    /// Payload bytes per segment: a multiple of `SEGMENT_SIZE_UNIT`, at most `SEGMENT_SIZE_MAX`,
    /// not zero.
    pub(crate) segment_size: u64,
    /// Which segment: its payload starts at store offset `index * segment_size`.
    /// `(index + 1) * segment_size` fits a `u64`.
    pub(crate) index: u64,
    /// Milliseconds since 1970, for people only.
    pub(crate) created_unix_ms: u64,
}

/// Whether the size is one a store can have.
pub(crate) fn is_segment_size(bytes: u64) -> bool {
    bytes != 0 && bytes <= SEGMENT_SIZE_MAX && bytes.is_multiple_of(SEGMENT_SIZE_UNIT)
}

impl Superblock {
    /// The superblock of a segment that is created at `now`.
    pub(crate) fn new(uuid: [u8; 16], segment_size: u64, index: u64, now: SystemTime) -> Self {
        let age = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let created_unix_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Self { uuid, segment_size, index, created_unix_ms }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = [0; SUPERBLOCK_SIZE];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(LENGTH_AT, &SUPERBLOCK_SIZE_U32.to_le_bytes());
        put(HEAD_LEN, &self.uuid);
        put(SEGMENT_SIZE_AT, &self.segment_size.to_le_bytes());
        put(INDEX_AT, &self.index.to_le_bytes());
        put(CREATED_AT, &self.created_unix_ms.to_le_bytes());
        PREAMBLE.seal(&mut block);
        block.to_vec()
    }

    /// Judges the first bytes of the file at `path`; `block` may be shorter than a superblock.
    pub(crate) fn decode(path: &Path, block: &[u8]) -> Result<Self, Error> {
        let path = || path.to_path_buf();
        let corrupt = |at: usize, what| Error::Corrupt { path: path(), offset: at as u64, what };
        let block = PREAMBLE.judge(block).map_err(|refusal| match refusal {
            Refusal::Foreign => Error::Foreign { path: path() },
            Refusal::Damaged => corrupt(CRC_AT, "the superblock's checksum"),
            Refusal::Version(found) => {
                Error::UnsupportedVersion { path: path(), found, supported: VERSION }
            }
        })?;
        // From here on the writer's program is at fault, not the medium.
        if u32::from_le_bytes(field(block, LENGTH_AT)) != SUPERBLOCK_SIZE_U32 {
            return Err(corrupt(LENGTH_AT, "the superblock's length"));
        }
        let superblock = Self {
            uuid: preamble::id(block),
            segment_size: u64::from_le_bytes(field(block, SEGMENT_SIZE_AT)),
            index: u64::from_le_bytes(field(block, INDEX_AT)),
            created_unix_ms: u64::from_le_bytes(field(block, CREATED_AT)),
        };
        if !is_segment_size(superblock.segment_size) {
            return Err(corrupt(SEGMENT_SIZE_AT, "the segment size"));
        }
        if end_of_segment(superblock.index, superblock.segment_size).is_none() {
            return Err(corrupt(INDEX_AT, "the segment's index"));
        }
        Ok(superblock)
    }
}

/// The store offset one past a segment's payload, when there is one.
pub(crate) fn end_of_segment(index: u64, segment_size: u64) -> Option<u64> {
    index.checked_add(1)?.checked_mul(segment_size)
}

fn field<const N: usize>(block: &[u8; SUPERBLOCK_SIZE], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&block[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: Superblock = Superblock {
        uuid: *b"0123456789abcdef",
        segment_size: 0x0001_0000,
        index: 3,
        created_unix_ms: 0x0102_0304,
    };

    /// The worked example of `docs/format/segmented-store.md`.
    #[test]
    fn golden_superblock() {
        let block = EXAMPLE.encode();
        let hex: String = block[..56].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "436169726e5365670100000000100000303132333435363738396162636465660000010000000000\
             03000000000000000403020100000000"
        );
        assert!(block[56..CRC_AT].iter().all(|b| *b == 0));
        assert_eq!(hex_crc(&block), "729f2d8d");
        assert_eq!(Superblock::decode(Path::new("x"), &block).unwrap(), EXAMPLE);
    }

    fn hex_crc(block: &[u8]) -> String {
        block[CRC_AT..].iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let good = EXAMPLE.encode();
        for bit in 0..good.len() * 8 {
            let mut block = good.clone();
            block[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(Path::new("x"), &block).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn hostile_sizes_with_a_good_checksum_are_refused() {
        let hostile = [
            Superblock { segment_size: 0, ..EXAMPLE },
            Superblock { segment_size: 4095, ..EXAMPLE },
            Superblock { segment_size: SEGMENT_SIZE_MAX + SEGMENT_SIZE_UNIT, ..EXAMPLE },
            Superblock { index: u64::MAX, ..EXAMPLE },
            Superblock { index: u64::MAX / EXAMPLE.segment_size, ..EXAMPLE },
        ];
        for superblock in hostile {
            assert!(matches!(
                Superblock::decode(Path::new("x"), &superblock.encode()),
                Err(Error::Corrupt { .. })
            ));
        }
    }
}
