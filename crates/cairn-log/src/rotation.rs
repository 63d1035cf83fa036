//! Sealing a segment and starting the next one, and the two marks a writer leaves: at a clean close, and for a truncation.

use std::path::Path;

use cairn_io::Fs;

use crate::commit::{Core, Goal, Guard, Home, NOTES, RESERVE};
use crate::error::{Error, Failure, Result};
use crate::format::{FrameKind, GROUP_HEADER_LEN, GroupHeader, GroupKind, HeadMark, Superblock, frame_len, push_frame};
use crate::mutation::{self, Mutation};
use crate::segment::{self, ActiveSegment, CreateError};
use crate::state::Place;
use crate::survey::SegmentFile;
use crate::walk::Walk;

impl Core {
    /// Seals the active segment and starts the next one. Nobody is busy, nothing is frozen.
    ///
    /// The next segment has its name durably before the seal is written. In the other order: 1. the seal is durable, 2. the newest
    /// segment is lost, 3. what is left looks like a crash during rotation, and opens. A sealed segment without a successor is
    /// therefore always a loss. And the seal is durable before the next segment gets its first group, so that any group there proves
    /// everything below its segment.
    pub(crate) fn rotate<'a>(&'a self, mut guard: Guard<'a>) -> Result<Guard<'a>> {
        let Home::Directory { fs, dir, .. } = &self.home else {
            return Ok(guard);
        };
        guard.frozen = true;
        let old = guard.active.clone();
        let (seal_lsn, seq) = (guard.appended, guard.next_seq);
        let seal = segment::encode_seal(&old.file.superblock, seal_lsn, seq, &guard.index.entries);
        let end = Place { lsn: seal_lsn + seal.len() as u64, seq };
        let superblock = guard.superblock(&self.options, guard.generation(), end, &**fs);
        let reserve = RESERVE.min(self.options.segment_size);
        let guard = if mutation::is(Mutation::SealBeforeSuccessor) {
            let (guard, _) = self.write_out(guard, Goal::Durable);
            let written = old.store.write_at(old.offset(seal_lsn), &seal);
            let _ = written.and_then(|()| old.store.truncate(old.offset(end.lsn))).and_then(|()| old.store.sync());
            guard
        } else {
            guard
        };
        let (mut guard, created) = self.exclusive(guard, || {
            // Reserved first, so that a full disk is met before anything has changed.
            old.store
                .preallocate(old.offset(seal_lsn), seal.len() as u64)
                .map_err(|e| CreateError::Unchanged(Error::io("reserve space in", &old.file.path, e)))?;
            segment::create(&**fs, dir, superblock, reserve, |_| Ok(()))
        });
        let next = match created {
            Ok(next) => next,
            Err(error) => {
                guard.frozen = false;
                return Err(match error {
                    CreateError::Unchanged(error) => error,
                    CreateError::Unknown(error) => guard.stop(Failure::from(error), None),
                });
            }
        };
        let (guard, result) = self.write_out(guard, Goal::Durable);
        let skip = mutation::is(Mutation::SkipSealBarrier);
        let (mut guard, result) = self.exclusive(guard, || {
            result?;
            let written = old.store.write_at(old.offset(seal_lsn), &seal);
            let trimmed = written.and_then(|()| old.store.truncate(old.offset(end.lsn)));
            let synced = trimmed.and_then(|()| if skip { Ok(()) } else { old.store.sync() });
            synced.map_err(|e| Error::io("seal", &old.file.path, e))
        });
        guard.frozen = false;
        if let Err(error) = result {
            return Err(guard.stop(Failure::from(error), None));
        }
        guard.start_in(next, end, end.lsn + reserve);
        guard.stats.rotations += 1;
        guard.stats.bytes_written += seal.len() as u64;
        Ok(guard)
    }

