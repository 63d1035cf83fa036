//! A part of a store in memory, which whoever walks over a segment moves along.

use std::sync::Arc;

use cairn_io::Store;

use crate::error::CorruptionKind;
use crate::format::SECTOR_LEN;
use crate::mutation::{self, Mutation};
use crate::place::{FileOffset, Lsn};
use crate::read::ahead::{CHUNK, ROOM, ReadAhead};
use crate::segment::span::Damage;

/// Where a sector that cannot be read ends in a store that cannot even be measured: there is
/// nothing behind it to look for. Otherwise a search that goes on behind such a sector never ends
/// (L68).
pub(crate) const NO_END: FileOffset = FileOffset(u64::MAX);

/// A read that touched a sector the device cannot read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// Bytes from the offset asked for that can be read before it.
    pub(crate) readable: usize,
    /// File offset one past that sector.
    pub(crate) sector_end: FileOffset,
}

impl Unreadable {
    pub(crate) fn at(&self, lsn: Lsn) -> Damage {
        Damage { lsn, kind: CorruptionKind::Unreadable }
    }
}

/// A part of the store in memory. Never reads at or past `limit`, where a writer may be at work.
#[derive(Debug)]
pub(crate) struct Window {
    store: Arc<dyn Store>,
    pub(crate) limit: FileOffset,
    /// What is in memory, behind `skipped` bytes that mean nothing; `start` is the offset of the
    /// first one behind them.
    bytes: Vec<u8>,
    skipped: usize,
    start: FileOffset,
    /// Bytes to read at once.
    step: usize,
    /// So many times one after the other, as many bytes as are ever read at once were, each time
    /// those that come next.
    steady: u32,
    /// Who has read on so many times will go on. More, when that was of no use.
    patience: u32,
    pub(crate) may_read_ahead: bool,
    ahead: Option<ReadAhead>,
    /// Bytes for which the system refused the memory: what is there was not looked at.
    pub(super) refused: Option<u64>,
}

impl Window {
    const STEP_MIN: usize = 16 << 10;
    const STEP_MAX: usize = CHUNK;
    const PATIENCE: u32 = 2;
    /// What is left must be worth a thread.
    const LEFT_MIN: u64 = 1 << 20;

    /// Looks at `store` up to `limit`. Reads ahead, on a thread of its own, for who goes on and on
    /// in it, if it may.
    pub(crate) fn new(store: Arc<dyn Store>, limit: FileOffset, may_read_ahead: bool) -> Self {
        Window {
            store,
            limit,
            bytes: Vec::new(),
            skipped: 0,
            start: FileOffset(0),
            step: Self::STEP_MIN,
            steady: 0,
            patience: Self::PATIENCE,
            may_read_ahead,
            ahead: None,
            refused: None,
        }
    }

    /// Drops what is in memory, and what was read ahead: the next look reads anew.
    pub(crate) fn forget(&mut self) {
        self.bytes.clear();
        (self.skipped, self.start, self.steady, self.ahead) = (0, FileOffset(0), 0, None);
    }

    /// The bytes from `offset`, at most `len`; fewer only at the limit or the end of the store.
    #[inline]
    pub(crate) fn get(&mut self, offset: FileOffset, len: usize) -> Result<&[u8], Unreadable> {
        if self.held(offset, len).is_some() {
            // Looked up again, because the borrow checker cannot see that nothing is borrowed on
            // the other path.
            return Ok(self.held(offset, len).unwrap_or_default());
        }
        self.fill(offset, len)?;
        let held = self.held_from(offset);
        Ok(&held[..len.min(held.len())])
    }

    /// Bytes that are in memory already.
    #[inline]
    pub(crate) fn held(&self, offset: FileOffset, len: usize) -> Option<&[u8]> {
        let from =
            self.skipped.checked_add(usize::try_from(offset.checked_since(self.start)?).ok()?)?;
        self.bytes.get(from..from.checked_add(len)?)
    }

