//! Locks and conditions.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{self as native, LockResult, PoisonError, TryLockError, TryLockResult};
use std::time::Duration;

use super::place;
use crate::sync::seam::{simulation, step};

/// Guards are used before they are dropped only.
const HELD: &str = "a guard that is in use holds its lock";

#[derive(Debug, Default)]
pub struct Mutex<T: ?Sized>(native::Mutex<T>);

/// Frees the lock, and wakes who waits for it, when it is dropped.
pub struct MutexGuard<'a, T: ?Sized> {
    lock: &'a Mutex<T>,
    /// `None` from the moment the guard is dropped or waits.
    held: Option<native::MutexGuard<'a, T>>,
}

/// Takes a lock without waiting, or waits as a simulation has it.
fn acquire<G>(
    place: usize,
    what: &'static str,
    native: impl FnOnce() -> LockResult<G>,
    attempt: impl Fn() -> TryLockResult<G>,
) -> LockResult<G> {
    let Some(simulation) = simulation() else { return native() };
    simulation.step(what);
    loop {
        match attempt() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Err(poisoned),
            Err(TryLockError::WouldBlock) => {
                simulation.wait(place, what, None);
            }
        }
    }
}

fn map<G, H>(result: LockResult<G>, wrap: impl FnOnce(G) -> H) -> LockResult<H> {
    match result {
        Ok(guard) => Ok(wrap(guard)),
        Err(poisoned) => Err(PoisonError::new(wrap(poisoned.into_inner()))),
    }
}

fn map_try<G, H>(result: TryLockResult<G>, wrap: impl FnOnce(G) -> H) -> TryLockResult<H> {
    match result {
        Ok(guard) => Ok(wrap(guard)),
        Err(TryLockError::WouldBlock) => Err(TryLockError::WouldBlock),
        Err(TryLockError::Poisoned(poisoned)) => {
            Err(TryLockError::Poisoned(PoisonError::new(wrap(poisoned.into_inner()))))
        }
    }
}

fn freed(place: usize) {
    if let Some(simulation) = simulation() {
        simulation.wake(place, usize::MAX);
    }
}

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Self(native::Mutex::new(value))
    }

    pub fn into_inner(self) -> LockResult<T> {
        self.0.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    fn guard<'a>(&'a self, held: native::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        MutexGuard { lock: self, held: Some(held) }
    }

    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let held = acquire(place(self), "lock", || self.0.lock(), || self.0.try_lock());
        map(held, |held| self.guard(held))
    }

    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        step("try_lock");
        map_try(self.0.try_lock(), |held| self.guard(held))
    }

    pub fn is_poisoned(&self) -> bool {
        self.0.is_poisoned()
    }

    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        self.0.get_mut()
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if self.held.take().is_some() {
            freed(place(self.lock));
        }
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_deref().expect(HELD)
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_deref_mut().expect(HELD)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[derive(Debug, Default)]
pub struct RwLock<T: ?Sized>(native::RwLock<T>);

macro_rules! guards {
    ($($guard:ident)*) => {$(
        /// Frees the lock, and wakes who waits for it, when it is dropped.
        pub struct $guard<'a, T: ?Sized> {
            place: usize,
            /// `None` while the guard is dropped.
            held: Option<native::$guard<'a, T>>,
        }

        impl<'a, T: ?Sized> $guard<'a, T> {
            fn new(place: usize, held: native::$guard<'a, T>) -> Self {
                Self { place, held: Some(held) }
            }
        }

        impl<T: ?Sized> Drop for $guard<'_, T> {
            fn drop(&mut self) {
                self.held = None;
                freed(self.place);
            }
        }

        impl<T: ?Sized> Deref for $guard<'_, T> {
            type Target = T;

            fn deref(&self) -> &T {
                self.held.as_deref().expect(HELD)
            }
        }

        impl<T: ?Sized + fmt::Debug> fmt::Debug for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }
    )*};
}

guards! { RwLockReadGuard RwLockWriteGuard }

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_deref_mut().expect(HELD)
    }
}

impl<T> RwLock<T> {
    pub const fn new(value: T) -> Self {
        Self(native::RwLock::new(value))
    }

    pub fn into_inner(self) -> LockResult<T> {
        self.0.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        let held = acquire(place(self), "read lock", || self.0.read(), || self.0.try_read());
        map(held, |held| RwLockReadGuard::new(place(self), held))
    }

    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        let held = acquire(place(self), "write lock", || self.0.write(), || self.0.try_write());
        map(held, |held| RwLockWriteGuard::new(place(self), held))
    }

    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        self.0.get_mut()
    }
}

#[derive(Debug, Default)]
pub struct Condvar(native::Condvar);

/// Whether a wait ended because its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub const fn new() -> Self {
        Self(native::Condvar::new())
    }

    pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let lock = guard.lock;
        let held = guard.held.take().expect(HELD);
        match simulation() {
            None => map(self.0.wait(held), |held| lock.guard(held)),
            Some(simulation) => {
                drop(held);
                freed(place(lock));
                simulation.wait(place(self), "a condition", None);
                lock.lock()
            }
        }
    }

    pub fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<MutexGuard<'a, T>> {
        while condition(&mut guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    pub fn wait_timeout<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let lock = guard.lock;
        let held = guard.held.take().expect(HELD);
        match simulation() {
            None => map(self.0.wait_timeout(held, limit), |(held, timeout)| {
                (lock.guard(held), WaitTimeoutResult(timeout.timed_out()))
            }),
            Some(simulation) => {
                drop(held);
                freed(place(lock));
                let woken = simulation.wait(place(self), "a condition", Some(limit));
                map(lock.lock(), |guard| (guard, WaitTimeoutResult(!woken)))
            }
        }
    }

    pub fn notify_one(&self) {
        self.notify(1);
    }

    pub fn notify_all(&self) {
        self.notify(usize::MAX);
    }

    fn notify(&self, count: usize) {
        match simulation() {
            None if count == 1 => self.0.notify_one(),
            None => self.0.notify_all(),
            Some(simulation) => {
                simulation.step("notify");
                simulation.wake(place(self), count);
            }
        }
    }
}
