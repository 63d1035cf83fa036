//! Several changes as one.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use crate::arena::{Arena, verify_block};
use crate::block::{Block, Slice};
use crate::error::{BlockFault, Error, Result};
use crate::heap::Heap;
use crate::layout::{Header, NEXT_TAG, ROOTS, RUN_PREFIX, Run, State, USER_AREA_LEN, run_of};
use crate::mutation::{self, Mutation};

/// Changes of a heap that take place together, or not at all; see [`Heap::transaction`].
///
/// Operations see what the transaction itself has changed. One that is refused has changed nothing, and the closure may go on
/// after it; but when the system cannot read, or the heap turns out to be damaged, the transaction fails.
///
/// What the transaction frees is free for its own allocations at once, and for everybody else when it is durable. Readers see it until then.
#[derive(Debug)]
pub struct Transaction<'a, 's> {
    heap: &'a Heap,
    tx: &'a mut cairn_stack::Transaction<'s>,
    /// The header as it was, and as it is to be; read when first needed.
    headers: Option<(Header, Header)>,
    freed: HashSet<u64>,
    /// What went wrong halfway through an operation.
    broken: Option<Error>,
}

impl<'a, 's> Transaction<'a, 's> {
    pub(crate) fn new(heap: &'a Heap, tx: &'a mut cairn_stack::Transaction<'s>) -> Self {
        Transaction { heap, tx, headers: None, freed: HashSet::new(), broken: None }
    }

    /// Reads the header, if that was not done.
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

    /// Runs an operation; what fails halfway breaks the transaction.
    fn operate<T>(&mut self, run: impl FnOnce(&mut Arena<'_, 's>) -> Result<T>) -> Result<T> {
        self.header()?;
        let (_, header) = self.headers.as_mut().expect("it was just read");
        let result = run(&mut Arena { tx: self.tx, header, fit: &*self.heap.fit });
        if let Err(error @ (Error::Stack(_) | Error::Corrupt { .. })) = &result {
            self.broken = Some(error.clone());
        }
        result
    }

    /// A tag that no block ever had: not even one of a transaction that came to nothing, whose handles somebody may have kept.
    fn tag(&mut self) -> Result<u64> {
        let stored = self.header()?.next_tag();
        let tag = match mutation::is(Mutation::ForgetRefusedTags) {
            true => stored,
            false => stored.max(self.heap.next_tag.load(Ordering::Relaxed)),
        };
        if mutation::is(Mutation::RepeatTag) && tag > self.heap.key {
            return Ok(tag - 1);
        }
        let next = tag
            .checked_add(1)
            .ok_or(Error::Corrupt { offset: NEXT_TAG as u64, what: "no tag is left to be given out" })?;
        self.heap.next_tag.store(next, Ordering::Relaxed);
        self.header()?.set_next_tag(next);
        Ok(tag)
    }

