//! How bytes reach the medium.

use std::fmt;

/// How durable writes reach the medium: for reports and for tests, not to be decided upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// They stay in memory.
    Memory,
    /// Through the page cache, then a barrier.
    Buffered,
    /// Past the page cache, each write with its own barrier.
    Direct,
    /// As [`Direct`](Self::Direct), through an io_uring with registered buffers.
    Uring,
    /// Another way, or unknown.
    Other,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Memory => "memory",
            Self::Buffered => "buffered",
            Self::Direct => "direct",
            Self::Uring => "io_uring",
            Self::Other => "other",
        })
    }
}
