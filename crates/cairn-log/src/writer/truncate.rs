//! Dropping records at either end. Both freeze the log first, so that no append is under way while
//! positions are decided.

use crate::error::{Error, Failure, Result};
use crate::format::{
    CutNote, GROUP_HEADER_LEN, GroupKind, Openings, SegmentName, StateRecord, Superblock,
};
use crate::layout::CreateError;
use crate::mutation::{self, Mutation};
use crate::place::{Cut, Epoch, Lsn, Place, Start};
use crate::segment::carry::Boundary;
use crate::segment::file::SegmentFile;
use crate::segment::space::spend_kept;
use crate::segment::span::seal_before;
use crate::sync::Arc;
use crate::writer::core::Core;
use crate::writer::lead::Leading;

/// So many files of dropped segments are kept to be written on: the disk space of as many segments.
const KEPT_FILES_MAX: usize = 4;

impl Core {
    /// Drops every record before the one at the boundary `lsn`.
    ///
    /// The new head is in the log, durably, before any file goes. In the other order: 1. the first
    /// files are gone, 2. power fails, 3. the log opens with a head that no caller asked for, or
    /// not at all.
    pub(crate) fn truncate_before(&self, lsn: Lsn) -> Result<()> {
        self.check_process()?;
        let mut leading = self.freeze()?;
        // On a full disk the note needs space, also where none can be reserved. What is kept for
        // the next opening is that; it is kept again when there is space.
        if leading.prepared.is_short() && self.layout.lock_file().is_some_and(spend_kept) {
            leading.prepared.note_spent();
        }
        let obsolete = leading.drop_before(lsn);
        leading.phase.thaw();
        leading.finish();
        // Deleted after giving up leadership: unlinking is slow, and no other thread needs to wait
        // for it.
        self.layout.remove(&self.keep_dropped(obsolete?)).map(drop)
    }

    /// Keeps the files of as many of these segments as are worth keeping, to write the next
    /// segments into; returns the others.
    fn keep_dropped(&self, mut segments: Vec<SegmentName>) -> Vec<SegmentName> {
        let mut guard = self.lock();
        // On a full disk the space is wanted elsewhere.
        if !guard.phase.is_over() && !guard.prepared.is_short() {
            let room = KEPT_FILES_MAX.saturating_sub(guard.dropped.len());
            let kept = segments.split_off(segments.len().saturating_sub(room));
            guard.dropped.extend(kept);
        }
        segments
    }

    /// Drops every record after the one that starts at `lsn`.
    pub(crate) fn truncate_after(&self, lsn: Lsn) -> Result<()> {
        self.check_process()?;
        let mut leading = self.freeze()?;
        let result = leading.drop_after(lsn);
        leading.phase.thaw();
        leading.finish();
        result
    }
}

impl<'a> Leading<'a> {
    /// Returns the segments that hold nothing of the log any more.
    fn drop_before(&mut self, lsn: Lsn) -> Result<Vec<SegmentName>> {
        let core = self.core;
        let seek = |leading: &mut Self, lsn| {
            let mut reader = core.reader_of(leading).with_known_numbers();
            if !core.layout.rotates() {
                reader = reader.without_gaps();
            }
            leading.unlocked(|| {
                reader.seek(Start::Lsn(lsn))?;
                Ok::<_, Error>((reader.place(), reader.group_place()))
            })
        };
        let (mut place, mut group) = seek(self, lsn)?;
        let mut sought = place;
        self.holds.ask(place);
        // What is held stays; what is held may change while its place is looked for.
        while !mutation::is(Mutation::IgnoreHolds) && self.holds.allowed() != sought {
            sought = self.holds.allowed();
            if sought.seq > self.head.seq {
                (place, group) = seek(self, sought.lsn)?;
            }
        }
        if sought.seq <= self.head.seq {
            return Ok(Vec::new());
        }
        self.holds.drop_before(place.seq);
        let dropped = self.drop_at(place, group);
        let head = self.head.seq;
        self.holds.drop_before(head);
        dropped
    }

    /// Drops what precedes `place`, which lies in the group that starts at `group`.
    fn drop_at(&mut self, place: Place, group: Place) -> Result<Vec<SegmentName>> {
        let core = self.core;
        let unneeded = self.segments.wholly_before(place.lsn);
        if mutation::is(Mutation::RemoveBeforeNote) {
            let names = names_of(self.segments.iter().take(unneeded));
            let _ = self.unlocked(|| core.layout.remove(&names));
        }
        self.retract_successor()?;
        self.write_note(GroupKind::Head, place)?;
        self.head = place;
        let dropped = names_of(&self.segments.drop_first(unneeded));
        if core.layout.rotates() {
            return Ok(dropped);
        }
        self.origin = group;
        let active = self.active.clone();
        self.unlocked(|| core.layout.drop_beginning(active.offset(group.lsn)))
            .map_err(|e| Error::io("drop the beginning of", &active.path, e))?;
        Ok(dropped)
    }

    fn drop_after(&mut self, lsn: Lsn) -> Result<()> {
        let core = self.core;
        let mut reader = core.reader_of(self).without_gaps();
        let (cut, link) =
            self.unlocked(|| reader.seek_past(lsn).map(|cut| (cut, reader.link())))?;
        if cut.seq == self.end.seq {
            return Ok(());
        }
        if !core.layout.rotates() {
            return self.cut_by_note(cut);
        }
        let group = link.map(|link| link.lsn);
        let chain = link.map_or(self.chain, |link| link.chain);
        self.cut_by_generation(Boundary { place: cut, group, chain })
    }

