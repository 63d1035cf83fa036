//! A write-ahead log whose acknowledgements survive.
//!
//! Once [`Log::sync_to`], [`Log::commit`] or a [`Ticket`] said `Ok`, no crash, power cut, failed barrier or bit flip takes the record back
//! unnoticed. The format is specified in `docs/format/log.md`; what is believed of disks and systems in `ASSUMPTIONS.md`.
//!
//! Where to look: [`Log`] for the API, `commit` for group commit, `recovery` and `tail` for opening, `format` for the bytes.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

use cairn_io::sync;

mod ahead;
mod commit;
mod error;
mod flush;
mod follow;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod inspect;
mod leading;
mod log;
mod lsn;
mod mutation;
mod options;
mod parallel;
mod prepare;
mod reader;
mod recovery;
mod ring;
mod rotation;
mod segment;
mod single;
mod state;
mod survey;
mod tail;
mod ticket;
mod truncation;
mod walk;
mod window;

pub use cairn_io::ErrorKind;
pub use error::{Corruption, CorruptionKind, Error, Failure, Result};
pub use follow::Follower;
pub use inspect::{Inspection, SegmentInfo, Verification};
pub use log::{Log, Retention};
pub use lsn::{Lsn, Seq, Start};
#[cfg(feature = "mutations")]
#[doc(hidden)]
pub use mutation::Mutation;
pub use options::{EndState, OpenReport, Options, Stats};
pub use reader::{Reader, Record, RecordRef};
pub use ticket::Ticket;
