//! What a writer knows: positions, what is closed and not yet written, and why it stopped. Memory
//! only; [the writer](crate::writer) does the I/O.

use std::collections::VecDeque;

use crate::clock::unix_ns;
use crate::error::Result;
use crate::format::{GROUP_HEADER_LEN, Openings, SegmentName, StateRecord, Superblock};
use crate::mutation::{self, Mutation};
use crate::options::{Options, Stats};
use crate::place::{Chain, Cut, Epoch, FileOffset, Lsn, Place, Seq, SlotNumber, SparseIndex};
use crate::ring::Filled;
use crate::segment::file::ActiveSegment;
use crate::segment::list::SegmentList;
use crate::segment::marks::Author;
use crate::segment::space::SpareFile;
use crate::sync::{Arc, thread};
use crate::writer::age::Moments;
use crate::writer::history::CutHistory;
use crate::writer::holds::Holds;
use crate::writer::phase::Phase;
use crate::writer::prepare::Prepared;

/// How far a flush goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    Flushed,
    Durable,
}

pub(crate) type Callback = Box<dyn FnOnce(Result<()>) + Send>;

/// Where a log stands when it is opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) segments: SegmentList,
    pub(crate) active: ActiveSegment,
    pub(crate) index: SparseIndex,
    pub(crate) cuts: Vec<Cut>,
    pub(crate) head: Place,
    pub(crate) end: Place,
    /// The first group that is there.
    pub(crate) origin: Place,
    /// Space of the active segment is reserved up to here.
    pub(crate) reserved: Lsn,
    /// Every block of the active segment's file was written once up to here.
    pub(crate) filled: Lsn,
    /// The mark before the end, if an earlier process wrote it.
    pub(crate) mark: Vec<u8>,
    /// What names the group that ends at the end.
    pub(crate) chain: Chain,
    /// The newest record of the state.
    pub(crate) stated: StateRecord,
    /// No group of what was cut out of the log, ever, reaches further.
    pub(crate) known: Lsn,
    /// The opening that wrote the last group, if it is not this one.
    pub(crate) openings: Openings,
    /// Whether there is space for the next opening.
    pub(crate) keeps_space: bool,
}

/// The writer's state, under the lock.
pub(crate) struct State {
    /// The log's segments by position; the last one is active.
    pub(crate) segments: SegmentList,
    pub(crate) active: ActiveSegment,
    pub(crate) index: Arc<SparseIndex>,
    /// Parts of the active segment that truncations took out of the log. Only stores have them.
    pub(crate) cuts: Vec<Cut>,
    /// The oldest record that still exists.
    pub(crate) head: Place,
    /// Dropped segments whose files are kept to be written on, oldest first.
    pub(crate) dropped: Vec<SegmentName>,
    /// The first group of a store that is still there, at or before the head.
    pub(crate) origin: Place,
    /// A mark that an earlier process wrote at `flushed`, to be written again ahead of the first
    /// group.
    pub(crate) mark: Vec<u8>,
    /// What names the last group of which the header was made.
    pub(crate) chain: Chain,
    /// What was last written down of the log's state.
    pub(crate) stated: StateRecord,
    /// No group of what was cut out of the log, ever, reaches further.
    pub(crate) known: Lsn,
    /// Openings of which the active segment, or one that was cut and not yet removed, may hold the
    /// last group; `None` if that is not known.
    pub(crate) openings: Option<Vec<Epoch>>,
    /// Number of the slot to be opened next.
    pub(crate) next_slot: SlotNumber,
    /// Slots that are closed and not yet taken to be written, oldest first.
    pub(crate) pending: VecDeque<Pending>,
    /// Flushes in flight, oldest first. Each starts at the LSN at which the previous one ends.
    pub(crate) flights: VecDeque<Flight>,
    /// Slots below this number are with the operating system.
    pub(crate) written: SlotNumber,
    /// End of what is closed: where the open slot's group starts, or the next one's.
    pub(crate) end: Place,
    pub(crate) flushed: Place,
    pub(crate) durable: Lsn,
    /// What the block in which `flushed` lies holds before it.
    pub(crate) shared: Shared,
    pub(crate) reserved: Lsn,
    /// How far the open slot may go.
    pub(crate) open_end: Lsn,
    pub(crate) prepared: Prepared,
    /// Whether the disk says that everything is durable: nothing came after the last mark.
    pub(crate) marked: bool,
    pub(crate) phase: Phase,
    pub(crate) committer: Option<thread::JoinHandle<()>>,
    /// They begin further flushes while the committer's is in flight.
    pub(crate) helpers: Vec<thread::JoinHandle<()>>,
    pub(crate) preparer: Option<thread::JoinHandle<()>>,
    /// Callbacks that are not due yet, each with its record and the slot that holds it.
    pub(crate) callbacks: Vec<(Lsn, SlotNumber, Callback)>,
    /// What `truncate_after` did, for followers.
    pub(crate) history: CutHistory,
    /// When what was written, for retention by age.
    pub(crate) moments: Moments,
    /// What truncations at the beginning leave.
    pub(crate) holds: Holds,
    pub(crate) stats: Stats,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("end", &self.end)
            .field("flushed", &self.flushed)
            .field("durable", &self.durable)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

/// What changes with each truncation that changes the log. Files of the log disappear only after it
/// has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truncations {
    /// Number of `truncate_after`.
    pub(crate) cuts: u64,
    /// Number of the oldest record.
    pub(crate) head: Seq,
}

