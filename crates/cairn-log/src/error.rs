//! What can go wrong, in the words of what the caller can do about it.

use crate::gap::Gap;
use crate::place::{Lsn, Seq};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::ErrorKind;
use uuid::Uuid;

/// Result of a log operation.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the log. Cheap to clone: a failed barrier is told to every waiter.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused. Nothing acknowledged is affected; see the source for what to
    /// mend.
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
    #[error(
        "cannot {op} {} for lack of space; nothing was changed: free space and try again",
        path.display()
    )]
    Full {
        /// What was being done, as a verb.
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// Another handle, in this process or another one, has the log open for writing. Nothing was
    /// changed.
    #[error("the log {} is in use by another writer", path.display())]
    Locked {
        /// The log's directory.
        path: PathBuf,
    },
    /// The log's directory, its lock file or a segment is not under the name any more that it had
    /// when it was opened: it was moved, removed or replaced. A call that was to give a file a name
    /// has changed nothing, and can be repeated once all is back in its place. From
    /// [`close`](crate::Log::close): the log is closed, and everything appended is in the files that
    /// were opened, wherever they are, if they are anywhere.
    #[error(
        "{} was moved, removed or replaced while the log was open; put it back",
        path.display()
    )]
    Displaced {
        /// The directory or file, by the path that it was opened by.
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
    /// Two files are of two histories of this log: a copy of it was written to, and a file of that
    /// one lies among those of this one. Nothing was changed or removed. Move away the file that
    /// does not belong here; if it took another one's place, put that one back.
    #[error(
        "{} and {} are of two histories of one log, which part at LSN {lsn}; nothing was changed",
        path.display(),
        other.display()
    )]
    OtherHistory {
        /// The file that does not follow.
        path: PathBuf,
        /// The file that it does not follow.
        other: PathBuf,
        /// Where what they say of the log differs.
        lsn: Lsn,
    },
    /// The positions or the generations of the log are used up. Nothing was changed: go on in a new
    /// log, whose numbers start where [`create_at`](crate::Options::create_at) says.
    #[error("the log has no more {what}; go on in a new log")]
    Exhausted {
        /// `positions` or `generations`.
        what: &'static str,
    },
    /// Written by another version of this library. Nothing was changed: use that version.
    #[error(
        "{} has format version {found}, this program knows version {supported}; nothing was \
         changed",
        path.display()
    )]
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
    /// Records are lost here, and a repair recorded it. A reader or follower returns this once, in
    /// the place of what is lost, and goes on behind it: it does not end reading.
    #[error("records are lost, as a repair recorded: {0}")]
    Gap(Gap),
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
    /// The position is inside the log but no record starts (or, for a reader, ends) there. Nothing
    /// was changed.
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
    /// The system refused the memory for the buffers of a log, or for the one that a record or
    /// batch larger than a buffer needs. Nothing was changed.
    #[error("cannot allocate {bytes} bytes for {what}; nothing was changed: {remedy}")]
    OutOfMemory {
        /// Bytes that were asked for, in total.
        bytes: u64,
        /// What they were for.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The system refused the memory that a record takes to be read: it is larger than this process
    /// may grow. Nothing is wrong with the log, and nothing was changed: read it in a process that
    /// may use more memory.
    #[error(
        "what is at LSN {lsn} takes {bytes} bytes of memory to be read, which the system \
             refuses; nothing was changed: allow this process more memory"
    )]
    NoMemoryToRead {
        /// Where the record starts.
        lsn: Lsn,
        /// Its length in bytes, framing included.
        bytes: u64,
    },
    /// A write or barrier failed while this record was on its way: it may or may not survive. It
    /// will never be acknowledged by this handle; reopen the log to learn what is there, and do not
    /// append the record again before that.
    #[error(
        "record at LSN {lsn} is in doubt, durable is everything before {durable}; reopen the log \
             to learn whether it survived"
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
    /// An earlier write or barrier failed, and this handle takes no more. What is durable can still
    /// be read. Reopen the log.
    #[error("the log stopped writing after a failure; reopen it")]
    Poisoned {
        /// The first failure.
        #[source]
        cause: Arc<Failure>,
    },
    /// A truncation removed records that this reader or follower has not returned yet, or took
    /// back records that it has returned. Make another one, or [resume](crate::Follower::resume)
    /// the follower.
    #[error("a truncation of the log {dropped} from LSN {lsn} on")]
    Truncated {
        /// For [`Dropped::Unread`] where the reader stood: the end of the last record that it
        /// returned, or where it started. For [`Dropped::Returned`] where the log was cut, a record
        /// boundary below that.
        lsn: Lsn,
        /// Which records are gone.
        dropped: Dropped,
    },
    /// The handle is that of another process, which forked this one. Nothing was changed, and the
    /// other process can go on. Open logs in the process that uses them, after the fork.
    #[error(
        "the log was opened by another process, which forked this one; open it in the process \
             that uses it"
    )]
    Forked,
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
            Error::Io { .. } | Error::NoMemoryToRead { .. } => ErrorKind::System,
            Error::Full { .. } => ErrorKind::Space,
            Error::Locked { .. } | Error::WouldBlock => ErrorKind::Busy,
            Error::Foreign { .. }
            | Error::WrongLog { .. }
            | Error::Displaced { .. }
            | Error::OtherHistory { .. }
            | Error::UnsupportedVersion { .. }
            | Error::Corrupt(_)
            | Error::Gap(_) => ErrorKind::Repair,
            Error::OutOfRange { .. }
            | Error::SeqOutOfRange { .. }
            | Error::NotARecord { .. }
            | Error::TooLarge { .. }
            | Error::EmptyBatch
            | Error::Forked
            | Error::InvalidOption { .. }
            | Error::Exhausted { .. }
            | Error::OutOfMemory { .. } => ErrorKind::Usage,
            Error::InDoubt { .. }
            | Error::Poisoned { .. }
            | Error::Closed
            | Error::Truncated { .. } => ErrorKind::Reopen,
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

