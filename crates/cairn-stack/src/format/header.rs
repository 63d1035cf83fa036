//! The header of a commit: who the stack is, which commit it is, and what it says.

use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{BLOCK_LEN, LEN_MAX, PAYLOAD, SLOT_BODY_MAX, slot_offset};

/// The only format version this code writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Flag: parts of the payload may have no space reserved, because they were never written.
pub(crate) const HOLES: u32 = 1;

const MAGIC: [u8; 8] = *b"CAIRNSTK";
const KNOWN_FLAGS: u32 = HOLES;
/// No stack lives to see more commits; so the next number always exists.
const SEQUENCE_MAX: u64 = u64::MAX >> 1;

/// Magic, version, checksum and uuid keep their places in every version.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    uuid: [u8; 16],
    sequence: U64,
    base_len: U64,
    len: U64,
    body_offset: U64,
    body_len: U64,
    body_crc: U32,
    flags: U32,
    created_unix_ns: U64,
    reserved: [u8; 40],
}

/// Bytes of a header; the body of its commit follows, unless it is elsewhere.
pub(crate) const HEADER_LEN: usize = size_of::<Raw>();
const CRC_AT: usize = 12;
const _: () = assert!(HEADER_LEN == 128);

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) uuid: Uuid,
    /// Counts commits, from 0; its parity says which slot.
    pub(crate) sequence: u64,
    /// Length of the payload before this commit, in bytes.
    pub(crate) base_len: u64,
    /// Length of the payload, in bytes.
    pub(crate) len: u64,
    /// Where in the file the body is: behind the header, or beyond the payload.
    pub(crate) body_offset: u64,
    pub(crate) body_len: u64,
    pub(crate) body_crc: u32,
    pub(crate) flags: u32,
    /// When the stack was created, in nanoseconds since 1970-01-01 UTC.
    pub(crate) created_unix_ns: u64,
}

/// Why a block is not a header of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// No magic.
    Foreign,
    /// A version this code does not know, and a whole header.
    Version(u32),
    /// The magic is there and the rest does not verify: torn, or damaged.
    Invalid,
}

impl Header {
    /// Where a body that fits in the slot begins.
    pub(crate) fn slot_body_offset(sequence: u64) -> u64 {
        slot_offset(sequence) + HEADER_LEN as u64
    }

    /// Whether the body is not in the slot.
    pub(crate) fn body_is_outside(&self) -> bool {
        self.body_offset != Self::slot_body_offset(self.sequence)
    }

