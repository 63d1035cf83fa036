//! The heap: what users call.

use std::sync::atomic::AtomicU64;

use cairn_stack::Stack;

use crate::arena::verify_block;
use crate::block::{Block, Slice};
use crate::check::{self, Report, Source};
use crate::error::{BlockFault, Error, Result};
use crate::layout::{ARENA, Header, RUN_PREFIX, USER_AREA_LEN, run_of};
use crate::mutation::{self, Mutation};
use crate::policy::{Fit, Policy};
use crate::transaction::{Transaction, block_in, check_slot, start_of};

/// What gives out blocks of a stack's bytes, and takes them back.
///
/// Each call is atomic and, when it returns `Ok`, durable, as far as the stack's operations are.
pub trait Allocator {
    /// A new block of `len` zeros; [`Block::EMPTY`] for none.
    ///
    /// # Errors
    /// [`Error::TooLarge`], and what the stack refuses.
    fn alloc(&self, len: u64) -> Result<Block>;

    /// Frees a block.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`] for one that does not live; [`Error::Rooted`]; what the stack refuses.
    fn dealloc(&self, block: Block) -> Result<()>;

    /// A block with the contents of this one, as far as they fit in, and then zeros. The old handle is void; roots that named it name the new one.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc) and [`dealloc`](Self::dealloc).
    fn realloc(&self, block: Block, len: u64) -> Result<Block>;

    /// The stack in which the blocks are. To write to it is to damage the heap.
    fn stack(&self) -> &Stack;

    /// The stack, without the heap around it.
    fn into_stack(self) -> Stack
    where
        Self: Sized;
}

/// A heap in a stack, all of which it uses.
///
/// Every operation is atomic and, when it returns `Ok`, durable (with a stack of [explicit durability](cairn_stack::Durability::Explicit): once
/// [`Stack::sync`] returned). All methods may be called from many threads at once: changes take place one after the other and share barriers, and
/// reading never waits for one. Only durable bytes are read, each call those of one moment.
///
/// # Errors
/// Errors say what is true: after any but a stack's [`InDoubt`](cairn_stack::Error::InDoubt) the call has changed nothing. After a failed
/// barrier the heap takes no more changes, and can still be read.
///
/// # Examples
/// See [the crate](crate).
#[derive(Debug)]
pub struct Heap {
    stack: Stack,
    policy: Policy,
    pub(crate) fit: Box<dyn Fit>,
    pub(crate) key: u64,
    /// No smaller tag is given out, whatever the file says.
    pub(crate) next_tag: AtomicU64,
}

impl Heap {
    /// Opens the heap in `stack`; in an empty stack, creates one, durably. Takes the same time however many blocks there are.
    ///
    /// # Errors
    /// [`NotAHeap`](Error::NotAHeap), [`UnsupportedVersion`](Error::UnsupportedVersion), [`OtherPolicy`](Error::OtherPolicy), [`Corrupt`](Error::Corrupt): nothing was
    /// changed. [`InvalidOption`](Error::InvalidOption) for a block size out of range; [`Stack`](Error::Stack) when that refuses.
    pub fn open(stack: Stack, policy: Policy) -> Result<Self> {
        // Tags count up from it: two heaps do not give out the same.
        let key = getrandom::u64().map_err(|_| Error::InvalidOption {
            option: "key",
            expected: "given, as the system has no random numbers",
        })?;
        Self::open_with_key(stack, policy, key)
    }

