//! What a writer knows: positions, what is closed and not yet written, and why it stopped. Memory only; [`crate::commit`] does the I/O.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use cairn_io::Fs;

use crate::Lsn;
use crate::error::{Error, Failure, Result};
use crate::flush::Goal;
use crate::format::Superblock;
use crate::mutation::{self, Mutation};
use crate::options::{Options, Stats};
use crate::prepare::Prepared;
use crate::ring::Filled;
use crate::segment::ActiveSegment;
use crate::survey::SegmentFile;
use crate::sync::{Arc, thread};
use crate::tail::{Cut, SparseIndex};

pub(crate) type Callback = Box<dyn FnOnce(Result<()>) + Send>;

/// A place in the log: a record boundary and the number of the first record at or after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) lsn: u64,
    pub(crate) seq: u64,
}

/// Where a log stands when it is opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) segments: Vec<SegmentFile>,
    pub(crate) active: ActiveSegment,
    pub(crate) index: SparseIndex,
    pub(crate) cuts: Vec<Cut>,
    pub(crate) head: Place,
    pub(crate) end: Place,
    /// The first group that is there.
    pub(crate) origin: Place,
    /// Space of the active segment is reserved up to here.
    pub(crate) reserved: u64,
    /// Every block of the active segment's file was written once up to here.
    pub(crate) filled: u64,
    /// The mark before the end, if an earlier process wrote it.
    pub(crate) mark: Vec<u8>,
}

/// The writer's state, under the lock.
pub(crate) struct State {
    /// The log's segments by position; the last one is active.
    pub(crate) segments: Vec<SegmentFile>,
    pub(crate) active: ActiveSegment,
    pub(crate) index: SparseIndex,
    /// Parts of the active segment that truncations took out of the log. Only stores have them.
    pub(crate) cuts: Vec<Cut>,
    /// The oldest record that still exists.
    pub(crate) head: Place,
    /// Files of dropped segments that are kept to be written on, oldest first.
    pub(crate) dropped: Vec<PathBuf>,
    /// The first group of a store that is still there, at or before the head.
    pub(crate) origin: Place,
    /// A mark that an earlier process wrote at `flushed`, to be written again ahead of the first group.
    pub(crate) mark: Vec<u8>,
    /// Whether a slot of the ring takes appends.
    pub(crate) open: bool,
    /// Number of the slot to be opened next.
    pub(crate) next_slot: u64,
    /// Slots that are closed and not yet taken to be written, oldest first.
    pub(crate) pending: VecDeque<Pending>,
    /// Flushes that were begun, oldest first, each of them where the one before ends.
    pub(crate) flights: VecDeque<Flight>,
    /// Slots below this number are with the operating system.
    pub(crate) written: u64,
    /// End of what is closed: where the open slot's group starts, or the next one's.
    pub(crate) end: Place,
    pub(crate) flushed: Place,
    pub(crate) durable: u64,
    /// What the block in which `flushed` lies holds before it.
    pub(crate) shared: Shared,
    pub(crate) reserved: u64,
    /// How far the open slot may go.
    pub(crate) open_end: u64,
    pub(crate) prepared: Prepared,
    /// Whether the disk says that everything is durable: nothing came after the last mark.
    pub(crate) marked: bool,
    pub(crate) frozen: bool,
    /// Takes no more appends.
    pub(crate) closed: bool,
    /// Nothing becomes durable any more.
    pub(crate) ended: bool,
    pub(crate) stopped: Option<Stop>,
    pub(crate) committer: Option<thread::JoinHandle<()>>,
    /// They begin further flushes while the committer's is in flight.
    pub(crate) helpers: Vec<thread::JoinHandle<()>>,
    pub(crate) preparer: Option<thread::JoinHandle<()>>,
    /// Who is to be called, with the record and the slot it is in.
    pub(crate) callbacks: Vec<(Lsn, u64, Callback)>,
    /// How many `truncate_after` there were, and where the last one cut, for readers that stand above it.
    pub(crate) cut_count: u64,
    pub(crate) cut_lsn: u64,
    pub(crate) stats: Stats,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("end", &self.end)
            .field("flushed", &self.flushed)
            .field("durable", &self.durable)
            .field("frozen", &self.frozen)
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

/// Why the writer stopped, for good.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    pub(crate) cause: Arc<Failure>,
    /// A barrier may still make slots below this durable, because only a later write failed.
    pub(crate) syncable: u64,
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
        Place { lsn: self.filled.end_lsn + self.padding, seq: self.filled.first_seq + self.filled.records }
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
    /// Slots below this are with the operating system then. No other flight in the air has the same.
    pub(crate) written: u64,
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

/// The bytes between a block boundary and `offset` in the active segment's file, as they were written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

impl State {
    pub(crate) fn new(at: Opened) -> Self {
        // A mark that an earlier process wrote may be in the page cache alone, and no barrier of ours would cover it: it is written
        // again, identically, ahead of the first group, and is not durable before that (L53). Were it called durable: 1. the first group says
        // so in its header, 2. that header reaches the disk before the mark does, 3. power fails, 4. the missing
        // mark, below a watermark, is taken for corruption.
        let flushed = Place { lsn: at.end.lsn - at.mark.len() as u64, seq: at.end.seq };
        State {
            segments: at.segments,
            active: at.active,
            index: at.index,
            cuts: at.cuts,
            head: at.head,
            dropped: Vec::new(),
            origin: at.origin,
            open: false,
            // Slot 0 stands for that mark.
            next_slot: 1,
            pending: VecDeque::new(),
            flights: VecDeque::new(),
            written: u64::from(at.mark.is_empty()),
            mark: at.mark,
            end: at.end,
            flushed,
            durable: flushed.lsn,
            shared: Shared::default(),
            reserved: at.reserved,
            open_end: 0,
            prepared: Prepared::new(at.filled),
            marked: true,
            frozen: false,
            closed: false,
            ended: false,
            stopped: None,
            committer: None,
            helpers: Vec::new(),
            preparer: None,
            callbacks: Vec::new(),
            cut_count: 0,
            cut_lsn: 0,
            stats: Stats::default(),
        }
    }

