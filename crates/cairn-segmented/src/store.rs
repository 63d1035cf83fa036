//! A store striped over files of one size.
//!
//! # Invariants
//!
//! 1. Segments `first..=last` exist, without a hole; there is always one. Byte `o` of the store is
//!    byte `4096 + o % segment_size` of segment `o / segment_size`.
//! 2. Every segment but the last has its full length, **durably, before its successor's name
//!    exists**. So the end of the store is the end of the last file, and a missing or short file in
//!    the middle is damage, never a gap that was never written.
//! 3. At any moment at most one name is created or removed and not yet behind a directory barrier.
//!    So every crash state is contiguous, whichever names survive.
//!
//! Why 2: otherwise (1) segment 3 is extended and segment 4 created; (2) the crash keeps the new
//! name and loses the new length; (3) the store ends in segment 4, and segment 3 is short: lost
//! bytes or late metadata, the next opening cannot tell.
//!
//! Why 3: otherwise (1) a truncation removes segments 5 and 4; (2) the crash keeps the removal of 4
//! only; (3) segment 5, with bytes that were to be gone, stands behind a hole.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, PoisonError};
#[cfg(cairn_loom)]
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(not(cairn_loom))]
use cairn_io::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use cairn_io::{
    Backend, Barrier, File, ReplaceState, Store, place_file, range, read_full_at, reserve_space,
    retry, write_all_at,
};

use crate::handles::Handles;
use crate::home::{Home, segment_name};
use crate::mutation::{self, Mutation};
use crate::superblock::{PAYLOAD_START, Superblock, end_of_segment};
use crate::survey::Survey;

/// No store has more segments at a time: a write far behind the end creates every file up to there.
const SEGMENTS_MAX: u64 = 1 << 20;

/// A [`Store`] striped over files of one size in a directory: it drops a prefix by removing whole
/// files, and no file grows without bound.
///
/// * [`sync`](Store::sync) covers every file with unsynced bytes, early ones included; a file's
///   descriptor stays open until then.
/// * [`truncate_before`](Store::truncate_before) drops whole files, oldest first;
///   [`head`](Store::head) is the start of the first one left, and survives reopening. The last
///   file always stays.
/// * A write behind the end creates all files up to there, at full length (sparse where the file
///   system can); at most 2^20 files exist at a time, beyond that writes fail with
///   [`FileTooLarge`](io::ErrorKind::FileTooLarge) and change nothing.
/// * Entering a new file costs its creation and three barriers, while other calls wait.
/// * A failed barrier is final, as for [`FileStore`](cairn_io::FileStore); so is a failed directory
///   operation whose outcome is unknown.
/// * The store is locked while the handle lives. If its directory or a file of it is moved, removed
///   or replaced meanwhile, the call that needs the name fails with
///   [`NotFound`](io::ErrorKind::NotFound) and has changed nothing; put back, all goes on.
/// * Bytes of an earlier process are judged by names and lengths only. A caller that builds on them
///   has to write them again, because no barrier of ours covers them. Files that were lost from
///   either end are not noticed here.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use cairn_io::{NativeFs, Store};
/// use cairn_segmented::SegmentedOptions;
///
/// let dir = tempfile::tempdir()?;
/// let options = SegmentedOptions::new().segment_size_bytes(4096);
/// let store = options.open(Arc::new(NativeFs), dir.path())?;
/// store.write_at(10_000, b"three files")?;
/// store.sync()?;
/// assert_eq!(store.truncate_before(10_000)?, 8192);
/// drop(store);
///
/// let store = SegmentedOptions::new().open(Arc::new(NativeFs), dir.path())?;
/// assert_eq!((store.head(), store.len()?), (8192, 10_011));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SegmentedStore {
    home: Home,
    uuid: [u8; 16],
    segment_size: u64,
    /// Shared by everything that reads or changes bytes, exclusive for what creates or removes
    /// files or cuts. Taken before `barrier`, which is taken before the handles' lock.
    segments: RwLock<Segments>,
    handles: Handles,
    barrier: Barrier,
}

/// Which segments exist: `first <= last`.
#[derive(Clone, Copy, Debug)]
struct Segments {
    first: u64,
    last: u64,
}

/// A part of a range that lies in one segment.
struct Piece {
    index: u64,
    /// Byte position in the file.
    position: u64,
    len: u64,
}

impl SegmentedStore {
    /// The store that was found there, whose locks are held.
    pub(crate) fn new(home: Home, found: Survey, open_files_max: usize) -> Self {
        Self {
            home,
            uuid: found.uuid,
            segment_size: found.segment_size,
            segments: RwLock::new(Segments { first: found.first, last: found.last }),
            handles: Handles::new(open_files_max),
            barrier: Barrier::default(),
        }
    }

