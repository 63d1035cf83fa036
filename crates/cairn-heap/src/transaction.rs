//! Transactions: several changes that commit together.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::arena;
use crate::block::{Block, Slice, start_of, tag_of};
use crate::error::{Error, Result};
use crate::header::{Header, NEXT_TAG, ROOTS, USER_AREA_LEN, check_slot};
use crate::identity::PolicyId;
use crate::layout::Geometry;
use crate::mutation::{self, Mutation};
use crate::policy::Policy;
use crate::runs::{self, Runs};

/// What all transactions of an open heap share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) policy_id: PolicyId,
    /// `None` if the heap was opened without it.
    pub(crate) policy: Option<Arc<dyn Policy>>,
    pub(crate) geometry: Geometry,
    /// Lower bound for the next tag, in addition to the file's.
    pub(crate) next_tag: AtomicU64,
}

impl Shared {
    fn policy(&self) -> Result<&dyn Policy> {
        self.policy.as_deref().ok_or(Error::UnknownPolicy { found: self.policy_id })
    }
}

/// Changes of a heap that commit together; see
/// [`Heap::transaction`](crate::Heap::transaction).
///
/// Operations see the transaction's own changes. An operation that is refused changes nothing, and
/// the closure may continue. If the system cannot read, or the heap is damaged, the whole
/// transaction fails.
///
/// The transaction may reuse space that it frees itself. Other transactions may reuse it after the
/// commit. Readers see the freed block until the commit is durable.
#[derive(Debug)]
pub struct Transaction<'a, 's> {
    heap: &'a Shared,
    tx: &'a mut cairn_stack::Transaction<'s>,
    /// The header before and after the transaction; `None` until an operation needs it.
    headers: Option<(Header, Header)>,
    /// Tags of the blocks that this transaction freed or reallocated.
    freed: HashSet<u64>,
    /// The error that stopped an operation halfway. It fails the transaction.
    broken: Option<Error>,
}

impl<'a, 's> Transaction<'a, 's> {
    pub(crate) fn new(heap: &'a Shared, tx: &'a mut cairn_stack::Transaction<'s>) -> Self {
        Transaction { heap, tx, headers: None, freed: HashSet::new(), broken: None }
    }

    /// Reads the header, unless an earlier operation did.
    fn load(&mut self) -> Result<&mut Header> {
        if self.headers.is_none() {
            let mut header = Header::blank();
            self.tx.get_into(0, &mut header.bytes[..])?;
            header.verify()?;
            self.headers = Some((header.clone(), header));
        }
        Ok(&mut self.headers.as_mut().expect("it was just read").1)
    }

    fn header(&mut self) -> Result<&mut Header> {
        match &self.broken {
            Some(error) => Err(error.clone()),
            None => self.load(),
        }
    }

    /// Runs an operation. An error of the system, or damage, breaks the transaction.
    fn operate<T>(&mut self, run: impl FnOnce(&mut Runs<'_, 's>) -> Result<T>) -> Result<T> {
        self.header()?;
        let (_, header) = self.headers.as_mut().expect("it was just read");
        let result = run(&mut Runs { tx: self.tx, header, geometry: self.heap.geometry });
        if let Err(error @ (Error::Stack(_) | Error::Corrupt { .. } | Error::StrayBytes { .. })) =
            &result
        {
            self.broken = Some(error.clone());
        }
        result
    }

    /// A tag that no block ever had. That excludes the blocks of failed transactions, too: the
    /// caller may have kept their handles.
    fn tag(&mut self) -> Result<u64> {
        let stored = self.header()?.next_tag();
        let tag = match mutation::is(Mutation::ForgetRefusedTags) {
            true => stored,
            false => stored.max(self.heap.next_tag.load(Ordering::Relaxed)),
        };
        if mutation::is(Mutation::RepeatTag) && tag > self.heap.geometry.key {
            return Ok(tag - 1);
        }
        let next = tag
            .checked_add(1)
            .ok_or(Error::Corrupt { offset: NEXT_TAG as u64, what: "all tags are used up" })?;
        self.heap.next_tag.store(next, Ordering::Relaxed);
        self.header()?.set_next_tag(next);
        Ok(tag)
    }

