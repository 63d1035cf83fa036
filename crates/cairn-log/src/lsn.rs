//! The two ways to name a record: its position and its number.

use std::fmt;

/// The logical byte position at which a record starts: unique, strictly rising, never a file offset.
///
/// Framing takes part in the count, so consecutive records are further apart than their payloads are long, and no
/// record is ever at [`Lsn::START`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before every record. A reader that starts here starts at the oldest record there is.
    pub const START: Lsn = Lsn(0);
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The dense number of a record: 0 for the first one ever appended, one more for each after it. Dropping a prefix renumbers nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a reader starts: at a position or at a record number. Made from an [`Lsn`] or a [`Seq`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first record at this record boundary (where a record starts or ends), or the oldest one for [`Lsn::START`].
    Lsn(Lsn),
    /// The record with this number, which may be the next one to be appended.
    Seq(Seq),
}

impl From<Lsn> for Start {
    fn from(lsn: Lsn) -> Self {
        Start::Lsn(lsn)
    }
}

impl From<Seq> for Start {
    fn from(seq: Seq) -> Self {
        Start::Seq(seq)
    }
}
