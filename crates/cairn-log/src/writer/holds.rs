//! What is held back from truncation at the beginning.

use std::collections::BTreeMap;

use crate::place::{Lsn, Place, Seq};

/// Places that somebody still needs, and what truncations asked for meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    /// How many hold each place.
    held: BTreeMap<Place, usize>,
    /// Where the log would begin if nothing was held.
    wanted: Place,
    /// A truncation is dropping what precedes this. Between its decision and its end nothing can be
    /// held there. Otherwise: 1. it has decided, 2. somebody holds an older record, and is told
    /// that it stays, 3. it is gone.
    dropping: Seq,
}

impl Holds {
    /// Holds what is at or behind `place`; whether that was possible.
    pub(crate) fn take(&mut self, place: Place) -> bool {
        let possible = place.seq >= self.dropping;
        if possible {
            *self.held.entry(place).or_default() += 1;
        }
        possible
    }

    /// One of those who hold this lets go.
    pub(crate) fn release(&mut self, place: Place) {
        if let Some(count) = self.held.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&place);
            }
        }
    }

    /// Takes note that everything before `place` is to go.
    pub(crate) fn ask(&mut self, place: Place) {
        self.wanted = self.wanted.max(place);
    }

    /// How far what was asked for may go now.
    pub(crate) fn allowed(&self) -> Place {
        self.held.keys().next().map_or(self.wanted, |held| self.wanted.min(*held))
    }

    /// A truncation begins that drops what precedes this record, or has ended there.
    pub(crate) fn drop_before(&mut self, seq: Seq) {
        self.dropping = seq;
    }

    /// The log ends here now.
    pub(crate) fn cut(&mut self, end: Place) {
        self.wanted = self.wanted.min(end);
    }

    /// Bytes of log from `head` on that are there because they are held.
    pub(crate) fn bytes(&self, head: Lsn) -> u64 {
        self.wanted.lsn.saturating_since(head)
    }
}