    /// Verifies the roots, and writes the header where it changed.
    pub(crate) fn finish(mut self) -> Result<()> {
        if let Some(error) = self.broken.filter(|_| !mutation::is(Mutation::CommitHalf)) {
            return Err(error);
        }
        let Some((before, after)) = &mut self.headers else { return Ok(()) };
        for slot in 0..ROOTS {
            let raw = after.root(slot);
            if raw != 0
                && self.freed.contains(&tag_of(raw))
                && !mutation::is(Mutation::LetRootsDangle)
            {
                return Err(Error::Rooted { slot, start: start_of(raw) });
            }
        }
        if before.bytes == after.bytes {
            return Ok(());
        }
        after.seal();
        for range in after.differences(before) {
            self.tx.set(range.start as u64, &after.bytes[range])?;
        }
        Ok(())
    }

    /// A new block of `len` zeros. The block of length 0 is [`Block::EMPTY`].
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Policy`], [`Error::UnknownPolicy`]; [`Error::Corrupt`],
    /// [`Error::StrayBytes`] and [`Error::Stack`] break the transaction. If the disk is full, the
    /// commit fails, not this call.
    pub fn alloc(&mut self, len: u64) -> Result<Block> {
        self.header()?;
        if len == 0 {
            return Ok(Block::EMPTY);
        }
        let heap = self.heap;
        let policy = heap.policy()?;
        heap.geometry.shortest_run(len)?;
        let tag = self.tag()?;
        self.operate(|runs| arena::alloc(runs, policy, len, tag))
    }

    /// A new block with these bytes.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn alloc_with(&mut self, bytes: impl AsRef<[u8]>) -> Result<Block> {
        let bytes = bytes.as_ref();
        let block = self.alloc(bytes.len() as u64)?;
        if !bytes.is_empty() {
            self.operate(|runs| Ok(runs.tx.set(block.start(), bytes)?))?;
        }
        Ok(block)
    }

    /// Frees a block. A root must not name it when the transaction ends.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`] if the block is not live. Otherwise as
    /// [`alloc`](Self::alloc).
    pub fn dealloc(&mut self, block: Block) -> Result<()> {
        self.header()?;
        if block.is_empty() {
            return Ok(());
        }
        self.operate(|runs| arena::dealloc(runs, block))?;
        self.freed.insert(block.tag());
        Ok(())
    }

    /// Reallocates a block, in place if possible. The new block starts with the old contents, cut
    /// to the new length; bytes beyond them are zeros. The old handle becomes invalid in any case.
    /// Roots that named the old block name the new one.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc) and [`dealloc`](Self::dealloc).
    pub fn realloc(&mut self, block: Block, len: u64) -> Result<Block> {
        let new = if block.is_empty() {
            self.alloc(len)?
        } else if len == 0 {
            self.operate(|runs| arena::dealloc(runs, block))?;
            Block::EMPTY
        } else {
            let (raw, old_len) = (block.to_raw(), Some(block.len()));
            self.operate(|runs| runs.live(raw, old_len).map(drop))?;
            let heap = self.heap;
            let policy = heap.policy()?;
            heap.geometry.shortest_run(len)?;
            let tag = self.tag()?;
            self.operate(|runs| arena::realloc(runs, policy, block, len, tag))?
        };
        if !block.is_empty() {
            self.freed.insert(block.tag());
            let header = self.header()?;
            for slot in 0..ROOTS {
                if header.root(slot) == block.to_raw() && !mutation::is(Mutation::RootsStayBehind) {
                    header.set_root(slot, new.to_raw());
                }
            }
        }
        Ok(new)
    }

    /// Verifies the handle of a slice before it is read or written.
    fn verify(&mut self, slice: Slice) -> Result<()> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let block = slice.block();
        if block.is_empty() {
            return Ok(());
        }
        self.live(block.to_raw(), Some(block.len())).map(drop)
    }

    /// The live block of a stored handle. `len` is its length, if the handle has it.
    fn live(&mut self, raw: u128, len: Option<u64>) -> Result<Block> {
        runs::live(self.tx, self.heap.geometry, raw, len).map(|(_, block)| block)
    }

    /// The bytes of a block, or of a part of one.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`]; [`Error::Stack`] if the system cannot read.
    pub fn read(&mut self, what: impl Into<Slice>) -> Result<Vec<u8>> {
        let slice = what.into();
        self.verify(slice)?;
        if slice.is_empty() { Ok(Vec::new()) } else { Ok(self.tx.get(slice.range())?) }
    }

    /// Fills `buf` from the start of a block, or of a part of one.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`Error::OutOfRange`] if the block or part is shorter.
    pub fn read_into(&mut self, what: impl Into<Slice>, buf: &mut [u8]) -> Result<()> {
        let slice = what.into().first(buf.len())?;
        self.verify(slice)?;
        if slice.is_empty() { Ok(()) } else { Ok(self.tx.get_into(slice.range().start, buf)?) }
    }

    /// Writes bytes to the start of a block, or of a part of one.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`]; [`Error::OutOfRange`] if the block or part is shorter;
    /// [`Error::Stack`] if the system cannot read.
    pub fn write(&mut self, what: impl Into<Slice>, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref();
        let slice = what.into().first(bytes.len())?;
        self.verify(slice)?;
        if slice.is_empty() { Ok(()) } else { Ok(self.tx.set(slice.range().start, bytes)?) }
    }

    /// Writes zeros over a block, or a part of one.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn zero(&mut self, what: impl Into<Slice>) -> Result<()> {
        let slice = what.into();
        self.verify(slice)?;
        if slice.is_empty() { Ok(()) } else { Ok(self.tx.zero(slice.range())?) }
    }

    /// Rebuilds a handle from [`Block::to_raw`]. Fails unless that same block is still live.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`]; [`Error::Stack`] if the system cannot read.
    pub fn block(&mut self, raw: u128) -> Result<Block> {
        if raw == 0 {
            return Ok(Block::EMPTY);
        }
        self.live(raw, None)
    }

    /// The block that a root names; [`Block::EMPTY`] if the root is not set.
    ///
    /// # Errors
    /// [`Error::NoRoot`]; [`Error::InvalidBlock`] in a damaged heap; [`Error::Stack`] if the
    /// system cannot read.
    pub fn root(&mut self, slot: usize) -> Result<Block> {
        check_slot(slot)?;
        let raw = self.header()?.root(slot);
        self.block(raw)
    }

    /// Sets a root to a block, or to none with [`Block::EMPTY`].
    ///
    /// # Errors
    /// [`Error::NoRoot`], [`Error::InvalidBlock`]; [`Error::Stack`] if the system cannot read.
    pub fn set_root(&mut self, slot: usize, block: Block) -> Result<()> {
        check_slot(slot)?;
        self.verify(block.into())?;
        self.header()?.set_root(slot, block.to_raw());
        Ok(())
    }

    /// The bytes reserved for the user; zeros at first.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::Stack`] if the system cannot read.
    pub fn user_area(&mut self) -> Result<[u8; USER_AREA_LEN]> {
        Ok(*self.header()?.user_area())
    }

    /// Writes to the bytes reserved for the user, from `offset` on.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]; otherwise as [`user_area`](Self::user_area).
    pub fn set_user_area(&mut self, offset: usize, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref();
        let area = self.header()?.user_area_mut();
        let part = offset.checked_add(bytes.len()).and_then(|end| area.get_mut(offset..end));
        let (start, end) = (offset as u64, (offset as u64).saturating_add(bytes.len() as u64));
        part.ok_or(Error::OutOfRange { start, end, len: USER_AREA_LEN as u64 })?
            .copy_from_slice(bytes);
        Ok(())
    }
}
