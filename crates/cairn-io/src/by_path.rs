//! A directory of a file system that knows paths alone.

use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dir::{Dir, Stat, expect_same_file, parent_dir, single_name};
use crate::fs::{Access, File, Fs};

/// Holds the path that the directory had, made absolute. What has a name is compared before it
/// changes; what happens in between is not seen, nor is that the directory itself was replaced,
/// unless a file in it tells.
#[derive(Debug)]
struct ByPath<F> {
    fs: F,
    path: PathBuf,
}

/// Opens a directory, to be held: by [`Fs::open_dir`], or by its path where the file system cannot.
///
/// # Errors
/// As there.
pub fn open_dir(fs: &Arc<dyn Fs>, path: &Path) -> io::Result<Arc<dyn Dir>> {
    match fs.open_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => {
            Ok(Arc::new(ByPath::open(fs.clone(), path)?))
        }
        opened => opened,
    }
}

/// Does something in the directory that has, or would have, the last name of `path`.
pub(crate) fn in_parent<T>(
    fs: &dyn Fs,
    path: &Path,
    act: impl FnOnce(&dyn Dir, &OsStr) -> T,
) -> io::Result<T> {
    let parent = parent_dir(path)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    match fs.open_dir(parent) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => {
            Ok(act(&ByPath::open(fs, parent)?, name))
        }
        opened => Ok(act(&*opened?, name)),
    }
}

impl<F: Deref<Target: Fs>> ByPath<F> {
    fn open(fs: F, path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let path = std::path::absolute(path)?;
        fs.list(&path)?;
        Ok(ByPath { fs, path })
    }

    fn at(&self, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path.join(single_name(name)?))
    }
}

impl<F: Deref<Target: Fs> + Debug + Send + Sync> Dir for ByPath<F> {
    fn open(&self, name: &OsStr, access: Access) -> io::Result<Arc<dyn File>> {
        self.fs.open(&self.at(name)?, access)
    }

    fn open_direct(&self, name: &OsStr, file: &dyn File) -> io::Result<Arc<dyn File>> {
        let direct = self.fs.open_direct(&self.at(name)?)?;
        expect_same_file(&*direct, file)?;
        Ok(direct)
    }

    fn create_new(&self, name: &OsStr) -> io::Result<Arc<dyn File>> {
        self.fs.create_new(&self.at(name)?)
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        match self.fs.open(&self.at(to)?, Access::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.replace(from, to),
            // Whatever it is that could not be opened.
            _ => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn replace(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        self.fs.rename(&self.at(from)?, &self.at(to)?)
    }

    fn remove(&self, name: &OsStr) -> io::Result<()> {
        self.fs.remove(&self.at(name)?)
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        self.fs.list(&self.path)
    }

    fn sync(&self) -> io::Result<()> {
        self.fs.sync_dir(&self.path)
    }

    fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        self.fs.open(&self.at(name)?, Access::Read)?.stat()
    }

    fn is_in_place(&self) -> io::Result<bool> {
        match self.fs.list(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            listed => listed.map(|_| true),
        }
    }

    fn try_lock(&self) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}