    /// All the bytes from `offset` on that are in memory already.
    #[inline]
    pub(crate) fn held_from(&self, offset: FileOffset) -> &[u8] {
        let from = offset.checked_since(self.start).and_then(|from| usize::try_from(from).ok());
        from.and_then(|from| self.bytes.get(self.skipped.checked_add(from)?..)).unwrap_or_default()
    }

    /// Between `min` and `max` bytes from `offset`, whatever is at hand; fewer than `min` only at
    /// the limit or the end of the store.
    pub(crate) fn get_some(
        &mut self,
        offset: FileOffset,
        min: usize,
        max: usize,
    ) -> Result<&[u8], Unreadable> {
        if self.held_from(offset).len() < min {
            return self.get(offset, max);
        }
        let held = self.held_from(offset);
        Ok(&held[..max.min(held.len())])
    }

    /// Where to go on from `offset` for who looks for bytes that are not zero, `min` at a time:
    /// behind a hole, if a large one begins there. Smaller ones are read: of what a system says
    /// about them, the less is relied on the better.
    pub(crate) fn behind_hole(&self, offset: FileOffset, min: usize) -> FileOffset {
        const LARGE: u64 = 1 << 20;
        if self.held_from(offset).len() >= min {
            return offset;
        }
        match self.store.data_from(offset.0) {
            Ok(data) if data.saturating_sub(offset.0) >= LARGE => FileOffset(data).min(self.limit),
            _ => offset,
        }
    }

    /// Where what is in memory ends.
    fn end(&self) -> FileOffset {
        self.start + (self.bytes.len() - self.skipped) as u64
    }

    fn fill(&mut self, offset: FileOffset, len: usize) -> Result<(), Unreadable> {
        if self.take_what_was_read_ahead(offset, len) {
            return Ok(());
        }
        let sequential = offset >= self.start && offset <= self.end() && self.end() > self.start;
        self.step = if sequential { (self.step * 2).min(Self::STEP_MAX) } else { Self::STEP_MIN };
        let room = usize::try_from(self.limit.saturating_since(offset)).unwrap_or(usize::MAX);
        // A length from disk allocates no more than the store holds.
        let Ok(stored_len) = self.store.len() else {
            // Nothing can be said of a store that cannot even be measured.
            self.forget();
            return Err(Unreadable { readable: 0, sector_end: NO_END });
        };
        let stored = stored_len.saturating_sub(offset.0);
        let there = room.min(usize::try_from(stored).unwrap_or(usize::MAX));
        let mut want = len.max(self.step).min(there);
        (self.skipped, self.start) = (0, offset);
        if !self.make_room(want) {
            // As much as was asked for, then, without what may come next.
            self.bytes = Vec::new();
            want = len.min(there);
            if !self.make_room(want) {
                self.refused = Some(want as u64);
                return Err(Unreadable { readable: 0, sector_end: NO_END });
            }
        }
        // Growing keeps old bytes in place: the read overwrites them, and zeroing them first would
        // double the work.
        self.bytes.resize(want, 0);
        let read = match self.store.read_at(offset.0, &mut self.bytes) {
            Ok(n) => n,
            Err(_) => return self.fill_by_sector(offset, len.min(want)),
        };
        self.bytes.truncate(read);
        self.steady = if sequential && read >= Self::STEP_MAX { self.steady + 1 } else { 0 };
        if self.may_read_ahead && self.steady >= self.patience {
            self.read_ahead(FileOffset(stored_len).min(self.limit));
        }
        Ok(())
    }

    /// Whether there is memory for so many bytes.
    fn make_room(&mut self, len: usize) -> bool {
        let more = len.saturating_sub(self.bytes.len());
        self.bytes.try_reserve_exact(more).is_ok()
    }

    /// Begins to read ahead, up to `end`, if there is enough left.
    fn read_ahead(&mut self, end: FileOffset) {
        if end.saturating_since(self.end()) >= Self::LEFT_MIN {
            self.ahead = ReadAhead::begin(self.store.clone(), self.end().0, end.0);
        }
    }

