//! Sealing a segment and starting the next one, and the two marks a writer leaves: at a clean close, and for a truncation.

use std::path::Path;

use crate::commit::{Core, Guard, Home, NOTES, RESERVE};
use crate::error::{Error, Failure, Result};
use crate::flush::Goal;
use crate::format::{FrameKind, GROUP_HEADER_LEN, GroupHeader, GroupKind, HeadMark, Superblock, frame_len, push_frame};
use crate::leading::Leading;
use crate::mutation::{self, Mutation};
use crate::options::Options;
use crate::prepare::PREFILL;
use crate::segment::{self, ActiveSegment, CreateError, Room};
use crate::state::Place;
use crate::survey::SegmentFile;
use crate::walk::Walk;

/// A log that is closed has at most so many bytes to be scanned when it is opened: less than a millisecond's worth.
const SCANNED: u64 = 1 << 20;

impl<'a> Leading<'a> {
    /// Seals the active segment and starts the next one. Nothing is frozen.
    ///
    /// The next segment has its name durably before the seal is written. In the other order: 1. the seal is durable, 2. the newest
    /// segment is lost, 3. what is left looks like a crash during rotation, and opens. A sealed segment without a successor is
    /// therefore always a loss. And the seal is durable before the next segment gets its first group, so that any group there proves
    /// everything below its segment.
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
        let spare = guard.prepared.take_spare();
        let old = guard.active.clone();
        let seal_lsn = guard.end.lsn;
        let seal = segment::encode_seal(&old.file.superblock, seal_lsn, guard.end.seq, &guard.index.entries);
        let end = Place { lsn: seal_lsn + seal.len() as u64, ..guard.end };
        let superblock = guard.superblock(&self.options, guard.generation(), end, fs);
        let room = spare.as_ref().map_or_else(|| first_room(&self.options), |spare| spare.room);
        let recycled_len = spare.as_ref().map_or(0, |spare| spare.recycled_len);
        let noted = if mutation::is(Mutation::ForgetRecycled) { 0 } else { recycled_len };
        let superblock = Superblock { recycled_len: noted, ..superblock };
        let spare = spare.map(|spare| spare.file);
        let write_seal = || old.store.write_at(old.offset(seal_lsn), &seal);
        let guard = if mutation::is(Mutation::SealBeforeSuccessor) {
            let (guard, _) = self.flush_out(guard, Goal::Durable, u64::MAX);
            let _ = write_seal().and_then(|()| old.store.sync());
            guard
        } else {
            guard
        };
        let (mut guard, created) = self.unlocked(guard, || {
            // Reserved first, so that a full disk is met before anything has changed.
            old.store
                .preallocate(old.offset(seal_lsn), seal.len() as u64)
                .map_err(|e| CreateError::Unchanged(Error::io("reserve space in", &old.file.path, e)))?;
            segment::create(&self.options, dir, superblock, room, spare, |_| Ok(()))
        });
        let next = match created {
            Ok(next) => next,
            Err(CreateError::Unchanged(error)) => return (guard, Err(error)),
            Err(CreateError::Unknown(error)) => {
                let error = self.stop(&mut guard, Failure::from(error), None);
                return (guard, Err(error));
            }
        };
        let (guard, result) = self.flush_out(guard, Goal::Durable, u64::MAX);
        if result.is_err() {
            return (guard, result);
        }
        let skip = mutation::is(Mutation::SkipSealBarrier);
        let (mut guard, result) =
            self.unlocked(guard, || write_seal().and_then(|()| if skip { Ok(()) } else { old.store.sync() }));
        if let Err(e) = result {
            let failure = Failure::from(Error::io("seal", &old.file.path, e));
            let error = self.stop(&mut guard, failure, None);
            return (guard, Err(error));
        }
        // What was prepared there and not used is given back; nobody waits for it.
        let len = old.offset(end.lsn);
        guard.prepared.trim(old.store, len);
        guard.start_in(next, end, end.lsn + room.reserve, end.lsn + room.zeroed as u64);
        guard.stats.rotations += 1;
        guard.stats.recycled += u64::from(recycled_len > 0);
        guard.stats.bytes_written += seal.len() as u64;
        (guard, Ok(()))
    }
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
        let end = guard.end.lsn + const { (2 * GROUP_HEADER_LEN + frame_len(HeadMark::LEN)) as u64 };
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
    let reserve = RESERVE.min(options.segment_size);
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
