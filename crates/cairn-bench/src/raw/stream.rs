//! Tickets over the ring: one thread appends, others write what there is, each in a write of its
//! own, and a ticket is settled once everything up to its group is on the device.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};

use super::file::{AlignedBuf, GROUP, Ring, give_up};
use super::frame;
use crate::subject::Pipeline;

struct State {
    /// The open group, and its number.
    buffer: AlignedBuf,
    group: u64,
    /// What is not open and not being written.
    spare: Vec<AlignedBuf>,
    /// Groups from the first one on that is not settled; whether they are on the device.
    flights: VecDeque<bool>,
    ending: bool,
}

struct Shared {
    ring: Arc<Ring>,
    state: Mutex<State>,
    /// There is something to write, or it ends.
    work: Condvar,
    /// A group is settled.
    progress: Condvar,
    /// The first group that is not on the device, or one before it is not.
    durable: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes groups until it ends.
    fn write_groups(&self) {
        let mut state = self.lock();
        loop {
            while state.buffer.is_empty() && !state.ending {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let spare = if state.buffer.is_empty() { None } else { state.spare.pop() };
            let Some(spare) = spare else {
                return;
            };
            let mut sealed = std::mem::replace(&mut state.buffer, spare);
            let group = state.group;
            state.group += 1;
            state.flights.push_back(false);
            drop(state);
            self.ring.write(&mut sealed).unwrap_or_else(|error| give_up(&error));
            state = self.lock();
            state.spare.push(sealed);
            let first = self.durable.load(Ordering::Relaxed);
            state.flights[(group - first) as usize] = true;
            while state.flights.front() == Some(&true) {
                state.flights.pop_front();
                self.durable.fetch_add(1, Ordering::Release);
            }
            self.progress.notify_one();
        }
    }
}

/// The appending thread's side.
pub(crate) struct Stream {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Groups of the records that are not settled.
    in_flight: VecDeque<u64>,
}

impl Stream {
    /// Starts as many threads as groups may be written at the same time.
    pub(crate) fn start(ring: Arc<Ring>, depth: usize) -> Self {
        let state = State {
            buffer: AlignedBuf::new(GROUP),
            group: 0,
            spare: (0..depth).map(|_| AlignedBuf::new(GROUP)).collect(),
            flights: VecDeque::new(),
            ending: false,
        };
        let shared = Arc::new(Shared {
            ring,
            state: Mutex::new(state),
            work: Condvar::new(),
            progress: Condvar::new(),
            durable: AtomicU64::new(0),
        });
        let spawn = |_| {
            let shared = shared.clone();
            thread::spawn(move || shared.write_groups())
        };
        Stream { threads: (0..depth).map(spawn).collect(), shared, in_flight: VecDeque::new() }
    }
}

impl Pipeline for Stream {
    fn submit(&mut self, record: &[u8]) -> Result<()> {
        let crc = crc32c::crc32c(record);
        let mut state = self.shared.lock();
        while state.buffer.room() < frame::frame_len(record.len()) {
            state = self.shared.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let first = state.buffer.is_empty();
        frame::push(&mut state.buffer, crc, record)?;
        self.in_flight.push_back(state.group);
        drop(state);
        if first {
            self.shared.work.notify_one();
        }
        Ok(())
    }

    fn wait_oldest(&mut self) -> Result<()> {
        let group = self.in_flight.pop_front().context("no ticket in flight")?;
        if self.shared.durable.load(Ordering::Acquire) <= group {
            let mut state = self.shared.lock();
            while self.shared.durable.load(Ordering::Acquire) <= group {
                state = self.shared.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.lock().ending = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // It ends the process when it cannot write, so there is nothing to report.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::cell::Mode;
    use crate::raw::file::Way;
    use crate::subject::Setup;

    /// What is waited for is on the device, with everything before it, and everything is settled at
    /// the end.
    #[test]
    fn tickets_settle_in_order() {
        for depth in [1, 2] {
            let setup = Setup {
                dir: PathBuf::new(),
                size: 8,
                segment_bytes: 0,
                keep_bytes: 0,
                barrier_latency: Duration::ZERO,
                mode: Mode::Tickets(16),
                expected_records: 0,
                fresh: true,
            };
            let ring = Arc::new(Ring::create(&setup, Way::Nowhere).unwrap());
            let mut stream = Stream::start(ring.clone(), depth);
            for n in 0..20_000 {
                stream.submit(b"a record").unwrap();
                if n >= 16 {
                    let group = stream.in_flight[0];
                    stream.wait_oldest().unwrap();
                    let state = stream.shared.lock();
                    let durable = stream.shared.durable.load(Ordering::Acquire);
                    assert!(durable > group && state.flights.front() != Some(&true));
                    assert_eq!(durable + state.flights.len() as u64, state.group);
                }
            }
            while !stream.in_flight.is_empty() {
                stream.wait_oldest().unwrap();
            }
            assert_eq!(stream.shared.lock().spare.len(), depth);
            let settled = stream.shared.durable.load(Ordering::Acquire);
            drop(stream);
            assert_eq!(ring.barriers(), settled);
        }
    }
}
