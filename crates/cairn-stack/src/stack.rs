//! The stack: what users call.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;

use cairn_io::{Backend, ErrorKind, Store};

use crate::commit::Core;
use crate::edit::{Edit, check_span};
use crate::error::Result;
use crate::open;
use crate::options::{OpenReport, Options, Stats};
use crate::reader::StackReader;
use crate::sync::Arc;
use crate::transaction::Transaction;

/// A byte stack in one file; offsets count bytes from its bottom, 0.
///
/// Every operation is atomic and, when it returns `Ok`, durable (unless [`Durability::Explicit`](crate::Durability::Explicit) was chosen). All
/// methods may be called from many threads at once: operations take place one after the other and share barriers; reading never waits for one.
/// Only durable bytes are read.
///
/// Errors say what is true: after any but [`Error::InDoubt`](crate::Error::InDoubt) the call has changed nothing, and may be repeated once the cause is gone. After a
/// failed barrier the stack takes no more changes; what is durable can still be read. Empty ranges and buffers are legal and change nothing.
///
/// Dropping a stack makes nothing durable that was not; [`close`](Self::close) makes the next opening faster and says how it went.
///
/// # Examples
/// See [the crate](crate).
pub struct Stack {
    core: Arc<Core>,
    report: OpenReport,
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("path", &self.core.medium.path).field("len", &self.core.len()).finish()
    }
}

impl Stack {
    /// Opens the stack in the file `path`, or creates it, with default [`Options`].
    ///
    /// A file `path.lock` beside it, empty and never removed, is locked as long as the stack is open. Opening takes the same time however long the stack
    /// is: it verifies the newest commit, drops it if it did not arrive as a whole, and makes the rest durable once more.
    ///
    /// # Errors
    /// * [`Locked`](crate::Error::Locked): another handle has it open.
    /// * [`Foreign`](crate::Error::Foreign), [`UnsupportedVersion`](crate::Error::UnsupportedVersion), [`Corrupt`](crate::Error::Corrupt): nothing was changed.
    /// * [`Io`](crate::Error::Io), [`Full`](crate::Error::Full): the system refused; the stack is as it was.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::default().open(path)
    }

    /// Options to open a stack with.
    #[must_use]
    pub fn options() -> Options {
        Options::default()
    }

    /// Opens the stack in `store`, or creates it there if the store is empty, or holds zeros and no more than 128 KiB of them. What is written is the same as in a
    /// file, and each operation as atomic. The caller sees to it that nobody else uses the store: there is no lock.
    ///
    /// # Errors
    /// As [`open`](Self::open), but never [`Locked`](crate::Error::Locked); [`InvalidOption`](crate::Error::InvalidOption).
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    /// use cairn_io::MemStore;
    /// use cairn_stack::Stack;
    ///
    /// let store = Arc::new(MemStore::new());
    /// let stack = Stack::with_store(store.clone(), Stack::options())?;
    /// stack.push("kept as long as the store")?;
    /// stack.close()?;
    /// assert_eq!(Stack::with_store(store, Stack::options())?.pop(5)?, b"store");
    /// # Ok::<(), cairn_stack::Error>(())
    /// ```
    pub fn with_store(store: Arc<dyn Store>, options: Options) -> Result<Self> {
        options.open_store(store)
    }

    pub(crate) fn open_file(options: Options, path: &Path) -> Result<Self> {
        let (core, report) = open::open(options, path)?;
        Ok(Stack { core: Arc::new(core), report })
    }

    pub(crate) fn open_in_store(options: Options, store: Arc<dyn Store>) -> Result<Self> {
        let (core, report) = open::open_store(options, store)?;
        Ok(Stack { core: Arc::new(core), report })
    }

    /// Applies an operation to the open round and waits until it is durable. The result may say that nothing was changed.
    fn change<T>(&self, operate: impl FnOnce(&mut Edit<'_>) -> Result<Changed<T>>) -> Result<T> {
        let mut guard = self.core.writer()?;
        let result = operate(&mut Edit::of_round(&self.core, &mut guard));
        match result {
            Ok(Changed::Yes(result)) => self.core.finish(guard).map(|()| result),
            Ok(Changed::No(result)) => self.core.confirm(guard).map(|()| result),
            Err(error) if error.kind() == ErrorKind::Usage => self.core.confirm(guard).and(Err(error)),
            Err(error) => Err(error),
        }
    }
}

/// The result of an operation.
enum Changed<T> {
    Yes(T),
    No(T),
}

impl<T> Changed<T> {
    fn when(changed: bool, result: T) -> Self {
        if changed { Changed::Yes(result) } else { Changed::No(result) }
    }
}

