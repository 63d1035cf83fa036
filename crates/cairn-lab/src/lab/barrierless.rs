//! The control: the real file system without its barriers, or without some of them.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use cairn_io::{Access, File, Fs, NativeFs};

use crate::cli::Control;

/// In the sparing control one barrier of so many does nothing.
const SPARING: u64 = 8;

/// As [`NativeFs`], but barriers return at once and say Ok: all of them, or some.
#[derive(Debug)]
pub(crate) struct Barrierless(Arc<Missing>);

impl Barrierless {
    pub(crate) fn new(control: Control) -> Self {
        Barrierless(Arc::new(Missing { control, asked: AtomicU64::new(0) }))
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
        Ok(Arc::new(BarrierlessFile { file: NativeFs.open(path, access)?, missing: self.0.clone() }))
    }

    /// No: such a write is a barrier of its own, which nothing here could leave out.
    fn open_direct(&self, _: &Path) -> io::Result<Arc<dyn File>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(BarrierlessFile { file: NativeFs.create_new(path)?, missing: self.0.clone() }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        NativeFs.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        NativeFs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        NativeFs.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        NativeFs.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.0.next() { Ok(()) } else { NativeFs.sync_dir(dir) }
    }

    fn now(&self) -> SystemTime {
        NativeFs.now()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        NativeFs.random()
    }
}

#[derive(Debug)]
struct BarrierlessFile {
    file: Arc<dyn File>,
    missing: Arc<Missing>,
}

impl File for BarrierlessFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.file.write_at(offset, slices)
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
