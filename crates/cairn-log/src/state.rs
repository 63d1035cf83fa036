//! What a writer knows: positions, the buffer being filled, and why it stopped. Memory only; [`crate::commit`] does the I/O.

use std::time::UNIX_EPOCH;

use cairn_io::Fs;

use crate::Lsn;
use crate::error::{Error, Failure, Result};
use crate::format::{GROUP_HEADER_LEN, GroupHeader, GroupKind, Superblock};
use crate::mutation::{self, Mutation};
use crate::options::{Options, Stats};
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
    /// The first group of a store that is still there, at or before the head.
    pub(crate) origin: Place,
    pub(crate) buffer: Buffer,
    /// A buffer that is not in use, to be filled while the other one is written.
    spare: Vec<u8>,
    pub(crate) appended: u64,
    pub(crate) flushed: u64,
    pub(crate) durable: u64,
    pub(crate) next_seq: u64,
    pub(crate) reserved: u64,
    /// Whether the disk says that everything is durable: nothing came after the last mark.
    pub(crate) marked: bool,
    pub(crate) busy: bool,
    pub(crate) frozen: bool,
    pub(crate) closed: bool,
    pub(crate) stopped: Option<Stop>,
    /// Below this, somebody asked for durability without waiting for it.
    pub(crate) requested: u64,
    pub(crate) committer: Option<thread::JoinHandle<()>>,
    /// Who is to be called, with the record and the number of cuts before it.
    pub(crate) callbacks: Vec<(Lsn, u64, Callback)>,
    /// How many `truncate_after` there were, and where the last one cut, for readers that stand above it.
    pub(crate) cut_count: u64,
    pub(crate) cut_lsn: u64,
    pub(crate) stats: Stats,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("appended", &self.appended)
            .field("flushed", &self.flushed)
            .field("durable", &self.durable)
            .field("busy", &self.busy)
            .field("frozen", &self.frozen)
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

/// Why the writer stopped, for good.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    pub(crate) cause: Arc<Failure>,
    /// A barrier may still make what was written below this durable, because only a later write failed.
    pub(crate) syncable: u64,
}

/// Bytes that are appended and not yet handed to the store.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    pub(crate) bytes: Vec<u8>,
    /// Position of the first byte.
    start: u64,
    /// Where in `bytes` the header of the group under construction goes.
    group: Option<usize>,
    group_seq: u64,
}