/// Which records a truncation took from a reader or follower, for [`Error::Truncated`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dropped {
    /// Records that it has not returned. Those that it has returned are not affected.
    Unread,
    /// Records that it has returned: they are no longer in the log, and other records may have
    /// taken their numbers and positions.
    Returned,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dropped::Unread => "removed records that were not read yet,",
            Dropped::Returned => "took back records that had been read,",
        })
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
            Error::Io { op, path, source } | Error::Full { op, path, source } => {
                Failure::Io { op, path, source }
            }
            other => Failure::Io {
                op: "write to",
                path: PathBuf::new(),
                source: Arc::new(io::Error::other(other)),
            },
        }
    }
}

/// Where acknowledged bytes are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Corruption {
    /// The segment; the directory, if what is damaged is that a segment is missing.
    pub path: PathBuf,
    /// Position of the first byte that does not verify.
    pub lsn: Lsn,
    /// The same as an offset in the file, in bytes.
    pub offset: u64,
    /// First position after it from which records verify again; `None` when there is none, or none
    /// was looked for.
    pub resumes: Option<Lsn>,
    /// What is wrong there.
    pub kind: CorruptionKind,
    /// What is lost with it; `None` where nobody looked.
    pub lost: Option<Lost>,
}

/// What one damage costs: nothing outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// Its first position.
    pub from: Lsn,
    /// One past its last position.
    pub to: Lsn,
    /// How many records it held, if that can be known: none, if what is damaged is an index,
    /// padding or the header of a group.
    pub records: Option<u64>,
    /// Number of the first record that it held, if that can be known.
    pub first_seq: Option<Seq>,
}

impl Lost {
    /// Bytes of the log that it takes, framing included.
    pub fn bytes(&self) -> u64 {
        self.to.saturating_since(self.from)
    }
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CorruptionKind {
    /// The segment's superblock does not verify.
    Superblock,
    /// A group of records is missing, or its header does not verify.
    Group,
    /// A record does not verify.
    Record,
    /// The index or the trailer of a sealed segment does not verify. No record is lost with it.
    Index,
    /// What lies between the records of a group and the next group is not what was written. No
    /// record is lost with it.
    Padding,
    /// The note of a truncation does not verify. No record is lost with it.
    Note,
    /// The device cannot read these bytes.
    Unreadable,
    /// A segment is missing. The path is that of the directory.
    MissingSegment,
    /// A segment is shorter than its successor says.
    ShortSegment,
    /// The file's name tells another position than its superblock.
    Misnamed,
    /// A group of records does not follow the one before it: one of them is of another history of
    /// this log.
    History,
    /// The log ends before the place to which it was known to reach when it was last opened or
    /// closed.
    End,
    /// The file with the state of the log is missing or damaged, or it tells of segments that are
    /// not there.
    State,
    /// The file with the gaps that a repair recorded is damaged.
    GapList,
    /// Records are lost here, and a repair recorded it: see [`Error::Gap`].
    Gap,
}

impl CorruptionKind {
    /// Whether it is met by who reads the segment that it is in.
    pub(crate) fn is_within_a_segment(self) -> bool {
        use CorruptionKind::{Group, Index, Note, Padding, Record, Unreadable};
        matches!(self, Group | Index | Note | Padding | Record | Unreadable)
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            CorruptionKind::Superblock => "the superblock is damaged",
            CorruptionKind::Group => "a group of records is damaged or missing",
            CorruptionKind::Record => "a record is damaged",
            CorruptionKind::Index => "the index of a sealed segment is damaged",
            CorruptionKind::Padding => "the padding between two groups is damaged",
            CorruptionKind::Note => "the note of a truncation is damaged",
            CorruptionKind::Unreadable => "the device cannot read",
            CorruptionKind::MissingSegment => "a segment is missing",
            CorruptionKind::ShortSegment => "the segment is cut short",
            CorruptionKind::Misnamed => "the file name does not match the superblock",
            CorruptionKind::History => "a group of records is of another history of the log",
            CorruptionKind::End => "the log is cut short",
            CorruptionKind::State => "the state of the log is missing or damaged",
            CorruptionKind::GapList => "the list of gaps is damaged",
            CorruptionKind::Gap => "records are lost, as a repair recorded,",
        };
        write!(f, "{}: {what} at LSN {}", self.path.display(), self.lsn)?;
        if self.offset > 0 {
            write!(f, " (offset {})", self.offset)?;
        }
        match self.lost {
            Some(Lost { records: Some(0), .. }) => write!(f, ", no record is lost")?,
            Some(Lost { records: Some(1), first_seq: Some(seq), .. }) => {
                write!(f, ", record {seq} is lost")?;
            }
            Some(Lost { records: Some(count), first_seq: Some(seq), .. }) => {
                write!(f, ", {count} records from number {seq} on are lost")?;
            }
            Some(Lost { records: Some(count), .. }) => write!(f, ", {count} records are lost")?,
            _ => {}
        }
        match self.resumes {
            Some(lsn) => write!(f, ", records verify again from LSN {lsn}"),
            None => Ok(()),
        }
    }
}
