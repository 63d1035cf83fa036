//! Group commit: which thread changes the stack, which one writes, and which ones wait.
//!
//! ```text
//! operation -> applied to the open round, under a short lock -> lead or wait -> result
//! leader    -> takes the round -> one commit, without the lock -> publishes the state -> wakes
//! ```
//!
//! The state that operations see has three layers: the durable state (`Durable`), the round that a
//! leader is writing (`flying`), and the open round. Each operation is applied to the open round at
//! once, so its result is known before it is durable. The call returns once its round is durable.
//! Readers see only the durable state.
//!
//! Invariants:
//! 1. An operation is applied as a whole. If it is refused, it is not applied at all.
//! 2. `open` is on top of `flying`, and `flying` is on top of `durable`. If a round is refused, the
//!    rounds on top of it are refused. With explicit durability it is not: its operations have
//!    returned, and whoever calls `sync` next is to make them durable, or be told. It goes back
//!    under the open round. Otherwise: 1. thread A's `sync` fails for lack of space, and what
//!    thread B changed goes with it, 2. B's `sync` finds nothing to do, and returns `Ok`.
//! 3. A reader holds `durable` shared while it reads the file. The leader takes it exclusively to
//!    publish a new durable state, for a moment and never during I/O. So all readers of state
//!    *n − 1* are done before commit *n + 1* begins. Commit *n + 1* writes in two places: where
//!    readers of state *n* have the bytes in memory (the in-place changes of *n*), and behind the
//!    end of state *n*. It never changes a byte that they read, and they never wait for a barrier.
//! 4. While a closure of a transaction runs, `turn` holds its thread. Other writers wait; readers
//!    and the leader do not. The closure holds no lock, so a panic in it blocks no other thread
//!    (L35, L36).
//! 5. Locks are taken in the order stage, durable, disk.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cairn_commit::gate::{Gate, Lead, Turn};
use cairn_io::Process;

use crate::disk::{Disk, Durable, Stop};
use crate::error::{Error, Failure, Result};
use crate::format::Epoch;
use crate::home::Home;
use crate::medium::Medium;
use crate::mutation::{self, Mutation};
use crate::options::{Durability, Options, Stats};
use crate::overlay::Overlay;
use crate::stage::{Guard, Round, RoundNumber, Stage};
use crate::sync::{
    Arc, Event, Listener, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
    RwLockWriteGuard, thread,
};

/// How often a thread yields the processor to another thread's transaction before it sleeps.
const TURN_YIELDS: u32 = 32;

/// One open stack.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) medium: Arc<Medium>,
    /// Of this opening.
    pub(crate) epoch: Epoch,
    /// The process that opened the stack: a forked child has its locks, and not its threads.
    process: Process,
    stage: Mutex<Stage>,
    durable: RwLock<Durable>,
    disk: Mutex<Disk>,
    gate: Gate,
    /// Notified when a transaction's closure is over, and when writing stops.
    freed: Event,
    /// Operations in the open round.
    arrived: AtomicU64,
    operations: AtomicU64,
    commits: AtomicU64,
    /// Whether the stack was closed: another process may have the file by now. Changes only while
    /// `durable` is held exclusively.
    pub(crate) over: AtomicBool,
    /// Where the file is; stacks in stores have no place of their own.
    home: Option<Home>,
}

impl Core {
    pub(crate) fn new(options: Options, disk: Disk, durable: Durable, home: Option<Home>) -> Self {
        let stage = Stage::new(durable.len, disk.holes);
        Core {
            medium: disk.medium.clone(),
            epoch: disk.epoch,
            process: Process::current(),
            stage: Mutex::new(stage),
            durable: RwLock::new(durable),
            disk: Mutex::new(disk),
            gate: Gate::new(),
            freed: Event::new(),
            arrived: AtomicU64::new(0),
            operations: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            over: AtomicBool::new(false),
            home,
            options,
        }
    }

    /// A poisoned lock is taken all the same: operations check before they change, so a panic
    /// leaves the stage whole.
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

