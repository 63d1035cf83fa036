//! Where `truncate_after` cut the log while it was open, for followers that look later.

use crate::mutation::{self, Mutation};
use crate::place::Place;

/// Cuts kept apart for followers that have not looked yet. A follower that misses more of them,
/// each at a higher position than the one before, is told of a lower position than necessary.
const KEPT_MAX: usize = 64;

/// The cuts that `truncate_after` made since the log was opened.
///
/// A follower that knows the first *n* cuts asks for the lowest one since. All records below it
/// are still in the log, at the same positions; all that it has returned from there on are gone.
///
/// Invariants:
/// 1. Numbers and places rise strictly from entry to entry. A new cut removes the entries at or
///    above its place: it is lower than they are for every follower. So the first entry behind
///    *n* is the lowest cut since *n*.
/// 2. There are at most [`KEPT_MAX`] entries. One more merges the oldest two, into the later
///    number at the lower place. A follower that knows neither cut is told the same as before. One
///    that knows the first alone is told a place that is too low, also if it has returned nothing
///    above the second. None is told a place too high.
#[derive(Clone, Debug, Default)]
pub(crate) struct CutHistory {
    count: u64,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Number of the cut; the first one has 1.
    number: u64,
    /// Where the log ended after it.
    cut: Place,
}

impl CutHistory {
    /// Number of cuts so far.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Adds a cut after which the log ended at `cut`.
    pub(crate) fn note(&mut self, cut: Place) {
        self.count += 1;
        // Numbers of records tell the order of cuts: they are dense in every history, and both
        // cuts lie in the part that the histories before and after have in common.
        let lower = self.entries.partition_point(|entry| entry.cut.seq < cut.seq);
        self.entries.truncate(lower);
        self.entries.push(Entry { number: self.count, cut });
        if self.entries.len() > KEPT_MAX {
            let lowest = self.entries.remove(0).cut;
            self.entries[0].cut = lowest;
        }
    }

    /// The lowest cut behind the first `known` ones; `None` if there was none since.
    pub(crate) fn lowest_since(&self, known: u64) -> Option<Place> {
        if mutation::is(Mutation::ForgetEarlierCuts) {
            return self.entries.last().filter(|last| last.number > known).map(|last| last.cut);
        }
        let after = self.entries.partition_point(|entry| entry.number <= known);
        self.entries.get(after).map(|entry| entry.cut)
    }
}

#[cfg(all(test, not(any(cairn_loom, cairn_shuttle))))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::place::{Lsn, Seq};

    fn at(seq: u64) -> Place {
        Place { lsn: Lsn(10 * seq), seq: Seq(seq) }
    }

    fn history(cuts: &[u64]) -> CutHistory {
        let mut history = CutHistory::default();
        cuts.iter().for_each(|seq| history.note(at(*seq)));
        history
    }

    #[test]
    fn the_lowest_cut_counts_for_each_follower() {
        let history = history(&[50, 30, 40, 70, 60]);
        let lowest = [30, 30, 40, 60, 60].map(|seq| Some(at(seq)));
        for (known, lowest) in (0..).zip(lowest) {
            assert_eq!(history.lowest_since(known), lowest, "{known} known");
        }
        assert_eq!((history.count(), history.lowest_since(5)), (5, None));
        assert_eq!(CutHistory::default().lowest_since(0), None);
    }

    #[test]
    fn a_log_that_is_cut_higher_and_higher_keeps_few_entries() {
        let cuts: Vec<u64> = (1..1000).collect();
        let history = history(&cuts);
        assert_eq!(history.entries.len(), KEPT_MAX);
        // What is merged is told too low; the last ones are told as they were.
        assert_eq!(history.lowest_since(0), Some(at(1)));
        assert_eq!(history.lowest_since(500), Some(at(1)));
        assert_eq!(history.lowest_since(990), Some(at(991)));
    }

    /// In any order, or each at least as high as the one before.
    fn cuts() -> impl Strategy<Value = Vec<u64>> {
        let any = prop::collection::vec(0u64..90, 0..150);
        let rising = any.clone().prop_map(|mut cuts| {
            cuts.sort_unstable();
            cuts
        });
        (any.clone(), rising, any).prop_map(|parts| [parts.0, parts.1, parts.2].concat())
    }

    proptest! {
        /// Against a list of all cuts.
        #[test]
        fn no_follower_is_told_too_high(cuts in cuts()) {
            let history = history(&cuts);
            prop_assert!(history.entries.len() <= KEPT_MAX);
            let rise = |a: &Entry, b: &Entry| a.number < b.number && a.cut < b.cut;
            prop_assert!(history.entries.is_sorted_by(rise));
            for known in 0..=cuts.len() {
                let told = history.lowest_since(known as u64).map(|cut| cut.seq.0);
                let lowest = cuts[known..].iter().min().copied();
                let merged = cuts.len() > KEPT_MAX
                    && told.is_some_and(|told| lowest.is_some_and(|lowest| told < lowest));
                prop_assert!(
                    told == lowest || merged,
                    "{known} known: {told:?} instead of {lowest:?}"
                );
            }
        }
    }
}
