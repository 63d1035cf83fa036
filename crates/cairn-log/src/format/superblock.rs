//! The first block of a segment: who it is.

use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{ALIGN, is_place};

/// Bytes of the superblock, its zero padding included.
pub(crate) const SUPERBLOCK_LEN: usize = 4096;
/// File offset of the segment's first group.
pub(crate) const DATA_OFFSET: u64 = SUPERBLOCK_LEN as u64;
/// The only format version this code writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// The segment size in the superblock of a store, which has one segment without bound. No segment of a directory has it.
pub(crate) const STORE_SIZE: u64 = u64::MAX;

/// The number in the superblock of a segment that got its name before it was known: its first record has the number that its first group says.
pub(crate) const OPEN_SEQ: u64 = u64::MAX;

const MAGIC: [u8; 8] = *b"CAIRNLOG";

/// Magic, version and checksum keep their places in every version, so that any version can be told from damage.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    uuid: [u8; 16],
    generation: U32,
    reserved: U32,
    base_lsn: U64,
    base_seq: U64,
    head_lsn: U64,
    head_seq: U64,
    segment_size: U64,
    created_unix_ns: U64,
    recycled_len: U64,
}

const RAW_LEN: usize = size_of::<Raw>();
const CRC_AT: usize = 12;
// A torn superblock of a store is all zeros or whole: everything that is not zero lies in its first sector.
const _: () = assert!(RAW_LEN <= 512);

/// A decoded superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) uuid: Uuid,
    /// Counts cuts; frames of another generation do not verify here.
    pub(crate) generation: u32,
    /// Position of the first byte after the superblock. Everything below it was durable before the segment got its first group.
    pub(crate) base_lsn: u64,
    /// Number of the first record at or after `base_lsn`, or [`OPEN_SEQ`].
    pub(crate) base_seq: u64,
    /// Records below this had been dropped when the segment was created.
    pub(crate) head_lsn: u64,
    pub(crate) head_seq: u64,
    /// The size after which the segment was to be rotated, in bytes, as configured when it was created. Informative.
    pub(crate) segment_size: u64,
    /// Nanoseconds since 1970-01-01 UTC.
    pub(crate) created_unix_ns: u64,
    /// Length in bytes of the file when it was taken over from a dropped segment: what lies behind the last group may be that one's. 0 for a file made for
    /// this segment, where nothing but zeros does.
    pub(crate) recycled_len: u64,
}

/// Why a block is not a superblock of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SuperblockError {
    /// No magic: not a Cairn log at all.
    Foreign,
    /// A version this code does not know. Told before the checksum is judged by this version's rules.
    Version(u32),
    /// The magic is there and the rest does not verify.
    Damaged,
}

impl Superblock {
    /// The superblock of a new log's first segment.
    pub(crate) fn first(uuid: [u8; 16], segment_size: u64, created_unix_ns: u64) -> Self {
        Superblock {
            uuid: uuid::Builder::from_random_bytes(uuid).into_uuid(),
            generation: 1,
            base_lsn: 0,
            base_seq: 0,
            head_lsn: 0,
            head_seq: 0,
            segment_size,
            created_unix_ns,
            recycled_len: 0,
        }
    }