    /// Takes a segment for changed, so that the next barrier covers it.
    pub(crate) fn distrust(&self, index: u64) -> io::Result<()> {
        let _open = self.file(index)?;
        self.handles.changed(index);
        Ok(())
    }

    /// The payload of each file, in bytes.
    pub fn segment_size_bytes(&self) -> u64 {
        self.segment_size
    }

    /// The store's identifier, drawn when it was created.
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// The directory, as given to `open`.
    pub fn dir(&self) -> &Path {
        &self.home.path
    }

    fn read(&self) -> RwLockReadGuard<'_, Segments> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Segments> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, index: u64) -> io::Result<Arc<dyn File>> {
        self.handles.get(index, || self.home.open(index))
    }

    /// Applies a change to a segment that exists; `segments` must be held, shared or exclusive.
    fn change<T>(
        &self,
        index: u64,
        change: impl FnOnce(&dyn File) -> io::Result<T>,
    ) -> io::Result<T> {
        let file = self.file(index)?;
        self.handles.changed(index);
        let result = change(&*file);
        self.handles.changed(index);
        result.map_err(|error| self.home.explain(index, error))
    }

    /// The store offset where a segment starts. Cannot overflow for a segment that exists.
    fn start_of(&self, index: u64) -> u64 {
        index.saturating_mul(self.segment_size)
    }

    fn end(&self, segments: &Segments) -> io::Result<u64> {
        let len = self.file(segments.last)?.len()?;
        len.checked_sub(PAYLOAD_START)
            .and_then(|payload| self.start_of(segments.last).checked_add(payload))
            .ok_or_else(|| cut_behind_our_back(segments.last))
    }

    /// Cuts a range, whose end fits a `u64`, at segment boundaries.
    fn pieces(&self, mut offset: u64, len: u64) -> impl Iterator<Item = Piece> + use<> {
        let (size, end) = (self.segment_size, offset.saturating_add(len));
        std::iter::from_fn(move || {
            let inside = offset % size;
            let piece = Piece {
                index: offset / size,
                position: PAYLOAD_START + inside,
                len: (size - inside).min(end - offset),
            };
            offset += piece.len;
            (piece.len > 0).then_some(piece)
        })
    }

    /// Runs `action` while segment `index` exists, creating it, and those before it, when it does
    /// not.
    fn with_segment<T>(
        &self,
        offset: u64,
        index: u64,
        action: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            let segments = self.read();
            if offset < self.start_of(segments.first) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            if index <= segments.last {
                return action();
            }
            drop(segments);
            self.grow(index)?;
        }
    }

    fn write_slices(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let end = range::end_of(offset, range::total_len(slices)?)?;
        self.barrier.check()?;
        let last = end.saturating_sub(1).max(offset) / self.segment_size;
        if end == offset {
            let in_place = offset >= self.head();
            return in_place.then_some(()).ok_or(io::ErrorKind::InvalidInput.into());
        }
        self.with_segment(offset, last, || {
            if offset / self.segment_size == last {
                let position = PAYLOAD_START + offset % self.segment_size;
                return self.change(last, |file| write_all_at(file, position, slices));
            }
            let mut at = offset;
            for slice in slices {
                let mut rest: &[u8] = slice;
                for piece in self.pieces(at, slice.len() as u64) {
                    let (now, later) = rest.split_at(usize_of(piece.len));
                    self.change(piece.index, |file| {
                        write_all_at(file, piece.position, &[IoSlice::new(now)])
                    })?;
                    rest = later;
                }
                at += slice.len() as u64;
            }
            Ok(())
        })
    }

    /// Creates segments up to `index`; see invariants 2 and 3.
    fn grow(&self, index: u64) -> io::Result<()> {
        let mut segments = self.write();
        let is_possible = index.saturating_sub(segments.first) < SEGMENTS_MAX
            && end_of_segment(index, self.segment_size).is_some();
        if !is_possible {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.barrier.check()?;
        while segments.last < index {
            self.fill(segments.last)?;
            let next = segments.last + 1;
            let len = match next < index {
                true => self.full_len(),
                false => PAYLOAD_START,
            };
            self.place(next, len)?;
            segments.last = next;
        }
        Ok(())
    }

    /// Makes a segment's full length durable, and with it its bytes. No thread writes meanwhile:
    /// `segments` is held exclusively.
    fn fill(&self, index: u64) -> io::Result<()> {
        let full = self.full_len();
        self.change(index, |file| match file.len()? < full {
            true => retry(|| file.set_len(full)),
            false => Ok(()),
        })?;
        self.barrier.exclusive(|| {
            let file = self.handles.unsynced().into_iter();
            for unsynced in file.filter(|unsynced| unsynced.index == index) {
                unsynced.file.sync_data()?;
                self.handles.synced(unsynced);
            }
            Ok(())
        })
    }

    /// Creates a segment file, durable as a whole. A failure before its name exists is over with it
    /// (free some space, try again); later ones leave the directory in doubt, and are latched as a
    /// failed barrier.
    fn place(&self, index: u64, len: u64) -> io::Result<()> {
        let superblock = Superblock::new(self.uuid, self.segment_size, index, self.home.fs.now());
        let (name, path) = (segment_name(index), self.home.path_of(index));
        self.home.expect_own()?;
        if mutation::is(Mutation::ReplaceNames) {
            let _ = self.home.dir.remove(name.as_ref());
        }
        let mut harmless = None;
        self.barrier.exclusive(|| {
            match place_file(&*self.home.dir, name.as_ref(), &path, &superblock.encode(), len) {
                Err(e) if e.state == ReplaceState::Old => {
                    harmless = Some(e.source);
                    Ok(())
                }
                placed => placed.map_err(|e| e.source),
            }
        })?;
        harmless.map_or(Ok(()), Err)
    }

    /// Removes a segment's file at either end, durably. `segments` no longer counts it when the
    /// barrier fails.
    ///
    /// A removal that is reported as failed may have happened. Were the store to go on: 1. the name
    /// is gone, 2. writes go through the descriptor that is still open, 3. a barrier makes them
    /// durable in a file that no process can open again.
    fn remove(&self, index: u64, removed: impl FnOnce()) -> io::Result<()> {
        // Before anything has changed: what is put back can go on.
        self.home.expect_at(index)?;
        self.barrier.exclusive(|| match self.home.dir.remove(segment_name(index).as_ref()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        })?;
        self.handles.forget(index);
        self.home.forget(index);
        removed();
        self.barrier.exclusive(|| self.home.dir.sync())
    }

    fn full_len(&self) -> u64 {
        PAYLOAD_START + self.segment_size
    }
}

