//! Threads, locks and waiting, in one place, so that a model checker can take them over.

pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
pub(crate) use std::thread;

pub(crate) use event_listener::{Event, EventListener, Listener};
