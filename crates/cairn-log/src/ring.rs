//! The log buffer: a ring of slots, each of which becomes one group.
//!
//! ```text
//!            closed, to be written        open          free
//!          +------------+------------+-------------+------------+
//!          | slot n - 2 | slot n - 1 | slot n      |            |
//!          +------------+------------+-------------+------------+
//!  a slot: | shared | group header | frame | frame | ... room |
//! ```
//!
//! One slot is open at a time. Appends take their place in it, position and number included, with
//! one atomic operation, and encode their frame there outside of any lock. What follows from that,
//! and must stay true:
//!
//! 1. A slot is opened for a range of the segment that nothing else is written to: behind
//!    everything closed before, inside of the space that is reserved, short of what is being
//!    zeroed. So a record that has a place can be written there.
//! 2. A slot's number is the commit gate's round. Slots are closed, taken to be written, covered,
//!    and opened again in the order of their numbers, in whatever order their writes are done; a
//!    group is complete, and its end known, *before* its write begins. Were the end read after the
//!    barrier: 1. A's barrier runs, 2. B takes a place, 3. A reads the end and acknowledges B, 4.
//!    power fails, B is gone (L01).
//! 3. Byte 0 of a slot lies at a block boundary of the segment. Where a group starts inside a
//!    block, the bytes before it, `shared`, are those of the group before, byte for byte, which is
//!    durable by then or part of the same write: a block is only ever written again with what it
//!    held, and more behind it. And never two writes of one block are under way: a flush is begun
//!    beside another one only if that one ends at a block boundary, as a slot does that is closed
//!    because it is full. One that is closed for a commit is written before the next one is.

use crate::error::{Error, Result};
use crate::format::{GROUP_HEADER_LEN, Seed};
use crate::place::{Lsn, Seq, SlotNumber};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use cairn_commit::slot::{OutOfMemory, Reservation, Slot};

/// Slots have so much more memory than a group may take, for the blocks shared with the groups
/// before and behind.
const SHARED_BYTES_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) struct Ring {
    entries: Box<[Entry]>,
    slot_size: usize,
    /// Number of the slot that was opened last.
    newest: AtomicU64,
}

/// A slot and what it was opened for. The latter changes only while the slot is closed and free, so
/// that it stands still for a thread that has reserved a part.
#[derive(Debug)]
struct Entry {
    slot: Slot,
    /// Position of the slot's byte 0.
    origin: AtomicU64,
    number: AtomicU64,
    first_seq: AtomicU64,
    seed: AtomicU32,
}

/// What a slot is opened for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) number: SlotNumber,
    /// Where the group starts.
    pub(crate) lsn: Lsn,
    /// Bytes of the block it starts in that belong to the group before.
    pub(crate) shared: usize,
    /// How long the group may become, header included.
    pub(crate) room: u64,
    /// How long it must be able to become.
    pub(crate) wanted: usize,
    pub(crate) first_seq: Seq,
    pub(crate) seed: Seed,
}

/// A place in the log for one record or batch, and the buffer to encode it in.
pub(crate) struct Placed<'a> {
    pub(crate) part: Reservation<'a>,
    pub(crate) lsn: Lsn,
    pub(crate) seq: Seq,
    /// The slot it is in.
    pub(crate) slot: SlotNumber,
    pub(crate) seed: Seed,
}

/// What a slot holds so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filled {
    pub(crate) number: SlotNumber,
    /// Where the group starts.
    pub(crate) lsn: Lsn,
    pub(crate) end_lsn: Lsn,
    pub(crate) first_seq: Seq,
    pub(crate) records: u64,
}

