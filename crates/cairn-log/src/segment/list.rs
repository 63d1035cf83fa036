//! The segments of a log by position: a list that is shared, and not copied.
//!
//! The writer has the current list. A reader or follower has the one that was current when it
//! looked, at the cost of counting a reference. Segments are kept in chunks of [`CHUNK`], and the
//! chunks are shared between lists. A change while another list shares them copies one chunk and
//! the references to all: with 10,000 segments 128 segments and 79 references, about 16 KiB, per
//! rotation at most. Nothing is copied when no other list shares them.

use std::sync::Arc;

use crate::place::Lsn;
use crate::segment::file::SegmentFile;

/// Segments in a full chunk.
const CHUNK: usize = 128;

/// Segments by position. Cloning it copies no segment.
#[derive(Clone, Debug, Default)]
pub(crate) struct SegmentList {
    shared: Arc<Chunks>,
}

/// Invariant: every chunk but the last holds [`CHUNK`] segments, and the last one at least one.
#[derive(Clone, Debug, Default)]
struct Chunks {
    chunks: Vec<Arc<Vec<SegmentFile>>>,
    /// Segments at the beginning of the first chunk that are no longer in the list; less than
    /// [`CHUNK`].
    dropped: usize,
}

impl SegmentList {
    pub(crate) fn len(&self) -> usize {
        let all = match self.shared.chunks.split_last() {
            Some((last, full)) => full.len() * CHUNK + last.len(),
            None => 0,
        };
        all - self.shared.dropped
    }

    pub(crate) fn get(&self, nth: usize) -> Option<&SegmentFile> {
        let nth = nth.checked_add(self.shared.dropped)?;
        self.shared.chunks.get(nth / CHUNK)?.get(nth % CHUNK)
    }

    pub(crate) fn last(&self) -> Option<&SegmentFile> {
        self.shared.chunks.last()?.last()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SegmentFile> {
        self.shared.chunks.iter().flat_map(|chunk| chunk.iter()).skip(self.shared.dropped)
    }

    /// Base of the segment behind this one.
    pub(crate) fn next_base(&self, nth: usize) -> Option<Lsn> {
        self.get(nth + 1).map(|next| next.superblock.base_lsn)
    }

    /// How many segments start before `lsn`.
    pub(crate) fn starting_before(&self, lsn: Lsn) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle) {
                Some(segment) if segment.superblock.base_lsn < lsn => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }

    /// How many segments end at or before `lsn`: each ends where the next one starts.
    pub(crate) fn wholly_before(&self, lsn: Lsn) -> usize {
        self.starting_before(lsn.saturating_add(1)).saturating_sub(1)
    }

    pub(crate) fn push(&mut self, segment: SegmentFile) {
        let chunks = &mut Arc::make_mut(&mut self.shared).chunks;
        match chunks.last_mut() {
            Some(last) if last.len() < CHUNK => Arc::make_mut(last).push(segment),
            _ => chunks.push(Arc::new(vec![segment])),
        }
    }

    /// Takes away the segments from number `nth` on.
    pub(crate) fn split_off(&mut self, nth: usize) -> Vec<SegmentFile> {
        let taken: Vec<SegmentFile> = self.iter().skip(nth).copied().collect();
        if nth == 0 {
            *self = SegmentList::default();
        } else if !taken.is_empty() {
            let Chunks { chunks, dropped } = Arc::make_mut(&mut self.shared);
            let kept = nth + *dropped;
            chunks.truncate(kept.div_ceil(CHUNK));
            if let Some(last) = chunks.last_mut().filter(|_| !kept.is_multiple_of(CHUNK)) {
                Arc::make_mut(last).truncate(kept % CHUNK);
            }
        }
        taken
    }

    /// Takes away the first `count` segments.
    pub(crate) fn drop_first(&mut self, count: usize) -> Vec<SegmentFile> {
        let taken: Vec<SegmentFile> = self.iter().take(count).copied().collect();
        if taken.len() == self.len() {
            *self = SegmentList::default();
        } else if !taken.is_empty() {
            let Chunks { chunks, dropped } = Arc::make_mut(&mut self.shared);
            *dropped += taken.len();
            chunks.drain(..*dropped / CHUNK);
            *dropped %= CHUNK;
        }
        taken
    }

