//! Where the files of a store are.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cairn_io::{Access, Dir, File, FileId, Fs, Kind, Process, retry};

use crate::mutation::{self, Mutation};

pub(crate) const LOCK_NAME: &str = "store.lock";

/// A directory that is held open: what its path leads to later does not matter. No name that is
/// taken is replaced, and a file that has another one's name is not written to.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) dir: Arc<dyn Dir>,
    /// What messages call it.
    pub(crate) path: PathBuf,
    pub(crate) lock: OnceLock<Arc<dyn File>>,
    /// What had the names of segments that were opened: their descriptors come and go.
    known: Mutex<BTreeMap<u64, FileId>>,
    process: Process,
}

/// The file of a segment. Twenty digits hold every `u64`, so names sort as numbers do.
pub(crate) fn segment_name(index: u64) -> String {
    format!("{index:020}.seg")
}

fn displaced() -> io::Error {
    let what = "the store or a file of it was moved, removed or replaced while it was open";
    io::Error::new(io::ErrorKind::NotFound, what)
}

impl Home {
    pub(crate) fn new(fs: Arc<dyn Fs>, dir: Arc<dyn Dir>, path: PathBuf) -> Self {
        let (known, process) = (Mutex::default(), Process::current());
        Home { fs, dir, path, lock: OnceLock::new(), known, process }
    }

    /// What messages call a segment.
    pub(crate) fn path_of(&self, index: u64) -> PathBuf {
        self.path.join(segment_name(index))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<u64, FileId>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a segment: the same file as before. One that is a symbolic link can only be read.
    pub(crate) fn open(&self, index: u64) -> io::Result<Arc<dyn File>> {
        let name = segment_name(index);
        let open = |access| retry(|| self.dir.open(name.as_ref(), access));
        let file = match open(Access::ReadWrite) {
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => open(Access::Read)?,
            opened => opened?,
        };
        self.expect(index, file.stat()?.id)?;
        Ok(file)
    }

    /// Why a change of a segment failed, if it is a link: the system's word for that says less.
    pub(crate) fn explain(&self, index: u64, error: io::Error) -> io::Error {
        let name = segment_name(index);
        match self.dir.stat(name.as_ref()) {
            Ok(found) if found.kind == Kind::Link => {
                let why = format!("{name} is a symbolic link, which is not written through");
                io::Error::new(io::ErrorKind::PermissionDenied, why)
            }
            _ => error,
        }
    }

    /// This file has a segment's name now that the directory is looked at.
    pub(crate) fn note(&self, index: u64, found: FileId) {
        self.known().insert(index, found);
    }

    /// Takes note of the file that has a segment's name; fails if another one had it before.
    pub(crate) fn expect(&self, index: u64, found: FileId) -> io::Result<()> {
        let same = *self.known().entry(index).or_insert(found) == found;
        match same || mutation::is(Mutation::TrustName) {
            true => Ok(()),
            false => Err(displaced()),
        }
    }

    /// Fails if somebody else's file has a segment's name, which is to be taken away.
    pub(crate) fn expect_at(&self, index: u64) -> io::Result<()> {
        // Opened, for what a link leads to.
        match self.dir.open(segment_name(index).as_ref(), Access::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            file => self.expect(index, file?.stat()?.id),
        }
    }

    /// The segment is removed.
    pub(crate) fn forget(&self, index: u64) {
        self.known().remove(&index);
    }

    /// Fails unless the directory and its lock file are where they were.
    pub(crate) fn expect_own(&self) -> io::Result<()> {
        if mutation::is(Mutation::TrustName) {
            return Ok(());
        }
        if !self.dir.is_in_place()? {
            return Err(displaced());
        }
        let Some(lock) = self.lock.get() else { return Ok(()) };
        match self.dir.stat(LOCK_NAME.as_ref()) {
            Ok(found) if found.id == lock.stat()?.id => Ok(()),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Err(displaced()),
        }
    }
}

/// Also for processes that were forked and have the files open.
impl Drop for Home {
    fn drop(&mut self) {
        // In such a process the locks are those of the one that goes on.
        if !self.process.is_current() && !mutation::is(Mutation::UnlockInChild)
            || mutation::is(Mutation::KeepLock)
        {
            return;
        }
        if let Some(lock) = self.lock.get() {
            let _ = lock.unlock();
        }
        let _ = self.dir.unlock();
    }
}
