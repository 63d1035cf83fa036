//! What can go wrong, in the words of what the caller can do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::ErrorKind;
use uuid::Uuid;

use crate::Lsn;

/// Result of a log operation.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the log. Cheap to clone: a failed barrier is told to every waiter.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused. Nothing acknowledged is affected; see the source for what to mend.
    #[error("cannot {op} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// There is no space for what was asked. Nothing was changed: free space and call again.
    #[error("cannot {op} {} for lack of space; nothing was changed: free space and try again", path.display())]
    Full {
        /// What was being done, as a verb.
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// Another handle, in this process or another one, has the log open for writing. Nothing was changed.
    #[error("the log {} is in use by another writer", path.display())]
    Locked {
        /// The log's directory.
        path: PathBuf,
    },
    /// The file bears a segment's name but is not a segment. Nothing was changed: move it away.
    #[error("{} is not a segment of a Cairn log; nothing was changed", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The segment belongs to another log than its neighbours. Nothing was changed: move it away.
    #[error("{} belongs to log {found}, not to {expected}; nothing was changed", path.display())]
    WrongLog {
        /// The file.
        path: PathBuf,
        /// Identity of the log in this directory.
        expected: Uuid,
        /// Identity in the file.
        found: Uuid,
    },
    /// Written by a newer version of this library. Nothing was changed: use that version.
    #[error("{} has format version {found}, this program knows up to {supported}; nothing was changed", path.display())]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Newest version known here.
        supported: u32,
    },
    /// Bytes that had been durable are not what was written. Nothing was changed.
    #[error("{0}")]
    Corrupt(Corruption),
    /// The position is before the first record that still exists, or beyond the end.
    #[error("LSN {lsn} is out of range: the log holds {first} up to {end} (exclusive)")]
    OutOfRange {
        /// What was asked for.
        lsn: Lsn,
        /// Smallest position that can be asked for.
        first: Lsn,
        /// One past the largest.
        end: Lsn,
    },
    /// The record number is before the first record that still exists, or beyond the end.
    #[error("record number {seq} is out of range: the log holds {first} up to {end} (exclusive)")]
    SeqOutOfRange {
        /// What was asked for.
        seq: u64,
        /// Number of the oldest record.
        first: u64,
        /// Number of the next record to be appended.
        end: u64,
    },
    /// The position is inside the log but no record starts (or, for a reader, ends) there. Nothing was changed.
    #[error("no record boundary at LSN {lsn}; the nearest before it is {previous}")]
    NotARecord {
        /// What was asked for.
        lsn: Lsn,
        /// The boundary before it.
        previous: Lsn,
    },
    /// The record, or the batch as a whole, is larger than configured. Nothing was appended.
    #[error("{len} bytes are more than the limit of {max} for one record or batch")]
    TooLarge {
        /// Bytes of the record or batch.
        len: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// The batch holds no record.
    #[error("the batch is empty")]
    EmptyBatch,
    /// An option is outside its range.
    #[error("{option} must be {expected}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// Its range.
        expected: &'static str,
    },
    /// A write or barrier failed while this record was on its way: it may or may not survive. It will never be
    /// acknowledged by this handle; reopen the log to learn what is there, and do not append the record again before that.
    #[error(
        "record at LSN {lsn} is in doubt, durable is everything before {durable}; reopen the log to learn whether it survived"
    )]
    InDoubt {
        /// The record, or the first one of several.
        lsn: Lsn,
        /// The durable watermark, exclusive; it stays there.
        durable: Lsn,
        /// The first failure.
        #[source]
        cause: Arc<Failure>,
    },
    /// An earlier write or barrier failed, and this handle takes no more. What is durable can still be read. Reopen the log.
    #[error("the log stopped writing after a failure; reopen it")]
    Poisoned {
        /// The first failure.
        #[source]
        cause: Arc<Failure>,
    },
    /// What this reader or follower was to return was dropped meanwhile by a truncation.
    #[error("the log was truncated at LSN {lsn} while it was being read")]
    Truncated {
        /// Where the reader stood.
        lsn: Lsn,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// The record has no place before the log has waited for a write. Nothing was appended: call
    /// [`append`](crate::Log::append), which waits, or try again later.
    #[error("the log would have to wait; nothing was appended")]
    WouldBlock,
}

impl Error {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Io { .. } => ErrorKind::System,
            Error::Full { .. } => ErrorKind::Space,
            Error::Locked { .. } | Error::WouldBlock => ErrorKind::Busy,
            Error::Foreign { .. } | Error::WrongLog { .. } | Error::UnsupportedVersion { .. } | Error::Corrupt(_) => {
                ErrorKind::Repair
            }
            Error::OutOfRange { .. }
            | Error::SeqOutOfRange { .. }
            | Error::NotARecord { .. }
            | Error::TooLarge { .. }
            | Error::EmptyBatch
            | Error::InvalidOption { .. } => ErrorKind::Usage,
            Error::InDoubt { .. } | Error::Poisoned { .. } | Error::Closed | Error::Truncated { .. } => {
                ErrorKind::Reopen
            }
        }
    }

    /// Sorts a system error into [`Error::Full`] or [`Error::Io`].
    pub(crate) fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        let full = ErrorKind::of(&source) == ErrorKind::Space;
        let source = Arc::new(source);
        if full { Error::Full { op, path, source } } else { Error::Io { op, path, source } }
    }
}

/// The failure that stopped a writer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The system refused a write, a barrier or a change of the directory.
    #[error("cannot {op} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// A thread panicked in the middle of writing.
    #[error("a thread panicked while it was writing")]
    Panicked,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Io { op, path, source } | Error::Full { op, path, source } => Failure::Io { op, path, source },
            other => Failure::Io { op: "write to", path: PathBuf::new(), source: Arc::new(io::Error::other(other)) },
        }
    }
}

/// Where acknowledged bytes are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Corruption {
    /// The segment, or the segment before a missing one.
    pub path: PathBuf,
    /// Position of the first byte that does not verify.
    pub lsn: Lsn,
    /// The same as an offset in the file, in bytes.
    pub offset: u64,
    /// First position after it from which records verify again; `None` when there is none, or none was looked for.
    pub resumes: Option<Lsn>,
    /// What is wrong there.
    pub kind: CorruptionKind,
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CorruptionKind {
    /// The segment's superblock does not verify.
    Superblock,
    /// A group of records is missing, or its header does not verify.
    Group,
    /// A record, or the padding behind it, does not verify.
    Record,
    /// The index or the trailer of a sealed segment does not verify; its records may be whole.
    Index,
    /// The device cannot read these bytes.
    Unreadable,
    /// A segment is missing, or shorter than its successor says.
    MissingSegment,
    /// The file's name tells another position than its superblock.
    Misnamed,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            CorruptionKind::Superblock => "the superblock is damaged",
            CorruptionKind::Group => "a group of records is damaged or missing",
            CorruptionKind::Record => "a record is damaged",
            CorruptionKind::Index => "the index of a sealed segment is damaged",
            CorruptionKind::Unreadable => "the device cannot read",
            CorruptionKind::MissingSegment => "a segment is missing or cut short",
            CorruptionKind::Misnamed => "the file name does not match the superblock",
        };
        write!(f, "{}: {what} at LSN {} (offset {})", self.path.display(), self.lsn, self.offset)?;
        match self.resumes {
            Some(lsn) => write!(f, ", records verify again from LSN {lsn}"),
            None => Ok(()),
        }
    }
}
