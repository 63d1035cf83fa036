//! Which process this is: a handle that was made before a `fork` is two handles after it, with one
//! file position for each descriptor, one lock for both, and no threads but the caller's in one of
//! them.
#![allow(unsafe_code, reason = "the system calls back in a child")]

use std::sync::atomic::{AtomicUsize, Ordering};

/// Forks between the start of the first process and this one, as far as they were told of.
static FORKS: AtomicUsize = AtomicUsize::new(0);

/// The process that something was made in.
///
/// Not its number, which takes a system call to ask for: every append asks. A child that was made
/// by a bare system call, and not by `fork` of the C library, is not told from its parent; nor is
/// one of a system without `fork`, which has none.
///
/// # Examples
/// ```
/// let here = cairn_io::Process::current();
/// assert!(here.is_current());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(usize);

impl Process {
    /// The calling process.
    #[must_use]
    pub fn current() -> Self {
        listen();
        Process(forks())
    }

    /// Whether it is the calling one.
    #[must_use]
    #[inline]
    pub fn is_current(self) -> bool {
        self.0 == forks()
    }
}

#[cfg(not(feature = "simulation"))]
#[inline]
fn forks() -> usize {
    FORKS.load(Ordering::Relaxed)
}

#[cfg(feature = "simulation")]
fn forks() -> usize {
    FORKS.load(Ordering::Relaxed) + PRETENDED.get()
}

#[cfg(feature = "simulation")]
thread_local! {
    static PRETENDED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Runs `child` as a forked child would: what was made before is another process's. For tests.
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub fn as_forked_child<T>(child: impl FnOnce() -> T) -> T {
    struct Reset(usize);
    impl Drop for Reset {
        fn drop(&mut self) {
            PRETENDED.set(self.0);
        }
    }
    let _reset = Reset(PRETENDED.replace(PRETENDED.get() + 1));
    child()
}

#[cfg(unix)]
fn listen() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    extern "C" fn forked() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    ONCE.call_once(|| {
        // SAFETY: in a child only what is safe in a signal handler may be called: `forked` adds to
        // an atomic, and neither allocates nor locks. It lives as long as the program.
        //
        // It fails for lack of memory only; then forks are not noticed, as on other systems.
        let _ = unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    });
}

#[cfg(not(unix))]
fn listen() {}
