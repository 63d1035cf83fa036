//! What only the thread that leads the gate does: I/O, and changes of position.

use std::io::IoSlice;

use cairn_io::gate::Lead;

use crate::commit::{Core, Guard, Home, RESERVE};
use crate::error::{Error, Failure, Result};
use crate::flush::{Flush, Goal};
use crate::format::{SECTOR_LEN, frame_len};
use crate::mutation::{self, Mutation};
use crate::state::{Pending, Place};
use crate::sync::Stopwatch;

/// Leads, until it is dropped; then tells everybody who waits for anything else than the gate.
pub(crate) struct Leading<'a> {
    core: &'a Core,
    lead: Option<Lead<'a>>,
}

impl<'a> Leading<'a> {
    pub(crate) fn new(core: &'a Core, lead: Lead<'a>) -> Self {
        Leading { core, lead: Some(lead) }
    }
}

impl std::ops::Deref for Leading<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        self.core
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        if mutation::is(Mutation::LoseWakeUp) {
            std::mem::forget(self.lead.take());
        }
        self.lead = None;
        self.core.progress.notify(usize::MAX);
    }
}

/// What only who leads may do.
impl<'a> Leading<'a> {
    pub(crate) fn core(&self) -> &'a Core {
        self.core
    }

    /// Does I/O without the lock.
    pub(crate) fn unlocked<R>(&self, guard: Guard<'a>, io: impl FnOnce() -> R) -> (Guard<'a>, R) {
        drop(guard);
        let unwinding = Unwinding { core: self.core };
        let result = io();
        std::mem::forget(unwinding);
        (self.core.lock(), result)
    }

    pub(crate) fn cover(&self, slots: u64) {
        if let Some(lead) = &self.lead {
            lead.cover(slots);
        }
    }

    /// Stops leading, and tells those whose callbacks are due.
    pub(crate) fn finish(self, guard: Guard<'a>) {
        let core = self.core;
        let callbacks = !guard.callbacks.is_empty();
        let prepare = core.wants_preparing(&guard);
        drop(guard);
        drop(self);
        if prepare {
            core.prepare();
        }
        if callbacks {
            core.settle();
        }
    }

    /// Reserves space of the active segment up to `end`, and a good piece further if there is that much.
    pub(crate) fn reserve_space(&self, guard: Guard<'a>, end: u64) -> (Guard<'a>, Result<()>) {
        let from = guard.reserved;
        if end <= from {
            return (guard, Ok(()));
        }
        let active = guard.active.clone();
        let step = match self.home {
            Home::Directory { .. } => RESERVE.min(self.options.segment_size),
            Home::Store { .. } => RESERVE,
        };
        let further = end.max(from.saturating_add(step));
        let (mut guard, result) = self.unlocked(guard, || {
            let reserve = |to: u64| active.store.preallocate(active.offset(from), to - from).map(|()| to);
            reserve(further).or_else(|_| reserve(end))
        });
        match result {
            Ok(to) => {
                guard.reserved = guard.reserved.max(to);
                (guard, Ok(()))
            }
            Err(e) => (guard, Err(Error::io("reserve space in", &active.file.path, e))),
        }
    }

    /// Writes everything complete, and waits for the slots up to and including `through` to be.
    pub(crate) fn flush_out(&self, mut guard: Guard<'a>, goal: Goal, through: u64) -> (Guard<'a>, Result<()>) {
        let core = self.core;
        if let Some(stop) = &guard.stopped {
            let cause = stop.cause.clone();
            return (guard, Err(Error::Poisoned { cause }));
        }
        if core.open_slot(&guard).is_some() {
            core.close_slot(&mut guard, false);
            if !guard.frozen {
                // If there is no room for the next one now, the next append sees to it.
                let _ = core.try_open(&mut guard, frame_len(0));
            }
        }
        let mut groups = Vec::new();
        while let Some(first) = guard.pending.front().copied() {
            let slot = first.filled.number;
            if slot > through && core.ring.slot(slot).is_complete() == Ok(false) {
                break;
            }
            guard.pending.pop_front();
            groups.push(first);
        }
        guard.writing = groups.len();
        let mark = (guard.flushed.lsn, std::mem::take(&mut guard.mark));
        let end = groups.last().map_or(guard.flushed, Pending::end);
        let end = Place { lsn: end.lsn.max(guard.flushed.lsn + mark.1.len() as u64), ..end };
        let written = groups.last().map_or(guard.written.max(1), |last| last.filled.number + 1);
        let bytes = end.lsn - guard.flushed.lsn;
        let flush = Flush {
            active: guard.active.clone(),
            goal,
            mark,
            groups,
            unsynced: guard.flushed.lsn > guard.durable,
            durable: guard.durable,
            shared: std::mem::take(&mut guard.shared),
            block: core.block(&guard),
        };
        if flush.is_empty() {
            guard.shared = flush.shared;
            return (guard, Ok(()));
        }
        let (mut guard, result) = self.unlocked(guard, || {
            let watch = Stopwatch::start();
            let result = flush.run(&core.ring);
            if let Some(lead) = self.lead.as_ref().filter(|_| goal == Goal::Durable) {
                lead.took(watch.elapsed());
            }
            result
        });
        let shared = match result {
            Ok(shared) => shared,
            Err(failure) => {
                let syncable = (goal == Goal::Flushed).then_some(guard.written);
                let poisoned = core.stop(&mut guard, failure, syncable);
                return (guard, Err(poisoned));
            }
        };
        guard.writing = 0;
        guard.shared = shared;
        guard.flushed = end;
        guard.written = written;
        guard.stats.bytes_written += bytes;
        guard.prepared.note_flush(bytes, goal == Goal::Durable);
        if goal == Goal::Durable {
            guard.durable = end.lsn;
            guard.stats.barriers += 1;
            self.cover(written);
            if mutation::is(Mutation::AcknowledgeReservation) {
                guard.durable = core.end(&guard).lsn;
                self.cover(guard.next_slot);
            }
        }
        (guard, Ok(()))
    }

    /// In a frozen log, all of which is durable: appends a group of the log's own, and makes it durable.
    pub(crate) fn write_group(&self, guard: Guard<'a>, bytes: &[u8]) -> (Guard<'a>, Result<()>) {
        let active = guard.active.clone();
        let offset = active.offset(guard.end.lsn);
        let zeros = [0; SECTOR_LEN];
        let zeros = &zeros[..active.zeros_behind(guard.end.lsn + bytes.len() as u64)];
        let group = [IoSlice::new(bytes), IoSlice::new(zeros)];
        let (mut guard, result) = self.unlocked(guard, || active.store.write_durable(offset, &group));
        match result {
            Ok(()) => {
                guard.advance(bytes.len());
                guard.stats.barriers += 1;
                (guard, Ok(()))
            }
            Err(e) => {
                let failure = Failure::from(Error::io("write durably to", &active.file.path, e));
                let poisoned = self.stop(&mut guard, failure, None);
                (guard, Err(poisoned))
            }
        }
    }
}

/// While a thread does I/O for all: if it panics, the writer stops and nobody hangs.
struct Unwinding<'a> {
    core: &'a Core,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        let mut guard = self.core.lock();
        self.core.stop(&mut guard, Failure::Panicked, None);
        guard.frozen = false;
        drop(guard);
        self.core.settle();
    }
}