/// A closed slot on its way to the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub(crate) filled: Filled,
    /// Zeros between its group and the next one.
    pub(crate) padding: u64,
}

impl Pending {
    pub(crate) fn end(&self) -> Place {
        Place {
            lsn: self.filled.end_lsn + self.padding,
            seq: self.filled.first_seq + self.filled.records,
        }
    }
}

/// A flush that was begun.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) goal: Goal,
    /// Where the log ends with it.
    pub(crate) end: Place,
    pub(crate) bytes: u64,
    pub(crate) slots: usize,
    /// Slots below this are with the operating system then. No other flight in the air has the
    /// same.
    pub(crate) written: SlotNumber,
    pub(crate) state: FlightState,
}

#[derive(Debug)]
pub(crate) enum FlightState {
    InAir,
    /// It succeeded, and the block in which it ends holds this.
    Landed(Shared),
    /// Neither it nor what comes behind it will ever be durable.
    Failed,
}

/// The bytes between a block boundary and `offset` in the active segment's file, as they were
/// written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    pub(crate) offset: FileOffset,
    pub(crate) bytes: Vec<u8>,
}

impl State {
    pub(crate) fn new(at: Opened, unix_ns: u64) -> Self {
        // A mark that an earlier process wrote may be in the page cache alone, and no barrier of
        // ours would cover it: it is written again, identically, ahead of the first group, and is
        // not durable before that (L53). Were it called durable: 1. the first group says so in its
        // header, 2. that header reaches the disk before the mark does, 3. power fails, 4. the
        // missing mark, below a watermark, is taken for corruption.
        let flushed = Place { lsn: Lsn(at.end.lsn.0 - at.mark.len() as u64), seq: at.end.seq };
        let mut prepared = Prepared::new(at.filled);
        if !at.keeps_space {
            prepared.note_spent();
        }
        State {
            segments: at.segments,
            active: at.active,
            index: Arc::new(at.index),
            cuts: at.cuts,
            head: at.head,
            dropped: Vec::new(),
            origin: at.origin,
            // Slot 0 stands for that mark.
            next_slot: SlotNumber(1),
            pending: VecDeque::new(),
            flights: VecDeque::new(),
            written: SlotNumber(u64::from(at.mark.is_empty())),
            mark: at.mark,
            chain: at.chain,
            stated: at.stated,
            known: at.known,
            openings: Some(at.openings.iter().collect()),
            end: at.end,
            flushed,
            durable: flushed.lsn,
            shared: Shared::default(),
            reserved: at.reserved,
            open_end: Lsn::START,
            prepared,
            marked: true,
            phase: Phase::Open,
            committer: None,
            helpers: Vec::new(),
            preparer: None,
            callbacks: Vec::new(),
            history: CutHistory::default(),
            moments: Moments::new(unix_ns),
            holds: Holds::default(),
            stats: Stats::default(),
        }
    }

    /// Flushes in flight.
    pub(crate) fn in_air(&self) -> usize {
        self.flights.iter().filter(|flight| matches!(flight.state, FlightState::InAir)).count()
    }