    /// Freezes the log with everything in it durable: for a truncation, or for closing.
    pub(crate) fn freeze(&self) -> Result<Guard<'_>> {
        let mut guard = self.lock();
        loop {
            guard.check_writable()?;
            if guard.busy || guard.frozen {
                guard = self.wait(guard);
            } else if guard.flushed < guard.appended && mutation::is(Mutation::MarkBeforeBarrier) {
                guard = self.write_out(guard, Goal::Flushed).0;
            } else if guard.durable < guard.appended && !mutation::is(Mutation::MarkBeforeBarrier) {
                let (relocked, result) = self.write_out(guard, Goal::Durable);
                guard = relocked;
                result?;
            } else {
                guard.frozen = true;
                return Ok(guard);
            }
        }
    }

    /// In a frozen log: appends a group that names a place, and makes it durable. Fails before anything has changed when there is no
    /// space for it, and for a mark behind it.
    pub(crate) fn write_note<'a>(&'a self, guard: Guard<'a>, kind: GroupKind, place: Place) -> (Guard<'a>, Result<()>) {
        let end = guard.appended + const { (2 * GROUP_HEADER_LEN + frame_len(HeadMark::LEN)) as u64 };
        let (mut guard, result) = self.reserve_space(guard, end);
        if result.is_err() {
            return (guard, result);
        }
        let superblock = guard.active.file.superblock;
        let note = HeadMark { lsn: place.lsn, seq: place.seq, uuid: *superblock.uuid.as_bytes() };
        let frame = if kind == GroupKind::Cut { FrameKind::Cut } else { FrameKind::Head };
        let lsn = guard.appended;
        let mut bytes = vec![0; GROUP_HEADER_LEN];
        push_frame(&mut bytes, frame, &note.encode(), lsn + GROUP_HEADER_LEN as u64, guard.active.seed());
        let header = GroupHeader {
            kind,
            padding: 0,
            len: u32::try_from(bytes.len()).expect("a note is small"),
            generation: superblock.generation,
            lsn,
            durable_lsn: guard.durable,
            first_seq: guard.next_seq,
        };
        bytes[..GROUP_HEADER_LEN].copy_from_slice(&header.encode(guard.active.log_seed()));
        guard.push_group(&bytes);
        self.write_out(guard, Goal::Durable)
    }

    /// In a frozen log: writes that all of it is durable, unless the disk says so already, and gives back reserved space.
    ///
    /// The barrier before the mark is what the mark claims; a barrier behind it only makes the claim itself durable. With one barrier
    /// for both: 1. the mark lands, 2. power fails before the last group does, 3. a torn tail is taken for corruption.
    pub(crate) fn write_mark<'a>(&'a self, guard: Guard<'a>) -> (Guard<'a>, Result<()>) {
        if guard.marked {
            return (guard, Ok(()));
        }
        let end = guard.appended + GROUP_HEADER_LEN as u64;
        let (mut guard, result) = self.reserve_space(guard, end);
        if result.is_err() {
            return (guard, result);
        }
        let active = guard.active.clone();
        let mark = segment::encode_mark(guard.appended, guard.next_seq, guard.generation(), active.log_seed());
        guard.push_group(&mark);
        let store = active.store.clone();
        let (guard, trimmed) = self.exclusive(guard, || store.truncate(active.offset(end)));
        let (mut guard, result) = self.write_out(guard, Goal::Durable);
        guard.marked = result.is_ok();
        let trimmed = trimmed.map_err(|e| Error::io("trim", &active.file.path, e));
        (guard, result.and(trimmed))
    }
}

/// Starts a segment that supersedes everything at or after its base in lower generations: what `from` holds between that base and
/// `end` is carried over, and a mark says that it is durable.
pub(crate) fn start_generation(
    fs: &dyn Fs,
    dir: &Path,
    superblock: Superblock,
    from: &SegmentFile,
    end: Place,
) -> std::result::Result<ActiveSegment, CreateError> {
    let base_lsn = superblock.base_lsn;
    let span = from.open(fs, end.lsn).map_err(CreateError::Unchanged)?;
    let reserve = end.lsn - base_lsn + GROUP_HEADER_LEN as u64 + NOTES;
    segment::create(fs, dir, superblock, reserve, |store| {
        if base_lsn < end.lsn {
            let walk = Walk::new(span, base_lsn, superblock.base_seq);
            segment::carry(walk, end.lsn, &superblock, store, &from.path)?;
        }
        let log = crate::format::Seed::of_log(superblock.uuid);
        let mark = segment::encode_mark(end.lsn, end.seq, superblock.generation, log);
        let offset = crate::format::DATA_OFFSET + (end.lsn - base_lsn);
        cairn_io::Store::write_at(store, offset, &mark).map_err(|e| Error::io("write to", &from.path, e))
    })
}
