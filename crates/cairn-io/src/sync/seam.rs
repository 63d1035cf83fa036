//! What a simulation decides in the place of the operating system.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// Decides who runs when. Implemented by `cairn-sim`; installed for one thread of the system, in
/// which all threads of the simulated world run.
///
/// Threads switch in these calls only. What a thread waits for is a *place*: the address of the
/// lock, word or event.
pub trait Simulation {
    /// A step of the calling thread: others may run before it returns.
    fn step(&self, what: &'static str);

    /// The calling thread has nothing to do but to wait for others, and asks again later.
    fn yield_now(&self, what: &'static str);

    /// Waits until [`wake`](Self::wake) of `place`, or until `limit` of simulated time is over.
    /// Says whether it was woken. Between the call and the waiting no other thread runs.
    fn wait(&self, place: usize, what: &'static str, limit: Option<Duration>) -> bool;

    /// Makes at most `count` of the threads that wait for `place` runnable. No step.
    fn wake(&self, place: usize, count: usize);

    /// Begins a thread; returns its number. `body` returns the message of the panic that ended it.
    ///
    /// # Errors
    /// When the simulation wants the start of a thread to fail.
    fn spawn(&self, name: Option<String>, body: Body) -> io::Result<u64>;

    /// Whether a thread has ended.
    fn has_ended(&self, thread: u64) -> bool;

    /// Returns when a thread has ended.
    fn join(&self, thread: u64);

    /// Number and name of the calling thread.
    fn current(&self) -> (u64, Option<String>);

    /// Simulated time since the world began. Asking takes time.
    fn elapsed(&self) -> Duration;

    /// Returns after this much simulated time.
    fn sleep(&self, duration: Duration);
}

/// What a simulated thread runs; returns the message of the panic that ended it.
pub type Body = Box<dyn FnOnce() -> Option<String>>;

/// The message of a panic.
pub fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("no message").to_owned()
}

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static INSTALLED: RefCell<Option<Rc<dyn Simulation>>> = const { RefCell::new(None) };
}

/// The simulation that decides for the calling thread.
pub fn simulation() -> Option<Rc<dyn Simulation>> {
    if !ACTIVE.get() {
        return None;
    }
    INSTALLED.with_borrow(Clone::clone)
}

/// Has `simulation` decide for the calling thread while `run` runs.
pub fn simulate<T>(simulation: Rc<dyn Simulation>, run: impl FnOnce() -> T) -> T {
    struct Restore(Option<Rc<dyn Simulation>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ACTIVE.set(self.0.is_some());
            INSTALLED.with_borrow_mut(|installed| *installed = self.0.take());
        }
    }
    let outer = INSTALLED.with_borrow_mut(|installed| installed.replace(simulation));
    let _restore = Restore(outer);
    ACTIVE.set(true);
    run()
}

/// A step of the calling thread, if a simulation decides for it.
pub fn step(what: &'static str) {
    if let Some(simulation) = simulation() {
        simulation.step(what);
    }
}
