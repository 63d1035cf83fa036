//! Where one segment of a directory meets the next: the table that tells a joint from a gap.
//!
//! A file may be longer than what its segment holds: space was reserved in it, and the process died
//! before it gave that back. So its length alone does not say that it reaches the next segment.
//! Within a generation a segment follows another only by rotation, and then the seal says it.

use crate::place::Lsn;

/// The file of the first segment against the base of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// It ends before it.
    Shorter,
    /// It ends there.
    Exact,
    /// It ends behind it.
    Longer,
}

impl Length {
    pub(crate) fn of(end: Lsn, next: Lsn) -> Self {
        match end.cmp(&next) {
            std::cmp::Ordering::Less => Length::Shorter,
            std::cmp::Ordering::Equal => Length::Exact,
            std::cmp::Ordering::Greater => Length::Longer,
        }
    }
}

/// How the next segment came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// By rotation: it has the same generation.
    ByRotation,
    /// By a cut, a recovery's or a truncation's: it has a higher generation.
    ByCut,
}

/// What says that the first segment holds groups up to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nothing was read.
    Unread,
    /// A seal ends there.
    Seal,
    /// No seal verifies; the groups before it reach as far.
    Groups,
    /// Nothing: the groups end before.
    Short,
}

/// What was found where two segments meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Joint {
    pub(crate) length: Length,
    pub(crate) made: Made,
    pub(crate) proof: Proof,
}

impl Joint {
    /// Whether the length and the generations leave open what the segment holds.
    pub(crate) fn needs_proof(&self) -> bool {
        self.made == Made::ByRotation && self.length == Length::Longer
    }

    /// Whether the segments join; otherwise something between them is missing.
    pub(crate) fn holds(&self) -> bool {
        match (self.length, self.made, self.proof) {
            (Length::Shorter, _, _) => false,
            (Length::Exact, _, _) => true,
            (Length::Longer, Made::ByCut, _) => true,
            (Length::Longer, Made::ByRotation, Proof::Short) => false,
            (Length::Longer, Made::ByRotation, Proof::Unread | Proof::Seal | Proof::Groups) => true,
        }
    }
}
