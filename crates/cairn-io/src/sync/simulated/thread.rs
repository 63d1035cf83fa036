//! Threads: the system's, or those of the simulated world.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread as native;
use std::time::Duration;

pub use std::thread::{Result, Scope, ScopedJoinHandle, scope};

use crate::sync::seam::{message, simulation};

/// Identity of a thread within its world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThreadId(Id);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Id {
    Native(native::ThreadId),
    Simulated(u64),
}

/// A thread, by identity and name.
#[derive(Clone, Debug)]
pub struct Thread {
    id: ThreadId,
    name: Option<String>,
}

impl Thread {
    pub fn id(&self) -> ThreadId {
        self.id
    }

    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

pub fn current() -> Thread {
    match simulation() {
        None => {
            let thread = native::current();
            Thread {
                id: ThreadId(Id::Native(thread.id())),
                name: thread.name().map(ToOwned::to_owned),
            }
        }
        Some(simulation) => {
            let (id, name) = simulation.current();
            Thread { id: ThreadId(Id::Simulated(id)), name }
        }
    }
}

pub fn yield_now() {
    match simulation() {
        None => native::yield_now(),
        Some(simulation) => simulation.yield_now("a turn"),
    }
}

pub fn sleep(duration: Duration) {
    match simulation() {
        None => native::sleep(duration),
        Some(simulation) => simulation.sleep(duration),
    }
}

/// A simulated world has as many processors as it has threads; more than one is said.
pub fn available_parallelism() -> io::Result<std::num::NonZero<usize>> {
    native::available_parallelism()
}

pub fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().spawn(body).expect("a thread can be started")
}

#[derive(Debug, Default)]
pub struct Builder {
    name: Option<String>,
    stack_size: Option<usize>,
}

impl Builder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn name(mut self, name: String) -> Self {
        self.name = Some(name);
        self
    }

    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    fn native(self) -> native::Builder {
        let mut builder = native::Builder::new();
        if let Some(name) = self.name {
            builder = builder.name(name);
        }
        if let Some(bytes) = self.stack_size {
            builder = builder.stack_size(bytes);
        }
        builder
    }

    pub fn spawn<T: Send + 'static>(
        self,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let Some(simulation) = simulation() else {
            return self.native().spawn(body).map(|handle| JoinHandle(Handle::Native(handle)));
        };
        let outcome = Arc::new(Mutex::new(None));
        let told = outcome.clone();
        let run = move || {
            let result = catch_unwind(AssertUnwindSafe(body));
            let panic = result.as_ref().err().map(|payload| message(&**payload));
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            panic
        };
        let thread = simulation.spawn(self.name, Box::new(run))?;
        Ok(JoinHandle(Handle::Simulated { thread, outcome }))
    }

    /// In a simulation a scoped thread cannot be started.
    pub fn spawn_scoped<'scope, 'env, T: Send + 'scope>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        body: impl FnOnce() -> T + Send + 'scope,
    ) -> io::Result<ScopedJoinHandle<'scope, T>> {
        match simulation() {
            None => self.native().spawn_scoped(scope, body),
            Some(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

#[derive(Debug)]
pub struct JoinHandle<T>(Handle<T>);

type Outcome<T> = Arc<Mutex<Option<Result<T>>>>;

enum Handle<T> {
    Native(native::JoinHandle<T>),
    Simulated { thread: u64, outcome: Outcome<T> },
}

impl<T> std::fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Handle::Native(handle) => f.debug_tuple("Native").field(handle).finish(),
            Handle::Simulated { thread, .. } => f.debug_tuple("Simulated").field(thread).finish(),
        }
    }
}

impl<T> JoinHandle<T> {
    pub fn join(self) -> Result<T> {
        match self.0 {
            Handle::Native(handle) => handle.join(),
            Handle::Simulated { thread, outcome } => {
                if let Some(simulation) = simulation() {
                    simulation.join(thread);
                }
                let result = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
                result.unwrap_or_else(|| {
                    Err(Box::new("the thread ended with its world") as Box<dyn Any + Send>)
                })
            }
        }
    }

    pub fn thread(&self) -> Thread {
        let id = match &self.0 {
            Handle::Native(handle) => Id::Native(handle.thread().id()),
            Handle::Simulated { thread, .. } => Id::Simulated(*thread),
        };
        Thread { id: ThreadId(id), name: None }
    }

    pub fn is_finished(&self) -> bool {
        match &self.0 {
            Handle::Native(handle) => handle.is_finished(),
            Handle::Simulated { thread, .. } => {
                simulation().is_none_or(|simulation| simulation.has_ended(*thread))
            }
        }
    }
}
