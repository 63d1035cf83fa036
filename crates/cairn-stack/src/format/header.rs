//! The header of a commit: identity of the stack, number of the commit, lengths, and its body.

use std::ops::Range;

use cairn_io::preamble::{self, Checksum, Preamble};
use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::{
    BLOCK_LEN, CommitNumber, Epoch, FileOffset, HEADER_LEN, HeaderName, LEN_MAX, PayloadOffset,
    SLOT_BODY_MAX, SlotNumber,
};

/// The only format version this code writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 2;
/// Flag: parts of the payload may be holes, for which no space is reserved.
pub(crate) const HOLES: u32 = 1;

const MAGIC: [u8; 8] = *b"CAIRNSTK";
const PREAMBLE: Preamble<BLOCK_LEN> = Preamble::new(MAGIC, FORMAT_VERSION, Checksum::BehindVersion);

/// The bytes of the checksum.
const CRC: Range<usize> = 12..16;
const KNOWN_FLAGS: u32 = HOLES;
/// Bytes of a header that are zero.
const RESERVED: usize = 20;
/// The largest number in a valid header. The number after it still fits in 64 bits.
const SEQUENCE_MAX: CommitNumber = CommitNumber(u64::MAX >> 1);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    /// Magic, version, checksum.
    preamble: [u8; preamble::HEAD_LEN],
    uuid: [u8; preamble::ID_LEN],
    sequence: U64,
    base_len: U64,
    len: U64,
    body_offset: U64,
    body_len: U64,
    body_crc: U32,
    flags: U32,
    created_unix_ns: U64,
    epoch: U64,
    previous_epoch: U64,
    previous_crc: U32,
    reserved: [u8; RESERVED],
}

const _: () = assert!(HEADER_LEN == size_of::<Raw>());

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) uuid: Uuid,
    /// Number of the commit; its parity says which slot.
    pub(crate) sequence: CommitNumber,
    /// Length of the stack before this commit, in bytes.
    pub(crate) base_len: u64,
    /// Length of the stack after this commit, in bytes.
    pub(crate) len: u64,
    /// First byte of the body: behind the header, or behind the payload.
    pub(crate) body_offset: FileOffset,
    /// Bytes of the body.
    pub(crate) body_len: u64,
    /// [`body_checksum`](super::body_checksum) of the body.
    pub(crate) body_crc: u32,
    /// [`HOLES`], or 0.
    pub(crate) flags: u32,
    /// When the stack was created, in nanoseconds since 1970-01-01 UTC.
    pub(crate) created_unix_ns: u64,
    /// Of the opening that wrote this header.
    pub(crate) epoch: Epoch,
    /// The header of the commit before this one; [`HeaderName::NONE`] for the first.
    pub(crate) previous: HeaderName,
}

pub(crate) use cairn_io::preamble::Refusal as HeaderError;

impl Header {
    /// Whether the body is behind the payload, not in the slot.
    pub(crate) fn body_is_outside(&self) -> bool {
        self.body_offset != self.sequence.slot().body_offset()
    }

    /// The slot from its beginning to the end of `body`, at least a block. `body` follows the
    /// header; it is empty if the body is behind the payload.
    pub(crate) fn encode(&self, body: &[u8]) -> Vec<u8> {
        let raw = Raw {
            preamble: [0; preamble::HEAD_LEN],
            uuid: *self.uuid.as_bytes(),
            sequence: U64::new(self.sequence.0),
            base_len: U64::new(self.base_len),
            len: U64::new(self.len),
            body_offset: U64::new(self.body_offset.0),
            body_len: U64::new(self.body_len),
            body_crc: U32::new(self.body_crc),
            flags: U32::new(self.flags),
            created_unix_ns: U64::new(self.created_unix_ns),
            epoch: U64::new(self.epoch.0),
            previous_epoch: U64::new(self.previous.epoch.0),
            previous_crc: U32::new(self.previous.crc),
            reserved: [0; RESERVED],
        };
        let mut slot = Vec::with_capacity(BLOCK_LEN.max(HEADER_LEN + body.len()));
        slot.extend_from_slice(raw.as_bytes());
        slot.extend_from_slice(body);
        slot.resize(slot.len().max(BLOCK_LEN), 0);
        PREAMBLE.seal(slot.first_chunk_mut().expect("it is a block at least"));
        slot
    }

