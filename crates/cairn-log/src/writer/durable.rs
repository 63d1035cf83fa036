//! Waiting until records are with the operating system, or durable.

use cairn_commit::gate::{Lead, Turn};

use crate::error::{Error, Result};
use crate::mutation::{self, Mutation};
use crate::place::{Lsn, SlotNumber};
use crate::sync::atomic::Ordering;
use crate::writer::core::{Appended, Core};
use crate::writer::lead::Leading;
use crate::writer::state::{Goal, Pending, State};

/// A leader with a group of this many bytes or more does not wait for others to arrive.
const GATHER_SKIP_BYTES: u64 = 256 << 10;

impl Core {
    /// Returns once everything appended before the call is with the operating system.
    pub(crate) fn flush(&self) -> Result<()> {
        self.check_process()?;
        let guard = self.lock();
        let (target, cut_count) = (self.end(&guard).lsn, guard.history.count());
        let reached =
            |state: &State| state.flushed.lsn >= target || state.history.count() != cut_count;
        if reached(&guard) {
            return Ok(());
        }
        drop(guard);
        let mut leading = self.claim();
        if !reached(&leading) && leading.phase.stopped().is_none() {
            // An error is in the state, where every thread finds it.
            let _ = leading.flush_out(Goal::Flushed, SlotNumber::MAX);
        }
        let result = match leading.phase.stopped() {
            Some(stop) if !reached(&leading) => {
                let (lsn, durable) = (leading.flushed.lsn, leading.durable);
                Err(Error::InDoubt { lsn, durable, cause: stop.cause().clone() })
            }
            _ => Ok(()),
        };
        leading.finish();
        result
    }

