//! The layout of the file, and the types of positions and numbers in it.
//!
//! Positions in the file, positions in the payload and numbers of commits are types of their own. A
//! plain `u64` is a number of bytes. In the layers above the file (`overlay`, `delta`, `edit`,
//! `view`) it may also be an offset in the payload: these modules have no other kind of position.

use std::ops::Add;

/// Bytes of a header; the body of its commit follows, unless it is elsewhere.
pub(crate) const HEADER_LEN: usize = 128;
/// Bytes of a slot: a header and the body that fits behind it.
pub(crate) const SLOT_LEN: u64 = 64 << 10;
/// The payload's first byte: behind both slots.
pub(crate) const PAYLOAD: FileOffset = FileOffset(2 * SLOT_LEN);
/// Bytes of the first part of a slot, which its header's checksum covers.
pub(crate) const BLOCK_LEN: usize = 4096;
/// Bytes of the largest body that fits in a slot.
pub(crate) const SLOT_BODY_MAX: u64 = SLOT_LEN - HEADER_LEN as u64;
/// Bytes of the longest stack: no file offset overflows a signed 64-bit number.
pub(crate) const LEN_MAX: u64 = (1 << 62) - 1;

/// A position in the stack's file, in bytes from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileOffset(pub(crate) u64);

impl FileOffset {
    /// `None` for a position that no number can express.
    pub(crate) fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(FileOffset)
    }

    /// The position in the payload; 0 for one in the slots.
    pub(crate) fn in_payload(self) -> PayloadOffset {
        PayloadOffset(self.0.saturating_sub(PAYLOAD.0))
    }
}

impl Add<u64> for FileOffset {
    type Output = Self;

    fn add(self, bytes: u64) -> Self {
        FileOffset(self.0 + bytes)
    }
}

/// A position in the payload, in bytes from the bottom of the stack; a length is the position one
/// past the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PayloadOffset(pub(crate) u64);

impl PayloadOffset {
    pub(crate) fn in_file(self) -> FileOffset {
        PAYLOAD + self.0
    }

    /// Bytes from `start` to here; 0 if `start` is not before.
    pub(crate) fn bytes_from(self, start: PayloadOffset) -> u64 {
        self.0.saturating_sub(start.0)
    }

    /// This position, or the next one at which a block starts.
    pub(crate) fn next_block(self) -> Self {
        PayloadOffset(self.0.next_multiple_of(BLOCK_LEN as u64))
    }

    pub(crate) fn saturating_add(self, bytes: u64) -> Self {
        PayloadOffset(self.0.saturating_add(bytes))
    }
}

impl Add<u64> for PayloadOffset {
    type Output = Self;

    fn add(self, bytes: u64) -> Self {
        PayloadOffset(self.0 + bytes)
    }
}

/// The number of a commit: 0, 1, 2, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CommitNumber(pub(crate) u64);

impl CommitNumber {
    pub(crate) fn next(self) -> Self {
        CommitNumber(self.0 + 1)
    }

    /// The slot that this commit is written to.
    pub(crate) fn slot(self) -> SlotNumber {
        SlotNumber(self.0 % 2)
    }
}

/// Random number of an opening for writing; the headers that it writes carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch(pub(crate) u64);

/// What a header is called by the one after it. Two headers of one stack with the same number have
/// the same name only if they are the same header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeaderName {
    pub(crate) epoch: Epoch,
    /// Its checksum, which covers the name of the header before it, and so all of its history.
    pub(crate) crc: u32,
}

impl HeaderName {
    /// What the first header of a stack has before it.
    pub(crate) const NONE: HeaderName = HeaderName { epoch: Epoch(0), crc: 0 };
}

/// One of the two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotNumber(u64);

impl SlotNumber {
    /// In the order of the file.
    pub(crate) const BOTH: [SlotNumber; 2] = [SlotNumber(0), SlotNumber(1)];

    pub(crate) fn offset(self) -> FileOffset {
        FileOffset(self.0 * SLOT_LEN)
    }

    /// Where a body that fits in the slot begins.
    pub(crate) fn body_offset(self) -> FileOffset {
        self.offset() + HEADER_LEN as u64
    }
}