    /// Cuts by creating one file, a segment of the next generation that starts at or before the
    /// cut.
    ///
    /// The files it supersedes go only then. In the other order: 1. a later segment is gone, 2.
    /// power fails, 3. the log has a hole.
    fn cut_by_generation(&mut self, boundary: Boundary) -> Result<()> {
        let cut = boundary.place;
        let core = self.core;
        let (options, layout) = (&core.options, &*core.layout);
        let step = if mutation::is(Mutation::KeepGeneration) { 0 } else { 1 };
        let generation =
            self.generation().checked_add(step).ok_or(Error::Exhausted { what: "generations" })?;
        let holds_cut = self.segments.starting_before(cut.lsn + 1).saturating_sub(1);
        let from = *self.segments.get(holds_cut).unwrap_or(&self.active.file);
        let known = self.known.max(self.end.lsn);
        let epoch = self.active.epoch;
        let openings = self.openings_from(holds_cut);
        let listed = Openings::of(openings.iter().flatten().copied());
        let note = CutNote { before: None, epoch, lsn: cut.lsn, known, openings: listed };
        let superblock =
            Superblock { cut: Some(note), ..self.superblock(options, generation, from.base()) };
        self.retract_successor()?;
        if mutation::is(Mutation::RemoveBeforeCut) {
            let names = names_of(self.segments.iter().skip(holds_cut + 1));
            let _ = self.unlocked(|| layout.remove(&names));
        }
        let started = match self
            .unlocked(|| layout.start_generation(superblock, &from, boundary, boundary))
        {
            Ok(started) => started,
            Err(CreateError::Unchanged(error)) => return Err(error),
            Err(CreateError::Unknown(error)) => {
                return Err(self.stop(Failure::from(error), None));
            }
        };
        let next = started.active;
        (self.chain, self.known) = (started.chain, known);
        let kept = self.segments.starting_before(next.file.superblock.base_lsn);
        let mut obsolete = names_of(&self.segments.split_off(kept));
        obsolete.retain(|name| *name != next.file.name());
        let (old, old_end) = (self.active.file, self.end.lsn);
        let end = Place { lsn: cut.lsn + GROUP_HEADER_LEN as u64, seq: cut.seq };
        self.start_in(next, end, started.reserved, Lsn::START);
        self.note_cut(cut);
        self.marked = true;
        self.openings = openings;
        self.keep_cut_state()?;
        self.unlocked(|| {
            if !obsolete.contains(&old.name()) {
                // Space that was reserved in it.
                layout.trim(old.name(), old.offset(old_end));
            }
            layout.remove(&obsolete)
        })?;
        self.openings = Some(Vec::new());
        Ok(())
    }

    /// Writes the new generation to the state, durably, before the superseded files are removed. In
    /// the other order: 1. the removal of a superseded file fails, or a power cut brings its name
    /// back, 2. the new segment is lost, 3. the log opens as it was before the cut, and the records
    /// acknowledged since are lost.
    fn keep_cut_state(&mut self) -> Result<()> {
        if mutation::is(Mutation::CutUnstated) {
            return Ok(());
        }
        let (core, state) = (self.core, StateRecord { closed: false, ..self.closed_state() });
        if let Err(error) = self.unlocked(|| core.layout.keep_state(&state)) {
            return Err(self.stop(Failure::from(error), None));
        }
        self.stated = state;
        Ok(())
    }

    /// The openings that wrote the last groups of the segments from this one on, and of what was
    /// cut out of them; `None` if one of them is not known.
    fn openings_from(&mut self, nth: usize) -> Option<Vec<Epoch>> {
        let mut all = self.openings.clone()?;
        all.push(self.active.epoch);
        let mut sealed = Vec::new();
        let mut before = None;
        for (i, segment) in self.segments.iter().skip(nth).enumerate() {
            // What the first one cut is gone, unless the segment before reaches behind its base.
            let cut = segment.superblock.cut.filter(|cut| i > 0 || cut.before.is_some());
            match cut {
                Some(cut) if !cut.openings.are_listed() => return None,
                Some(cut) => {
                    all.extend(cut.openings.iter());
                    // The seal before is of the opening that was cut, or of an older one. Were it
                    // left out: 1. this cut gets its name, 2. the writer is killed before it
                    // removed what it cut, 3. the segment with that seal is taken for a copy's.
                    let end = segment.superblock.base_lsn;
                    sealed.extend(before.filter(|_| cut.before.is_none()).map(|of| (of, end)));
                }
                // It was begun by rotation: the seal before is of the same opening.
                None if i > 0 => all.push(segment.first?.epoch),
                None => {}
            }
            before = Some(*segment);
        }
        let layout = &*self.core.layout;
        let seal = |(of, end): (SegmentFile, Lsn)| seal_before(&layout.open(&of, end).ok()?);
        let seals: Option<Vec<_>> = self.unlocked(|| sealed.into_iter().map(seal).collect());
        all.extend(seals?.iter().map(|seal| seal.epoch));
        Some(all)
    }

    /// Cuts by one group that takes everything between the cut and itself out of the log.
    fn cut_by_note(&mut self, cut: Place) -> Result<()> {
        self.write_note(GroupKind::Cut, cut)?;
        let resumes = self.end.lsn;
        self.cuts.push(Cut { lsn: cut.lsn, seq: cut.seq, resumes });
        Arc::make_mut(&mut self.index).entries.retain(|e| e.lsn < cut.lsn);
        (self.end.seq, self.flushed.seq) = (cut.seq, cut.seq);
        self.note_cut(cut);
        Ok(())
    }
}

fn names_of<'a>(segments: impl IntoIterator<Item = &'a SegmentFile>) -> Vec<SegmentName> {
    segments.into_iter().map(SegmentFile::name).collect()
}
