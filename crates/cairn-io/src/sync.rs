//! Threads, locks, atomics and waiting, in one place for all crates, so that a model checker can take them over: loom with `--cfg cairn_loom`,
//! shuttle with `--cfg cairn_shuttle`. Without either, nothing here costs anything.
//!
//! Not for users: names here change without notice.
#![allow(missing_docs, reason = "the names are std's, or the checkers'")]

pub use std::sync::{Arc, PoisonError, Weak};

#[cfg(not(any(cairn_loom, cairn_shuttle)))]
pub use native::*;

#[cfg(any(cairn_loom, cairn_shuttle))]
pub use model::*;

#[cfg(not(any(cairn_loom, cairn_shuttle)))]
mod native {
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
    /// It sleeps in the end, because a thread of lower priority that must go on first gets no processor from one that yields.
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

    /// A clock to measure how long things take; never recorded, and nothing that is promised depends on it.
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
}

#[cfg(any(cairn_loom, cairn_shuttle))]
mod model {
    //! The same names on a checker's primitives.

    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    #[cfg(cairn_loom)]
    pub use loom::{
        sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
        thread,
    };
    #[cfg(all(cairn_shuttle, not(cairn_loom)))]
    pub use shuttle::{
        sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
        thread,
    };

    #[derive(Debug)]
    pub struct Word {
        value: Mutex<u32>,
        changed: Condvar,
    }

    impl Default for Word {
        fn default() -> Self {
            Word { value: Mutex::new(0), changed: Condvar::new() }
        }
    }

    impl Word {
        pub fn load(&self) -> u32 {
            *self.value.lock().unwrap()
        }

        pub fn bump(&self) {
            *self.value.lock().unwrap() += 1;
        }

        pub fn wait(&self, seen: u32) {
            let value = self.value.lock().unwrap();
            if *value == seen {
                drop(self.changed.wait(value).unwrap());
            }
        }

        pub fn wake_one(&self) {
            self.changed.notify_one();
        }

        pub fn wake_all(&self) {
            self.changed.notify_all();
        }
    }

    pub fn spin_until(mut done: impl FnMut() -> bool) {
        while !done() {
            thread::yield_now();
        }
    }

    /// Time stands still in a model.
    #[derive(Clone, Copy, Debug)]
    pub struct Stopwatch;

    impl Stopwatch {
        pub fn start() -> Self {
            Stopwatch
        }

        pub fn elapsed(&self) -> Duration {
            Duration::ZERO
        }
    }

    /// What `event_listener::Event` does for us: a listener is woken by the first notification after it began to listen.
    #[derive(Debug)]
    pub struct Event(Arc<Shared>);

    #[derive(Debug)]
    struct Shared {
        rounds: Mutex<Rounds>,
        ended: Condvar,
    }

    #[derive(Debug)]
    struct Rounds {
        current: u64,
        wakers: Vec<Waker>,
    }

    #[derive(Debug)]
    pub struct EventListener {
        shared: Arc<Shared>,
        round: u64,
    }

    pub trait Listener {
        fn wait(self);
    }

    impl Event {
        pub fn new() -> Self {
            let rounds = Mutex::new(Rounds { current: 0, wakers: Vec::new() });
            Event(Arc::new(Shared { rounds, ended: Condvar::new() }))
        }

        pub fn listen(&self) -> EventListener {
            EventListener { shared: self.0.clone(), round: self.0.rounds.lock().unwrap().current }
        }

        pub fn notify(&self, _all: usize) {
            let mut rounds = self.0.rounds.lock().unwrap();
            rounds.current += 1;
            let wakers = std::mem::take(&mut rounds.wakers);
            self.0.ended.notify_all();
            drop(rounds);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    impl Listener for EventListener {
        fn wait(self) {
            let mut rounds = self.shared.rounds.lock().unwrap();
            while rounds.current == self.round {
                rounds = self.shared.ended.wait(rounds).unwrap();
            }
        }
    }

    impl Future for EventListener {
        type Output = ();

        fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            let mut rounds = self.shared.rounds.lock().unwrap();
            if rounds.current != self.round {
                return Poll::Ready(());
            }
            rounds.wakers.push(context.waker().clone());
            Poll::Pending
        }
    }
}
