//! Who changes what, who writes it, and who waits for whom.
//!
//! ```text
//!  operation -> applied to the open round, under a short lock -> lead or wait -> result
//!  leader    -> takes the round -> one commit, without the lock -> publishes the new durable state -> wakes
//! ```
//!
//! The state that operations see is made of layers: the durable state (`Durable`), the round that a leader is writing (`flying`), and the
//! open round. Each operation is applied at once, in order, to the open round, so its result is known before it is durable; it is told
//! when its round is. Readers see the durable state alone.
//!
//! Invariants:
//! 1. An operation is applied as a whole or, when it is refused, not at all.
//! 2. `open` lies on top of `flying`, `flying` on top of `durable`. When a round is refused, so is what lies on top of it.
//! 3. A reader holds `durable` shared while it reads the file; whoever publishes a new durable state takes it exclusively, for a moment, and never during I/O. What the commit of
//!    *n + 1* writes lies below the in-place changes of *n*, which readers have in memory, or behind its end: it disturbs readers of state *n* never. So all
//!    readers of *n − 1* must be done before it begins, and nobody waits for a barrier.
//! 4. While a transaction runs its closure, `turn` says which thread's; other writers wait, readers and the leader do not. No lock is held, so a
//!    panic in it disturbs nobody (L35, L36).
//! 5. Locks are taken in the order stage, durable, disk.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cairn_io::File;
use cairn_io::gate::{Gate, Lead, Turn};

use crate::delta::Delta;
use crate::disk::{Disk, Durable, HOLE_MIN, Medium, Stop};
use crate::error::{Error, Failure, Result};
use crate::format::{BLOCK_LEN, DATA_ALIGN, ENTRY_LEN, LEN_MAX, SLOT_BODY_MAX};
use crate::mutation::{self, Mutation};
use crate::options::{Durability, Options, Stats};
use crate::overlay::Overlay;
use crate::sync::{
    Arc, Event, Listener, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, thread,
};

/// Room in a slot's body for the proofs of what is appended.
const PROOFS: u64 = 4 << 10;

/// So many times is the processor given away before sleeping while another thread makes a transaction.
const TURN_YIELDS: u32 = 32;

/// Operations that become durable, or do not, together.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) number: u64,
    outcome: Mutex<Option<Outcome>>,
}

/// What became of a round that is not durable.
#[derive(Clone, Debug)]
enum Outcome {
    Refused(Error),
    InDoubt(Arc<Failure>),
    /// Never begun, and never will be.
    Stopped(Arc<Failure>),
}

impl Round {
    fn new(number: u64) -> Arc<Self> {
        Arc::new(Round { number, outcome: Mutex::new(None) })
    }

    fn end(&self, outcome: Outcome) {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(outcome);
    }

    fn result(&self) -> Result<()> {
        match self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            None => Ok(()),
            Some(Outcome::Refused(error)) => Err(error),
            Some(Outcome::InDoubt(cause)) => Err(Error::InDoubt { cause }),
            Some(Outcome::Stopped(cause)) => Err(Error::Poisoned { cause }),
        }
    }
}

/// What operations have done, under the lock.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) open: Delta,
    pub(crate) round: Arc<Round>,
    pub(crate) flying: Option<(Arc<Delta>, Arc<Round>)>,
    /// Whether a hole may be left by what is open, in flight, or durable.
    pub(crate) holes: bool,
    /// The thread whose transaction is being made.
    turn: Option<thread::ThreadId>,
    /// Counts refused rounds: what was applied on top of one is gone.
    pub(crate) epoch: u64,
    /// Why the last one was.
    pub(crate) refused: Option<Error>,
    stopped: Option<Arc<Failure>>,
    closed: bool,
}

pub(crate) type Guard<'a> = MutexGuard<'a, Stage>;

/// One open stack.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) medium: Arc<Medium>,
    stage: Mutex<Stage>,
    durable: RwLock<Durable>,
    disk: Mutex<Disk>,
    gate: Gate,
    /// Notified when a transaction is over.
    freed: Event,
    /// Operations in the open round.
    arrived: AtomicU64,
    operations: AtomicU64,
    commits: AtomicU64,
    /// Whether the file may be somebody else's by now. Changes only while `durable` is taken exclusively.
    pub(crate) over: AtomicBool,
    locks: Mutex<Vec<Arc<dyn File>>>,
}

impl Core {
    pub(crate) fn new(options: Options, disk: Disk, durable: Durable, locks: Vec<Arc<dyn File>>) -> Self {
        let stage = Stage {
            open: Delta::new(durable.len),
            round: Round::new(0),
            flying: None,
            holes: disk.holes,
            turn: None,
            epoch: 0,
            refused: None,
            stopped: None,
            closed: false,
        };
        Core {
            medium: disk.medium.clone(),
            stage: Mutex::new(stage),
            durable: RwLock::new(durable),
            disk: Mutex::new(disk),
            gate: Gate::new(),
            freed: Event::new(),
            arrived: AtomicU64::new(0),
            operations: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            over: AtomicBool::new(false),
            locks: Mutex::new(locks),
            options,
        }
    }

