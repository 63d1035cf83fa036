//! What only a thread that leads the gate begins: I/O, and changes of position.

use std::io::IoSlice;

use cairn_commit::gate::Lead;

use crate::clock::unix_ns;
use crate::error::{Error, Failure, Result};
use crate::format::{GroupHeader, GroupKind, SECTOR_LEN, chain_of, frame_len};
use crate::mutation::{self, Mutation};
use crate::place::{Lsn, Place, SlotNumber};
use crate::segment::space::RESERVE_BYTES;
use crate::sync::{Listener, Stopwatch};
use crate::writer::core::{Core, Guard};
use crate::writer::flush::{Flush, Headed};
use crate::writer::state::{Flight, FlightState, Goal, Pending, State};

impl Core {
    /// Leads as soon as no other thread does.
    pub(crate) fn claim(&self) -> Leading<'_> {
        Leading::new(self, self.gate.claim())
    }
}

/// The thread that leads: it holds the lead of the gate, and the state under the lock. It gives
/// back the lock for I/O alone ([`unlocked`](Leading::unlocked)) and while it waits.
///
/// Dropping it ends the lead, and notifies the threads that wait for anything else than the gate.
pub(crate) struct Leading<'a> {
    pub(super) core: &'a Core,
    lead: Option<Lead<'a>>,
    /// `None` during I/O and waits, when no code looks at the state.
    state: Option<Guard<'a>>,
}

impl<'a> Leading<'a> {
    pub(crate) fn new(core: &'a Core, lead: Lead<'a>) -> Self {
        Leading { core, lead: Some(lead), state: Some(core.lock()) }
    }
}

const LOCKED: &str = "I/O and waits end with the lock taken";

impl std::ops::Deref for Leading<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.state.as_ref().expect(LOCKED)
    }
}

impl std::ops::DerefMut for Leading<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.state.as_mut().expect(LOCKED)
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.state = None;
        if mutation::is(Mutation::LoseWakeUp) {
            std::mem::forget(self.lead.take());
        }
        self.lead = None;
        self.core.progress.notify(usize::MAX);
    }
}

impl<'a> Leading<'a> {
    /// Does I/O without the lock.
    pub(crate) fn unlocked<R>(&mut self, io: impl FnOnce() -> R) -> R {
        self.unlocked_for(None, |_| io())
    }

