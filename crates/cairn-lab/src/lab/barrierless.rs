//! The control: the real file system without its barriers, or without some of them.

use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_io::{Backend, Dir, File, Layer, Stat, Through};
use rustix::fs::OFlags;
use rustix::io::pwritev;

use crate::cli::Control;

/// In the sparing control one barrier of so many does nothing.
const SPARING: u64 = 8;

/// Barriers return at once and say Ok: all of them, or some.
#[derive(Debug)]
pub(crate) struct Barrierless {
    missing: Arc<Missing>,
}

impl Barrierless {
    pub(crate) fn new(control: Control) -> Self {
        Barrierless { missing: Arc::new(Missing { control, asked: AtomicU64::new(0) }) }
    }
}

#[derive(Debug)]
pub(crate) struct Missing {
    control: Control,
    asked: AtomicU64,
}

impl Missing {
    fn next(&self) -> bool {
        let nth = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        self.control == Control::All || nth.is_multiple_of(SPARING)
    }
}

impl Layer for Barrierless {
    fn file(&self, call: Through, path: &Path, file: Arc<dyn File>) -> io::Result<Arc<dyn File>> {
        let without_barrier = match call {
            Through::OpenDirect => {
                let flags = OFlags::DIRECT.bits().cast_signed();
                Some(OpenOptions::new().write(true).custom_flags(flags).open(path)?)
            }
            _ => None,
        };
        let missing = self.missing.clone();
        Ok(Arc::new(BarrierlessFile { file, without_barrier, missing }))
    }

    fn sync(&self, _: &Path, dir: &dyn Dir) -> io::Result<()> {
        if self.missing.next() { Ok(()) } else { dir.sync() }
    }
}

#[derive(Debug)]
struct BarrierlessFile {
    file: Arc<dyn File>,
    /// The file again, of a handle whose writes are barriers: past the page cache, too, but into
    /// the device's cache.
    without_barrier: Option<std::fs::File>,
    missing: Arc<Missing>,
}

impl File for BarrierlessFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.without_barrier {
            Some(file) if self.missing.next() => Ok(pwritev(file, slices, offset)?),
            _ => self.file.write_at(offset, slices),
        }
    }

    fn block_size(&self) -> usize {
        self.file.block_size()
    }

    fn backend(&self) -> Backend {
        self.file.backend()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.allocate(offset, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.missing.next() { Ok(()) } else { self.file.sync_data() }
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }

    fn unlock(&self) -> io::Result<()> {
        self.file.unlock()
    }

    fn stat(&self) -> io::Result<Stat> {
        self.file.stat()
    }

    fn data_from(&self, offset: u64) -> io::Result<u64> {
        self.file.data_from(offset)
    }
}
