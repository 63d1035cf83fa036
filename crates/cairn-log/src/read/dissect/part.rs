//! What the parts of a segment's file are.

use std::path::Path;

use uuid::Uuid;

use crate::format::{
    Frame, FrameKind, GroupHeader, GroupKind, HeadMark, OPEN_SEQ, SegmentName, Superblock,
    SuperblockError, decode_index,
};
use crate::place::{Chain, Lsn, Seq};

/// What the first 4096 bytes of the file say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentHead {
    /// Whether they verify. If not, the fields below are what they say, or 0; position and
    /// identity may then also be from the file's name or the caller.
    pub state: HeadState,
    /// Identity of the log.
    pub uuid: Uuid,
    /// Counts cuts.
    pub generation: u32,
    /// Position of the first group.
    pub base_lsn: Lsn,
    /// Number of the first record; `None` if the first group tells it.
    pub base_seq: Option<Seq>,
    /// Records below this had been dropped when the segment was made.
    pub head_lsn: Lsn,
    /// Number of the first record at or behind `head_lsn`.
    pub head_seq: Seq,
    /// Configured size in bytes when the segment was made.
    pub segment_size: u64,
    /// Nanoseconds since 1970-01-01 UTC.
    pub created_unix_ns: u64,
    /// Length in bytes of the dropped segment's file that this one was made in; 0 if it was new.
    pub recycled_len: u64,
    /// The opening that made it.
    pub epoch: u64,
    /// Where the log was cut, if a cut made the segment.
    pub cut_lsn: Option<Lsn>,
}

/// What can be said of a superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadState {
    /// It verifies.
    Valid,
    /// It is of this format, and damaged or cut short.
    Damaged,
    /// It is not of this format, or its first bytes are gone.
    Foreign,
    /// It is whole, and of another version of the format.
    Version(u32),
    /// The device cannot read it.
    Unreadable,
}

/// A part of a segment's file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// File offset of its first byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Position of its first byte in the log.
    pub lsn: Lsn,
    /// What it is.
    pub kind: PartKind,
}

/// What a [`Part`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartKind {
    /// A group's header that verifies. Its frames are the parts that follow.
    Group(GroupPart),
    /// A record's frame that verifies.
    Record {
        /// Its number; `None` if what precedes it in the group, or the header, does not verify.
        seq: Option<Seq>,
        /// Bytes of the record. It starts 12 bytes behind the frame.
        payload_len: u64,
    },
    /// The index of a sealed segment.
    Index {
        /// Groups that it lists.
        entries: u64,
    },
    /// The log started here when this was written.
    Head {
        /// Position of the oldest record.
        lsn: Lsn,
        /// Its number.
        seq: Seq,
    },
    /// In a store: the log was cut here.
    Cut {
        /// Everything from this position up to the note was dropped.
        lsn: Lsn,
        /// Number of the next record.
        seq: Seq,
    },
    /// The last bytes of a sealed segment, which lead back to its seal.
    Trailer,
    /// Zeros between a group's frames and the next group.
    Padding,
    /// Zeros where no group is.
    Zeros,
    /// Bytes that verify as nothing.
    Unverified,
    /// Bytes that the device cannot read.
    Unreadable,
}

/// A group's header.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupPart {
    /// What it holds: `records`, `mark`, `seal`, `head` or `cut`.
    pub holds: &'static str,
    /// Header and frames in bytes.
    pub len: u64,
    /// Zero bytes behind them.
    pub padding: u64,
    /// Counts cuts.
    pub generation: u32,
    /// Everything below this was durable when the group was written: the watermark.
    pub durable_lsn: Lsn,
    /// Number of its first record, or of the next one.
    pub first_seq: Seq,
    /// The opening that wrote it.
    pub epoch: u64,
    /// Names the group before it.
    pub previous: u32,
    /// What the next group names this one by.
    pub chain: u32,
    /// Whether `previous` names the group before it in this file; `None` if that one is not known.
    pub follows: Option<bool>,
}

impl GroupPart {
    /// A header that the next group names `chain`, behind the group that is named `before`.
    pub(super) fn of(header: &GroupHeader, chain: Chain, before: Option<Chain>) -> Self {
        GroupPart {
            holds: holds(header.kind),
            len: header.len.into(),
            padding: header.padding.into(),
            generation: header.generation,
            durable_lsn: header.durable_lsn,
            first_seq: header.first_seq,
            epoch: header.epoch.0,
            previous: header.previous.0,
            chain: chain.0,
            follows: before.map(|before| before == header.previous),
        }
    }
}

fn holds(kind: GroupKind) -> &'static str {
    match kind {
        GroupKind::Records => "records",
        GroupKind::Mark => "mark",
        GroupKind::Seal => "seal",
        GroupKind::Head => "head",
        GroupKind::Cut => "cut",
    }
}

impl PartKind {
    /// What a frame that verifies is; `None` if its payload is none of its kind.
    pub(super) fn of(frame: &Frame<'_>) -> Option<Self> {
        let mark = || HeadMark::decode(frame.payload);
        Some(match frame.kind {
            FrameKind::Record => {
                PartKind::Record { seq: None, payload_len: frame.payload.len() as u64 }
            }
            FrameKind::Index => {
                PartKind::Index { entries: decode_index(frame.payload)?.len() as u64 }
            }
            FrameKind::Head => mark().map(|HeadMark { lsn, seq, .. }| Self::Head { lsn, seq })?,
            FrameKind::Cut => mark().map(|HeadMark { lsn, seq, .. }| Self::Cut { lsn, seq })?,
        })
    }
}

impl SegmentHead {
    /// What the first bytes of the file at `path` say.
    pub(super) fn of(block: &[u8], path: &Path) -> Self {
        let state = match Superblock::decode(block) {
            Ok(superblock) => return Self::valid(&superblock),
            Err(SuperblockError::Damaged) => HeadState::Damaged,
            Err(SuperblockError::Version(version)) => HeadState::Version(version),
            Err(SuperblockError::Foreign) => HeadState::Foreign,
        };
        let name = path.file_name().and_then(|name| SegmentName::parse(name.to_str()?));
        let (uuid, generation, base_lsn, epoch) = Superblock::claimed(block).unwrap_or_default();
        SegmentHead {
            state,
            uuid,
            generation: name.map_or(generation, |name| name.generation),
            base_lsn: name.map_or(base_lsn, |name| name.base_lsn),
            base_seq: None,
            head_lsn: Lsn::START,
            head_seq: Seq(0),
            segment_size: 0,
            created_unix_ns: 0,
            recycled_len: 0,
            epoch: epoch.0,
            cut_lsn: None,
        }
    }

    fn valid(superblock: &Superblock) -> Self {
        SegmentHead {
            state: HeadState::Valid,
            uuid: superblock.uuid,
            generation: superblock.generation,
            base_lsn: superblock.base_lsn,
            base_seq: Some(superblock.base_seq).filter(|seq| *seq != OPEN_SEQ),
            head_lsn: superblock.head_lsn,
            head_seq: superblock.head_seq,
            segment_size: superblock.segment_size,
            created_unix_ns: superblock.created_unix_ns,
            recycled_len: superblock.recycled_len,
            epoch: superblock.epoch.0,
            cut_lsn: superblock.cut.map(|cut| cut.lsn),
        }
    }
}
