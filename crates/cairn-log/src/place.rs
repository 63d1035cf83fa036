//! The two ways to name a record: its position and its number.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// The logical byte position at which a record starts: strictly rising, unique until
/// [`truncate_after`](crate::Log::truncate_after) drops it, never a file offset.
///
/// Framing takes part in the count, so consecutive records are further apart than their payloads
/// are long, and no record is ever at [`Lsn::START`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before every record. A reader that starts here starts at the oldest record there is.
    pub const START: Lsn = Lsn(0);
}

impl Lsn {
    /// The position `len` bytes further, or `None` where there are no more positions.
    pub(crate) const fn checked_add(self, len: u64) -> Option<Lsn> {
        match self.0.checked_add(len) {
            Some(lsn) => Some(Lsn(lsn)),
            None => None,
        }
    }

    /// The position `len` bytes further, or the last one.
    pub(crate) const fn saturating_add(self, len: u64) -> Lsn {
        Lsn(self.0.saturating_add(len))
    }

    /// The position `len` bytes before, or `None` where there is none.
    pub(crate) const fn checked_back(self, len: u64) -> Option<Lsn> {
        match self.0.checked_sub(len) {
            Some(lsn) => Some(Lsn(lsn)),
            None => None,
        }
    }

    /// Bytes from `base` to this position; `None` if it lies before.
    pub(crate) const fn checked_since(self, base: Lsn) -> Option<u64> {
        self.0.checked_sub(base.0)
    }

    /// Bytes from `base` to this position; 0 if it lies before.
    pub(crate) const fn saturating_since(self, base: Lsn) -> u64 {
        self.0.saturating_sub(base.0)
    }

    /// Past every position. As an end: the end is to be found.
    pub(crate) const MAX: Lsn = Lsn(u64::MAX);
}

/// The position so many bytes further.
///
/// # Panics
/// As the addition of integers does, on overflow. Positions of a log stay below 2<sup>63</sup>.
impl Add<u64> for Lsn {
    type Output = Lsn;

    fn add(self, len: u64) -> Lsn {
        Lsn(self.0 + len)
    }
}

impl AddAssign<u64> for Lsn {
    fn add_assign(&mut self, len: u64) {
        self.0 += len;
    }
}

/// Bytes from one position to a later one.
///
/// # Panics
/// As the subtraction of integers does, on overflow.
impl Sub for Lsn {
    type Output = u64;

    fn sub(self, base: Lsn) -> u64 {
        self.0 - base.0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The dense number of a record: 0 for the first one ever appended, one more for each after it.
/// Dropping a prefix renumbers nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// The number so many records further.
///
/// # Panics
/// As the addition of integers does, on overflow.
impl Add<u64> for Seq {
    type Output = Seq;

    fn add(self, records: u64) -> Seq {
        Seq(self.0 + records)
    }
}

impl AddAssign<u64> for Seq {
    fn add_assign(&mut self, records: u64) {
        self.0 += records;
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a reader starts: at a position or at a record number. Made from an [`Lsn`] or a [`Seq`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first record at this record boundary (where a record starts or ends), or the oldest one
    /// for [`Lsn::START`].
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

/// The number of a slot of the log buffer, which is the round of the commit gate that makes it
/// durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotNumber(pub(crate) u64);

impl SlotNumber {
    /// Past every slot.
    pub(crate) const MAX: SlotNumber = SlotNumber(u64::MAX);

    /// The slot behind this one; as a bound, this slot included.
    pub(crate) const fn next(self) -> SlotNumber {
        SlotNumber(self.0 + 1)
    }

    /// The slot before this one; as a bound, the last slot below it.
    pub(crate) const fn before(self) -> SlotNumber {
        SlotNumber(self.0.saturating_sub(1))
    }
}

impl AddAssign<u64> for SlotNumber {
    fn add_assign(&mut self, slots: u64) {
        self.0 += slots;
    }
}

impl Add<u64> for SlotNumber {
    type Output = SlotNumber;

    fn add(self, slots: u64) -> SlotNumber {
        SlotNumber(self.0 + slots)
    }
}

/// The random number of one opening that writes. Every group carries it, and every checksum of a
/// frame starts from it: what a copy of the log wrote since it went its own way never passes for
/// what this one did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Epoch(pub(crate) u64);

/// The checksum of a group's header, by which the next group names it. It covers the name of the
/// group before that one, and so everything before it. Zero names the beginning of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Chain(pub(crate) u32);

/// A byte position inside one file or store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileOffset(pub(crate) u64);

impl FileOffset {
    /// The first multiple of `block` at or after this offset.
    pub(crate) const fn next_multiple_of(self, block: u64) -> FileOffset {
        FileOffset(self.0.next_multiple_of(block))
    }

    /// Bytes from `base` to this offset; `None` if it lies before.
    pub(crate) const fn checked_since(self, base: FileOffset) -> Option<u64> {
        self.0.checked_sub(base.0)
    }

    /// Bytes from `base` to this offset; 0 if it lies before.
    pub(crate) const fn saturating_since(self, base: FileOffset) -> u64 {
        self.0.saturating_sub(base.0)
    }

    /// Bytes between the start of the block in which this offset lies and the offset.
    pub(crate) const fn within(self, block: u64) -> u64 {
        self.0 % block
    }
}

impl Add<u64> for FileOffset {
    type Output = FileOffset;

    fn add(self, len: u64) -> FileOffset {
        FileOffset(self.0 + len)
    }
}

impl Sub for FileOffset {
    type Output = u64;

    fn sub(self, base: FileOffset) -> u64 {
        self.0 - base.0
    }
}

/// A place in the log: a record boundary and the number of the first record at or after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) lsn: Lsn,
    pub(crate) seq: Seq,
}

/// A part of a store's segment that a `truncate_after` took out of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Where it starts.
    pub(crate) lsn: Lsn,
    /// Number of the first record in it, and of the first record behind it.
    pub(crate) seq: Seq,
    /// Where the log goes on.
    pub(crate) resumes: Lsn,
}

/// One line of a sparse index: a group starts at `lsn`, and its first record has number
/// `first_seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) first_seq: Seq,
    pub(crate) lsn: Lsn,
}

/// Every n-th group of a segment with the number of its first record, so that a seek reads little.
#[derive(Clone, Debug, Default)]
pub(crate) struct SparseIndex {
    pub(crate) entries: Vec<IndexEntry>,
}

impl SparseIndex {
    /// Bytes of log between two entries, at least.
    const INTERVAL: u64 = 64 << 10;

    /// Notes a group when it is far enough from the last one noted.
    pub(crate) fn note(&mut self, lsn: Lsn, first_seq: Seq) {
        if self.takes(lsn) {
            self.entries.push(IndexEntry { first_seq, lsn });
        }
    }

    /// Whether a group there would be noted.
    pub(crate) fn takes(&self, lsn: Lsn) -> bool {
        self.entries.last().is_none_or(|e| lsn - e.lsn >= Self::INTERVAL)
    }

    /// The last entry at or before a position, of those below `end`.
    pub(crate) fn before_lsn(&self, lsn: Lsn, end: Lsn) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|e| e.lsn <= lsn && e.lsn < end);
        after.checked_sub(1).map(|i| self.entries[i])
    }

    /// The last entry whose first record is at or before a number, of those below `end`.
    pub(crate) fn before_seq(&self, seq: Seq, end: Lsn) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|e| e.first_seq <= seq && e.lsn < end);
        after.checked_sub(1).map(|i| self.entries[i])
    }
}
