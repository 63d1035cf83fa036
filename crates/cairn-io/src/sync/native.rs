//! The names as the system has them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use event_listener::{Event, EventListener, Listener};
pub use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic};
pub use std::thread;

/// A number that threads wait on until it changes.
#[derive(Debug, Default)]
pub struct Word(AtomicU32);

impl Word {
    pub fn load(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Changes the number: whoever has read the old one and is about to wait does not.
    pub fn bump(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// Sleeps until the number is another than `seen`; may return sooner.
    pub fn wait(&self, seen: u32) {
        atomic_wait::wait(&self.0, seen);
    }

    pub fn wake_one(&self) {
        atomic_wait::wake_one(&self.0);
    }

    pub fn wake_all(&self) {
        atomic_wait::wake_all(&self.0);
    }
}

/// Tries again and again, ever more patiently, until `done`.
///
/// It sleeps in the end, because a thread of lower priority that must go on first gets no
/// processor from one that yields.
pub fn spin_until(mut done: impl FnMut() -> bool) {
    for attempt in 0u64.. {
        if done() {
            return;
        }
        match attempt {
            0..64 => std::hint::spin_loop(),
            64..128 => thread::yield_now(),
            _ => thread::sleep(Duration::from_micros(20)),
        }
    }
}

/// A clock to measure how long things take; never recorded, and nothing that is promised
/// depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Stopwatch(Instant::now())
    }

    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
