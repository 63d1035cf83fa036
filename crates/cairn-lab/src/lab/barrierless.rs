//! The control: the real file system without its barriers, or without some of them.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use cairn_io::{Access, Backend, File, Fs};
use rustix::fs::OFlags;
use rustix::io::pwritev;

use crate::cli::Control;

/// In the sparing control one barrier of so many does nothing.
const SPARING: u64 = 8;

/// As the file system it is made of, but barriers return at once and say Ok: all of them, or some.
#[derive(Debug)]
pub(crate) struct Barrierless {
    fs: Arc<dyn Fs>,
    missing: Arc<Missing>,
}

impl Barrierless {
    pub(crate) fn new(fs: Arc<dyn Fs>, control: Control) -> Self {
        Barrierless { fs, missing: Arc::new(Missing { control, asked: AtomicU64::new(0) }) }
    }

    fn file(&self, file: Arc<dyn File>, without_barrier: Option<std::fs::File>) -> Arc<dyn File> {
        Arc::new(BarrierlessFile { file, without_barrier, missing: self.missing.clone() })
    }
}

#[derive(Debug)]
struct Missing {
    control: Control,
    asked: AtomicU64,
}

impl Missing {
    fn next(&self) -> bool {
        let nth = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        self.control == Control::All || nth.is_multiple_of(SPARING)
    }
}

impl Fs for Barrierless {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.fs.open(path, access)?, None))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = self.fs.open_direct(path)?;
        let flags = OFlags::DIRECT.bits().cast_signed();
        let without_barrier = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
        Ok(self.file(file, Some(without_barrier)))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.fs.create_new(path)?, None))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.fs.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.fs.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.fs.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.missing.next() { Ok(()) } else { self.fs.sync_dir(dir) }
    }

    fn now(&self) -> SystemTime {
        self.fs.now()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        self.fs.random()
    }
}

#[derive(Debug)]
struct BarrierlessFile {
    file: Arc<dyn File>,
    /// The file again, of a handle whose writes are barriers: past the page cache, too, but into the device's cache.
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
}
