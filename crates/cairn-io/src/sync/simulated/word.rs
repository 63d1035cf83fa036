//! Words to wait for, spinning, and time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{place, thread};
use crate::sync::seam::{simulation, step};

/// A number that threads wait on until it changes.
#[derive(Debug, Default)]
pub struct Word(AtomicU32);

impl Word {
    pub fn load(&self) -> u32 {
        step("load");
        self.0.load(Ordering::Acquire)
    }

    /// Changes the number: a thread that has read the old one and is about to wait does not.
    pub fn bump(&self) {
        step("bump");
        self.0.fetch_add(1, Ordering::Release);
    }

    /// Sleeps until the number is another than `seen`; may return sooner.
    pub fn wait(&self, seen: u32) {
        match simulation() {
            None => atomic_wait::wait(&self.0, seen),
            Some(simulation) => {
                simulation.step("wait");
                if self.0.load(Ordering::Acquire) == seen {
                    simulation.wait(place(self), "a word", None);
                }
            }
        }
    }

    pub fn wake_one(&self) {
        match simulation() {
            None => atomic_wait::wake_one(&self.0),
            Some(simulation) => {
                simulation.step("wake_one");
                simulation.wake(place(self), 1);
            }
        }
    }

    pub fn wake_all(&self) {
        match simulation() {
            None => atomic_wait::wake_all(&self.0),
            Some(simulation) => {
                simulation.step("wake_all");
                simulation.wake(place(self), usize::MAX);
            }
        }
    }
}

/// Tries again and again, ever more patiently, until `done`.
///
/// It sleeps in the end, because a thread of lower priority that must go on first gets no processor
/// from one that yields.
pub fn spin_until(mut done: impl FnMut() -> bool) {
    for attempt in 0u64.. {
        if done() {
            return;
        }
        match (simulation(), attempt) {
            (Some(simulation), _) => simulation.yield_now("another thread's progress"),
            (None, 0..64) => std::hint::spin_loop(),
            (None, 64..128) => thread::yield_now(),
            (None, _) => thread::sleep(Duration::from_micros(20)),
        }
    }
}

/// A clock to measure how long things take; never recorded, and nothing that is promised depends on
/// it. In a simulation it shows simulated time.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    begun: Instant,
    /// When it began, in simulated time.
    simulated: Option<Duration>,
}

impl Stopwatch {
    pub fn start() -> Self {
        let simulated = simulation().map(|simulation| simulation.elapsed());
        Stopwatch { begun: Instant::now(), simulated }
    }

    pub fn elapsed(&self) -> Duration {
        match (self.simulated, simulation()) {
            (Some(begun), Some(simulation)) => simulation.elapsed().saturating_sub(begun),
            _ => self.begun.elapsed(),
        }
    }
}
