//! The readable part of one segment, and how damage in it is named.

use std::path::Path;
use std::sync::Arc;

use cairn_io::Store;
use uuid::Uuid;

use crate::error::{Corruption, CorruptionKind};
use crate::format::{
    DATA_OFFSET, GROUP_HEADER_LEN, GapNote, GroupHeader, GroupKind, SECTOR_LEN, Seed, TRAILER_LEN,
    decode_trailer,
};
use crate::place::{Epoch, FileOffset, Lsn, Seq};

/// The readable part of one segment.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) path: Arc<Path>,
    pub(crate) uuid: Uuid,
    /// Generation of the frames at `base_lsn`.
    pub(crate) generation: u32,
    pub(crate) base_lsn: Lsn,
    pub(crate) base_seq: Seq,
    /// Whether that number is known.
    pub(crate) is_numbered: bool,
    /// Whether something else than zeros may lie behind the last group: what the file held before
    /// it became this segment.
    pub(crate) recycled: bool,
    /// The opening that made the segment.
    pub(crate) epoch: Epoch,
    /// Whether a generation may begin inside of it, as in a store.
    pub(crate) generation_rises: bool,
    /// Exclusive: nothing at or after this position belongs to the log. `u64::MAX` when the end is
    /// to be found.
    pub(crate) end_lsn: Lsn,
    /// Whether a thread of its own may read ahead for who reads on and on.
    pub(crate) may_read_ahead: bool,
    /// Ranges that a repair recorded as lost, by position; none is looked at.
    pub(crate) gaps: Vec<GapNote>,
}

impl Span {
    /// File offset of the byte at `lsn`; saturates, because positions past `u64::MAX` do not exist.
    pub(crate) fn offset(&self, lsn: Lsn) -> FileOffset {
        FileOffset(DATA_OFFSET.saturating_add(lsn.saturating_since(self.base_lsn)))
    }

    /// Bytes from `end` to the end of the sector in which the byte at `end` lies. In a recycled
    /// segment 0 where a group ends with a sector: what the file held before follows there.
    pub(crate) fn rest_of_sector(&self, end: Lsn) -> u64 {
        let (within, sector) = (self.offset(end).within(SECTOR_LEN as u64), SECTOR_LEN as u64);
        let stale = self.recycled && within == 0 && end != self.base_lsn;
        if stale { 0 } else { sector - within }
    }

    /// One past the last byte that is not zero in the rest of the sector in which the log ends at
    /// `end`; `end` if there is none, or it cannot be read.
    ///
    /// In a recycled segment such a byte is of a write that began at `end`: each flush fills its
    /// last sector up with zeros, and the segment began with zeros.
    pub(crate) fn written_behind(&self, end: Lsn) -> Lsn {
        let mut bytes = [0; SECTOR_LEN];
        let rest = usize::try_from(self.rest_of_sector(end)).unwrap_or(SECTOR_LEN);
        let bytes = &mut bytes[..rest];
        let read = self.store.read_at(self.offset(end).0, bytes).unwrap_or(0);
        bytes[..read].iter().rposition(|b| *b != 0).map_or(end, |last| end + last as u64 + 1)
    }

    pub(crate) fn corruption(&self, damage: Damage, resumes: Option<Lsn>) -> Corruption {
        Corruption {
            path: self.path.to_path_buf(),
            lsn: damage.lsn,
            offset: self.offset(damage.lsn).0,
            resumes,
            kind: damage.kind,
            lost: None,
        }
    }
}

/// The first bytes that do not verify. Whether that is the end, a torn tail or corruption is for
/// the caller to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Start of the group or frame.
    pub(crate) lsn: Lsn,
    pub(crate) kind: CorruptionKind,
}

/// The header of the seal with which the span ends, if trailer and header verify.
pub(crate) fn seal_before(span: &Span) -> Option<GroupHeader> {
    let read = |lsn, buf: &mut [u8]| {
        (span.store.read_at(span.offset(lsn).0, buf).ok()? == buf.len()).then_some(())
    };
    let mut trailer = [0; TRAILER_LEN];
    let trailer_lsn =
        span.end_lsn.checked_back(TRAILER_LEN as u64).filter(|lsn| *lsn >= span.base_lsn)?;
    read(trailer_lsn, &mut trailer)?;
    let len = u64::from(decode_trailer(&trailer)?);
    let lsn = span.end_lsn.checked_back(len).filter(|lsn| *lsn >= span.base_lsn)?;
    let mut header = [0; GROUP_HEADER_LEN];
    read(lsn, &mut header)?;
    let header = GroupHeader::decode(&header, lsn, Seed::of_log(span.uuid))?;
    (header.kind == GroupKind::Seal && header.generation == span.generation).then_some(header)
}
