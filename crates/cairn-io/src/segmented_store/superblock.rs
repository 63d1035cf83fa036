//! The first block of every segment file; `docs/format/segmented-store.md` is the specification.

use std::path::Path;

use crate::Error;

/// Payload starts here, and with it the store's bytes; in bytes.
pub(super) const SUPERBLOCK_SIZE: usize = 4096;
pub(super) const PAYLOAD_START: u64 = SUPERBLOCK_SIZE as u64;

pub(super) const VERSION: u32 = 1;
const SUPERBLOCK_SIZE_U32: u32 = 4096;
const _: () = assert!(SUPERBLOCK_SIZE_U32 as usize == SUPERBLOCK_SIZE);

const MAGIC: [u8; 8] = *b"CairnSeg";
const CRC_AT: usize = SUPERBLOCK_SIZE - 4;

pub(super) const SEGMENT_SIZE_UNIT: u64 = 4096;
pub(super) const SEGMENT_SIZE_MAX: u64 = 1 << 40;

/// What a superblock says, its checksum and its own limits checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) uuid: [u8; 16],
    /// Payload bytes per segment: a multiple of `SEGMENT_SIZE_UNIT`, at most `SEGMENT_SIZE_MAX`, not zero.
    pub(super) segment_size: u64,
    /// Which segment: its payload starts at store offset `index * segment_size`. `(index + 1) * segment_size` fits a `u64`.
    pub(super) index: u64,
    /// Milliseconds since 1970, for people only.
    pub(super) created_unix_ms: u64,
}

/// Whether the size is one a store can have.
pub(super) fn is_segment_size(bytes: u64) -> bool {
    bytes != 0 && bytes <= SEGMENT_SIZE_MAX && bytes.is_multiple_of(SEGMENT_SIZE_UNIT)
}

impl Superblock {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(SUPERBLOCK_SIZE);
        block.extend_from_slice(&MAGIC);
        block.extend_from_slice(&VERSION.to_le_bytes());
        block.extend_from_slice(&SUPERBLOCK_SIZE_U32.to_le_bytes());
        block.extend_from_slice(&self.uuid);
        block.extend_from_slice(&self.segment_size.to_le_bytes());
        block.extend_from_slice(&self.index.to_le_bytes());
        block.extend_from_slice(&self.created_unix_ms.to_le_bytes());
        block.resize(CRC_AT, 0);
        block.extend_from_slice(&crc32c::crc32c(&block).to_le_bytes());
        block
    }

    /// Magic, then version, then checksum: a newer version may lay out everything after its number differently.
    pub(super) fn decode(path: &Path, block: &[u8]) -> Result<Self, Error> {
        let path = || path.to_path_buf();
        let corrupt = |offset, what| Error::Corrupt { path: path(), offset, what };
        let Ok(block) = <&[u8; SUPERBLOCK_SIZE]>::try_from(block) else {
            return Err(Error::Foreign { path: path() });
        };
        if block[..8] != MAGIC {
            return Err(Error::Foreign { path: path() });
        }
        let found = u32::from_le_bytes(field(block, 8));
        if found != VERSION {
            return Err(Error::UnsupportedVersion { path: path(), found, supported: VERSION });
        }
        if crc32c::crc32c(&block[..CRC_AT]) != u32::from_le_bytes(field(block, CRC_AT)) {
            return Err(corrupt(CRC_AT as u64, "the superblock's checksum"));
        }
        // From here on the writer's program is at fault, not the medium.
        if u32::from_le_bytes(field(block, 12)) != SUPERBLOCK_SIZE_U32 {
            return Err(corrupt(12, "the superblock's length"));
        }
        let superblock = Self {
            uuid: field(block, 16),
            segment_size: u64::from_le_bytes(field(block, 32)),
            index: u64::from_le_bytes(field(block, 40)),
            created_unix_ms: u64::from_le_bytes(field(block, 48)),
        };
        if !is_segment_size(superblock.segment_size) {
            return Err(corrupt(32, "the segment size"));
        }
        if end_of_segment(superblock.index, superblock.segment_size).is_none() {
            return Err(corrupt(40, "the segment's index"));
        }
        Ok(superblock)
    }
}

/// The store offset one past a segment's payload, when there is one.
pub(super) fn end_of_segment(index: u64, segment_size: u64) -> Option<u64> {
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

    const EXAMPLE: Superblock =
        Superblock { uuid: *b"0123456789abcdef", segment_size: 0x0001_0000, index: 3, created_unix_ms: 0x0102_0304 };

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
            assert!(matches!(Superblock::decode(Path::new("x"), &superblock.encode()), Err(Error::Corrupt { .. })));
        }
    }
}