    /// Returns once everything appended before the call is durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.check_process()?;
        let slot = self.last_slot(&self.lock());
        self.make_durable(slot, None)
    }

    /// Returns once the record at `lsn` and everything before it is durable.
    pub(crate) fn sync_to(&self, lsn: Lsn) -> Result<()> {
        self.check_process()?;
        let guard = self.lock();
        let end = self.end(&guard).lsn;
        if lsn >= end {
            if mutation::is(Mutation::SyncBeyondEnd) {
                return Ok(());
            }
            return Err(Error::OutOfRange { lsn, first: guard.head.lsn, end });
        }
        if lsn < guard.durable {
            return Ok(());
        }
        let slot = self.slot_of(&guard, lsn);
        drop(guard);
        self.make_durable(slot, Some(lsn))
    }

    /// Returns once the record just appended is durable.
    pub(crate) fn settled(&self, appended: Appended) -> Result<()> {
        self.check_process()?;
        self.make_durable(appended.slot, Some(appended.lsn))
    }

    /// Whether the record is durable, or will never be; `None` while that is open.
    pub(crate) fn outcome(&self, appended: Appended) -> Option<Result<()>> {
        if self.covered() > appended.slot {
            return Some(Ok(()));
        }
        if let Err(forked) = self.check_process() {
            return Some(Err(forked));
        }
        self.outcome_of(&self.lock(), appended.slot, appended.lsn)
    }

    pub(super) fn outcome_of(
        &self,
        state: &State,
        slot: SlotNumber,
        lsn: Lsn,
    ) -> Option<Result<()>> {
        // Also for what a cut took back later: everything was durable when the log was cut.
        if self.covered() > slot {
            return Some(Ok(()));
        }
        match state.phase.stopped() {
            Some(stop) if stop.puts_in_doubt(slot.0) => {
                let (durable, cause) = (state.durable, stop.cause().clone());
                Some(Err(Error::InDoubt { lsn, durable, cause }))
            }
            _ => None,
        }
    }

    /// Returns once the slot, and everything before it, is durable. Leads when no other thread
    /// does.
    pub(super) fn make_durable(&self, slot: SlotNumber, lsn: Option<Lsn>) -> Result<()> {
        // For callers alone: the committer, which names no record, would go round in a circle.
        let trusts = lsn.is_some() && mutation::is(Mutation::TrustFlight);
        if trusts && slot < self.lock().taken() {
            return Ok(());
        }
        loop {
            match self.gate.wait(slot.0) {
                Turn::Covered => return Ok(()),
                Turn::Lead(lead) => self.lead_through(lead, slot),
                Turn::Ended => {
                    let guard = self.lock();
                    let lsn = lsn.unwrap_or(guard.durable);
                    if let Some(outcome) = self.outcome_of(&guard, slot, lsn) {
                        return outcome;
                    }
                    drop(guard);
                    self.sync_prefix();
                }
            }
        }
    }

    /// Flushes what has to be for this slot to become durable, unless another thread does already.
    pub(super) fn lead_through(&self, lead: Lead<'_>, slot: SlotNumber) {
        // What is full gathers nothing more.
        if self.full_slots(&self.lock(), slot) == 0 {
            lead.gather(|| self.arrived());
        }
        let mut leading = Leading::new(self, lead);
        // Leading is not needed for what is in flight.
        let in_flight = (leading.written..leading.taken()).contains(&slot);
        if self.covered() <= slot && !in_flight && leading.phase.stopped().is_none() {
            // An error is in the state, where every thread finds it.
            let _ = leading.flush_out(Goal::Durable, slot);
        }
        leading.finish();
    }

    /// Threads that have appended to the open slot, as the leader counts them that waits for more.
    pub(super) fn arrived(&self) -> u64 {
        let Some(open) = self.ring.open_slot() else { return 0 };
        // Much to write takes long by itself, and the others encode meanwhile.
        if open.end_lsn - open.lsn >= GATHER_SKIP_BYTES {
            return u64::MAX;
        }
        // A batch counts as one arrival, whatever its size.
        open.records.saturating_sub(self.in_company.load(Ordering::Acquire))
    }

    /// The slot that holds the last record appended, or the last one there was.
    pub(super) fn last_slot(&self, state: &State) -> SlotNumber {
        let open = self.open_slot().map(|open| open.number);
        let last = open.or(state.pending.back().map(|pending| pending.filled.number));
        last.unwrap_or(state.taken().before())
    }

    /// The slot that holds the record at `lsn`, which is not durable.
    pub(super) fn slot_of(&self, state: &State, lsn: Lsn) -> SlotNumber {
        if lsn >= state.end.lsn {
            return self.last_slot(state);
        }
        let pending = state.pending.iter().find(|pending| lsn < pending.end().lsn);
        let first = state.pending.front().map_or(state.end.lsn, |first| first.filled.lsn);
        let written = match pending {
            Some(pending) if lsn >= first => return pending.filled.number,
            _ if lsn < state.flushed.lsn => state.written,
            // Being written: the gate is passed when all of that flush is durable.
            _ => {
                let flight = state.flights.iter().find(|flight| lsn < flight.end.lsn);
                flight.map_or(state.taken(), |flight| flight.written)
            }
        };
        written.before()
    }

    /// How many slots can be written beside other flushes; they hold what is waited for, and are
    /// complete or will soon be.
    ///
    /// They end at a block boundary, as full ones do: what follows shares no block with them. What
    /// comes before them is durable, or in flight in the same way: otherwise the barrier of this
    /// flush would have to cover that as well.
    pub(crate) fn full_slots(&self, state: &State, through: SlotNumber) -> usize {
        let block = self.block(state);
        let alone = block == 1 || self.options.flushes_in_flight == 1;
        if alone || !state.mark.is_empty() || state.flushed.lsn > state.durable {
            return 0;
        }
        let ready = |pending: &&Pending| {
            pending.filled.number <= through || self.is_complete(pending.filled.number)
        };
        let ready = state.pending.iter().take_while(ready);
        let last = ready.enumerate().last().filter(|(_, last)| {
            last.filled.number >= through && state.active.offset(last.end().lsn).within(block) == 0
        });
        last.map_or(0, |(index, _)| index + 1)
    }

    /// Whether a closed slot has everything that was reserved in it, or never will.
    pub(crate) fn is_complete(&self, slot: SlotNumber) -> bool {
        self.ring.slot(slot).is_complete() != Ok(false)
    }

    /// After a failed *write*: a barrier for what was written before it.
    pub(super) fn sync_prefix(&self) {
        let mut leading = self.claim();
        while leading.in_air() > 0 {
            leading.wait();
        }
        let syncable = leading.phase.stopped().map(|stop| SlotNumber(stop.syncable()));
        let Some(syncable) = syncable.filter(|syncable| *syncable > self.covered()) else {
            return;
        };
        let store = leading.active.store.clone();
        match leading.unlocked(|| store.sync()) {
            Ok(()) => {
                leading.durable = leading.flushed.lsn;
                leading.cover(syncable);
            }
            Err(_) => {
                if let Some(stop) = leading.phase.stopped() {
                    stop.lower(self.covered().0);
                }
            }
        }
        leading.finish();
    }
}
