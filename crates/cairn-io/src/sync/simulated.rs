//! The names as they are with the feature `simulation`: std's, until a [`Simulation`] decides for
//! the calling thread. Then taking a lock, waiting, waking, spawning, joining, yielding and every
//! atomic operation are steps at which another thread may go on.
//!
//! Atomic operations are steps, but in one order for all threads: a simulation finds races, not
//! missing barriers between processors. Those are loom's.
//!
//! [`Simulation`]: super::seam::Simulation

pub mod atomic;
mod event;
mod lock;
pub mod thread;
mod word;

pub use event::{Event, EventListener, Listener};
pub use lock::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, WaitTimeoutResult,
};
pub use word::{Stopwatch, Word, spin_until};

/// The address of something that threads wait for.
fn place<T: ?Sized>(of: &T) -> usize {
    std::ptr::from_ref(of).cast::<()>().addr()
}
