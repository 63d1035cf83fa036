//! A byte stack in one file: every operation and every transaction is atomic and durable, with one barrier.
//!
//! Once an operation returned `Ok`, no crash and no power cut takes it back, and one that did not return is there as a whole or not
//! at all, whatever subset of the sectors in flight reached the disk. Operations that run at the same time share a barrier; readers never wait for one.
//! The format is specified in `docs/format/stack.md`; what is believed of disks and systems in `ASSUMPTIONS.md`.
//!
//! Where to look: [`Stack`] for the API, [`Inspection`] for a look without opening, `commit` for who writes and who waits, `disk` for what one commit writes, `recovery` for
//! opening, `format` for the bytes.
//!
//! ```
//! use cairn_stack::Stack;
//!
//! # let dir = tempfile::tempdir()?;
//! let stack = Stack::open(dir.path().join("stack"))?;
//! let at = stack.push(b"hello, world")?; // durable from here on
//! stack.transaction(|tx| {
//!     tx.set(at, b"H")?;
//!     tx.discard(5)?;
//!     tx.push(b"World")
//! })?; // all of it, or nothing
//! assert_eq!(stack.get(0..12)?, b"Hello, World");
//! assert_eq!(stack.pop(5)?, b"World");
//! stack.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod commit;
mod delta;
mod disk;
mod edit;
mod error;
mod format;
mod inspect;
mod mutation;
mod open;
mod options;
mod overlay;
mod reader;
mod recovery;
mod stack;
mod sync;
mod transaction;
mod view;

pub use cairn_io::ErrorKind;
pub use error::{Error, Failure, Result};
pub use inspect::{EndState, Inspection};
#[cfg(feature = "mutations")]
#[doc(hidden)]
pub use mutation::Mutation;
pub use options::{Durability, OpenReport, Options, Stats};
pub use reader::StackReader;
pub use stack::Stack;
pub use transaction::Transaction;
