//! Behind damage: what verifies there, and what is lost with it.
//!
//! Whoever walks and meets damage calls [`Walk::skip`], which says what is lost, and walks on. One
//! mechanism for `verify`, readers, and whatever repairs:
//!
//! | what does not verify | what is looked for behind it |
//! |---|---|
//! | a frame, in a group whose header does | frames of that group, at each multiple of 8 up to its end |
//! | a group's header | the next header that verifies; frames before it, of the openings around |
//! | padding, or a seal's trailer | nothing: the next group is where the header says |
//!
//! A frame is believed by its checksum alone: it covers log, generation, opening and position, so
//! that nothing verifies where it was not written, whatever a payload holds. How long a frame says
//! that it is decides nothing before that.
//!
//! Which numbers the records behind damage have follows from both sides: from the record before it
//! forwards, and from the next group's header backwards. Between the two each piece that is lost
//! holds at least so many records and at most so many, by its length. Where that leaves one
//! possibility it is known; otherwise records are called by the lowest numbers that they can have.

use std::collections::VecDeque;

use crate::error::CorruptionKind;
use crate::format::{ALIGN, GROUP_HEADER_LEN, GroupHeader, GroupKind};
use crate::place::{Chain, Epoch, Lsn, Place, Seq};
use crate::read::finder::Finder;
use crate::read::stretch::{GoesOn, Loss, Part, Region, Run, Stretch, Whose, number};
use crate::read::walk::{Walk, frames_end};
use crate::segment::span::Damage;

impl Walk {
    /// What is lost with the damage that was just met. The walk goes on behind it: with the next
    /// frame that verifies, the next group, or the end of the span. Damage behind it, up to the
    /// next group, is met in turn.
    ///
    /// `end` is where the span ends, with the number of the first record there, if that is known.
    pub(crate) fn skip(&mut self, damage: Damage, end: Option<Place>) -> Loss {
        if let Some(loss) = self.stretch.as_mut().and_then(|stretch| stretch.loss.take()) {
            return loss;
        }
        let mut stretch = self.look_behind(damage);
        stretch.next_seq = stretch.goes_on.map(|on| on.at).or(end).map(|next| next.seq);
        let before = self.numbered.then_some(self.next_seq);
        number(&mut stretch.parts, before, stretch.next_seq);
        let loss = match stretch.parts.pop_front() {
            Some(Part::Lost(loss)) => loss,
            // Nothing is before the end of the span.
            _ => Loss::of(damage.kind, damage.lsn, self.pos.max(damage.lsn), 0, 0),
        };
        self.stretch = Some(stretch);
        self.leave_for(&loss);
        self.resuming(loss)
    }

    /// Goes back to before the damage that was just met.
    pub(crate) fn stand_before_damage(&mut self) {
        if let Some(stretch) = &mut self.stretch
            && let Some(loss) = stretch.loss.take()
        {
            self.pos = loss.lost.from;
            stretch.parts.push_front(Part::Lost(loss));
        }
    }

    /// Stands behind what is lost.
    fn leave_for(&mut self, loss: &Loss) {
        (self.group, self.record, self.pos) = (None, None, loss.lost.to);
        let next = self.stretch.as_ref().and_then(|stretch| match stretch.parts.front() {
            Some(Part::Frames(run)) => Some((run.first_seq, run.numbered)),
            Some(Part::Lost(loss)) => loss.lost.first_seq.map(|seq| (seq, true)),
            None => stretch.next_seq.map(|seq| (seq, true)),
        });
        self.numbered = false;
        if let Some(next) = next {
            (self.next_seq, self.numbered) = next;
        }
    }

    /// Whether the number of the next record is known, or the lowest one that is possible.
    pub(crate) fn is_numbered(&self) -> bool {
        self.numbered
    }

    /// Says which number the next record has.
    pub(crate) fn number(&mut self, seq: Seq) {
        (self.next_seq, self.numbered) = (seq, true);
    }

