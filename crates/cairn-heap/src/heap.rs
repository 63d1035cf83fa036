//! The heap: what users call.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use cairn_stack::Stack;

use crate::block::{Block, Slice, start_of};
use crate::check::{self, Report};
use crate::error::{BlockFault, Error, Result};
use crate::header::{Header, USER_AREA_LEN, check_slot};
use crate::identity::PolicyId;
use crate::layout::{ARENA, Geometry, RUN_PREFIX};
use crate::mutation::{self, Mutation};
use crate::policies;
use crate::policy::Policy;
use crate::transaction::{Shared, Transaction};
use crate::walk;

/// A heap: blocks in the bytes of a stack. It uses the whole stack.
///
/// Every operation is atomic. When it returns `Ok`, it is durable; with a stack of
/// [explicit durability](cairn_stack::Durability::Explicit), it is durable once [`Stack::sync`]
/// has returned.
///
/// Many threads may call all methods at once. Changes are serialized and share barriers. Reads
/// never wait for a barrier; they return durable bytes only, and each call reads one moment of the
/// heap.
///
/// # Errors
/// A call that fails has changed nothing, unless the error is the stack's
/// [`InDoubt`](cairn_stack::Error::InDoubt). After a failed barrier the heap refuses changes, and
/// reads still work.
///
/// # Examples
/// See [the crate](crate).
#[derive(Debug)]
pub struct Heap {
    stack: Stack,
    shared: Shared,
}

impl Heap {
    /// Opens the heap in `stack`. If the stack is empty, creates a heap in it, durable on return.
    ///
    /// Opening reads the header and the last run, whatever the number of blocks.
    ///
    /// # Errors
    /// [`NotAHeap`](Error::NotAHeap), [`UnsupportedVersion`](Error::UnsupportedVersion),
    /// [`OtherPolicy`](Error::OtherPolicy), [`Corrupt`](Error::Corrupt),
    /// [`StrayBytes`](Error::StrayBytes): nothing was changed.
    /// [`InvalidOption`](Error::InvalidOption) if the policy's block size or number is out of
    /// range; [`Stack`](Error::Stack) if the stack refuses.
    pub fn open(stack: Stack, policy: impl Policy + 'static) -> Result<Self> {
        // Tags count up from the key, so that no two heaps give out the same tag.
        let key = getrandom::u64().map_err(|_| Error::InvalidOption {
            option: "key",
            expected: "given, as the system has no random numbers",
        })?;
        Self::open_with_key(stack, policy, key)
    }

