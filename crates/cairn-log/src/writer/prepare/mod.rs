//! What is done ahead of the writer, by a thread of its own, so that a commit never waits for it:
//! zeros where the next groups go, and the next segment, in the file of a dropped one if there is
//! one, which needs no zeros, in a new one otherwise.
//!
//! A barrier behind a write into zeros that are there has only the write to wait for. Behind a
//! write into space that is merely reserved, or that makes the file longer, it waits for the file
//! system's bookkeeping as well, which takes about as long again.
//!
//! Invariants:
//! 1. Zeros are only written between `zeroing.start` and `zeroing.end`, and no slot is open, and
//!    none is opened, for anything at or behind that start meanwhile. Otherwise: 1. a record is
//!    written and acknowledged, 2. the zeros land on it.
//! 2. Nothing is zeroed or reserved while the active segment is cut or sealed: the thread that
//!    freezes the log waits for that. Otherwise zeros land behind the seal, or in the file of a
//!    segment that is no longer active.
//! 3. The file of a dropped segment changes only once it has lost its segment's name for good.
//!    Otherwise: 1. its superblock is overwritten, 2. power fails, 3. the name is back, and what
//!    bears it is no segment: the log is not opened.
//! 4. It begins with zeros in place of its superblock and its first groups before it gets another
//!    name, and the superblock that it gets says that it was used. What else is in it verifies
//!    nowhere in its new place (L18), and is not taken for a torn tail.
//! 5. Everything here may fail without harm. Then the writer does without.
//! 6. A successor that has its name ahead says where it starts, whose generation it is, and where
//!    the log begins. So before any of that becomes wrong the name is taken away for good: before
//!    the head moves, before a generation starts, before a segment is begun at another place
//!    (`Leading::retract_successor` has the crashes). From the first byte of the seal on it is
//!    never taken away: 1. the seal is durable, although its write failed, 2. the name goes, 3. a
//!    sealed segment without a successor is a loss, and the log is not opened.

pub(crate) mod jobs;
mod plan;

use std::ops::Range;

use cairn_io::Store;

use crate::format::SegmentName;
use crate::mutation::{self, Mutation};
use crate::place::Lsn;
use crate::segment::file::ActiveSegment;
use crate::segment::space::{Room, SpareFile};
use crate::sync::Arc;

/// Flushes of this size or more gain nothing from zeros that cost a write of their own.
const SMALL_FLUSH_BYTES: u64 = 256 << 10;

/// Flushes without zeros after a writer had to wait for some.
const OUTRUN_FLUSHES: u32 = 64;

/// Room of a slot that is opened where there are no zeros yet, or few, while they would help: so
/// that they can be written close behind.
const UNPREPARED_ROOM_BYTES: u64 = 256 << 10;

/// If at least this many zeroed bytes follow, the slot ends where they end. A slot that reached
/// further would leave a gap that is never zeroed.
const PREPARED_ROOM_BYTES: u64 = 64 << 10;

/// What is prepared for the active segment.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Every block was written once up to this position, with zeros or with what was there before
    /// the file was this segment's: writing there again changes nothing but bytes.
    pub(crate) filled: Lsn,
    /// Zeros are being written here.
    pub(crate) zeroing: Option<Range<Lsn>>,
    /// Whether the last flush was one that zeros help. Until there is one, that is what is
    /// expected.
    pub(super) small: bool,
    /// So many flushes do without zeros, because a writer had to wait for some: it is faster than
    /// they are.
    pub(super) outrun: u32,
    /// Space is being reserved.
    pub(super) reserving: bool,
    /// It failed for this segment: for lack of space, most likely.
    pub(super) gave_up: bool,
    pub(super) spare: Spare,
    /// The name that the successor has, or may have, because giving it failed half-way.
    pub(super) name: Option<SegmentName>,
    /// Whether a thread runs a job.
    pub(super) claimed: bool,
    /// A sealed segment's file that is longer than what it holds, and how long it is to be.
    pub(super) sealed: Option<(Arc<dyn Store>, u64)>,
    /// Whether space is to be kept again for the next opening.
    pub(super) lacks_kept: bool,
}

/// The file that will be the next segment.
#[derive(Debug, Default)]
pub(crate) enum Spare {
    #[default]
    None,
    Making,
    Ready(SpareFile),
    /// It is being given the next segment's name.
    Naming,
    Named(Box<Successor>),
}