/// Changing. Each operation takes place as a whole or not at all.
///
/// # Errors
/// All of these methods return [`Poisoned`](crate::Error::Poisoned) or [`Closed`](crate::Error::Closed) when the stack takes no more changes,
/// [`InTransaction`](crate::Error::InTransaction) inside of a transaction's closure, [`Full`](crate::Error::Full) and [`Io`](crate::Error::Io) when the system
/// refuses (nothing has changed), and [`InDoubt`](crate::Error::InDoubt) when the barrier fails.
impl Stack {
    /// Puts bytes on top; returns their offset.
    ///
    /// A push is in memory as a whole until it is durable. What is larger than memory goes in pieces, each a push: through [`io::Write`].
    ///
    /// # Errors
    /// [`TooLong`](crate::Error::TooLong), and those above.
    pub fn push(&self, bytes: impl AsRef<[u8]>) -> Result<u64> {
        let bytes = bytes.as_ref();
        self.change(|edit| edit.push(bytes).map(|at| Changed::when(!bytes.is_empty(), at)))
    }

    /// Puts zeros on top; returns their offset. Many of them take no space until they are written to.
    ///
    /// # Errors
    /// [`TooLong`](crate::Error::TooLong), and those above.
    pub fn extend(&self, zeros: u64) -> Result<u64> {
        self.change(|edit| edit.extend(zeros).map(|at| Changed::when(zeros > 0, at)))
    }

    /// Takes the last bytes off and returns them. They may come from several pushes.
    ///
    /// # Errors
    /// [`OutOfRange`](crate::Error::OutOfRange) when there are fewer, and those above.
    pub fn pop(&self, bytes: u64) -> Result<Vec<u8>> {
        self.change(|edit| edit.pop(bytes).map(|popped| Changed::when(bytes > 0, popped)))
    }

    /// Takes the last `buf.len()` bytes off and copies them into `buf`. After an error the contents of `buf` mean nothing.
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    pub fn pop_into(&self, buf: &mut [u8]) -> Result<()> {
        self.change(|edit| edit.pop_into(buf).map(|()| Changed::when(!buf.is_empty(), ())))
    }

    /// Takes the last bytes off without reading them.
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    pub fn discard(&self, bytes: u64) -> Result<()> {
        self.change(|edit| edit.discard(bytes).map(|()| Changed::when(bytes > 0, ())))
    }

    /// Writes bytes over others; the length stays.
    ///
    /// # Errors
    /// [`OutOfRange`](crate::Error::OutOfRange), and those above.
    pub fn set(&self, offset: u64, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref();
        self.change(|edit| edit.set(offset, bytes).map(|()| Changed::when(!bytes.is_empty(), ())))
    }

    /// Writes zeros over a range; the length stays.
    ///
    /// # Errors
    /// [`OutOfRange`](crate::Error::OutOfRange), and those above.
    pub fn zero(&self, range: Range<u64>) -> Result<()> {
        self.change(|edit| edit.zero(range.clone()).map(|()| Changed::when(!range.is_empty(), ())))
    }

    /// Grows with zeros, or shrinks, to this length in bytes.
    ///
    /// # Errors
    /// [`TooLong`](crate::Error::TooLong), and those above.
    pub fn resize(&self, len: u64) -> Result<()> {
        self.change(|edit| {
            let changed = len != edit.len();
            edit.resize(len).map(|()| Changed::when(changed, ()))
        })
    }

    /// Puts zeros on top if the length is `expected_len`; returns whether it was.
    ///
    /// # Errors
    /// As [`extend`](Self::extend).
    pub fn try_extend_zeros(&self, expected_len: u64, zeros: u64) -> Result<bool> {
        self.change(|edit| {
            if edit.len() != expected_len {
                return Ok(Changed::No(false));
            }
            edit.extend(zeros).map(|_| Changed::when(zeros > 0, true))
        })
    }

    /// Takes the last bytes off if the length is `expected_len`; returns whether it was.
    ///
    /// # Errors
    /// As [`discard`](Self::discard).
    pub fn try_discard(&self, expected_len: u64, bytes: u64) -> Result<bool> {
        self.change(|edit| {
            if edit.len() != expected_len {
                return Ok(Changed::No(false));
            }
            edit.discard(bytes).map(|()| Changed::when(bytes > 0, true))
        })
    }

    /// Replaces the bytes at `offset` by `new` if they are `expected`; returns whether they were.
    ///
    /// # Errors
    /// [`OutOfRange`](crate::Error::OutOfRange), [`UnequalLengths`](crate::Error::UnequalLengths), and those above.
    pub fn compare_and_set(&self, offset: u64, expected: impl AsRef<[u8]>, new: impl AsRef<[u8]>) -> Result<bool> {
        let (expected, new) = (expected.as_ref(), new.as_ref());
        self.change(|edit| {
            let was = edit.compare_and_set(offset, expected, new)?;
            Ok(Changed::when(was && !new.is_empty(), was))
        })
    }