    /// Moves on to `offset`, if the `len` bytes from there are in memory and in what was read
    /// ahead. Otherwise that ends, and nothing else has changed.
    fn take_what_was_read_ahead(&mut self, offset: FileOffset, len: usize) -> bool {
        let Some(ahead) = self.ahead.take() else { return false };
        self.steady = 0;
        let end = self.end();
        let kept = self.held_from(offset);
        if offset < self.start || offset > end {
            return false;
        }
        let Some(mut chunk) = ahead.next() else {
            if mutation::is(Mutation::FailedReadIsTheEnd) {
                self.forget();
                return true;
            }
            return false;
        };
        let fits =
            ROOM.checked_sub(kept.len()).filter(|skipped| chunk.bytes.len() - skipped >= len);
        let Some(skipped) = fits.filter(|_| chunk.start == end.0) else {
            // Large records: what begins in one chunk does not end in the next.
            self.patience = self.patience.saturating_mul(4);
            return false;
        };
        chunk.bytes[skipped..ROOM].copy_from_slice(kept);
        ahead.give_back(std::mem::replace(&mut self.bytes, chunk.bytes));
        (self.skipped, self.start, self.ahead) = (skipped, offset, Some(ahead));
        true
    }

    /// After a read error: keeps what can be read before the bad sector; fails when the bad sector
    /// is among the `len` bytes asked for.
    fn fill_by_sector(&mut self, offset: FileOffset, len: usize) -> Result<(), Unreadable> {
        let mut good = 0;
        while good < self.bytes.len() {
            let at = offset + good as u64;
            let to_boundary =
                usize::try_from(at.next_multiple_of(SECTOR_LEN as u64).max(at + 1) - at)
                    .unwrap_or(SECTOR_LEN);
            let end = (good + to_boundary).min(self.bytes.len());
            match self.store.read_at(at.0, &mut self.bytes[good..end]) {
                Ok(0) => break,
                Ok(n) => good += n,
                Err(_) => {
                    self.bytes.truncate(good);
                    let sector_end = at + to_boundary as u64;
                    return if good < len {
                        Err(Unreadable { readable: good, sector_end })
                    } else {
                        Ok(())
                    };
                }
            }
        }
        self.bytes.truncate(good);
        Ok(())
    }
}

#[cfg(all(test, not(any(cairn_loom, cairn_shuttle))))]
mod tests {
    use std::io;

    use super::*;
    use crate::sync::atomic::{AtomicU64, Ordering};
    use crate::sync::thread;

    /// Bytes, some of which cannot be read. Notes what the thread that reads ahead reads, and
    /// whether anybody reads beyond the limit.
    #[derive(Debug)]
    struct Guarded {
        bytes: Vec<u8>,
        bad: Vec<u64>,
        panics: bool,
        ahead: AtomicU64,
        beyond: AtomicU64,
    }

    const LEN: usize = 8 << 20;
    const LIMIT: u64 = LEN as u64 - 100_000;

