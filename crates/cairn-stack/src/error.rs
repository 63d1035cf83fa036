//! What can go wrong, in the words of what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::ErrorKind;

/// Result of an operation on a stack.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the stack. Cheap to clone: one failed barrier is told to everybody who waited for it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused. Nothing was changed; see the source for what to mend, then call again.
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
    /// There is no space for what was asked. Nothing was changed: free space and call again. What frees space in the stack needs none.
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
    /// Another handle, of this process or another one, has the stack open. Nothing was changed.
    #[error("the stack {} is in use by another process or handle", path.display())]
    Locked {
        /// The stack's file.
        path: PathBuf,
    },
    /// The file is not a stack. Nothing was changed.
    #[error("{} is not a Cairn stack; nothing was changed", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
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
    /// Bytes that had been durable are not what was written, or are gone. Nothing was changed.
    #[error("{} is damaged at offset {offset}: {what}; nothing was changed", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The range is reversed, overflows, or is not within the stack. Nothing was changed.
    #[error("the range from {start} to {end} is not within the stack's {len} bytes")]
    OutOfRange {
        /// First byte asked for.
        start: u64,
        /// One past the last; [`u64::MAX`] when it is more than that.
        end: u64,
        /// Length of the stack at that time, in bytes.
        len: u64,
    },
    /// The stack would become longer than any file can be. Nothing was changed.
    #[error("{more} bytes more than {len} are more than a stack can hold ({max})")]
    TooLong {
        /// Length of the stack, in bytes.
        len: u64,
        /// What was to be added, in bytes.
        more: u64,
        /// The largest length, in bytes.
        max: u64,
    },
    /// The two ranges of a comparison have different lengths.
    #[error("{expected} bytes cannot be replaced by {new}: lengths must be equal")]
    UnequalLengths {
        /// Length of what is expected, in bytes.
        expected: u64,
        /// Length of what it is to be replaced by, in bytes.
        new: u64,
    },
    /// The stack itself was written to inside of a transaction's closure, by the same thread. Use the transaction. Nothing was changed by this call.
    #[error("the stack was written to inside of its own transaction: write through the transaction instead")]
    InTransaction,
    /// An option is outside its range.
    #[error("{option} must be {expected}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// Its range.
        expected: &'static str,
    },
    /// A write of the header or a barrier failed: after a reopening the operation is there as a whole, or not at all. Reopen the stack to
    /// learn which; do not repeat it before that.
    #[error("the operation is in doubt; reopen the stack to learn whether it took place")]
    InDoubt {
        /// The first failure.
        #[source]
        cause: Arc<Failure>,
    },
    /// An earlier write or barrier failed, and this handle takes no more: the call did nothing. Reading goes on. Reopen the stack.
    #[error("the stack stopped writing after a failure, and this call did nothing; reopen it")]
    Poisoned {
        /// The first failure.
        #[source]
        cause: Arc<Failure>,
    },
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
            Error::Foreign { .. } | Error::UnsupportedVersion { .. } | Error::Corrupt { .. } => ErrorKind::Repair,
            Error::OutOfRange { .. }
            | Error::TooLong { .. }
            | Error::UnequalLengths { .. }
            | Error::InTransaction
            | Error::InvalidOption { .. } => ErrorKind::Usage,
            Error::InDoubt { .. } | Error::Poisoned { .. } | Error::Closed => ErrorKind::Reopen,
        }
    }

    /// Whether it is certain that the failed call changed nothing, now and after any crash. False for an operation
    /// [in doubt](Error::InDoubt) alone.
    pub fn changed_nothing(&self) -> bool {
        !matches!(self, Error::InDoubt { .. })
    }

    /// Sorts a system error into [`Error::Full`] or [`Error::Io`].
    pub(crate) fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        let full = ErrorKind::of(&source) == ErrorKind::Space;
        let source = Arc::new(source);
        if full { Error::Full { op, path, source } } else { Error::Io { op, path, source } }
    }
}

/// For [`std::io::Write`] and [`std::io::Read`]: wrong arguments are [`InvalidInput`](io::ErrorKind::InvalidInput), a full disk
/// [`StorageFull`](io::ErrorKind::StorageFull); the error itself is the source.
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
    /// A thread panicked in the middle of writing.
    #[error("a thread panicked while it was writing")]
    Panicked,
}
