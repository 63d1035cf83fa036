//! One barrier at a time, shared by those who wait for it, and never Ok again after a failure.
//!
//! Linux reports a write-back error once per descriptor. Two concurrent `fdatasync` calls on it therefore see one error and
//! one Ok, for the same lost bytes, and a third call says Ok again. So barriers of a store:
//!
//! 1. do not overlap: an Ok is only given when no other barrier can have taken the error;
//! 2. latch: after the first failure none is issued, and none returns Ok.
//!
//! Waiting is not wasted: a caller that finds a whole barrier begun *after* its call takes that one's Ok as its own.
//!
//! A barrier that is part of a write and whose error nobody else can take may run beside these; its owner says [`fail`](Barrier::fail) when it
//! failed, and 2. holds for all.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
#[cfg(not(cairn_shuttle))]
use std::sync::{Mutex, MutexGuard};

#[cfg(cairn_shuttle)]
use shuttle::sync::{Mutex, MutexGuard};

#[derive(Debug, Default)]
pub(crate) struct Barrier {
    /// Held while a barrier runs.
    running: Mutex<()>,
    /// The first failure. Outside of `running`, so that nobody waits for a running barrier to look or to fail.
    first: OnceLock<Arc<io::Error>>,
    /// How many shared barriers were begun; changes only while `running` is held.
    begun: AtomicU64,
}

impl Barrier {
    /// Runs `barrier`, or shares one that began after this call did.
    pub(crate) fn shared(&self, barrier: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let begun_before = self.begun.load(Ordering::SeqCst);
        let _running = self.lock();
        self.check()?;
        if self.begun.load(Ordering::SeqCst) != begun_before {
            return Ok(());
        }
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.run(barrier)
    }

    /// Runs `barrier` alone. Like [`shared`](Self::shared), but it proves nothing to others.
    pub(crate) fn exclusive(&self, barrier: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let _running = self.lock();
        self.check()?;
        self.run(barrier)
    }

    /// Refuses when a barrier has failed. Does not wait for a running one.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.first.get().map_or(Ok(()), |first| Err(again(first)))
    }

    /// A barrier has failed, here or elsewhere: from now on no call returns Ok. Returns the first failure.
    pub(crate) fn fail(&self, error: io::Error) -> io::Error {
        again(self.first.get_or_init(|| Arc::new(error)))
    }

    /// The caller holds `running`. Looks again afterwards, because `fail` waits for nobody.
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

fn again(first: &Arc<io::Error>) -> io::Error {
    io::Error::new(first.kind(), BarrierFailed(Arc::clone(first)))
}

#[derive(Debug)]
struct BarrierFailed(Arc<io::Error>);

impl fmt::Display for BarrierFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a durability barrier failed, so what it covered is in doubt and nothing more is written: reopen the store",
        )
    }
}

impl StdError for BarrierFailed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}
