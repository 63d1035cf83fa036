//! Where a reader starts: at a position, at a number, at the head; behind damage, if need be.

use super::{Reader, skip};
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::mutation::{self, Mutation};
use crate::place::{Lsn, Place, Seq, Start};
use crate::read::walk::Walk;

impl Reader {
    /// Moves to `start`.
    pub(crate) fn seek(&mut self, start: Start) -> Result<()> {
        self.before = None;
        match start {
            Start::Lsn(Lsn::START) => {
                let first = self.pieces.front().map(|piece| piece.segment);
                let gap = first.and_then(|first| self.layout.gap_before(&first));
                self.leading_gap = gap.filter(|gap| gap.to == self.head.lsn);
                self.seek_head()
            }
            Start::Lsn(lsn) if lsn == self.head.lsn => self.seek_head(),
            Start::Lsn(lsn) => self.seek_lsn(lsn),
            Start::Seq(seq) => {
                let (first, end) = (self.head.seq, self.end.seq);
                if seq < first || seq > end {
                    return Err(Error::SeqOutOfRange { seq: seq.0, first: first.0, end: end.0 });
                }
                self.seek_seq(seq)
            }
        }
    }

    /// The head has a position and a number. Behind damage, only one of them may be known of what
    /// is found there.
    fn seek_head(&mut self) -> Result<()> {
        let unsure = match self.seek_seq(self.head.seq) {
            Err(unsure @ Error::Corrupt(_)) => unsure,
            sought => return sought,
        };
        self.walk_to(self.head.lsn)?;
        match &mut self.walk {
            Some(walk) if walk.position() == self.head.lsn => walk.number(self.head.seq),
            _ => return Err(unsure),
        }
        Ok(())
    }

    fn seek_seq(&mut self, seq: Seq) -> Result<()> {
        self.first_seq = seq;
        // Segments without a record share their first number with the next one.
        self.pieces.go_on_while(|start| start.seq <= seq);
        let Some(piece) = self.pieces.front() else {
            return Ok(());
        };
        let group = self
            .index(&piece)?
            .before_seq(seq, piece.end_lsn)
            .map_or(piece.start, |e| Place { lsn: e.lsn, seq: e.first_seq });
        let mut walk =
            self.walk_from(if group.lsn < piece.start.lsn { piece.start } else { group })?;
        // Where it is not known which number the next record has, it is not known either whether
        // the one that is sought was lost: the next group tells.
        let mut met = None;
        while walk.next_seq < seq || is_unsure(&walk, &met) {
            let moved = if is_unsure(&walk, &met) { walk.step() } else { walk.advance_record() };
            match moved {
                Ok(true) => {}
                Ok(false) => break,
                Err(damage) if damage.kind == CorruptionKind::Gap => {
                    if walk.next_seq > seq {
                        walk.stand_before_gap();
                        break;
                    }
                }
                Err(damage) => {
                    let damaged = skip(&mut walk, damage, self.pieces.end_of_front())?;
                    if walk.next_seq > seq || !self.starts_past_damage {
                        return Err(self.damaged(damaged));
                    }
                    met = Some(damaged);
                }
            }
        }
        let passed = is_unsure(&walk, &met) || walk.next_seq > seq;
        if let Some(damaged) = met.filter(|_| passed) {
            return Err(self.damaged(damaged));
        }
        self.walk = Some(walk);
        Ok(())
    }

    fn seek_lsn(&mut self, lsn: Lsn) -> Result<()> {
        if lsn < self.head.lsn || lsn > self.end.lsn {
            return Err(Error::OutOfRange { lsn, first: self.head.lsn, end: self.end.lsn });
        }
        let previous = self.walk_to(lsn)?;
        let strays = |walk: &Walk| walk.position() != lsn && !walk.is_before_gap_around(lsn);
        match self.walk.as_ref().is_some_and(strays) {
            true if !mutation::is(Mutation::AcceptAnyPosition) => {
                Err(Error::NotARecord { lsn, previous })
            }
            _ => Ok(()),
        }
    }

    /// Walks to the first boundary at or after `lsn`; returns the last one before it.
    fn walk_to(&mut self, lsn: Lsn) -> Result<Lsn> {
        self.pieces.go_on_to(lsn);
        let Some(piece) = self.pieces.front() else {
            return Ok(lsn);
        };
        let group = self
            .index(&piece)?
            .before_lsn(lsn, piece.end_lsn)
            .map_or(piece.start, |e| Place { lsn: e.lsn, seq: e.first_seq });
        let mut walk =
            self.walk_from(if group.lsn < piece.start.lsn { piece.start } else { group })?;
        let (mut previous, mut met) = (walk.position(), None);
        while walk.position() < lsn {
            previous = walk.position();
            match walk.step() {
                // Between the last record of the group before and it is only padding.
                Ok(true) if walk.group_place().is_some_and(|group| group.lsn == lsn) => {
                    walk.stand_before_group();
                }
                Ok(true) => {}
                Ok(false) => break,
                Err(damage) if damage.kind == CorruptionKind::Gap => {
                    if walk.position() > lsn {
                        walk.stand_before_gap();
                        break;
                    }
                }
                // Behind padding: that is told to who reads on.
                Err(damage) if damage.lsn == lsn => {
                    walk.stand_before_damage();
                    break;
                }
                Err(damage) => {
                    let damaged = skip(&mut walk, damage, self.pieces.end_of_front())?;
                    if walk.position() > lsn || !self.starts_past_damage {
                        return Err(self.damaged(damaged));
                    }
                    met = Some(damaged);
                }
            }
        }
        let unsure = self.needs_numbers && is_unsure(&walk, &met);
        if let Some(damaged) = met.filter(|_| unsure) {
            return Err(self.damaged(damaged));
        }
        self.walk = Some(walk);
        Ok(previous)
    }

    /// Moves past the record that starts at `lsn`; returns where it ends. Fails unless a record
    /// starts exactly there.
    pub(crate) fn seek_past(&mut self, lsn: Lsn) -> Result<Place> {
        if lsn < self.head.lsn || lsn >= self.end.lsn {
            return Err(Error::OutOfRange { lsn, first: self.head.lsn, end: self.end.lsn });
        }
        let previous = self.walk_to(lsn)?;
        if self.advance()?
            && let Some(record) = self.walk.as_ref().and_then(Walk::current_record)
            && record.lsn == lsn
        {
            return Ok(Place { lsn: record.end_lsn, seq: record.seq + 1 });
        }
        Err(Error::NotARecord { lsn, previous })
    }
}

/// Whether the walk, behind this damage, does not know which number the next record has.
fn is_unsure(walk: &Walk, met: &Option<Corruption>) -> bool {
    met.is_some() && !walk.is_numbered() && !mutation::is(Mutation::GuessNumbers)
}
