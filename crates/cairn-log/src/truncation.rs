//! Dropping records at either end. Both freeze the log first, so that no append is under way while positions are decided.

use std::path::PathBuf;

use cairn_io::Fs;

use crate::commit::{Core, Guard, Home, NOTES};
use crate::error::{Error, Failure, Result};
use crate::format::{GROUP_HEADER_LEN, GroupKind};
use crate::leading::Leading;
use crate::mutation::{self, Mutation};
use crate::rotation::start_generation;
use crate::segment::{self, CreateError};
use crate::state::Place;
use crate::tail::Cut;
use crate::{Lsn, Start};

/// A log whose cut is at most this far from its segment's beginning moves as a whole into the new generation, so that a thousand crashes or
/// truncations do not leave a thousand small files.
const CARRY_WHOLE_MAX: u64 = 256 << 10;

/// So many files of dropped segments are kept to be written on: the disk space of as many segments.
const KEPT_MAX: usize = 4;

/// Where the segment of a new generation starts, when the log is cut at or after `carried`, up to where it may stay as it is, in a segment that starts at `base`.
pub(crate) fn generation_base(base: Place, carried: Place, end_lsn: u64) -> Place {
    if end_lsn - base.lsn <= CARRY_WHOLE_MAX { base } else { carried }
}

impl Core {
    /// Drops every record before the one at the boundary `lsn`.
    ///
    /// The new head is in the log, durably, before any file goes. In the other order: 1. the first files are gone, 2. power
    /// fails, 3. the log opens with a head nobody asked for, or not at all.
    pub(crate) fn truncate_before(&self, lsn: Lsn) -> Result<()> {
        let (leading, guard) = self.freeze()?;
        let (mut guard, obsolete) = leading.drop_before(guard, lsn);
        guard.frozen = false;
        leading.finish(guard);
        // Nobody needs them, and nobody waits until they are gone, which takes a file system its time.
        match &self.home {
            Home::Directory { fs, dir, .. } => segment::remove(&**fs, dir, self.keep_dropped(obsolete?)).map(drop),
            Home::Store { .. } => obsolete.map(drop),
        }
    }

    /// Keeps as many of these files as are worth keeping, to write the next segments into; returns the others.
    fn keep_dropped(&self, mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
        let mut guard = self.lock();
        // On a full disk the space is wanted elsewhere.
        if !guard.closed && guard.stopped.is_none() && !guard.prepared.is_short() {
            let room = KEPT_MAX.saturating_sub(guard.dropped.len());
            let kept = paths.split_off(paths.len().saturating_sub(room));
            guard.dropped.extend(kept);
        }
        paths
    }

    /// Drops every record after the one that starts at `lsn`.
    pub(crate) fn truncate_after(&self, lsn: Lsn) -> Result<()> {
        let (leading, guard) = self.freeze()?;
        let (mut guard, result) = leading.drop_after(guard, lsn);
        guard.frozen = false;
        leading.finish(guard);
        result
    }
}

impl<'a> Leading<'a> {
    /// Returns the files that hold nothing of the log any more.
    fn drop_before(&self, guard: Guard<'a>, lsn: Lsn) -> (Guard<'a>, Result<Vec<PathBuf>>) {
        let mut reader = self.reader_of(&guard);
        let (guard, found) = self.unlocked(guard, || {
            reader.seek(Start::Lsn(lsn))?;
            Ok((reader.place(), reader.group_place()))
        });
        let (place, group) = match found {
            Ok(found) => found,
            Err(error) => return (guard, Err(error)),
        };
        if place.seq == guard.head.seq {
            return (guard, Ok(Vec::new()));
        }
        let guard = match &self.home {
            Home::Directory { fs, dir, .. } if mutation::is(Mutation::RemoveBeforeNote) => {
                let below = guard.segments.windows(2).take_while(|pair| pair[1].superblock.base_lsn <= place.lsn);
                let paths = below.map(|pair| pair[0].path.clone()).collect();
                self.unlocked(guard, || segment::remove(&**fs, dir, paths).map(drop)).0
            }
            _ => guard,
        };
        let (guard, result) = self.retract_successor(guard);
        let (mut guard, result) = match result {
            Ok(()) => self.write_note(guard, GroupKind::Head, place),
            failed => (guard, failed),
        };
        if let Err(error) = result {
            return (guard, Err(error));
        }
        guard.head = place;
        guard.origin = group;
        let unneeded = guard.segments.windows(2).take_while(|pair| pair[1].superblock.base_lsn <= place.lsn).count();
        let paths: Vec<_> = guard.segments.drain(..unneeded).map(|s| s.path).collect();
        match &self.home {
            Home::Directory { .. } => (guard, Ok(paths)),
            Home::Store { store } => {
                let active = guard.active.clone();
                let (guard, dropped) = self.unlocked(guard, || store.truncate_before(active.offset(group.lsn)));
                let dropped = dropped.map_err(|e| Error::io("drop the beginning of", &active.file.path, e));
                (guard, dropped.map(|_| Vec::new()))
            }
        }
    }

