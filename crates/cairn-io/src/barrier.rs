//! One barrier at a time, shared by those who wait for it, and never Ok again after a failure.
//!
//! Linux reports a write-back error once per descriptor. Two concurrent `fdatasync` calls on it therefore see one error and
//! one Ok, for the same lost bytes, and a third call says Ok again. So barriers of a store:
//!
//! 1. do not overlap: an Ok is only given when no other barrier can have taken the error;
//! 2. latch: after the first failure none is issued, and none returns Ok.
//!
//! Waiting is not wasted: a caller that finds a whole barrier begun *after* its call takes that one's Ok as its own.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct Barrier {
    /// The first failure. Held while a barrier runs.
    running: Mutex<Option<Arc<io::Error>>>,
    /// True once `running` holds a failure, so that writers need not wait for a running barrier to look.
    failed: AtomicBool,
    /// How many shared barriers were begun; changes only while `running` is held.
    begun: AtomicU64,
}

impl Barrier {
    /// Runs `barrier`, or shares one that began after this call did.
    pub(crate) fn shared(&self, barrier: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let begun_before = self.begun.load(Ordering::SeqCst);
        let mut running = self.lock();
        if let Some(first) = &*running {
            return Err(again(first));
        }
        if self.begun.load(Ordering::SeqCst) != begun_before {
            return Ok(());
        }
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.run(&mut running, barrier)
    }

    /// Runs `barrier` alone. Like [`shared`](Self::shared), but it proves nothing to others.
    pub(crate) fn exclusive(&self, barrier: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut running = self.lock();
        if let Some(first) = &*running {
            return Err(again(first));
        }
        self.run(&mut running, barrier)
    }

    /// Refuses when a barrier has failed. Does not wait for a running one.
    pub(crate) fn check(&self) -> io::Result<()> {
        if !self.failed.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.lock().as_ref().map_or(Ok(()), |first| Err(again(first)))
    }

    fn run(&self, running: &mut Option<Arc<io::Error>>, barrier: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let Err(e) = barrier() else { return Ok(()) };
        let first = Arc::new(e);
        *running = Some(Arc::clone(&first));
        self.failed.store(true, Ordering::SeqCst);
        Err(again(&first))
    }

    /// A barrier that panicked may have taken the error with it: it counts as failed.
    fn lock(&self) -> MutexGuard<'_, Option<Arc<io::Error>>> {
        self.running.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            let mut running = poisoned.into_inner();
            running.get_or_insert_with(|| Arc::new(io::Error::other("the barrier panicked")));
            self.failed.store(true, Ordering::SeqCst);
            running
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
