//! Handles.

use std::ops::Range;

use crate::error::{Error, Result};

/// A handle of a block: a plain value. Copying or dropping it does not change the heap.
///
/// The heap verifies a handle at each use. If the block was freed or reallocated, or belongs to
/// another heap, the call fails with [`Error::InvalidBlock`], also if another block occupies its
/// place by then. To keep a handle, store [`to_raw`](Self::to_raw) in another block or in a root.
///
/// If a transaction fails, the handles that it returned are invalid.
///
/// [`EMPTY`](Self::EMPTY) is the block of length 0. It takes no space, is always live, and freeing
/// it does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    start: u64,
    len: u64,
    tag: u64,
}

impl Block {
    /// The block of length 0.
    pub const EMPTY: Block = Block { start: 0, len: 0, tag: 0 };

    pub(crate) fn new(start: u64, len: u64, tag: u64) -> Self {
        Block { start, len, tag }
    }

    /// Offset of its first byte in the heap's stack.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// One past its last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.len
    }

    /// Length in bytes, as requested.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it is the block of length 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn tag(&self) -> u64 {
        self.tag
    }

    /// The handle as an integer, for storing; 0 for the empty block.
    /// [`Heap::block`](crate::Heap::block) rebuilds the handle from it.
    #[must_use]
    pub fn to_raw(&self) -> u128 {
        u128::from(self.tag) << 64 | u128::from(self.start)
    }

    /// Part of the block: a range of its bytes, the end excluded.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn subslice(&self, range: Range<u64>) -> Result<Slice> {
        Slice::from(*self).subslice(range)
    }
}

/// Part of a block; valid as long as the block's handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    block: Block,
    offset: u64,
    len: u64,
}

impl From<Block> for Slice {
    fn from(block: Block) -> Self {
        Slice { block, offset: 0, len: block.len }
    }
}

impl Slice {
    /// The block.
    #[must_use]
    pub fn block(&self) -> Block {
        self.block
    }

    /// Offset of its first byte in the block.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Part of this part; the range is relative to its start.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn subslice(&self, range: Range<u64>) -> Result<Slice> {
        if range.start > range.end || range.end > self.len {
            return Err(Error::OutOfRange { start: range.start, end: range.end, len: self.len });
        }
        Ok(Slice {
            block: self.block,
            offset: self.offset + range.start,
            len: range.end - range.start,
        })
    }

    /// The first `len` bytes.
    pub(crate) fn first(&self, len: usize) -> Result<Slice> {
        self.subslice(0..len as u64)
    }

    /// The range of the stack that it covers.
    pub(crate) fn range(&self) -> Range<u64> {
        self.block.start + self.offset..self.block.start + self.offset + self.len
    }
}

/// The tag in a stored handle.
pub(crate) fn tag_of(raw: u128) -> u64 {
    u64::try_from(raw >> 64).expect("the upper half")
}

/// Offset of the block of a stored handle.
pub(crate) fn start_of(raw: u128) -> u64 {
    u64::try_from(raw & u128::from(u64::MAX)).expect("the lower half")
}