    /// As [`open`](Self::open), with the number by which a new heap tells its own handles from those of others. For files that are to come out
    /// the same every time; otherwise it is random.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_key(stack: Stack, policy: Policy, key: u64) -> Result<Self> {
        policy.fit()?;
        let key = (key >> 2).max(1);
        stack.transaction(|tx| {
            if tx.is_empty() {
                tx.push(&Header::new(policy, key).bytes[..])?;
            }
            Ok::<_, Error>(())
        })?;
        let heap = Self::attach(stack)?;
        if heap.policy == policy { Ok(heap) } else { Err(Error::OtherPolicy { found: heap.policy, expected: policy }) }
    }

    /// Opens the heap in `stack`, whatever its policy. Writes nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`NotAHeap`](Error::NotAHeap) for an empty stack.
    pub fn attach(stack: Stack) -> Result<Self> {
        let header = read_header(&stack)?;
        let (policy, key) = header.identify(stack.len())?;
        header.verify()?;
        let next_tag = AtomicU64::new(header.next_tag());
        Ok(Heap { stack, policy, fit: policy.fit()?, key, next_tag })
    }

    /// How blocks are placed.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Makes several changes one: all of them take place and are durable on return, or none of them does.
    ///
    /// The closure works as in [`Stack::transaction`]: other threads' changes wait for it, reading goes on, and an error or a panic changes nothing. It
    /// must neither change the heap other than through the transaction, nor wait for a thread that does.
    ///
    /// # Errors
    /// The closure's; [`Error::Rooted`] when a root would name a block that was freed; what broke the transaction halfway; what the stack refuses.
    ///
    /// # Examples
    /// ```
    /// # use cairn_heap::{Heap, Policy};
    /// # let dir = tempfile::tempdir()?;
    /// # let heap = Heap::open(cairn_stack::Stack::open(dir.path().join("heap"))?, Policy::Linear)?;
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
            let mut transaction = Transaction::new(self, tx);
            let result = run(&mut transaction).map_err(Carried)?;
            transaction.finish().map_err(|error| Carried(E::from(error)))?;
            Ok(result)
        });
        outcome.map_err(|Carried(error)| error)
    }

    /// As [`Transaction::alloc_with`]: a new block with these bytes, durable on return.
    ///
    /// # Errors
    /// As [`alloc`](Allocator::alloc).
    pub fn alloc_with(&self, bytes: impl AsRef<[u8]>) -> Result<Block> {
        if mutation::is(Mutation::FillLater) {
            let block = self.alloc(bytes.as_ref().len() as u64)?;
            return self.write(block, bytes).map(|()| block);
        }
        self.transaction(|tx| tx.alloc_with(bytes))
    }

    /// Writes bytes to the beginning of a block, or of a part of one; durable on return.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`]; [`Error::OutOfRange`] when there are fewer bytes; what the stack refuses.
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

    /// Lets a root name a block; [`Block::EMPTY`] for none. Durable on return.
    ///
    /// # Errors
    /// [`Error::NoRoot`], [`Error::InvalidBlock`], what the stack refuses.
    pub fn set_root(&self, slot: usize, block: Block) -> Result<()> {
        self.transaction(|tx| tx.set_root(slot, block))
    }

    /// Writes to the bytes reserved for the user; durable on return.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], what the stack refuses.
    pub fn set_user_area(&self, offset: usize, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.transaction(|tx| tx.set_user_area(offset, bytes))
    }

    /// The bytes of a block, or of a part of one.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`]; [`Error::Stack`] when the system cannot read.
    pub fn read(&self, what: impl Into<Slice>) -> Result<Vec<u8>> {
        let slice = what.into();
        let block = slice.block();
        if block.is_empty() {
            return Ok(Vec::new());
        }
        let (prefix, bytes, end) = self.look(block.start(), slice.range())?;
        verify_block(block, &prefix, self.key, self.fit.granule(), end)?;
        Ok(bytes)
    }

    /// Fills `buf` from the beginning of a block, or of a part of one.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`Error::OutOfRange`] when there are fewer bytes.
    pub fn read_into(&self, what: impl Into<Slice>, buf: &mut [u8]) -> Result<()> {
        buf.copy_from_slice(&self.read(what.into().first(buf.len())?)?);
        Ok(())
    }

    /// What lies where the run of the block at `start` should begin, a range of the stack of the same moment, and the stack's length.
    fn look(&self, start: u64, range: std::ops::Range<u64>) -> Result<([u8; RUN_PREFIX], Vec<u8>, u64)> {
        let end = self.stack.len();
        let at = run_of(start, self.fit.granule(), end)?;
        let outside = || Error::InvalidBlock { start, fault: BlockFault::OutOfArena };
        let found = self.stack.get_many(&[at..at + RUN_PREFIX as u64, range]);
        let mut found = found.map_err(|error| match error {
            cairn_stack::Error::OutOfRange { .. } => outside(),
            error => error.into(),
        })?;
        let bytes = found.pop().ok_or_else(outside)?;
        let prefix = found.pop().and_then(|prefix| prefix.try_into().ok()).ok_or_else(outside)?;
        Ok((prefix, bytes, end))
    }

    /// The handle that was stored as `raw`; see [`Block::from_raw`].
    ///
    /// # Errors
    /// [`Error::InvalidBlock`]; [`Error::Stack`] when the system cannot read.
    pub fn block(&self, raw: u128) -> Result<Block> {
        if raw == 0 {
            return Ok(Block::EMPTY);
        }
        let (prefix, _, end) = self.look(start_of(raw), 0..0)?;
        block_in(raw, &prefix, self.key, self.fit.granule(), end)
    }

    /// The block that a root names; [`Block::EMPTY`] when none was set.
    ///
    /// # Errors
    /// [`Error::NoRoot`]; [`Error::InvalidBlock`] when it was freed just now; [`Error::Corrupt`]; [`Error::Stack`] when the system cannot read.
    pub fn root(&self, slot: usize) -> Result<Block> {
        check_slot(slot)?;
        self.block(self.header()?.root(slot))
    }

    /// The bytes reserved for the user; zeros at first.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::Stack`] when the system cannot read.
    pub fn user_area(&self) -> Result<[u8; USER_AREA_LEN]> {
        Ok(*self.header()?.user_area())
    }

    fn header(&self) -> Result<Header> {
        let header = read_header(&self.stack)?;
        header.verify()?;
        Ok(header)
    }

    /// Looks at one moment of the heap; changes wait. When nothing can change any more, looks without asking.
    fn inspect<T>(&self, look: impl Fn(&mut dyn Source) -> Result<T>) -> Result<T> {
        match self.stack.transaction(|tx| look(tx)) {
            Err(Error::Stack(cairn_stack::Error::Poisoned { .. })) => look(&mut &self.stack),
            result => result,
        }
    }

    /// Proves that every byte is exactly one of header, free, and allocated, and that all metadata agree; or lists all that is wrong.
    /// Reads all headers; changes wait for it.
    ///
    /// # Errors
    /// [`Error::Stack`] when the system cannot read. What is wrong with the heap is in the report.
    pub fn check(&self) -> Result<Report> {
        self.inspect(|source| check::check(source, &*self.fit, self.key))
    }

    /// All live blocks, by their places, of one moment. Reads all headers.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::Stack`] when the system cannot read.
    pub fn blocks(&self) -> Result<std::vec::IntoIter<Block>> {
        self.inspect(|source| check::blocks(source, &*self.fit, self.key)).map(Vec::into_iter)
    }

    /// How full the heap is. Reads the header, and the list of the longest free runs.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::Stack`] when the system cannot read.
    pub fn stats(&self) -> Result<Stats> {
        self.inspect(|source| {
            let mut header = Header::blank();
            source.read(0, &mut header.bytes[..])?;
            header.verify()?;
            let largest_free = check::largest_free(source, &header, &*self.fit)?;
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

    /// Ends the heap and its stack; see [`Stack::close`].
    ///
    /// # Errors
    /// As there.
    pub fn close(self) -> Result<()> {
        Ok(self.stack.close()?)
    }
}

impl Allocator for Heap {
    fn alloc(&self, len: u64) -> Result<Block> {
        self.transaction(|tx| tx.alloc(len))
    }

    fn dealloc(&self, block: Block) -> Result<()> {
        self.transaction(|tx| tx.dealloc(block))
    }

    fn realloc(&self, block: Block, len: u64) -> Result<Block> {
        if mutation::is(Mutation::FreeFirst) {
            let mut bytes = self.read(block)?;
            self.dealloc(block)?;
            bytes.resize(usize::try_from(len).unwrap_or(0), 0);
            return self.alloc_with(bytes);
        }
        self.transaction(|tx| tx.realloc(block, len))
    }

    fn stack(&self) -> &Stack {
        &self.stack
    }

    fn into_stack(self) -> Stack {
        self.stack
    }
}

/// How full a heap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Length of the stack, in bytes.
    pub len: u64,
    /// Blocks that live.
    pub live_blocks: u64,
    /// Bytes that were asked for them.
    pub live_bytes: u64,
    /// Free runs between them.
    pub free_runs: u64,
    /// Bytes of free runs, their headers included.
    pub free_bytes: u64,
    /// Bytes of the longest of them, header included; 0 when there is none.
    pub largest_free: u64,
    /// Bytes of headers, and those that blocks have beyond what was asked for.
    pub overhead_bytes: u64,
}

impl Stats {
    /// Part of the free bytes that are not in the longest run, from 0.0 to 1.0: what a request for all of them would not get.
    #[must_use]
    pub fn fragmentation(&self) -> f64 {
        if self.free_bytes == 0 { 0.0 } else { 1.0 - self.largest_free as f64 / self.free_bytes as f64 }
    }
}

fn read_header(stack: &Stack) -> Result<Header> {
    let mut header = Header::blank();
    let len = stack.len();
    if len < ARENA {
        return Err(Error::NotAHeap { len });
    }
    stack.get_into(0, &mut header.bytes[..])?;
    Ok(header)
}

/// An error of a transaction's closure, on its way through the stack.
struct Carried<E>(E);

impl<E: From<Error>> From<cairn_stack::Error> for Carried<E> {
    fn from(error: cairn_stack::Error) -> Self {
        Carried(E::from(Error::from(error)))
    }
}
