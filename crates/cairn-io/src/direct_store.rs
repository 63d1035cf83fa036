//! A store in one file whose durable writes go past the page cache.
//!
//! # Why direct writes may run at the same time
//!
//! [`FileStore`] runs one barrier at a time, because of two at once one could take the error that
//! was meant for the other. That cannot happen to direct writes. The page cache has no copy of
//! their bytes, so the kernel never writes them back later for another call. The device's error,
//! that of the flush included, is returned by the call that wrote. So each of several `Ok`s is true
//! of its own bytes. Linux also reports a failed write-back of *other* bytes to a synchronous
//! write, once for each descriptor. The buffered handle's barriers are on another descriptor, so no
//! error is taken from them.
//!
//! This is the reason that [`NativeFs`](crate::NativeFs) opens no direct handle where the file
//! system would write through the page cache all the same.
//!
//! # Why a buffered write waits for the direct ones, and they for it
//!
//! A direct write first writes back the pages of the cache that it touches, and drops them when it
//! is done: so reading sees it, and what was written before it through the cache is not lost.
//! Otherwise with a buffered write that comes *meanwhile*: (1) a direct write of the first sector
//! of a page is under way; (2) a buffered write of the second sector reads the page, with what was
//! in the first sector before, and makes it dirty; (3) the direct write says Ok; (4) the page is
//! written back, and takes the first sector back to what it was. Where the file system holds the
//! file's lock until a direct write is done this cannot happen; Linux does for a system call, and
//! does not for io_uring: there ext4 finds out at (3), too late, and reports an error at the next
//! barrier. So the lock is here.

use std::io::{self, IoSlice};
use std::path::Path;
#[cfg(cairn_loom)]
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use crate::backend::Backend;
use crate::by_path::in_parent;
use crate::file_store::{FileStore, open_or_create};
use crate::fs::{File, Fs};
use crate::range::{end_of, total_len};
use crate::store::Store;
#[cfg(not(cairn_loom))]
use crate::sync::RwLock;

/// A [`FileStore`] whose [`write_durable`](Store::write_durable) goes past the page cache when it
/// can: as one write that is durable on return instead of a write and a barrier.
///
/// * It can when the offset and every slice's address and length are multiples of
///   [`block_size`](Store::block_size). Other durable writes are done as [`FileStore`] does them;
///   so are `write_at`, `sync`, `truncate` and `preallocate`, and all reading.
/// * Direct writes to disjoint ranges run at the same time, beside each other, beside reading and
///   beside a `sync`; what changes the file through the page cache waits for them, and they for it.
/// * A failed direct write is final as a failed barrier is, whatever the error: what it should have
///   written is in doubt. Where space may run out, [`preallocate`](Store::preallocate) first, which
///   may fail and be tried again.
/// * A file system that refuses the first direct write it is given, having written nothing, is not
///   asked again: from that write on everything is buffered, and [`backend`](Store::backend) says
///   so.
///
/// # Examples
/// ```
/// use cairn_io::{DirectStore, NativeFs, Store};
/// use std::io::IoSlice;
///
/// #[repr(align(4096))]
/// struct Block([u8; 4096]);
///
/// let dir = tempfile::tempdir()?;
/// let store = DirectStore::open(&NativeFs, &dir.path().join("data"))?;
/// assert!(store.block_size() <= 4096);
/// let block = Block([7; 4096]);
/// store.write_durable(4096, &[IoSlice::new(&block.0)])?; // durable from here on
/// assert_eq!(store.len()?, 8192);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct DirectStore {
    buffered: FileStore,
    direct: Option<Arc<dyn File>>,
    block_size: usize,
    /// A direct write was refused; there will be no other.
    refused: AtomicBool,
    /// Shared by direct writes; held alone to change the file through the page cache, but not for
    /// its barriers.
    ways: RwLock<()>,
}

/// Why a direct write did not succeed.
enum Failure {
    /// Nothing was written.
    Refused,
    /// What was written is in doubt.
    InDoubt(io::Error),
}

impl DirectStore {
    /// A store in a file that is open twice: for the page cache, and by [`Dir::open_direct`](crate::Dir::open_direct). The
    /// durability of its name is left to the caller.
    ///
    /// Give it handles through which nothing unsynced was written, as for [`FileStore::new`].
    pub fn new(file: Arc<dyn File>, direct: Arc<dyn File>) -> Self {
        let block_size = direct.block_size().max(1);
        Self { direct: Some(direct), block_size, ..Self::without_direct(file) }
    }