impl Store for SegmentedStore {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_slices(offset, &[IoSlice::new(bytes)])
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let segments = self.read();
        if offset < self.start_of(segments.first) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut done = 0;
        for piece in self.pieces(offset, (buf.len() as u64).min(u64::MAX - offset)) {
            if piece.index > segments.last {
                break;
            }
            let file = self.file(piece.index)?;
            let wanted = usize_of(piece.len);
            let n = read_full_at(&*file, piece.position, &mut buf[done..done + wanted])?;
            done += n;
            if n < wanted {
                if piece.index < segments.last {
                    return Err(cut_behind_our_back(piece.index));
                }
                break;
            }
        }
        Ok(done)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.barrier.check()?;
        let mut segments = self.write();
        if len < self.start_of(segments.first) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if len >= self.end(&segments)? {
            return Ok(());
        }
        let keep = len / self.segment_size;
        while segments.last > keep {
            let last = segments.last;
            self.remove(last, || segments.last = last - 1)?;
        }
        let file_len = PAYLOAD_START + len % self.segment_size;
        self.change(keep, |file| retry(|| file.set_len(file_len)))
    }

    fn sync(&self) -> io::Result<()> {
        self.barrier.shared(|| {
            for unsynced in self.handles.unsynced() {
                unsynced.file.sync_data()?;
                self.handles.synced(unsynced);
            }
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.end(&self.read())
    }

    fn head(&self) -> u64 {
        self.start_of(self.read().first)
    }

    /// Removes whole files that lie before `offset`, one directory barrier each.
    fn truncate_before(&self, offset: u64) -> io::Result<u64> {
        self.barrier.check()?;
        let mut segments = self.write();
        if offset > self.end(&segments)? {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let first = (offset / self.segment_size).min(segments.last);
        while segments.first < first {
            let oldest = segments.first;
            self.remove(oldest, || segments.first = oldest + 1)?;
        }
        Ok(self.start_of(segments.first))
    }

    fn write_durable(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.write_slices(offset, slices)?;
        self.sync()
    }

    fn backend(&self) -> Backend {
        Backend::Buffered
    }

    /// Creates the files and reserves their space; grows the store to the end of the range where
    /// the file system can allocate. When there is no space for all of it, the part that could be
    /// reserved stays.
    fn preallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        offset.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        self.barrier.check()?;
        for piece in self.pieces(offset, len) {
            self.with_segment(offset, piece.index, || {
                self.change(piece.index, |file| reserve_space(file, piece.position, piece.len))
            })?;
        }
        Ok(())
    }
}

impl fmt::Debug for SegmentedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentedStore")
            .field("dir", &self.home.path)
            .field("segment_size", &self.segment_size)
            .field("segments", &self.segments)
            .finish_non_exhaustive()
    }
}

/// A piece never is longer than the buffer it was cut from.
fn usize_of(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

fn cut_behind_our_back(index: u64) -> io::Error {
    let what = format!("segment {index} is shorter than it must be: somebody else has cut it");
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}
