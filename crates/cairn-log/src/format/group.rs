//! The header of a group: what one flush wrote, and what was known to be durable by then.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{ALIGN, Seed};
use crate::place::{Chain, Epoch, Lsn, Seq};

/// Bytes of a group header.
pub(crate) const GROUP_HEADER_LEN: usize = size_of::<Raw>();

const MAGIC: u8 = 0xC7;
const CRC_LEN: usize = 4;
const _: () = assert!(GROUP_HEADER_LEN == 56);
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
    epoch: U64,
    previous: U32,
    /// How the frames are encoded; 0: as they are.
    codec: u8,
    reserved: u8,
    /// The key they are encrypted with; 0: none.
    key: U16,
}

/// What a group holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupKind {
    /// Records, at least one.
    Records,
    /// Nothing: says that everything before it is durable. The last group after a clean close and
    /// after a cut. In a store, the only group at which the generation may rise.
    Mark,
    /// The sparse index and the trailer: the last group of a sealed segment.
    Seal,
    /// The new head after a `truncate_before`.
    Head,
    /// In a store: everything from the LSN it names up to this group was dropped by a
    /// `truncate_after`.
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
    pub(crate) lsn: Lsn,
    /// Everything below this was durable when the group was sealed: at most `lsn`.
    pub(crate) durable_lsn: Lsn,
    /// Number of the first record in the group, or of the next record when it holds none.
    pub(crate) first_seq: Seq,
    /// The opening that wrote it.
    pub(crate) epoch: Epoch,
    /// Names the group before this one.
    pub(crate) previous: Chain,
}

impl GroupHeader {
    pub(crate) fn encode(&self, log: Seed) -> [u8; GROUP_HEADER_LEN] {
        assert!(
            self.durable_lsn <= self.lsn,
            "a group cannot know more durable than what precedes it"
        );
        assert!(
            u64::from(self.len).is_multiple_of(ALIGN)
                && u64::from(self.padding).is_multiple_of(ALIGN)
        );
        let padding = u16::try_from(u64::from(self.padding) / ALIGN);
        let mut raw = Raw {
            crc: U32::new(0),
            magic: MAGIC,
            kind: self.kind.to_byte(),
            padding: U16::new(
                padding.expect("padding is bounded by the block size, far below 512 KiB"),
            ),
            len: U32::new(self.len),
            generation: U32::new(self.generation),
            lsn: U64::new(self.lsn.0),
            durable_lsn: U64::new(self.durable_lsn.0),
            first_seq: U64::new(self.first_seq.0),
            epoch: U64::new(self.epoch.0),
            previous: U32::new(self.previous.0),
            codec: 0,
            reserved: 0,
            key: U16::new(0),
        };
        raw.crc = U32::new(crc32c::crc32c_append(log.0, &raw.as_bytes()[CRC_LEN..]));
        let mut bytes = [0; GROUP_HEADER_LEN];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// Whether these bytes say that they are a header at `lsn`: what can be seen without knowing
    /// whose.
    pub(crate) fn is_claimed(bytes: &[u8], lsn: Lsn) -> bool {
        Raw::ref_from_prefix(bytes)
            .is_ok_and(|(raw, _)| raw.magic == MAGIC && raw.lsn.get() == lsn.0)
    }

    /// The opening that a damaged header names, perhaps. Not verified: only good for looking
    /// whether frames behind it verify with it.
    pub(crate) fn claimed_epoch(bytes: &[u8]) -> Option<Epoch> {
        Raw::ref_from_prefix(bytes).ok().map(|(raw, _)| Epoch(raw.epoch.get()))
    }

    /// Decodes the header that must be at `lsn`; `None` when these bytes are not one.
    pub(crate) fn decode(bytes: &[u8], lsn: Lsn, log: Seed) -> Option<Self> {
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
            durable_lsn: Lsn(raw.durable_lsn.get()),
            first_seq: Seq(raw.first_seq.get()),
            epoch: Epoch(raw.epoch.get()),
            previous: Chain(raw.previous.get()),
        };
        let plain = raw.codec == 0 && raw.reserved == 0 && raw.key.get() == 0;
        let sane = plain
            && header.len as usize >= GROUP_HEADER_LEN
            && u64::from(header.len).is_multiple_of(ALIGN)
            && header.durable_lsn <= lsn
            && header.next_lsn().is_some();
        sane.then_some(header)
    }

