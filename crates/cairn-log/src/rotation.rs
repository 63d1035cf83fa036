//! Sealing a segment and starting the next one, and the two marks a writer leaves: at a clean close, and for a truncation.

use std::io::{self, IoSlice};
use std::path::Path;

use cairn_io::slot::Slot;
use cairn_io::{Fs, Store};

use crate::commit::{Core, Guard, Home, NOTE_LEN, NOTES, RESERVE};
use crate::error::{Error, Failure, Result};
use crate::flush::Goal;
use crate::format::{FrameKind, GROUP_HEADER_LEN, GroupHeader, GroupKind, HeadMark, Superblock, push_frame, seal_len};
use crate::leading::Leading;
use crate::mutation::{self, Mutation};
use crate::options::Options;
use crate::prepare::PREFILL;
use crate::segment::{self, ActiveSegment, CreateError, Room};
use crate::state::{Place, Shared, unix_ns};
use crate::survey::SegmentFile;
use crate::walk::Walk;

/// A log that is closed has at most so many bytes to be scanned when it is opened: less than a millisecond's worth.
const SCANNED: u64 = 1 << 20;
/// A seal is longer than it must be by so many bytes at most, and at most by an eighth of a segment.
const FILL_MAX: u64 = 256 << 10;

impl<'a> Leading<'a> {
    /// Seals the active segment and starts the next one. Nothing is frozen.
    ///
    /// The next segment has its name durably before the seal is written. In the other order: 1. the seal is durable, 2. the newest
    /// segment is lost, 3. what is left looks like a crash during rotation, and opens. A sealed segment without a successor is
    /// therefore always a loss. And the seal is durable before the next segment gets its first group, so that any group there proves
    /// everything below its segment.
    ///
    /// Mostly the next segment got its name [ahead](crate::prepare), and the seal is made as long as it takes to end where that one starts: then the
    /// barrier of the seal is all there is to wait for. Where nothing was prepared, or much would have to be filled, the next segment is made now.
    pub(crate) fn rotate(&self, mut guard: Guard<'a>) -> Result<Guard<'a>> {
        guard.frozen = true;
        let (mut guard, result) = self.rotate_frozen(guard);
        guard.frozen = false;
        result.map(|()| guard)
    }

    fn rotate_frozen(&self, guard: Guard<'a>) -> (Guard<'a>, Result<()>) {
        let Home::Directory { fs, dir, .. } = &self.home else {
            return (guard, Ok(()));
        };
        let fs = &**fs;
        let mut guard = self.core().when_nothing_is_prepared(guard);
        let old = guard.active.clone();
        let seal_lsn = guard.end.lsn;
        let shortest = seal_lsn + seal_len(guard.index.entries.len()) as u64;
        let longest = shortest + FILL_MAX.min(self.options.segment_size / 8);
        let ahead = guard.prepared.successor_base().filter(|base| (shortest..=longest).contains(base));
        let end = Place { lsn: ahead.unwrap_or(shortest), ..guard.end };
        let seal = segment::encode_seal(&old.file.superblock, seal_lsn, end, &guard.index.entries);
        // Reserved first, so that a full disk is met before anything has changed.
        let from = guard.reserved;
        if from < end.lsn {
            let (unlocked, reserved) = self.unlocked(guard, || old.store.preallocate(old.offset(from), end.lsn - from));
            guard = unlocked;
            if let Err(e) = reserved {
                return (guard, Err(Error::io("reserve space in", &old.file.path, e)));
            }
            guard.reserved = end.lsn;
        }
        let (mut next, room) = match ahead.and_then(|_| guard.prepared.take_successor()) {
            Some(next) => next,
            None => {
                if mutation::is(Mutation::SealBeforeSuccessor) {
                    guard = self.flush_out(guard, Goal::Durable, u64::MAX).0;
                    let _ = old.store.write_durable(old.offset(seal_lsn), &[IoSlice::new(&seal)]);
                }
                let (unlocked, made) = self.make_next(guard, end, fs, dir);
                guard = unlocked;
                match made {
                    Ok(made) => made,
                    Err(error) => return (guard, Err(error)),
                }
            }
        };
        let (mut guard, result) = self.flush_out(guard, Goal::Durable, u64::MAX);
        if result.is_err() {
            return (guard, result);
        }
        let (shared, block) = (std::mem::take(&mut guard.shared), self.block(&guard));
        let (mut guard, sealed) =
            self.unlocked(guard, || write_seal(&*old.store, old.offset(seal_lsn), &seal, &shared, block));
        if let Err(e) = sealed {
            let failure = Failure::from(Error::io("seal", &old.file.path, e));
            let error = self.stop(&mut guard, failure, None);
            return (guard, Err(error));
        }
        next.file.begin(end.seq, unix_ns(fs));
        let recycled = next.file.superblock.recycled_len > 0;
        if guard.reserved > end.lsn {
            // What was prepared there and not used is given back; nobody waits for it.
            let len = old.offset(end.lsn);
            guard.prepared.trim(old.store, len);
        }
        guard.start_in(next, end, end.lsn + room.reserve, end.lsn + room.zeroed as u64);
        guard.stats.rotations += 1;
        guard.stats.recycled += u64::from(recycled);
        guard.stats.bytes_written += seal.len() as u64;
        (guard, Ok(()))
    }

    /// Makes the segment that is to start at `base`, now that nothing fitting was prepared.
    fn make_next(
        &self,
        guard: Guard<'a>,
        base: Place,
        fs: &dyn Fs,
        dir: &Path,
    ) -> (Guard<'a>, Result<(ActiveSegment, Room)>) {
        let (mut guard, retracted) = self.retract_successor(guard);
        if let Err(error) = retracted {
            return (guard, Err(error));
        }
        let spare = guard.prepared.take_spare();
        let room = spare.as_ref().map_or_else(|| first_room(&self.options), |spare| spare.room);
        let superblock = guard.superblock_in(&self.options, base, spare.as_ref(), fs);
        let file = spare.map(|spare| spare.file);
        let (mut guard, made) =
            self.unlocked(guard, || segment::create(&self.options, dir, superblock, room, file, |_| Ok(())));
        let made = match made {
            Ok(made) => Ok((made, room)),
            Err(CreateError::Unchanged(error)) => Err(error),
            Err(CreateError::Unknown(error)) => Err(self.stop(&mut guard, Failure::from(error), None)),
        };
        (guard, made)
    }
}

/// Writes a seal durably, when all before it is: past the page cache where it ends with a block, and what its first block holds before it is known.
fn write_seal(store: &dyn Store, offset: u64, seal: &[u8], shared: &Shared, block: u64) -> io::Result<()> {
    if mutation::is(Mutation::SkipSealBarrier) {
        return store.write_at(offset, seal);
    }
    let shared = if shared.offset == offset { &shared.bytes[..] } else { &[] };
    let start = offset - shared.len() as u64;
    let len = shared.len() + seal.len();
    if block == 1 || !start.is_multiple_of(block) || !(len as u64).is_multiple_of(block) {
        return store.write_durable(offset, &[IoSlice::new(seal)]);
    }
    let memory = Slot::new(len);
    let mut blocks = memory.contents().map_err(|_| io::ErrorKind::Other)?;
    blocks[..shared.len()].copy_from_slice(shared);
    blocks[shared.len()..].copy_from_slice(seal);
    store.write_durable(start, &[IoSlice::new(&blocks)])
}

impl Core {
    /// Leads, with everything appended durable and no append under way: for a truncation, or for closing.
    pub(crate) fn freeze(&self) -> Result<(Leading<'_>, Guard<'_>)> {
        let leading = self.claim();
        let mut guard = self.lock();
        guard.check_writable()?;
        guard.frozen = true;
        // Also when it holds nothing yet. Left open: 1. the rest is flushed without the lock, 2. a record gets a place in it, 3. what was
        // to be durable as a whole has a record that is not.
        self.close_slot(&mut guard, false);
        let guard = self.when_nothing_is_prepared(guard);
        let goal = if mutation::is(Mutation::MarkBeforeBarrier) { Goal::Flushed } else { Goal::Durable };
        let (mut guard, result) = leading.flush_out(guard, goal, u64::MAX);
        if let Err(error) = result {
            guard.frozen = false;
            leading.finish(guard);
            return Err(error);
        }
        Ok((leading, guard))
    }
}

impl<'a> Leading<'a> {
    /// In a frozen log: appends a group that names a place, and makes it durable. Fails before anything has changed when there is no
    /// space for it, and for a mark behind it.
    pub(crate) fn write_note(&self, guard: Guard<'a>, kind: GroupKind, place: Place) -> (Guard<'a>, Result<()>) {
        let end = guard.end.lsn + NOTE_LEN;
        let (guard, result) = self.reserve_space(guard, end);
        if result.is_err() {
            return (guard, result);
        }
        let superblock = guard.active.file.superblock;
        let note = HeadMark { lsn: place.lsn, seq: place.seq, uuid: *superblock.uuid.as_bytes() };
        let frame = if kind == GroupKind::Cut { FrameKind::Cut } else { FrameKind::Head };
        let lsn = guard.end.lsn;
        let mut bytes = vec![0; GROUP_HEADER_LEN];
        push_frame(&mut bytes, frame, &note.encode(), lsn + GROUP_HEADER_LEN as u64, guard.active.seed());
        let header = GroupHeader {
            kind,
            padding: 0,
            len: u32::try_from(bytes.len()).expect("a note is small"),
            generation: superblock.generation,
            lsn,
            durable_lsn: guard.durable,
            first_seq: guard.end.seq,
        };
        bytes[..GROUP_HEADER_LEN].copy_from_slice(&header.encode(guard.active.log_seed()));
        self.write_group(guard, &bytes)
    }

