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
//! [`Log`] keeps records in a directory or on any [`Store`](io::Store); [`Inspection`] looks at a
//! log without opening it; [`stack`] is a byte stack in one file, with atomic transactions;
//! [`heap`] gives out blocks of such a file; [`io`] holds the stores and the file system seam,
//! [`segmented`] a store of many files; [`commit`] is group commit for a file of one's own.
//!
//! # Errors
//! Each structure has an `Error` of its own, whose `kind()` says what to do about it with one
//! [`ErrorKind`] for all: fix the call, free space, wait, reopen, let a person look, or see what
//! the system said.

/// Group commit for a file of one's own: who leads the next flush, who waits, and a buffer that
/// many threads fill at once.
pub use cairn_commit as commit;
/// Stores, the file system seam, atomic file replacement: the foundation, for those who bring a
/// medium of their own.
pub use cairn_io as io;
pub use cairn_log::{
    CopyReport, Corruption, CorruptionKind, Dissection, Dropped, EndCase, EndState, Error,
    ErrorKind, Failure, Floor, Follower, Gap, GroupPart, HeadState, Hold, Inspection, Kept, Log,
    Lost, Lsn, OpenReport, Options, Part, PartKind, Reader, Record, RecordRef, Recovery, Repair,
    Result, Retention, SegmentHead, SegmentInfo, Seq, Start, Stats, Ticket, Verification, backup,
    restore,
};

/// A store striped over files of one size, for logs and stacks that are to grow without one file
/// that does.
pub use cairn_segmented as segmented;

/// A byte stack in one file: every operation and every transaction atomic and durable, with one
/// barrier.
pub use cairn_stack as stack;

/// Blocks of memory in one file: allocating, freeing, writing and the roots change together, atomic
/// and durable, with one barrier.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("accounts");
/// use cairnlog::heap::{Heap, SizeClass};
/// use cairnlog::stack::Stack;
///
/// let heap = Heap::open(Stack::open(&path)?, SizeClass)?;
/// heap.transaction(|tx| {
///     let name = tx.alloc_with("Ada")?;
///     tx.set_root(0, name) // root 0 leads to a block that is there, or, after a crash, to none
/// })?;
/// heap.close()?;
///
/// let heap = Heap::open(Stack::open(&path)?, SizeClass)?;
/// assert_eq!(heap.read(heap.root(0)?)?, b"Ada");
/// assert!(heap.check()?.is_sound()); // every byte is header, free, or allocated: none is lost
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub use cairn_heap as heap;

/// The examples of the READMEs, so that they compile and run.
#[cfg(doctest)]
mod readmes {
    #[doc = include_str!("../../../README.md")]
    struct Cairn;
    #[doc = include_str!("../README.md")]
    struct Facade;
    #[doc = include_str!("../../cairn-heap/README.md")]
    struct Heap;
    #[doc = include_str!("../../cairn-io/README.md")]
    struct Io;
    #[doc = include_str!("../../cairn-log/README.md")]
    struct Log;
    #[doc = include_str!("../../cairn-stack/README.md")]
    struct Stack;
}