    /// Makes several changes one: all of them take place, or none.
    ///
    /// Transactions and other operations take place one after the other: what the closure reads through the transaction does not change
    /// under it, and is up to date, though perhaps not yet durable: if it never becomes so, the transaction is refused with it. Other threads' operations wait while the closure runs,
    /// reading goes on. An error of the closure, or a panic, changes nothing. The closure must not wait for
    /// another thread that writes to this stack. What a transaction changes is in memory until it is durable.
    ///
    /// # Errors
    /// The closure's, and those above.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let stack = cairn_stack::Stack::open(dir.path().join("stack"))?;
    /// stack.push([0; 8])?;
    /// let next = stack.transaction(|tx| {
    ///     let mut counter = [0; 8];
    ///     tx.get_into(0, &mut counter)?;
    ///     let next = u64::from_le_bytes(counter) + 1;
    ///     tx.set(0, next.to_le_bytes())?;
    ///     tx.push("one more")?;
    ///     Ok::<_, cairn_stack::Error>(next)
    /// })?;
    /// assert_eq!((next, stack.len()), (1, 16));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn transaction<T, E: From<crate::Error>>(
        &self,
        run: impl FnOnce(&mut Transaction<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let mut transaction = Transaction::begin(&self.core)?;
        match run(&mut transaction) {
            Ok(result) => {
                transaction.commit()?;
                Ok(result)
            }
            Err(error) => {
                transaction.give_up()?;
                Err(error)
            }
        }
    }

    /// With [`Durability::Explicit`](crate::Durability::Explicit), makes everything durable that operations have done. Otherwise there is nothing to do.
    ///
    /// # Errors
    /// Those above; after one other than [`InDoubt`](crate::Error::InDoubt), operations since the last barrier have not taken place.
    pub fn sync(&self) -> Result<()> {
        self.core.sync()
    }

    /// Ends the stack: everything is durable, reserved space is given back, and the file opens at once the next time.
    ///
    /// # Errors
    /// Those above. What had been durable is so in any case.
    pub fn close(self) -> Result<()> {
        self.core.close()
    }
}

/// Reading: durable bytes, of one moment each, without waiting for a barrier.
///
/// # Errors
/// All of these methods return [`OutOfRange`](crate::Error::OutOfRange) for a range that is reversed or not within the stack, [`Io`](crate::Error::Io) when
/// the system cannot read, or there is no memory for the result, and [`Closed`](crate::Error::Closed).
impl Stack {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.core.len()
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a range, its end excluded.
    ///
    /// # Errors
    /// Those above.
    pub fn get(&self, range: Range<u64>) -> Result<Vec<u8>> {
        self.core.view(|view| {
            let mut bytes = self.core.buffer(check_span(&range, view.len())?)?;
            view.read(range.start, &mut bytes)?;
            Ok(bytes)
        })
    }

    /// Copies the `buf.len()` bytes at `offset` into `buf`.
    ///
    /// # Errors
    /// Those above.
    pub fn get_into(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.core.view(|view| view.read(offset, buf))
    }

    /// The bytes of several ranges, all of the same moment.
    ///
    /// # Errors
    /// Those above.
    pub fn get_many(&self, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>> {
        self.core.view(|view| {
            let mut found = Vec::new();
            for range in ranges {
                let mut bytes = self.core.buffer(check_span(range, view.len())?)?;
                view.read(range.start, &mut bytes)?;
                found.push(bytes);
            }
            Ok(found)
        })
    }

    /// The bytes from `offset` to the top.
    ///
    /// # Errors
    /// Those above.
    pub fn peek(&self, offset: u64) -> Result<Vec<u8>> {
        self.core.view(|view| {
            let mut bytes = self.core.buffer(check_span(&(offset..view.len()), view.len())?)?;
            view.read(offset, &mut bytes)?;
            Ok(bytes)
        })
    }

    /// Copies the bytes from `offset` on into `buf`, until it is full or the top is reached; returns how many.
    ///
    /// # Errors
    /// Those above.
    pub fn peek_into(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.core.view(|view| {
            let len = usize::try_from(check_span(&(offset..view.len()), view.len())?).unwrap_or(usize::MAX);
            let len = len.min(buf.len());
            view.read(offset, &mut buf[..len])?;
            Ok(len)
        })
    }

    /// A reader from the bottom.
    #[must_use]
    pub fn reader(&self) -> StackReader {
        self.reader_at(0)
    }

    /// A reader from `offset`, which may lie behind the top.
    #[must_use]
    pub fn reader_at(&self, offset: u64) -> StackReader {
        StackReader::new(self.core.clone(), offset)
    }

    /// How small commits reach the medium now; larger ones go through the page cache.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.core.medium.store.backend()
    }

    /// Counters of this handle.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// What opening found and did.
    #[must_use]
    pub fn open_report(&self) -> OpenReport {
        self.report
    }
}

/// One push for each write. Nothing is buffered here: put a [`BufWriter`](io::BufWriter) in front of it for larger pushes.
impl io::Write for &Stack {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes)?;
        Ok(bytes.len())
    }

    /// As [`Stack::sync`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(self.sync()?)
    }
}

/// As for `&Stack`.
impl io::Write for Stack {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut &*self, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::Write::flush(&mut &*self)
    }
}
