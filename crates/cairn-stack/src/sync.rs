//! Threads, locks and waiting, as [`cairn_io::sync`] has them.

pub(crate) use cairn_io::sync::{
    Arc, Event, Listener, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
    RwLockWriteGuard, Stopwatch, thread,
};
