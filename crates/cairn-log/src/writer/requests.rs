//! Durability that is asked for without waiting: the log's own threads, and callbacks.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cairn_commit::gate::Turn;

use crate::place::SlotNumber;
use crate::sync::atomic::{Ordering, fence};
use crate::sync::thread;
use crate::writer::core::{Appended, Core, Guard};
use crate::writer::state::Callback;

impl Core {
    /// Whether the thread runs that makes durable what is asked for. Starts it if need be; if the
    /// system refuses it now, the next call tries again.
    ///
    /// Ask before a record is placed: one that nobody will make durable, and one that was appended
    /// although its caller was told of an error, are worse than a caller that does it itself.
    pub(crate) fn has_committer(&self) -> bool {
        if self.requests.begun.load(Ordering::Acquire) {
            return true;
        }
        let mut guard = self.lock();
        if guard.committer.is_none() {
            let Some(core) = self.myself.upgrade().filter(|_| !guard.phase.is_abandoned()) else {
                return false;
            };
            let spawned = thread::Builder::new()
                .name("cairn-commit".into())
                .spawn(move || core.commit_requests());
            guard.committer = spawned.ok();
        }
        let begun = guard.committer.is_some();
        self.requests.begun.store(begun, Ordering::Release);
        begun
    }

    /// Asks for durability of a record without waiting for it: the committer, which
    /// [runs](Self::has_committer), sees to it.
    pub(crate) fn request(&self, slot: SlotNumber) {
        // Another thread already requested this slot and wakes the committer.
        if self.requests.slots.load(Ordering::Acquire) > slot.0 {
            return;
        }
        self.requests.slots.fetch_max(slot.0 + 1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        if self.requests.idle.load(Ordering::Acquire) {
            self.wake_committer();
        }
    }

    pub(super) fn wake_committer(&self) {
        self.requests.changed.bump();
        self.requests.changed.wake_all();
    }

    pub(super) fn commit_requests(&self) {
        let asked = || self.requests.slots.load(Ordering::Acquire);
        loop {
            let seen = self.requests.changed.load();
            if asked() > self.covered().0 {
                let failed = self.make_durable(SlotNumber(asked()).before(), None).is_err();
                if failed {
                    // What was written before the failure may have been asked for, too.
                    self.sync_prefix();
                }
                self.settle();
                if failed {
                    return;
                }
                continue;
            }
            if self.lock().phase.is_abandoned() {
                return;
            }
            self.requests.idle.store(true, Ordering::Release);
            fence(Ordering::SeqCst);
            if asked() <= self.covered().0 {
                self.requests.changed.wait(seen);
            }
            self.requests.idle.store(false, Ordering::Release);
        }
    }

    /// Hands full slots to the background flush threads. Direct I/O only: through the page cache
    /// the copy costs more than encoding did, so there the appender that runs out of slots writes
    /// them.
    pub(super) fn write_behind(&self, mut guard: Guard<'_>) {
        let Some(full) = guard.pending.back().map(|full| full.filled.number) else { return };
        let in_air = guard.in_air();
        if in_air > 0 {
            // The leader may be waiting until nothing is in flight, or until its slot is full.
            self.progress.notify(usize::MAX);
        }
        if self.block(&guard) == 1 || !self.layout.background() {
            return;
        }
        let helpers = guard.helpers.len();
        if helpers < in_air
            && helpers + 1 < self.options.flushes_in_flight
            && !guard.phase.is_abandoned()
        {
            let core = self.myself.upgrade();
            let spawned = core.map(|core| {
                thread::Builder::new()
                    .name("cairn-flush".into())
                    .spawn(move || core.flush_full_slots())
            });
            guard.helpers.extend(spawned.and_then(std::io::Result::ok));
        }
        drop(guard);
        // Without the thread, who runs out of slots writes them.
        if self.has_committer() {
            self.request(full);
        }
        if in_air > 0 && helpers > 0 {
            self.requests.full.bump();
            self.requests.full.wake_one();
        }
    }

    /// Leads whenever there are full slots while a flush is in flight.
    pub(super) fn flush_full_slots(&self) {
        loop {
            let seen = self.requests.full.load();
            let guard = self.lock();
            if guard.phase.is_over() {
                return;
            }
            let full =
                guard.pending.back().filter(|_| guard.in_air() > 0).map(|full| full.filled.number);
            drop(guard);
            match full {
                Some(slot) => {
                    if let Turn::Lead(lead) = self.gate.wait(slot.0) {
                        self.lead_through(lead, slot);
                    }
                }
                None => self.requests.full.wait(seen),
            }
        }
    }

    /// Calls back once the record is durable or in doubt; at once when it is already.
    pub(crate) fn on_durable(&self, appended: Appended, callback: Callback) {
        self.lock().callbacks.push((appended.lsn, appended.slot, callback));
        self.settle();
    }

    /// Calls the callbacks that are due, with no lock held.
    pub(crate) fn settle(&self) {
        let mut guard = self.lock();
        let mut due = Vec::new();
        for (lsn, slot, callback) in std::mem::take(&mut guard.callbacks) {
            match self.outcome_of(&guard, slot, lsn) {
                Some(outcome) => due.push((callback, outcome)),
                None => guard.callbacks.push((lsn, slot, callback)),
            }
        }
        drop(guard);
        for (callback, result) in due {
            // A callback is the caller's code: what it breaks is not the log's, and the others are
            // still to be called (L35).
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| callback(result))) {
                forget_panic(panic);
            }
        }
    }
}

/// Drops what a thread panicked with. That is the caller's code as well, and may panic in turn:
/// what it panics with then is left alone.
pub(super) fn forget_panic(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}
