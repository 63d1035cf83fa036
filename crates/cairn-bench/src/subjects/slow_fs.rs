//! The real file system with slower barriers: what grouping is worth on a device whose flush takes
//! a millisecond.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cairn_io::{Backend, File, Layer, Layered, NativeFs, Stat, Through};

/// Sleeps after every successful barrier on a file. Directory barriers are left as they are: they
/// are off the commit path.
#[derive(Debug)]
pub(crate) struct Slow {
    latency: Duration,
}

/// Adds `latency` to the barriers of the real file system.
pub(crate) fn slow_fs(latency: Duration) -> Layered<Slow> {
    Layered::new(Arc::new(NativeFs), Slow { latency })
}

impl Layer for Slow {
    fn file(&self, call: Through, _: &Path, inner: Arc<dyn File>) -> io::Result<Arc<dyn File>> {
        let writes_through = call == Through::OpenDirect;
        Ok(Arc::new(SlowFile { inner, latency: self.latency, writes_through }))
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

    fn unlock(&self) -> io::Result<()> {
        self.inner.unlock()
    }

    fn stat(&self) -> io::Result<Stat> {
        self.inner.stat()
    }

    fn data_from(&self, offset: u64) -> io::Result<u64> {
        self.inner.data_from(offset)
    }
}
