//! The header of a group: what one flush wrote, and what was known to be durable by then.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{ALIGN, Seed};

/// Bytes of a group header.
pub(crate) const GROUP_HEADER_LEN: usize = size_of::<Raw>();

const MAGIC: u8 = 0xC7;
const CRC_LEN: usize = 4;
const _: () = assert!(GROUP_HEADER_LEN == 40);
const _: () = assert!((GROUP_HEADER_LEN as u64).is_multiple_of(ALIGN));

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    crc: U32,
    magic: u8,
    kind: u8,
    padding: U16,
    len: U32,
    generation: U32,
    lsn: U64,
    durable_lsn: U64,
    first_seq: U64,
}

/// What a group holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupKind {
    /// Records, at least one.
    Records,
    /// Nothing: says that everything before it is durable. The last group after a clean close and after a cut.
    /// In a store, the only group at which the generation may rise.
    Mark,
    /// The sparse index and the trailer: the last group of a sealed segment.
    Seal,
    /// The new head after a `truncate_before`.
    Head,
    /// In a store: everything from the LSN it names up to this group was dropped by a `truncate_after`.
    Cut,
}

impl GroupKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => GroupKind::Records,
            2 => GroupKind::Mark,
            3 => GroupKind::Seal,
            4 => GroupKind::Head,
            5 => GroupKind::Cut,
            _ => return None,
        })
    }

    fn to_byte(self) -> u8 {
        match self {
            GroupKind::Records => 1,
            GroupKind::Mark => 2,
            GroupKind::Seal => 3,
            GroupKind::Head => 4,
            GroupKind::Cut => 5,
        }
    }
}

/// A decoded group header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) kind: GroupKind,
    /// Zero bytes between the last frame and the next group.
    pub(crate) padding: u32,
    /// Header and frames in bytes, padding excluded.
    pub(crate) len: u32,
    pub(crate) generation: u32,
    /// Position of the header itself.
    pub(crate) lsn: u64,
    /// Everything below this was durable when the group was sealed: at most `lsn`.
    pub(crate) durable_lsn: u64,
    /// Number of the first record in the group, or of the next record when it holds none.
    pub(crate) first_seq: u64,
}