    /// Brings the header to the file.
    pub(crate) fn finish(mut self) -> Result<()> {
        if let Some(error) = self.broken.filter(|_| !mutation::is(Mutation::CommitHalf)) {
            return Err(error);
        }
        let Some((before, after)) = &mut self.headers else { return Ok(()) };
        for slot in 0..ROOTS {
            let raw = after.root(slot);
            if raw != 0 && self.freed.contains(&tag_of(raw)) && !mutation::is(Mutation::LetRootsDangle) {
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
    /// [`Error::TooLarge`]; [`Error::Corrupt`] and [`Error::Stack`] break the transaction. Lack of space shows when it ends.
    pub fn alloc(&mut self, len: u64) -> Result<Block> {
        self.header()?;
        if len == 0 {
            return Ok(Block::EMPTY);
        }
        self.heap.fit.run_len(len)?;
        let tag = self.tag()?;
        self.operate(|arena| arena.alloc(len, tag))
    }

    /// A new block with these bytes.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn alloc_with(&mut self, bytes: impl AsRef<[u8]>) -> Result<Block> {
        let bytes = bytes.as_ref();
        let block = self.alloc(bytes.len() as u64)?;
        if !bytes.is_empty() {
            self.operate(|arena| Ok(arena.tx.set(block.start(), bytes)?))?;
        }
        Ok(block)
    }

    /// Frees a block. A root must not name it when the transaction ends.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`] for one that is free already, or never was one. Otherwise as [`alloc`](Self::alloc).
    pub fn dealloc(&mut self, block: Block) -> Result<()> {
        self.header()?;
        if block.is_empty() {
            return Ok(());
        }
        self.operate(|arena| arena.dealloc(block))?;
        self.freed.insert(block.tag());
        Ok(())
    }

    /// A block with the contents of this one, as far as they fit in, and then zeros. It stays where it is if that is possible. The old
    /// handle is void in any case; roots that name it name the new one.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc) and [`dealloc`](Self::dealloc).
    pub fn realloc(&mut self, block: Block, len: u64) -> Result<Block> {
        let new = if block.is_empty() {
            self.alloc(len)?
        } else if len == 0 {
            self.operate(|arena| arena.dealloc(block))?;
            Block::EMPTY
        } else {
            self.operate(|arena| arena.run_of(block))?;
            self.heap.fit.run_len(len)?;
            let tag = self.tag()?;
            self.operate(|arena| arena.realloc(block, len, tag))?
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

    /// Checks the handle of what is to be read or written.
    fn verify(&mut self, slice: Slice) -> Result<()> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let block = slice.block();
        if block.is_empty() {
            return Ok(());
        }
        let (granule, end) = (self.heap.fit.granule(), self.tx.len());
        let mut bytes = [0; RUN_PREFIX];
        self.tx.get_into(run_of(block.start(), granule, end)?, &mut bytes)?;
        verify_block(block, &bytes, self.heap.key, granule, end).map(drop)
    }

    /// The bytes of a block, or of a part of one.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`]; [`Error::Stack`] when the system cannot read.
    pub fn read(&mut self, what: impl Into<Slice>) -> Result<Vec<u8>> {
        let slice = what.into();
        self.verify(slice)?;
        if slice.is_empty() { Ok(Vec::new()) } else { Ok(self.tx.get(slice.range())?) }
    }

    /// Fills `buf` from the beginning of a block, or of a part of one.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`Error::OutOfRange`] when there are fewer bytes.
    pub fn read_into(&mut self, what: impl Into<Slice>, buf: &mut [u8]) -> Result<()> {
        let slice = what.into().first(buf.len())?;
        self.verify(slice)?;
        if slice.is_empty() { Ok(()) } else { Ok(self.tx.get_into(slice.range().start, buf)?) }
    }

    /// Writes bytes to the beginning of a block, or of a part of one.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`]; [`Error::OutOfRange`] when there are fewer bytes; [`Error::Stack`] when the system cannot read.
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

    /// The handle that was stored as `raw`; see [`Block::from_raw`].
    ///
    /// # Errors
    /// [`Error::InvalidBlock`]; [`Error::Stack`] when the system cannot read.
    pub fn block(&mut self, raw: u128) -> Result<Block> {
        if raw == 0 {
            return Ok(Block::EMPTY);
        }
        let (granule, end) = (self.heap.fit.granule(), self.tx.len());
        let mut bytes = [0; RUN_PREFIX];
        self.tx.get_into(run_of(start_of(raw), granule, end)?, &mut bytes)?;
        block_in(raw, &bytes, self.heap.key, granule, end)
    }

    /// The block that a root names; [`Block::EMPTY`] when none was set.
    ///
    /// # Errors
    /// [`Error::NoRoot`]; [`Error::InvalidBlock`] in a damaged heap; [`Error::Stack`] when the system cannot read.
    pub fn root(&mut self, slot: usize) -> Result<Block> {
        check_slot(slot)?;
        let raw = self.header()?.root(slot);
        self.block(raw)
    }

    /// Lets a root name a block; [`Block::EMPTY`] for none.
    ///
    /// # Errors
    /// [`Error::NoRoot`], [`Error::InvalidBlock`]; [`Error::Stack`] when the system cannot read.
    pub fn set_root(&mut self, slot: usize, block: Block) -> Result<()> {
        check_slot(slot)?;
        self.verify(block.into())?;
        self.header()?.set_root(slot, block.to_raw());
        Ok(())
    }

    /// The bytes reserved for the user; zeros at first.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::Stack`] when the system cannot read.
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
        part.ok_or(Error::OutOfRange { start, end, len: USER_AREA_LEN as u64 })?.copy_from_slice(bytes);
        Ok(())
    }
}

pub(crate) fn check_slot(slot: usize) -> Result<()> {
    if slot < ROOTS { Ok(()) } else { Err(Error::NoRoot { slot, count: ROOTS }) }
}

fn tag_of(raw: u128) -> u64 {
    u64::try_from(raw >> 64).expect("the upper half")
}

pub(crate) fn start_of(raw: u128) -> u64 {
    u64::try_from(raw & u128::from(u64::MAX)).expect("the lower half")
}

/// The handle for a stored one, with what was read where its run should be.
pub(crate) fn block_in(raw: u128, bytes: &[u8; RUN_PREFIX], key: u64, granule: u64, end: u64) -> Result<Block> {
    let start = start_of(raw);
    let invalid = |fault| Err(Error::InvalidBlock { start, fault });
    let at = run_of(start, granule, end)?;
    match Run::decode(key, at, bytes, granule, end) {
        None => invalid(BlockFault::NoBlock),
        Some(Run { state: State::Free { .. }, .. }) => invalid(BlockFault::Freed),
        Some(run) => match run.state {
            State::Live { tag, .. } if tag == tag_of(raw) => Ok(Block::new(start, run.block_len(), tag)),
            _ => invalid(BlockFault::Reused),
        },
    }
}
