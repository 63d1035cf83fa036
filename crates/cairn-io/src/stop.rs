//! Why a writer stopped for good, and what may still become durable.
//!
//! After a failed write or barrier a program cannot know what reached the disk. A second barrier
//! proves nothing: the system reports a write-back error once, and then says Ok for lost bytes. So
//! a writer stops at its first failure, and every structure of Cairn does it by the same rules:
//!
//! 1. The **first cause** is kept. Later failures follow from it, and every caller is told of the
//!    one that an operator must mend.
//! 2. A stop is **final**: no method takes it back. The owner of the structure opens it again, and
//!    recovery decides.
//! 3. What is **in doubt** stays in doubt. Rounds below [`syncable`](Stop::syncable) may still
//!    become durable, by a barrier that is in flight, or by one more when only a *write* behind
//!    them failed. The bound never rises.
//!
//!    Otherwise: 1. a caller is told that its record is in doubt, 2. the bound rises, and a barrier
//!    makes the record durable, 3. another caller is told that the same record is durable, and the
//!    first one has written it again elsewhere.
//! 4. The cause is there **before** the threads that wait are woken. Otherwise a thread wakes,
//!    finds no cause, and sleeps again, and no other thread will wake it.
//!
//! [`Latch`] is the place beside a writer where a stop appears; [`Stop`] is what stands there. A
//! writer whose state is an enum under a lock may keep a [`Stop`] in one of its variants.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Where a writer's stop appears: at most once, and for good. Reading it takes no lock.
///
/// # Examples
/// ```
/// use std::io;
/// use cairn_io::stop::Latch;
///
/// let latch = Latch::new();
/// assert!(latch.stop().is_none());
///
/// // The write of round 7 failed. Rounds 5 and 6 were written before it.
/// latch.fail(io::Error::other("no space"), 7);
/// // Then the barrier for them failed as well: round 4 is the last durable one.
/// let stop = latch.fail(io::Error::other("broken disk"), 5);
///
/// assert_eq!(stop.cause().to_string(), "no space");
/// assert!(stop.puts_in_doubt(5) && !stop.puts_in_doubt(4));
/// ```
#[derive(Debug)]
pub struct Latch<F>(OnceLock<Stop<F>>);

/// Why a writer stopped, and which rounds may still become durable.
///
/// A *round* is whatever the writer numbers and makes durable in order: a slot, a commit, a
/// flush.
#[derive(Debug)]
pub struct Stop<F> {
    cause: Arc<F>,
    /// Exclusive. Never rises.
    syncable: AtomicU64,
}

impl<F> Default for Latch<F> {
    fn default() -> Self {
        Latch(OnceLock::new())
    }
}

impl<F> Latch<F> {
    /// The latch of a writer that has not failed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The stop, if the writer has failed.
    pub fn stop(&self) -> Option<&Stop<F>> {
        self.0.get()
    }

    /// Stops the writer. Rounds below `syncable` are durable already, or may still become so.
    ///
    /// If the writer has stopped before, the first cause stays and `failure` is dropped; the bound
    /// is then the lower one of the two.
    pub fn fail(&self, failure: F, syncable: u64) -> &Stop<F> {
        let stop = self.0.get_or_init(|| Stop::new(failure, syncable));
        stop.lower(syncable);
        stop
    }
}

impl<F> Stop<F> {
    /// A stop because of `failure`. Rounds below `syncable` are durable, or may still become so.
    pub fn new(failure: F, syncable: u64) -> Self {
        Stop { cause: Arc::new(failure), syncable: AtomicU64::new(syncable) }
    }

    /// The first failure, to be told to every caller from now on.
    pub fn cause(&self) -> &Arc<F> {
        &self.cause
    }

    /// Rounds at or above this are in doubt. Those below are durable, or may still become so.
    pub fn syncable(&self) -> u64 {
        self.syncable.load(Ordering::Acquire)
    }

    /// Another failure: from now on rounds at or above `syncable` are in doubt. A bound above the
    /// present one changes nothing.
    pub fn lower(&self, syncable: u64) {
        self.syncable.fetch_min(syncable, Ordering::AcqRel);
    }

    /// Whether `round` will never be called durable by this writer. A caller that waits for it is
    /// told [`cause`](Self::cause). Ask only of rounds that are not durable yet.
    pub fn puts_in_doubt(&self, round: u64) -> bool {
        round >= self.syncable()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_first_cause_stays_and_the_bound_only_falls() {
        let latch = Latch::new();
        assert!(latch.stop().is_none());
        for (failure, syncable, bound) in [("first", 7, 7), ("later", 9, 7), ("third", 5, 5)] {
            let stop = latch.fail(failure, syncable);
            assert_eq!((**stop.cause(), stop.syncable()), ("first", bound));
            assert!(stop.puts_in_doubt(bound) && !stop.puts_in_doubt(bound - 1));
        }
        let stop = latch.stop().unwrap();
        stop.lower(u64::MAX);
        assert_eq!(stop.syncable(), 5);
        stop.lower(0);
        assert!(stop.puts_in_doubt(0));
    }

    /// All callers are told one cause, and the bound is the lowest of what they said.
    #[test]
    fn threads_that_fail_at_once_agree() {
        for _ in 0..100 {
            let latch = Latch::new();
            let causes: Vec<u64> = thread::scope(|scope| {
                let threads: Vec<_> = (1..=4)
                    .map(|n| {
                        scope.spawn({
                            let latch = &latch;
                            move || **latch.fail(n, n).cause()
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(causes.iter().all(|cause| *cause == causes[0]), "{causes:?}");
            assert_eq!(latch.stop().map(Stop::syncable), Some(1));
        }
    }
}
