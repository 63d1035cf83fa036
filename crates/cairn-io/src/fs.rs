//! The file system seam: what Cairn uses of an operating system, and nothing more.
//!
//! [`NativeFs`](crate::NativeFs) is the real one; `SimFs` in `cairn-sim` is the adversary. Everything that touches a
//! directory goes through [`Fs`], so a lost directory entry, a lost rename or a failed barrier can be tested.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::backend::Backend;

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
/// All methods may be called concurrently. Nothing here is durable on return unless it says so: a created, renamed or
/// removed name is durable once [`sync_dir`](Fs::sync_dir) of its directory returned `Ok`, a file's bytes and length
/// once [`File::sync_data`] returned `Ok`.
///
/// # Errors
/// Every method returns the operating system's error as it is; [`io::ErrorKind::NotFound`],
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) and [`StorageFull`](io::ErrorKind::StorageFull) are acted upon by callers.
pub trait Fs: Debug + Send + Sync {
    /// Opens an existing file. Never creates one.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file for writes that go past the page cache and are durable when they return: on `Ok` of
    /// [`write_at`](File::write_at), these bytes, and the length as far as the write grew it, are on stable storage; of what else was written or
    /// changed the `Ok` says nothing. After an error it is unknown which of the write's bytes are, and no later barrier tells.
    ///
    /// Such a handle takes whole blocks only ([`File::block_size`]) and does not read. Handles for the page cache and this one are of one file:
    /// each reads, or overwrites, what the other wrote. But two writes, one through each, that are under way *at the same time* and touch the same
    /// page may lose either, though both return `Ok`: keep them apart, as [`DirectStore`](crate::DirectStore) does.
    ///
    /// Fails with [`Unsupported`](io::ErrorKind::Unsupported), as it does by default, where the file cannot be written so. A file system may
    /// also refuse no earlier than at the first write, with [`InvalidInput`](io::ErrorKind::InvalidInput) or `Unsupported`, and then
    /// has written nothing.
    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Creates a file that did not exist and opens it for reading and writing.
    /// Fails with [`AlreadyExists`](io::ErrorKind::AlreadyExists) otherwise.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Creates one directory. Fails with [`AlreadyExists`](io::ErrorKind::AlreadyExists) when the name is taken.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Renames a file, replacing an existing file at `to` atomically. Both names are in the same directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name. Open handles stay usable.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in no order, without `.` and `..`.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// Makes every creation, rename and removal in `dir` that returned before this call durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Whether a caller may prepare files on a thread of its own. A simulator says no, so that its trace is the same in
    /// every run; the caller then does that work inline.
    fn background(&self) -> bool {
        true
    }

    /// The current time; only ever recorded, never used to decide.
    fn now(&self) -> SystemTime;

    /// Sixteen random bytes, for identifiers.
    fn random(&self) -> io::Result<[u8; 16]>;
}

/// An open file. All methods take `&self` and may be called concurrently; the file position is never used.
pub trait File: Debug + Send + Sync {
    /// Reads at `offset`; returns how many bytes, 0 at or after the end. May be short anywhere.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes the slices one after the other from `offset`; returns how many bytes were written, which may be fewer
    /// than given. A gap between the old end and `offset` reads as zeros.
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Offset, length and address of every slice that is written must be multiples of this many bytes: a power of two, 1 but for
    /// handles of [`Fs::open_direct`]. A write that breaks the rule may fail with [`InvalidInput`](io::ErrorKind::InvalidInput),
    /// nothing written.
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

    /// Reserves space for `len` bytes from `offset` and grows the file to at least `offset + len`; new bytes read as
    /// zeros. Fails with [`Unsupported`](io::ErrorKind::Unsupported) where the system cannot, and with
    /// [`StorageFull`](io::ErrorKind::StorageFull) (or a quota or size-limit error) when there is no space; then nothing
    /// that was readable has changed.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// The durability barrier: returns `Ok` only when every write, allocation and length change through *this handle* that
    /// returned before the call is on stable storage, the file's length included. After an error, which of them are is unknown, and a later `Ok`
    /// says nothing about them.
    fn sync_data(&self) -> io::Result<()>;

    /// Takes the exclusive lock of this file without waiting: `true` when this handle has it now, `false` when another
    /// handle (of this or another process) has it. Released when the handle is dropped or its process dies.
    fn try_lock(&self) -> io::Result<bool>;
}

/// Writes all slices at `offset`, going on after short writes and interruptions.
///
/// # Errors
/// The first error other than [`Interrupted`](io::ErrorKind::Interrupted); [`WriteZero`](io::ErrorKind::WriteZero) when the
/// file takes no more bytes. Any prefix of the bytes may have been written.
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
/// The first error other than [`Interrupted`](io::ErrorKind::Interrupted); the contents of `buf` are then unspecified.
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