    /// Decodes the first block of slot `slot`; `block` may be shorter.
    pub(crate) fn decode(block: &[u8], slot: SlotNumber) -> Result<Self, HeaderError> {
        let block = PREAMBLE.judge(block)?;
        let Ok((raw, _)) = Raw::read_from_prefix(&block[..]) else {
            return Err(HeaderError::Damaged);
        };
        let header = Header {
            uuid: Uuid::from_bytes(raw.uuid),
            sequence: CommitNumber(raw.sequence.get()),
            base_len: raw.base_len.get(),
            len: raw.len.get(),
            body_offset: FileOffset(raw.body_offset.get()),
            body_len: raw.body_len.get(),
            body_crc: raw.body_crc.get(),
            flags: raw.flags.get(),
            created_unix_ns: raw.created_unix_ns.get(),
            epoch: Epoch(raw.epoch.get()),
            previous: HeaderName {
                epoch: Epoch(raw.previous_epoch.get()),
                crc: raw.previous_crc.get(),
            },
        };
        if header.is_possible(slot) && raw.reserved == [0; RESERVED] && header.ends_in(block) {
            Ok(header)
        } else {
            Err(HeaderError::Damaged)
        }
    }

    /// What the next header calls this one, if this is the slot that [`encode`](Self::encode) made.
    pub(crate) fn name_in(&self, slot: &[u8]) -> HeaderName {
        let crc = slot.get(CRC).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        HeaderName { epoch: self.epoch, crc: crc.unwrap_or_default() }
    }

    /// Whether the block is zero behind a body in it. Otherwise writing it again would change its
    /// checksum, by which the next header names it.
    fn ends_in(&self, block: &[u8; BLOCK_LEN]) -> bool {
        let body = if self.body_is_outside() { 0 } else { self.body_len };
        let end = usize::try_from(body).unwrap_or(usize::MAX).saturating_add(HEADER_LEN);
        block[end.min(BLOCK_LEN)..].iter().all(|byte| *byte == 0)
    }

    fn is_possible(&self, slot: SlotNumber) -> bool {
        let beyond = PayloadOffset(self.len.max(self.base_len).min(LEN_MAX)).in_file();
        let body_fits = match self.body_is_outside() {
            true => {
                self.body_offset >= beyond && self.body_offset.checked_add(self.body_len).is_some()
            }
            false => self.body_len <= SLOT_BODY_MAX,
        };
        self.sequence.slot() == slot
            && self.sequence <= SEQUENCE_MAX
            && self.base_len <= LEN_MAX
            && self.len <= LEN_MAX
            && self.flags & !KNOWN_FLAGS == 0
            && body_fits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header {
            uuid: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            sequence: CommitNumber(7),
            base_len: 0x1000,
            len: 0x2000,
            body_offset: CommitNumber(7).slot().body_offset(),
            body_len: 24,
            body_crc: 0xdead_beef,
            flags: HOLES,
            created_unix_ns: 1_700_000_000_000_000_000,
            epoch: Epoch(0x1112_1314_1516_1718),
            previous: HeaderName { epoch: Epoch(0x2122_2324_2526_2728), crc: 0x3132_3334 },
        }
    }

