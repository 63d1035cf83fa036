//! Where the file of an open stack is: a directory that is held open, a name in it, and the locks.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::{Access, Dir, File, FileId, Fs, expect_same_file, open_dir, parent_dir};

use crate::error::{Error, Result};
use crate::mutation::{self, Mutation};

/// The place of an open stack.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) name: OsString,
    /// What messages call it.
    pub(crate) path: PathBuf,
    /// What had the name when the stack was opened. It stays open, so nothing else gets this id.
    id: FileId,
    /// The file beside it, and which one it was.
    beside: (OsString, FileId),
    locks: [Arc<dyn File>; 2],
}

/// A file that is locked, beside the stack's.
#[derive(Debug)]
pub(crate) struct Beside {
    name: OsString,
    file: Arc<dyn File>,
}

impl Beside {
    /// Takes the lock beside the stack `name`, which need not be there yet.
    pub(crate) fn lock(dir: &dyn Dir, name: &OsStr, path: &Path) -> Result<Self> {
        let with_suffix = |path: &OsStr| {
            let mut name = path.to_owned();
            name.push(".lock");
            name
        };
        let (name, beside) = (with_suffix(name), PathBuf::from(with_suffix(path.as_os_str())));
        let io = |op| {
            let beside = beside.clone();
            move |e| Error::io(op, &beside, e)
        };
        let file = match dir.open(&name, Access::ReadWrite) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => match dir.create_new(&name) {
                // Another process created it in between.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    dir.open(&name, Access::ReadWrite).map_err(io("open"))?
                }
                created => created.map_err(io("create"))?,
            },
            opened => opened.map_err(io("open"))?,
        };
        match file.try_lock().map_err(io("lock"))? || mutation::is(Mutation::IgnoreLock) {
            true => Ok(Beside { name, file }),
            false => Err(Error::Locked { path: path.to_owned() }),
        }
    }
}

/// Locks a stack's file, through a handle that is not written through: it may have several names,
/// and the file beside it may be removed as stale. On Windows a locked file cannot be read.
pub(crate) fn lock_itself(file: &dyn File, path: &Path) -> Result<()> {
    let locked = || file.try_lock().map_err(|e| Error::io("lock", path, e));
    match cfg!(windows) || locked()? || mutation::is(Mutation::IgnoreLock) {
        true => Ok(()),
        false => Err(Error::Locked { path: path.to_owned() }),
    }
}

/// Locks the stack in the file `path`, which has to be there, as an opening does, and opens the
/// file for writing.
pub(crate) fn hold(fs: &Arc<dyn Fs>, path: &Path) -> Result<(Home, Arc<dyn File>)> {
    let io = |op| move |e| Error::io(op, path, e);
    let whole = fs.resolve(path).map_err(io("open"))?;
    let dir = parent_dir(&whole).and_then(|dir| open_dir(fs, dir)).map_err(io("open"))?;
    let name = whole.file_name().unwrap_or_default();
    let itself = dir.open(name, Access::Read).map_err(io("open"))?;
    let file = dir.open(name, Access::ReadWrite).map_err(io("open"))?;
    lock_itself(&*itself, path)?;
    let beside = Beside::lock(&*dir, name, path)?;
    expect_same_file(&*itself, &*file).map_err(io("open"))?;
    let home = Home::new(dir, name.to_owned(), path.to_owned(), itself, beside)?;
    home.expect_file()?;
    Ok((home, file))
}

impl Home {
    /// The place of the stack in `file`, which is locked, and so is the one beside it.
    pub(crate) fn new(
        dir: Arc<dyn Dir>,
        name: OsString,
        path: PathBuf,
        file: Arc<dyn File>,
        beside: Beside,
    ) -> Result<Self> {
        let id_of = |file: &dyn File| match file.stat() {
            Ok(stat) => Ok(stat.id),
            Err(e) => Err(Error::io("look at", &path, e)),
        };
        let (id, lock_id) = (id_of(&*file)?, id_of(&*beside.file)?);
        let locks = [beside.file, file];
        Ok(Home { dir, name, path, id, beside: (beside.name, lock_id), locks })
    }

    fn expect(&self, name: &OsStr, id: FileId) -> Result<()> {
        match self.dir.stat(name) {
            Ok(found) if found.id == id => Ok(()),
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("look for", &self.path, e))
            }
            _ => Err(Error::Displaced { path: self.path.with_file_name(name) }),
        }
    }

    /// Fails with [`Error::Displaced`] if the stack's file was moved, removed or replaced.
    pub(crate) fn expect_file(&self) -> Result<()> {
        if mutation::is(Mutation::TrustName) {
            return Ok(());
        }
        self.expect(&self.name, self.id)
    }

    /// The same of the directory and the lock beside it, too.
    pub(crate) fn expect_all(&self) -> Result<()> {
        match self.dir.is_in_place() {
            Ok(true) => {}
            Ok(false) => return Err(Error::Displaced { path: self.path.clone() }),
            Err(e) => return Err(Error::io("look for the directory of", &self.path, e)),
        }
        self.expect_file()?;
        self.expect(&self.beside.0, self.beside.1)
    }

    /// Lets others open the stack, also while processes that were forked have its files open. It is
    /// not written to any more.
    pub(crate) fn unlock(&self) {
        for lock in &self.locks {
            // Who is kept out by a failure here is kept out until the handles are closed.
            let _ = lock.unlock();
        }
    }
}
