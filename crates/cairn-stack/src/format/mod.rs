//! The bytes of a stack's file, specified in `docs/format/stack.md`. Bytes in, bytes out: no I/O
//! here.
//!
//! A commit is one [`Header`] and its *body*, a list of [`Entry`]s: the changes that are written in
//! place once the commit is durable, and the checksums of the bytes that it appended.

mod body;
mod header;
mod layout;

pub(crate) use body::{Body, DATA_ALIGN, ENTRY_LEN, Entry, EntryKind, body_checksum, parse};
pub(crate) use header::{FORMAT_VERSION, HOLES, Header, HeaderError};
pub(crate) use layout::{
    BLOCK_LEN, CommitNumber, Epoch, FileOffset, HEADER_LEN, HeaderName, LEN_MAX, PAYLOAD,
    PayloadOffset, SLOT_BODY_MAX, SLOT_LEN, SlotNumber,
};
