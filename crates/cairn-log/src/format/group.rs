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

    /// Decodes the header that must be at `lsn`; `None` when these bytes are not one.
    pub(crate) fn decode(bytes: &[u8], lsn: u64, log: Seed) -> Option<Self> {
        let (raw, _) = Raw::read_from_prefix(bytes).ok()?;
        if raw.magic != MAGIC || raw.lsn.get() != lsn {
            return None;
        }
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
