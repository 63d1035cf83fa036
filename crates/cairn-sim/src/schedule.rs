//! Who runs when: the scheduler of the world that runs in the calling thread of the system.

mod broken;
mod decider;
mod scheduler;
mod turn;

use std::cell::RefCell;
use std::rc::Rc;

use cairn_io::sync::seam::{self, Simulation as _};

pub use broken::Broken;
pub(crate) use decider::Decider;
pub use decider::Faults;
pub(crate) use scheduler::Scheduler;
pub use turn::{Decision, Turn};

use crate::faults::{Call, Fault};

thread_local! {
    static CURRENT: RefCell<Option<Rc<Scheduler>>> = const { RefCell::new(None) };
}

/// The scheduler that decides for the calling thread.
pub(crate) fn current() -> Option<Rc<Scheduler>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Runs the threads of `scheduler` until all have ended; returns what was broken.
pub(crate) fn run(scheduler: &Rc<Scheduler>) -> Option<Broken> {
    let outer = CURRENT.replace(Some(scheduler.clone()));
    let broken = seam::simulate(scheduler.clone(), || scheduler.run());
    CURRENT.set(outer);
    broken
}

/// Whether a world decides for the calling thread.
pub(crate) fn is_simulated() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// Begins a file system call; says which fault befalls it.
pub(crate) fn begin_call(call: Call) -> Option<Fault> {
    current().and_then(|scheduler| scheduler.begin_call(call))
}

/// Ends a file system call that has changed something.
pub(crate) fn end_call(call: Call) {
    if let Some(scheduler) = current() {
        scheduler.end_call(call);
    }
}

/// Simulated milliseconds that have passed in the world that decides for the calling thread.
pub(crate) fn elapsed_ms() -> u64 {
    let elapsed = current().map(|scheduler| scheduler.elapsed());
    elapsed.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}
