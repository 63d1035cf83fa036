//! A directory with a file for each segment. A file that has a segment's name is whole and durable.
//!
//! The directory is held open, and files are named relative to it: moving it, or leaving the
//! working directory, changes nothing. No name that is taken is ever replaced. That the directory,
//! the lock file and the active segment still have their names is looked at before a name is given,
//! and when the log is closed.

mod creation;
mod cuts;
mod files;
mod gaps;
mod ownership;
mod state;
mod stated;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cairn_io::{
    Access, Barrier, Dir, DirectStore, File, FileStore, Fs, Kind, Store, open_dir, reserve_space,
    retry,
};

pub(crate) use cuts::is_cut;
pub(crate) use gaps::{GAPS_NAME, GAPS_TEMP_NAME, Premise, is_in};
pub(crate) use stated::Stated;

use crate::error::{Error, Result};
use crate::format::{DATA_OFFSET, SegmentName, StateRecord, Superblock};
use crate::gap::Gap;
use crate::layout::{CreateError, Layout, Started};
use crate::mutation::{self, Mutation};
use crate::options::Options;
use crate::place::{FileOffset, Lsn};
use crate::segment::carry::{Boundary, CARRIED_WHOLE_BYTES_MAX};
use crate::segment::file::{ActiveSegment, SegmentFile};
use crate::segment::list::SegmentList;
use crate::segment::space::{Room, SpareFile};
use crate::segment::span::Span;
use crate::segment::zeros::zero;
use crate::sync::Mutex;

/// The file whose lock makes a writer the only one.
pub(crate) const LOCK_NAME: &str = "LOCK";

/// The file with the newest opening, and how far the log is known to reach.
pub(crate) const STATE_NAME: &str = "STATE";

/// The name of a segment until it is whole. There is never more than one; a left-over is
/// overwritten.
pub(crate) const TEMP_NAME: &str = "next.tmp";

/// The name of a file that is to become the next segment.
pub(crate) const SPARE_NAME: &str = "spare.tmp";

/// Bytes that become zeros at the beginning of a recycled file: the superblock, and where the first
/// group begins.
const RECYCLED_ZEROS_BYTES: u64 = DATA_OFFSET + 4096;

/// A log's directory, held open. What `path` leads to later does not matter.
#[derive(Debug)]
pub(crate) struct Directory {
    fs: Arc<dyn Fs>,
    dir: Arc<dyn Dir>,
    /// What messages call it: the path that it was opened by.
    path: PathBuf,
    /// The lock file of a writer.
    lock: OnceLock<Arc<dyn File>>,
    /// Of its names. A second Ok after a failure proves nothing, as for a file's bytes.
    barrier: Barrier,
    /// Whether commits may go past the page cache.
    direct_io: bool,
    /// Size in bytes after which a segment is full: only files that fit are recycled.
    segment_size: u64,
    /// The state's file, once it was written to. It stays the same one: by its path another log's
    /// could be met at close, which began here when this one was moved.
    state: OnceLock<Arc<dyn File>>,
    /// What a repair found, or is about to.
    premise: Mutex<Arc<Premise>>,
}

impl Directory {
    /// The directory `path`, to look at it; `None` if there is none.
    pub(crate) fn open(fs: Arc<dyn Fs>, path: &Path) -> Result<Option<Self>> {
        let dir = match open_dir(&fs, path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            dir => dir.map_err(|e| Error::io("open", path, e))?,
        };
        Ok(Some(Directory {
            fs,
            dir,
            path: path.to_owned(),
            lock: OnceLock::new(),
            barrier: Barrier::default(),
            direct_io: false,
            segment_size: 0,
            state: OnceLock::new(),
            premise: Mutex::default(),
        }))
    }

    /// The directory `path`, for a writer, which takes the [lock](Directory::lock) before it changes
    /// anything else. It is made if there is none; whether it was.
    pub(crate) fn for_writer(options: &Options, path: &Path) -> Result<(Self, bool)> {
        let Options { direct_io, segment_size, .. } = *options;
        let found = Directory::open(options.fs.clone(), path)?;
        let made = found.is_none();
        let directory = match found {
            Some(found) => found,
            None => Directory::make(options.fs.clone(), path)?,
        };
        Ok((Directory { direct_io, segment_size, ..directory }, made))
    }

