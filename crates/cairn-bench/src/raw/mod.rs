//! Hand-written loops: what is left when recovery, rotation, reading and errors are left out.
//!
//! They show the limit, not an alternative. All of them write frames like ours (twelve bytes of
//! header, CRC-32C of the payload, padded to eight bytes) over and over into one file that was
//! filled with zeros first.

pub(crate) mod alone;
pub(crate) mod block;
pub(crate) mod buffer;
pub(crate) mod condvar;
pub(crate) mod file;
pub(crate) mod frame;
pub(crate) mod futex;
pub(crate) mod scan;
pub(crate) mod stream;