    /// Nothing that panics under this lock leaves the stage half-changed: operations check first.
    pub(crate) fn lock(&self) -> Guard<'_> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn durable(&self) -> RwLockReadGuard<'_, Durable> {
        self.durable.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn durable_mut(&self) -> RwLockWriteGuard<'_, Durable> {
        self.durable.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stage, for changing it: once no transaction is being made, unless writing has stopped.
    pub(crate) fn writer(&self) -> Result<Guard<'_>> {
        let mut guard = self.lock();
        let mut yields = 0;
        while let Some(owner) = guard.turn {
            if owner == thread::current().id() {
                return Err(Error::InTransaction);
            }
            // Most transactions are shorter than falling asleep: who sleeps comes too late for the barrier that the others share.
            if yields < TURN_YIELDS {
                yields += 1;
                drop(guard);
                thread::yield_now();
            } else {
                let freed = self.freed.listen();
                drop(guard);
                freed.wait();
            }
            guard = self.lock();
        }
        guard.check()?;
        Ok(guard)
    }

    /// Takes the turn for a transaction.
    pub(crate) fn take_turn(&self) -> Result<(Guard<'_>, OwnTurn<'_>)> {
        let mut guard = self.writer()?;
        guard.turn = Some(thread::current().id());
        Ok((guard, OwnTurn { core: self, over: false }))
    }

    /// Ends an operation that was applied to the open round: releases the lock and, unless durability is explicit, waits for the round.
    pub(crate) fn finish(&self, guard: Guard<'_>) -> Result<()> {
        self.operations.fetch_add(1, Ordering::Relaxed);
        self.arrived.fetch_add(1, Ordering::Relaxed);
        let round = guard.round.clone();
        let explicit = self.options.durability == Durability::Explicit;
        let keeps = explicit && guard.open.weight <= self.options.buffer_size;
        drop(guard);
        if keeps || mutation::is(Mutation::AcknowledgeBeforeBarrier) { Ok(()) } else { self.reach(&round) }
    }

    /// Waits until the round is durable, or leads.
    fn reach(&self, round: &Round) -> Result<()> {
        loop {
            match self.gate.wait(round.number) {
                Turn::Covered => return round.result(),
                Turn::Lead(lead) => self.lead(lead),
                Turn::Ended => {
                    round.result()?;
                    return Err(self.lock().check().err().unwrap_or(Error::Closed));
                }
            }
        }
    }

    /// Makes everything that operations have done durable.
    pub(crate) fn sync(&self) -> Result<()> {
        let guard = self.lock();
        guard.check()?;
        self.reach_all(guard)
    }

    /// Waits, unless durability is explicit, until what a result was drawn from is durable. Otherwise: 1. one thread is told that a comparison
    /// failed, because of what another one has just written, 2. power fails, and that was never written (L09).
    pub(crate) fn confirm(&self, guard: Guard<'_>) -> Result<()> {
        if self.is_explicit() { Ok(()) } else { self.reach_all(guard) }
    }

    fn reach_all(&self, guard: Guard<'_>) -> Result<()> {
        let round = match &guard.flying {
            _ if !guard.open.is_empty() => guard.round.clone(),
            Some((_, round)) => round.clone(),
            None => return Ok(()),
        };
        drop(guard);
        self.reach(&round)
    }

    /// Makes the open round durable, for all who wait for it.
    fn lead(&self, lead: Lead<'_>) {
        lead.gather(|| self.arrived.load(Ordering::Relaxed));
        let mut guard = self.lock();
        if guard.open.is_empty() || guard.stopped.is_some() {
            return;
        }
        self.arrived.store(0, Ordering::Relaxed);
        let holes = guard.holes;
        let next = Delta::new(guard.open.len());
        let delta = Arc::new(std::mem::replace(&mut guard.open, next));
        let following = Round::new(guard.round.number + 1);
        let round = std::mem::replace(&mut guard.round, following);
        guard.flying = Some((delta.clone(), round.clone()));
        drop(guard);

        let unwinding = Unwinding { core: self };
        let base = self.durable().clone();
        let mut disk = self.disk();
        let result = disk.commit(&base, &delta, holes);
        lead.took(disk.barrier_took);
        drop(disk);
        drop(delta);
        std::mem::forget(unwinding);
        match result {
            Ok(carried) => {
                self.publish(carried);
                lead.cover(round.number + 1);
            }
            Err(Stop::Refused(error)) => lead.cover(self.refuse(&error)),
            Err(Stop::Halted { failure, in_doubt }) => self.halt(failure, in_doubt),
        }
    }

