//! The log as stretches, each in one segment.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::format::{FrameKind, decode_index};
use crate::place::{Cut, Lsn, Place, SparseIndex};
use crate::read::walk::Walk;
use crate::segment::file::SegmentFile;
use crate::segment::list::SegmentList;
use crate::segment::span::{Span, seal_before};

/// A stretch of the log that lies in one segment without a gap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) segment: SegmentFile,
    /// A group starts here.
    pub(crate) start: Place,
    pub(crate) end_lsn: Lsn,
}

/// What is still to be read of a log as it was at one moment: at least one piece.
///
/// The segments are shared with the writer. So making this costs the same however many there are,
/// and a reader that goes on in the segment in which it stands looks at no other one.
#[derive(Clone, Debug)]
pub(crate) struct Pieces {
    segments: SegmentList,
    /// Number of the segment that holds the first piece.
    first: usize,
    /// How many segments of the list are read; more than `first`.
    count: usize,
    /// Start and end of what the last segment of the list holds of the log, oldest first.
    parts: VecDeque<(Place, Lsn)>,
    /// Where the last segment's groups are.
    index: Arc<SparseIndex>,
    /// Nothing at or behind this position is read.
    end_lsn: Lsn,
}

impl Pieces {
    /// A log that ends at `end_lsn`. In a store it starts at `origin` and lacks what is in `cuts`,
    /// which are oldest first; `index` is of the last segment.
    pub(crate) fn new(
        segments: SegmentList,
        origin: Place,
        cuts: &[Cut],
        end_lsn: Lsn,
        index: Arc<SparseIndex>,
    ) -> Self {
        let base = segments.last().map(SegmentFile::base).unwrap_or_default();
        let parts = without(cuts, base.max(origin), end_lsn);
        let count = segments.len();
        Pieces { segments, first: 0, count, parts, index, end_lsn }
    }

    /// Leaves out what starts at or behind `end_lsn`. The first piece stays: that is where a
    /// follower goes on.
    pub(crate) fn limit_to(&mut self, end_lsn: Lsn) {
        self.end_lsn = self.end_lsn.min(end_lsn);
        self.count = self.segments.starting_before(end_lsn).clamp(self.first + 1, self.count);
        let mut first = self.in_last();
        self.parts.retain(|(start, _)| std::mem::take(&mut first) || start.lsn < end_lsn);
    }

    /// Whether the first piece is of the last segment of the list.
    fn in_last(&self) -> bool {
        self.first + 1 == self.segments.len()
    }

    /// The piece to be read first.
    pub(crate) fn front(&self) -> Option<Piece> {
        self.piece(self.first, 0)
    }

    /// The piece behind that one.
    fn second(&self) -> Option<Piece> {
        if self.in_last() { self.piece(self.first, 1) } else { self.piece(self.first + 1, 0) }
    }

    /// Where the piece to be read first ends, if another one starts there, of which the number of
    /// the first record is known.
    pub(crate) fn end_of_front(&self) -> Option<Place> {
        let (front, next) = (self.front()?, self.second()?);
        let numbered = next.segment.base_seq.is_some() || self.in_last();
        (numbered && next.start.lsn == front.end_lsn).then_some(next.start)
    }

    fn piece(&self, nth: usize, part: usize) -> Option<Piece> {
        let segment = *self.segments.get(nth).filter(|_| nth < self.count)?;
        let (start, end_lsn) = match self.segments.next_base(nth) {
            Some(next) => (segment.base(), next),
            None => *self.parts.get(part)?,
        };
        Some(Piece { segment, start, end_lsn: end_lsn.min(self.end_lsn) })
    }

    /// Goes to the next piece; `false` if there is none: the last one stays.
    pub(crate) fn go_on(&mut self) -> bool {
        let next = self.second().is_some();
        if next && self.in_last() {
            self.parts.pop_front();
        } else if next {
            self.first += 1;
        }
        next
    }

    /// Goes on to the last piece that starts where `wanted` says, of those that follow each other.
    pub(crate) fn go_on_while(&mut self, wanted: impl Fn(Place) -> bool) {
        while self.second().is_some_and(|next| wanted(next.start)) {
            self.go_on();
        }
    }

    /// Goes on to the last piece that starts at or before `lsn`.
    pub(crate) fn go_on_to(&mut self, lsn: Lsn) {
        let segment = self.segments.wholly_before(lsn);
        self.first = segment.clamp(self.first, self.count - 1);
        self.go_on_while(|start| start.lsn <= lsn);
    }

    /// Goes to the piece of `segment` that holds `lsn`, or ends there. Returns `false`, and goes
    /// nowhere, if there is none.
    pub(crate) fn go_to(&mut self, segment: &SegmentFile, lsn: Lsn) -> bool {
        let nth = self.segments.wholly_before(segment.superblock.base_lsn);
        let holds = |part: &usize| {
            self.piece(nth, *part).is_some_and(|piece| {
                piece.segment.name() == segment.name()
                    && (piece.start.lsn..=piece.end_lsn).contains(&lsn)
            })
        };
        let Some(part) = (0..self.parts.len().max(1)).find(holds) else { return false };
        self.first = nth;
        if self.in_last() {
            self.parts.drain(..part);
        }
        true
    }

    /// Where the groups of the first piece are, if that is in memory.
    pub(crate) fn index(&self) -> Option<&Arc<SparseIndex>> {
        self.in_last().then_some(&self.index)
    }

    /// Whether the list of segments is the writer's, and not a copy.
    #[cfg(test)]
    pub(crate) fn is_shared_with(&self, segments: &SegmentList) -> bool {
        self.segments.is_shared_with(segments)
    }
}

/// The parts between `start` and `end_lsn` that `cuts`, oldest first, left in the log.
fn without(cuts: &[Cut], start: Place, end_lsn: Lsn) -> VecDeque<(Place, Lsn)> {
    let mut parts = VecDeque::from([(start, end_lsn)]);
    for cut in cuts.iter().filter(|cut| cut.resumes > start.lsn) {
        parts.retain(|(start, _)| start.lsn < cut.lsn);
        if let Some((_, end)) = parts.back_mut() {
            *end = (*end).min(cut.lsn);
        }
        parts.push_back((Place { lsn: cut.resumes, seq: cut.seq }, end_lsn));
    }
    parts
}

/// Reads the index of a sealed segment, which ends where its span ends.
pub(crate) fn read_index(span: &Span) -> Option<SparseIndex> {
    let seal = seal_before(span)?;
    let seal_lsn = seal.lsn;
    let mut walk = Walk::new(span.clone(), seal_lsn, seal.first_seq);
    walk.next_group().ok()??;
    let (_, frame) = walk.next_frame().ok()??;
    let mut entries = (frame.kind == FrameKind::Index).then(|| decode_index(frame.payload))??;
    entries.retain(|e| e.lsn >= span.base_lsn && e.lsn < seal_lsn);
    Some(SparseIndex { entries })
}
