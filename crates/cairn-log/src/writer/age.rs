//! How old records are, by a clock that may be wrong.
//!
//! A log knows at certain places when everything before them was written: where segments were
//! begun, and where flushes of this handle ended. What is to be dropped by age is decided by these
//! *moments*, of which some may be wrong: a clock can be a year ahead for a minute, or begin in
//! 1970 at every start.
//!
//! 1. **What lies before is no younger.** So moments rise along the log. Of those that contradict
//!    each other, as few as possible are taken for wrong; of two equally many, those that are
//!    earlier.
//! 2. **What lies ahead of now is wrong**, if now is right.
//! 3. **Now is no later than it can be**: not later than the clock said at the last flush, plus the
//!    time that has passed since by a clock that never jumps. So a clock that is wrong just when
//!    old records are dropped drops none.
//!
//! What is left is a clock that was wrong while the log was written to and is still wrong. Against
//! that helps a [floor](crate::Floor).

use std::collections::VecDeque;

use crate::mutation::{self, Mutation};
use crate::place::Place;
use crate::sync::Stopwatch;

/// Everything before `end` was written by `unix_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) unix_ns: u64,
    pub(crate) end: Place,
}

/// Moments of one handle that are kept at most.
const MOMENTS_MAX: usize = 64;

/// Flushes closer to each other than this are one moment.
const CLOSE_NS: u64 = 1_000_000_000;

/// The moments of one handle, and what its clock said last.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    noted: VecDeque<Moment>,
    seen_unix_ns: u64,
    since: Stopwatch,
}

impl Moments {
    /// Of a log that ends at `end` and is opened at this time.
    pub(crate) fn new(unix_ns: u64) -> Self {
        Moments { noted: VecDeque::new(), seen_unix_ns: unix_ns, since: Stopwatch::start() }
    }

    /// Whether something was written since the last moment.
    pub(crate) fn is_news(&self, end: Place) -> bool {
        self.noted.back().is_none_or(|last| last.end.seq < end.seq)
    }

    /// Takes note that everything before `end` is written.
    pub(crate) fn note(&mut self, unix_ns: u64, end: Place) {
        (self.seen_unix_ns, self.since) = (unix_ns, Stopwatch::start());
        // A moment moves on as long as its flushes are close to the moment before it.
        let close =
            |last: &Moment| unix_ns.checked_sub(last.unix_ns).is_some_and(|ns| ns < CLOSE_NS);
        let before = self.noted.len().checked_sub(2).and_then(|i| self.noted.get(i));
        if before.is_some_and(close) {
            self.noted.pop_back();
        }
        self.noted.push_back(Moment { unix_ns, end });
        if self.noted.len() > MOMENTS_MAX {
            // Every second one goes, and the last one stays.
            let mut odd = self.noted.len().is_multiple_of(2);
            self.noted.retain(|_| {
                odd = !odd;
                odd
            });
        }
    }

    /// Forgets what a cut took back.
    pub(crate) fn cut(&mut self, end: Place) {
        self.noted.retain(|moment| moment.end.seq <= end.seq);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Moment> {
        self.noted.iter().copied()
    }

    /// Now, of which a clock says `unix_ns`, and no later than it can be.
    pub(crate) fn now(&self, unix_ns: u64) -> u64 {
        if mutation::is(Mutation::TrustClock) {
            return unix_ns;
        }
        let passed = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        unix_ns.min(self.seen_unix_ns.saturating_add(passed))
    }
}

/// The moments of `all`, which are in the order of their places, that are taken for right at `now`.
///
/// From the end to the beginning, times must not rise: the longest sequence that does not is looked
/// for, and of several the one with the latest times. `heads[n]` is the latest time with which a
/// sequence of `n + 1` moments can begin.
pub(crate) fn believed(all: &[Moment], now: u64) -> Vec<Moment> {
    if mutation::is(Mutation::TrustEachMoment) {
        return all.to_vec();
    }
    let mut heads: Vec<usize> = Vec::new();
    let mut behind: Vec<Option<usize>> = vec![None; all.len()];
    for (i, moment) in all.iter().enumerate().rev().filter(|(_, moment)| moment.unix_ns <= now) {
        // Sequences that this one can precede are those that begin no earlier than it.
        let len = heads.partition_point(|head| all[*head].unix_ns >= moment.unix_ns);
        behind[i] = len.checked_sub(1).map(|shorter| heads[shorter]);
        match heads.get_mut(len) {
            Some(head) => *head = i,
            None => heads.push(i),
        }
    }
    let first = heads.last().copied();
    std::iter::successors(first, |i| behind[*i]).map(|i| all[i]).collect()
}

#[cfg(all(test, not(any(cairn_loom, cairn_shuttle))))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::place::{Lsn, Seq};

