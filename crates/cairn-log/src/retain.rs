//! Dropping what is old, or too much.

use std::time::Duration;

use crate::clock::unix_ns;
use crate::error::{Error, Result};
use crate::format::DATA_OFFSET;
use crate::log::Log;
use crate::place::{Lsn, Place};
use crate::segment::file::SegmentFile;
use crate::writer::age::{Moment, believed};
use crate::writer::state::State;

/// How much of a log to keep, for [`Log::retain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retention {
    /// At most this many bytes of segments, but always the active one. Files that are kept to be
    /// written on come on top; see [`truncate_before`](Log::truncate_before).
    Bytes(u64),
    /// Records younger than this, by the clock when they were written. When that was is known where
    /// segments begin, and for some places between records that this handle wrote; what is not
    /// known is taken for younger, and kept longer. A segment that was begun longer ago than this
    /// is ended, so that a log to which little is written loses its oldest file after all.
    ///
    /// A clock that is wrong for a moment changes little: of times that contradict each other the
    /// fewest are taken for wrong, and it is never later than the clock said at the last write,
    /// plus the time that has passed since. A clock that was wrong at the last write, and still is,
    /// may drop everything else: give a floor ([`AgeAbove`](Retention::AgeAbove)) where that must
    /// not be.
    Age(Duration),
    /// As [`Age`](Retention::Age), and always the newest part of the log, however old it is, and
    /// whatever the clock says.
    AgeAbove {
        /// Records younger than this stay.
        age: Duration,
        /// What stays in any case.
        floor: Floor,
    },
    /// Segments that hold a record at or after this position.
    From(Lsn),
}

/// The newest part of a log, for [`Retention::AgeAbove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Floor {
    /// So many bytes of log, framing included.
    Bytes(u64),
    /// So many records.
    Records(u64),
}

impl Floor {
    /// Whether the log, which ends at `end`, has so much behind `place`.
    fn is_behind(self, place: Place, end: Place) -> bool {
        match self {
            Floor::Bytes(bytes) => end.lsn.saturating_since(place.lsn) >= bytes,
            Floor::Records(records) => end.seq.0.saturating_sub(place.seq.0) >= records,
        }
    }
}

impl Log {
    /// Drops what `keep` does not ask for; returns the new first position. Durable on return. Whole
    /// segments are dropped, and by age what precedes a place inside of the last ones. Any number
    /// of threads may call this; each then sees what all of them dropped.
    ///
    /// # Errors
    /// As [`truncate_before`](Log::truncate_before); by age also as [`rotate`](Log::rotate).
    pub fn retain(&self, keep: Retention) -> Result<Lsn> {
        self.core.check_process()?;
        loop {
            let guard = self.core.lock();
            // Records that a hold kept until now, or that another thread is about to drop.
            let (late, first, end) = (guard.holds.allowed(), guard.head, self.core.end(&guard));
            drop(guard);
            if late > first {
                match self.core.truncate_before(late.lsn) {
                    Err(_) if self.was_truncated_since(first, end) => continue,
                    dropped => dropped?,
                }
            }
            let guard = self.core.lock();
            let (first, end) = (guard.head, self.core.end(&guard));
            let now = unix_ns(&*self.core.options.fs);
            let (head, stale) = Choice::of(&guard, end, now).after(keep);
            drop(guard);
            if stale {
                match self.core.rotate_if_used() {
                    // What can be dropped all the same makes space.
                    Err(Error::Full { .. }) | Ok(()) => {}
                    failed => failed?,
                }
            }
            if head.seq <= first.seq {
                return Ok(self.head_lsn());
            }
            match self.reader(head.seq).and_then(|at| self.core.truncate_before(at.place().lsn)) {
                Err(_) if self.was_truncated_since(first, end) => {}
                dropped => return dropped.map(|()| self.head_lsn()),
            }
        }
    }

    /// Whether another thread dropped records at either end of a log that reached from `first` to
    /// `end`.
    fn was_truncated_since(&self, first: Place, end: Place) -> bool {
        let guard = self.core.lock();
        guard.head != first || self.core.end(&guard) < end
    }
}

/// What there is to choose from when something is to be dropped.
pub(crate) struct Choice<'a> {
    /// The active one included.
    pub(crate) segments: Vec<&'a SegmentFile>,
    pub(crate) head: Place,
    pub(crate) end: Place,
    /// Other moments than the beginnings of segments.
    pub(crate) moments: Vec<Moment>,
    pub(crate) now: u64,
}

impl<'a> Choice<'a> {
    fn of(state: &'a State, end: Place, unix_ns: u64) -> Self {
        Choice {
            segments: state.segments.iter().collect(),
            head: state.head,
            end,
            moments: state.moments.iter().collect(),
            now: state.moments.now(unix_ns),
        }
    }

    /// Where the log starts when `keep` is kept, and whether the active segment has to end for it.
    pub(crate) fn after(&self, keep: Retention) -> (Place, bool) {
        match keep {
            Retention::Bytes(max) => (self.after_surplus(max), false),
            Retention::From(lsn) => (self.last_base(|base| base.lsn <= lsn), false),
            Retention::Age(age) => self.after_old(age, Floor::Records(0)),
            Retention::AgeAbove { age, floor } => self.after_old(age, floor),
        }
    }

    /// Behind what is older than `age`, and whether the active segment was begun before that.
    ///
    /// The head moves inside of a segment only when one is ended by its age, and to the base of one
    /// otherwise: each move costs a barrier.
    fn after_old(&self, age: Duration, floor: Floor) -> (Place, bool) {
        let old = |at: &Moment| u128::from(self.now.saturating_sub(at.unix_ns)) > age.as_nanos();
        let begun_at = self.segments.iter().map(|segment| begun(segment));
        let mut all: Vec<Moment> = begun_at.chain(self.moments.iter().copied()).collect();
        all.sort_by_key(|moment| moment.end.seq);
        let all = believed(&all, self.now);
        let droppable = |at: &&Moment| old(at) && floor.is_behind(at.end, self.end);
        let head = all.iter().rev().find(droppable).map_or(self.head, |moment| moment.end);
        let active = self.segments.last().map(|active| begun(active));
        if active.is_some_and(|active| old(&active) && all.contains(&active)) {
            return (head, true);
        }
        (self.last_base(|base| base.seq <= head.seq), false)
    }

    /// Where the first segment starts that is kept, of `max` bytes of segments.
    fn after_surplus(&self, max: u64) -> Place {
        let count = self.segments.len() as u64;
        let surplus = |(i, segment): &(usize, &&SegmentFile)| {
            self.end
                .lsn
                .saturating_since(segment.base().lsn)
                .saturating_add(DATA_OFFSET * (count - *i as u64))
                > max
        };
        let over = self.segments.iter().enumerate().take_while(surplus).count();
        let first = self.segments.get(over).or(self.segments.last());
        first.map_or(self.head, |first| first.base().max(self.head))
    }

    /// Where the last segment starts of which `reached` says yes, as of those before it.
    fn last_base(&self, reached: impl Fn(Place) -> bool) -> Place {
        let bases = self.segments.iter().map(|segment| segment.base());
        bases.take_while(|base| reached(*base)).last().map_or(self.head, |base| base.max(self.head))
    }
}

/// When everything before the segment was written.
fn begun(segment: &SegmentFile) -> Moment {
    Moment { unix_ns: segment.begun_unix_ns, end: segment.base() }
}
