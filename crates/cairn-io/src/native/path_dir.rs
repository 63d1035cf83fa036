//! A directory by its path, for systems without descriptors of directories: the path is made
//! absolute when it is opened, and before a name changes, the directory that has it is compared
//! with the one that was opened.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File as StdFile, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::barrier::explain_barrier;
use super::file::NativeFile;
use super::stat::{kind_of, stat_of};
use crate::dir::{Dir, FileId, Kind, Stat, single_name};
use crate::fs::{Access, File};

#[derive(Debug)]
pub(super) struct PathDir {
    path: PathBuf,
    id: FileId,
}

/// A handle of a directory needs `FILE_FLAG_BACKUP_SEMANTICS`, and `FlushFileBuffers` needs write
/// access.
#[cfg(windows)]
fn open_dir(path: &Path, access: Access) -> io::Result<StdFile> {
    use std::os::windows::fs::OpenOptionsExt;
    const FILE_FLAG_BACKUP_SEMANTICS: u32 = 0x0200_0000;
    let mut options = OpenOptions::new();
    options.read(true).write(access == Access::ReadWrite);
    let dir = options.custom_flags(FILE_FLAG_BACKUP_SEMANTICS).open(path)?;
    match dir.metadata()?.is_dir() {
        true => Ok(dir),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}

impl PathDir {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let path = std::path::absolute(path)?;
        let id = stat_of(&open_dir(&path, Access::Read)?)?.id;
        Ok(PathDir { path, id })
    }

    /// The path of a name that is about to change.
    fn checked(&self, name: &OsStr) -> io::Result<PathBuf> {
        match self.is_in_place()? {
            true => self.at(name),
            false => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the directory was moved, removed or replaced",
            )),
        }
    }

    fn at(&self, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path.join(single_name(name)?))
    }

    fn file(&self, opened: io::Result<StdFile>) -> io::Result<Arc<dyn File>> {
        let file = NativeFile(opened?);
        match file.stat()?.kind {
            Kind::File => Ok(Arc::new(file)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
        }
    }
}

impl Dir for PathDir {
    fn open(&self, name: &OsStr, access: Access) -> io::Result<Arc<dyn File>> {
        let write = access == Access::ReadWrite;
        let path = if write { self.checked(name)? } else { self.at(name)? };
        if write && fs::symlink_metadata(&path)?.is_symlink() {
            let why = "it is a symbolic link, which is not written through";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        self.file(OpenOptions::new().read(true).write(write).open(path))
    }

    fn create_new(&self, name: &OsStr) -> io::Result<Arc<dyn File>> {
        let path = self.checked(name)?;
        self.file(OpenOptions::new().read(true).write(true).create_new(true).open(path))
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        let (from, to) = (self.checked(from)?, self.at(to)?);
        match fs::symlink_metadata(&to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
            Err(e) => Err(e),
        }
    }

    fn replace(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        fs::rename(self.checked(from)?, self.at(to)?)
    }

    fn remove(&self, name: &OsStr) -> io::Result<()> {
        fs::remove_file(self.checked(name)?)
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        fs::read_dir(&self.path)?.map(|entry| entry.map(|e| e.file_name())).collect()
    }

    /// Windows promises no barrier for directories. NTFS journals names in order, and flushing a
    /// directory handle pushes that journal out. A file system that refuses this reports an error,
    /// never an Ok.
    fn sync(&self) -> io::Result<()> {
        open_dir(&self.path, Access::ReadWrite)?.sync_all().map_err(explain_barrier)
    }

    fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        let path = self.at(name)?;
        let metadata = fs::symlink_metadata(&path)?;
        match kind_of(&metadata) {
            Kind::File => stat_of(&StdFile::open(path)?),
            kind => Ok(Stat { id: FileId { device: 0, inode: 0 }, kind, links: 1 }),
        }
    }

    fn is_in_place(&self) -> io::Result<bool> {
        match open_dir(&self.path, Access::Read) {
            Ok(dir) => Ok(stat_of(&dir)?.id == self.id),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn try_lock(&self) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}