    fn guarded(bad: &[u64]) -> Guarded {
        let bytes = (0..LEN as u64 / 8)
            .flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes())
            .collect();
        Guarded {
            bytes,
            bad: bad.to_vec(),
            panics: false,
            ahead: AtomicU64::new(0),
            beyond: AtomicU64::new(0),
        }
    }

    impl Store for Guarded {
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
            let end = offset + buf.len() as u64;
            // A panic of the thread that reads ahead would only end it.
            self.beyond.fetch_max(u64::from(end > LIMIT), Ordering::Relaxed);
            if thread::current().name() == Some("cairn-read") {
                let nth = self.ahead.fetch_add(1, Ordering::Relaxed);
                assert!(!self.panics || nth < 3, "told to panic");
            }
            if self.bad.iter().any(|bad| offset < bad + SECTOR_LEN as u64 && *bad < end) {
                return Err(io::Error::other("unreadable"));
            }
            let there =
                self.bytes.get(usize::try_from(offset).expect("small")..).unwrap_or_default();
            let n = there.len().min(buf.len());
            buf[..n].copy_from_slice(&there[..n]);
            Ok(n)
        }
        fn len(&self) -> io::Result<u64> {
            Ok(LEN as u64)
        }
        fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn truncate(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn sync(&self) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Goes from piece to piece, as long as `lens` say in turn, over what cannot be read, and
    /// checks every byte. Returns where something could not be read.
    fn walk(store: Arc<Guarded>, lens: &[usize], may_read_ahead: bool) -> Vec<(u64, usize, u64)> {
        let mut window = Window::new(store.clone(), FileOffset(LIMIT), may_read_ahead);
        let end = LIMIT.min(store.bytes.len() as u64);
        let (mut at, mut failures, mut reads_ahead) = (0, Vec::new(), false);
        for len in lens.iter().cycle() {
            reads_ahead |= window.ahead.is_some();
            match window.get(FileOffset(at), *len) {
                Ok([]) => break,
                Ok(bytes) => {
                    let from = usize::try_from(at).expect("small");
                    assert_eq!(bytes, &store.bytes[from..from + bytes.len()], "at {at}");
                    assert!(bytes.len() == *len || at + bytes.len() as u64 == end, "at {at}");
                    at += bytes.len() as u64;
                }
                Err(bad) => {
                    failures.push((at, bad.readable, bad.sector_end.0));
                    at = bad.sector_end.0;
                }
            }
        }
        assert_eq!((at, reads_ahead), (end, may_read_ahead));
        assert_eq!(store.beyond.load(Ordering::Relaxed), 0, "a writer may be at work there");
        failures
    }

    /// Small pieces, large ones, such as fit in no room before a chunk, and such as fit in no
    /// chunk.
    const LENS: [&[usize]; 7] = [
        &[112],
        &[1040, 8],
        &[16, 65_528, 65_536, 65_544],
        &[262_144],
        &[112; 9000],
        &[8, 100_000, 112],
        &[300_000],
    ];

    #[test]
    fn bytes_are_the_same_whoever_reads_them() {
        for lens in LENS {
            for may_read_ahead in [false, true] {
                let store = Arc::new(guarded(&[]));
                assert_eq!(walk(store.clone(), lens, may_read_ahead), []);
                assert!(may_read_ahead || store.ahead.load(Ordering::Relaxed) == 0);
                assert_eq!(Arc::strong_count(&store), 1, "a thread is left");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_found_where_it_is_whoever_reads() {
        let bad: Vec<u64> = (1..5).map(|n| n * 1_600_000).chain([LIMIT - 900]).collect();
        for lens in LENS {
            let failures = [false, true].map(|ahead| walk(Arc::new(guarded(&bad)), lens, ahead));
            assert!(failures[0].len() >= 5);
            assert_eq!(failures[0], failures[1]);
        }
    }

    #[test]
    fn a_store_that_was_cut_meanwhile_ends_there() {
        for (lens, may_read_ahead) in LENS.iter().flat_map(|lens| [(lens, false), (lens, true)]) {
            let mut store = guarded(&[]);
            store.bytes.truncate(5_000_000);
            assert_eq!(walk(Arc::new(store), lens, may_read_ahead), []);
        }
    }

    #[test]
    fn a_thread_that_dies_leaves_the_rest_to_others() {
        let store = Arc::new(Guarded { panics: true, ..guarded(&[]) });
        assert_eq!(walk(store.clone(), &[112], true), []);
        assert_eq!(Arc::strong_count(&store), 1);
    }

    #[test]
    fn a_window_that_is_dropped_in_the_middle_leaves_no_thread() {
        for reads in [0, 20_000, 21_000, 30_000] {
            let store = Arc::new(guarded(&[]));
            let mut window = Window::new(store.clone(), FileOffset(LIMIT), true);
            for n in 0..reads {
                assert_eq!(window.get(FileOffset(n * 112), 112).unwrap().len(), 112);
            }
            assert_eq!(reads > 0, window.ahead.is_some());
            drop(window);
            assert_eq!(Arc::strong_count(&store), 1);
        }
    }
}
