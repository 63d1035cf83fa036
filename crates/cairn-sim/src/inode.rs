//! One file: what processes see, what the disk certainly holds, and everything in between.
//!
//! Times are trace positions: the n-th operation of a trace (from 1) happens at time n, and a
//! barrier that *covers* time t settles what happened at or before t.
//!
//! Invariants:
//! 1. A sector of `live` below its length equals the newest pending version of that sector, or
//!    `durable` if none is pending.
//! 2. Versions of a sector (and of the length) are in order of time. The first `doubted` of them
//!    were covered by a failed barrier: the cache calls them clean, so no later barrier writes
//!    them; they may or may not be on the disk.
//! 3. Nothing pending at all implies that `durable` has the bytes and length of `live`.

use std::collections::BTreeMap;

use crate::content::{Content, PAGE, Slot, flip_in, locate, slice_of};
use crate::options::{FailedSync, SectorSize};

/// What a value was at successive times since it was last certainly on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Versions<T> {
    pub(crate) list: Vec<(u64, T)>,
    doubted: usize,
}

impl<T> Default for Versions<T> {
    fn default() -> Self {
        Self { list: Vec::new(), doubted: 0 }
    }
}

impl<T> Versions<T> {
    fn push(&mut self, time: u64, value: T) {
        self.list.push((time, value));
    }

    /// Whether the newest version is one that no barrier will write again.
    fn only_doubted(&self) -> bool {
        !self.list.is_empty() && self.doubted == self.list.len()
    }

    fn covered(&self, covers: u64) -> usize {
        self.list.partition_point(|(time, _)| *time <= covers)
    }

    /// A successful barrier: returns the version that is durable now and forgets it and all older
    /// ones.
    fn settle(&mut self, covers: u64) -> Option<T> {
        let count = self.covered(covers);
        if count <= self.doubted {
            return None;
        }
        self.doubted = 0;
        self.list.drain(..count).next_back().map(|(_, value)| value)
    }

    /// A failed barrier.
    fn doubt(&mut self, covers: u64) {
        self.doubted = self.doubted.max(self.covered(covers));
    }

