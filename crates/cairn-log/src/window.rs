//! A part of a store in memory, which whoever walks over a segment moves along.

use std::sync::Arc;

use cairn_io::Store;

use crate::error::CorruptionKind;
use crate::format::SECTOR_LEN;
use crate::walk::Damage;

/// A read that touched a sector the device cannot read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// Bytes from the offset asked for that can be read before it.
    pub(crate) readable: usize,
    /// File offset one past that sector.
    pub(crate) sector_end: u64,
}

impl Unreadable {
    pub(crate) fn at(&self, lsn: u64) -> Damage {
        Damage { lsn, kind: CorruptionKind::Unreadable }
    }
}

/// A part of the store in memory. Never reads at or past `limit`, where a writer may be at work.
#[derive(Debug)]
pub(crate) struct Window {
    store: Arc<dyn Store>,
    pub(crate) limit: u64,
    start: u64,
    bytes: Vec<u8>,
    read_ahead: usize,
}

impl Window {
    const READ_AHEAD_MIN: usize = 16 << 10;
    /// What is read is checked before it leaves the second-level cache.
    const READ_AHEAD_MAX: usize = 256 << 10;
    pub(crate) fn new(store: Arc<dyn Store>, limit: u64) -> Self {
        Window { store, limit, start: 0, bytes: Vec::new(), read_ahead: Self::READ_AHEAD_MIN }
    }

    /// Drops what is in memory: the next look reads anew.
    pub(crate) fn forget(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    /// The bytes from `offset`, at most `len`; fewer only at the limit or the end of the store.
    #[inline]
    pub(crate) fn get(&mut self, offset: u64, len: usize) -> Result<&[u8], Unreadable> {
        if self.held(offset, len).is_some() {
            // Looked up again, because the borrow checker cannot see that nothing is borrowed on the other path.
            return Ok(self.held(offset, len).unwrap_or_default());
        }
        self.fill(offset, len)?;
        if let Some(from) = offset.checked_sub(self.start).and_then(|n| usize::try_from(n).ok()) {
            let to = self.bytes.len().min(from.saturating_add(len));
            return Ok(&self.bytes[from.min(to)..to]);
        }
        Ok(&[])
    }

    /// Bytes that are in memory already.
    #[inline]
    pub(crate) fn held(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..from.checked_add(len)?)
    }

    /// All the bytes from `offset` on that are in memory already.
    #[inline]
    pub(crate) fn held_from(&self, offset: u64) -> &[u8] {
        let from = offset.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        from.and_then(|from| self.bytes.get(from..)).unwrap_or_default()
    }

    /// Between `min` and `max` bytes from `offset`, whatever is at hand; fewer than `min` only at the limit or the end of the store.
    pub(crate) fn get_some(&mut self, offset: u64, min: usize, max: usize) -> Result<&[u8], Unreadable> {
        let held =
            offset.checked_sub(self.start).and_then(|from| (self.bytes.len() as u64).checked_sub(from)).unwrap_or(0);
        if held < min as u64 {
            return self.get(offset, max);
        }
        let from = usize::try_from(offset - self.start).unwrap_or(self.bytes.len());
        let to = self.bytes.len().min(from.saturating_add(max));
        Ok(&self.bytes[from..to])
    }

    fn fill(&mut self, offset: u64, len: usize) -> Result<(), Unreadable> {
        let old_end = self.start + self.bytes.len() as u64;
        let sequential = offset >= self.start && offset <= old_end && !self.bytes.is_empty();
        self.read_ahead =
            if sequential { (self.read_ahead * 2).min(Self::READ_AHEAD_MAX) } else { Self::READ_AHEAD_MIN };
        let room = usize::try_from(self.limit.saturating_sub(offset)).unwrap_or(usize::MAX);
        // A length from disk allocates no more than the store holds.
        let Ok(stored_len) = self.store.len() else {
            // Nothing can be said of a store that cannot even be measured.
            self.forget();
            return Err(Unreadable { readable: 0, sector_end: u64::MAX });
        };
        let stored = stored_len.saturating_sub(offset);
        let want = len.max(self.read_ahead).min(room).min(usize::try_from(stored).unwrap_or(usize::MAX));
        self.start = offset;
        // Growing keeps old bytes in place: the read overwrites them, and zeroing them first would double the work.
        self.bytes.resize(want, 0);
        let read = match self.store.read_at(offset, &mut self.bytes) {
            Ok(n) => n,
            Err(_) => return self.fill_by_sector(offset, len.min(want)),
        };
        self.bytes.truncate(read);
        Ok(())
    }

    /// After a read error: keeps what can be read before the bad sector; fails when the bad sector is among the `len` bytes asked for.
    fn fill_by_sector(&mut self, offset: u64, len: usize) -> Result<(), Unreadable> {
        let mut good = 0;
        while good < self.bytes.len() {
            let at = offset + good as u64;
            let to_boundary =
                usize::try_from(at.next_multiple_of(SECTOR_LEN as u64).max(at + 1) - at).unwrap_or(SECTOR_LEN);
            let end = (good + to_boundary).min(self.bytes.len());
            match self.store.read_at(at, &mut self.bytes[good..end]) {
                Ok(0) => break,
                Ok(n) => good += n,
                Err(_) => {
                    self.bytes.truncate(good);
                    let sector_end = at + to_boundary as u64;
                    return if good < len { Err(Unreadable { readable: good, sector_end }) } else { Ok(()) };
                }
            }
        }
        self.bytes.truncate(good);
        Ok(())
    }
}