    /// What the next group names this one by.
    pub(crate) fn chain(&self, log: Seed) -> Chain {
        chain_of(&self.encode(log))
    }

    /// Position one past the last frame, or `None` past `u64::MAX`.
    pub(crate) fn frames_end(&self) -> Option<Lsn> {
        self.lsn.checked_add(u64::from(self.len))
    }

    /// Position of the next group.
    pub(crate) fn next_lsn(&self) -> Option<Lsn> {
        self.frames_end()?.checked_add(u64::from(self.padding))
    }
}

/// What the next group names the one by that has this header.
pub(crate) fn chain_of(header: &[u8]) -> Chain {
    let crc = header.first_chunk::<CRC_LEN>().copied().unwrap_or_default();
    Chain(u32::from_le_bytes(crc))
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
            lsn: Lsn(1 << 33),
            durable_lsn: Lsn((1 << 33) - 80),
            first_seq: Seq(900),
            epoch: Epoch(0x0102_0304_0506_0708),
            previous: Chain(0x1122_3344),
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
        assert_eq!(bytes[40..48], 0x0102_0304_0506_0708u64.to_le_bytes());
        assert_eq!(bytes[48..52], 0x1122_3344u32.to_le_bytes());
        assert_eq!(bytes[52..], [0; 4]);
        assert_eq!(header().chain(log()), chain_of(&bytes));
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
        for lsn in [0, header().lsn.0 - 8, header().lsn.0 + 8, u64::MAX].map(Lsn) {
            assert_eq!(GroupHeader::decode(&bytes, lsn, log()), None);
        }
        assert_eq!(
            GroupHeader::decode(&bytes, header().lsn, Seed::of_log(Uuid::from_u128(6))),
            None
        );
        for len in 0..GROUP_HEADER_LEN {
            assert_eq!(GroupHeader::decode(&bytes[..len], header().lsn, log()), None);
        }
        assert_eq!(GroupHeader::decode(&[0; GROUP_HEADER_LEN], Lsn(0), log()), None);
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
        let refused = |bytes: [u8; GROUP_HEADER_LEN]| {
            assert_eq!(GroupHeader::decode(&bytes, lsn, log()), None)
        };
        assert_eq!(GroupHeader::decode(&signed(|_| ()), lsn, log()), Some(header()));
        [0, 6, 255].into_iter().for_each(|kind| refused(signed(|b| b[5] = kind)));
        [0u32, 8, 48, 55, 57, 60]
            .into_iter()
            .for_each(|len| refused(signed(|b| b[8..12].copy_from_slice(&len.to_le_bytes()))));
        // Compressed or encrypted: another version of the format.
        (52..56).for_each(|at| refused(signed(|b| b[at] = 1)));
        refused(signed(|b| b[24..32].copy_from_slice(&(lsn.0 + 8).to_le_bytes())));
        let at_the_end = signed(|b| b[16..24].copy_from_slice(&(u64::MAX - 7).to_le_bytes()));
        assert_eq!(GroupHeader::decode(&at_the_end, Lsn(u64::MAX - 7), log()), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            kind in 0..5usize, padding: u16, len in 7u32..1 << 28, epoch: u64, previous: u32,
                generation: u32, lsn in 0..1u64 << 63, below: u64, first_seq: u64,
        ) {
            let header = GroupHeader {
                kind: KINDS[kind],
                padding: u32::from(padding) * 8,
                len: len * 8,
                generation,
                lsn: Lsn(lsn),
                durable_lsn: Lsn(lsn.saturating_sub(below)),
                first_seq: Seq(first_seq),
                epoch: Epoch(epoch),
                previous: Chain(previous),
            };
            let bytes = header.encode(log());
            prop_assert_eq!(GroupHeader::decode(&bytes, Lsn(lsn), log()), Some(header));
            let next = header.next_lsn().unwrap();
            prop_assert_eq!(next, Lsn(lsn) + u64::from(header.len) + u64::from(header.padding));
        }

        #[test]
        fn arbitrary_bytes_are_no_header(bytes: Vec<u8>, lsn: u64) {
            prop_assert_eq!(GroupHeader::decode(&bytes, Lsn(lsn), log()), None);
        }
    }
}
