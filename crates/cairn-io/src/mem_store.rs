//! A store in memory.

use std::io::{self, IoSlice};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::backend::Backend;
use crate::range::{end_of, total_len};
use crate::store::Store;

/// A [`Store`] in one allocation: for tests, for codecs, for logs that need not outlive the
/// process. Its barrier is an honest nothing.
///
/// Drops prefixes to the byte. A gap takes as much memory as its length; what does not fit fails
/// with [`OutOfMemory`](io::ErrorKind::OutOfMemory) and changes nothing. `Clone` copies the bytes:
/// to share one store, share an `Arc` of it.
///
/// # Examples
/// ```
/// use cairn_io::{MemStore, Store};
///
/// let store = MemStore::from_bytes(*b"hello, world");
/// store.truncate(5)?;
/// let snapshot = store.clone();
/// store.write_at(0, b"J")?;
/// assert_eq!(store.to_bytes(), b"Jello");
/// assert_eq!(snapshot.to_bytes(), b"hello");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct MemStore {
    memory: RwLock<Memory>,
}

/// `bytes[0]` is at offset `head`; `head + bytes.len()` never exceeds `u64::MAX`.
#[derive(Clone, Debug, Default)]
struct Memory {
    head: u64,
    bytes: Vec<u8>,
}

impl Memory {
    fn end(&self) -> u64 {
        self.head + self.bytes.len() as u64
    }

    /// Where `offset` is in `bytes`, or would be; `InvalidInput` below the head.
    fn index_of(&self, offset: u64) -> io::Result<usize> {
        let distance = offset.checked_sub(self.head).ok_or(io::ErrorKind::InvalidInput)?;
        usize::try_from(distance).map_err(|_| io::ErrorKind::OutOfMemory.into())
    }

    fn grow_to(&mut self, len: usize) -> io::Result<()> {
        if let Some(more) = len.checked_sub(self.bytes.len()) {
            self.bytes.try_reserve(more).map_err(|_| io::ErrorKind::OutOfMemory)?;
            self.bytes.resize(len, 0);
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let len = total_len(slices)?;
        end_of(offset, len)?;
        let mut at = self.index_of(offset)?;
        if len == 0 {
            return Ok(());
        }
        let end = at.checked_add(len).ok_or(io::ErrorKind::OutOfMemory)?;
        self.grow_to(end.max(self.bytes.len()))?;
        for slice in slices {
            self.bytes[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        Ok(())
    }
}

impl MemStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store with memory for `bytes` bytes.
    ///
    /// # Panics
    /// When there is no such memory, as [`Vec::with_capacity`] does;
    /// [`preallocate`](Store::preallocate) returns an error instead.
    pub fn with_capacity(bytes: usize) -> Self {
        Self::from_bytes(Vec::with_capacity(bytes))
    }

    /// A store that holds `bytes`, from offset 0.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        let memory = Memory { head: 0, bytes: bytes.into() };
        Self { memory: RwLock::new(memory) }
    }

    /// The bytes from [`head`](Store::head) to the end.
    pub fn into_bytes(self) -> Vec<u8> {
        let memory = self.memory.into_inner();
        memory.unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// A copy of the bytes from [`head`](Store::head) to the end, as of one moment.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.read().bytes.clone()
    }

    /// No method leaves `Memory` half-changed when it panics.
    fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for MemStore {
    fn clone(&self) -> Self {
        Self { memory: RwLock::new(self.read().clone()) }
    }
}

impl Store for MemStore {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write().write(offset, &[IoSlice::new(bytes)])
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let memory = self.read();
        if offset >= memory.end() {
            return Ok(0);
        }
        let rest = &memory.bytes[memory.index_of(offset)?..];
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut memory = self.write();
        if len < memory.end() {
            let keep = memory.index_of(len)?;
            memory.bytes.truncate(keep);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.read().end())
    }

    fn head(&self) -> u64 {
        self.read().head
    }

    /// Drops everything before `offset`.
    fn truncate_before(&self, offset: u64) -> io::Result<u64> {
        let mut memory = self.write();
        if offset > memory.end() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if offset > memory.head {
            let drop = memory.index_of(offset)?;
            memory.bytes.drain(..drop);
            memory.head = offset;
        }
        Ok(memory.head)
    }

    fn write_durable(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.write().write(offset, slices)
    }

    fn backend(&self) -> Backend {
        Backend::Memory
    }

    fn preallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        let mut memory = self.write();
        let end = memory.index_of(end)?;
        let more = end.saturating_sub(memory.bytes.len());
        memory.bytes.try_reserve(more).map_err(|_| io::ErrorKind::OutOfMemory.into())
    }
}