    fn drop_after(&self, guard: Guard<'a>, lsn: Lsn) -> (Guard<'a>, Result<()>) {
        let mut reader = self.reader_of(&guard);
        let (guard, found) = self.unlocked(guard, || reader.seek_past(lsn));
        let cut = match found {
            Ok(cut) => cut,
            Err(error) => return (guard, Err(error)),
        };
        if cut.seq == guard.end.seq {
            return (guard, Ok(()));
        }
        match &self.home {
            Home::Directory { fs, dir, .. } => self.cut_directory(guard, &**fs, dir, cut),
            Home::Store { .. } => self.cut_store(guard, cut),
        }
    }

    /// Cuts by creating one file, a segment of the next generation that starts at or before the cut.
    ///
    /// The files it supersedes go only then. In the other order: 1. a later segment is gone, 2. power fails, 3. the log has a hole.
    fn cut_directory(
        &self,
        guard: Guard<'a>,
        fs: &dyn Fs,
        dir: &std::path::Path,
        cut: Place,
    ) -> (Guard<'a>, Result<()>) {
        let step = if mutation::is(Mutation::KeepGeneration) { 0 } else { 1 };
        let Some(generation) = guard.generation().checked_add(step) else {
            return (guard, Err(Error::io("start a generation in", dir, std::io::ErrorKind::FileTooLarge.into())));
        };
        let from =
            guard.segments.iter().rfind(|s| s.superblock.base_lsn <= cut.lsn).unwrap_or(&guard.active.file).clone();
        let base = generation_base(from.base(), cut, cut.lsn);
        let superblock = guard.superblock(&self.options, generation, base, fs);
        let (guard, retracted) = self.retract_successor(guard);
        if retracted.is_err() {
            return (guard, retracted);
        }
        let guard = if mutation::is(Mutation::RemoveBeforeCut) {
            let later = guard.segments.iter().filter(|s| s.superblock.base_lsn > cut.lsn);
            let paths = later.map(|s| s.path.clone()).collect();
            self.unlocked(guard, || segment::remove(fs, dir, paths).map(drop)).0
        } else {
            guard
        };
        let (mut guard, created) =
            self.unlocked(guard, || start_generation(&self.options, dir, superblock, &from, cut));
        let next = match created {
            Ok(next) => next,
            Err(CreateError::Unchanged(error)) => return (guard, Err(error)),
            Err(CreateError::Unknown(error)) => {
                let error = self.stop(&mut guard, Failure::from(error), None);
                return (guard, Err(error));
            }
        };
        let kept = guard.segments.partition_point(|s| s.superblock.base_lsn < base.lsn);
        let obsolete = guard.segments.split_off(kept);
        let obsolete = obsolete.into_iter().map(|s| s.path).filter(|path| *path != next.file.path).collect();
        let end = Place { lsn: cut.lsn + GROUP_HEADER_LEN as u64, seq: cut.seq };
        guard.start_in(next, end, end.lsn + NOTES, 0);
        guard.note_cut(cut);
        guard.marked = true;
        self.unlocked(guard, || segment::remove(fs, dir, obsolete).map(drop))
    }

    /// Cuts by one group that takes everything between the cut and itself out of the log.
    fn cut_store(&self, guard: Guard<'a>, cut: Place) -> (Guard<'a>, Result<()>) {
        let (mut guard, result) = self.write_note(guard, GroupKind::Cut, cut);
        if result.is_ok() {
            let resumes = guard.end.lsn;
            guard.cuts.push(Cut { lsn: cut.lsn, seq: cut.seq, resumes });
            guard.index.entries.retain(|e| e.lsn < cut.lsn);
            (guard.end.seq, guard.flushed.seq) = (cut.seq, cut.seq);
            guard.note_cut(cut);
        }
        (guard, result)
    }
}
