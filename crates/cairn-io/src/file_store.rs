//! A store in one file.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::path::Path;
#[cfg(cairn_loom)]
use std::sync::Mutex;
use std::sync::{Arc, PoisonError};

use crate::backend::Backend;
use crate::barrier::Barrier;
use crate::by_path::in_parent;
use crate::dir::Dir;
use crate::fs::{Access, File, Fs, read_full_at, reserve_space, retry, write_all_at};
use crate::range::{end_of, total_len};
use crate::store::Store;
#[cfg(not(cairn_loom))]
use crate::sync::Mutex;

/// A [`Store`] whose offsets are the file's.
///
/// * Concurrent reads and writes go to the file as they are; concurrent [`sync`](Store::sync)s
///   share barriers, one at a time.
/// * A failed barrier is final: from then on `sync`, `write_durable`, `write_at`, `truncate` and
///   `preallocate` return an error of the first failure's kind, with the failure as its source,
///   while reading goes on. On Linux a second `fdatasync` would say Ok about bytes that are gone.
/// * A barrier speaks for what was written *through this store*. Bytes that an earlier process left
///   in the file may be readable and not durable, and no barrier of ours can tell: a caller that
///   builds on them has to write them again.
///
/// # Examples
/// ```
/// use cairn_io::{FileStore, NativeFs, Store};
///
/// let dir = tempfile::tempdir()?;
/// let store = FileStore::open(&NativeFs, &dir.path().join("data"))?;
/// store.write_at(5, b"world")?;
/// store.sync()?; // durable from here on
/// let mut all = [0xff; 16];
/// assert_eq!(store.read_at(0, &mut all)?, 10);
/// assert_eq!(&all[..10], b"\0\0\0\0\0world");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct FileStore {
    file: Arc<dyn File>,
    barrier: Barrier,
    /// Held by truncations: two at once could otherwise *extend*, the longer one acting on a length
    /// the shorter one has cut.
    cutting: Mutex<()>,
}

impl FileStore {
    /// A store in an open file, its name's durability left to the caller.
    ///
    /// Give it a handle through which nothing unsynced was written, or the bytes' fate is not this
    /// store's first barrier alone.
    pub fn new(file: Arc<dyn File>) -> Self {
        Self { file, barrier: Barrier::default(), cutting: Mutex::new(()) }
    }

    /// Opens the file at `path`, or creates an empty one. The name is durable on return; the
    /// contents are whatever they were.
    ///
    /// The directory is synced for a file that was there already, too: its creator may have been
    /// killed before it could. The file is not locked.
    ///
    /// # Errors
    /// The file system's, as they are; [`InvalidInput`](io::ErrorKind::InvalidInput) for a path
    /// without a file name. After one, an empty file may have been created.
    pub fn open(fs: &dyn Fs, path: &Path) -> io::Result<Self> {
        in_parent(fs, path, open_or_create)?.map(Self::new)
    }

    /// As [`write_at`](Store::write_at), of several slices one after the other.
    pub(crate) fn write_slices(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        end_of(offset, total_len(slices)?)?;
        self.barrier.check()?;
        write_all_at(&*self.file, offset, slices)
    }

    /// Refuses once a barrier has failed.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.barrier.check()
    }

    /// A barrier that ran beside this store's own has failed: none says Ok any more. Returns the
    /// first failure.
    pub(crate) fn fail(&self, error: io::Error) -> io::Error {
        self.barrier.fail(error)
    }
}

/// See [`FileStore::open`].
pub(crate) fn open_or_create(dir: &dyn Dir, name: &OsStr) -> io::Result<Arc<dyn File>> {
    let file = match dir.open(name, Access::ReadWrite) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => match dir.create_new(name) {
            // Another thread or process was faster.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                dir.open(name, Access::ReadWrite)?
            }
            created => created?,
        },
        opened => opened?,
    };
    dir.sync()?;
    Ok(file)
}

impl Store for FileStore {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_slices(offset, &[IoSlice::new(bytes)])
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        // No file has bytes past u64::MAX; without the cut, `read_full_at` would fail instead of
        // stopping at the end.
        let room = usize::try_from(u64::MAX - offset).unwrap_or(usize::MAX);
        let wanted = buf.len().min(room);
        read_full_at(&*self.file, offset, &mut buf[..wanted])
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.barrier.check()?;
        let _alone = self.cutting.lock().unwrap_or_else(PoisonError::into_inner);
        if len < self.file.len()? {
            retry(|| self.file.set_len(len))?;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.barrier.shared(|| self.file.sync_data())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn data_from(&self, offset: u64) -> io::Result<u64> {
        self.file.data_from(offset)
    }

    fn write_durable(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.write_slices(offset, slices)?;
        self.sync()
    }

    fn backend(&self) -> Backend {
        self.file.backend()
    }

    /// Reserves nothing, and says Ok, where the system does not let it.
    fn preallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        offset.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        self.barrier.check()?;
        reserve_space(&*self.file, offset, len)
    }
}