    /// Flushes in flight.
    pub(crate) fn in_air(&self) -> usize {
        self.flights.iter().filter(|flight| matches!(flight.state, FlightState::InAir)).count()
    }

    /// Says how a flight ended.
    pub(crate) fn land(&mut self, written: u64, state: FlightState) {
        let flight = self.flights.iter_mut().find(|flight| flight.written == written);
        flight.expect("a flight stays until it and those before it have landed").state = state;
    }

    /// Slots that are being written.
    pub(crate) fn writing(&self) -> usize {
        self.flights.iter().map(|flight| flight.slots).sum()
    }

    /// Slots below this number were taken to be written.
    pub(crate) fn taken(&self) -> u64 {
        self.written + self.writing() as u64
    }

    pub(crate) fn generation(&self) -> u32 {
        self.active.file.superblock.generation
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        match &self.stopped {
            Some(stop) => Err(Error::Poisoned { cause: stop.cause.clone() }),
            None if self.closed => Err(Error::Closed),
            None => Ok(()),
        }
    }

    /// Tells followers and waiters that the log was cut: together with the change itself, under the same lock. Sooner, a follower made in
    /// between would take the old segments for the new ones, and never hear of the cut.
    pub(crate) fn note_cut(&mut self, cut: Place) {
        self.cut_count += 1;
        self.cut_lsn = cut.lsn;
    }

    /// Goes on behind bytes that were written and synced: a group of the log's own.
    pub(crate) fn advance(&mut self, len: usize) {
        self.end.lsn += len as u64;
        self.flushed = self.end;
        self.durable = self.end.lsn;
        self.marked = false;
        self.stats.bytes_written += len as u64;
    }

    /// Goes on in a segment that is durable up to `end`, and every block of which was written once up to `filled`.
    pub(crate) fn start_in(&mut self, next: ActiveSegment, end: Place, reserved: u64, filled: u64) {
        assert!(!self.open && self.pending.is_empty() && self.flights.is_empty(), "the segment before has everything");
        self.segments.push(next.file.clone());
        self.active = next;
        self.index = SparseIndex::default();
        (self.end, self.flushed, self.durable) = (end, end, end.lsn);
        self.shared = Shared::default();
        self.reserved = reserved;
        self.prepared.start_in(filled);
    }

    /// The superblock of a segment that is to start at `base`.
    pub(crate) fn superblock(&self, options: &Options, generation: u32, base: Place, fs: &dyn Fs) -> Superblock {
        Superblock {
            uuid: self.active.file.superblock.uuid,
            generation,
            base_lsn: base.lsn,
            base_seq: base.seq,
            head_lsn: if mutation::is(Mutation::ForgetHead) { 0 } else { self.head.lsn },
            head_seq: if mutation::is(Mutation::ForgetHead) { 0 } else { self.head.seq },
            segment_size: options.segment_size,
            created_unix_ns: unix_ns(fs),
            recycled_len: 0,
        }
    }
}

pub(crate) fn unix_ns(fs: &dyn Fs) -> u64 {
    let since = fs.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