impl GroupHeader {
    pub(crate) fn encode(&self, log: Seed) -> [u8; GROUP_HEADER_LEN] {
        assert!(self.durable_lsn <= self.lsn, "a group cannot know more durable than what precedes it");
        assert!(u64::from(self.len).is_multiple_of(ALIGN) && u64::from(self.padding).is_multiple_of(ALIGN));
        let padding = u16::try_from(u64::from(self.padding) / ALIGN);
        let mut raw = Raw {
            crc: U32::new(0),
            magic: MAGIC,
            kind: self.kind.to_byte(),
            padding: U16::new(padding.expect("padding is bounded by the block size, far below 512 KiB")),
            len: U32::new(self.len),
            generation: U32::new(self.generation),
            lsn: U64::new(self.lsn),
            durable_lsn: U64::new(self.durable_lsn),
            first_seq: U64::new(self.first_seq),
        };
        raw.crc = U32::new(crc32c::crc32c_append(log.0, &raw.as_bytes()[CRC_LEN..]));
        let mut bytes = [0; GROUP_HEADER_LEN];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// Whether these bytes say that they are a header at `lsn`: what can be seen without knowing whose.
    pub(crate) fn is_claimed(bytes: &[u8], lsn: u64) -> bool {
        Raw::ref_from_prefix(bytes).is_ok_and(|(raw, _)| raw.magic == MAGIC && raw.lsn.get() == lsn)
    }

    /// Decodes the header that must be at `lsn`; `None` when these bytes are not one.
    pub(crate) fn decode(bytes: &[u8], lsn: u64, log: Seed) -> Option<Self> {
        if !Self::is_claimed(bytes, lsn) {
            return None;
        }
        let (raw, _) = Raw::read_from_prefix(bytes).ok()?;
        if raw.crc.get() != crc32c::crc32c_append(log.0, &bytes[CRC_LEN..GROUP_HEADER_LEN]) {
            return None;
        }
        let header = GroupHeader {
            kind: GroupKind::from_byte(raw.kind)?,
            padding: u32::from(raw.padding.get()) * 8,
            len: raw.len.get(),
            generation: raw.generation.get(),
            lsn,
            durable_lsn: raw.durable_lsn.get(),
            first_seq: raw.first_seq.get(),
        };
        let sane = header.len as usize >= GROUP_HEADER_LEN
            && u64::from(header.len).is_multiple_of(ALIGN)
            && header.durable_lsn <= lsn
            && header.next_lsn().is_some();
        sane.then_some(header)
    }

    /// Position one past the last frame, or `None` past `u64::MAX`.
    pub(crate) fn frames_end(&self) -> Option<u64> {
        self.lsn.checked_add(u64::from(self.len))
    }

    /// Position of the next group.
    pub(crate) fn next_lsn(&self) -> Option<u64> {
        self.frames_end()?.checked_add(u64::from(self.padding))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const KINDS: [GroupKind; 5] =
        [GroupKind::Records, GroupKind::Mark, GroupKind::Seal, GroupKind::Head, GroupKind::Cut];

    fn log() -> Seed {
        Seed::of_log(Uuid::from_u128(5))
    }

    fn header() -> GroupHeader {
        GroupHeader {
            kind: GroupKind::Records,
            padding: 16,
            len: 4096,
            generation: 2,
            lsn: 1 << 33,
            durable_lsn: (1 << 33) - 80,
            first_seq: 900,
        }
    }

    #[test]
    fn a_header_is_laid_out_as_documented() {
        let bytes = header().encode(log());
        assert_eq!(bytes[4..12], [0xC7, 1, 2, 0, 0, 0x10, 0, 0]);
        assert_eq!(bytes[12..16], 2u32.to_le_bytes());
        assert_eq!(bytes[16..24], (1u64 << 33).to_le_bytes());
        assert_eq!(bytes[24..32], ((1u64 << 33) - 80).to_le_bytes());
        assert_eq!(bytes[32..40], 900u64.to_le_bytes());
        let covered = [&5u128.to_be_bytes()[..], &bytes[4..]].concat();
        assert_eq!(bytes[..4], crc32c::crc32c(&covered).to_le_bytes());
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = header().encode(log());
        for bit in 0..good.len() * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(GroupHeader::decode(&bytes, header().lsn, log()), None, "bit {bit}");
        }
    }

    #[test]
    fn a_header_verifies_nowhere_else_and_zeros_never() {
        let bytes = header().encode(log());
        for lsn in [0, header().lsn - 8, header().lsn + 8, u64::MAX] {
            assert_eq!(GroupHeader::decode(&bytes, lsn, log()), None);
        }
        assert_eq!(GroupHeader::decode(&bytes, header().lsn, Seed::of_log(Uuid::from_u128(6))), None);
        for len in 0..GROUP_HEADER_LEN {
            assert_eq!(GroupHeader::decode(&bytes[..len], header().lsn, log()), None);
        }
        assert_eq!(GroupHeader::decode(&[0; GROUP_HEADER_LEN], 0, log()), None);
    }

    /// The header with a right checksum, whatever it says.
    fn signed(change: impl Fn(&mut [u8])) -> [u8; GROUP_HEADER_LEN] {
        let mut bytes = header().encode(log());
        change(&mut bytes);
        let crc = crc32c::crc32c_append(log().0, &bytes[CRC_LEN..]);
        bytes[..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn impossible_values_are_refused_under_a_right_checksum() {
        let lsn = header().lsn;
        let refused = |bytes: [u8; GROUP_HEADER_LEN]| assert_eq!(GroupHeader::decode(&bytes, lsn, log()), None);
        assert_eq!(GroupHeader::decode(&signed(|_| ()), lsn, log()), Some(header()));
        [0, 6, 255].into_iter().for_each(|kind| refused(signed(|b| b[5] = kind)));
        [0u32, 39, 41, 44]
            .into_iter()
            .for_each(|len| refused(signed(|b| b[8..12].copy_from_slice(&len.to_le_bytes()))));
        refused(signed(|b| b[24..32].copy_from_slice(&(lsn + 8).to_le_bytes())));
        let at_the_end = signed(|b| b[16..24].copy_from_slice(&(u64::MAX - 7).to_le_bytes()));
        assert_eq!(GroupHeader::decode(&at_the_end, u64::MAX - 7, log()), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            kind in 0..5usize, padding: u16, len in 5u32..1 << 28, generation: u32, lsn in 0..1u64 << 63, below: u64, first_seq: u64,
        ) {
            let header = GroupHeader {
                kind: KINDS[kind],
                padding: u32::from(padding) * 8,
                len: len * 8,
                generation,
                lsn,
                durable_lsn: lsn.saturating_sub(below),
                first_seq,
            };
            let bytes = header.encode(log());
            prop_assert_eq!(GroupHeader::decode(&bytes, lsn, log()), Some(header));
            let next = header.next_lsn().unwrap();
            prop_assert_eq!(next, lsn + u64::from(header.len) + u64::from(header.padding));
        }

        #[test]
        fn arbitrary_bytes_are_no_header(bytes: Vec<u8>, lsn: u64) {
            prop_assert_eq!(GroupHeader::decode(&bytes, lsn, log()), None);
        }
    }
}