    /// The same for the flight that writes the slots below `flight`; `io` gets the lead.
    fn unlocked_for<R>(
        &mut self,
        flight: Option<SlotNumber>,
        io: impl FnOnce(Option<&Lead<'a>>) -> R,
    ) -> R {
        self.state = None;
        let unwinding = Unwinding { core: self.core, flight };
        let result = io(self.lead.as_ref());
        std::mem::forget(unwinding);
        self.state = Some(self.core.lock());
        result
    }

    /// Waits, without the lock, until another thread reports progress.
    pub(crate) fn wait(&mut self) {
        let listener = self.core.progress.listen();
        self.state = None;
        listener.wait();
        self.state = Some(self.core.lock());
    }

    /// In a frozen log: waits for what is being prepared in the active segment.
    pub(crate) fn when_nothing_is_prepared(&mut self) {
        while self.prepared.changes_segment() {
            self.wait();
        }
    }

    pub(crate) fn cover(&self, slots: SlotNumber) {
        if let Some(lead) = &self.lead {
            lead.cover(slots.0);
        }
    }

    /// Stops the writer for good; see [`Core::stop`].
    pub(crate) fn stop(&mut self, failure: Failure, syncable: Option<SlotNumber>) -> Error {
        let core = self.core;
        core.stop(self, failure, syncable)
    }

    /// Stops leading, has prepared what is wanted, and calls the callbacks that are due.
    pub(crate) fn finish(mut self) {
        let core = self.core;
        // Behind the flush, so that nobody waits for the clock.
        let flushed = self.flushed;
        if self.moments.is_news(flushed) {
            self.moments.note(unix_ns(&*core.options.fs), flushed);
        }
        let callbacks = !self.callbacks.is_empty();
        let prepare = core.wants_preparing(&self);
        drop(self);
        if prepare {
            core.prepare();
        }
        if callbacks {
            core.settle();
        }
    }

    /// Reserves space of the active segment up to `end`, and a good piece further if there is that
    /// much.
    pub(crate) fn reserve_space(&mut self, end: Lsn) -> Result<()> {
        let from = self.reserved;
        if end <= from {
            return Ok(());
        }
        let active = self.active.clone();
        let step = RESERVE_BYTES.min(self.core.options.segment_size);
        let further = end.max(from.saturating_add(step));
        let reserved = self.unlocked(|| {
            let reserve =
                |to: Lsn| active.store.preallocate(active.offset(from).0, to - from).map(|()| to);
            reserve(further).or_else(|_| reserve(end))
        });
        let to = reserved.map_err(|e| Error::io("reserve space in", &active.path, e))?;
        self.reserved = self.reserved.max(to);
        Ok(())
    }

    /// Writes everything complete, and waits for the slots up to and including `through` to be.
    ///
    /// If the goal is durable and `through` is a full slot, the full slots up to it are written
    /// beside earlier flushes: leadership is handed over before the write, and the open slot stays
    /// open. On return they are with the device, and become durable with those before them. In
    /// every other case this first waits until no flush is in flight.
    pub(crate) fn flush_out(&mut self, goal: Goal, through: SlotNumber) -> Result<()> {
        let Some(full) = self.when_it_may_fly(goal, through)? else { return Ok(()) };
        if full == 0 && self.core.open_slot().is_some() {
            let core = self.core;
            core.close_slot(self, false);
            if self.phase.is_open() {
                // If there is no room for the next one now, the next append sees to it.
                let _ = core.try_open(self, frame_len(0));
            }
        }
        let groups = self.take_groups(full, through);
        let first = self.taken();
        let flush = self.plan_flush(goal, groups);
        if flush.is_empty() {
            self.shared = flush.shared;
            return Ok(());
        }
        let written = self.take_off(&flush);
        let core = self.core;
        let result = self.unlocked_for(Some(written), |lead| {
            if let Some(lead) = lead.filter(|_| full > 0) {
                lead.pass_on(written.0);
            }
            let watch = Stopwatch::start();
            let result = flush.run(&core.ring);
            if let Some(lead) = lead.filter(|_| goal == Goal::Durable) {
                lead.took(watch.elapsed());
            }
            result
        });
        match result {
            Ok(shared) => {
                self.land(written, FlightState::Landed(shared));
                self.settle_flights();
                Ok(())
            }
            Err(failure) => {
                self.land(written, FlightState::Failed);
                let syncable = match goal {
                    Goal::Flushed => Some(self.written),
                    // Those in flight before it may yet succeed.
                    Goal::Durable => (full > 0).then_some(first),
                };
                Err(self.stop(failure, syncable))
            }
        }
    }

    /// Waits until another flush may begin; returns how many full slots it is for, 0 for one that
    /// writes everything. `None` when `through` is durable already.
    fn when_it_may_fly(&mut self, goal: Goal, through: SlotNumber) -> Result<Option<usize>> {
        loop {
            if let Some(stop) = self.phase.stopped() {
                return Err(Error::Poisoned { cause: stop.cause().clone() });
            }
            if self.core.covered() > through {
                return Ok(None);
            }
            let full = if goal == Goal::Durable { self.core.full_slots(self, through) } else { 0 };
            let beside = full > 0 || mutation::is(Mutation::DecideInFlight);
            if self.in_air() < if beside { self.core.options.flushes_in_flight } else { 1 } {
                return Ok(Some(full));
            }
            self.wait();
        }
    }

    /// Takes the closed slots that this flush writes: the first `full` of them, or, if that is 0,
    /// all that are complete or not behind `through`.
    fn take_groups(&mut self, full: usize, through: SlotNumber) -> Vec<Pending> {
        let core = self.core;
        let mut groups = Vec::new();
        while let Some(first) = self.pending.front().copied() {
            let slot = first.filled.number;
            let last = if full > 0 {
                groups.len() == full
            } else {
                slot > through && !core.is_complete(slot)
            };
            if last {
                break;
            }
            self.pending.pop_front();
            groups.push(first);
        }
        groups
    }

    /// What a flush of `groups` writes, decided under the lock.
    fn plan_flush(&mut self, goal: Goal, groups: Vec<Pending>) -> Flush {
        let in_flight = mutation::is(Mutation::WatermarkInFlight);
        let from = self.flights.back().map_or(self.flushed, |flight| flight.end);
        let durable = if in_flight { from.lsn } else { self.durable };
        let groups = groups.into_iter().map(|group| self.with_header(group, durable)).collect();
        Flush {
            active: self.active.clone(),
            goal,
            mark: (from.lsn, std::mem::take(&mut self.mark)),
            groups,
            unsynced: self.flushed.lsn > self.durable,
            shared: std::mem::take(&mut self.shared),
            block: self.core.block(self),
        }
    }

    /// Makes the header of a group, in the order of positions: each names the one before it. It
    /// says that what is in flight is not durable.
    fn with_header(&mut self, group: Pending, durable: Lsn) -> Headed {
        let Pending { filled, padding } = group;
        let len = u32::try_from(filled.end_lsn - filled.lsn).expect("appends bound the group");
        let at = Place { lsn: filled.lsn, seq: filled.first_seq };
        let reserved = mutation::is(Mutation::WatermarkIsReservation);
        let durable = if reserved { filled.lsn } else { durable };
        let header = GroupHeader {
            padding: u32::try_from(padding).expect("padding is less than a block"),
            ..self.author().header(GroupKind::Records, at, len, durable)
        };
        let header = header.encode(self.active.log_seed());
        self.chain = chain_of(&header);
        Headed { group, header }
    }

    /// Takes note that `flush` begins; returns the slots, exclusive, that are written with it.
    fn take_off(&mut self, flush: &Flush) -> SlotNumber {
        let from = self.flights.back().map_or(self.flushed, |flight| flight.end);
        let last = flush.groups.last().map(|last| &last.group);
        let end = last.map_or(from, Pending::end);
        let end = Place { lsn: end.lsn.max(from.lsn + flush.mark.1.len() as u64), ..end };
        let first = self.taken();
        let written = last.map_or(first.max(SlotNumber(1)), |last| last.filled.number.next());
        self.stats.flushes_beside += u64::from(self.in_air() > 0);
        let (bytes, slots) = (end.lsn - from.lsn, flush.groups.len());
        let (goal, state) = (flush.goal, FlightState::InAir);
        self.flights.push_back(Flight { goal, end, bytes, slots, written, state });
        written
    }

    /// Takes note of what succeeded, as far as everything before it did.
    ///
    /// Otherwise: 1. flush *n + 1* is done, and its records are acknowledged, 2. power fails, and
    /// flush *n* is not on the disk, 3. recovery cuts there.
    pub(super) fn settle_flights(&mut self) {
        let landed = |flight: &Flight| matches!(flight.state, FlightState::Landed(_));
        let in_order = |at: &usize| *at == 0 || mutation::is(Mutation::CoverOutOfOrder);
        while let Some(at) = self.flights.iter().position(landed).filter(in_order) {
            let Some(flight) = self.flights.remove(at) else { break };
            if let FlightState::Landed(shared) = flight.state {
                self.shared = shared;
            }
            self.flushed = flight.end;
            self.written = flight.written;
            self.stats.bytes_written += flight.bytes;
            self.prepared.note_flush(flight.bytes, flight.goal == Goal::Durable);
            if flight.goal == Goal::Durable {
                self.durable = flight.end.lsn;
                self.stats.barriers += 1;
                self.cover(flight.written);
                if mutation::is(Mutation::AcknowledgeReservation) {
                    self.durable = self.core.end(self).lsn;
                    self.cover(self.next_slot);
                }
            }
        }
    }

    /// In a frozen log, all of which is durable: appends a group of the log's own, and makes it
    /// durable.
    pub(crate) fn write_group(&mut self, bytes: &[u8]) -> Result<()> {
        let active = self.active.clone();
        let offset = active.offset(self.end.lsn);
        let zeros = [0; SECTOR_LEN];
        let zeros = &zeros[..active.zeros_behind(self.end.lsn + bytes.len() as u64)];
        let group = [IoSlice::new(bytes), IoSlice::new(zeros)];
        match self.unlocked(|| active.store.write_durable(offset.0, &group)) {
            Ok(()) => {
                self.chain = chain_of(bytes);
                self.advance(bytes.len());
                self.stats.barriers += 1;
                Ok(())
            }
            Err(e) => {
                let failure = Failure::from(Error::io("write durably to", &active.path, e));
                Err(self.stop(failure, None))
            }
        }
    }
}

/// While a thread does I/O for all: if it panics, the writer stops and no thread hangs.
struct Unwinding<'a> {
    pub(super) core: &'a Core,
    /// The flight that will not land, by what it writes.
    pub(super) flight: Option<SlotNumber>,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        let mut guard = self.core.lock();
        if let Some(written) = self.flight {
            guard.land(written, FlightState::Failed);
        }
        self.core.stop(&mut guard, Failure::Panicked, None);
        drop(guard);
        self.core.settle();
    }
}