    #[test]
    fn a_header_is_laid_out_as_documented() {
        let block = header().encode(&[0xaa; 24]);
        assert_eq!(block.len(), BLOCK_LEN);
        assert_eq!(block[..12], *b"CAIRNSTK\x02\0\0\0");
        assert_eq!(block[16..32], 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10u128.to_be_bytes());
        let words = [7u64, 0x1000, 0x2000, 65536 + 128, 24];
        assert_eq!(block[32..72], *words.map(u64::to_le_bytes).concat());
        assert_eq!(block[72..76], 0xdead_beefu32.to_le_bytes());
        assert_eq!(block[76..80], 1u32.to_le_bytes());
        assert_eq!(block[80..88], 1_700_000_000_000_000_000u64.to_le_bytes());
        assert_eq!(block[88..96], 0x1112_1314_1516_1718u64.to_le_bytes());
        assert_eq!(block[96..104], 0x2122_2324_2526_2728u64.to_le_bytes());
        assert_eq!(block[104..108], 0x3132_3334u32.to_le_bytes());
        assert!(block[108..128].iter().all(|b| *b == 0));
        assert_eq!(block[128..152], [0xaa; 24]);
        let mut blank = block.clone();
        blank[12..16].fill(0);
        let crc = crc32c::crc32c(&blank);
        assert_eq!(block[12..16], crc.to_le_bytes());
        assert_eq!(header().name_in(&block), HeaderName { epoch: header().epoch, crc });
    }

    #[test]
    fn every_flipped_bit_of_the_block_is_found() {
        let mut block = header().encode(&[7; 24]);
        assert_eq!(Header::decode(&block, SlotNumber::BOTH[1]), Ok(header()));
        for bit in 0..BLOCK_LEN * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 64 { HeaderError::Foreign } else { HeaderError::Damaged };
            assert_eq!(Header::decode(&block, SlotNumber::BOTH[1]), Err(expected), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn impossible_headers_are_refused_under_a_right_checksum() {
        let refused = |change: fn(&mut Header)| {
            let mut header = header();
            change(&mut header);
            Header::decode(&header.encode(&[]), SlotNumber::BOTH[1])
        };
        assert!(refused(|_| ()).is_ok());
        assert_eq!(refused(|h| h.sequence.0 = 8), Err(HeaderError::Damaged));
        assert_eq!(refused(|h| h.sequence.0 = u64::MAX), Err(HeaderError::Damaged));
        assert_eq!(refused(|h| h.len = LEN_MAX + 1), Err(HeaderError::Damaged));
        assert_eq!(refused(|h| h.base_len = u64::MAX), Err(HeaderError::Damaged));
        assert_eq!(refused(|h| h.flags = 2), Err(HeaderError::Damaged));
        assert_eq!(refused(|h| h.body_len = SLOT_BODY_MAX + 1), Err(HeaderError::Damaged));
        assert_eq!(
            refused(|h| h.body_offset = PayloadOffset(0).in_file()),
            Err(HeaderError::Damaged)
        );
        let far = |h: &mut Header| (h.body_offset, h.body_len) = (FileOffset(u64::MAX), 1);
        assert_eq!(refused(far), Err(HeaderError::Damaged));
        assert!(
            refused(|h| (h.body_offset, h.body_len) = (PayloadOffset(0x2000).in_file(), 1 << 20))
                .is_ok()
        );
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let mut block = header().encode(&[]);
        block[8] = 1;
        assert_eq!(Header::decode(&block, SlotNumber::BOTH[1]), Err(HeaderError::Damaged));
        block[12..16].fill(0);
        let crc = crc32c::crc32c(&block);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&block, SlotNumber::BOTH[1]), Err(HeaderError::Version(1)));
    }

    #[test]
    fn bytes_behind_a_body_are_refused_under_a_right_checksum() {
        let longer = header().encode(&[7; 25]);
        assert_eq!(Header::decode(&longer, SlotNumber::BOTH[1]), Err(HeaderError::Damaged));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_header(
            mut block in prop::collection::vec(any::<u8>(), 0..5000),
            magic: bool,
        ) {
            if magic && block.len() > 8 {
                block[..8].copy_from_slice(&MAGIC);
            }
            prop_assert!(Header::decode(&block, SlotNumber::BOTH[0]).is_err());
        }
    }
}
