//! One open log: its parts, its lock, and how it stops.

use cairn_commit::gate::Gate;
use cairn_io::Process;

use crate::clock::unix_ns;
use crate::error::{Error, Failure, Result};
use crate::format::GROUP_HEADER_LEN;
use crate::layout::Layout;
use crate::mutation::{self, Mutation};
use crate::open::recover::Recovered;
use crate::options::{Options, Stats};
use crate::place::{Lsn, Place, Seq, SlotNumber};
use crate::ring::{Filled, Ring};
use crate::sync::atomic::{AtomicBool, AtomicU64};
use crate::sync::{Arc, Event, Listener, Mutex, MutexGuard, PoisonError, Weak, Word};
use crate::writer::state::State;

pub(crate) type Guard<'a> = MutexGuard<'a, State>;

/// Largest block size, in bytes, to align writes to. A store with larger blocks is treated as
/// unaligned.
const BLOCK_BYTES_MAX: u64 = 4096;

/// One open log.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) layout: Arc<dyn Layout>,
    /// The process that opened the log: a forked child has neither its threads nor its lock.
    process: Process,
    pub(super) state: Mutex<State>,
    pub(crate) ring: Ring,
    pub(crate) gate: Gate,
    /// Notified when a leader is done, and when a job of preparation is.
    pub(crate) progress: Event,
    pub(super) requests: Requests,
    /// Records in the open slot beyond the first of each batch. `arrived` subtracts them, so that a
    /// batch counts as one thread. Approximate: a batch that races with closing the slot may be
    /// counted wrongly.
    pub(super) in_company: AtomicU64,
    /// Changes when there is something to prepare.
    pub(crate) wanted: Word,
    /// For threads of the log's own.
    pub(crate) myself: Weak<Core>,
}

/// Durability that was asked for without waiting, and how its thread is woken.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Whether the thread that makes them durable was started.
    pub(super) begun: AtomicBool,
    /// Slots below this are asked for.
    pub(super) slots: AtomicU64,
    /// Whether the thread sleeps, or is about to.
    pub(super) idle: AtomicBool,
    pub(super) changed: Word,
    /// Changes when a slot is full while a flush is in flight.
    pub(super) full: Word,
}

/// Where a record went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) lsn: Lsn,
    pub(crate) seq: Seq,
    /// The slot it is in.
    pub(crate) slot: SlotNumber,
}

impl Core {
    pub(crate) fn new(options: Options, ring: Ring, recovered: Recovered) -> Arc<Self> {
        let Recovered { layout, opened, .. } = recovered;
        let state = State::new(opened, unix_ns(&*options.fs));
        let gate = Gate::new();
        if let Some(lead) = gate.try_lead() {
            lead.cover(state.written.0);
        }
        Arc::new_cyclic(|myself| Core {
            options,
            layout,
            process: Process::current(),
            state: Mutex::new(state),
            ring,
            gate,
            progress: Event::new(),
            requests: Requests::default(),
            in_company: AtomicU64::new(0),
            wanted: Word::default(),
            myself: myself.clone(),
        })
    }

    /// # Errors
    /// [`Error::Forked`] in a child of the process that opened the log. Asked before a lock is
    /// taken: what another thread held at the fork is never given back in the child. In the other
    /// order of things: 1. both go on, 2. each writes its records where the other one's are, 3.
    /// half of what was acknowledged is gone, and what is left verifies.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        match self.process.is_current() || mutation::is(Mutation::IgnoreFork) {
            true => Ok(()),
            false => Err(Error::Forked),
        }
    }

    /// The state, also after a panic under the lock, which then counts as a failure of the writer.
    pub(crate) fn lock(&self) -> Guard<'_> {
        self.state.lock().unwrap_or_else(|poisoned: PoisonError<Guard<'_>>| {
            let mut guard = poisoned.into_inner();
            self.stop(&mut guard, Failure::Panicked, None);
            guard
        })
    }

    /// Slots below this number are durable.
    pub(crate) fn covered(&self) -> SlotNumber {
        SlotNumber(self.gate.covered())
    }

    pub(crate) fn wait<'a>(&'a self, guard: Guard<'a>) -> Guard<'a> {
        let listener = self.progress.listen();
        drop(guard);
        listener.wait();
        self.lock()
    }

    /// Stops the writer for good; the first cause stays. What is not written yet never will be.
    /// Slots below `syncable` may still become durable.
    pub(crate) fn stop(
        &self,
        state: &mut State,
        failure: Failure,
        syncable: Option<SlotNumber>,
    ) -> Error {
        let syncable = syncable.unwrap_or(self.covered());
        let stop = state.phase.stop(failure, syncable);
        let error = Error::Poisoned { cause: stop.cause().clone() };
        self.close_slot(state, false);
        self.gate.end();
        error
    }

    /// Where the next record goes, or the group that it begins.
    pub(crate) fn end(&self, state: &State) -> Place {
        match self.open_slot() {
            Some(open) => Place { lsn: open.end_lsn, seq: open.first_seq + open.records },
            None => state.end,
        }
    }

    /// What the open slot holds, if it holds something.
    pub(crate) fn open_slot(&self) -> Option<Filled> {
        self.ring.open_slot().filter(|open| open.records > 0)
    }

    /// The unit in which the active segment is best written.
    pub(crate) fn block(&self, state: &State) -> u64 {
        let block = state.active.store.block_size() as u64;
        if block.is_power_of_two() && block <= BLOCK_BYTES_MAX { block } else { 1 }
    }

    pub(crate) fn stats(&self) -> Stats {
        let guard = self.lock();
        let buffered_bytes = self.end(&guard).lsn - guard.flushed.lsn;
        let held_bytes = guard.holds.bytes(guard.head.lsn);
        let mut stats = Stats { buffered_bytes, held_bytes, ..guard.stats };
        if let Some(open) = self.open_slot() {
            stats.records += open.records;
            stats.frame_bytes += open.end_lsn - open.lsn - GROUP_HEADER_LEN as u64;
        }
        stats
    }
}