impl Ring {
    /// Fails when the system refuses the memory. `slot_size` is at most 1 GiB.
    pub(crate) fn new(slots: usize, slot_size: usize) -> Result<Self> {
        let entry = || {
            Ok(Entry {
                slot: Slot::try_new(
                    slot_size.next_multiple_of(SHARED_BYTES_MAX) + SHARED_BYTES_MAX,
                )?,
                origin: AtomicU64::new(0),
                number: AtomicU64::new(0),
                first_seq: AtomicU64::new(0),
                seed: AtomicU32::new(0),
            })
        };
        let entries = (0..slots).map(|_| entry()).collect::<std::result::Result<_, OutOfMemory>>();
        let bytes = (slots as u64).saturating_mul(slot_size as u64);
        let entries = entries.map_err(|_| Error::OutOfMemory {
            bytes,
            what: "the buffers",
            remedy: "lower Options::buffer_size or Options::buffers",
        })?;
        Ok(Ring { entries, slot_size, newest: AtomicU64::new(0) })
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn entry(&self, number: SlotNumber) -> &Entry {
        let index = number.0 % self.entries.len() as u64;
        &self.entries[usize::try_from(index).expect("less than the number of slots")]
    }

    /// The slot that was opened last.
    fn newest(&self) -> &Entry {
        self.entry(SlotNumber(self.newest.load(Ordering::Acquire)))
    }

    /// Takes a place for `records` records in `len` bytes of frames; `None` when the open slot has
    /// no room, or none is open.
    pub(crate) fn place(&self, len: usize, records: u64) -> Option<Placed<'_>> {
        let entry = self.newest();
        let part = entry.slot.reserve(len, records)?;
        Some(Placed {
            lsn: Lsn(entry.origin.load(Ordering::Relaxed)) + part.start() as u64,
            seq: Seq(entry.first_seq.load(Ordering::Relaxed)) + part.item(),
            slot: SlotNumber(entry.number.load(Ordering::Relaxed)),
            seed: Seed(entry.seed.load(Ordering::Relaxed)),
            part,
        })
    }

    /// Whether the open slot has room for so many bytes of frames.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        self.newest().slot.has_room(len)
    }

    /// What the open slot holds so far. The caller keeps it from being closed.
    pub(crate) fn open_slot(&self) -> Option<Filled> {
        let entry = self.newest();
        entry.slot.extent().map(|extent| entry.filled(extent))
    }

    /// Closes the open slot; returns what it holds then. The caller keeps others from opening and
    /// closing.
    pub(crate) fn close(&self) -> Filled {
        let entry = self.newest();
        entry.filled(entry.slot.close())
    }

    /// Opens a slot that is free. The caller keeps others from opening and closing. Changes nothing
    /// when the system refuses the memory for a group that is larger than a buffer.
    pub(crate) fn open(&self, opening: Opening) -> Result<()> {
        let entry = self.entry(opening.number);
        let mut contents = entry.slot.contents().expect("a free slot is complete");
        let room = usize::try_from(opening.room)
            .unwrap_or(usize::MAX)
            .min(self.slot_size.max(opening.wanted));
        let capacity =
            self.slot_size.max(room).next_multiple_of(SHARED_BYTES_MAX) + SHARED_BYTES_MAX;
        contents.try_resize(capacity).map_err(|_| Error::OutOfMemory {
            bytes: capacity as u64,
            what: "one record or batch",
            remedy: "append less at once",
        })?;
        let (start, end) = (opening.shared + GROUP_HEADER_LEN, opening.shared + room);
        entry.origin.store(opening.lsn.0 - opening.shared as u64, Ordering::Relaxed);
        entry.number.store(opening.number.0, Ordering::Relaxed);
        entry.first_seq.store(opening.first_seq.0, Ordering::Relaxed);
        entry.seed.store(opening.seed.0, Ordering::Relaxed);
        contents.open(start, end);
        self.newest.store(opening.number.0, Ordering::Release);
        Ok(())
    }

    pub(crate) fn slot(&self, number: SlotNumber) -> &Slot {
        &self.entry(number).slot
    }
}

impl Entry {
    fn filled(&self, extent: cairn_commit::slot::Extent) -> Filled {
        let origin = Lsn(self.origin.load(Ordering::Relaxed));
        let start = extent.start - GROUP_HEADER_LEN;
        Filled {
            number: SlotNumber(self.number.load(Ordering::Relaxed)),
            lsn: origin + start as u64,
            end_lsn: origin + extent.end as u64,
            first_seq: Seq(self.first_seq.load(Ordering::Relaxed)),
            records: extent.items,
        }
    }
}
