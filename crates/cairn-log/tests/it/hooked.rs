//! A file system that tells a test of each call, before and after, and leaves the rest to another
//! one.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::{Backend, File, Fs, Layer, Layered, Stat, Through};
use cairn_sim::Call;

/// What a test does beside the calls of the code that it tests. The path is the one that the call
/// names, of a rename the old one, of a file the one it was opened under.
pub(crate) trait Hook: fmt::Debug + Send + Sync + 'static {
    /// An error is that of the call, which then does nothing.
    fn before(&self, _call: Call, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    /// After the call succeeded. An error is that of the call all the same.
    fn after(&self, _call: Call, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    /// Before bytes are read.
    fn reading(&self, _offset: u64, _len: usize) {}
    /// When a file is closed.
    fn closed(&self) {}
    /// Whether work in the background is allowed, if the other file system would say `other`.
    fn background(&self, other: bool) -> bool {
        other
    }
}

/// A file system with a hook around its calls.
pub(crate) type Hooked<H> = Layered<Hooking<H>>;

#[derive(Debug)]
pub(crate) struct Hooking<H> {
    pub(crate) hook: Arc<H>,
}

/// `fs`, with a hook around its calls.
pub(crate) fn hooked<H: Hook>(fs: Arc<dyn Fs>, hook: H) -> Hooked<H> {
    Layered::new(fs, Hooking { hook: Arc::new(hook) })
}

#[derive(Debug)]
struct HookedFile<H: Hook> {
    file: Arc<dyn File>,
    path: PathBuf,
    hook: Arc<H>,
}

impl<H: Hook> Drop for HookedFile<H> {
    fn drop(&mut self) {
        self.hook.closed();
    }
}

fn around<T>(
    hook: &impl Hook,
    call: Call,
    path: &Path,
    make: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    hook.before(call, path)?;
    let made = make()?;
    hook.after(call, path)?;
    Ok(made)
}

fn call_of(call: Through) -> Call {
    match call {
        Through::Open | Through::OpenDirect => Call::Open,
        Through::CreateNew => Call::Create,
        Through::CreateDir => Call::CreateDir,
        Through::Rename | Through::Replace => Call::Rename,
        Through::Remove => Call::Remove,
        Through::List => Call::List,
        Through::Sync => Call::SyncDir,
        _ => Call::Stat,
    }
}

impl<H: Hook> Layer for Hooking<H> {
    fn before(&self, call: Through, path: &Path, _: Option<&Path>) -> io::Result<()> {
        self.hook.before(call_of(call), path)
    }
    fn after(&self, call: Through, path: &Path, _: Option<&Path>) -> io::Result<()> {
        self.hook.after(call_of(call), path)
    }
    fn file(&self, _: Through, path: &Path, file: Arc<dyn File>) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(HookedFile { file, path: path.to_owned(), hook: self.hook.clone() }))
    }
    fn background(&self, other: bool) -> bool {
        self.hook.background(other)
    }
}

impl<H: Hook> HookedFile<H> {
    fn around<T>(&self, call: Call, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        around(&*self.hook, call, &self.path, make)
    }
}

impl<H: Hook> File for HookedFile<H> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.hook.reading(offset, buf.len());
        self.around(Call::Read, || self.file.read_at(offset, buf))
    }
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.around(Call::Write, || self.file.write_at(offset, slices))
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
        self.around(Call::SetLen, || self.file.set_len(len))
    }
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.around(Call::Allocate, || self.file.allocate(offset, len))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.around(Call::Sync, || self.file.sync_data())
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