    /// As [`open`](Self::open), with the number that tells a new heap's handles from those of other
    /// heaps. [`open`](Self::open) draws it at random; pass it to make the same file every time.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_key(stack: Stack, policy: impl Policy + 'static, key: u64) -> Result<Self> {
        let expected = policy.id();
        let key = (key >> 2).max(1);
        Geometry::of(expected, key)?;
        let created = stack.transaction(|tx| {
            let create = tx.is_empty();
            if create {
                tx.push(&Header::new(expected, key).bytes[..])?;
            }
            Ok::<_, Error>(create)
        })?;
        let mut heap = Self::attach(stack)?;
        if created {
            heap.shared.next_tag = AtomicU64::new(key);
        }
        let found = heap.shared.policy_id;
        if found != expected {
            return Err(Error::OtherPolicy { found, expected });
        }
        heap.shared.policy = Some(Arc::new(policy));
        Ok(heap)
    }

    /// Opens the heap in `stack`, whatever its policy. Writes nothing.
    ///
    /// If the policy is not one of Cairn's, the heap can do everything but allocate and reallocate:
    /// that is [`UnknownPolicy`](Error::UnknownPolicy).
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`NotAHeap`](Error::NotAHeap) for an empty stack.
    pub fn attach(stack: Stack) -> Result<Self> {
        let header = read_header(&stack)?;
        let (policy_id, geometry) = header.identify(stack.len())?;
        header.verify()?;
        walk::verify_end(&mut &stack, &header, geometry)?;
        let next_tag = AtomicU64::new(tags_from(header.next_tag(), stack.epoch()));
        let policy = policies::of(policy_id);
        Ok(Heap { stack, shared: Shared { policy_id, policy, geometry, next_tag } })
    }

    /// Which policy the heap was created with.
    #[must_use]
    pub fn policy(&self) -> PolicyId {
        self.shared.policy_id
    }

    /// The stack below the heap. Writing to it damages the heap.
    #[must_use]
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The stack below the heap. The heap keeps nothing outside of it, so nothing is lost.
    #[must_use]
    pub fn into_stack(self) -> Stack {
        self.stack
    }

    /// Runs a closure that makes several changes. Either all of them are durable on return, or none
    /// of them is made.
    ///
    /// The closure runs as in [`Stack::transaction`]: other threads' changes wait for it, reads do
    /// not, and if it fails or panics, nothing is changed. It must change the heap through the
    /// transaction only, and must not wait for another thread that changes the heap.
    ///
    /// # Errors
    /// The closure's error; [`Error::Rooted`] if a root would name a freed block; the error that
    /// broke the transaction; errors of the stack.
    ///
    /// # Examples
    /// ```
    /// # use cairn_heap::{Heap, Linear};
    /// # let dir = tempfile::tempdir()?;
    /// # let heap = Heap::open(cairn_stack::Stack::open(dir.path().join("heap"))?, Linear)?;
    /// let block = heap.transaction(|tx| {
    ///     let block = tx.alloc(64)?;
    ///     tx.write(block.subslice(8..13)?, "hello")?;
    ///     tx.set_root(0, block)?;
    ///     Ok::<_, cairn_heap::Error>(block)
    /// })?;
    /// assert_eq!(heap.root(0)?, block);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn transaction<T, E: From<Error>>(
        &self,
        run: impl FnOnce(&mut Transaction<'_, '_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let outcome = self.stack.transaction(|tx| {
            let mut transaction = Transaction::new(&self.shared, tx);
            let result = run(&mut transaction).map_err(Carried)?;
            transaction.finish().map_err(|error| Carried(E::from(error)))?;
            Ok(result)
        });
        outcome.map_err(|Carried(error)| error)
    }

    /// A new block of `len` zeros, durable on return. The block of length 0 is [`Block::EMPTY`].
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Policy`], [`Error::UnknownPolicy`], [`Error::Corrupt`],
    /// [`Error::StrayBytes`], errors of the stack.
    pub fn alloc(&self, len: u64) -> Result<Block> {
        self.transaction(|tx| tx.alloc(len))
    }

    /// Frees a block; durable on return.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`] if the block is not live; [`Error::Rooted`]; [`Error::Corrupt`];
    /// errors of the stack.
    pub fn dealloc(&self, block: Block) -> Result<()> {
        self.transaction(|tx| tx.dealloc(block))
    }

    /// Reallocates a block; durable on return. The new block starts with the old contents, cut to
    /// the new length; bytes beyond them are zeros. The old handle becomes invalid. Roots that
    /// named the old block name the new one.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc) and [`dealloc`](Self::dealloc).
    pub fn realloc(&self, block: Block, len: u64) -> Result<Block> {
        if mutation::is(Mutation::FreeFirst) {
            let mut bytes = self.read(block)?;
            self.dealloc(block)?;
            bytes.resize(usize::try_from(len).unwrap_or(0), 0);
            return self.alloc_with(bytes);
        }
        self.transaction(|tx| tx.realloc(block, len))
    }

    /// A new block with these bytes, durable on return.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn alloc_with(&self, bytes: impl AsRef<[u8]>) -> Result<Block> {
        if mutation::is(Mutation::FillLater) {
            let block = self.alloc(bytes.as_ref().len() as u64)?;
            return self.write(block, bytes).map(|()| block);
        }
        self.transaction(|tx| tx.alloc_with(bytes))
    }

    /// Writes bytes to the start of a block, or of a part of one; durable on return.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`]; [`Error::OutOfRange`] if the block or part is shorter; errors of
    /// the stack.
    pub fn write(&self, what: impl Into<Slice>, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.transaction(|tx| tx.write(what, bytes))
    }

    /// Writes zeros over a block, or a part of one; durable on return.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn zero(&self, what: impl Into<Slice>) -> Result<()> {
        self.transaction(|tx| tx.zero(what))
    }

    /// Sets a root to a block, or to none with [`Block::EMPTY`]; durable on return.
    ///
    /// # Errors
    /// [`Error::NoRoot`], [`Error::InvalidBlock`], errors of the stack.
    pub fn set_root(&self, slot: usize, block: Block) -> Result<()> {
        self.transaction(|tx| tx.set_root(slot, block))
    }

    /// Writes to the bytes reserved for the user; durable on return.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], errors of the stack.
    pub fn set_user_area(&self, offset: usize, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.transaction(|tx| tx.set_user_area(offset, bytes))
    }

    /// The bytes of a block, or of a part of one.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`]; [`Error::Stack`] if the system cannot read.
    pub fn read(&self, what: impl Into<Slice>) -> Result<Vec<u8>> {
        let slice = what.into();
        let block = slice.block();
        if block.is_empty() {
            return Ok(Vec::new());
        }
        self.look(block.to_raw(), Some(block.len()), slice.range()).map(|(_, bytes)| bytes)
    }

    /// Fills `buf` from the start of a block, or of a part of one.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`Error::OutOfRange`] if the block or part is shorter.
    pub fn read_into(&self, what: impl Into<Slice>, buf: &mut [u8]) -> Result<()> {
        buf.copy_from_slice(&self.read(what.into().first(buf.len())?)?);
        Ok(())
    }

    /// The live block of a stored handle, and a range of the stack, both of one moment. `len` is
    /// the block's length, if the handle has it.
    fn look(
        &self,
        raw: u128,
        len: Option<u64>,
        range: std::ops::Range<u64>,
    ) -> Result<(Block, Vec<u8>)> {
        let (start, geometry, end) = (start_of(raw), self.shared.geometry, self.stack.len());
        let at = geometry.run_of(start, end)?;
        let outside = || Error::InvalidBlock { start, fault: BlockFault::OutOfArena };
        let mut found = match self.stack.get_many(&[at..at + RUN_PREFIX as u64, range.clone()]) {
            Ok(found) => found,
            // A live block does not reach beyond the stack. Its run tells why this one does.
            Err(cairn_stack::Error::OutOfRange { .. }) if !range.is_empty() => {
                self.look(raw, len, 0..0)?;
                return Err(outside());
            }
            Err(cairn_stack::Error::OutOfRange { .. }) => return Err(outside()),
            Err(error) => return Err(error.into()),
        };
        let bytes = found.pop().ok_or_else(outside)?;
        let prefix = found.pop().and_then(|prefix| prefix.try_into().ok()).ok_or_else(outside)?;
        let (_, block) = geometry.live_run(raw, len, &prefix, end)?;
        Ok((block, bytes))
    }

    /// Rebuilds a handle from [`Block::to_raw`]. Fails unless that same block is still live.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`]; [`Error::Stack`] if the system cannot read.
    pub fn block(&self, raw: u128) -> Result<Block> {
        if raw == 0 {
            return Ok(Block::EMPTY);
        }
        self.look(raw, None, 0..0).map(|(block, _)| block)
    }

    /// The block that a root names; [`Block::EMPTY`] if the root is not set.
    ///
    /// # Errors
    /// [`Error::NoRoot`]; [`Error::InvalidBlock`] if another thread frees it meanwhile;
    /// [`Error::Corrupt`]; [`Error::Stack`] if the system cannot read.
    pub fn root(&self, slot: usize) -> Result<Block> {
        check_slot(slot)?;
        self.block(self.header()?.root(slot))
    }

    /// The bytes reserved for the user; zeros at first.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::Stack`] if the system cannot read.
    pub fn user_area(&self) -> Result<[u8; USER_AREA_LEN]> {
        Ok(*self.header()?.user_area())
    }

    fn header(&self) -> Result<Header> {
        let header = read_header(&self.stack)?;
        header.verify()?;
        Ok(header)
    }

    /// Proves that every byte is exactly one of header, free, and allocated, and that all metadata
    /// agree; otherwise lists every violation. Reads all headers. Changes wait for it.
    ///
    /// # Errors
    /// [`Error::Stack`] if the system cannot read. Damage is in the report, not an error.
    pub fn check(&self) -> Result<Report> {
        check::inspect(&self.stack, |source| check::prove(source, self.shared.geometry))
    }

    /// All live blocks of one moment, by rising offset. Reads all headers. Changes wait for it.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::Stack`] if the system cannot read.
    pub fn blocks(&self) -> Result<std::vec::IntoIter<Block>> {
        check::inspect(&self.stack, |source| check::blocks(source, self.shared.geometry))
            .map(Vec::into_iter)
    }

    /// Counters of the heap. Reads the header, and the list of the longest free runs.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::Stack`] if the system cannot read.
    pub fn stats(&self) -> Result<Stats> {
        check::inspect(&self.stack, |source| {
            let mut header = Header::blank();
            source.read(0, &mut header.bytes[..])?;
            header.verify()?;
            let largest_free = check::largest_free(source, &header, self.shared.geometry)?;
            let (len, free_bytes) = (source.len(), header.free_bytes());
            let live_bytes = header.live_bytes();
            Ok(Stats {
                len,
                live_blocks: header.live_blocks(),
                live_bytes,
                free_runs: header.free_runs(),
                free_bytes,
                largest_free,
                overhead_bytes: len.saturating_sub(free_bytes).saturating_sub(live_bytes),
            })
        })
    }

    /// Closes the heap and its stack; see [`Stack::close`].
    ///
    /// # Errors
    /// As there.
    pub fn close(self) -> Result<()> {
        Ok(self.stack.close()?)
    }
}

