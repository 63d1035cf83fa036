//! The stack: what users call.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;

use cairn_io::{Backend, ErrorKind, Store};

use crate::commit::Core;
use crate::edit::Edit;
use crate::error::Result;
use crate::open;
use crate::options::{OpenReport, Options, Stats};
use crate::range::{check_span, check_start};
use crate::reader::StackReader;
use crate::sync::Arc;
use crate::transaction::Transaction;

/// A byte stack in one file; offsets count bytes from its bottom, 0.
///
/// Every operation is atomic and, when it returns `Ok`, durable (unless
/// [`Durability::Explicit`](crate::Durability::Explicit) was chosen). Many threads may call all
/// methods at once. Operations take effect one after the other and share barriers. Reading never
/// waits for a barrier and returns only durable bytes.
///
/// After any error but [`Error::InDoubt`](crate::Error::InDoubt) the call has changed nothing, and
/// may be repeated once its cause is gone. After a failed barrier the handle refuses changes;
/// durable bytes can still be read. Empty ranges and buffers are legal and change nothing.
///
/// Dropping a stack makes nothing durable. [`close`](Self::close) makes the next opening faster,
/// and returns whether it succeeded.
///
/// # Examples
/// See [the crate](crate).
pub struct Stack {
    core: Arc<Core>,
    report: OpenReport,
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("path", &self.core.medium.path)
            .field("len", &self.core.len())
            .finish()
    }
}

impl Stack {
    /// Opens the stack in the file `path`, or creates it, with default [`Options`].
    ///
    /// While the stack is open, the handle locks an empty file `path.lock` beside it, which is
    /// never removed. Opening takes the same time for any length of the stack. It verifies the
    /// newest commit, discards it if it is incomplete, and makes the remaining state durable again.
    ///
    /// # Errors
    /// * [`Locked`](crate::Error::Locked): another handle has the stack open.
    /// * [`Foreign`](crate::Error::Foreign),
    ///   [`UnsupportedVersion`](crate::Error::UnsupportedVersion),
    ///   [`Corrupt`](crate::Error::Corrupt): nothing was changed.
    /// * [`Io`](crate::Error::Io), [`Full`](crate::Error::Full): the system refused; the stack is
    ///   in the state that it had.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::default().open(path)
    }

    /// The default options, to change and to open a stack with.
    #[must_use]
    pub fn options() -> Options {
        Options::default()
    }

    /// Opens the stack in `store`, or creates it there if the store is empty or holds only zeros,
    /// at most 128 KiB of them. The bytes are the same as in a file, and each operation is as
    /// atomic. There is no lock: the caller must not let any other handle or process use the store.
    ///
    /// # Errors
    /// As [`open`](Self::open), but never [`Locked`](crate::Error::Locked);
    /// [`InvalidOption`](crate::Error::InvalidOption).
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

    /// Applies an operation to the open round and waits until it is durable. An operation that
    /// changed nothing waits for what it has read.
    fn change<T>(&self, operate: impl FnOnce(&mut Edit<'_>) -> Result<Changed<T>>) -> Result<T> {
        let mut guard = self.core.writer()?;
        let result = operate(&mut Edit::of_round(&self.core, &mut guard));
        match result {
            Ok(Changed::Yes(result)) => self.core.finish(guard).map(|()| result),
            Ok(Changed::No(result)) => self.core.confirm(guard).map(|()| result),
            Err(error) if error.kind() == ErrorKind::Usage => {
                self.core.confirm(guard).and(Err(error))
            }
            Err(error) => Err(error),
        }
    }
}

