//! A write-ahead log whose acknowledgements survive.
//!
//! Once [`Log::sync_to`], [`Log::commit`] or a [`Ticket`] said `Ok`, no crash, power cut, failed
//! barrier or bit flip takes the record back unnoticed. The format is specified in
//! `docs/format/log.md`; what is believed of disks and systems in `ASSUMPTIONS.md`.
//!
//! Where to look: [`Log`] for the API, `commit` for group commit, `recovery` and `tail` for
//! opening, `format` for the bytes.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

use cairn_io::sync;

mod backup;
mod clock;
mod error;
mod follow;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gap;
mod hold;
mod inspect;
mod layout;
mod log;
mod mutation;
mod open;
mod options;
mod place;
mod read;
mod repair;
mod retain;
mod ring;
mod segment;
mod ticket;
mod writer;

pub use backup::{CopyReport, backup, backup_on, restore, restore_on};
pub use cairn_io::ErrorKind;
pub use error::{Corruption, CorruptionKind, Dropped, Error, Failure, Lost, Result};
pub use follow::Follower;
pub use gap::Gap;
pub use hold::Hold;
pub use inspect::{Inspection, SegmentInfo, Verification};
pub use log::Log;
#[cfg(feature = "mutations")]
#[doc(hidden)]
pub use mutation::Mutation;
pub use open::cases::EndCase;
#[cfg(feature = "mutations")]
#[doc(hidden)]
pub use open::cases::end_cases_met;
pub use options::{EndState, OpenReport, Options, Recovery, Stats};
pub use place::{Lsn, Seq, Start};
pub use read::dissect::{Dissection, GroupPart, HeadState, Part, PartKind, SegmentHead};
pub use read::reader::Reader;
pub use read::record::{Record, RecordRef};
pub use repair::{Kept, Repair};
pub use retain::{Floor, Retention};
pub use ticket::Ticket;