    /// Says how a flight ended.
    pub(crate) fn land(&mut self, written: SlotNumber, state: FlightState) {
        let flight = self.flights.iter_mut().find(|flight| flight.written == written);
        flight.expect("a flight stays until it and those before it have landed").state = state;
    }

    /// Slots that are being written.
    pub(crate) fn writing(&self) -> usize {
        self.flights.iter().map(|flight| flight.slots).sum()
    }

    /// Slots below this number were taken to be written.
    pub(crate) fn taken(&self) -> SlotNumber {
        self.written + self.writing() as u64
    }

    pub(crate) fn generation(&self) -> u32 {
        self.active.file.superblock.generation
    }

    /// Who writes the next group of the log's own.
    pub(crate) fn author(&self) -> Author {
        let (generation, epoch) = (self.generation(), self.active.epoch);
        Author { generation, epoch, previous: self.chain }
    }

    /// What is true of a log that is closed: all of it is durable, and ends in a mark, as it does
    /// when its end was cut. That the mark itself stays is not claimed: no record is lost with it.
    pub(crate) fn closed_state(&self) -> StateRecord {
        StateRecord {
            number: self.stated.number.wrapping_add(1),
            closed: true,
            generation: self.generation(),
            durable_lsn: Lsn(self.end.lsn.0.saturating_sub(GROUP_HEADER_LEN as u64)),
            lsn: self.end.lsn,
            seq: self.end.seq,
            previous: self.chain,
            ..self.stated
        }
    }

    /// Tells followers and waiters that the log was cut: together with the change itself, under the
    /// same lock. Sooner, a follower made in between would take the old segments for the new ones,
    /// and never hear of the cut.
    pub(crate) fn note_cut(&mut self, cut: Place) {
        self.history.note(cut);
        self.moments.cut(cut);
        self.holds.cut(cut);
    }

    /// Which truncations there were.
    pub(crate) fn truncations(&self) -> Truncations {
        Truncations { cuts: self.history.count(), head: self.head.seq }
    }

    /// Goes on behind bytes that were written and synced: a group of the log's own.
    pub(crate) fn advance(&mut self, len: usize) {
        self.end.lsn += len as u64;
        self.flushed = self.end;
        self.durable = self.end.lsn;
        self.marked = false;
        self.stats.bytes_written += len as u64;
    }

    /// Goes on in a segment that is durable up to `end`, and every block of which was written once
    /// up to `filled`.
    pub(crate) fn start_in(&mut self, next: ActiveSegment, end: Place, reserved: Lsn, filled: Lsn) {
        assert!(
            self.pending.is_empty() && self.flights.is_empty(),
            "the segment before has everything"
        );
        self.segments.push(next.file);
        self.active = next;
        self.index = Arc::default();
        (self.end, self.flushed, self.durable) = (end, end, end.lsn);
        self.shared = Shared::default();
        self.reserved = reserved;
        self.prepared.start_in(filled);
    }

    /// The superblock of a segment that is to start at `base`.
    pub(crate) fn superblock(&self, options: &Options, generation: u32, base: Place) -> Superblock {
        Superblock {
            uuid: self.active.file.superblock.uuid,
            generation,
            base_lsn: base.lsn,
            base_seq: base.seq,
            head_lsn: if mutation::is(Mutation::ForgetHead) { Lsn::START } else { self.head.lsn },
            head_seq: if mutation::is(Mutation::ForgetHead) { Seq(0) } else { self.head.seq },
            segment_size: options.segment_size,
            created_unix_ns: unix_ns(&*options.fs),
            recycled_len: 0,
            epoch: self.active.epoch,
            cut: None,
        }
    }
}

impl State {
    /// The superblock of a segment of the same generation that is to start at `base`, in the file
    /// `spare` if there is one.
    pub(crate) fn superblock_in(
        &self,
        options: &Options,
        base: Place,
        spare: Option<&SpareFile>,
    ) -> Superblock {
        let recycled_len = spare.map_or(0, |spare| spare.recycled_len);
        let noted = if mutation::is(Mutation::ForgetRecycled) { 0 } else { recycled_len };
        Superblock { recycled_len: noted, ..self.superblock(options, self.generation(), base) }
    }
}