    pub(crate) fn encode(&self) -> Box<[u8; SUPERBLOCK_LEN]> {
        let raw = Raw {
            magic: MAGIC,
            version: U32::new(FORMAT_VERSION),
            crc: U32::new(0),
            uuid: *self.uuid.as_bytes(),
            generation: U32::new(self.generation),
            reserved: U32::new(0),
            base_lsn: U64::new(self.base_lsn),
            base_seq: U64::new(self.base_seq),
            head_lsn: U64::new(self.head_lsn),
            head_seq: U64::new(self.head_seq),
            segment_size: U64::new(self.segment_size),
            created_unix_ns: U64::new(self.created_unix_ns),
            recycled_len: U64::new(self.recycled_len),
        };
        let mut block = Box::new([0; SUPERBLOCK_LEN]);
        block[..RAW_LEN].copy_from_slice(raw.as_bytes());
        let crc = checksum(&block[..]);
        block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Decodes the first bytes of a segment; `block` may be shorter than a superblock.
    pub(crate) fn decode(block: &[u8]) -> Result<Self, SuperblockError> {
        if block.len() < MAGIC.len() || block[..MAGIC.len()] != MAGIC {
            return Err(SuperblockError::Foreign);
        }
        let Some(block) = block.get(..SUPERBLOCK_LEN) else {
            return Err(SuperblockError::Damaged);
        };
        let Ok((raw, _)) = Raw::read_from_prefix(block) else {
            return Err(SuperblockError::Damaged);
        };
        let sound = raw.crc.get() == checksum(block);
        if raw.version.get() != FORMAT_VERSION {
            // A flipped bit in the version is damage, not a newer program.
            return Err(if sound { SuperblockError::Version(raw.version.get()) } else { SuperblockError::Damaged });
        }
        // A store has its superblock from the beginning.
        let open = raw.base_seq.get() == OPEN_SEQ && raw.segment_size.get() != STORE_SIZE;
        let base_seq = if open { 0 } else { raw.base_seq.get() };
        let possible = is_place(raw.base_lsn.get(), base_seq) && is_place(raw.head_lsn.get(), raw.head_seq.get());
        if !sound || !possible || !raw.base_lsn.get().is_multiple_of(ALIGN) {
            return Err(SuperblockError::Damaged);
        }
        Ok(Superblock {
            uuid: Uuid::from_bytes(raw.uuid),
            generation: raw.generation.get(),
            base_lsn: raw.base_lsn.get(),
            base_seq: raw.base_seq.get(),
            head_lsn: raw.head_lsn.get(),
            head_seq: raw.head_seq.get(),
            segment_size: raw.segment_size.get(),
            created_unix_ns: raw.created_unix_ns.get(),
            recycled_len: raw.recycled_len.get(),
        })
    }
}

/// CRC-32C of the whole block with the checksum's own four bytes taken as zero.
fn checksum(block: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&block[..CRC_AT]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &block[CRC_AT + 4..])
}

/// File name of a segment: base LSN and generation, so that a listing reads in order.
pub(crate) fn segment_name(base_lsn: u64, generation: u32) -> String {
    format!("{base_lsn:020}-{generation:010}.cairn")
}

