//! Threads, locks and waiting, as [`cairn_io::sync`] has them, and a lock for many readers.

pub(crate) use cairn_io::sync::{Arc, Event, Listener, Mutex, MutexGuard, PoisonError, Stopwatch, thread};

#[cfg(not(any(cairn_loom, cairn_shuttle)))]
pub(crate) use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(cairn_loom)]
pub(crate) use loom::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(all(cairn_shuttle, not(cairn_loom)))]
pub(crate) use shuttle::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
