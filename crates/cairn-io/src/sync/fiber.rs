//! Stacks that one thread of the system switches between: the threads of a simulation.
//!
//! A switch costs some ten nanoseconds and no system call, so a simulated run takes the time that
//! its code takes, on a busy machine too. All fibers of one world live in one thread of the system
//! and share its thread-locals.
#![allow(unsafe_code, reason = "the running fiber is found through a thread-local pointer")]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ptr;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

/// Bytes of a fiber's stack. Only what is touched takes memory.
const STACK_BYTES: usize = 1 << 20;
/// Stacks that are kept for later fibers.
const POOL: usize = 64;

type Switch = Yielder<(), ()>;

thread_local! {
    /// The running fiber's way back to who resumed it; null outside of fibers.
    static CURRENT: Cell<*const Switch> = const { Cell::new(ptr::null()) };
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

/// A computation with a stack of its own, suspended where it called [`suspend`].
///
/// Dropping one that is suspended leaks its stack with everything on it: end it first.
pub struct Fiber {
    /// `None` while the fiber is dropped.
    coroutine: Option<Coroutine<(), (), (), DefaultStack>>,
}

impl fmt::Debug for Fiber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.coroutine.as_ref().is_none_or(Coroutine::done);
        f.debug_struct("Fiber").field("done", &done).finish_non_exhaustive()
    }
}

impl Fiber {
    /// A fiber that runs `body` when it is resumed for the first time. A panic of `body` comes out
    /// of [`resume`](Self::resume).
    ///
    /// # Errors
    /// When there is no memory for a stack.
    pub fn new(body: impl FnOnce() + 'static) -> io::Result<Self> {
        let pooled = STACKS.with_borrow_mut(Vec::pop);
        let stack = match pooled {
            Some(stack) => stack,
            None => DefaultStack::new(STACK_BYTES)?,
        };
        let coroutine = Coroutine::with_stack(stack, move |switch: &Switch, ()| {
            CURRENT.set(switch);
            body();
        });
        Ok(Self { coroutine: Some(coroutine) })
    }

    /// Runs it until it suspends or ends; says whether it ended.
    pub fn resume(&mut self) -> bool {
        let outer = CURRENT.replace(ptr::null());
        let coroutine = self.coroutine.as_mut().expect("there is one until the drop");
        let result = coroutine.resume(());
        CURRENT.set(outer);
        matches!(result, CoroutineResult::Return(()))
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        let Some(coroutine) = self.coroutine.take() else { return };
        if !coroutine.done() {
            std::mem::forget(coroutine);
            return;
        }
        let stack = coroutine.into_stack();
        STACKS.with_borrow_mut(|stacks| {
            if stacks.len() < POOL {
                stacks.push(stack);
            }
        });
    }
}

/// Goes back to who resumed this fiber; returns when it is resumed again.
///
/// # Panics
/// Outside of a fiber: there is nobody to go back to.
pub fn suspend() {
    let current = CURRENT.get();
    assert!(!current.is_null(), "suspend is called in fibers only");
    // SAFETY: `CURRENT` is set by a fiber when it begins and when it is resumed, and cleared by
    // `resume` when it stops running: it is the running fiber's, whose `Yielder` lives on the
    // bottom of its stack until the fiber ends. Fibers do not leave their thread.
    unsafe { &*current }.suspend(());
    CURRENT.set(current);
}

/// Whether the caller runs in a fiber.
pub fn inside() -> bool {
    !CURRENT.get().is_null()
}
