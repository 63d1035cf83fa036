//! One barrier at a time, shared by the threads that wait for it, and never Ok again after a
//! failure.
//!
//! Linux reports a write-back error once per descriptor. Two concurrent `fdatasync` calls on it
//! therefore see one error and one Ok, for the same lost bytes, and a third call says Ok again. So
//! barriers of a store:
//!
//! 1. do not overlap: an Ok is only given when no other barrier can have taken the error;
//! 2. [stop](crate::stop) with the first failure: after it none is issued, and none returns Ok.
//!
//! A thread that waits does not run a barrier of its own if a whole one began *after* its call: it
//! takes that one's Ok.
//!
//! A barrier that is part of a write, and whose error no other barrier can take, may run beside
//! these. If it fails, its owner calls [`fail`](Barrier::fail), and 2. holds for all.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
#[cfg(cairn_loom)]
use std::sync::{Mutex, MutexGuard};

#[cfg(not(cairn_loom))]
use crate::sync::{Mutex, MutexGuard};

use crate::stop::{Latch, Stop};

/// The barriers of one store: never two at once, and never `Ok` again after a failure.
///
/// Linux reports a write-back error once for each descriptor. Two `fdatasync` calls at once
/// therefore see one error and one `Ok` for the same lost bytes, and a third call says `Ok` again.
/// A store that gives all its barriers to this type tells every caller.
///
/// # Examples
/// ```
/// use cairn_io::Barrier;
/// use std::io;
///
/// let barrier = Barrier::default();
/// barrier.shared(|| Ok(()))?;
/// barrier.shared(|| Err(io::Error::other("the disk is gone"))).unwrap_err();
/// // The second barrier is not run.
/// let error = barrier.shared(|| unreachable!()).unwrap_err();
/// assert!(barrier.check().is_err());
/// # Ok::<(), io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Barrier {
    /// Held while a barrier runs.
    running: Mutex<()>,
    /// The first failure. Outside of `running`, so that a thread that looks, or fails, does not
    /// wait for a running barrier.
    failed: Latch<io::Error>,
    /// How many shared barriers were begun; changes only while `running` is held.
    begun: AtomicU64,
}

impl Barrier {
    /// Runs `barrier`, or returns `Ok` for one that another thread began after this call did.
    /// `barrier` must cover everything that was written to the store before.
    ///
    /// # Errors
    /// The failure of `barrier`, or of the first barrier that failed: its kind, with itself as the
    /// source. Everything that no barrier has covered is then in doubt.
    pub fn shared(&self, barrier: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let begun_before = self.begun.load(Ordering::SeqCst);
        let _running = self.lock();
        self.check()?;
        if self.begun.load(Ordering::SeqCst) != begun_before {
            return Ok(());
        }
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.run(barrier)
    }

    /// Runs `barrier` when no other runs. For barriers that cover a part of the store only: no
    /// other call takes its `Ok`.
    ///
    /// # Errors
    /// As [`shared`](Self::shared).
    pub fn exclusive(&self, barrier: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let _running = self.lock();
        self.check()?;
        self.run(barrier)
    }

    /// Refuses if a barrier has failed: call it before every write. Does not wait for a running
    /// barrier.
    ///
    /// # Errors
    /// As [`shared`](Self::shared).
    pub fn check(&self) -> io::Result<()> {
        self.failed.stop().map_or(Ok(()), |stop| Err(again(stop)))
    }

    /// Says that a barrier that ran beside these has failed: from now on no call returns `Ok`.
    /// Returns the first failure, as [`shared`](Self::shared) does.
    pub fn fail(&self, error: io::Error) -> io::Error {
        again(self.failed.fail(error, 0))
    }

    /// The caller holds `running`. Checks again afterwards, because `fail` does not wait.
    fn run(&self, barrier: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        barrier().map_err(|e| self.fail(e))?;
        self.check()
    }

    /// A barrier that panicked may have taken the error with it: it counts as failed.
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.running.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            self.fail(io::Error::other("the barrier panicked"));
            poisoned.into_inner()
        })
    }
}

/// What every call is told from now on. No store keeps apart what it has written, so everything
/// that no barrier has covered is in doubt.
fn again(stop: &Stop<io::Error>) -> io::Error {
    io::Error::new(stop.cause().kind(), BarrierFailed(Arc::clone(stop.cause())))
}

#[derive(Debug)]
struct BarrierFailed(Arc<io::Error>);

impl fmt::Display for BarrierFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a durability barrier failed: the bytes that it should have covered are in doubt, and \
             the store takes no more; reopen it",
        )
    }
}

impl StdError for BarrierFailed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}
