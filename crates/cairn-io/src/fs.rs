//! The file system seam: what Cairn uses of an operating system, and nothing more.
//!
//! [`NativeFs`](crate::NativeFs) is the real one; `SimFs` in `cairn-sim` is the adversary.
//! Everything that touches a directory goes through [`Dir`], so a lost directory entry, a lost
//! rename or a failed barrier can be tested.

use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::backend::Backend;
use crate::dir::{Dir, Stat, parent_dir};
use crate::error_kind::ErrorKind;

/// What an opened [`File`] may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only; the file is never changed through this handle.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// A file system, with the two other things formats need from the machine: the time and randomness.
///
/// A path is resolved once: [`open_dir`](Fs::open_dir) gives a [`Dir`], which stays that directory
/// whatever is moved, and everything else names files in it.
///
/// All methods may be called concurrently. Nothing here is durable on return unless it says so: a
/// created, renamed or removed name is durable once [`Dir::sync`] of its directory returned `Ok`, a
/// file's bytes and length once [`File::sync_data`] returned `Ok`.
///
/// # Errors
/// Every method returns the operating system's error as it is; [`io::ErrorKind::NotFound`],
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists), [`StorageFull`](io::ErrorKind::StorageFull) (or
/// a quota or size-limit error), [`Interrupted`](io::ErrorKind::Interrupted) and
/// [`Unsupported`](io::ErrorKind::Unsupported) are the kinds that callers act upon.
pub trait Fs: Debug + Send + Sync {
    /// Opens a directory, to be held: see [`Dir`]. What the path leads to now is what is meant from
    /// here on. The empty path is the current directory.
    ///
    /// One that knows paths alone says [`Unsupported`](io::ErrorKind::Unsupported), as it does by
    /// default, and has the methods that take paths instead; then a directory is held by its
    /// absolute path ([`open_dir`](crate::open_dir)). With this method the others are there.
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The path of what a symbolic link of this name leads to, for whoever writes to it: [`Dir`]
    /// does not follow links to be written through. Any other path as it is.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    /// Creates one directory. Fails with [`AlreadyExists`](io::ErrorKind::AlreadyExists) when the
    /// name is taken.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Opens the directory in which `path` has its last name, with that name.
    ///
    /// # Errors
    /// Besides, [`InvalidInput`](io::ErrorKind::InvalidInput) for a path that does not end with a
    /// name.
    fn open_parent<'p>(&self, path: &'p Path) -> io::Result<(Arc<dyn Dir>, &'p OsStr)> {
        let dir = parent_dir(path)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.open_dir(dir)?, name))
    }

    /// [`Dir::open`], once, by path.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let (dir, name) = self.open_parent(path)?;
        dir.open(name, access)
    }

    /// [`Dir::open_direct`], once, by path.
    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let (dir, name) = self.open_parent(path)?;
        let file = dir.open(name, Access::Read)?;
        dir.open_direct(name, &*file)
    }

    /// [`Dir::create_new`], once, by path.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let (dir, name) = self.open_parent(path)?;
        dir.create_new(name)
    }

    /// [`Dir::replace`], once, by path: both names are in the same directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (dir, from) = self.open_parent(from)?;
        let (_, to) = self.open_parent(to)?;
        dir.replace(from, to)
    }

    /// [`Dir::remove`], once, by path.
    fn remove(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.open_parent(path)?;
        dir.remove(name)
    }

    /// [`Dir::list`], once, by path.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.open_dir(dir)?.list()
    }

    /// [`Dir::sync`], once, by path.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.open_dir(dir)?.sync()
    }

    /// Whether a caller may prepare files on a thread of its own. A simulator says no, so that its
    /// trace is the same in every run; the caller then does that work inline.
    fn background(&self) -> bool {
        true
    }

    /// The current time, by the wall clock, which may jump in either direction. Files record it,
    /// and retention by age compares it with what was recorded. No acknowledgement, and nothing in
    /// recovery, depends on it.
    fn now(&self) -> SystemTime;

    /// Sixteen random bytes, for identifiers.
    fn random(&self) -> io::Result<[u8; 16]>;
}

