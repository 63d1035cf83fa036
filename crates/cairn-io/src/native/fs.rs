//! The operating system as a file system.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::dir::Dir;
use crate::fs::{Fs, retry};

/// The operating system's files, directories, clock and randomness. What a signal interrupts is
/// done again.
///
/// Paths are the system's; an empty path where a directory is meant is the current directory, so
/// that `path.parent()` of a bare file name can be used as it is. On Unix a [`Dir`] holds the
/// directory by descriptor. Elsewhere it holds the absolute path that the directory had when it was
/// opened, and compares the directory with that one before it changes a name.
///
/// | | Linux | Apple | Windows |
/// |---|---|---|---|
/// | [`File::sync_data`](crate::File::sync_data) | `fdatasync` | `fcntl(F_FULLFSYNC)` | `FlushFileBuffers` |
/// | [`File::write_at`](crate::File::write_at) | `pwritev` | `pwritev` | overlapped write of one slice |
/// | [`File::allocate`](crate::File::allocate) | `fallocate` | [`Unsupported`](io::ErrorKind::Unsupported) | [`Unsupported`](io::ErrorKind::Unsupported) |
/// | [`File::try_lock`](crate::File::try_lock) | `flock` | `flock` | `LockFileEx` (mandatory: lock a file that holds no data) |
/// | [`Dir::open_direct`] | `O_DIRECT` and `O_DSYNC` | [`Unsupported`](io::ErrorKind::Unsupported) | [`Unsupported`](io::ErrorKind::Unsupported) |
/// | [`Dir::rename`] | `renameat2` | `renameatx_np` | looks, then renames |
/// | [`Dir::try_lock`] | `flock` | `flock` | [`Unsupported`](io::ErrorKind::Unsupported) |
/// | [`Dir::sync`] | `fsync` | `fcntl(F_FULLFSYNC)` | `FlushFileBuffers` of the directory |
///
/// # Examples
/// ```
/// use cairn_io::{Dir, File, Fs, NativeFs, write_all_at};
/// use std::io::IoSlice;
///
/// let dir = tempfile::tempdir()?;
/// let dir = NativeFs.open_dir(dir.path())?;
/// let file = dir.create_new("a".as_ref())?;
/// write_all_at(&*file, 0, &[IoSlice::new(b"hello")])?;
/// file.sync_data()?; // the bytes
/// dir.sync()?; // the name
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NativeFs;

impl Fs for NativeFs {
    #[cfg(unix)]
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        Ok(Arc::new(super::dir::NativeDir::open(path, super::dir::Ring::None)?))
    }

    #[cfg(not(unix))]
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        Ok(Arc::new(super::path_dir::PathDir::open(path)?))
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => fs::canonicalize(path),
            _ => Ok(path.to_owned()),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        retry(|| fs::create_dir(path))
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
