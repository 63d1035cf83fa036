//! How a stack is opened, what opening found, and what a handle counts.

use std::sync::Arc;

use cairn_io::{Fs, NativeFs};

use crate::error::{Error, Result};

/// When an operation is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it returns. Operations that run at the same time share a barrier. Readers see only
    /// durable bytes.
    #[default]
    Operation,
    /// When [`Stack::sync`](crate::Stack::sync) or [`Stack::close`](crate::Stack::close) returns.
    /// Until then operations are in memory, and readers see them there. If they take more than
    /// [`Options::buffer_size`], the next operation makes them durable before it returns. If that
    /// cannot be done for lack of space, they stay in memory, and further operations fail until it
    /// can. After a crash the stack is in the state of some barrier, never a mixture of states.
    Explicit,
}

/// How a stack is opened. Every option may change between runs.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) durability: Durability,
    pub(crate) reserve: u64,
    pub(crate) buffer_size: u64,
    pub(crate) direct_io: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            fs: Arc::new(NativeFs),
            durability: Durability::Operation,
            reserve: 1 << 20,
            buffer_size: 8 << 20,
            direct_io: true,
        }
    }
}

impl Options {
    /// When an operation is durable: when it returns unless set.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Bytes of space reserved ahead of the top, from 0 to 1 GiB; 1 MiB unless set. The space is
    /// filled with zeros step by step, so that most small pushes do not make the file longer.
    /// `close` gives it back.
    #[must_use]
    pub fn reserve(mut self, bytes: u64) -> Self {
        self.reserve = bytes;
        self
    }

    /// With [`Durability::Explicit`], bytes of operations kept in memory; 8 MiB unless set. The
    /// operation that exceeds them makes all of them durable.
    #[must_use]
    pub fn buffer_size(mut self, bytes: u64) -> Self {
        self.buffer_size = bytes;
        self
    }

    /// Whether small commits may go past the page cache, each as one write that is its own barrier;
    /// yes unless set. If the file system cannot do that, small commits go through the page cache;
    /// [`Stack::backend`](crate::Stack::backend) says which way is used. This option does not
    /// change any durability guarantee.
    #[must_use]
    pub fn direct_io(mut self, yes: bool) -> Self {
        self.direct_io = yes;
        self
    }

    /// The file system; the real one unless set. It is also the source of time and randomness.
    #[must_use]
    pub fn fs(mut self, fs: Arc<dyn Fs>) -> Self {
        self.fs = fs;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        match self.reserve {
            0..=0x4000_0000 => Ok(()),
            _ => Err(Error::InvalidOption { option: "reserve", expected: "at most 1 GiB" }),
        }
    }
}

/// What opening a stack found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenReport {
    /// Whether opening created the stack.
    pub created: bool,
    /// Whether opening dropped a commit that a crash had cut off. It was never acknowledged.
    pub dropped_torn_commit: bool,
    /// Bytes that opening wrote again, because only the page cache may have had them.
    pub bytes_rewritten: u64,
}

/// Counters of a handle since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Length of the stack, in bytes.
    pub len: u64,
    /// Operations and transactions that were applied. One may have been refused later, by its
    /// commit.
    pub operations: u64,
    /// Commits. Each makes all operations durable that waited for it.
    pub commits: u64,
    /// Barriers, including those of opening.
    pub barriers: u64,
    /// High-water mark of the payload part of the file since opening, in bytes, including reserved
    /// space.
    pub file_len: u64,
    /// Bytes of changes that are in memory and not durable yet. Between operations none, unless
    /// durability is [explicit](Durability::Explicit): then no more than
    /// [`Options::buffer_size`], while commits succeed.
    pub buffered_bytes: u64,
}