    /// Opens the file at `path`, or creates an empty one, as [`FileStore::open`] does. Where there
    /// are no direct writes, the store is a buffered one.
    ///
    /// # Errors
    /// As [`FileStore::open`].
    pub fn open(fs: &dyn Fs, path: &Path) -> io::Result<Self> {
        in_parent(fs, path, |dir, name| {
            let file = open_or_create(dir, name)?;
            match dir.open_direct(name, &*file) {
                Ok(direct) => Ok(Self::new(file, direct)),
                Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(Self::without_direct(file)),
                Err(e) => Err(e),
            }
        })?
    }

    fn without_direct(file: Arc<dyn File>) -> Self {
        let buffered = FileStore::new(file);
        Self {
            buffered,
            direct: None,
            block_size: 1,
            refused: AtomicBool::new(false),
            ways: RwLock::new(()),
        }
    }

    /// Changes the file through the page cache.
    fn alone<T>(&self, change: impl FnOnce(&FileStore) -> io::Result<T>) -> io::Result<T> {
        // A call that is refused does not wait.
        self.buffered.check()?;
        let _alone = self.ways.write().unwrap_or_else(PoisonError::into_inner);
        change(&self.buffered)
    }

    fn write_buffered(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.alone(|buffered| buffered.write_slices(offset, slices))?;
        self.buffered.sync()
    }

    /// The direct handle, while it is of use.
    fn direct(&self) -> Option<&dyn File> {
        self.direct.as_deref().filter(|_| !self.refused.load(Ordering::Relaxed))
    }

    fn is_aligned(&self, offset: u64, slices: &[IoSlice<'_>]) -> bool {
        let aligned = |n: usize| n.is_multiple_of(self.block_size);
        offset.is_multiple_of(self.block_size as u64)
            && slices.iter().all(|slice| {
                slice.is_empty() || (aligned(slice.len()) && aligned(slice.as_ptr().addr()))
            })
    }

    /// Writes whole blocks, going on after short writes.
    fn write_direct(
        &self,
        direct: &dyn File,
        mut offset: u64,
        slices: &[IoSlice<'_>],
    ) -> Result<(), Failure> {
        let _shared = self.ways.read().unwrap_or_else(PoisonError::into_inner);
        // An empty slice's address may be anything.
        let mut rest: Vec<IoSlice<'_>> =
            slices.iter().copied().filter(|slice| !slice.is_empty()).collect();
        let mut rest = rest.as_mut_slice();
        let (mut written, mut stuck) = (false, false);
        while !rest.is_empty() {
            match direct.write_at(offset, rest) {
                Ok(n) => {
                    // The rest of a block that was cut is written again, with the whole of it.
                    let whole = n - n % self.block_size;
                    if whole == 0 && stuck {
                        return Err(Failure::InDoubt(io::ErrorKind::WriteZero.into()));
                    }
                    stuck = whole == 0;
                    written |= n > 0;
                    offset += whole as u64;
                    IoSlice::advance_slices(&mut rest, whole);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if !written && is_refusal(&e) => return Err(Failure::Refused),
                Err(e) => return Err(Failure::InDoubt(e)),
            }
        }
        Ok(())
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

impl Store for DirectStore {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.alone(|buffered| buffered.write_at(offset, bytes))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.buffered.read_at(offset, buf)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.alone(|buffered| buffered.truncate(len))
    }

    fn sync(&self) -> io::Result<()> {
        self.buffered.sync()
    }

    fn data_from(&self, offset: u64) -> io::Result<u64> {
        self.buffered.data_from(offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.buffered.len()
    }

    fn write_durable(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        end_of(offset, total_len(slices)?)?;
        let Some(direct) = self.direct().filter(|_| self.is_aligned(offset, slices)) else {
            return self.write_buffered(offset, slices);
        };
        self.buffered.check()?;
        match self.write_direct(direct, offset, slices) {
            // No Ok after a failure, not even one that would be true.
            Ok(()) => self.buffered.check(),
            Err(Failure::InDoubt(e)) => Err(self.buffered.fail(e)),
            Err(Failure::Refused) => {
                self.write_buffered(offset, slices)?;
                // Only now is it known that not the call was to blame.
                self.refused.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn block_size(&self) -> usize {
        self.block_size
    }

    fn backend(&self) -> Backend {
        self.direct().map_or_else(|| self.buffered.backend(), File::backend)
    }

    fn preallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.alone(|buffered| buffered.preallocate(offset, len))
    }
}
