//! The life of a writer, in one place.
//!
//! ```text
//!   Open <-> Frozen        freeze, rotate; thaw
//!   Open, Frozen -> Closed close, abandon
//!   Closed -> Ended        end_threads
//!   any -> Stopped         stop
//! ```
//!
//! | phase | entered by | what may be trusted while it lasts |
//! |---|---|---|
//! | `Open` | `Core::new`, [`thaw`](Phase::thaw) | appends take places in the open slot; the end of the log moves without the lock |
//! | `Frozen` | [`freeze`](Phase::freeze): truncation, close, rotation | no slot is open and none is opened; the end moves by the leader alone, so positions can be decided |
//! | `Closed` | [`close`](Phase::close) | no record gets a place any more; flushes that were begun still land |
//! | `Ended` | [`end`](Phase::end) | the log's own threads are gone: nothing becomes durable any more unless a caller's thread leads |
//! | `Stopped` | [`stop`](Phase::stop): a failed write or barrier, a panic | nothing at or above [`Stop::syncable`] will ever be acknowledged; no position in doubt is handed out again |
//!
//! `Stopped` is final: `thaw`, `close` and `end` leave it as it is. Otherwise: 1. the seal of a
//! rotation fails, 2. the rotation thaws the log, 3. records get positions at which the failed
//! write may have left bytes.

use cairn_commit::stop::Stop;

use crate::error::{Error, Failure, Result};
use crate::place::SlotNumber;

/// What a writer may do; see the [module](self) for the transitions.
#[derive(Debug, Default)]
pub(crate) enum Phase {
    #[default]
    Open,
    Frozen,
    Closed,
    Ended,
    Stopped {
        stop: Stop<Failure>,
        /// Whether the handle was closed or dropped: the log's own threads are to end.
        abandoned: bool,
    },
}

impl Phase {
    /// Keeps slots closed until [`thaw`](Self::thaw).
    pub(crate) fn freeze(&mut self) {
        if let Phase::Open = self {
            *self = Phase::Frozen;
        }
    }

    pub(crate) fn thaw(&mut self) {
        if let Phase::Frozen = self {
            *self = Phase::Open;
        }
    }

    /// Takes no more appends, and lets the log's own threads end.
    pub(crate) fn close(&mut self) {
        match self {
            Phase::Open | Phase::Frozen => *self = Phase::Closed,
            Phase::Stopped { abandoned, .. } => *abandoned = true,
            Phase::Closed | Phase::Ended => {}
        }
    }

    /// After the log's own threads have ended.
    pub(crate) fn end(&mut self) {
        if let Phase::Closed = self {
            *self = Phase::Ended;
        }
    }

    /// Stops the writer. The first cause stays; of two bounds, the lower one: of several flushes in
    /// flight the later one may have failed first.
    pub(crate) fn stop(&mut self, failure: Failure, syncable: SlotNumber) -> &Stop<Failure> {
        if !matches!(self, Phase::Stopped { .. }) {
            let abandoned = matches!(self, Phase::Closed | Phase::Ended);
            *self = Phase::Stopped { stop: Stop::new(failure, syncable.0), abandoned };
        }
        let Phase::Stopped { stop, .. } = self else { unreachable!("it was set above") };
        stop.lower(syncable.0);
        stop
    }

    /// Why the writer stopped, if it did.
    pub(crate) fn stopped(&self) -> Option<&Stop<Failure>> {
        match self {
            Phase::Stopped { stop, .. } => Some(stop),
            _ => None,
        }
    }

    /// Whether records get places now.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Phase::Open)
    }

    /// Whether records get no places until the log is thawed.
    pub(crate) fn is_frozen(&self) -> bool {
        matches!(self, Phase::Frozen)
    }

    /// Whether the handle was closed or dropped.
    pub(crate) fn is_abandoned(&self) -> bool {
        matches!(self, Phase::Closed | Phase::Ended | Phase::Stopped { abandoned: true, .. })
    }

    /// Whether no record gets a place any more.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Phase::Closed | Phase::Ended | Phase::Stopped { .. })
    }

    /// # Errors
    /// [`Error::Poisoned`] and [`Error::Closed`] when no record gets a place any more.
    pub(crate) fn check_writable(&self) -> Result<()> {
        match self {
            Phase::Open | Phase::Frozen => Ok(()),
            Phase::Closed | Phase::Ended => Err(Error::Closed),
            Phase::Stopped { stop, .. } => Err(Error::Poisoned { cause: stop.cause().clone() }),
        }
    }

    /// Whether nothing more will become durable, for a reader that has all that is.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when the writer stopped.
    pub(crate) fn has_ended(&self) -> Result<bool> {
        match self {
            Phase::Stopped { stop, .. } => Err(Error::Poisoned { cause: stop.cause().clone() }),
            Phase::Ended => Ok(true),
            Phase::Open | Phase::Frozen | Phase::Closed => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [fn(&mut Phase); 5] =
        [Phase::freeze, Phase::thaw, Phase::close, Phase::end, |phase| {
            phase.stop(Failure::Panicked, SlotNumber(3));
        }];

    /// All walks of four steps: `Stopped` is never left, and a closed log is never written to.
    #[test]
    fn no_walk_leads_back_from_stopped_or_closed() {
        for walk in 0..5usize.pow(4) {
            let mut phase = Phase::Open;
            let (mut stopped, mut closed) = (false, false);
            for step in (0..4u32).map(|n| walk / 5usize.pow(n) % 5) {
                STEPS[step](&mut phase);
                (stopped, closed) = (stopped || step == 4, closed || step == 2);
                assert_eq!(phase.stopped().is_some(), stopped, "walk {walk}");
                assert_eq!(phase.is_over(), stopped || closed, "walk {walk}");
                assert_eq!(phase.is_abandoned(), closed, "walk {walk}");
                assert_eq!(phase.check_writable().is_ok(), !stopped && !closed, "walk {walk}");
            }
        }
    }

    #[test]
    fn the_first_cause_stays_and_the_lower_bound_holds() {
        let mut phase = Phase::Frozen;
        phase.stop(Failure::Panicked, SlotNumber(7));
        let stop = phase.stop(Failure::Panicked, SlotNumber(5));
        assert_eq!(stop.syncable(), 5);
        phase.thaw();
        assert!(!phase.is_open());
    }
}
