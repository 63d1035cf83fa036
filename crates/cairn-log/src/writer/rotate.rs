//! Sealing a segment and starting the next one, and the two marks a writer leaves: at a clean
//! close, and for a truncation.

use std::io::{self, IoSlice};

use cairn_commit::slot::Slot;
use cairn_io::Store;

use crate::clock::unix_ns;
use crate::error::{Error, Failure, Result};
use crate::format::{chain_of, seal_len};
use crate::layout::CreateError;
use crate::mutation::{self, Mutation};
use crate::place::{FileOffset, Lsn, Place, SlotNumber};
use crate::segment::file::{ActiveSegment, First};
use crate::segment::list::SegmentList;
use crate::segment::marks::encode_seal;
use crate::segment::space::{LEAST_ROOM, Room, first_room};
use crate::writer::core::Core;
use crate::writer::lead::Leading;
use crate::writer::state::{Goal, Shared};

/// A seal is longer than it must be by so many bytes at most, and at most by an eighth of a
/// segment.
const SEAL_FILL_BYTES_MAX: u64 = 256 << 10;

impl Core {
    /// Ends the active segment if it holds a record; everything appended is durable then.
    pub(crate) fn rotate_if_used(&self) -> Result<()> {
        self.check_process()?;
        let mut leading = self.freeze()?;
        let used = leading.end.seq > leading.active.file.base().seq;
        let result = if used { leading.rotate_frozen() } else { Ok(()) };
        leading.phase.thaw();
        leading.finish();
        result
    }
}

impl<'a> Leading<'a> {
    /// Seals the active segment and starts the next one. Nothing is frozen.
    ///
    /// The next segment has its name durably before the seal is written. In the other order: 1. the
    /// seal is durable, 2. the newest segment is lost, 3. what is left looks like a crash during
    /// rotation, and opens. A sealed segment without a successor is therefore always a loss. And
    /// the seal is durable before the next segment gets its first group, so that any group there
    /// proves everything below its segment.
    ///
    /// Mostly the next segment got its name [ahead](crate::writer::prepare), and the seal is made as long
    /// as it takes to end where that one starts: then the barrier of the seal is all there is to
    /// wait for. Where nothing was prepared, or much would have to be filled, the next segment is
    /// made now.
    pub(crate) fn rotate(&mut self) -> Result<()> {
        self.phase.freeze();
        let result = self.rotate_frozen();
        self.phase.thaw();
        result
    }

    pub(super) fn rotate_frozen(&mut self) -> Result<()> {
        let core = self.core;
        if !core.layout.rotates() {
            return Ok(());
        }
        self.when_nothing_is_prepared();
        let old = self.active.clone();
        // Before anything has changed: what is put back can go on.
        self.unlocked(|| core.layout.expect_in_place(&old.file, &SegmentList::default()))?;
        let (seal_lsn, end, ahead) = self.plan_seal();
        self.reserve_for_seal(end.lsn)?;
        let (mut next, room) = match self.prepared.take_successor_if(ahead) {
            Some(next) => next,
            None => {
                if mutation::is(Mutation::SealBeforeSuccessor) {
                    let _ = self.flush_out(Goal::Durable, SlotNumber::MAX);
                    let seal = self.seal(seal_lsn, end);
                    let _ = old.store.write_durable(old.offset(seal_lsn).0, &[IoSlice::new(&seal)]);
                }
                self.make_next(end)?
            }
        };
        self.flush_out(Goal::Durable, SlotNumber::MAX)?;
        // It names the last of these groups.
        let seal = self.seal(seal_lsn, end);
        let (shared, block) = (std::mem::take(&mut self.shared), core.block(self));
        let sealed =
            self.unlocked(|| write_seal(&*old.store, old.offset(seal_lsn), &seal, &shared, block));
        if let Err(e) = sealed {
            let failure = Failure::from(Error::io("seal", &old.path, e));
            return Err(self.stop(failure, None));
        }
        next.file.begin(end.seq, unix_ns(&*core.options.fs));
        self.chain = chain_of(&seal);
        next.file.first = Some(First { previous: self.chain, epoch: next.epoch });
        let recycled = next.file.superblock.recycled_len > 0;
        if self.reserved > end.lsn {
            // What was prepared there and not used is given back; no thread waits for it.
            let len = old.offset(end.lsn).0;
            self.prepared.trim(old.store, len);
        }
        assert!(core.ring.open_slot().is_none(), "a frozen log has no open slot");
        self.start_in(next, end, end.lsn + room.reserve, end.lsn + room.zeroed as u64);
        self.stats.rotations += 1;
        self.stats.recycled += u64::from(recycled);
        self.stats.bytes_written += seal.len() as u64;
        Ok(())
    }

