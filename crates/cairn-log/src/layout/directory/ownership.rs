//! Who may write, and whether the files that have our names are still ours.

use std::ffi::OsStr;
use std::io;

use cairn_io::{Access, File, FileId};

use super::{Directory, LOCK_NAME};
use crate::error::{Error, Result};
use crate::mutation::{self, Mutation};
use crate::segment::file::SegmentFile;

impl Directory {
    /// Takes the locks: of the directory itself, where it has one, and of the lock file. They are
    /// held until [`Layout::unlock`], or as long as this lives.
    ///
    /// The directory's is for him who removes the lock file as stale; it comes first, so that who
    /// is refused leaves no other lock file behind.
    pub(crate) fn lock(&self) -> Result<()> {
        self.lock_itself()?;
        let locked = || Error::Locked { path: self.path.clone() };
        let ignored = mutation::is(Mutation::IgnoreLock);
        let name = OsStr::new(LOCK_NAME);
        let file = match self.dir.create_new(name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.dir.open(name, Access::ReadWrite)
            }
            created => created,
        };
        let file = file.map_err(self.error("open", LOCK_NAME))?;
        match file.try_lock() {
            Ok(taken) if taken || ignored => {
                let _ = self.lock.set(file);
                Ok(())
            }
            Ok(_) => Err(locked()),
            Err(e) => Err(self.error("lock", LOCK_NAME)(e)),
        }
    }

    /// Takes the lock of the directory itself, which leaves nothing behind.
    pub(crate) fn lock_itself(&self) -> Result<()> {
        if mutation::is(Mutation::LockFileAlone) {
            return Ok(());
        }
        match self.dir.try_lock() {
            Ok(taken) if taken || mutation::is(Mutation::IgnoreLock) => Ok(()),
            Ok(_) => Err(Error::Locked { path: self.path.clone() }),
            Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(()),
            Err(e) => Err(Error::io("lock", &self.path, e)),
        }
    }

    /// Fails unless the file with this name is still that one.
    pub(super) fn expect_file(&self, name: &str, id: FileId) -> Result<()> {
        let found = match self.dir.stat(name.as_ref()) {
            Ok(found) => Some(found.id),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(self.error("look for", name)(e)),
        };
        match found == Some(id) || mutation::is(Mutation::TrustName) {
            true => Ok(()),
            false => Err(Error::Displaced { path: self.at(name) }),
        }
    }

    /// The same of a sealed segment. It is only read, so a symbolic link to that file will do.
    pub(super) fn expect_sealed(&self, name: &str, id: FileId) -> Result<()> {
        let expected = self.expect_file(name, id);
        if let Err(Error::Displaced { .. }) = expected
            && let Ok(file) = self.dir.open(name.as_ref(), Access::Read)
            && file.stat().is_ok_and(|found| found.id == id)
        {
            return Ok(());
        }
        expected
    }

    /// Fails unless the directory and its lock file are where they were.
    pub(super) fn expect_own(&self) -> Result<()> {
        match self.dir.is_in_place() {
            Ok(false) if !mutation::is(Mutation::TrustName) => {
                return Err(Error::Displaced { path: self.path.clone() });
            }
            Ok(_) => {}
            Err(e) => return Err(Error::io("look for", &self.path, e)),
        }
        match self.lock.get() {
            Some(lock) => self.expect_file(LOCK_NAME, self.id_of(LOCK_NAME, &**lock)?),
            None => Ok(()),
        }
    }

    /// Fails if this file, which has the segment's name now, is not the one that had it when the
    /// log was looked at.
    pub(super) fn expect_same(&self, segment: &SegmentFile, handle: &dyn File) -> Result<()> {
        match (segment.id, handle.stat()) {
            (Some(seen), Ok(found)) if found.id != seen && !mutation::is(Mutation::TrustName) => {
                Err(Error::Displaced { path: self.at(&segment.name().to_string()) })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn id_of(&self, name: &str, handle: &dyn File) -> Result<FileId> {
        Ok(handle.stat().map_err(self.error("look at", name))?.id)
    }
}
