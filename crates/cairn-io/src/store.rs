//! The store seam: a growing byte-addressable array with an explicit durability barrier.

use std::fmt::Debug;
use std::io::{self, IoSlice};

use crate::backend::Backend;

/// A hint about how a range will be used. Never changes what is read or what is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// The range will be read from front to back soon.
    Sequential,
    /// The range will not be used again soon; cached copies may go.
    DontNeed,
}

/// A growing array of bytes with an explicit durability barrier: the extension point for putting a
/// log or a stack on any medium. Run [`contract::store`](crate::contract::store()) against every
/// implementation.
///
/// Every method takes `&self` and may be called concurrently. Offsets and lengths are bytes.
pub trait Store: Debug + Send + Sync {
    /// Writes all of `bytes` at `offset`, growing the store as needed; a gap reads as zeros.
    /// Concurrent writes to disjoint ranges never corrupt each other. Nothing is durable on return.
    ///
    /// # Errors
    /// Any prefix of the bytes may have been written; nothing outside the range has changed.
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for an offset below [`head`](Store::head) or a
    /// range past `u64::MAX`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads at `offset`; returns how many bytes, fewer than asked only when the store ends first
    /// (0 at or after the end).
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for an offset below [`head`](Store::head); the
    /// medium's read error otherwise.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Drops everything at or after `len`. A later growth reads zeros there, and once a later
    /// [`sync`](Store::sync) returned `Ok` no crash brings the dropped bytes back. A `len` at or
    /// beyond the end changes nothing.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a `len` below [`head`](Store::head).
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// The durability barrier: returns `Ok` only when every write, truncation and growth that
    /// returned before the call is on stable storage, in whatever file or part of the store it went
    /// to.
    ///
    /// # Errors
    /// Which of those survive a crash is then unknown, and a later `Ok` says nothing about them:
    /// stop writing.
    fn sync(&self) -> io::Result<()>;

    /// One past the last byte.
    fn len(&self) -> io::Result<u64>;

    /// The first offset at or behind `offset` that may hold something else than zeros nobody wrote:
    /// where a reader may go on that looks for bytes. A store that does not know says `offset`, as
    /// it does by default.
    fn data_from(&self, offset: u64) -> io::Result<u64> {
        Ok(offset)
    }

    /// Whether nothing is stored: no byte from [`head`](Store::head) on.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? <= self.head())
    }

    /// The first offset that still exists; 0 until a prefix was dropped.
    fn head(&self) -> u64 {
        0
    }

    /// Drops as much as is cheap of what lies before `offset`, and returns the new
    /// [`head`](Store::head), which is at most `offset`. Offsets are never renumbered. Durable on
    /// return.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for an `offset` beyond the end. After another
    /// error a crash may show the old head or the new one.
    fn truncate_before(&self, offset: u64) -> io::Result<u64> {
        if offset > self.len()? {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(self.head())
    }

    /// Writes the slices one after the other from `offset` and makes them durable: on `Ok` *these*
    /// bytes, and the growth they caused, are on stable storage. What was written earlier may or
    /// may not be. A log has several calls in flight at once where
    /// [`block_size`](Store::block_size) is more than 1.
    ///
    /// # Errors
    /// As [`write_at`](Store::write_at) and [`sync`](Store::sync); the two cannot be told apart.
    fn write_durable(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let mut at = offset;
        for slice in slices {
            self.write_at(at, slice)?;
            at = at.checked_add(slice.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        }
        self.sync()
    }

    /// The alignment at which writes are cheapest, in bytes; 1 when it does not matter. Of
    /// [`write_durable`](Store::write_durable), the offset and every slice's length and address.
    fn block_size(&self) -> usize {
        1
    }

    /// How durable writes reach the medium *now*: a store that was refused a faster way says so
    /// here, and nowhere else.
    fn backend(&self) -> Backend {
        Backend::Other
    }

    /// Reserves space for `len` bytes from `offset`, so that writing there later does not run out
    /// of it. May grow the store with zeros. Does nothing where the medium cannot reserve.
    ///
    /// # Errors
    /// [`StorageFull`](io::ErrorKind::StorageFull) or the like when there is no space; nothing that
    /// was readable has changed then.
    fn preallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let _ = (offset, len);
        Ok(())
    }

    /// Tells the medium how a range will be used.
    fn advise(&self, offset: u64, len: u64, advice: Advice) {
        let _ = (offset, len, advice);
    }
}
