//! The real file system: `std` where it says what we need, `rustix` for vectored writes and allocation.

#[cfg(target_os = "linux")]
mod direct;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
mod ring;
#[cfg(feature = "io-uring")]
pub(crate) mod uring;

use std::ffi::OsString;
use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::fs::{Access, File, Fs};

/// The operating system's files, directories, clock and randomness.
///
/// Paths are the system's; an empty path where a directory is meant is the current directory, so that
/// `path.parent()` of a bare file name can be used as it is.
///
/// | | Linux | Apple | Windows |
/// |---|---|---|---|
/// | [`File::sync_data`] | `fdatasync` | `fcntl(F_FULLFSYNC)` | `FlushFileBuffers` |
/// | [`File::write_at`] | `pwritev` | `pwritev` | overlapped write of one slice |
/// | [`File::allocate`] | `fallocate` | [`Unsupported`](io::ErrorKind::Unsupported) | [`Unsupported`](io::ErrorKind::Unsupported) |
/// | [`File::try_lock`] | `flock` | `flock` | `LockFileEx` (mandatory: lock a file that holds no data) |
/// | [`Fs::open_direct`] | `O_DIRECT` and `O_DSYNC` | [`Unsupported`](io::ErrorKind::Unsupported) | [`Unsupported`](io::ErrorKind::Unsupported) |
/// | [`Fs::sync_dir`] | `fsync` | `fcntl(F_FULLFSYNC)` | `FlushFileBuffers` of the directory |
///
/// # Examples
/// ```
/// use cairn_io::{File, Fs, NativeFs, write_all_at};
/// use std::io::IoSlice;
///
/// let dir = tempfile::tempdir()?;
/// let file = NativeFs.create_new(&dir.path().join("a"))?;
/// write_all_at(&*file, 0, &[IoSlice::new(b"hello")])?;
/// file.sync_data()?; // the bytes
/// NativeFs.sync_dir(dir.path())?; // the name
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NativeFs;

/// The directory a path means: the empty path is the current directory.
fn dir_path(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}

impl Fs for NativeFs {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(access == Access::ReadWrite).open(path)?;
        Ok(Arc::new(NativeFile(file)))
    }

    /// Linux alone has one call that says what is needed. Apple's `F_NOCACHE` is a hint without a barrier; whether `FILE_FLAG_NO_BUFFERING` with
    /// `FILE_FLAG_WRITE_THROUGH` makes the length durable on Windows is not documented. Both are left out on purpose.
    #[cfg(target_os = "linux")]
    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(direct::DirectFile::open(path)?))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(NativeFile(file)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(dir_path(dir))?.map(|entry| entry.map(|e| e.file_name())).collect()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_dir(dir_path(dir))
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::from)?;
        Ok(bytes)
    }
}

/// `sync_all`, not `sync_data`: what a directory holds *is* metadata.
#[cfg(not(windows))]
fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = fs::File::open(dir)?;
    // On Unix anything can be opened for reading. Syncing a file in place of its directory would be an Ok that means nothing.
    if !dir.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    dir.sync_all()
}

/// Windows promises no barrier for directories. NTFS journals names in order, and flushing a directory handle pushes that
/// journal out; a directory handle needs `FILE_FLAG_BACKUP_SEMANTICS`, and `FlushFileBuffers` needs write access. A
/// file system that refuses this reports an error, never an Ok.
#[cfg(windows)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    use std::os::windows::fs::OpenOptionsExt;
    const FILE_FLAG_BACKUP_SEMANTICS: u32 = 0x0200_0000;
    let dir = OpenOptions::new().read(true).write(true).custom_flags(FILE_FLAG_BACKUP_SEMANTICS).open(dir)?;
    if !dir.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    dir.sync_all()
}

#[derive(Debug)]
struct NativeFile(fs::File);

/// No file reaches further: offsets are signed in every system call, and the largest are refused, not taken for the end.
const OFFSET_MAX: u64 = i64::MAX as u64;

impl File for NativeFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        // A range that ends beyond is refused as a whole, although its beginning may hold bytes, or simply the end.
        let room = OFFSET_MAX.saturating_sub(offset);
        let wanted = buf.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let buf = &mut buf[..wanted];
        if buf.is_empty() {
            return Ok(0);
        }
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_at(&self.0, buf, offset);
        #[cfg(windows)]
        match std::os::windows::fs::FileExt::seek_read(&self.0, buf, offset) {
            // ERROR_HANDLE_EOF
            Err(e) if e.raw_os_error() == Some(38) => Ok(0),
            result => result,
        }
    }

    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if offset > OFFSET_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        #[cfg(unix)]
        {
            // The smallest IOV_MAX in use; more slices would be EINVAL, fewer are a short write.
            const SLICES_MAX: usize = 1024;
            let slices = &slices[..slices.len().min(SLICES_MAX)];
            rustix::io::pwritev(&self.0, slices, offset).map_err(io::Error::from)
        }
        #[cfg(windows)]
        {
            let first = slices.iter().find(|slice| !slice.is_empty());
            first.map_or(Ok(0), |slice| std::os::windows::fs::FileExt::seek_write(&self.0, slice, offset))
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    /// Elsewhere than on Linux there is no call that both reserves and reads as zeros: glibc's `posix_fallocate` falls back to
    /// writing, Apple's `F_PREALLOCATE` reserves from the end only, Windows loses the reservation on close.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        use rustix::fs::FallocateFlags;
        if len == 0 {
            return Ok(()); // the system call refuses it
        }
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), offset, len) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
            Err(e) => Err(e.into()),
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn allocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// `std` already picks the call that reaches the medium: `fdatasync` (which includes the length), `F_FULLFSYNC` on Apple,
    /// where `fsync` stops at the drive's cache, and `FlushFileBuffers`.
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}