    /// Where the log goes on behind it: where the walk will stand.
    fn resuming(&self, loss: Loss) -> Loss {
        let Some(stretch) = &self.stretch else { return loss };
        let run = stretch.parts.iter().find_map(|part| match part {
            Part::Frames(run) => Some(run.start),
            Part::Lost(_) => None,
        });
        let resumes = run.or(stretch.goes_on.map(|on| on.at.lsn));
        Loss { resumes, ..loss }
    }

    /// Goes to the next part behind damage that was skipped; `None` when there is none, and groups
    /// follow each other again.
    pub(super) fn next_part(&mut self) -> Option<Result<GroupHeader, Damage>> {
        match self.stretch.as_mut()?.parts.pop_front() {
            Some(Part::Frames(run)) => Some(Ok(self.enter(&run))),
            Some(Part::Lost(loss)) => {
                self.leave_for(&loss);
                let loss = self.resuming(loss);
                if let Some(stretch) = &mut self.stretch {
                    stretch.loss = Some(loss);
                }
                Some(Err(Damage { lsn: loss.lost.from, kind: loss.kind }))
            }
            None => {
                let stretch = self.stretch.take()?;
                (self.group, self.record) = (None, None);
                if let Some(seq) = stretch.next_seq {
                    self.number(seq);
                }
                match stretch.goes_on {
                    Some(GoesOn { at, generation, link }) => {
                        (self.pos, self.generation, self.link) = (at.lsn, generation, link);
                    }
                    None => (self.pos, self.link) = (self.span.end_lsn.max(self.pos), None),
                }
                None
            }
        }
    }

    /// Stands before frames whose group's header may be lost: as if they were a group of their own.
    fn enter(&mut self, run: &Run) -> GroupHeader {
        let before = GROUP_HEADER_LEN as u64;
        let header = GroupHeader {
            kind: run.kind,
            padding: 0,
            len: u32::try_from(run.end.saturating_since(run.start) + before).unwrap_or(u32::MAX),
            generation: run.whose.generation,
            lsn: Lsn(run.start.0.saturating_sub(before)),
            durable_lsn: Lsn::START,
            first_seq: run.first_seq,
            epoch: run.whose.epoch,
            previous: Chain::default(),
        };
        self.set_seed(run.whose.generation, run.whose.epoch);
        (self.pos, self.next_seq, self.numbered) = (run.start, run.first_seq, run.numbered);
        (self.record, self.group, self.link) = (None, Some(header), None);
        header
    }

    /// Finds what verifies behind `damage`, without numbers.
    fn look_behind(&mut self, damage: Damage) -> Stretch {
        let mut stretch = Stretch::default();
        let parts = &mut stretch.parts;
        let Damage { lsn: from, kind } = damage;
        if self.group.is_none() && self.pos > from {
            parts.push_back(Part::Lost(Loss::of(kind, from, self.pos, 0, 0)));
            let numbered = GoesOn {
                at: Place { lsn: self.pos, seq: self.next_seq },
                generation: self.generation,
                link: self.link,
            };
            let next = if self.numbered { None } else { self.header_at(self.pos) };
            stretch.goes_on = Some(next.map_or(numbered, |next| GoesOn::at(&next, self.link)));
            return stretch;
        }
        let (mut from, mut kind) = (from, kind);
        if let Some(group) = self.group {
            let whose = Whose { generation: group.generation, epoch: group.epoch };
            let to = frames_end(&group).min(self.span.end_lsn);
            match group.kind {
                GroupKind::Records => {
                    let region = Region { from, to, kind, frames_only: true };
                    self.find_frames(&region, &[whose], parts);
                }
                _ => parts.push_back(Part::Lost(Loss::of(kind, from, to, 0, 0))),
            }
            self.pos = to;
            match self.finish_group() {
                Ok(next) => from = next,
                Err(padding) => {
                    from = self.pos;
                    let to = from.min(self.span.end_lsn);
                    parts.push_back(Part::Lost(Loss::of(padding.kind, padding.lsn, to, 0, 0)));
                }
            }
            kind = CorruptionKind::Group;
            if from >= self.span.end_lsn {
                return stretch;
            }
            if let Some(next) = self.header_at(from) {
                stretch.goes_on = Some(GoesOn::at(&next, self.link));
                return stretch;
            }
        }
        let next = self.next_header(from + ALIGN);
        let whose = self.openings_around(Damage { lsn: from, kind }, next.as_ref());
        let to = next.map_or(self.span.end_lsn, |next| next.lsn);
        let to = to.min(self.stored_end(from));
        let region = Region { from, to, kind, frames_only: false };
        self.find_frames(&region, &whose, &mut stretch.parts);
        stretch.goes_on = next.map(|next| GoesOn::at(&next, None));
        stretch
    }

