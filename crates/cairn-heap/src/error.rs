//! What can go wrong, in the words of what the caller can do about it.

use cairn_stack::ErrorKind;

use crate::policy::Policy;

/// Result of an operation on a heap.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the heap. After any but a stack's [`InDoubt`](cairn_stack::Error::InDoubt), the call has changed nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stack below refused.
    #[error(transparent)]
    Stack(#[from] cairn_stack::Error),
    /// The stack holds something, and that is not a heap. Nothing was changed.
    #[error("the stack of {len} bytes holds no Cairn heap; nothing was changed")]
    NotAHeap {
        /// Length of the stack, in bytes.
        len: u64,
    },
    /// Written by a newer version of this library. Nothing was changed: use that version.
    #[error("the heap has format version {found}, this program knows up to {supported}; nothing was changed")]
    UnsupportedVersion {
        /// Version in the file.
        found: u32,
        /// Newest version known here.
        supported: u32,
    },
    /// The heap was created with another policy. Nothing was changed.
    #[error("the heap was created with {found:?}, not {expected:?}; nothing was changed")]
    OtherPolicy {
        /// What the file says.
        found: Policy,
        /// What the caller asked for.
        expected: Policy,
    },
    /// Metadata is not what was written. Nothing was changed; [`check`](crate::Heap::check) lists everything that is wrong.
    #[error("the heap is damaged at offset {offset} of its stack: {what}; nothing was changed")]
    Corrupt {
        /// Where in the stack, in bytes.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The handle names no live block of this heap: it was freed, reallocated, or never was one. Nothing was changed.
    #[error("no live block at offset {start}: {fault}")]
    InvalidBlock {
        /// Where the block would start, in bytes.
        start: u64,
        /// What there is instead.
        fault: BlockFault,
    },
    /// The range is reversed, or not within the block. Nothing was changed.
    #[error("the range from {start} to {end} is not within the block's {len} bytes")]
    OutOfRange {
        /// First byte asked for.
        start: u64,
        /// One past the last.
        end: u64,
        /// Length of the block, or of the part of it, in bytes.
        len: u64,
    },
    /// No heap can hold a block of this length. Nothing was changed.
    #[error("a block of {len} bytes is more than a heap can hold ({max})")]
    TooLarge {
        /// Length asked for, in bytes.
        len: u64,
        /// What fits, at most, in bytes.
        max: u64,
    },
    /// There are fewer roots. Nothing was changed.
    #[error("there is no root {slot}: they are numbered from 0 to {}", count - 1)]
    NoRoot {
        /// What was asked for.
        slot: usize,
        /// How many there are.
        count: usize,
    },
    /// The transaction would have left a root with a block that it frees. Nothing was changed: set the root to another block, too.
    #[error("root {slot} still names the block at offset {start}, which is being freed; nothing was changed")]
    Rooted {
        /// The root.
        slot: usize,
        /// Where the block starts, in bytes.
        start: u64,
    },
    /// An option is outside its range.
    #[error("{option} must be {expected}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// Its range.
        expected: &'static str,
    },
}

/// Why a handle is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum BlockFault {
    /// The offset is not within the arena.
    #[error("that is outside of the arena")]
    OutOfArena,
    /// No block of this heap can start there.
    #[error("no block can start there")]
    Misaligned,
    /// There is no block's header: the block was freed, and became part of another; or there never was one; or its header is damaged.
    #[error("a block was freed there, or never was, or its header is damaged")]
    NoBlock,
    /// The block is free.
    #[error("it is free")]
    Freed,
    /// Another block lives there: the handle's was freed or reallocated, or is of another heap.
    #[error("another block lives there")]
    Reused,
}

impl Error {
    /// What the caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Stack(error) => error.kind(),
            Error::NotAHeap { .. } | Error::UnsupportedVersion { .. } | Error::Corrupt { .. } => ErrorKind::Repair,
            _ => ErrorKind::Usage,
        }
    }

    /// Whether it is certain that the failed call changed nothing, now and after any crash.
    #[must_use]
    pub fn changed_nothing(&self) -> bool {
        match self {
            Error::Stack(error) => error.changed_nothing(),
            _ => true,
        }
    }
}