    fn seal(&self, lsn: Lsn, end: Place) -> Vec<u8> {
        let superblock = &self.active.file.superblock;
        encode_seal(superblock, self.author(), lsn, end, &self.index.entries)
    }

    /// Where the seal starts, where it ends, and whether the successor that is there already
    /// starts at that end.
    fn plan_seal(&self) -> (Lsn, Place, bool) {
        let seal_lsn = self.end.lsn;
        let shortest = seal_lsn + seal_len(self.index.entries.len()) as u64;
        let longest = shortest + SEAL_FILL_BYTES_MAX.min(self.core.options.segment_size / 8);
        let ahead =
            self.prepared.successor_base().filter(|base| (shortest..=longest).contains(base));
        (seal_lsn, Place { lsn: ahead.unwrap_or(shortest), ..self.end }, ahead.is_some())
    }

    /// Reserves the space of the seal first, so that a full disk is met before anything has
    /// changed.
    fn reserve_for_seal(&mut self, end: Lsn) -> Result<()> {
        let from = self.reserved;
        if from < end {
            let old = self.active.clone();
            self.unlocked(|| old.store.preallocate(old.offset(from).0, end - from))
                .map_err(|e| Error::io("reserve space in", &old.path, e))?;
            self.reserved = end;
        }
        Ok(())
    }

    /// Makes the segment that is to start at `base`, now that nothing fitting was prepared.
    fn make_next(&mut self, base: Place) -> Result<(ActiveSegment, Room)> {
        self.retract_successor()?;
        let core = self.core;
        let spare = self.prepared.take_spare();
        let room = spare.as_ref().map_or_else(|| first_room(&core.options), |spare| spare.room);
        let superblock = self.superblock_in(&core.options, base, spare.as_ref());
        let least = spare.is_none() && room != LEAST_ROOM;
        let made = match self.unlocked(|| core.layout.create(superblock, room, spare)) {
            // As little as it takes, then.
            Err(CreateError::Unchanged(Error::Full { .. })) if least => {
                let made = self.unlocked(|| core.layout.create(superblock, LEAST_ROOM, None));
                made.map(|made| (made, LEAST_ROOM))
            }
            made => made.map(|made| (made, room)),
        };
        match made {
            Ok(made) => Ok(made),
            Err(CreateError::Unchanged(error)) => Err(error),
            Err(CreateError::Unknown(error)) => Err(self.stop(Failure::from(error), None)),
        }
    }
}

/// Writes a seal durably, when all before it is: past the page cache where it ends with a block,
/// and what its first block holds before it is known.
fn write_seal(
    store: &dyn Store,
    offset: FileOffset,
    seal: &[u8],
    shared: &Shared,
    block: u64,
) -> io::Result<()> {
    if mutation::is(Mutation::SkipSealBarrier) {
        return store.write_at(offset.0, seal);
    }
    let shared = if shared.offset == offset { &shared.bytes[..] } else { &[] };
    let start = offset.0 - shared.len() as u64;
    let len = shared.len() + seal.len();
    if block == 1 || !start.is_multiple_of(block) || !(len as u64).is_multiple_of(block) {
        return store.write_durable(offset.0, &[IoSlice::new(seal)]);
    }
    let memory = Slot::new(len);
    let mut blocks = memory.contents().map_err(|_| io::ErrorKind::Other)?;
    blocks[..shared.len()].copy_from_slice(shared);
    blocks[shared.len()..].copy_from_slice(seal);
    store.write_durable(start, &[IoSlice::new(&blocks)])
}