    /// Creates the directory, unless another process just did.
    fn make(fs: Arc<dyn Fs>, path: &Path) -> Result<Self> {
        match fs.create_dir(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create directory", path, e));
            }
            _ => {}
        }
        let nothing = || Error::io("open", path, io::ErrorKind::NotFound.into());
        Directory::open(fs, path)?.ok_or_else(nothing)
    }

    pub(crate) fn fs(&self) -> &dyn Fs {
        &*self.fs
    }

    /// What messages call the file with this name.
    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What messages call a file that is not the log's.
    pub(crate) fn path_of_stray(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }

    /// An error about one of the files.
    pub(crate) fn error<'a>(
        &'a self,
        op: &'static str,
        name: &'a str,
    ) -> impl Fn(io::Error) -> Error + 'a {
        move |e| Error::io(op, &self.at(name), e)
    }

    /// The names in it, in no order.
    pub(crate) fn list(&self) -> Result<Vec<OsString>> {
        self.dir.list().map_err(|e| Error::io("list", &self.path, e))
    }

    /// Makes the name of the directory durable, before anything in it is. Also when it was there:
    /// the process that made it may have died, or been refused, before this. If we lack permission
    /// to open the parent, the process that created the directory is responsible for its name:
    /// unless that is this one, which `made` it.
    pub(crate) fn sync_parent(&self, made: bool) -> Result<()> {
        if mutation::is(Mutation::SkipParentSync) {
            return Ok(());
        }
        let parent = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        match self.fs.sync_dir(parent) {
            Err(e) if made || e.kind() != io::ErrorKind::PermissionDenied => {
                Err(Error::io("sync directory", parent, e))
            }
            _ => Ok(()),
        }
    }

    /// Makes the names in it durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.sync_names().map_err(|e| Error::io("sync directory", &self.path, e))
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut first = None;
        let synced = self.barrier.shared(|| {
            self.dir.sync().map_err(|e| {
                let told = io::Error::new(e.kind(), e.to_string());
                first = Some(e);
                told
            })
        });
        // Who meets the failure is told what the system said.
        synced.map_err(|again| first.unwrap_or(again))
    }

    /// Opens a segment's file to be read.
    pub(crate) fn read(&self, segment: SegmentName) -> io::Result<Arc<dyn File>> {
        let misnamed = self.premise().misnamed.get(&segment).cloned();
        let name = misnamed.unwrap_or_else(|| segment.to_string());
        self.dir.open(name.as_ref(), Access::Read)
    }

    /// A store in the open file with this name, which writes past the page cache if it may and can.
    fn writable(&self, name: &str, file: Arc<dyn File>) -> Arc<dyn Store> {
        if self.direct_io
            && let Ok(direct) = self.dir.open_direct(name.as_ref(), &*file)
        {
            return Arc::new(DirectStore::new(file, direct));
        }
        Arc::new(FileStore::new(file))
    }

    fn remove_if_there(&self, name: &str) -> io::Result<()> {
        match self.dir.remove(name.as_ref()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Gives the file of `from` the name `to`, which must be free.
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if mutation::is(Mutation::ReplaceNames) {
            return self.dir.replace(from.as_ref(), to.as_ref());
        }
        self.dir.rename(from.as_ref(), to.as_ref())
    }

    /// Makes a range of an open file durable zeros.
    fn zero_file(&self, name: &str, file: &dyn File, offset: u64, len: u64) -> io::Result<()> {
        let direct = self.dir.open_direct(name.as_ref(), file).ok();
        zero(direct.as_deref(), file, offset, len)
    }

    /// Makes the file of a dropped segment spare; `None` if that is not worth while, or not ours to
    /// do: the file has another name, as in a backup of hard links, or the name leads to a file
    /// elsewhere. Then the name is gone, and nothing else.
    fn try_to_recycle(&self, segment: SegmentName) -> io::Result<Option<SpareFile>> {
        let from = segment.to_string();
        let file = match self.dir.open(from.as_ref(), Access::ReadWrite) {
            // A symbolic link.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                self.dir.remove(from.as_ref())?;
                return Ok(None);
            }
            opened => opened?,
        };
        let len = file.len()?;
        // Only files between half and one full segment size: an oversized file would stay
        // oversized, and a small one saves too little.
        if !(self.segment_size / 2..=self.segment_size).contains(&len) {
            self.dir.remove(from.as_ref())?;
            return Ok(None);
        }
        let recycled_len = len.max(RECYCLED_ZEROS_BYTES);
        self.remove_if_there(SPARE_NAME)?;
        self.rename(&from, SPARE_NAME)?;
        if !mutation::is(Mutation::RecycleUnderOldName) {
            self.sync_names()?;
        }
        // Counted now that the old name is gone: nobody who backs the log up finds the file any
        // more.
        if file.stat()?.links != 1 && !mutation::is(Mutation::RecycleLinked) {
            self.dir.remove(SPARE_NAME.as_ref())?;
            return Ok(None);
        }
        if !mutation::is(Mutation::KeepRecycledBeginning) {
            self.zero_file(SPARE_NAME, &*file, 0, RECYCLED_ZEROS_BYTES)?;
        }
        let filled = recycled_len - recycled_len % DATA_OFFSET - DATA_OFFSET;
        let room = Room {
            reserve: recycled_len - DATA_OFFSET,
            zeroed: usize::try_from(filled).unwrap_or(0),
        };
        Ok(Some(SpareFile { file, room, recycled_len }))
    }
}

