//! The rings of one file.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ring::{Outcome, Ring};
use crate::range::total_len;

/// Writes at the same time, each in a ring of its own, so that no thread waits for another one's
/// completion. Further writes go without a ring.
const RINGS: usize = 4;
/// Pages of 4096 bytes in a ring's buffer. A larger write is not worth the copy into it.
const PAGES: usize = 64;

enum Place {
    /// Set up when it is needed for the first time: most files are written by one thread at a
    /// time.
    Empty,
    Open(Box<Ring>),
    Gone,
}

/// The rings of one file.
pub(super) struct Rings {
    places: [Mutex<Place>; RINGS],
    /// Places that are not [`Gone`](Place::Gone); none when the file does not take writes from
    /// a ring.
    left: AtomicUsize,
}

impl fmt::Debug for Rings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rings").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Rings {
    /// Sets the first ring up, to see whether there is one to be had.
    pub(super) fn new() -> io::Result<Self> {
        let mut places = [const { Mutex::new(Place::Empty) }; RINGS];
        places[0] = Mutex::new(Place::Open(Box::new(Ring::new(PAGES)?)));
        Ok(Self { places, left: AtomicUsize::new(RINGS) })
    }

    pub(super) fn in_use(&self) -> bool {
        self.left.load(Ordering::Relaxed) > 0
    }

    fn lose(&self, place: &mut Place) {
        *place = Place::Gone;
        let fewer = |left: usize| left.checked_sub(1);
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }

    /// Writes as [`File::write_at`](crate::File::write_at) does, through a ring if there is one
    /// to spare, and by `without_ring` otherwise.
    pub(super) fn write(
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
                    // Of no kind that could be taken for "nothing was written, try another
                    // way": the bytes may land at any time.
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
