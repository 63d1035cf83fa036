//! One file full of zeros, aligned buffers, and the write with its barrier.

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::libc;

use crate::subject::Setup;

/// What groups are aligned to: memory, offset and length.
pub(crate) const BLOCK: usize = 4096;

/// What the parts of a direct write are aligned to. Devices with larger logical sectors refuse, and
/// then the loop does not open.
pub(crate) const SECTOR: usize = 512;

/// Length of the file that is written round and round.
const RING: u64 = 128 << 20;

/// Bytes that a buffer of a group holds.
pub(crate) const GROUP: usize = 8 << 20;

/// A buffer whose beginning is aligned to [`BLOCK`]. Never grows.
#[derive(Debug)]
pub(crate) struct AlignedBuf {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// Room for `capacity` bytes, rounded up to whole blocks.
    pub(crate) fn new(capacity: usize) -> Self {
        let bytes = vec![0; capacity.next_multiple_of(BLOCK) + BLOCK];
        let start = bytes.as_ptr().align_offset(BLOCK);
        AlignedBuf { bytes, start, len: 0 }
    }

    /// Bytes that still fit.
    pub(crate) fn room(&self) -> usize {
        (self.bytes.len() - BLOCK) - self.len
    }

    /// Appends bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.extend(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Appends `len` bytes to be overwritten by the caller.
    #[inline]
    pub(crate) fn extend(&mut self, len: usize) -> Result<&mut [u8]> {
        ensure!(
            len <= self.room(),
            "{len} bytes do not fit into a buffer with room for {}",
            self.room()
        );
        let at = self.start + self.len;
        self.len += len;
        Ok(&mut self.bytes[at..at + len])
    }

    /// What was appended.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    /// Whether nothing was appended.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends zeros up to a multiple of `unit`.
    pub(crate) fn pad(&mut self, unit: usize) {
        let (at, end) = (self.start + self.len, self.start + self.len.next_multiple_of(unit));
        self.bytes[at..end].fill(0);
        self.len = end - self.start;
    }

    /// Forgets what was appended.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }
}

/// Creates a file of `len` zeros that are really on the device, opened for direct writes each of
/// which is a barrier.
pub(crate) fn open_direct(path: &Path, len: u64) -> Result<File> {
    create(path, len)?;
    // Not rustix's OFlags: its DSYNC is O_SYNC on Linux, and every write would sync the inode's
    // times as well.
    let flags = libc::O_DIRECT | libc::O_DSYNC;
    File::options()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
        .context("open with O_DIRECT|O_DSYNC")
}

/// Creates a file of `len` zeros that are really on the device, and in the page cache.
fn create(path: &Path, len: u64) -> Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .context("creating the file")?;
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let n = (len - at).min(zeros.len() as u64);
        write_all_at(&file, &zeros[..n as usize], at)?;
        at += n;
    }
    file.sync_all().context("syncing the zeros")?;
    Ok(file)
}

/// Writes everything at `offset`.
pub(crate) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file.as_fd(), bytes, offset) {
            Ok(n) => {
                ensure!(n > 0, "wrote nothing");
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("pwrite"),
        }
    }
    Ok(())
}

/// How a write becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `pwrite` into the page cache, then `fdatasync`.
    Buffered,
    /// One `pwrite` with O_DIRECT|O_DSYNC of whole blocks.
    Direct,
    /// No I/O: the processor is given away once, so that others can join the next group as they
    /// would during a write.
    Nowhere,
}

/// The file and where the next group goes. Groups that are written at the same time have blocks of
/// their own.
#[derive(Debug)]
pub(crate) struct Ring {
    file: File,
    way: Way,
    position: AtomicU64,
    barriers: AtomicU64,
    latency: Duration,
}

impl Ring {
    /// Creates the file in the directory of `setup`.
    pub(crate) fn create(setup: &Setup, way: Way) -> Result<Self> {
        let path = setup.dir.join("ring");
        let file = match way {
            Way::Buffered => create(&path, RING)?,
            Way::Direct => open_direct(&path, RING)?,
            Way::Nowhere => File::open("/dev/null").context("/dev/null")?,
        };
        Ok(Ring {
            file,
            way,
            position: AtomicU64::new(0),
            barriers: AtomicU64::new(0),
            latency: setup.barrier_latency,
        })
    }

    /// Makes what `buffer` holds durable and empties it.
    pub(crate) fn write(&self, buffer: &mut AlignedBuf) -> Result<()> {
        self.write_all(buffer, &[])?;
        buffer.clear();
        Ok(())
    }

    /// Makes what `buffer` and `more` hold durable, with one write. What is in `more` is of whole
    /// [`SECTOR`]s.
    pub(crate) fn write_all(
        &self,
        buffer: &mut AlignedBuf,
        more: &[MutexGuard<'_, AlignedBuf>],
    ) -> Result<()> {
        if self.way == Way::Direct {
            buffer.pad(BLOCK);
        }
        let len =
            (buffer.len + more.iter().map(|b| b.len).sum::<usize>()).next_multiple_of(BLOCK) as u64;
        let place = |at: u64| if at + len > RING { 0 } else { at };
        let before = self
            .position
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| Some(place(at) + len));
        let at = before.map_or(0, place);
        match self.way {
            Way::Nowhere => std::thread::yield_now(),
            _ if more.is_empty() => write_all_at(&self.file, buffer.filled(), at)?,
            _ => {
                let slices =
                    std::iter::once(buffer.filled()).chain(more.iter().map(|b| b.filled()));
                let mut slices: Vec<_> =
                    slices.filter(|s| !s.is_empty()).map(IoSlice::new).collect();
                write_slices_at(&self.file, &mut slices, at)?;
            }
        }
        if self.way == Way::Buffered {
            rustix::fs::fdatasync(&self.file).context("fdatasync")?;
        }
        if !self.latency.is_zero() {
            std::thread::sleep(self.latency);
        }
        self.barriers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether nothing is kept.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.way == Way::Nowhere
    }

    /// Groups made durable so far.
    pub(crate) fn barriers(&self) -> u64 {
        self.barriers.load(Ordering::Relaxed)
    }
}

/// Writes all slices one after the other at `offset`.
fn write_slices_at(file: &File, mut slices: &mut [IoSlice<'_>], mut offset: u64) -> Result<()> {
    while !slices.is_empty() {
        // The system takes no more at once; a group of more writers is more than one write.
        let most = slices.len().min(1024);
        match rustix::io::pwritev(file.as_fd(), &slices[..most], offset) {
            Ok(n) => {
                ensure!(n > 0, "wrote nothing");
                offset += n as u64;
                IoSlice::advance_slices(&mut slices, n);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("pwritev"),
        }
    }
    Ok(())
}

/// Ends the process: a loop has nobody to tell its followers that a write failed, and they would
/// sleep for ever.
pub(crate) fn give_up(error: &anyhow::Error) -> ! {
    eprintln!("the loop cannot go on: {error:#}");
    std::process::exit(1)
}