    /// Whether the two are one list in memory, of which nothing was copied.
    #[cfg(test)]
    pub(crate) fn is_shared_with(&self, other: &SegmentList) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl FromIterator<SegmentFile> for SegmentList {
    fn from_iter<I: IntoIterator<Item = SegmentFile>>(segments: I) -> Self {
        let mut list = SegmentList::default();
        segments.into_iter().for_each(|segment| list.push(segment));
        list
    }
}

#[cfg(all(test, not(any(cairn_loom, cairn_shuttle))))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::Superblock;
    use crate::place::{Epoch, Place};

    fn segment(base: u64) -> SegmentFile {
        let first = Superblock::first([7; 16], Epoch(1), Place::default(), 1 << 20);
        SegmentFile::new(Superblock { base_lsn: Lsn(base), ..first }, 0)
    }

    fn bases(list: &SegmentList) -> Vec<u64> {
        list.iter().map(|segment| segment.superblock.base_lsn.0).collect()
    }

    #[derive(Clone, Debug)]
    enum Change {
        Push(usize),
        DropFirst(usize),
        SplitOff(usize),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (1..300usize).prop_map(Change::Push),
            (0..400usize).prop_map(Change::DropFirst),
            (0..600usize).prop_map(Change::SplitOff),
        ]
    }

    proptest! {
        /// Against a vector; lists that were cloned before a change stay as they were.
        #[test]
        fn a_list_is_what_a_vector_would_be(changes in prop::collection::vec(change(), 1..30)) {
            let (mut list, mut model, mut next) = (SegmentList::default(), Vec::new(), 0);
            let mut kept = Vec::new();
            for change in changes {
                kept.push((list.clone(), model.clone()));
                let taken: Vec<SegmentFile> = match change {
                    Change::Push(count) => {
                        for _ in 0..count {
                            next += 16;
                            list.push(segment(next));
                            model.push(next);
                        }
                        Vec::new()
                    }
                    Change::DropFirst(count) => list.drop_first(count),
                    Change::SplitOff(nth) => list.split_off(nth),
                };
                let removed: Vec<u64> = match change {
                    Change::Push(_) => Vec::new(),
                    Change::DropFirst(count) => model.drain(..count.min(model.len())).collect(),
                    Change::SplitOff(nth) => model.split_off(nth.min(model.len())),
                };
                let taken: Vec<u64> = taken.iter().map(|s| s.superblock.base_lsn.0).collect();
                prop_assert_eq!(taken, removed);
                prop_assert_eq!(bases(&list), model.clone());
                prop_assert_eq!(list.len(), model.len());
                prop_assert_eq!(list.last().map(|s| s.superblock.base_lsn.0),
                    model.last().copied());
                for lsn in [0, 1, next / 2, next, next + 1] {
                    let before = model.iter().filter(|base| **base < lsn).count();
                    prop_assert_eq!(list.starting_before(Lsn(lsn)), before);
                    let nth = list.get(before).map(|s| s.superblock.base_lsn.0);
                    prop_assert_eq!(nth, model.get(before).copied());
                }
            }
            for (list, model) in kept {
                prop_assert_eq!(bases(&list), model);
            }
        }
    }

    #[test]
    fn a_change_copies_one_chunk_and_shares_the_others() {
        let mut list: SegmentList = (0..10 * CHUNK as u64).map(segment).collect();
        list.push(segment(1 << 40));
        let before = list.clone();
        assert!(list.is_shared_with(&before));
        list.push(segment(1 << 41));
        assert!(!list.is_shared_with(&before));
        let pairs = list.shared.chunks.iter().zip(&before.shared.chunks);
        assert_eq!(pairs.filter(|(a, b)| Arc::ptr_eq(a, b)).count(), 10);
    }
}