    /// The round in flight is durable: readers see it from here on.
    fn publish(&self, carried: Option<Overlay>) {
        let mut guard = self.lock();
        let Some((delta, _)) = guard.flying.take() else { return };
        let len = delta.len();
        let delta = Arc::into_inner(delta).expect("the leader gave its own up before");
        let in_place = Arc::new(carried.unwrap_or_else(|| delta.into_in_place()));
        let mut durable = self.durable_mut();
        let before = std::mem::replace(&mut *durable, Durable { len, in_place });
        drop(durable);
        drop(guard);
        drop(before);
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// The round in flight did not take place, and neither did what was applied on top of it. Returns how many rounds are over.
    fn refuse(&self, error: &Error) -> u64 {
        let mut guard = self.lock();
        let len = self.durable().len;
        if let Some((_, round)) = guard.flying.take() {
            round.end(Outcome::Refused(error.clone()));
        }
        guard.round.end(Outcome::Refused(error.clone()));
        let over = guard.round.number + 1;
        guard.round = Round::new(over);
        guard.open = Delta::new(len);
        guard.epoch += 1;
        guard.refused = Some(error.clone());
        self.arrived.store(0, Ordering::Relaxed);
        over
    }

    /// Writing stops for good; the first cause stays.
    fn halt(&self, failure: Failure, in_doubt: bool) {
        let mut guard = self.lock();
        let cause = guard.stopped.get_or_insert_with(|| Arc::new(failure)).clone();
        if let Some((_, round)) = guard.flying.take() {
            round.end(if in_doubt { Outcome::InDoubt(cause.clone()) } else { Outcome::Stopped(cause.clone()) });
        }
        guard.round.end(Outcome::Stopped(cause));
        guard.open = Delta::new(self.durable().len);
        guard.epoch += 1;
        drop(guard);
        self.gate.end();
        self.freed.notify(usize::MAX);
    }

    /// Ends the stack: everything durable, and a file that opens at once. It is over in any case.
    pub(crate) fn close(&self) -> Result<()> {
        let result = self.wind_up();
        let durable = self.durable_mut();
        self.over.store(true, Ordering::Relaxed);
        drop(durable);
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).clear();
        result
    }

    fn wind_up(&self) -> Result<()> {
        let mut guard = self.writer()?;
        guard.closed = true;
        drop(guard);
        self.freed.notify(usize::MAX);
        loop {
            let lead = self.gate.claim();
            let guard = self.lock();
            guard.check_stopped()?;
            if guard.open.is_empty() {
                drop(guard);
                let base = self.durable().clone();
                let result = self.disk().finish(&base);
                drop(lead);
                self.gate.end();
                return match result {
                    Ok(()) => Ok(()),
                    Err(Stop::Refused(error)) => Err(error),
                    Err(Stop::Halted { failure, .. }) => {
                        self.halt(failure, false);
                        self.lock().check_stopped()
                    }
                };
            }
            let round = guard.round.clone();
            drop(guard);
            self.lead(lead);
            round.result()?;
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            len: self.len(),
            operations: self.operations.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
            barriers: self.medium.barriers.load(Ordering::Relaxed),
            file_len: self.medium.reserved(),
        }
    }

    pub(crate) fn is_explicit(&self) -> bool {
        self.options.durability == Durability::Explicit
    }

    /// Sees to it that what `delta` is to become finds space: `more` bytes of it, up to `end`, with `in_place` bytes changed in place.
    pub(crate) fn reserve(&self, demand: Demand) -> Result<()> {
        let Demand { end, base_len, in_place, pieces } = demand;
        let body = in_place.saturating_add(pieces.saturating_mul((ENTRY_LEN + DATA_ALIGN) as u64));
        if body <= SLOT_BODY_MAX - PROOFS {
            return self.medium.reserve(end);
        }
        // The body goes behind the payload.
        let behind = end.max(base_len).next_multiple_of(BLOCK_LEN as u64);
        self.medium.reserve(behind.saturating_add(body).saturating_add(PROOFS))
    }
}

/// The space that a round needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    pub(crate) end: u64,
    pub(crate) base_len: u64,
    pub(crate) in_place: u64,
    pub(crate) pieces: u64,
}

impl Stage {
    pub(crate) fn check(&self) -> Result<()> {
        self.check_stopped()?;
        if self.closed { Err(Error::Closed) } else { Ok(()) }
    }

    pub(crate) fn check_stopped(&self) -> Result<()> {
        match &self.stopped {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }
}

/// Refuses a growth that no file can have.
pub(crate) fn check_growth(len: u64, more: u64) -> Result<()> {
    match len.checked_add(more) {
        Some(end) if end <= LEN_MAX => Ok(()),
        _ => Err(Error::TooLong { len, more, max: LEN_MAX }),
    }
}

/// Whether so many zeros are left a hole.
pub(crate) fn is_hole(zeros: u64) -> bool {
    zeros > HOLE_MIN
}

/// The turn of a transaction; over when this is dropped.
#[derive(Debug)]
pub(crate) struct OwnTurn<'a> {
    core: &'a Core,
    over: bool,
}

impl OwnTurn<'_> {
    /// Ends the turn without letting go of the stage in between.
    pub(crate) fn end(mut self, stage: &mut Stage) {
        stage.turn = None;
        self.over = true;
        self.core.freed.notify(usize::MAX);
    }
}

impl Drop for OwnTurn<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.core.lock().turn = None;
            self.core.freed.notify(usize::MAX);
        }
    }
}

/// Stops the writer when the leader panics.
struct Unwinding<'a> {
    core: &'a Core,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        self.core.halt(Failure::Panicked, true);
    }
}
