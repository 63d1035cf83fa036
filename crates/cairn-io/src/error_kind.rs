//! What a caller can do about an error, in the same words for every structure.

use std::io;

/// What the caller can do about an error of a log, a stack or a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call was wrong: fix the arguments.
    Usage,
    /// Free space, then call again.
    Space,
    /// Another handle or process has it, or it would have to wait: wait, or stop that one.
    Busy,
    /// Drop the handle, and what was made from it, and open it again; what is in doubt is settled
    /// by that.
    Reopen,
    /// The files are damaged, foreign or too new: a person must look.
    Repair,
    /// The system refused: see the source.
    System,
}

impl ErrorKind {
    /// What can be done about what the system said: [`Space`](Self::Space) where it lacks some,
    /// [`System`](Self::System) otherwise.
    pub fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Space,
            _ => Self::System,
        }
    }
}
