//! The file system that hands out files with rings.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::fs::NativeFs;
use crate::dir::Dir;
use crate::fs::Fs;

/// [`NativeFs`], with direct writes through an io_uring with registered buffers (Linux; feature
/// `io-uring`).
///
/// [`Dir::open_direct`] opens a handle with rings of its own, whose [`File::backend`](crate::File::backend) is
/// [`Uring`](crate::Backend::Uring). What such a handle promises is what any direct handle
/// promises, and every write returns what the kernel said of it alone. Where there is no io_uring
/// to be had (an old kernel, a container that forbids it, no memory to lock), where the ring
/// refuses, and for writes that are larger than its buffer or find all rings busy, it writes as the
/// handles of [`NativeFs`] do. Everything else is [`NativeFs`].
///
/// # Examples
/// ```
/// use cairn_io::{DirectStore, Store, UringFs};
///
/// let dir = tempfile::tempdir()?;
/// let store = DirectStore::open(&UringFs, &dir.path().join("data"))?;
/// println!("{}", store.backend()); // io_uring, or what there is
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UringFs;

impl Fs for UringFs {
    #[cfg(target_os = "linux")]
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        Ok(Arc::new(super::dir::NativeDir::open(path, super::dir::Ring::Own)?))
    }

    #[cfg(not(target_os = "linux"))]
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        NativeFs.open_dir(path)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        NativeFs.resolve(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        NativeFs.create_dir(path)
    }

    fn now(&self) -> SystemTime {
        NativeFs.now()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        NativeFs.random()
    }
}