    /// # Errors
    /// [`Error::Forked`] in a child of the process that opened the stack. Asked before a lock is
    /// taken: what another thread held at the fork is never given back in the child.
    pub(crate) fn check_process(&self) -> Result<()> {
        match self.process.is_current() || mutation::is(Mutation::IgnoreFork) {
            true => Ok(()),
            false => Err(Error::Forked),
        }
    }

    /// Waits until no closure of a transaction runs, and returns the stage, to change it. Fails if
    /// the handle refuses changes.
    pub(crate) fn writer(&self) -> Result<Guard<'_>> {
        self.check_process()?;
        self.make_room()?;
        self.in_turn()
    }

    /// Waits until no closure of a transaction runs.
    fn in_turn(&self) -> Result<Guard<'_>> {
        let mut guard = self.lock();
        let mut yields = 0;
        while let Some(owner) = guard.turn {
            if owner == thread::current().id() {
                return Err(Error::InTransaction);
            }
            // Most closures take less time than falling asleep. A thread that sleeps would wake too
            // late for the barrier that the others share.
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

    /// Takes the turn for this thread's transaction.
    pub(crate) fn take_turn(&self) -> Result<(Guard<'_>, OwnTurn<'_>)> {
        let mut guard = self.writer()?;
        guard.turn = Some(thread::current().id());
        Ok((guard, OwnTurn { core: self, over: false }))
    }

    /// Ends an operation that was applied to the open round: releases the lock, and waits until the
    /// round is durable. With explicit durability it waits only if the round is large.
    pub(crate) fn finish(&self, guard: Guard<'_>) -> Result<()> {
        self.operations.fetch_add(1, Ordering::Relaxed);
        self.arrived.fetch_add(1, Ordering::Relaxed);
        let round = guard.round.clone();
        let explicit = self.options.durability == Durability::Explicit;
        let keeps = explicit && guard.open.weight <= self.options.buffer_size;
        drop(guard);
        if keeps || mutation::is(Mutation::AcknowledgeBeforeBarrier) {
            return Ok(());
        }
        match self.reach(&round) {
            Err(error @ (Error::InDoubt { .. } | Error::Poisoned { .. } | Error::Closed)) => {
                Err(error)
            }
            // It took place in memory. The next operation is refused before it does.
            Err(_) if explicit && !mutation::is(Mutation::DropReturned) => Ok(()),
            reached => reached,
        }
    }

    /// With explicit durability: makes durable what takes more memory than it may, before anything
    /// is added to it.
    fn make_room(&self) -> Result<()> {
        let guard = self.lock();
        if !self.is_explicit() || guard.open.weight <= self.options.buffer_size {
            return Ok(());
        }
        self.reach_all(guard)
    }

    /// Waits until the round is durable; leads if no other thread does.
    fn reach(&self, round: &Round) -> Result<()> {
        loop {
            match self.gate.wait(round.number.0) {
                Turn::Covered => return round.result(),
                Turn::Lead(lead) => self.lead(lead),
                Turn::Ended => {
                    round.result()?;
                    return Err(self.lock().check().err().unwrap_or(Error::Closed));
                }
            }
        }
    }

    /// Makes all operations durable that were applied.
    pub(crate) fn sync(&self) -> Result<()> {
        self.check_process()?;
        let guard = self.lock();
        guard.check()?;
        self.reach_all(guard)
    }

    /// Waits, unless durability is explicit, until everything is durable that a result depends on.
    /// Otherwise: 1. thread A's change makes thread B's comparison fail, 2. B returns "not equal"
    /// while A's change is in memory, 3. power fails: B has reported a change that never was (L09).
    pub(crate) fn confirm(&self, guard: Guard<'_>) -> Result<()> {
        if self.is_explicit() || mutation::is(Mutation::AnswerFromMemory) {
            return Ok(());
        }
        self.reach_all(guard)
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

    /// Makes the open round durable, for all threads that wait for it.
    fn lead(&self, lead: Lead<'_>) {
        lead.gather(|| self.arrived.load(Ordering::Relaxed));
        let mut guard = self.lock();
        if guard.open.is_empty() || guard.check_stopped().is_err() {
            return;
        }
        self.arrived.store(0, Ordering::Relaxed);
        let holes = guard.holes;
        let (delta, round) = guard.take_off();
        drop(guard);

        let unwinding = Unwinding { core: self };
        let base = self.durable().clone();
        let mut disk = self.disk();
        // Before anything is written: once the file is back under its name, all goes on.
        let found = self.home.as_ref().map_or(Ok(()), Home::expect_file);
        let result = match found {
            Ok(()) => disk.commit(&base, &delta, holes),
            Err(displaced) => Err(Stop::Refused(displaced)),
        };
        lead.took(disk.barrier_took);
        drop(disk);
        drop(delta);
        std::mem::forget(unwinding);
        match result {
            Ok(carried) => {
                self.publish(carried);
                let guard = self.lock();
                let early = !guard.open.is_empty() && mutation::is(Mutation::CoverOpenRound);
                let covered = if early { guard.round.number } else { round.number };
                drop(guard);
                lead.cover(covered.next().0);
            }
            Err(Stop::Refused(error)) => lead.cover(self.refuse(&error).0),
            Err(Stop::Halted { failure, in_doubt }) => self.halt(failure, in_doubt),
        }
    }

    /// Publishes the round in flight, which is durable: readers see it from here on.
    fn publish(&self, carried: Option<Overlay>) {
        let mut guard = self.lock();
        let Some((delta, _)) = guard.flying.take() else { return };
        let len = delta.len();
        let delta = Arc::into_inner(delta).expect("the leader dropped its own before");
        let in_place = Arc::new(carried.unwrap_or_else(|| delta.into_in_place()));
        let mut durable = self.durable_mut();
        let before = std::mem::replace(&mut *durable, Durable { len, in_place });
        drop(durable);
        drop(guard);
        drop(before);
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// Refuses the round in flight, and the open round on top of it; with explicit durability it
    /// stays pending. Returns the number of the round that is open now.
    fn refuse(&self, error: &Error) -> RoundNumber {
        let mut guard = self.lock();
        if self.is_explicit() && !mutation::is(Mutation::DropReturned) {
            return guard.keep(error);
        }
        let next = guard.refuse(self.durable().len, error);
        self.arrived.store(0, Ordering::Relaxed);
        next
    }

    /// Stops writing for good. The first cause stays.
    fn halt(&self, failure: Failure, in_doubt: bool) {
        let mut guard = self.lock();
        guard.halt(self.durable().len, failure, in_doubt);
        drop(guard);
        // Only now. Otherwise: 1. a thread wakes up, 2. its round has no outcome yet, 3. it returns
        // `Poisoned`, "the call did nothing", for a round in doubt.
        self.gate.end();
        self.freed.notify(usize::MAX);
    }

    /// Closes the stack: makes everything durable, settles it, and cuts the file. The handle is
    /// closed in any case.
    pub(crate) fn close(&self) -> Result<()> {
        self.check_process()?;
        let result = self.wind_up().and_then(|()| match &self.home {
            Some(home) => home.expect_all(),
            None => Ok(()),
        });
        self.let_go();
        result
    }

    /// Ends the handle's hold on the file: others may open it, and no reader looks at it any more.
    pub(crate) fn let_go(&self) {
        // The locks are those of the process that goes on.
        if self.check_process().is_err() {
            return;
        }
        let durable = self.durable_mut();
        self.over.store(true, Ordering::Relaxed);
        drop(durable);
        if let Some(home) = &self.home
            && !mutation::is(Mutation::KeepLock)
        {
            home.unlock();
        }
    }

    fn wind_up(&self) -> Result<()> {
        let mut guard = self.in_turn()?;
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
        let guard = self.lock();
        let flying = guard.flying.as_ref().map_or(0, |(delta, _)| delta.weight);
        let buffered_bytes = guard.open.weight + flying;
        drop(guard);
        Stats {
            buffered_bytes,
            len: self.len(),
            operations: self.operations.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
            barriers: self.medium.barriers.load(Ordering::Relaxed),
            file_len: self.medium.reserved().0,
        }
    }

    pub(crate) fn is_explicit(&self) -> bool {
        self.options.durability == Durability::Explicit
    }
}

/// This thread's turn for a transaction; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct OwnTurn<'a> {
    core: &'a Core,
    over: bool,
}

impl OwnTurn<'_> {
    /// Ends the turn under a lock that the caller holds.
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