    pub(crate) fn has_doubted(&self) -> bool {
        self.doubted > 0
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct FileNode {
    pub(crate) live: Content,
    pub(crate) durable: Content,
    /// By sector number: the page as it was right after each change of the sector.
    pub(crate) sectors: BTreeMap<u64, Versions<Slot>>,
    pub(crate) lengths: Versions<u64>,
    /// Failed barriers so far; a handle reports an error when this passed the value it last saw.
    pub(crate) errors: u64,
    changed: u64,
    settled: u64,
}

/// Position of a sector: page number and place in that page.
pub(crate) fn sector_place(sector: u64, size: SectorSize) -> (usize, usize) {
    locate(sector * size.bytes())
}

impl FileNode {
    /// A file whose bytes and length are all on the disk.
    pub(crate) fn settled(content: Content) -> Self {
        Self { live: content.clone(), durable: content, ..Self::default() }
    }

    /// New bytes for all images at once; handles stay what they are.
    pub(crate) fn replace(&mut self, content: Content) {
        *self = Self { errors: self.errors, ..Self::settled(content) };
    }

    /// Whether live and durable are the same, so that this node may be shared with a crash state.
    pub(crate) fn is_settled(&self) -> bool {
        self.sectors.is_empty() && self.lengths.list.is_empty()
    }

    /// Whether something was done to it that no successful barrier has covered.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.is_settled() || self.changed > self.settled
    }

    /// Everything was done before time 1.
    pub(crate) fn forget_times(&mut self) {
        let versions = self.sectors.values_mut().flat_map(|versions| &mut versions.list);
        versions.for_each(|(time, _)| *time = 0);
        self.lengths.list.iter_mut().for_each(|(time, _)| *time = 0);
        (self.changed, self.settled) = (0, 0);
    }

    pub(crate) fn write(&mut self, time: u64, offset: u64, bytes: &[u8], size: SectorSize) {
        if bytes.is_empty() {
            return;
        }
        let old_len = self.live.len();
        let end = offset + bytes.len() as u64;
        self.live.write(offset, bytes);
        self.changed = time;
        if old_len < offset {
            self.capture_changes(time, old_len, offset, size);
        }
        for sector in offset / size.bytes()..=(end - 1) / size.bytes() {
            let (page, _) = sector_place(sector, size);
            let slot = self.live.slot(page);
            self.sectors.entry(sector).or_default().push(time, slot);
        }
        // The kernel raises the length page by page while it copies a long write.
        let mut passed = (old_len / PAGE as u64 + 1) * PAGE as u64;
        while passed < end {
            if passed > offset {
                self.lengths.push(time, passed);
            }
            passed += PAGE as u64;
        }
        if end > old_len || self.lengths.only_doubted() {
            self.lengths.push(time, self.live.len());
        }
    }

    /// A direct write of whole sectors is under way: any of them may have landed.
    pub(crate) fn begin_direct(&mut self, time: u64, offset: u64, bytes: &[u8], size: SectorSize) {
        let changed = self.changed;
        self.write(time, offset, bytes, size);
        // It will owe nothing to a barrier; until then it shows in `sectors`.
        self.changed = changed;
    }

    /// A direct write of whole sectors failed: any of them may have landed, and no barrier settles
    /// which.
    pub(crate) fn fail_direct(&mut self, time: u64, offset: u64, bytes: &[u8], size: SectorSize) {
        self.begin_direct(time, offset, bytes, size);
        let end = offset + bytes.len() as u64;
        for (_, versions) in self.sectors.range_mut(offset / size.bytes()..end / size.bytes()) {
            versions.doubt(time);
        }
    }

    /// The direct write that was begun last returned: its sectors are on the disk, whatever was
    /// pending there, and the length includes them. Of everything else it says nothing.
    pub(crate) fn finish_direct(&mut self, offset: u64, len: u64, size: SectorSize) {
        let end = offset + len;
        for sector in offset / size.bytes()..end / size.bytes() {
            let (page, at) = sector_place(sector, size);
            self.durable.write(sector * size.bytes(), self.live.slice(page, at, size.len()));
            self.sectors.remove(&sector);
        }
        // Each length that a power cut could have left is still possible, except that it is at
        // least `end`. Writing has raised the durable one.
        for (_, length) in &mut self.lengths.list {
            *length = end.max(*length);
        }
        if self.lengths.list.iter().all(|(_, length)| *length == self.durable.len()) {
            self.lengths = Versions::default();
        }
        if self.is_settled() {
            self.durable = self.live.clone();
        }
    }

    pub(crate) fn set_len(&mut self, time: u64, len: u64, size: SectorSize) {
        let old_len = self.live.len();
        self.live.set_len(len);
        self.changed = time;
        if len != old_len || self.lengths.only_doubted() {
            self.lengths.push(time, len);
        }
        if len > old_len {
            self.capture_changes(time, old_len, len, size);
        }
    }

    pub(crate) fn allocate(&mut self, time: u64, offset: u64, len: u64, size: SectorSize) {
        self.live.reserve(offset, len);
        let grown = self.live.len().max(offset + len);
        self.set_len(time, grown, size);
    }

    /// Everything at or before `covers` is on the disk, except what an earlier failed barrier left
    /// in doubt.
    pub(crate) fn sync(&mut self, covers: u64, size: SectorSize) {
        let length = self.lengths.settle(covers).unwrap_or(self.durable.len());
        for (&sector, versions) in &mut self.sectors {
            if let Some(slot) = versions.settle(covers) {
                let (_, at) = sector_place(sector, size);
                self.durable.write(sector * size.bytes(), slice_of(&slot, at, size.len()));
            }
        }
        self.durable.set_len(length);
        self.sectors.retain(|&sector, versions| {
            let cut =
                sector * size.bytes() >= length && versions.covered(covers) == versions.list.len();
            !versions.list.is_empty() && !cut
        });
        if self.is_settled() {
            self.durable = self.live.clone();
        }
        self.settled = self.settled.max(covers);
    }

    /// The write-back of everything at or before `covers` failed; the cache forgets that it is
    /// dirty.
    pub(crate) fn fail_sync(&mut self, covers: u64) {
        self.sectors.values_mut().for_each(|versions| versions.doubt(covers));
        self.lengths.doubt(covers);
        self.errors += 1;
    }

    /// Drops clean pages from the cache: what is read from now on is what the disk turned out to
    /// hold.
    pub(crate) fn evict(&mut self, mode: FailedSync, size: SectorSize) {
        let live_len = self.live.len();
        let durable_len = self.durable.len();
        let grows = !self.lengths.list.is_empty() && !self.lengths.only_doubted();
        // Bytes past the durable length cannot be settled before the length is.
        let held_back = |sector: u64| {
            mode == FailedSync::Persisted && (sector + 1) * size.bytes() > durable_len && grows
        };
        let evicted: Vec<u64> = self
            .sectors
            .iter()
            .filter(|&(&sector, versions)| versions.only_doubted() && !held_back(sector))
            .map(|(&sector, _)| sector)
            .collect();
        for sector in evicted {
            let Some(versions) = self.sectors.remove(&sector) else {
                continue;
            };
            let start = sector * size.bytes();
            let (page, at) = sector_place(sector, size);
            let bytes = match mode {
                FailedSync::Old => self.durable.slice(page, at, size.len()).to_vec(),
                FailedSync::Zeros => vec![0; size.len()],
                FailedSync::Persisted => {
                    let newest =
                        versions.list.last().map(|(_, slot)| slot.clone()).unwrap_or_default();
                    slice_of(&newest, at, size.len()).to_vec()
                }
            };
            self.durable.write(start, &bytes);
            if start < live_len {
                self.live.write(start, &bytes);
            }
        }
        if mode == FailedSync::Persisted && self.lengths.only_doubted() {
            self.lengths = Versions::default();
            self.durable.set_len(live_len);
        } else {
            self.durable.set_len(durable_len);
        }
        self.live.set_len(live_len);
    }

    /// Damage to the medium: the bit changes in every image of the file.
    pub(crate) fn flip_bit(&mut self, offset: u64, mask: u8, size: SectorSize) {
        if offset < self.live.len() {
            self.live.flip(offset, mask);
        }
        if offset < self.durable.len() {
            self.durable.flip(offset, mask);
        }
        if let Some(versions) = self.sectors.get_mut(&(offset / size.bytes())) {
            for (_, slot) in &mut versions.list {
                flip_in(slot, locate(offset).1, mask);
            }
        }
    }

    /// Records the sectors of `from..to` whose live bytes differ from their newest version: the
    /// file grew over bytes that an earlier cut had removed from `live` but maybe not from the
    /// disk.
    fn capture_changes(&mut self, time: u64, from: u64, to: u64, size: SectorSize) {
        let (first, last) = (locate(from).0, locate(to - 1).0);
        for page in first..=last {
            let begin = page as u64 * PAGE as u64 / size.bytes();
            let end = (page as u64 + 1) * PAGE as u64 / size.bytes();
            let quiet = self.live.is_zero_page(page)
                && self.durable.is_zero_page(page)
                && self.sectors.range(begin..end).next().is_none();
            if quiet {
                continue;
            }
            for sector in begin.max(from / size.bytes())..end.min((to - 1) / size.bytes() + 1) {
                let (_, at) = sector_place(sector, size);
                let now = self.live.slice(page, at, size.len());
                let newest = self.sectors.get(&sector).and_then(|versions| versions.list.last());
                let before = match newest {
                    Some((_, slot)) => slice_of(slot, at, size.len()),
                    None => self.durable.slice(page, at, size.len()),
                };
                if now != before {
                    let slot = self.live.slot(page);
                    self.sectors.entry(sector).or_default().push(time, slot);
                }
            }
        }
    }
}
