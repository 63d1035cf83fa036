//! The file of one open stack: reading, writing, barriers, and reserved space.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cairn_io::Store;

use crate::error::{Error, Failure, Result};
use crate::format::{DATA_ALIGN, ENTRY_LEN, FileOffset, PayloadOffset, SLOT_BODY_MAX};
use crate::mutation::{self, Mutation};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes. Up to this many appended zeros are written or have their space reserved; more are left as
/// a hole.
pub(crate) const HOLE_MIN: u64 = 1 << 20;

/// Bytes of a slot's body kept free for the proofs of appended bytes.
const PROOFS: u64 = 4 << 10;

/// Bytes of the payload that recovery reads at a time.
const PART: usize = 1 << 20;

/// Zeros to write and to checksum.
pub(crate) static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The file of one open stack.
#[derive(Debug)]
pub(crate) struct Medium {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) path: PathBuf,
    /// Up to here space is reserved, except in holes.
    reserved: Mutex<PayloadOffset>,
    /// Bytes of space to reserve ahead of the end; at most 1 GiB.
    pub(crate) ahead: u64,
    pub(crate) barriers: AtomicU64,
    /// Whether a write waits for a barrier. A write that is its own barrier neither sets nor clears
    /// it.
    unsynced: AtomicBool,
}

impl Medium {
    pub(crate) fn new(store: Arc<dyn Store>, path: PathBuf, ahead: u64) -> Self {
        let reserved = Mutex::new(PayloadOffset(0));
        let (barriers, unsynced) = (AtomicU64::new(0), AtomicBool::new(false));
        Medium { store, path, reserved, ahead, barriers, unsynced }
    }

    pub(crate) fn error(&self, op: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::io(op, &self.path, source)
    }

    pub(crate) fn failure(&self, op: &'static str, source: io::Error) -> Failure {
        Failure::Io { op, path: self.path.clone(), source: Arc::new(source) }
    }

    /// Writes at an offset of the file.
    pub(crate) fn write_at(&self, offset: FileOffset, bytes: &[u8]) -> io::Result<()> {
        // Before the call: even if it fails, a part may have been written.
        self.unsynced.store(true, Ordering::Relaxed);
        self.store.write_at(offset.0, bytes)
    }

    /// Writes at an offset of the payload.
    pub(crate) fn write(&self, offset: PayloadOffset, bytes: &[u8]) -> Result<()> {
        match self.write_at(offset.in_file(), bytes) {
            Err(_) if mutation::is(Mutation::IgnoreFailedWrite) => Ok(()),
            written => written.map_err(self.error("write to")),
        }
    }

    pub(crate) fn write_zeros(&self, mut offset: PayloadOffset, end: PayloadOffset) -> Result<()> {
        while offset < end {
            let len =
                usize::try_from(end.bytes_from(offset)).unwrap_or(usize::MAX).min(ZEROS.len());
            self.write(offset, &ZEROS[..len])?;
            offset = offset + len as u64;
        }
        Ok(())
    }

    /// Reads at an offset of the payload. Behind the end of the file there are zeros.
    pub(crate) fn read(&self, offset: PayloadOffset, buf: &mut [u8]) -> Result<()> {
        let read = self.store.read_at(offset.in_file().0, buf).map_err(self.error("read from"))?;
        buf[read..].fill(0);
        Ok(())
    }

    /// Reads a range of the payload part by part, and gives each part and its offset to `each`.
    pub(crate) fn read_in_parts(
        &self,
        mut offset: PayloadOffset,
        end: PayloadOffset,
        mut each: impl FnMut(PayloadOffset, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut buf = vec![0; usize::try_from(end.bytes_from(offset)).unwrap_or(PART).min(PART)];
        while offset < end {
            let len = usize::try_from(end.bytes_from(offset)).unwrap_or(PART).min(PART);
            self.read(offset, &mut buf[..len])?;
            each(offset, &buf[..len])?;
            offset = offset + len as u64;
        }
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.barriers.fetch_add(1, Ordering::Relaxed);
        self.store.sync()?;
        self.unsynced.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Whether no write waits for a barrier.
    pub(crate) fn is_synced(&self) -> bool {
        !self.unsynced.load(Ordering::Relaxed) || mutation::is(Mutation::DirectOverUnsynced)
    }

    /// Writes at an offset of the file. On return these bytes are durable, and no others.
    pub(crate) fn write_durable(&self, offset: FileOffset, bytes: &[u8]) -> io::Result<()> {
        self.barriers.fetch_add(1, Ordering::Relaxed);
        self.store.write_durable(offset.0, &[IoSlice::new(bytes)])
    }

    pub(crate) fn lock_reserved(&self) -> MutexGuard<'_, PayloadOffset> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reserved(&self) -> PayloadOffset {
        *self.lock_reserved()
    }

    /// Reserves space up to `end`, and ahead of it if the system has enough.
    pub(crate) fn reserve(&self, end: PayloadOffset) -> Result<()> {
        let mut reserved = self.lock_reserved();
        if end <= *reserved {
            return Ok(());
        }
        let ahead = end.saturating_add(self.ahead).next_block();
        let (from, len) = (reserved.in_file().0, self.store.len().unwrap_or(u64::MAX));
        if self.ahead > 0 && self.store.preallocate(from, ahead.bytes_from(*reserved)).is_ok() {
            *reserved = ahead;
            return Ok(());
        }
        let granted = self.store.preallocate(from, end.bytes_from(*reserved));
        if granted.is_err() && !mutation::is(Mutation::KeepRefusedSpace) {
            // The system may have granted a part. Otherwise: 1. a push of 100 GiB is refused, 2.
            // the disk is full, and the file keeps all of it. No write is under way behind what
            // is reserved.
            let _ = self.store.truncate(from.max(len));
        }
        granted.map_err(self.error("reserve space in"))?;
        *reserved = end;
        Ok(())
    }

    /// Leaves a hole up to `end` where no space is reserved yet.
    pub(crate) fn leave_hole(&self, end: PayloadOffset) {
        let mut reserved = self.lock_reserved();
        *reserved = end.max(*reserved);
    }

    /// Reserves space for a range that may be a hole.
    pub(crate) fn fill_hole(&self, offset: PayloadOffset, len: u64) -> Result<()> {
        self.store.preallocate(offset.in_file().0, len).map_err(self.error("reserve space in"))
    }

    /// Reserves the space that a round needs, for its bytes and for a body behind the payload.
    pub(crate) fn reserve_for(&self, demand: Demand) -> Result<()> {
        let Demand { end, base_end, in_place, pieces } = demand;
        let body = in_place.saturating_add(pieces.saturating_mul((ENTRY_LEN + DATA_ALIGN) as u64));
        if body <= SLOT_BODY_MAX - PROOFS {
            return self.reserve(end);
        }
        // The body goes behind the payload.
        let behind = end.max(base_end).next_block();
        self.reserve(behind.saturating_add(body).saturating_add(PROOFS))
    }
}

/// The space that a round needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    /// One past the last byte that the round writes.
    pub(crate) end: PayloadOffset,
    /// One past the last byte of the state below the round.
    pub(crate) base_end: PayloadOffset,
    /// Upper bound of the bytes that the round changes in place.
    pub(crate) in_place: u64,
    /// Upper bound of the number of pieces that these bytes form.
    pub(crate) pieces: u64,
}

/// Whether this many appended zeros are left as a hole.
pub(crate) fn is_hole(zeros: u64) -> bool {
    zeros > HOLE_MIN
}
