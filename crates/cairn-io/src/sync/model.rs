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

/// What `event_listener::Event` does for us: a listener is woken by the first notification
/// after it began to listen.
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
