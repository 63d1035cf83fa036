//! What one segment lost: a walk over all of it, on behind every damage.

use crate::error::Result;
use crate::format::{FrameKind, GapGroup, GapNote, GroupHeader, GroupKind, SegmentKey};
use crate::place::{Lsn, Place};
use crate::read::walk::Walk;
use crate::segment::span::{Damage, Span};

/// What a segment holds, and what it lost.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) gaps: Vec<GapNote>,
    pub(super) records: u64,
    /// Where the last of it that verifies ends, and the number of the next record.
    pub(super) end: Place,
    /// Whether the last gap begins inside of a group.
    pub(super) ends_in_group: bool,
}

/// Walks over `span`, the segment `segment`. If another one follows, it starts at `next`.
pub(super) fn scan(
    span: Span,
    segment: SegmentKey,
    next: Option<Place>,
    in_place: bool,
) -> Result<Scanned> {
    let start = Place { lsn: span.base_lsn, seq: span.base_seq };
    let mut walk = Walk::new(span, start.lsn, start.seq);
    if in_place {
        walk.read_in_place();
    }
    let mut scan = Scan {
        segment,
        next,
        gaps: Vec::new(),
        open: Open::No,
        in_group: false,
        records: 0,
        end: start,
    };
    loop {
        match walk.next_group() {
            Ok(None) => break,
            Ok(Some(header)) => {
                scan.enter(&walk, &header);
                scan.frames(&mut walk)?;
            }
            Err(damage) => scan.lose(&mut walk, damage, false)?,
        }
    }
    scan.finish(walk.span.end_lsn);
    let Scan { gaps, records, end, in_group, .. } = scan;
    Ok(Scanned { gaps, records, end, ends_in_group: in_group })
}

/// What of the last gap is still to be found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    /// Nothing.
    No,
    /// Where the log goes on.
    Onward,
    /// What follows the group in which it does.
    Group,
}

struct Scan {
    segment: SegmentKey,
    next: Option<Place>,
    gaps: Vec<GapNote>,
    open: Open,
    /// Whether the last gap begins inside of a group.
    in_group: bool,
    records: u64,
    end: Place,
}

impl Scan {
    /// Moves over the frames of a group.
    fn frames(&mut self, walk: &mut Walk) -> Result<()> {
        let damage = loop {
            while walk.next_record_in_window() {
                self.records += 1;
            }
            match walk.next_frame() {
                Ok(Some((_, frame))) => {
                    self.records += u64::from(frame.kind == FrameKind::Record);
                }
                Ok(None) => break None,
                Err(damage) => break Some(damage),
            }
        };
        self.end = Place { lsn: walk.position(), seq: walk.next_seq };
        match damage {
            Some(damage) => self.lose(walk, damage, true),
            None => Ok(()),
        }
    }

    /// Has the walk go on behind damage, and notes what is lost with it.
    fn lose(&mut self, walk: &mut Walk, damage: Damage, in_group: bool) -> Result<()> {
        if let Some(refused) = walk.refused() {
            return Err(refused);
        }
        let before = walk.next_seq;
        let lost = walk.skip(damage, self.next).lost;
        let seq = walk.next_seq;
        let first_seq = lost.first_seq.unwrap_or(before).min(seq);
        let counted = lost.first_seq.is_some() && lost.records.is_some();
        let to = lost.to.max(lost.from);
        self.note(
            GapNote { from: lost.from, to, first_seq, seq, counted, ..self.nothing() },
            in_group,
        );
        Ok(())
    }

    fn nothing(&self) -> GapNote {
        GapNote {
            segment: self.segment,
            from: Lsn::START,
            to: Lsn::START,
            first_seq: self.end.seq,
            seq: self.end.seq,
            counted: true,
            chain: None,
            group: None,
        }
    }

    /// Adds a gap, or makes the last one longer.
    fn note(&mut self, gap: GapNote, in_group: bool) {
        match self.gaps.last_mut() {
            // Nothing between the two verifies.
            Some(last) if self.open == Open::Onward => {
                (last.to, last.seq) = (last.to.max(gap.to), last.seq.max(gap.seq));
                last.counted &= gap.counted;
            }
            _ => {
                self.in_group = in_group;
                self.gaps.push(gap);
            }
        }
        self.open = Open::Onward;
    }

    /// The walk stands before the frames of this group.
    fn enter(&mut self, walk: &Walk, header: &GroupHeader) {
        let here = Place { lsn: walk.position(), seq: walk.next_seq };
        if walk.is_behind_damage() {
            self.enter_behind_damage(header, here);
            return;
        }
        let open = std::mem::replace(&mut self.open, Open::No);
        let Some(gap) = self.gaps.last_mut().filter(|_| open != Open::No) else { return };
        gap.chain = Some(header.previous);
        match &mut gap.group {
            Some(group) => group.end = header.lsn,
            None => (gap.to, gap.seq) = (header.lsn, header.first_seq),
        }
        gap.first_seq = gap.first_seq.min(gap.seq);
    }

    /// The same for frames whose own header may be lost.
    fn enter_behind_damage(&mut self, header: &GroupHeader, here: Place) {
        let frames_end = header.frames_end().unwrap_or(Lsn::MAX);
        if self.open != Open::Onward {
            // Zeros precede it, and no record.
            let from = self.end.lsn;
            self.note(GapNote { from, to: here.lsn, ..self.nothing() }, false);
        }
        let Some(gap) = self.gaps.last_mut() else { return };
        if !matches!(header.kind, GroupKind::Records | GroupKind::Head) {
            // An index without its header is of no use.
            gap.to = frames_end;
            return;
        }
        (gap.to, gap.seq) = (here.lsn, here.seq);
        gap.group = Some(GapGroup {
            is_head: header.kind == GroupKind::Head,
            generation: header.generation,
            epoch: header.epoch,
            frames_end,
            end: frames_end,
        });
        self.open = Open::Group;
    }

    /// The walk is over: the last gap, if nothing verifies behind it, reaches up to the end.
    fn finish(&mut self, end_lsn: Lsn) {
        let end = self.next.unwrap_or(Place { lsn: end_lsn, seq: self.end.seq });
        if self.open == Open::Group && self.end.lsn < end.lsn {
            let from = self.end.lsn;
            self.note(GapNote { from, counted: self.next.is_some(), ..self.nothing() }, false);
        }
        if let Some(gap) = self.gaps.last_mut().filter(|_| self.open == Open::Onward) {
            gap.to = end.lsn;
            gap.seq = gap.seq.max(end.seq);
        }
    }
}