impl Layout for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn path_of(&self, segment: SegmentName) -> PathBuf {
        self.at(&segment.to_string())
    }

    fn rotates(&self) -> bool {
        true
    }

    fn background(&self) -> bool {
        self.fs.background()
    }

    fn open(&self, segment: &SegmentFile, end_lsn: Lsn) -> Result<Span> {
        let path = self.path_of(segment.name());
        let file = self.read(segment.name()).map_err(|e| Error::io("open", &path, e))?;
        // An operator may have replaced the file: the records of the other one are not this log's.
        self.expect_same(segment, &*file)?;
        let store = Arc::new(FileStore::new(file));
        let may_read_ahead = self.background();
        let gaps = self.gaps_of(&segment.superblock);
        Ok(Span { may_read_ahead, gaps, ..segment.span(store, path.into(), end_lsn) })
    }

    fn gap_before(&self, segment: &SegmentFile) -> Option<Gap> {
        self.gap_before_segment(&segment.superblock)
    }

    /// It has lost its name before anything in it changed.
    fn has_dropped(&self, segment: &SegmentFile, _: FileOffset) -> bool {
        self.read(segment.name()).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
    }

    fn resume(&self, segment: &SegmentFile) -> Result<ActiveSegment> {
        let name = segment.name().to_string();
        let opened = self.dir.open(name.as_ref(), Access::ReadWrite);
        let handle = opened.map_err(self.error("open", &name))?;
        self.expect_same(segment, &*handle)?;
        let store = self.writable(&name, handle.clone());
        let path = self.at(&name).into();
        let epoch = segment.superblock.epoch;
        Ok(ActiveSegment { file: *segment, path, store, epoch })
    }

    fn create(
        &self,
        superblock: Superblock,
        room: Room,
        spare: Option<SpareFile>,
    ) -> std::result::Result<ActiveSegment, CreateError> {
        self.create_with(superblock, room, spare, |_| Ok(()))
    }

    /// In a new file: its creation is the cut.
    fn start_generation(
        &self,
        superblock: Superblock,
        from: &SegmentFile,
        carried: Boundary,
        end: Boundary,
    ) -> std::result::Result<Started, CreateError> {
        let whole = self.start_within(CARRIED_WHOLE_BYTES_MAX, superblock, from, carried, end);
        let full = |started: &std::result::Result<Started, CreateError>| {
            matches!(started, Err(CreateError::Unchanged(Error::Full { .. })))
        };
        if !full(&whole) {
            return whole;
        }
        // On a full disk no more is copied than has to be.
        let least = self.start_within(0, superblock, from, carried, end);
        if !full(&least) || carried.place == end.place {
            return least;
        }
        // And where there is no space for that, nothing: it becomes durable where it is.
        self.write_again(from, carried.place.lsn, end.place.lsn).map_err(CreateError::Unchanged)?;
        let started = self.start_within(0, superblock, from, end, end)?;
        Ok(Started { carried_bytes: end.place.lsn - carried.place.lsn, ..started })
    }

    fn keep_state(&self, state: &StateRecord) -> Result<()> {
        self.write_state(state)
    }

    fn remove(&self, segments: &[SegmentName]) -> Result<Vec<PathBuf>> {
        let paths: Vec<PathBuf> = segments.iter().map(|name| self.path_of(*name)).collect();
        for name in segments.iter().map(SegmentName::to_string) {
            self.remove_if_there(&name).map_err(self.error("remove", &name))?;
        }
        if !segments.is_empty() {
            self.sync()?;
        }
        Ok(paths)
    }

    fn discard(&self, segments: &[SegmentName]) {
        for name in segments {
            let _ = self.remove_if_there(&name.to_string());
        }
    }

    fn keep_cut(&self, segment: &SegmentFile, from: Lsn, to: Lsn) -> Option<PathBuf> {
        self.copy_cut(segment, from, to).ok()
    }

    fn discard_cuts(&self, left: usize) {
        self.remove_cuts(left);
    }

    fn discard_spare(&self) {
        let _ = self.remove_if_there(SPARE_NAME);
    }

    fn trim(&self, segment: SegmentName, offset: FileOffset) {
        let name = segment.to_string();
        let Ok(file) = self.dir.open(name.as_ref(), Access::ReadWrite) else { return };
        // A backup of hard links may need the bytes behind `offset`.
        let is_ours_alone =
            mutation::is(Mutation::TrimLinked) || file.stat().is_ok_and(|found| found.links == 1);
        if is_ours_alone && file.len().is_ok_and(|len| len > offset.0) {
            let _ = retry(|| file.set_len(offset.0));
        }
    }

    /// Nothing goes but whole files.
    fn drop_beginning(&self, _: FileOffset) -> io::Result<()> {
        Ok(())
    }

    fn make_spare(&self, room: Room) -> io::Result<SpareFile> {
        self.remove_if_there(SPARE_NAME)?;
        let file = self.dir.create_new(SPARE_NAME.as_ref())?;
        let zeroed = DATA_OFFSET + room.zeroed as u64;
        let made = reserve_space(&*file, 0, room.end())
            .and_then(|()| self.zero_file(SPARE_NAME, &*file, 0, zeroed));
        if let Err(e) = made {
            self.discard_spare();
            return Err(e);
        }
        Ok(SpareFile { file, room, recycled_len: 0 })
    }

    fn recycle(&self, segment: SegmentName) -> Option<SpareFile> {
        self.try_to_recycle(segment).unwrap_or_default()
    }

    fn retract(&self, segment: SegmentName) -> std::result::Result<bool, CreateError> {
        let name = segment.to_string();
        let retracted =
            self.remove_if_there(SPARE_NAME).and_then(|()| self.rename(&name, SPARE_NAME));
        match retracted {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                let error = self.error("rename", &name)(e);
                // A call that failed may have been carried out. If the error was believed: 1. the
                // segment has lost its name, 2. the writer rotates into it, 3. the power fails, and
                // the next opening misses it.
                match self.dir.stat(name.as_ref()) {
                    _ if mutation::is(Mutation::TrustFailedRename) => {
                        return Err(CreateError::Unchanged(error));
                    }
                    Ok(_) => return Err(CreateError::Unchanged(error)),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(_) => return Err(CreateError::Unknown(error)),
                }
            }
            _ => {}
        }
        if !mutation::is(Mutation::RetractInHaste) {
            self.sync().map_err(CreateError::Unknown)?;
        }
        // A backup of hard links may have the name that was taken away, or it may be a link.
        let is_ours = self
            .dir
            .stat(SPARE_NAME.as_ref())
            .is_ok_and(|found| found.links == 1 && found.kind == Kind::File);
        if !is_ours {
            self.discard_spare();
        }
        Ok(is_ours)
    }

    /// Through a descriptor of its own: a barrier here must not be told of a failure that the
    /// writer's next one is to hear of.
    fn zero(&self, segment: &SegmentFile, offset: FileOffset, len: u64) -> io::Result<()> {
        let name = segment.name().to_string();
        let file = self.dir.open(name.as_ref(), Access::ReadWrite)?;
        if segment.id != Some(file.stat()?.id) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "another file has its name now"));
        }
        reserve_space(&*file, offset.0, len)?;
        self.zero_file(&name, &*file, offset.0, len)
    }

    fn expect_in_place(&self, active: &SegmentFile, others: &SegmentList) -> Result<()> {
        self.expect_own()?;
        if let Some(id) = active.id {
            self.expect_file(&active.name().to_string(), id)?;
        }
        others
            .iter()
            .filter_map(|segment| Some((segment.name(), segment.id?)))
            .try_for_each(|(name, id)| self.expect_sealed(&name.to_string(), id))
    }

    fn lock_file(&self) -> Option<&dyn File> {
        self.lock.get().map(|lock| &**lock)
    }

    fn unlock(&self) {
        // Nobody is kept out by what fails here but until the handles are closed.
        if let Some(lock) = self.lock.get() {
            let _ = lock.unlock();
        }
        let _ = self.dir.unlock();
    }
}
