//! The first block of a segment: who it is.

use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the superblock, its zero padding included.
pub(crate) const SUPERBLOCK_LEN: usize = 4096;
/// File offset of the segment's first group.
pub(crate) const DATA_OFFSET: u64 = SUPERBLOCK_LEN as u64;
/// The only format version this code writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

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
    /// Number of the first record at or after `base_lsn`.
    pub(crate) base_seq: u64,
    /// Records below this had been dropped when the segment was created.
    pub(crate) head_lsn: u64,
    pub(crate) head_seq: u64,
    /// The size after which the segment was to be rotated, in bytes, as configured when it was created. Informative.
    pub(crate) segment_size: u64,
    /// Nanoseconds since 1970-01-01 UTC.
    pub(crate) created_unix_ns: u64,
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
        if !sound {
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