    /// The header at `lsn`, if one that can be of this log verifies there.
    fn header_at(&mut self, lsn: Lsn) -> Option<GroupHeader> {
        let bytes = self.window.get(self.span.offset(lsn), GROUP_HEADER_LEN).ok()?;
        let header = GroupHeader::decode(bytes, lsn, self.log)?;
        self.is_possible(&header).then_some(header)
    }

    /// A record may hold a copy of what the log was before a cut.
    fn is_possible(&self, header: &GroupHeader) -> bool {
        let (was, is) = (self.generation, header.generation);
        if self.span.generation_rises { is >= was } else { is == was }
    }

    /// The first header at or behind `from` that verifies and can be of this log.
    pub(crate) fn next_header(&mut self, from: Lsn) -> Option<GroupHeader> {
        let mut found = self.find_group(from);
        while let Some(other) = found.filter(|header| !self.is_possible(header)) {
            found = self.find_group(other.lsn + ALIGN);
        }
        found
    }

    /// Where the bytes that are there end, if that is before the end of the span.
    fn stored_end(&self, from: Lsn) -> Lsn {
        let stored = self.span.store.len().unwrap_or(u64::MAX);
        from.saturating_add(stored.saturating_sub(self.span.offset(from).0))
    }

    /// The openings that may have written what lies between the group before and the `next` one.
    fn openings_around(&mut self, damage: Damage, next: Option<&GroupHeader>) -> Vec<Whose> {
        let of = |generation, epoch| Whose { generation, epoch };
        let mut openings = Vec::new();
        if let Some(link) = self.link.filter(|link| link.epoch != Epoch::default()) {
            openings.push(of(self.generation, link.epoch));
        }
        openings.extend(next.map(|next| of(next.generation, next.epoch)));
        openings.push(of(self.generation, self.span.epoch));
        // The rest of the header may be sound.
        if damage.kind != CorruptionKind::History
            && let Ok(bytes) = self.window.get(self.span.offset(damage.lsn), GROUP_HEADER_LEN)
        {
            let claimed = GroupHeader::claimed_epoch(bytes);
            openings.extend(claimed.map(|epoch| of(self.generation, epoch)));
        }
        let mut distinct: Vec<Whose> = Vec::new();
        for opening in openings {
            if !distinct.contains(&opening) {
                distinct.push(opening);
            }
        }
        distinct
    }

    /// Finds all frames in a region that verify with one of these openings, and what is lost
    /// between them.
    fn find_frames(&mut self, region: &Region, openings: &[Whose], parts: &mut VecDeque<Part>) {
        let mut finder = Finder::new(self, region, openings);
        // What is at `from` does not verify.
        let (mut lost, mut lsn, mut first) = (region.from, region.from + ALIGN, true);
        while lsn < region.to {
            let found = self.find_frame(&mut finder, lsn);
            let start = found.map_or(region.to, |frame| frame.start);
            if lost < start {
                parts.push_back(Part::Lost(region.loss(lost, start, first, finder.zeros)));
            }
            let Some(frame) = found else { return };
            (first, finder.zeros) = (false, true);
            (lost, lsn) = (frame.end, frame.end);
            match parts.back_mut() {
                Some(Part::Frames(run)) if run.takes(&frame) => {
                    (run.end, run.records) = (frame.end, run.records + 1);
                }
                _ => parts.push_back(Part::Frames(frame)),
            }
        }
        if lost < region.to {
            parts.push_back(Part::Lost(region.loss(lost, region.to, first, finder.zeros)));
        }
    }
}