    fn moments(times: &[u64]) -> Vec<Moment> {
        let at = |n: u64| Place { lsn: Lsn(100 * n), seq: Seq(n) };
        (1..).zip(times).map(|(n, unix_ns)| Moment { unix_ns: *unix_ns, end: at(n) }).collect()
    }

    fn times(times: &[u64], now: u64) -> Vec<u64> {
        believed(&moments(times), now).iter().map(|moment| moment.unix_ns).collect()
    }

    #[test]
    fn the_moments_that_contradict_the_fewest_others_are_right() {
        assert_eq!(times(&[1, 2, 2, 3], 9), [1, 2, 2, 3]);
        assert_eq!(times(&[], 9), []);
        // One that was ahead, and one that was behind.
        assert_eq!(times(&[1, 2, 700, 3, 4], 9), [1, 2, 3, 4]);
        assert_eq!(times(&[100, 101, 0, 102], 900), [100, 101, 102]);
        // Ahead of now.
        assert_eq!(times(&[700, 701, 702, 3, 4], 9), [3, 4]);
        // One against one: the later time, by which less is old.
        assert_eq!(times(&[100, 0], 900), [100]);
        // A clock that is behind now tells nothing.
        assert_eq!(times(&[100, 101], 9), []);
    }

    #[test]
    fn a_handle_that_lives_long_keeps_few_moments_and_the_last_one() {
        let mut kept = Moments::new(0);
        for (n, moment) in (1u64..).zip(moments(&[0; 10_000])) {
            assert!(kept.is_news(moment.end));
            kept.note(n * CLOSE_NS * 7, moment.end);
            assert!(!kept.is_news(moment.end));
            assert_eq!(kept.iter().last().map(|last| last.end), Some(moment.end));
        }
        let all: Vec<_> = kept.iter().collect();
        assert!((MOMENTS_MAX / 2..=MOMENTS_MAX).contains(&all.len()), "{}", all.len());
        assert!(all.is_sorted_by(|a, b| a.unix_ns < b.unix_ns && a.end < b.end));
        kept.cut(all[3].end);
        assert_eq!(kept.iter().count(), 4);
    }

    /// Flushes in quick succession are one moment, and never one that is earlier than its records.
    #[test]
    fn a_moment_is_no_earlier_than_what_it_speaks_of() {
        let mut kept = Moments::new(0);
        for (n, moment) in (1u64..).zip(moments(&[0; 1000])) {
            kept.note(n * CLOSE_NS / 100, moment.end);
            let told = kept.iter().find(|at| at.end >= moment.end).unwrap();
            assert!(told.unix_ns >= n * CLOSE_NS / 100);
        }
        assert!(kept.iter().count() < 30, "{}", kept.iter().count());
    }

    #[test]
    fn a_clock_that_jumps_does_not_make_it_later() {
        let mut kept = Moments::new(5);
        let year = 365 * 86_400 * CLOSE_NS;
        assert!(kept.now(year) < 5 + 60 * CLOSE_NS);
        assert_eq!(kept.now(3), 3);
        // But what was written then says when it was.
        kept.note(year, Place { lsn: Lsn(8), seq: Seq(1) });
        assert_eq!(kept.now(year), year);
    }

    proptest! {
        /// Against trying all choices.
        #[test]
        fn as_few_as_possible_are_wrong(all in prop::collection::vec(0u64..12, 0..9),
            now in 0u64..14) {
            let found = times(&all, now);
            prop_assert!(found.is_sorted() && found.iter().all(|at| *at <= now));
            let rises = |mask: &u32| {
                let chosen: Vec<u64> = (0..all.len())
                    .filter(|i| mask >> i & 1 == 1).map(|i| all[i]).collect();
                chosen.is_sorted() && chosen.iter().all(|at| *at <= now)
            };
            let most = (0..1u32 << all.len()).filter(rises).map(u32::count_ones).max().unwrap_or(0);
            prop_assert_eq!(found.len(), most as usize);
        }
    }
}
