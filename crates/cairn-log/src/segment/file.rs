//! A segment as a file: who it is, and what is written to while it is active.

use std::path::Path;
use std::sync::Arc;

use cairn_io::{FileId, Store};

use crate::format::{DATA_OFFSET, OPEN_SEQ, SECTOR_LEN, STORE_SIZE, Seed, SegmentName, Superblock};
use crate::place::{Chain, Epoch, FileOffset, Lsn, Place, Seq};
use crate::segment::span::Span;

/// A segment whose superblock verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentFile {
    pub(crate) superblock: Superblock,
    /// Number of the first record, when the superblock or something else tells it.
    pub(crate) base_seq: Option<Seq>,
    /// When the segment was begun, in nanoseconds since 1970, or later: the segment before it was
    /// not written to after that.
    pub(crate) begun_unix_ns: u64,
    /// Length of the file in bytes when it was looked at; 0 if it was not.
    pub(crate) file_len: u64,
    /// Which file had its name when it was looked at or created; none in a store. As long as the
    /// file is open, nothing else gets this id.
    pub(crate) id: Option<FileId>,
    /// What its first group says of where it belongs, if that was looked at and verifies.
    pub(crate) first: Option<First>,
    /// Whether the superblock is lost, and what it says is only what name and groups tell.
    pub(crate) is_headless: bool,
}

/// What the first group of a segment says of where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct First {
    pub(crate) previous: Chain,
    pub(crate) epoch: Epoch,
}

impl SegmentFile {
    pub(crate) fn new(superblock: Superblock, file_len: u64) -> Self {
        let base_seq = Some(superblock.base_seq).filter(|seq| *seq != OPEN_SEQ);
        SegmentFile {
            superblock,
            base_seq,
            begun_unix_ns: superblock.created_unix_ns,
            file_len,
            id: None,
            first: None,
            is_headless: false,
        }
    }

    /// How the layout knows it.
    pub(crate) fn name(&self) -> SegmentName {
        self.superblock.name()
    }

    /// Where it starts. Number 0 if the number is unknown; such a log is reported as corrupt and
    /// never opened.
    pub(crate) fn base(&self) -> Place {
        Place { lsn: self.superblock.base_lsn, seq: self.base_seq.unwrap_or_default() }
    }

    /// Takes note that its first record gets this number, and that it is begun now.
    pub(crate) fn begin(&mut self, seq: Seq, now_unix_ns: u64) {
        self.base_seq = Some(seq);
        self.begun_unix_ns = now_unix_ns;
    }

    /// Where in the file the byte at `lsn` is; 0 if it lies before the segment.
    pub(crate) fn offset(&self, lsn: Lsn) -> FileOffset {
        let base = self.superblock.base_lsn;
        FileOffset(lsn.checked_since(base).map_or(0, |len| DATA_OFFSET.saturating_add(len)))
    }

    /// One past the last position the file has bytes for.
    pub(crate) fn file_end_lsn(&self) -> Lsn {
        self.superblock.base_lsn.saturating_add(self.file_len.saturating_sub(DATA_OFFSET))
    }

    /// The segment's readable part up to `end_lsn`, which is in `store`. Messages call it `path`.
    pub(crate) fn span(&self, store: Arc<dyn Store>, path: Arc<Path>, end_lsn: Lsn) -> Span {
        Span {
            store,
            path,
            uuid: self.superblock.uuid,
            generation: self.superblock.generation,
            base_lsn: self.superblock.base_lsn,
            base_seq: self.base().seq,
            is_numbered: self.base_seq.is_some(),
            recycled: self.superblock.recycled_len > 0,
            epoch: self.superblock.epoch,
            generation_rises: self.superblock.segment_size == STORE_SIZE,
            end_lsn,
            may_read_ahead: false,
            gaps: Vec::new(),
        }
    }
}

/// The segment that is written to.
#[derive(Clone, Debug)]
pub(crate) struct ActiveSegment {
    pub(crate) file: SegmentFile,
    /// What messages call it.
    pub(crate) path: Arc<Path>,
    pub(crate) store: Arc<dyn Store>,
    /// The opening that writes to it.
    pub(crate) epoch: Epoch,
}

impl ActiveSegment {
    pub(crate) fn offset(&self, lsn: Lsn) -> FileOffset {
        FileOffset(DATA_OFFSET + (lsn - self.file.superblock.base_lsn))
    }

    pub(crate) fn seed(&self) -> Seed {
        let Superblock { uuid, generation, .. } = self.file.superblock;
        Seed::of_frames(uuid, generation, self.epoch)
    }

    /// How many zeros a write that ends at this position is to have behind it, so that the end of
    /// the log can be told from what lies there.
    pub(crate) fn zeros_behind(&self, end_lsn: Lsn) -> usize {
        if self.file.superblock.recycled_len == 0 {
            return 0;
        }
        let sector = SECTOR_LEN as u64;
        let end = self.offset(end_lsn).within(sector);
        usize::try_from((sector - end) % sector).expect("less than a sector")
    }

    pub(crate) fn log_seed(&self) -> Seed {
        Seed::of_log(self.file.superblock.uuid)
    }
}