impl Buffer {
    pub(crate) fn has_data(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Bytes that a new record needs besides its frame.
    pub(crate) fn overhead(&self) -> usize {
        if self.group.is_some() { 0 } else { GROUP_HEADER_LEN }
    }
}

/// What one flush writes.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl State {
    pub(crate) fn new(at: Opened) -> Self {
        let start = at.end.lsn - at.mark.len() as u64;
        State {
            segments: at.segments,
            active: at.active,
            index: at.index,
            cuts: at.cuts,
            head: at.head,
            origin: at.origin,
            // A mark that an earlier process wrote may be in the page cache alone, and no barrier of ours would cover it: it is written
            // again, identically, ahead of the first group, and is not durable before that (L53). Were it called durable: 1. the first group says
            // so in its header, 2. that header reaches the disk before the mark does, 3. power fails, 4. the missing
            // mark, below a watermark, is taken for corruption.
            buffer: Buffer { start, bytes: at.mark, ..Buffer::default() },
            spare: Vec::new(),
            appended: at.end.lsn,
            flushed: start,
            durable: start,
            next_seq: at.end.seq,
            reserved: at.reserved,
            marked: true,
            busy: false,
            frozen: false,
            closed: false,
            stopped: None,
            requested: 0,
            committer: None,
            callbacks: Vec::new(),
            cut_count: 0,
            cut_lsn: 0,
            stats: Stats::default(),
        }
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

    /// Stops the writer for good; the first cause stays. What is buffered will never be written.
    pub(crate) fn stop(&mut self, failure: Failure, syncable: Option<u64>) -> Error {
        let durable = self.durable;
        let stop = self
            .stopped
            .get_or_insert_with(|| Stop { cause: Arc::new(failure), syncable: syncable.unwrap_or(durable) });
        Error::Poisoned { cause: stop.cause.clone() }
    }

    pub(crate) fn out_of_range(&self, lsn: Lsn) -> Error {
        Error::OutOfRange { lsn, first: Lsn(self.head.lsn), end: Lsn(self.appended) }
    }

    /// Whether the record at `lsn`, appended after `cut_count` cuts, is durable, or will never be; `None` while that is open.
    pub(crate) fn outcome(&self, lsn: Lsn, cut_count: u64) -> Option<Result<()>> {
        // Everything was durable when the log was cut, also what the cut then took back.
        if lsn.0 < self.durable || self.cut_count != cut_count {
            return Some(Ok(()));
        }
        match &self.stopped {
            Some(stop) if lsn.0 >= stop.syncable => {
                Some(Err(Error::InDoubt { lsn, durable: Lsn(self.durable), cause: stop.cause.clone() }))
            }
            None if self.closed && !self.busy => Some(Err(Error::Closed)),
            _ => None,
        }
    }

    /// Takes out the callbacks whose outcome is known.
    pub(crate) fn due_callbacks(&mut self) -> Vec<(Callback, Result<()>)> {
        let mut due = Vec::new();
        for (lsn, cut_count, callback) in std::mem::take(&mut self.callbacks) {
            match self.outcome(lsn, cut_count) {
                Some(outcome) => due.push((callback, outcome)),
                None => self.callbacks.push((lsn, cut_count, callback)),
            }
        }
        due
    }

    /// The position and number of the next record; begins a group when none is under construction.
    pub(crate) fn begin_record(&mut self) -> (u64, u64) {
        if self.buffer.group.is_none() {
            self.buffer.group = Some(self.buffer.bytes.len());
            self.buffer.group_seq = self.next_seq;
            self.buffer.bytes.resize(self.buffer.bytes.len() + GROUP_HEADER_LEN, 0);
            self.index.note(self.appended, self.next_seq);
            self.appended += GROUP_HEADER_LEN as u64;
            self.marked = false;
        }
        (self.appended, self.next_seq)
    }

    /// Makes the frames just copied into the buffer part of the log.
    pub(crate) fn publish(&mut self, frames_len: usize, records: u64, payload_bytes: u64) {
        self.appended += frames_len as u64;
        self.next_seq += records;
        self.stats.records += records;
        self.stats.payload_bytes += payload_bytes;
    }

    /// Adds a whole group that holds no record.
    pub(crate) fn push_group(&mut self, bytes: &[u8]) {
        assert!(self.buffer.group.is_none(), "the group under construction was sealed before");
        self.buffer.bytes.extend_from_slice(bytes);
        self.appended += bytes.len() as u64;
        self.marked = false;
    }

    /// Completes the group under construction with its header, and takes out what is to be written. The watermark it carries is the
    /// one known now.
    pub(crate) fn seal(&mut self) -> Option<Sealed> {
        if !self.buffer.has_data() {
            return None;
        }
        if let Some(at) = self.buffer.group.take() {
            let lsn = self.buffer.start + at as u64;
            let header = GroupHeader {
                kind: GroupKind::Records,
                padding: 0,
                len: u32::try_from(self.buffer.bytes.len() - at).expect("appends bound the group"),
                generation: self.generation(),
                lsn,
                durable_lsn: if mutation::is(Mutation::WatermarkIsReservation) { lsn } else { self.durable },
                first_seq: self.buffer.group_seq,
            };
            let header = header.encode(self.active.log_seed());
            self.buffer.bytes[at..at + GROUP_HEADER_LEN].copy_from_slice(&header);
            self.stats.groups += 1;
        }
        let bytes = std::mem::replace(&mut self.buffer.bytes, std::mem::take(&mut self.spare));
        let start = std::mem::replace(&mut self.buffer.start, self.appended);
        Some(Sealed { bytes, start, end: self.appended })
    }

    /// Keeps a written buffer for the next flush, unless a large record blew it up.
    pub(crate) fn recycle(&mut self, mut bytes: Vec<u8>, buffer_size: usize) {
        if bytes.capacity() <= buffer_size.saturating_mul(2) {
            bytes.clear();
            self.spare = bytes;
        }
    }

    /// Tells followers and waiters that the log was cut: together with the change itself, under the same lock. Sooner, a follower made in
    /// between would take the old segments for the new ones, and never hear of the cut.
    pub(crate) fn note_cut(&mut self, cut: Place) {
        self.cut_count += 1;
        self.cut_lsn = cut.lsn;
    }

    /// Goes on in a segment that is durable up to `end`.
    pub(crate) fn start_in(&mut self, next: ActiveSegment, end: Place, reserved: u64) {
        assert!(!self.buffer.has_data(), "everything was written to the segment before");
        self.segments.push(next.file.clone());
        self.active = next;
        self.index = SparseIndex::default();
        self.buffer = Buffer { start: end.lsn, ..Buffer::default() };
        (self.appended, self.flushed, self.durable) = (end.lsn, end.lsn, end.lsn);
        self.next_seq = end.seq;
        self.reserved = reserved;
        // Whoever asked for more got it before the log was cut.
        self.requested = self.requested.min(end.lsn);
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
        }
    }
}

pub(crate) fn unix_ns(fs: &dyn Fs) -> u64 {
    let since = fs.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
