//! A gap, as readers and reports tell it.

use std::fmt;

use crate::format::GapNote;
use crate::place::{Lsn, Seq};

/// A range of positions of which a repair recorded that nothing in it can be read any more.
///
/// Positions and numbers on both sides are those that the records always had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// Where it starts: the end of the last record before it, or a little later.
    pub from: Lsn,
    /// Where the log goes on, exclusive.
    pub to: Lsn,
    /// Number of the first record in it that is lost, or of the next one, if none is.
    pub first_seq: Seq,
    /// Number of the first record behind it.
    pub end_seq: Seq,
    /// Whether the two numbers are those that the records had. Otherwise nothing that is left tells
    /// how many records were lost here, and `end_seq` is the lowest number that the record behind
    /// can have had.
    pub counted: bool,
}

impl Gap {
    pub(crate) fn of(note: &GapNote) -> Self {
        let GapNote { from, to, first_seq, seq, counted, .. } = *note;
        Gap { from, to, first_seq, end_seq: seq, counted }
    }

    /// How many records are lost in it; `None` if nothing tells.
    pub fn records(&self) -> Option<u64> {
        self.counted.then(|| self.end_seq.0.saturating_sub(self.first_seq.0))
    }

    /// Its length in bytes of the log.
    pub fn bytes(&self) -> u64 {
        self.to.saturating_since(self.from)
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LSN {}..{}: {} bytes, ", self.from, self.to, self.bytes())?;
        let last = Seq(self.end_seq.0.saturating_sub(1));
        match self.records() {
            None => write!(f, "an unknown number of records from number {} on", self.first_seq),
            Some(0) => f.write_str("no record"),
            Some(1) => write!(f, "record number {last}"),
            Some(n) => write!(f, "{n} records, numbers {} to {last}", self.first_seq),
        }
    }
}