/// Counters of a heap, of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Length of the stack, in bytes.
    pub len: u64,
    /// Number of live blocks.
    pub live_blocks: u64,
    /// Sum of their lengths, as requested, in bytes.
    pub live_bytes: u64,
    /// Number of free runs between them.
    pub free_runs: u64,
    /// Bytes in free runs, headers included.
    pub free_bytes: u64,
    /// Bytes in the longest free run, header included; 0 if there is none.
    pub largest_free: u64,
    /// All other bytes: headers, and unused bytes behind blocks.
    pub overhead_bytes: u64,
}

impl Stats {
    /// Share of the free bytes that are outside of the longest free run, from 0.0 to 1.0.
    #[must_use]
    pub fn fragmentation(&self) -> f64 {
        if self.free_bytes == 0 {
            0.0
        } else {
            1.0 - self.largest_free as f64 / self.free_bytes as f64
        }
    }
}

/// The first tag of an opening: somewhere behind those that were given out. Otherwise: 1. a heap is
/// copied, and both allocate: the next block has the same tag in both, 2. a part of one file comes
/// into the other, 3. a handle of this heap reads the copy's block.
fn tags_from(next_tag: u64, epoch: u64) -> u64 {
    match mutation::is(Mutation::CountOn) {
        true => next_tag,
        false => next_tag.saturating_add(1 + (epoch & u64::from(u32::MAX))),
    }
}

fn read_header(stack: &Stack) -> Result<Header> {
    let mut header = Header::blank();
    let there = stack.len().min(ARENA);
    stack.get_into(0, &mut header.bytes[..usize::try_from(there).expect("a header at most")])?;
    Ok(header)
}

/// An error of a transaction's closure, carried through the stack's transaction.
struct Carried<E>(E);

impl<E: From<Error>> From<cairn_stack::Error> for Carried<E> {
    fn from(error: cairn_stack::Error) -> Self {
        Carried(E::from(Error::from(error)))
    }
}
