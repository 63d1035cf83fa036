//! Following a log: its records as they become durable.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use crate::error::{Dropped, Error, Result};
use crate::mutation::{self, Mutation};
use crate::place::{Lsn, Place, Start};
use crate::read::reader::Reader;
use crate::read::record::{Record, RecordRef};
use crate::sync::{Arc, EventListener, Listener};
use crate::writer::core::Core;
use crate::writer::state::Truncations;

/// Returns the records of a log one after the other, and waits for new ones to become durable. Made
/// by [`Log::follow`](crate::Log::follow).
///
/// A follower returns durable records only, so that no record is applied elsewhere that a crash can
/// still take back (L09). It returns one history without a gap, or says so: what it has returned is
/// what the log holds below its position, until it returns an error.
///
/// Each call looks at the log once. What happened to the log since the last look decides:
///
/// | what happened | what the follower returns |
/// |---|---|
/// | `truncate_after` at or above its position | the next record of the log as it is now |
/// | `truncate_after` below its position | `Truncated`, `Returned`, with the position of the cut |
/// | several cuts | as after the lowest of them alone |
/// | `truncate_before` at or below its position | the next record |
/// | `truncate_before` above its position | `Truncated`, `Unread`, with the follower's position |
/// | both kinds | the cut first, if it lies below the follower's position |
/// | `close`, or the log was dropped | the durable records left, then `None`, at every call |
/// | the writer stopped after a failure | the same, then `Poisoned` in place of `None` |
///
/// The *position* of a follower is the end of the last record that it returned, or where it started
/// or resumed. A position at or above a cut can be used again by another record. The follower
/// compares histories and not positions, so a record of the new history never passes for one of the
/// old.
///
/// An error ends the follower: every later call returns the same error. Two do not:
/// [`Error::Poisoned`], because records can become durable after it, and [`Error::Gap`], which is
/// returned once in the place of records that a repair recorded as lost.
///
/// * After [`Dropped::Returned`] with `lsn`, undo what was applied from `lsn` on, and call
///   [`resume`](Follower::resume). A new follower that starts at `lsn` would not hear of a cut
///   below it that was made in between.
/// * After [`Dropped::Unread`], take the missing records from elsewhere (a snapshot), and make a
///   follower that starts at or above [`Log::head_lsn`](crate::Log::head_lsn).
/// * After any other error, make a follower that starts at the end of the last record returned.
///
/// A follower that misses more than 64 cuts, each higher than the one before, may be told of a
/// lower cut than necessary, also if all that it has returned is still there. It is never told of
/// one too high.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use cairn_log::{Dropped, Error, Log, Lsn};
///
/// let log = Log::open(dir.path().join("log"))?;
/// let first = log.commit(b"first")?;
/// log.commit(b"second")?;
/// let mut copy = Vec::new();
/// let mut follower = log.follow(Lsn::START)?;
/// while let Some(record) = follower.try_next()? {
///     copy.push((record.lsn(), record.payload().to_vec()));
/// }
/// log.truncate_after(first)?;
/// log.commit(b"another second")?;
/// loop {
///     match follower.try_next() {
///         Ok(Some(record)) => copy.push((record.lsn(), record.payload().to_vec())),
///         Ok(None) => break,
///         Err(Error::Truncated { lsn, dropped: Dropped::Returned }) => {
///             copy.retain(|(at, _)| *at < lsn);
///             follower.resume()?;
///         }
///         Err(error) => return Err(error.into()),
///     }
/// }
/// let payloads: Vec<_> = copy.iter().map(|(_, payload)| &payload[..]).collect();
/// assert_eq!(payloads, [&b"first"[..], b"another second"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Follower {
    core: Arc<Core>,
    reader: Reader,
    /// The position of the follower, and the number of the record to be returned next.
    next: Place,
    /// Whether the reader stands elsewhere, or has failed, and has to be made anew.
    adrift: bool,
    /// The truncations that `reader` knows of.
    known: Truncations,
    /// The error that ended the follower.
    ended_by: Option<Error>,
}

