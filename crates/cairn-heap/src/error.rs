//! Errors, one for each thing that the caller can do about it.

use cairn_stack::ErrorKind;

use crate::identity::PolicyId;

/// Result of an operation on a heap.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the heap. The failed call has changed nothing, unless the error is the stack's
/// [`InDoubt`](cairn_stack::Error::InDoubt).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of the stack.
    #[error(transparent)]
    Stack(#[from] cairn_stack::Error),
    /// The stack is not empty, and does not hold a heap. Nothing was changed.
    #[error("the stack of {len} bytes holds no Cairn heap; nothing was changed")]
    NotAHeap {
        /// Length of the stack, in bytes.
        len: u64,
    },
    /// A newer version of this library created the heap. Use that version. Nothing was changed.
    #[error(
        "the heap has format version {found}, this program reads up to {supported}; nothing was \
         changed"
    )]
    UnsupportedVersion {
        /// Format version in the file.
        found: u32,
        /// Newest format version that this library reads.
        supported: u32,
    },
    /// The heap was created with another policy. Open it with that policy. Nothing was changed.
    #[error(
        "the heap was created with another policy ({found}, not {expected}); nothing was changed"
    )]
    OtherPolicy {
        /// The policy in the file.
        found: PolicyId,
        /// The policy that the caller passed.
        expected: PolicyId,
    },
    /// [`attach`](crate::Heap::attach) opened a heap whose policy is not one of Cairn's. Allocating
    /// and reallocating need that policy: pass it to [`open`](crate::Heap::open). All other
    /// operations work without it. Nothing was changed.
    #[error(
        "allocating takes the policy that the heap was created with ({found}); nothing was changed"
    )]
    UnknownPolicy {
        /// The policy in the file.
        found: PolicyId,
    },
    /// The heap's [policy](crate::Policy) returned a wrong answer. Fix the policy; the heap is
    /// sound. Nothing was changed.
    #[error("the heap's policy is wrong: {fault}; nothing was changed")]
    Policy {
        /// The fault in the answer.
        fault: PolicyFault,
    },
    /// The heap's metadata are damaged. [`check`](crate::check()) lists all damage. Nothing was
    /// changed.
    #[error("the heap is damaged at offset {offset} of its stack: {what}; nothing was changed")]
    Corrupt {
        /// Offset of the damage in the stack, in bytes.
        offset: u64,
        /// The damage, in words.
        what: &'static str,
    },
    /// The stack holds bytes behind the heap's last block; another program wrote them. The header
    /// accounts for every block before them. To open the heap, remove them with
    /// [`Stack::discard`](cairn_stack::Stack::discard) or `cairn stack pop`. Nothing was changed.
    #[error(
        "the heap ends at offset {offset} of its stack, but {len} stray bytes follow; nothing was \
         changed"
    )]
    StrayBytes {
        /// Offset of the first stray byte in the stack.
        offset: u64,
        /// Number of stray bytes, up to the end of the stack.
        len: u64,
    },
    /// The handle names no live block: the block was freed or reallocated, or the handle belongs to
    /// another heap. Nothing was changed.
    #[error("no live block at offset {start}: {fault}")]
    InvalidBlock {
        /// Offset in the handle, in bytes.
        start: u64,
        /// The reason.
        fault: BlockFault,
    },
    /// The range is reversed, or reaches beyond the block. Nothing was changed.
    #[error("the range from {start} to {end} is not within the block's {len} bytes")]
    OutOfRange {
        /// Start of the range, in bytes.
        start: u64,
        /// End of the range, exclusive.
        end: u64,
        /// Length of the block, or of the part of one, in bytes.
        len: u64,
    },
    /// A heap cannot hold a block of this length. Nothing was changed.
    #[error("a block of {len} bytes is more than a heap can hold ({max})")]
    TooLarge {
        /// Requested length, in bytes.
        len: u64,
        /// Longest length that fits, in bytes.
        max: u64,
    },
    /// The number of a root is too high. Nothing was changed.
    #[error("there is no root {slot}: they are numbered from 0 to {}", count - 1)]
    NoRoot {
        /// Requested root.
        slot: usize,
        /// Number of roots.
        count: usize,
    },
    /// The transaction frees a block that a root still names. Set the root to another block in the
    /// same transaction. Nothing was changed.
    #[error(
        "root {slot} still names the block at offset {start}, which is being freed; nothing was \
         changed"
    )]
    Rooted {
        /// Number of the root.
        slot: usize,
        /// Offset of the block, in bytes.
        start: u64,
    },
    /// The stack is not what the [`RepairPlan`](crate::RepairPlan) was made of. Nothing was
    /// changed: make a new plan.
    #[error("the heap is not as it was when the repair was planned; plan again")]
    Outdated,
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
    /// The offset is outside of the arena.
    #[error("the offset is outside of the arena")]
    OutOfArena,
    /// No block of this heap can start there.
    #[error("no block can start there")]
    Misaligned,
    /// No block header is there. The block was freed and its space joined with a neighbour's, or
    /// there never was a block, or the header is damaged.
    #[error("a block was freed there, or there never was one, or its header is damaged")]
    NoBlock,
    /// The block was freed.
    #[error("the block was freed")]
    Freed,
    /// Another block is there. The handle's block was freed or reallocated, or belongs to another
    /// heap.
    #[error("another block is there")]
    Reused,
}

/// A fault in the answer of a [policy](crate::Policy). Lengths of runs include the header. Offsets
/// are offsets in the heap's stack. All are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFault {
    /// The run is too short for the block, is not a multiple of the granule, is longer than 2^61,
    /// or leaves more than about 4 GiB unused.
    #[error(
        "a run of {run_len} bytes for a block of {len} is too short, far too long, or not a \
         multiple of the granule"
    )]
    RunLength {
        /// Length of the block.
        len: u64,
        /// The policy's answer.
        run_len: u64,
    },
    /// No free run of the length that the policy named is at this offset now. One may have been
    /// there in an earlier call.
    #[error("it named a free run at offset {start}, but no such free run is there")]
    NotFree {
        /// Offset that the policy named.
        start: u64,
    },
    /// The place reaches out of the free run that the policy named.
    #[error("it put {run_len} bytes at offset {start}, which is not within the free run it named")]
    OutOfRun {
        /// Offset of the place.
        start: u64,
        /// Length of the run to place.
        run_len: u64,
    },
    /// A run cannot start at this offset.
    #[error("it put a run at offset {start}, where a run cannot start")]
    Misaligned {
        /// Offset of the place.
        start: u64,
    },
    /// The place leaves too few bytes before it for a free run.
    #[error("it put a run at offset {start}, which leaves too few bytes before it for a free run")]
    Gap {
        /// Offset of the place.
        start: u64,
    },
}

impl Error {
    /// The kind of the error: what the caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Stack(error) => error.kind(),
            Error::NotAHeap { .. }
            | Error::UnsupportedVersion { .. }
            | Error::Corrupt { .. }
            | Error::StrayBytes { .. } => ErrorKind::Repair,
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
