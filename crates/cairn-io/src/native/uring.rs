//! The rings of one file, and the file system that hands out such files.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::NativeFs;
use crate::fs::{Access, File, Fs};

/// [`NativeFs`], with direct writes through an io_uring with registered buffers (Linux; feature `io-uring`).
///
/// [`Fs::open_direct`] opens a handle with rings of its own, whose [`File::backend`] is [`Uring`](crate::Backend::Uring). What such a handle promises is
/// what any direct handle promises, and every write returns what the kernel said of it alone. Where there is no io_uring to be had (an old kernel,
/// a container that forbids it, no memory to lock), where the ring refuses, and for writes that are larger than its buffer or find all rings busy,
/// it writes as the handles of [`NativeFs`] do. Everything else is [`NativeFs`].
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
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        NativeFs.open(path, access)
    }

    #[cfg(target_os = "linux")]
    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = super::direct::DirectFile::open(path)?;
        Ok(Arc::new(file.with_rings(Rings::new().ok())))
    }

    #[cfg(not(target_os = "linux"))]
    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        NativeFs.open_direct(path)
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        NativeFs.create_new(path)
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
        NativeFs.sync_dir(dir)
    }

    fn now(&self) -> SystemTime {
        NativeFs.now()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        NativeFs.random()
    }
}

#[cfg(target_os = "linux")]
pub(super) use linux::Rings;

#[cfg(target_os = "linux")]
mod linux {
    use std::fmt;
    use std::io::{self, IoSlice};
    use std::os::fd::BorrowedFd;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::ring::{Outcome, Ring};
    use crate::range::total_len;

    /// Writes at the same time, each in a ring of its own, so that nobody waits for another one's completion. More go without.
    const RINGS: usize = 4;
    /// Of 4096 bytes: what is larger is not worth the copy into the buffer.
    const PAGES: usize = 64;

    enum Place {
        /// Set up when it is needed for the first time: most files are written by one thread at a time.
        Empty,
        Open(Box<Ring>),
        Gone,
    }

    /// The rings of one file.
    pub(in super::super) struct Rings {
        places: [Mutex<Place>; RINGS],
        /// Places that are not [`Gone`](Place::Gone); none when the file does not take writes from a ring.
        left: AtomicUsize,
    }

    impl fmt::Debug for Rings {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Rings").field("left", &self.left).finish_non_exhaustive()
        }
    }

    impl Rings {
        /// Sets the first ring up, to see whether there is one to be had.
        pub(in super::super) fn new() -> io::Result<Self> {
            let mut places = [const { Mutex::new(Place::Empty) }; RINGS];
            places[0] = Mutex::new(Place::Open(Box::new(Ring::new(PAGES)?)));
            Ok(Self { places, left: AtomicUsize::new(RINGS) })
        }

        pub(in super::super) fn in_use(&self) -> bool {
            self.left.load(Ordering::Relaxed) > 0
        }

        fn lose(&self, place: &mut Place) {
            *place = Place::Gone;
            let fewer = |left: usize| left.checked_sub(1);
            let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
        }

        /// Writes as [`File::write_at`](crate::File::write_at) does, through a ring if there is one to spare, and by `without_ring` otherwise.
        pub(in super::super) fn write(
            &self,
            file: BorrowedFd<'_>,
            offset: u64,
            slices: &[IoSlice<'_>],
            without_ring: impl FnOnce() -> io::Result<usize>,
        ) -> io::Result<usize> {
            if !self.in_use() || total_len(slices).map_or(true, |len| len > PAGES * 4096) {
                return without_ring();
            }
            // A place whose writer has panicked is as good as gone.
            for mut place in self.places.iter().filter_map(|place| place.try_lock().ok()) {
                if matches!(*place, Place::Empty) {
                    match Ring::new(PAGES) {
                        Ok(ring) => *place = Place::Open(Box::new(ring)),
                        Err(_) => self.lose(&mut place),
                    }
                }
                let Place::Open(ring) = &mut *place else { continue };
                match ring.write(file, offset, slices) {
                    Outcome::Returned(Err(e)) if is_refusal(&e) => {
                        let n = without_ring()?;
                        // Only now is it known that not the call was to blame.
                        self.left.store(0, Ordering::Relaxed);
                        return Ok(n);
                    }
                    Outcome::Returned(result) => return result,
                    Outcome::NotTaken => self.lose(&mut place),
                    Outcome::Lost(e) => {
                        self.lose(&mut place);
                        // Of no kind that could be taken for "nothing was written, try another way": the bytes may land at any time.
                        return Err(io::Error::other(e));
                    }
                }
            }
            without_ring()
        }
    }

    /// What the kernel says when it does not do such a thing, nothing having been written.
    fn is_refusal(error: &io::Error) -> bool {
        matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
    }
}
