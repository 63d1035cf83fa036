//! A byte stack in one file: every operation and every transaction is atomic and durable, with one
//! barrier.
//!
//! Once an operation returned `Ok`, no crash and no power cut takes it back. An operation that did
//! not return took place as a whole or not at all, whatever subset of the sectors in flight reached
//! the disk. Operations that run at the same time share a barrier. Readers never wait for a
//! barrier. `docs/format/stack.md` specifies the format. `ASSUMPTIONS.md` says what the crate
//! assumes of disks and systems.
//!
//! Where to look:
//!
//! | module | holds |
//! |---|---|
//! | [`Stack`] | the API |
//! | [`Inspection`] | reading a stack without opening it |
//! | `stage` | changes that are not durable yet |
//! | `commit` | which thread writes, and which threads wait |
//! | `disk` | what one commit writes, and in which order |
//! | `medium` | the file |
//! | `open`, `recovery` | opening: locks and creation; the table of cases, and what follows |
//! | [`Repair`] | a way out of damage |
//! | `format` | the bytes |
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
mod home;
mod inspect;
mod medium;
mod mutation;
mod open;
mod options;
mod overlay;
mod range;
mod reader;
mod recovery;
mod repair;
mod stack;
mod stage;
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
#[cfg(feature = "mutations")]
#[doc(hidden)]
pub use recovery::{CASES, Case};
pub use repair::{Keep, Repair, RepairHeader, RepairPlan};
pub use stack::Stack;
pub use transaction::Transaction;