/// What a look at the log found.
enum Look {
    /// Everything that is durable can be reached with the reader as it is.
    Same,
    /// More is durable.
    Longer(Reader),
    /// What lies ahead may be in other files.
    Changed(Reader),
}

impl Follower {
    /// Follows from `start`, where `reader` stands, which knows of these truncations.
    pub(crate) fn new(core: Arc<Core>, reader: Reader, start: Start, known: Truncations) -> Self {
        let mut next = reader.place();
        if let Start::Lsn(lsn) = start {
            // The reader may stand behind marks that follow.
            next.lsn = if lsn == Lsn::START { next.lsn } else { lsn };
        }
        let reader = reader.in_place();
        Follower { core, reader, next, adrift: false, known, ended_by: None }
    }

    /// Returns the next record if it is durable already; `None` if there is none yet, or none any
    /// more: on a poisoned log, and on one that was closed or dropped. Reads, and never waits for
    /// the writer.
    ///
    /// # Errors
    /// [`Error::Truncated`] after a truncation, as [`Follower`] says; [`Error::Corrupt`] with the
    /// position when what is there does not verify; [`Error::Io`] when a segment cannot be opened.
    /// The follower is then over: every later call returns the same error. [`Error::Gap`] where a
    /// repair recorded a loss: the next call returns what lies behind it.
    pub fn try_next(&mut self) -> Result<Option<RecordRef<'_>>> {
        if let Some(error) = &self.ended_by {
            return Err(error.clone());
        }
        match self.advance() {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(Error::Gap(gap)) => {
                self.next = Place { lsn: gap.to, seq: gap.end_seq };
                return Err(Error::Gap(gap));
            }
            Err(error) => {
                self.ended_by = Some(error.clone());
                return Err(error);
            }
        }
        let record = self.reader.current();
        if let Some(record) = &record {
            self.next = Place { lsn: record.end_lsn(), seq: record.seq() + 1 };
        }
        Ok(record)
    }

    /// Continues after [`Dropped::Returned`], from the position where the log was cut. Call it when
    /// everything that was returned from there on is undone. A cut below that position since the
    /// error was returned is the next error. Does nothing if the follower has not ended.
    ///
    /// # Errors
    /// The error that ended the follower, if it was another one.
    pub fn resume(&mut self) -> Result<()> {
        match &self.ended_by {
            Some(Error::Truncated { dropped: Dropped::Returned, .. }) | None => {
                self.ended_by = None;
                Ok(())
            }
            Some(error) => Err(error.clone()),
        }
    }

    /// Blocks until the next record is durable and returns it; `None` once the log is closed or
    /// dropped and everything durable was returned.
    ///
    /// # Errors
    /// As [`try_next`](Follower::try_next); [`Error::Poisoned`] when the writer stopped after a
    /// failure and everything durable was returned.
    pub fn next_blocking(&mut self) -> Result<Option<Record>> {
        loop {
            let listener = self.core.progress.listen();
            if let Some(record) = self.try_next()? {
                return record.try_to_record().map(Some);
            }
            if self.is_over()? {
                return Ok(None);
            }
            listener.wait();
        }
    }

    /// Waits, on any async runtime, until the next record is durable and returns it; `None` once
    /// the log is closed or dropped and everything durable was returned. Cancelling loses nothing.
    /// Reading the record itself blocks as file reads do.
    ///
    /// # Errors
    /// As [`next_blocking`](Follower::next_blocking).
    pub async fn next_record(&mut self) -> Result<Option<Record>> {
        let mut listener: Option<EventListener> = None;
        poll_fn(|context| {
            loop {
                let mut registered = listener.take().unwrap_or_else(|| self.core.progress.listen());
                if let Some(record) = self.try_next()? {
                    return Poll::Ready(record.try_to_record().map(Some));
                }
                if self.is_over()? {
                    return Poll::Ready(Ok(None));
                }
                if Pin::new(&mut registered).poll(context).is_pending() {
                    listener = Some(registered);
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Moves the reader onto the next durable record; `false` if there is none.
    ///
    /// A truncation removes files after it has changed the state, so a file can disappear between
    /// the look and the read. An error counts only if no truncation came in between; otherwise the
    /// next look decides what the truncation means for this follower.
    fn advance(&mut self) -> Result<bool> {
        loop {
            let look = self.look()?;
            match self.take_over(look).and_then(|()| self.reader.move_to_next()) {
                Err(_) if self.known != self.core.lock().truncations() => self.adrift = true,
                moved => return moved,
            }
        }
    }

    /// Looks at the log.
    fn look(&mut self) -> Result<Look> {
        let guard = self.core.lock();
        let cut = guard.history.lowest_since(self.known.cuts);
        self.known = guard.truncations();
        self.adrift |= cut.is_some();
        // By number: a mark that no record follows moves the reader, and a cut can remove it.
        if let Some(cut) = cut.filter(|cut| cut.seq < self.next.seq) {
            self.next = cut;
            return Err(Error::Truncated { lsn: cut.lsn, dropped: Dropped::Returned });
        }
        if self.known.head > self.next.seq {
            return Err(Error::Truncated { lsn: self.next.lsn, dropped: Dropped::Unread });
        }
        let flushed = mutation::is(Mutation::FollowFlushed);
        if !self.adrift && !flushed && guard.durable <= self.reader.end_lsn() {
            return Ok(Look::Same);
        }
        let later = self.core.reader_of(&guard).in_place();
        let later = if flushed { later } else { later.durable() };
        Ok(if self.adrift { Look::Changed(later) } else { Look::Longer(later) })
    }

    /// Goes on with what a look found.
    fn take_over(&mut self, look: Look) -> Result<()> {
        let later = match look {
            Look::Same => return Ok(()),
            Look::Longer(later) => match self.reader.extend(later) {
                None => return Ok(()),
                Some(later) => later,
            },
            Look::Changed(later) => later,
        };
        self.reader = later;
        self.reader.seek(Start::Seq(self.next.seq))?;
        self.adrift = false;
        Ok(())
    }

    /// Whether no record will ever come: the log has ended, and everything durable was returned.
    fn is_over(&self) -> Result<bool> {
        let guard = self.core.lock();
        let settled = guard.durable <= self.reader.end_lsn()
            && self.known == guard.truncations()
            && !self.core.gate.is_led()
            && guard.in_air() == 0;
        if settled { guard.phase.has_ended() } else { Ok(false) }
    }
}

#[cfg(all(test, not(any(cairn_loom, cairn_shuttle))))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;
    use crate::log::Log;
    use crate::place::Seq;

    /// A wake-up costs the same however many segments the log has: the follower takes a reference
    /// to the writer's list of segments, and copies none of them.
    #[test]
    fn a_wake_up_copies_no_segment() {
        let sim = Arc::new(cairn_sim::SimFs::new());
        let log = Log::options().segment_size(8 << 10).fs(sim).open("/log").unwrap();
        let mut follower = log.follow(Lsn::START).unwrap();
        let (mut shared, mut rotated) = (0, 0);
        for n in 0..500u64 {
            let before = follower.core.lock().segments.clone();
            log.commit(&[7; 1000]).unwrap();
            assert_eq!(follower.try_next().unwrap().unwrap().seq(), Seq(n));
            let state = follower.core.lock();
            assert!(follower.reader.pieces.is_shared_with(&state.segments), "record {n}");
            // Only a rotation makes another list.
            let rotation = state.segments.len() != before.len();
            assert_eq!(state.segments.is_shared_with(&before), !rotation, "record {n}");
            (shared, rotated) = (shared + u64::from(!rotation), rotated + u64::from(rotation));
        }
        assert!(shared > 300 && rotated > 60, "{shared} wake-ups, {rotated} rotations");
    }
}