    /// In a frozen log, all of which is durable: ends it so that the next open need not scan much. A segment that holds a good part of what it may is sealed,
    /// and the mark is all that its successor holds.
    pub(crate) fn write_end(&self, guard: Guard<'a>) -> (Guard<'a>, Result<()>) {
        let long = guard.active.offset(guard.end.lsn) > SCANNED;
        if guard.marked || !long {
            return self.write_mark(guard);
        }
        match self.rotate_frozen(guard) {
            (guard, Err(error)) if guard.stopped.is_some() => (guard, Err(error)),
            // Where there is no space for another segment, there still is for the mark.
            (guard, _) => self.write_mark(guard),
        }
    }

    /// In a frozen log: writes that all of it is durable, unless the disk says so already, and gives back reserved space.
    ///
    /// The barrier before the mark is what the mark claims; a barrier behind it only makes the claim itself durable. With one barrier
    /// for both: 1. the mark lands, 2. power fails before the last group does, 3. a torn tail is taken for corruption.
    pub(crate) fn write_mark(&self, guard: Guard<'a>) -> (Guard<'a>, Result<()>) {
        if guard.marked {
            return (guard, Ok(()));
        }
        let end = guard.end.lsn + GROUP_HEADER_LEN as u64;
        let (guard, result) = self.reserve_space(guard, end);
        if result.is_err() {
            return (guard, result);
        }
        let active = guard.active.clone();
        let mark = segment::encode_mark(guard.end.lsn, guard.end.seq, guard.generation(), active.log_seed());
        let (guard, trimmed) = self.unlocked(guard, || active.store.truncate(active.offset(end)));
        let (mut guard, result) = self.write_group(guard, &mark);
        guard.marked = result.is_ok();
        let trimmed = trimmed.map_err(|e| Error::io("trim", &active.file.path, e));
        (guard, result.and(trimmed))
    }
}

/// What the first segment of a log, and each that follows a full one, has in advance.
pub(crate) fn first_room(options: &Options) -> Room {
    let reserve = RESERVE.min(options.segment_room());
    Room { reserve, zeroed: PREFILL.min(usize::try_from(reserve).unwrap_or(PREFILL)) }
}

/// Starts a segment that supersedes everything at or after its base in lower generations: what `from` holds between that base and
/// `end` is carried over, and a mark says that it is durable.
pub(crate) fn start_generation(
    options: &Options,
    dir: &Path,
    superblock: Superblock,
    from: &SegmentFile,
    end: Place,
) -> std::result::Result<ActiveSegment, CreateError> {
    let base_lsn = superblock.base_lsn;
    let span = from.open(&*options.fs, end.lsn).map_err(CreateError::Unchanged)?;
    let reserve = end.lsn - base_lsn + GROUP_HEADER_LEN as u64 + NOTES;
    segment::create(options, dir, superblock, Room { reserve, zeroed: 0 }, None, |store| {
        if base_lsn < end.lsn {
            let walk = Walk::new(span, base_lsn, superblock.base_seq);
            segment::carry(walk, end.lsn, &superblock, store, &from.path)?;
        }
        let log = crate::format::Seed::of_log(superblock.uuid);
        let mark = segment::encode_mark(end.lsn, end.seq, superblock.generation, log);
        let offset = crate::format::DATA_OFFSET + (end.lsn - base_lsn);
        store.write_at(offset, &mark).map_err(|e| Error::io("write to", &from.path, e))
    })
}