/// The next segment, whole and durable under its name, while the active one is still written to.
#[derive(Clone, Debug)]
pub(crate) struct Successor {
    pub(super) segment: ActiveSegment,
    pub(super) spare: SpareFile,
}

impl Prepared {
    /// For a segment whose blocks were written once up to `filled`.
    pub(crate) fn new(filled: Lsn) -> Self {
        Prepared {
            filled,
            zeroing: None,
            small: true,
            outrun: 0,
            reserving: false,
            gave_up: false,
            spare: Spare::None,
            name: None,
            claimed: false,
            sealed: None,
            lacks_kept: false,
        }
    }

    /// Whether no thread runs a job.
    pub(super) fn is_free(&self) -> bool {
        !self.claimed || mutation::is(Mutation::PrepareTwice)
    }

    /// The same for the next segment.
    pub(crate) fn start_in(&mut self, filled: Lsn) {
        (self.filled, self.gave_up) = (filled, false);
    }

    /// Has a sealed segment's file cut off behind what it holds.
    pub(crate) fn trim(&mut self, store: Arc<dyn Store>, len: u64) {
        self.sealed = Some((store, len));
    }

    /// Records that an appender had to wait for zeroing: zeroing is slower than the writer, so the
    /// next 64 flushes go into unzeroed space.
    pub(crate) fn note_wait(&mut self) {
        (self.small, self.outrun) = (false, OUTRUN_FLUSHES);
    }

    /// Takes note of a flush, in order to prepare for the next.
    pub(crate) fn note_flush(&mut self, bytes: u64, durable: bool) {
        self.outrun = self.outrun.saturating_sub(1);
        self.small = durable && bytes < SMALL_FLUSH_BYTES && self.outrun == 0;
    }

    /// How far behind `start` a slot may go, given that it may go `room` far; `None` when it has to
    /// wait.
    pub(crate) fn room(&self, start: Lsn, room: u64, wanted: u64) -> Option<u64> {
        let room = match &self.zeroing {
            Some(zeroing) if !mutation::is(Mutation::ZeroUnderWriters) => {
                room.min(zeroing.start.saturating_since(start))
            }
            _ => room,
        };
        if room < wanted {
            return None;
        }
        if !self.small || self.gave_up {
            return Some(room);
        }
        let zeros = self.filled.saturating_since(start);
        let enough = zeros >= wanted.max(PREPARED_ROOM_BYTES);
        Some(room.min(if enough { zeros } else { UNPREPARED_ROOM_BYTES.max(wanted) }))
    }

    /// The spare file, if there is one; it is not spare any more. The successor has no name.
    pub(crate) fn take_spare(&mut self) -> Option<SpareFile> {
        match std::mem::take(&mut self.spare) {
            Spare::Ready(spare) => Some(spare),
            _ => None,
        }
    }

    /// Where the successor starts, if it has its name.
    pub(crate) fn successor_base(&self) -> Option<Lsn> {
        match &self.spare {
            Spare::Named(successor) => Some(successor.segment.file.superblock.base_lsn),
            _ => None,
        }
    }

    /// If `wanted`, the successor that has its name, for the log to go on there. The name stays,
    /// whatever happens.
    pub(crate) fn take_successor_if(&mut self, wanted: bool) -> Option<(ActiveSegment, Room)> {
        match std::mem::take(&mut self.spare) {
            Spare::Named(successor) if wanted => {
                self.name = None;
                Some((successor.segment, successor.spare.room))
            }
            other => {
                self.spare = other;
                None
            }
        }
    }

    /// Whether the active segment's file is being changed, or its end decided.
    pub(crate) fn changes_segment(&self) -> bool {
        self.zeroing.is_some() || self.reserving || matches!(self.spare, Spare::Naming)
    }

    /// Whether something could not be prepared, most likely for lack of space.
    pub(crate) fn is_short(&self) -> bool {
        self.gave_up
    }

    /// No space is kept for the next opening: it is to be kept when there is some.
    pub(crate) fn note_spent(&mut self) {
        self.lacks_kept = true;
    }

    /// After a job that panicked: nothing is being prepared, and nothing will be.
    fn abort(&mut self) {
        (self.zeroing, self.reserving, self.gave_up) = (None, false, true);
        if let Spare::Making | Spare::Naming = self.spare {
            self.spare = Spare::None;
        }
    }
}
