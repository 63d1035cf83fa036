//! Changes that no barrier covers yet: those of the open round, and those of the round in flight.

use cairn_io::stop::Latch;

use crate::delta::Delta;
use crate::error::{Error, Failure, Result};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError, thread};

/// The number of a round, as the gate counts them: 0, 1, 2, … since the stack was opened. Commits
/// have numbers of their own: a round that is refused has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoundNumber(pub(crate) u64);

impl RoundNumber {
    pub(crate) fn next(self) -> Self {
        RoundNumber(self.0 + 1)
    }
}

/// How many times rounds were refused or stopped since the stack was opened. Each time, changes
/// that were applied on top of them are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

/// Operations that become durable, or do not, together.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) number: RoundNumber,
    outcome: Mutex<Option<Outcome>>,
}

/// Why a round did not become durable. A round that was not begun before the writer stopped has no
/// outcome: the [stop](Latch) itself says why.
#[derive(Clone, Debug)]
enum Outcome {
    Refused(Error),
    InDoubt(Arc<Failure>),
}

impl Round {
    fn new(number: RoundNumber) -> Arc<Self> {
        Arc::new(Round { number, outcome: Mutex::new(None) })
    }

    fn end(&self, outcome: Outcome) {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(outcome);
    }

    pub(crate) fn result(&self) -> Result<()> {
        match self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            None => Ok(()),
            Some(Outcome::Refused(error)) => Err(error),
            Some(Outcome::InDoubt(cause)) => Err(Error::InDoubt { cause }),
        }
    }
}

/// The changes that are not durable, and whether more may come; under one lock.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) open: Delta,
    pub(crate) round: Arc<Round>,
    pub(crate) flying: Option<(Arc<Delta>, Arc<Round>)>,
    /// Whether the durable state, or one of the rounds, may have a hole.
    pub(crate) holes: bool,
    /// The thread that runs a transaction's closure.
    pub(crate) turn: Option<thread::ThreadId>,
    pub(crate) epoch: Epoch,
    /// Why the last refused round was refused.
    pub(crate) refused: Option<Error>,
    /// Why writing stopped for good. Rounds count as in [`Round::number`].
    stopped: Latch<Failure>,
    pub(crate) closed: bool,
}

pub(crate) type Guard<'a> = MutexGuard<'a, Stage>;

impl Stage {
    /// No changes on top of a durable state of `len` bytes.
    pub(crate) fn new(len: u64, holes: bool) -> Self {
        Stage {
            open: Delta::new(len),
            round: Round::new(RoundNumber(0)),
            flying: None,
            holes,
            turn: None,
            epoch: Epoch(0),
            refused: None,
            stopped: Latch::new(),
            closed: false,
        }
    }

    /// Puts the open round in flight, and opens the next one on top of it.
    pub(crate) fn take_off(&mut self) -> (Arc<Delta>, Arc<Round>) {
        let next = Delta::new(self.open.len());
        let delta = Arc::new(std::mem::replace(&mut self.open, next));
        let following = Round::new(self.round.number.next());
        let round = std::mem::replace(&mut self.round, following);
        self.flying = Some((delta.clone(), round.clone()));
        (delta, round)
    }

    /// Refuses the round in flight, and the open round on top of it. `len` is the length of the
    /// durable state. Returns the number of the round that is open now.
    pub(crate) fn refuse(&mut self, len: u64, error: &Error) -> RoundNumber {
        if let Some((_, round)) = self.flying.take() {
            round.end(Outcome::Refused(error.clone()));
        }
        self.round.end(Outcome::Refused(error.clone()));
        let next = self.round.number.next();
        self.round = Round::new(next);
        self.open = Delta::new(len);
        self.epoch.0 += 1;
        self.refused = Some(error.clone());
        next
    }

    /// Takes the round in flight, which could not be written, back into the open one on top of it:
    /// its operations have returned. Who waits for it is told. Returns the number of the round that
    /// holds them now.
    pub(crate) fn keep(&mut self, error: &Error) -> RoundNumber {
        if let Some((delta, round)) = self.flying.take() {
            round.end(Outcome::Refused(error.clone()));
            let mut delta = Arc::unwrap_or_clone(delta);
            let above = std::mem::replace(&mut self.open, Delta::new(0));
            delta.absorb(above);
            self.open = delta;
        }
        self.round.number
    }

    /// Stops writing for good. `in_doubt` says whether the round in flight may have taken place.
    /// The open round on top of it was never begun. `len` is the length of the durable state.
    pub(crate) fn halt(&mut self, len: u64, failure: Failure, in_doubt: bool) {
        let flying = self.flying.take();
        let first = flying.as_ref().map_or(self.round.number, |(_, round)| round.number);
        let stop = self.stopped.fail(failure, first.0);
        if let Some((_, round)) = flying.filter(|_| in_doubt) {
            round.end(Outcome::InDoubt(stop.cause().clone()));
        }
        self.open = Delta::new(len);
        self.epoch.0 += 1;
    }

    /// Fails if the handle refuses changes.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_stopped()?;
        if self.closed { Err(Error::Closed) } else { Ok(()) }
    }

    /// Fails if writing has stopped.
    pub(crate) fn check_stopped(&self) -> Result<()> {
        match self.stopped.stop() {
            Some(stop) => Err(Error::Poisoned { cause: stop.cause().clone() }),
            None => Ok(()),
        }
    }
}
