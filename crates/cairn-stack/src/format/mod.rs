//! The bytes of a stack's file, specified in `docs/format/stack.md`. Bytes in, bytes out: no I/O here.
//!
//! A commit is one [`Header`] and its *body*, a list of [`Entry`]s: what is to be written in place once the commit is durable,
//! and checksums of what it appended.

mod body;
mod header;

pub(crate) use body::{Body, DATA_ALIGN, ENTRY_LEN, Entry, EntryKind, body_checksum, parse};
pub(crate) use header::{FORMAT_VERSION, HEADER_LEN, HOLES, Header, HeaderError};

/// Bytes of a slot: a header and the body that fits behind it.
pub(crate) const SLOT_LEN: u64 = 64 << 10;
/// File offset of the payload's first byte: behind both slots.
pub(crate) const PAYLOAD: u64 = 2 * SLOT_LEN;
/// The first part of a slot, which its header's checksum covers.
pub(crate) const BLOCK_LEN: usize = 4096;
/// Largest body that fits in a slot.
pub(crate) const SLOT_BODY_MAX: u64 = SLOT_LEN - HEADER_LEN as u64;
/// A stack is never longer than this, so that no file offset overflows a signed 64-bit number.
pub(crate) const LEN_MAX: u64 = (1 << 62) - 1;

/// File offset of the slot that a commit with this sequence number is written to.
pub(crate) fn slot_offset(sequence: u64) -> u64 {
    (sequence % 2) * SLOT_LEN
}
