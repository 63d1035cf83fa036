//! Handles.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::heap::Heap;

/// A handle of a live block: a value to be copied at will, that changes nothing when it is dropped.
///
/// Each use checks that the block it was given for still lives: a handle whose block was freed or reallocated, or which is of another
/// heap, is refused with [`Error::InvalidBlock`], whatever lies there now. To keep it, store [`to_raw`](Self::to_raw) in another block or in a root.
///
/// A handle that a transaction gave out names nothing if that did not succeed.
///
/// The block of length 0 is [`EMPTY`](Self::EMPTY): it takes no space, always lives, and freeing it does nothing.
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

    /// Where its first byte is in the heap's stack.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// One past its last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.len
    }

    /// Length in bytes, as it was asked for.
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

    /// The handle as an integer, to be stored; 0 is the empty block.
    #[must_use]
    pub fn to_raw(&self) -> u128 {
        u128::from(self.tag) << 64 | u128::from(self.start)
    }

    /// The handle that was stored. It is the block's that it was made from, or refused.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`]; [`Error::Stack`] when the system cannot read.
    pub fn from_raw(raw: u128, heap: &Heap) -> Result<Self> {
        heap.block(raw)
    }

    /// A part of the block, its end excluded.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn subslice(&self, range: Range<u64>) -> Result<Slice> {
        Slice::from(*self).subslice(range)
    }

    /// As [`Heap::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, heap: &Heap) -> Result<Vec<u8>> {
        heap.read(*self)
    }

    /// As [`Heap::read_into`].
    ///
    /// # Errors
    /// As there.
    pub fn read_into(&self, heap: &Heap, buf: &mut [u8]) -> Result<()> {
        heap.read_into(*self, buf)
    }

    /// As [`Heap::write`]: durable on return.
    ///
    /// # Errors
    /// As there.
    pub fn write(&self, heap: &Heap, bytes: impl AsRef<[u8]>) -> Result<()> {
        heap.write(*self, bytes)
    }

    /// As [`Heap::zero`]: durable on return.
    ///
    /// # Errors
    /// As there.
    pub fn zero(&self, heap: &Heap) -> Result<()> {
        heap.zero(*self)
    }
}

/// A part of a block; valid as long as the block's handle.
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

    /// Where it starts in the block, in bytes.
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

    /// A part of this part; the range counts from its beginning.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn subslice(&self, range: Range<u64>) -> Result<Slice> {
        if range.start > range.end || range.end > self.len {
            return Err(Error::OutOfRange { start: range.start, end: range.end, len: self.len });
        }
        Ok(Slice { block: self.block, offset: self.offset + range.start, len: range.end - range.start })
    }

    /// The first `len` bytes.
    pub(crate) fn first(&self, len: usize) -> Result<Slice> {
        self.subslice(0..len as u64)
    }

    /// Where it is in the stack.
    pub(crate) fn range(&self) -> Range<u64> {
        self.block.start + self.offset..self.block.start + self.offset + self.len
    }
}
