//! The real file system with slower barriers: what grouping is worth on a device whose flush takes a millisecond.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cairn_io::{Access, Backend, File, Fs, NativeFs};

/// Sleeps after every successful barrier on a file. Directory barriers are left as they are: they are off the commit path.
#[derive(Debug)]
pub(crate) struct SlowFs {
    inner: NativeFs,
    latency: Duration,
}

impl SlowFs {
    /// Adds `latency` to the barriers of the real file system.
    pub(crate) fn new(latency: Duration) -> Self {
        SlowFs { inner: NativeFs, latency }
    }

    fn wrap(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(SlowFile { inner, latency: self.latency, writes_through: false })
    }
}

impl Fs for SlowFs {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        self.inner.open(path, access).map(|f| self.wrap(f))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.inner.create_new(path).map(|f| self.wrap(f))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let inner = self.inner.open_direct(path)?;
        Ok(Arc::new(SlowFile { inner, latency: self.latency, writes_through: true }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn now(&self) -> SystemTime {
        self.inner.now()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        self.inner.random()
    }
}

#[derive(Debug)]
struct SlowFile {
    inner: Arc<dyn File>,
    latency: Duration,
    /// Whether every write carries its own barrier.
    writes_through: bool,
}

impl File for SlowFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.inner.write_at(offset, slices)?;
        if self.writes_through {
            std::thread::sleep(self.latency);
        }
        Ok(written)
    }

    fn block_size(&self) -> usize {
        self.inner.block_size()
    }

    fn backend(&self) -> Backend {
        self.inner.backend()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.allocate(offset, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()?;
        std::thread::sleep(self.latency);
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.inner.try_lock()
    }
}