/// Opening.
impl Options {
    /// Opens the stack in the file `path`, or creates it; see [`Stack::open`].
    ///
    /// # Errors
    /// As [`Stack::open`]; [`InvalidOption`](crate::Error::InvalidOption) for an option outside its
    /// range.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Stack> {
        self.check()?;
        let (core, report) = open::open(self, path.as_ref())?;
        Ok(Stack { core: Arc::new(core), report })
    }

    /// Opens the stack in `store`, or creates it there; see [`Stack::with_store`].
    ///
    /// # Errors
    /// As [`Stack::with_store`].
    pub fn open_store(self, store: Arc<dyn Store>) -> Result<Stack> {
        self.check()?;
        let (core, report) = open::open_store(self, store)?;
        Ok(Stack { core: Arc::new(core), report })
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
/// All of these methods return [`Poisoned`](crate::Error::Poisoned) or
/// [`Closed`](crate::Error::Closed) if the handle refuses changes,
/// [`InTransaction`](crate::Error::InTransaction) inside of a transaction's closure,
/// [`Full`](crate::Error::Full) or [`Io`](crate::Error::Io) if the system refuses (nothing was
/// changed), and [`InDoubt`](crate::Error::InDoubt) if the barrier fails.
impl Stack {
    /// Puts bytes on top; returns the offset of the first one.
    ///
    /// The bytes are in memory until they are durable. For more bytes than memory holds, write
    /// pieces through [`io::Write`]; each piece is a push.
    ///
    /// # Errors
    /// [`TooLong`](crate::Error::TooLong), and as above.
    pub fn push(&self, bytes: impl AsRef<[u8]>) -> Result<u64> {
        let bytes = bytes.as_ref();
        self.change(|edit| edit.push(bytes).map(|at| Changed::when(!bytes.is_empty(), at)))
    }

    /// Puts zeros on top; returns the offset of the first one. More than 1 MiB of zeros take no
    /// space on disk until they are written to.
    ///
    /// # Errors
    /// [`TooLong`](crate::Error::TooLong), and as above.
    pub fn extend(&self, zeros: u64) -> Result<u64> {
        self.change(|edit| edit.extend(zeros).map(|at| Changed::when(zeros > 0, at)))
    }

    /// Takes the last bytes off and returns them. They may come from several pushes.
    ///
    /// # Errors
    /// [`TooShort`](crate::Error::TooShort) if the stack holds fewer bytes, and as above.
    pub fn pop(&self, bytes: u64) -> Result<Vec<u8>> {
        self.change(|edit| edit.pop(bytes).map(|popped| Changed::when(bytes > 0, popped)))
    }

    /// Takes the last `buf.len()` bytes off and copies them into `buf`. After an error `buf` may
    /// hold any bytes.
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

    /// Overwrites the bytes at `offset`; the length stays.
    ///
    /// # Errors
    /// [`OutOfRange`](crate::Error::OutOfRange), and as above.
    pub fn set(&self, offset: u64, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref();
        self.change(|edit| edit.set(offset, bytes).map(|()| Changed::when(!bytes.is_empty(), ())))
    }

    /// Overwrites a range with zeros; the length stays.
    ///
    /// # Errors
    /// [`OutOfRange`](crate::Error::OutOfRange), and as above.
    pub fn zero(&self, range: Range<u64>) -> Result<()> {
        self.change(|edit| edit.zero(range.clone()).map(|()| Changed::when(!range.is_empty(), ())))
    }

    /// Grows with zeros, or shrinks, to the length `len` in bytes.
    ///
    /// # Errors
    /// [`TooLong`](crate::Error::TooLong), and as above.
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
    /// [`OutOfRange`](crate::Error::OutOfRange), [`UnequalLengths`](crate::Error::UnequalLengths),
    /// and as above.
    pub fn compare_and_set(
        &self,
        offset: u64,
        expected: impl AsRef<[u8]>,
        new: impl AsRef<[u8]>,
    ) -> Result<bool> {
        let (expected, new) = (expected.as_ref(), new.as_ref());
        self.change(|edit| {
            let was = edit.compare_and_set(offset, expected, new)?;
            Ok(Changed::when(was && !new.is_empty(), was))
        })
    }

    /// Makes several changes as one: all of them take place, or none.
    ///
    /// Transactions and single operations are serializable. Reads in the closure see the newest
    /// state, including operations that are not yet durable; if one of those fails, this
    /// transaction fails with it. While the closure runs, changes of other threads wait, and reads
    /// do not. If the closure returns an error or panics, nothing is changed. The closure must not
    /// wait for another thread that writes to this stack. The changes are in memory until they are
    /// durable.
    ///
    /// # Errors
    /// The closure's, and as above.
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

    /// With [`Durability::Explicit`](crate::Durability::Explicit), makes all operations durable
    /// that have returned. Otherwise they are durable already.
    ///
    /// # Errors
    /// As above. After [`Poisoned`](crate::Error::Poisoned) the operations since the last barrier
    /// did not take place, after [`InDoubt`](crate::Error::InDoubt) they may have. After any other
    /// error they are in memory as before, whoever called them: when there is space, or the file is
    /// back in its place, call again.
    pub fn sync(&self) -> Result<()> {
        self.core.sync()
    }

    /// Closes the stack. On `Ok` everything is durable, reserved space is given back, and the next
    /// opening writes nothing but headers.
    ///
    /// # Errors
    /// As above. The handle is closed in any case, and durable bytes stay durable.
    pub fn close(self) -> Result<()> {
        self.core.close()
    }
}

/// Makes nothing durable. Others may open the stack at once: readers that are left keep its file
/// open, and so do processes that were forked.
impl Drop for Stack {
    fn drop(&mut self) {
        self.core.let_go();
    }
}

/// Reading. Each call returns durable bytes of one moment and does not wait for a barrier.
///
/// # Errors
/// All of these methods return [`OutOfRange`](crate::Error::OutOfRange) for a range that is
/// reversed or not within the stack, [`Io`](crate::Error::Io) if the system cannot read or has no
/// memory for the result, and [`Closed`](crate::Error::Closed) after `close`.
impl Stack {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.core.len()
    }

    /// Whether the stack holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a range, its end excluded.
    ///
    /// # Errors
    /// As above.
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
    /// As above.
    pub fn get_into(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.core.view(|view| view.read(offset, buf))
    }

    /// The bytes of several ranges, all of the same moment.
    ///
    /// # Errors
    /// As above.
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
    /// As above.
    pub fn peek(&self, offset: u64) -> Result<Vec<u8>> {
        self.core.view(|view| {
            let mut bytes = self.core.buffer(check_start(offset, view.len())?)?;
            view.read(offset, &mut bytes)?;
            Ok(bytes)
        })
    }

    /// Copies the bytes from `offset` into `buf`, up to the top or until `buf` is full; returns
    /// their number.
    ///
    /// # Errors
    /// As above.
    pub fn peek_into(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.core.view(|view| {
            let len = usize::try_from(check_start(offset, view.len())?).unwrap_or(usize::MAX);
            let len = len.min(buf.len());
            view.read(offset, &mut buf[..len])?;
            Ok(len)
        })
    }

    /// A reader that starts at the bottom.
    #[must_use]
    pub fn reader(&self) -> StackReader {
        self.reader_at(0)
    }

    /// A reader that starts at `offset`, which may be beyond the top.
    #[must_use]
    pub fn reader_at(&self, offset: u64) -> StackReader {
        StackReader::new(self.core.clone(), offset)
    }

    /// How small commits reach the medium. Larger ones go through the page cache.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.core.medium.store.backend()
    }

    /// The random number of this opening, which its commits carry. No two openings have the same
    /// one, also of copies of a file.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.core.epoch.0
    }

    /// Counters of this handle.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// What opening found, and what it did.
    #[must_use]
    pub fn open_report(&self) -> OpenReport {
        self.report
    }
}

/// Each write is one push. Nothing is buffered: put a [`BufWriter`](io::BufWriter) in front for
/// larger pushes.
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
