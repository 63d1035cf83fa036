//! Walking over gaps that a repair recorded.
//!
//! Nothing in a gap is looked at, also if it verifies again: what was told to be lost stays lost.

use crate::error::CorruptionKind;
use crate::format::{GapNote, GroupHeader, GroupKind};
use crate::place::{Epoch, Lsn};
use crate::read::walk::{Link, Walk};
use crate::segment::span::Damage;

/// Where a walk stands among the gaps of its span.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Number of the next gap.
    nth: usize,
    /// Where it starts; the end of all positions if there is none.
    pub(super) from: Lsn,
    /// Whether the walk stops behind each gap in which records are lost.
    tells: bool,
    /// The gap behind which it did.
    told: Option<GapNote>,
}

impl Default for Ahead {
    fn default() -> Self {
        Ahead { nth: 0, from: Lsn::MAX, tells: false, told: None }
    }
}

impl Walk {
    /// Starts where it stands; if that is in a gap, in front of it.
    pub(super) fn look_ahead(&mut self) {
        let lsn = self.pos;
        // Where the log goes on inside a group, nothing can start without what the gap says.
        let is_over = |gap: &GapNote| gap.to < lsn || gap.to == lsn && gap.group.is_none();
        self.ahead.nth = self.span.gaps.partition_point(is_over);
        self.stop_at_next();
        if self.ahead.from < lsn {
            self.pos = self.ahead.from;
            self.next_seq = self.next_gap().map_or(self.next_seq, |gap| gap.first_seq);
        }
    }

    fn next_gap(&self) -> Option<&GapNote> {
        self.span.gaps.get(self.ahead.nth)
    }

    fn stop_at_next(&mut self) {
        self.ahead.from = self.next_gap().map_or(Lsn::MAX, |gap| gap.from);
    }

    /// From here on gaps in which records are lost are told, each once: as damage of the kind
    /// [`Gap`](CorruptionKind::Gap), behind which the walk goes on.
    pub(crate) fn tell_gaps(&mut self) {
        self.ahead.tells = true;
    }

    /// The gap that was told last.
    pub(crate) fn told_gap(&self) -> Option<&GapNote> {
        self.ahead.told.as_ref()
    }

    /// Goes back in front of the gap that was told last.
    pub(crate) fn stand_before_gap(&mut self) {
        let Some(gap) = self.ahead.told.take() else { return };
        self.ahead.nth = self.ahead.nth.saturating_sub(1);
        self.stop_at_next();
        (self.group, self.record, self.pos, self.next_seq) = (None, None, gap.from, gap.first_seq);
    }

    /// Whether a gap starts where the walk stands, and the span does not end there.
    #[inline]
    pub(super) fn is_at_gap(&self) -> bool {
        self.pos >= self.ahead.from && self.pos < self.span.end_lsn
    }

    /// Whether it is among frames that verify behind damage it skipped, in a group whose header may
    /// be lost.
    pub(crate) fn is_behind_damage(&self) -> bool {
        self.stretch.is_some()
    }

    /// Whether it stands in front of a gap.
    pub(crate) fn is_before_gap(&self) -> bool {
        self.pos == self.ahead.from
    }

    /// Whether it stands in front of a gap that holds this position.
    pub(crate) fn is_before_gap_around(&self, lsn: Lsn) -> bool {
        let holds = |gap: &GapNote| (gap.from..gap.to).contains(&lsn);
        self.is_before_gap() && self.next_gap().is_some_and(holds)
    }

    /// Whether the next gap begins before the group and its padding end.
    pub(super) fn is_cut_by_gap(&self, group: &GroupHeader) -> bool {
        group.next_lsn().is_none_or(|next| next > self.ahead.from)
    }

    /// Steps over the gap at which the walk stands: into a group, or to where the next one starts.
    pub(super) fn cross(&mut self) -> Result<(), Damage> {
        let Some(gap) = self.next_gap().copied() else { return Ok(()) };
        self.ahead.nth += 1;
        self.stop_at_next();
        if gap.to <= self.pos {
            return Ok(());
        }
        self.record = None;
        self.pos = gap.to.min(self.span.end_lsn);
        self.next_seq = gap.seq;
        // What precedes the group is lost: any opening may have written the next one.
        let (epoch, kind) = match gap.group {
            Some(group) if group.is_head => (group.epoch, GroupKind::Head),
            Some(group) => (group.epoch, GroupKind::Records),
            None => (Epoch::default(), GroupKind::Mark),
        };
        self.link = gap.chain.map(|chain| Link { lsn: gap.from, chain, epoch, kind });
        self.group = gap.group.filter(|_| gap.to < self.span.end_lsn).map(|group| {
            self.generation = group.generation;
            self.set_seed(group.generation, group.epoch);
            let bytes = |from: Lsn, to: Lsn| u32::try_from(to.saturating_since(from));
            GroupHeader {
                kind,
                padding: bytes(group.frames_end, group.end).unwrap_or(u32::MAX),
                len: bytes(gap.to, group.frames_end).unwrap_or(u32::MAX),
                generation: group.generation,
                lsn: gap.to,
                durable_lsn: Lsn::START,
                first_seq: gap.seq,
                epoch: group.epoch,
                previous: gap.chain.unwrap_or_default(),
            }
        });
        if self.ahead.tells && gap.is_told() {
            self.ahead.told = Some(gap);
            return Err(Damage { lsn: gap.from, kind: CorruptionKind::Gap });
        }
        Ok(())
    }

    /// Steps over gaps from one boundary of groups to another one; whether there was one.
    pub(crate) fn cross_to_boundary(&mut self) -> bool {
        let is_boundary = |walk: &Self| walk.next_gap().is_some_and(|gap| gap.group.is_none());
        let mut crossed = false;
        while self.group.is_none() && self.is_at_gap() && is_boundary(self) {
            crossed = true;
            // It is not told: nobody reads here.
            let _ = self.cross();
        }
        crossed
    }
}
