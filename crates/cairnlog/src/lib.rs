//! Durable logs in files: the paved path to Cairn.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! use cairnlog::{Log, Lsn};
//!
//! let log = Log::open(dir.path().join("log"))?;
//! let lsn = log.commit(b"paid 42 to Ada")?; // returns once no crash can take it back
//! for record in log.reader(Lsn::START)? {
//!     assert_eq!(record?.payload(), b"paid 42 to Ada");
//! }
//! assert!(log.durable_lsn() > lsn);
//! log.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Log`] keeps records in a directory or on any [`Store`](io::Store); [`Inspection`] looks at a log without opening it; [`stack`] is a byte stack in one
//! file, with atomic transactions; [`io`] holds the stores and the file system seam.

/// Stores, the file system seam, atomic file replacement: the foundation, for those who bring a medium of their own.
pub use cairn_io as io;
pub use cairn_log::{
    Corruption, CorruptionKind, EndState, Error, ErrorKind, Failure, Follower, Inspection, Log, Lsn, OpenReport,
    Options, Reader, Record, RecordRef, Result, Retention, SegmentInfo, Seq, Start, Stats, Ticket, Verification,
};

/// A byte stack in one file: every operation and every transaction atomic and durable, with one barrier.
pub use cairn_stack as stack;

/// The examples of the README, so that they compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
