//! What can go wrong beyond a plain [`io::Error`].

use std::io;
use std::path::PathBuf;

use cairn_io::ReplaceError;

/// Why a store could not be opened, with the path that is meant.
///
/// The methods of an open store return [`io::Error`], as [`Store`](cairn_io::Store) says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused. Nothing is wrong with what is stored, as far as was seen.
    #[error("cannot {op} {}", path.display())]
    Io {
        /// What was tried, as a verb phrase: `open`, `sync the directory`.
        op: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },

    /// Another process, or another handle of this one, has the store open. Close that one first.
    #[error("{} is in use by another process or handle", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },

    /// A file has a name of ours but was not written by us, or its first block is gone. It is left
    /// as it is.
    #[error("{} is not a segment of this format, and is left as it is", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },

    /// A segment of another store lies in this store's directory. Move it away.
    #[error(
        "{} belongs to another store ({found:02x?} instead of {expected:02x?})",
        path.display()
    )]
    WrongStore {
        /// The file.
        path: PathBuf,
        /// The identifier in the store's first segment.
        expected: [u8; 16],
        /// The identifier in this file.
        found: [u8; 16],
    },

    /// Written by a version of this format that this program does not know. Use a newer program.
    #[error("{} has format version {found}, and this program knows {supported}", path.display())]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// The version it says.
        found: u32,
        /// The version this program reads and writes.
        supported: u32,
    },

    /// The store was created with another segment size than the one asked for. Open it with
    /// `found`, or without asking.
    #[error("the store in {} has segments of {found} bytes, not {requested}", path.display())]
    SegmentSizeMismatch {
        /// The store's directory.
        path: PathBuf,
        /// The segment size in the options, in bytes.
        requested: u64,
        /// The segment size in the files, in bytes.
        found: u64,
    },

    /// A segment between two others is gone. Bring it back: without it the store does not open.
    #[error("{} is missing between other segments", path.display())]
    MissingSegment {
        /// The file that should exist.
        path: PathBuf,
    },

    /// A segment's first block does not match its checksum, its name or itself.
    #[error("{}: {what} at byte {offset} is corrupt", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// Which field.
        what: &'static str,
    },

    /// A segment has not the length it must have. Bytes that were there are gone, or strange ones
    /// were added.
    #[error("{} has {found} bytes instead of {expected}", path.display())]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// The only length (or, for the last segment, the largest) it can have, in bytes.
        expected: u64,
        /// Its length, in bytes.
        found: u64,
    },

    /// An option is outside its range; the text says which range. Fix the call.
    #[error("{option} must be {range}, not {found}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// The accepted values.
        range: &'static str,
        /// The value given.
        found: u64,
    },
}

impl Error {
    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { op, path, source }
    }
}

impl From<ReplaceError> for Error {
    fn from(e: ReplaceError) -> Self {
        Self::Io { op: e.op, path: e.path, source: e.source }
    }
}