    /// The slot from its beginning to the end of `body`, or a whole block: `body` is what belongs behind the header, if anything does.
    pub(crate) fn encode(&self, body: &[u8]) -> Vec<u8> {
        let raw = Raw {
            magic: MAGIC,
            version: U32::new(FORMAT_VERSION),
            crc: U32::new(0),
            uuid: *self.uuid.as_bytes(),
            sequence: U64::new(self.sequence),
            base_len: U64::new(self.base_len),
            len: U64::new(self.len),
            body_offset: U64::new(self.body_offset),
            body_len: U64::new(self.body_len),
            body_crc: U32::new(self.body_crc),
            flags: U32::new(self.flags),
            created_unix_ns: U64::new(self.created_unix_ns),
            reserved: [0; 40],
        };
        let mut slot = Vec::with_capacity(BLOCK_LEN.max(HEADER_LEN + body.len()));
        slot.extend_from_slice(raw.as_bytes());
        slot.extend_from_slice(body);
        slot.resize(slot.len().max(BLOCK_LEN), 0);
        let crc = checksum(&slot[..BLOCK_LEN]);
        slot[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        slot
    }

    /// Decodes the first block of slot `slot`; `block` may be shorter.
    pub(crate) fn decode(block: &[u8], slot: u64) -> Result<Self, HeaderError> {
        if block.len() < MAGIC.len() || block[..MAGIC.len()] != MAGIC {
            return Err(HeaderError::Foreign);
        }
        let Some(block) = block.get(..BLOCK_LEN) else {
            return Err(HeaderError::Invalid);
        };
        let Ok((raw, _)) = Raw::read_from_prefix(block) else {
            return Err(HeaderError::Invalid);
        };
        if raw.crc.get() != checksum(block) {
            return Err(HeaderError::Invalid);
        }
        if raw.version.get() != FORMAT_VERSION {
            return Err(HeaderError::Version(raw.version.get()));
        }
        let header = Header {
            uuid: Uuid::from_bytes(raw.uuid),
            sequence: raw.sequence.get(),
            base_len: raw.base_len.get(),
            len: raw.len.get(),
            body_offset: raw.body_offset.get(),
            body_len: raw.body_len.get(),
            body_crc: raw.body_crc.get(),
            flags: raw.flags.get(),
            created_unix_ns: raw.created_unix_ns.get(),
        };
        if header.is_possible(slot) && raw.reserved == [0; 40] { Ok(header) } else { Err(HeaderError::Invalid) }
    }

    fn is_possible(&self, slot: u64) -> bool {
        let beyond = PAYLOAD + self.len.max(self.base_len).min(LEN_MAX);
        let body_fits = match self.body_is_outside() {
            true => self.body_offset >= beyond && self.body_offset.checked_add(self.body_len).is_some(),
            false => self.body_len <= SLOT_BODY_MAX,
        };
        self.sequence % 2 == slot
            && self.sequence <= SEQUENCE_MAX
            && self.base_len <= LEN_MAX
            && self.len <= LEN_MAX
            && self.flags & !KNOWN_FLAGS == 0
            && body_fits
    }
}

/// CRC-32C of the block with the checksum's own four bytes taken as zero.
fn checksum(block: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&block[..CRC_AT]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &block[CRC_AT + 4..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header {
            uuid: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            sequence: 7,
            base_len: 0x1000,
            len: 0x2000,
            body_offset: Header::slot_body_offset(7),
            body_len: 24,
            body_crc: 0xdead_beef,
            flags: HOLES,
            created_unix_ns: 1_700_000_000_000_000_000,
        }
    }

    #[test]
    fn a_header_is_laid_out_as_documented() {
        let block = header().encode(&[0xaa; 24]);
        assert_eq!(block.len(), BLOCK_LEN);
        assert_eq!(block[..12], *b"CAIRNSTK\x01\0\0\0");
        assert_eq!(block[16..32], 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10u128.to_be_bytes());
        let words = [7u64, 0x1000, 0x2000, 65536 + 128, 24];
        assert_eq!(block[32..72], *words.map(u64::to_le_bytes).concat());
        assert_eq!(block[72..76], 0xdead_beefu32.to_le_bytes());
        assert_eq!(block[76..80], 1u32.to_le_bytes());
        assert_eq!(block[80..88], 1_700_000_000_000_000_000u64.to_le_bytes());
        assert!(block[88..128].iter().all(|b| *b == 0));
        assert_eq!(block[128..152], [0xaa; 24]);
        let mut blank = block.clone();
        blank[12..16].fill(0);
        assert_eq!(block[12..16], crc32c::crc32c(&blank).to_le_bytes());
    }

    #[test]
    fn every_flipped_bit_of_the_block_is_found() {
        let mut block = header().encode(&[7; 24]);
        assert_eq!(Header::decode(&block, 1), Ok(header()));
        for bit in 0..BLOCK_LEN * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 64 { HeaderError::Foreign } else { HeaderError::Invalid };
            assert_eq!(Header::decode(&block, 1), Err(expected), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn impossible_headers_are_refused_under_a_right_checksum() {
        let refused = |change: fn(&mut Header)| {
            let mut header = header();
            change(&mut header);
            Header::decode(&header.encode(&[]), 1)
        };
        assert!(refused(|_| ()).is_ok());
        assert_eq!(refused(|h| h.sequence = 8), Err(HeaderError::Invalid));
        assert_eq!(refused(|h| h.sequence = u64::MAX), Err(HeaderError::Invalid));
        assert_eq!(refused(|h| h.len = LEN_MAX + 1), Err(HeaderError::Invalid));
        assert_eq!(refused(|h| h.base_len = u64::MAX), Err(HeaderError::Invalid));
        assert_eq!(refused(|h| h.flags = 2), Err(HeaderError::Invalid));
        assert_eq!(refused(|h| h.body_len = SLOT_BODY_MAX + 1), Err(HeaderError::Invalid));
        assert_eq!(refused(|h| h.body_offset = PAYLOAD), Err(HeaderError::Invalid));
        let far = |h: &mut Header| (h.body_offset, h.body_len) = (u64::MAX, 1);
        assert_eq!(refused(far), Err(HeaderError::Invalid));
        assert!(refused(|h| (h.body_offset, h.body_len) = (PAYLOAD + 0x2000, 1 << 20)).is_ok());
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let mut block = header().encode(&[]);
        block[8] = 2;
        assert_eq!(Header::decode(&block, 1), Err(HeaderError::Invalid));
        let crc = checksum(&block);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&block, 1), Err(HeaderError::Version(2)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_header(mut block in prop::collection::vec(any::<u8>(), 0..5000), magic: bool) {
            if magic && block.len() > 8 {
                block[..8].copy_from_slice(&MAGIC);
            }
            prop_assert!(Header::decode(&block, 0).is_err());
        }
    }
}
