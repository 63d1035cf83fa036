//! Errors, named for what the caller can do about them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::ErrorKind;

/// Result of an operation on a stack.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the stack. Cheap to clone: every operation that waited for a failed barrier returns
/// the same cause.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused. Nothing was changed. The source says what to repair; then call
    /// again.
    #[error("cannot {op} {}; nothing was changed", path.display())]
    Io {
        /// What was being done, as a verb.
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// There is not enough space. Nothing was changed: free space and call again. Operations that
    /// shrink the stack need no space.
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
    /// Another handle, of this process or another one, has the stack open. Nothing was changed.
    #[error("the stack {} is in use by another process or handle", path.display())]
    Locked {
        /// The stack's file.
        path: PathBuf,
    },
    /// The stack's file, its directory or the lock beside it is not under the name any more that it
    /// had when it was opened: it was moved, removed or replaced. An operation has changed nothing,
    /// and can be repeated once all is back in its place. From [`close`](crate::Stack::close): the
    /// stack is closed and whole in the file that was opened, wherever that is, if it is anywhere.
    #[error(
        "{} was moved, removed or replaced while the stack was open; put it back",
        path.display()
    )]
    Displaced {
        /// By the path that it was opened by.
        path: PathBuf,
    },
    /// The file is not a stack. Nothing was changed.
    #[error("{} is not a Cairn stack; nothing was changed", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Two headers are of two histories of this stack: a copy of it was written to, and a part of
    /// one of the two lies in the other, or a part is of another time. Nothing was changed. Restore
    /// the file from a copy that is whole, or choose one of the two: see [`Repair`](crate::Repair).
    #[error(
        "{} holds commits {} and {} of two histories of one stack; nothing was changed",
        path.display(),
        commits[0],
        commits[1]
    )]
    OtherHistory {
        /// The file.
        path: PathBuf,
        /// The numbers of the commits in the two headers, the higher one first.
        commits: [u64; 2],
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
        /// The version known here.
        supported: u32,
    },
    /// Durable bytes are damaged or missing. Nothing was changed.
    #[error("{} is damaged at offset {offset}: {what}; nothing was changed", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Position in the file, in bytes.
        offset: u64,
        /// What is wrong there, in the words of the table in `docs/format/stack.md`.
        what: &'static str,
    },
    /// The range is reversed, overflows, or is not within the stack. Nothing was changed.
    #[error("the range {start}..{end} is not within the stack, which holds {len} bytes")]
    OutOfRange {
        /// First byte of the range.
        start: u64,
        /// One past its last byte; [`u64::MAX`] if it is more than that.
        end: u64,
        /// Length of the stack at that time, in bytes.
        len: u64,
    },
    /// The stack holds fewer bytes than were to be taken off. Nothing was changed.
    #[error("cannot {op} {bytes} bytes: the stack holds {len}")]
    TooShort {
        /// The operation, as a verb.
        op: &'static str,
        /// Bytes to be taken off.
        bytes: u64,
        /// Length of the stack at that time, in bytes.
        len: u64,
    },
    /// The stack would become longer than a file can be. Nothing was changed.
    #[error("cannot add {more} bytes: the stack holds {len}, and at most {max}")]
    TooLong {
        /// Length of the stack, in bytes.
        len: u64,
        /// Bytes to be added.
        more: u64,
        /// The largest length, in bytes.
        max: u64,
    },
    /// The two ranges of a comparison have different lengths.
    #[error("cannot replace {expected} bytes by {new}: the lengths must be equal")]
    UnequalLengths {
        /// Length of the expected bytes.
        expected: u64,
        /// Length of the bytes to replace them by.
        new: u64,
    },
    /// A transaction's closure wrote to the stack itself, on the same thread. Write through the
    /// transaction. This call changed nothing.
    #[error("the stack cannot be written to inside of its own transaction: write through it")]
    InTransaction,
    /// The file is not what the [`RepairPlan`](crate::RepairPlan) was made of. Nothing was changed:
    /// make a new plan.
    #[error("{} is not as it was when the repair was planned; plan again", path.display())]
    Outdated {
        /// The file.
        path: PathBuf,
    },
    /// An option is outside its range.
    #[error("{option} must be {expected}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// Its range.
        expected: &'static str,
    },
    /// Writing the header failed, or the barrier did: the operation took place as a whole or not at
    /// all. Reopen the stack to learn which. Do not repeat the operation before that.
    #[error("the operation is in doubt; reopen the stack to learn whether it took place")]
    InDoubt {
        /// The first failure.
        #[source]
        cause: Arc<Failure>,
    },
    /// An earlier write or barrier failed, and this handle refuses changes: the call did nothing.
    /// Durable bytes can still be read. Reopen the stack.
    #[error("the stack stopped writing after a failure, and this call did nothing; reopen it")]
    Poisoned {
        /// The first failure.
        #[source]
        cause: Arc<Failure>,
    },
    /// The handle is that of another process, which forked this one. Nothing was changed, and the
    /// other process can go on. Open stacks in the process that uses them, after the fork.
    #[error(
        "the stack was opened by another process, which forked this one; open it in the process \
             that uses it"
    )]
    Forked,
    /// The stack was closed.
    #[error("the stack is closed")]
    Closed,
}

impl Error {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Io { .. } => ErrorKind::System,
            Error::Full { .. } => ErrorKind::Space,
            Error::Locked { .. } => ErrorKind::Busy,
            Error::Foreign { .. }
            | Error::UnsupportedVersion { .. }
            | Error::OtherHistory { .. }
            | Error::Corrupt { .. }
            | Error::Displaced { .. } => ErrorKind::Repair,
            Error::OutOfRange { .. }
            | Error::TooShort { .. }
            | Error::TooLong { .. }
            | Error::UnequalLengths { .. }
            | Error::InTransaction
            | Error::Forked
            | Error::Outdated { .. }
            | Error::InvalidOption { .. } => ErrorKind::Usage,
            Error::InDoubt { .. } | Error::Poisoned { .. } | Error::Closed => ErrorKind::Reopen,
        }
    }

    /// Whether the failed call certainly changed nothing, now and after any crash. False only for
    /// an operation [in doubt](Error::InDoubt).
    pub fn changed_nothing(&self) -> bool {
        !matches!(self, Error::InDoubt { .. })
    }

    /// [`Error::Full`] if the system has no space, otherwise [`Error::Io`].
    pub(crate) fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        let full = ErrorKind::of(&source) == ErrorKind::Space;
        let source = Arc::new(source);
        if full { Error::Full { op, path, source } } else { Error::Io { op, path, source } }
    }
}

/// For [`std::io::Write`] and [`std::io::Read`]. Wrong arguments become
/// [`InvalidInput`](io::ErrorKind::InvalidInput), a full disk becomes
/// [`StorageFull`](io::ErrorKind::StorageFull). The error itself is the source.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match (&error, error.kind()) {
            (Error::Io { source, .. } | Error::Full { source, .. }, _) => source.kind(),
            (_, ErrorKind::Usage) => io::ErrorKind::InvalidInput,
            (_, ErrorKind::Busy) => io::ErrorKind::ResourceBusy,
            (_, ErrorKind::Repair) => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// The failure that stopped a writer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The system refused a write or a barrier.
    #[error("cannot {op} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// A thread panicked while it was writing.
    #[error("a thread panicked while it was writing")]
    Panicked,
}