/// An open file. All methods take `&self` and may be called concurrently; the file position is
/// never used.
pub trait File: Debug + Send + Sync {
    /// Reads at `offset`; returns how many bytes, 0 at or after the end. May be short anywhere.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes the slices one after the other from `offset`; returns how many bytes were written,
    /// which may be fewer than given. A gap between the old end and `offset` reads as zeros.
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Offset, length and address of every slice that is written must be multiples of this many
    /// bytes: a power of two, 1 but for handles of [`Dir::open_direct`]. A write that breaks the
    /// rule may fail with [`InvalidInput`](io::ErrorKind::InvalidInput), nothing written.
    fn block_size(&self) -> usize {
        1
    }

    /// How writes through this handle reach the medium.
    fn backend(&self) -> Backend {
        Backend::Buffered
    }

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is zero.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts or extends (with zeros) to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves space for `len` bytes from `offset` and grows the file to at least `offset + len`;
    /// new bytes read as zeros. Fails with [`Unsupported`](io::ErrorKind::Unsupported) where the
    /// system cannot, and with [`StorageFull`](io::ErrorKind::StorageFull) (or a quota or
    /// size-limit error) when there is no space; then nothing that was readable has changed.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// The durability barrier: returns `Ok` only when every write, allocation and length change
    /// through *this handle* that returned before the call is on stable storage, the file's length
    /// included. After an error, which of them are is unknown, and a later `Ok` says nothing about
    /// them.
    fn sync_data(&self) -> io::Result<()>;

    /// Takes the exclusive lock of this file without waiting: `true` when this handle has it now,
    /// `false` when another handle (of this or another process) has it. Released by
    /// [`unlock`](File::unlock), and when the handle is dropped or its process dies: then by the
    /// last of the processes that were forked meanwhile and have the file open, too.
    fn try_lock(&self) -> io::Result<bool>;

    /// Gives the lock back, also for processes that were forked meanwhile. Ok if there is none.
    fn unlock(&self) -> io::Result<()>;

    /// Which file this is, and how many names it has.
    fn stat(&self) -> io::Result<Stat>;

    /// The first offset at or behind `offset` that may hold something else than zeros nobody wrote;
    /// the length if there is none. A file system that does not know says `offset`, as it does by
    /// default.
    fn data_from(&self, offset: u64) -> io::Result<u64> {
        Ok(offset)
    }
}

/// Writes all slices at `offset`, going on after short writes and interruptions.
///
/// # Errors
/// The first error other than [`Interrupted`](io::ErrorKind::Interrupted);
/// [`WriteZero`](io::ErrorKind::WriteZero) when the file takes no more bytes. Any prefix of the
/// bytes may have been written.
pub fn write_all_at(file: &dyn File, mut offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
    let mut rest: Vec<IoSlice<'_>> = slices.to_vec();
    let mut rest = rest.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_at(offset, rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                offset = offset.checked_add(n as u64).ok_or(io::ErrorKind::FileTooLarge)?;
                IoSlice::advance_slices(&mut rest, n);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads from `offset` until `buf` is full or the file ends; returns how many bytes.
///
/// # Errors
/// The first error other than [`Interrupted`](io::ErrorKind::Interrupted); the contents of `buf`
/// are then unspecified.
pub fn read_full_at(file: &dyn File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset.checked_add(done as u64).ok_or(io::ErrorKind::InvalidInput)?;
        match file.read_at(at, &mut buf[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Repeats a call until it is not interrupted. Not for barriers: an interrupted barrier has failed.
///
/// # Errors
/// The first error other than [`Interrupted`](io::ErrorKind::Interrupted).
pub fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reserves space for `len` bytes of a file from `offset`, where the system can.
///
/// Reserving is an optimisation: a sandbox answers `EPERM`, a network file system `EINVAL`, and
/// writing works all the same. So whatever the answer, it is an error only if it says that there is
/// no space. Goes on after interruptions.
///
/// # Errors
/// Those of which [`ErrorKind::of`] says [`Space`](ErrorKind::Space). The file may have become
/// longer then, and have taken some of the space.
pub fn reserve_space(file: &dyn File, offset: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    match retry(|| file.allocate(offset, len)) {
        Err(e) if ErrorKind::of(&e) == ErrorKind::Space => Err(e),
        _ => Ok(()),
    }
}
