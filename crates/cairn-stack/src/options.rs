//! How a stack is opened, and what it tells of itself.

use std::path::Path;
use std::sync::Arc;

use cairn_io::{Fs, NativeFs, Store};

use crate::error::{Error, Result};
use crate::stack::Stack;

/// When an operation is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it returns. Operations that run at the same time share a barrier. Readers see durable bytes only.
    #[default]
    Operation,
    /// When [`Stack::sync`](crate::Stack::sync) returns, or `close`. Until then operations stay in memory (when they are more than
    /// [`Options::buffer_size`], an operation makes them durable by itself), and are read from there. After a crash the
    /// stack is as it was at some earlier moment that a barrier covered, never a mixture.
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

    /// Bytes of space reserved ahead of what is pushed, and filled with zeros little by little, so that a small push need not make the file grow; at most
    /// 1 GiB, 1 MiB unless set. `close` gives it back.
    #[must_use]
    pub fn reserve(mut self, bytes: u64) -> Self {
        self.reserve = bytes;
        self
    }

    /// With [`Durability::Explicit`], bytes of operations kept in memory before one of them makes them durable; 8 MiB unless set.
    #[must_use]
    pub fn buffer_size(mut self, bytes: u64) -> Self {
        self.buffer_size = bytes;
        self
    }

    /// Whether small commits may go past the page cache, each with one write that is its own barrier; yes unless set. Where the file system cannot do
    /// that, they go through it; [`Stack::backend`] tells. What is durable when does not depend on it.
    #[must_use]
    pub fn direct_io(mut self, yes: bool) -> Self {
        self.direct_io = yes;
        self
    }

    /// The file system to use: the real one unless set. Also the source of time and randomness.
    #[must_use]
    pub fn fs(mut self, fs: Arc<dyn Fs>) -> Self {
        self.fs = fs;
        self
    }

    /// Opens the stack in the file `path`, or creates it; see [`Stack::open`].
    ///
    /// # Errors
    /// As [`Stack::open`]; [`Error::InvalidOption`] for an option outside its range.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Stack> {
        self.check()?;
        Stack::open_file(self, path.as_ref())
    }

    /// Opens the stack in `store`, or creates it there; see [`Stack::with_store`].
    ///
    /// # Errors
    /// As [`Stack::with_store`].
    pub fn open_store(self, store: Arc<dyn Store>) -> Result<Stack> {
        self.check()?;
        Stack::open_in_store(self, store)
    }

    fn check(&self) -> Result<()> {
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
    /// Whether there was no stack before.
    pub created: bool,
    /// Whether the newest commit did not arrive as a whole, and was dropped: it had never been acknowledged.
    pub dropped_torn_commit: bool,
    /// Bytes written again, because nothing but the page cache may have had them.
    pub bytes_rewritten: u64,
}

/// Counters of a handle since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Length of the stack, in bytes.
    pub len: u64,
    /// Operations and transactions that changed something, or were refused later.
    pub operations: u64,
    /// Commits: each makes all operations that waited for it durable.
    pub commits: u64,
    /// Barriers, those of opening included.
    pub barriers: u64,
    /// Bytes of the file's payload part that were ever in use since it was opened, reserved space included: its high-water mark.
    pub file_len: u64,
}