/// The base LSN and generation in a segment's file name, or `None` when it is not one.
pub(crate) fn parse_segment_name(name: &str) -> Option<(u64, u32)> {
    let (base, generation) = name.strip_suffix(".cairn")?.split_once('-')?;
    let digits = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(base, 20) || !digits(generation, 10) {
        return None;
    }
    Some((base.parse().ok()?, generation.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn superblock() -> Superblock {
        Superblock {
            uuid: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            generation: 3,
            base_lsn: 0x1000,
            base_seq: 0x20,
            head_lsn: 0x0800,
            head_seq: 0x10,
            segment_size: 64 << 20,
            created_unix_ns: 1_700_000_000_000_000_000,
            recycled_len: 5 << 20,
        }
    }

    fn signed(change: impl Fn(&mut [u8])) -> Box<[u8; SUPERBLOCK_LEN]> {
        let mut block = superblock().encode();
        change(&mut block[..]);
        let crc = checksum(&block[..]);
        block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        block
    }

    #[test]
    fn a_superblock_is_laid_out_as_documented() {
        let block = superblock().encode();
        assert_eq!(block[..12], *b"CAIRNLOG\x01\0\0\0");
        assert_eq!(block[16..32], 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10u128.to_be_bytes());
        assert_eq!(block[32..40], [3, 0, 0, 0, 0, 0, 0, 0]);
        let words = [0x1000u64, 0x20, 0x0800, 0x10, 64 << 20, 1_700_000_000_000_000_000, 5 << 20];
        assert_eq!(block[40..96], *words.map(u64::to_le_bytes).concat());
        assert!(block[96..].iter().all(|b| *b == 0));
        let mut blank = block.clone();
        blank[12..16].fill(0);
        assert_eq!(block[12..16], crc32c::crc32c(&blank[..]).to_le_bytes());
    }

    #[test]
    fn every_flipped_bit_is_found_padding_included() {
        let good = superblock().encode();
        assert_eq!(Superblock::decode(&good[..]), Ok(superblock()));
        let mut block = good.clone();
        for bit in 0..SUPERBLOCK_LEN * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 64 { SuperblockError::Foreign } else { SuperblockError::Damaged };
            assert_eq!(Superblock::decode(&block[..]), Err(expected), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_short_block_is_foreign_or_damaged() {
        let good = superblock().encode();
        for len in 0..SUPERBLOCK_LEN {
            let expected = if len < 8 { SuperblockError::Foreign } else { SuperblockError::Damaged };
            assert_eq!(Superblock::decode(&good[..len]), Err(expected));
        }
        assert_eq!(Superblock::decode(&[0; SUPERBLOCK_LEN]), Err(SuperblockError::Foreign));
    }

    #[test]
    fn another_version_is_told_from_damage_by_the_checksum() {
        for version in [0u32, 2, 256, u32::MAX] {
            let block = signed(|b| b[8..12].copy_from_slice(&version.to_le_bytes()));
            assert_eq!(Superblock::decode(&block[..]), Err(SuperblockError::Version(version)));
        }
    }

    #[test]
    fn impossible_positions_are_refused_under_a_right_checksum() {
        assert_eq!(Superblock::decode(&signed(|_| ())[..]), Ok(superblock()));
        for (at, value) in [(40, 0x1004), (40, 1 << 63), (40, u64::MAX), (48, 0x1001), (56, 1 << 63), (72 - 8, 0x0801)]
        {
            let block = signed(|b| b[at..at + 8].copy_from_slice(&u64::to_le_bytes(value)));
            assert_eq!(Superblock::decode(&block[..]), Err(SuperblockError::Damaged), "{value:#x} at {at}");
        }
    }

    #[test]
    fn a_segment_name_is_exact() {
        let name = segment_name(4096, 7);
        assert_eq!(name, "00000000000000004096-0000000007.cairn");
        assert_eq!(parse_segment_name(&name), Some((4096, 7)));
        assert_eq!(parse_segment_name(&segment_name(u64::MAX, u32::MAX)), Some((u64::MAX, u32::MAX)));
        for bad in [
            "",
            ".cairn",
            "-.cairn",
            "00000000000000004096-0000000007",
            "00000000000000004096-0000000007.cairn.tmp",
            "0000000000000004096-0000000007.cairn",
            "000000000000000004096-0000000007.cairn",
            "+0000000000000004096-0000000007.cairn",
            "00000000000000004096-000000000x.cairn",
            "00000000000000004096_0000000007.cairn",
            "00000000000000004096-0000000007-0.cairn",
            "00000000000000004096-0000000007.CAIRN",
            "99999999999999999999-0000000007.cairn",
            "00000000000000004096-4294967296.cairn",
            "\u{0660}0000000000000000000-0000000007.cairn",
        ] {
            assert_eq!(parse_segment_name(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            uuid: u128, generation: u32, base in 0..1u64 << 60, head_lsn in 0..1u64 << 63, seqs: (u64, u64), segment_size in 0..STORE_SIZE,
            created_unix_ns: u64, recycled_len: u64, open: bool,
        ) {
            let base_lsn = base * 8;
            let superblock = Superblock {
                uuid: Uuid::from_u128(uuid),
                generation,
                base_lsn,
                base_seq: if open { OPEN_SEQ } else { seqs.0.min(base_lsn) },
                head_lsn,
                head_seq: seqs.1.min(head_lsn),
                segment_size,
                created_unix_ns,
                recycled_len,
            };
            prop_assert_eq!(Superblock::decode(&superblock.encode()[..]), Ok(superblock));
            prop_assert_eq!(parse_segment_name(&segment_name(base_lsn, generation)), Some((base_lsn, generation)));
        }

        #[test]
        fn arbitrary_bytes_are_no_superblock(mut block in prop::collection::vec(any::<u8>(), 0..5000), magic: bool, name: String) {
            if magic && block.len() > 8 {
                block[..8].copy_from_slice(&MAGIC);
            }
            prop_assert!(Superblock::decode(&block).is_err());
            prop_assert_eq!(parse_segment_name(&name), None);
        }
    }
}
