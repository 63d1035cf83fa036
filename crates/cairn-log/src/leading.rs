//! What only a thread that leads the gate begins: I/O, and changes of position.

use std::io::IoSlice;

use cairn_io::gate::Lead;

use crate::commit::{Core, Guard, Home, RESERVE};
use crate::error::{Error, Failure, Result};
use crate::flush::{Flush, Goal};
use crate::format::{SECTOR_LEN, frame_len};
use crate::mutation::{self, Mutation};
use crate::state::{Flight, FlightState, Pending, Place};
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
        self.unlocked_for(None, guard, io)
    }

    fn unlocked_for<R>(&self, flight: Option<u64>, guard: Guard<'a>, io: impl FnOnce() -> R) -> (Guard<'a>, R) {
        drop(guard);
        let unwinding = Unwinding { core: self.core, flight };
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
    ///
    /// If full slots are what is waited for, they are written beside other flushes, and somebody else leads meanwhile; the open slot stays open. On
    /// return they are with the device, and become durable with those before them. Everything else is flushed with nothing in flight beside it.
    pub(crate) fn flush_out(&self, mut guard: Guard<'a>, goal: Goal, through: u64) -> (Guard<'a>, Result<()>) {
        let core = self.core;
        let full = loop {
            if let Some(stop) = &guard.stopped {
                let cause = stop.cause.clone();
                return (guard, Err(Error::Poisoned { cause }));
            }
            if core.gate.covered() > through {
                return (guard, Ok(()));
            }
            let full = if goal == Goal::Durable { core.full_slots(&guard, through) } else { 0 };
            let beside = full > 0 || mutation::is(Mutation::DecideInFlight);
            if guard.in_air() < if beside { core.options.flushes_in_flight } else { 1 } {
                break full;
            }
            guard = core.wait(guard);
        };
        if full == 0 && core.open_slot(&guard).is_some() {
            core.close_slot(&mut guard, false);
            if !guard.frozen {
                // If there is no room for the next one now, the next append sees to it.
                let _ = core.try_open(&mut guard, frame_len(0));
            }
        }
        let mut groups = Vec::new();
        while let Some(first) = guard.pending.front().copied() {
            let slot = first.filled.number;
            let last = if full > 0 { groups.len() == full } else { slot > through && !core.is_complete(slot) };
            if last {
                break;
            }
            guard.pending.pop_front();
            groups.push(first);
        }
        let from = guard.flights.back().map_or(guard.flushed, |flight| flight.end);
        let mark = (from.lsn, std::mem::take(&mut guard.mark));
        let end = groups.last().map_or(from, Pending::end);
        let end = Place { lsn: end.lsn.max(from.lsn + mark.1.len() as u64), ..end };
        let first = guard.taken();
        let written = groups.last().map_or(first.max(1), |last| last.filled.number + 1);
        let (bytes, slots) = (end.lsn - from.lsn, groups.len());
        let flush = Flush {
            active: guard.active.clone(),
            goal,
            mark,
            groups,
            unsynced: guard.flushed.lsn > guard.durable,
            durable: if mutation::is(Mutation::WatermarkInFlight) { from.lsn } else { guard.durable },
            shared: std::mem::take(&mut guard.shared),
            block: core.block(&guard),
        };
        if flush.is_empty() {
            guard.shared = flush.shared;
            return (guard, Ok(()));
        }
        guard.stats.flushes_beside += u64::from(guard.in_air() > 0);
        guard.flights.push_back(Flight { goal, end, bytes, slots, written, state: FlightState::InAir });
        let (mut guard, result) = self.unlocked_for(Some(written), guard, || {
            if let Some(lead) = self.lead.as_ref().filter(|_| full > 0) {
                lead.pass_on(written);
            }
            let watch = Stopwatch::start();
            let result = flush.run(&core.ring);
            if let Some(lead) = self.lead.as_ref().filter(|_| goal == Goal::Durable) {
                lead.took(watch.elapsed());
            }
            result
        });
        match result {
            Ok(shared) => {
                guard.land(written, FlightState::Landed(shared));
                self.settle_flights(&mut guard);
                (guard, Ok(()))
            }
            Err(failure) => {
                guard.land(written, FlightState::Failed);
                let syncable = match goal {
                    Goal::Flushed => Some(guard.written),
                    // Those in flight before it may yet succeed.
                    Goal::Durable => (full > 0).then_some(first),
                };
                let poisoned = core.stop(&mut guard, failure, syncable);
                (guard, Err(poisoned))
            }
        }
    }

    /// Takes note of what succeeded, as far as everything before it did.
    ///
    /// Otherwise: 1. flush *n + 1* is done, and its records are acknowledged, 2. power fails, and flush *n* is not on the disk, 3. recovery cuts there.
    fn settle_flights(&self, guard: &mut Guard<'a>) {
        let landed = |flight: &Flight| matches!(flight.state, FlightState::Landed(_));
        let in_order = |at: &usize| *at == 0 || mutation::is(Mutation::CoverOutOfOrder);
        while let Some(at) = guard.flights.iter().position(landed).filter(in_order) {
            let Some(flight) = guard.flights.remove(at) else { break };
            if let FlightState::Landed(shared) = flight.state {
                guard.shared = shared;
            }
            guard.flushed = flight.end;
            guard.written = flight.written;
            guard.stats.bytes_written += flight.bytes;
            guard.prepared.note_flush(flight.bytes, flight.goal == Goal::Durable);
            if flight.goal == Goal::Durable {
                guard.durable = flight.end.lsn;
                guard.stats.barriers += 1;
                self.cover(flight.written);
                if mutation::is(Mutation::AcknowledgeReservation) {
                    guard.durable = self.core.end(guard).lsn;
                    self.cover(guard.next_slot);
                }
            }
        }
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
    /// The flight that will not land, by what it writes.
    flight: Option<u64>,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        let mut guard = self.core.lock();
        if let Some(written) = self.flight {
            guard.land(written, FlightState::Failed);
        }
        self.core.stop(&mut guard, Failure::Panicked, None);
        guard.frozen = false;
        drop(guard);
        self.core.settle();
    }
}
