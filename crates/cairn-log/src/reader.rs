//! Reading records in order, from any position or number.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use cairn_io::{Fs, Store};

use crate::error::{Corruption, Error, Result};
use crate::format::{FrameKind, decode_index};
use crate::mutation::{self, Mutation};
use crate::state::Place;
use crate::survey::SegmentFile;
use crate::tail::{Cut, SparseIndex, seal_before};
use crate::walk::{Span, Walk};
use crate::{Lsn, Seq, Start};

/// A record, with a payload of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    lsn: Lsn,
    seq: Seq,
    end_lsn: Lsn,
    payload: Bytes,
}

impl Record {
    /// Where the record starts.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Its number.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Where it ends, exclusive: a reader or follower that starts here starts with the next record.
    pub fn end_lsn(&self) -> Lsn {
        self.end_lsn
    }

    /// What was appended.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// What was appended, by value.
    pub fn into_payload(self) -> Bytes {
        self.payload
    }
}

/// A record whose payload lies in the reader's buffer, until the next one is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    lsn: Lsn,
    seq: Seq,
    end_lsn: Lsn,
    payload: &'a [u8],
}

impl<'a> RecordRef<'a> {
    /// Where the record starts.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Its number.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Where it ends, exclusive: a reader or follower that starts here starts with the next record.
    pub fn end_lsn(&self) -> Lsn {
        self.end_lsn
    }

    /// What was appended.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// A copy that outlives the reader's buffer.
    pub fn to_record(&self) -> Record {
        let payload = Bytes::copy_from_slice(self.payload);
        Record { lsn: self.lsn, seq: self.seq, end_lsn: self.end_lsn, payload }
    }
}

/// Where a piece's bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Medium {
    Files(Arc<dyn Fs>),
    Store(Arc<dyn Store>),
}

/// A stretch of the log that lies in one segment without a gap.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) file: SegmentFile,
    /// A group starts here.
    pub(crate) start: Place,
    pub(crate) end_lsn: u64,
    /// `None` for a sealed segment, which has its index in its file.
    pub(crate) index: Option<SparseIndex>,
}

impl Piece {
    pub(crate) fn whole(file: SegmentFile, end_lsn: u64) -> Self {
        Piece { start: file.base(), file, end_lsn, index: None }
    }

    /// The parts of `self` that `cuts`, oldest first, left in the log.
    pub(crate) fn without(self, cuts: &[Cut]) -> Vec<Piece> {
        let mut parts = vec![self.clone()];
        for cut in cuts.iter().filter(|cut| cut.resumes > self.start.lsn) {
            parts.retain(|p| p.start.lsn < cut.lsn);
            if let Some(last) = parts.last_mut() {
                last.end_lsn = last.end_lsn.min(cut.lsn);
            }
            parts.push(Piece { start: Place { lsn: cut.resumes, seq: cut.seq }, ..self.clone() });
        }
        parts
    }

    fn open(&self, medium: &Medium) -> Result<Span> {
        match medium {
            Medium::Files(fs) => self.file.open(&**fs, self.end_lsn),
            Medium::Store(store) => Ok(self.file.span(store.clone(), self.end_lsn)),
        }
    }
}

/// Reads records in order, up to where the log ended when the reader was made.
///
/// An iterator over [`Record`]s; [`next_record`](Reader::next_record) reads without allocating per record. Every byte returned
/// was verified. After an error the iterator is over. A reader holds one descriptor. One that reads on and on has a thread that reads ahead, about 1 MiB, where the file
/// system allows [work in the background](cairn_io::Fs::background); dropping it waits for a read that is under way. It keeps working while others append; when a truncation removes what
/// it has not read yet, it ends with [`Error::Truncated`].
#[derive(Debug)]
pub struct Reader {
    medium: Medium,
    /// What is still to be read; the walk is in the first one.
    pieces: VecDeque<Piece>,
    walk: Option<Walk>,
    head: Place,
    end: Place,
    /// Records with lower numbers are passed over.
    first_seq: u64,
    durable_lsn: u64,
    may_read_ahead: bool,
    failed: bool,
}

impl Reader {
    /// A reader that stands at the head.
    pub(crate) fn new(medium: Medium, pieces: Vec<Piece>, head: Place, end: Place, durable_lsn: u64) -> Self {
        Reader {
            medium,
            pieces: pieces.into(),
            walk: None,
            head,
            end,
            first_seq: head.seq,
            durable_lsn,
            may_read_ahead: true,
            failed: false,
        }
    }

    /// Has it read nothing ahead: it may stand still for long, and its thread with it.
    #[must_use]
    pub(crate) fn in_place(mut self) -> Self {
        self.may_read_ahead = false;
        if let Some(walk) = &mut self.walk {
            walk.read_in_place();
        }
        self
    }

    /// Restricts the reader to records that were durable when it was made.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.limit_to(self.durable_lsn);
        self
    }

    fn limit_to(&mut self, end_lsn: u64) {
        self.end.lsn = self.end.lsn.min(end_lsn);
        // The piece the reader stands in stays: that is where a follower goes on.
        let mut first = true;
        self.pieces.retain(|p| std::mem::take(&mut first) || p.start.lsn < end_lsn);
        for piece in &mut self.pieces {
            piece.end_lsn = piece.end_lsn.min(end_lsn);
        }
        if let (Some(walk), Some(piece)) = (&mut self.walk, self.pieces.front()) {
            walk.extend_to(piece.end_lsn);
        }
    }

    /// Reads the next record into the reader's buffer; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the position when what is there does not verify, [`Error::Truncated`] when it was removed meanwhile,
    /// [`Error::Io`] when a segment cannot be opened. The reader is then over: it returns `None`.
    pub fn next_record(&mut self) -> Result<Option<RecordRef<'_>>> {
        let moved = match &mut self.walk {
            Some(walk) if !self.failed => walk.next_record_in_window() && walk.next_seq > self.first_seq,
            _ => false,
        };
        if !moved && !self.move_on()? {
            return Ok(None);
        }
        let Some(walk) = &mut self.walk else {
            return Ok(None);
        };
        match walk.current_record() {
            Some(current) => Ok(Some(RecordRef {
                lsn: Lsn(current.lsn),
                seq: Seq(current.seq),
                end_lsn: Lsn(current.end_lsn),
                payload: current.payload,
            })),
            None => Ok(None),
        }
    }

    /// Moves onto the next record; `false` at the end, and for good after an error.
    #[cold]
    fn move_on(&mut self) -> Result<bool> {
        if self.failed {
            return Ok(false);
        }
        let moved = self.advance();
        self.failed = moved.is_err();
        moved
    }

    /// Moves onto the next record; `false` at the end.
    fn advance(&mut self) -> Result<bool> {
        loop {
            if self.walk.is_none() {
                let Some(piece) = self.pieces.front() else {
                    return Ok(false);
                };
                let start = piece.start;
                self.walk = Some(self.walk_from(start)?);
            }
            let Some(walk) = &mut self.walk else {
                return Ok(false);
            };
            match walk.advance_record() {
                Ok(true) if walk.next_seq <= self.first_seq => {}
                Ok(true) => return Ok(true),
                // The last piece stays: a follower goes on in it.
                Ok(false) if self.pieces.len() == 1 => return Ok(false),
                Ok(false) => {
                    self.walk = None;
                    self.pieces.pop_front();
                }
                Err(damage) => {
                    let corruption = walk.span.corruption(damage, None);
                    return Err(self.damaged(corruption));
                }
            }
        }
    }

    /// What it means that something does not verify.
    ///
    /// The file of a dropped segment may be another segment by now, under another name: what it holds then is no damage. It has lost its name before
    /// anything in it changed.
    fn damaged(&self, corruption: Corruption) -> Error {
        match (&self.medium, self.pieces.front()) {
            (Medium::Files(fs), Some(piece)) if piece.file.is_gone(&**fs) => self.truncated(),
            _ => Error::Corrupt(corruption),
        }
    }

    /// Starts walking at a group of the first piece.
    fn walk_from(&self, group: Place) -> Result<Walk> {
        let Some(piece) = self.pieces.front() else {
            return Err(self.truncated());
        };
        let span = self.open(piece)?;
        let single = matches!(self.medium, Medium::Store(_));
        let mut walk = Walk::new(span, group.lsn, group.seq);
        if !self.may_read_ahead {
            walk.read_in_place();
        }
        Ok(if single { walk.adopting_generation() } else { walk })
    }

    fn open(&self, piece: &Piece) -> Result<Span> {
        piece.open(&self.medium).map_err(|error| match error {
            // Files only go when a truncation made them superfluous.
            Error::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => self.truncated(),
            error => error,
        })
    }

    fn truncated(&self) -> Error {
        Error::Truncated { lsn: Lsn(self.place().lsn) }
    }

    /// The boundary at which the reader stands.
    pub(crate) fn place(&self) -> Place {
        match (&self.walk, self.pieces.front()) {
            (Some(walk), _) => Place { lsn: walk.position(), seq: walk.next_seq },
            (None, Some(piece)) => piece.start,
            (None, None) => self.end,
        }
    }

    pub(crate) fn end_lsn(&self) -> u64 {
        self.end.lsn
    }

    /// Start of the group in which the reader stands.
    pub(crate) fn group_place(&self) -> Place {
        self.walk.as_ref().and_then(Walk::group_place).unwrap_or(self.place())
    }

    /// Moves to `start`.
    pub(crate) fn seek(&mut self, start: Start) -> Result<()> {
        match start {
            Start::Lsn(lsn) if lsn == Lsn::START || lsn.0 == self.head.lsn => self.seek_seq(self.head.seq),
            Start::Lsn(lsn) => self.seek_lsn(lsn),
            Start::Seq(seq) => {
                let (first, end) = (self.head.seq, self.end.seq);
                if seq.0 < first || seq.0 > end {
                    return Err(Error::SeqOutOfRange { seq: seq.0, first, end });
                }
                self.seek_seq(seq.0)
            }
        }
    }

    fn seek_seq(&mut self, seq: u64) -> Result<()> {
        self.first_seq = seq;
        // Segments without a record share their first number with the next one.
        let after = self.pieces.iter().take_while(|p| p.start.seq <= seq).count();
        self.pieces.drain(..after.saturating_sub(1));
        let Some(piece) = self.pieces.front() else {
            return Ok(());
        };
        let group = self.index(piece)?.before_seq(seq).map_or(piece.start, |e| Place { lsn: e.lsn, seq: e.first_seq });
        let mut walk = self.walk_from(if group.lsn < piece.start.lsn { piece.start } else { group })?;
        while walk.next_seq < seq {
            match walk.advance_record() {
                Ok(true) => {}
                Ok(false) => break,
                Err(damage) => return Err(self.damaged(walk.span.corruption(damage, None))),
            }
        }
        self.walk = Some(walk);
        Ok(())
    }

    fn seek_lsn(&mut self, lsn: Lsn) -> Result<()> {
        if lsn.0 < self.head.lsn || lsn.0 > self.end.lsn {
            return Err(Error::OutOfRange { lsn, first: Lsn(self.head.lsn), end: Lsn(self.end.lsn) });
        }
        let previous = self.walk_to(lsn)?;
        match self.walk.as_ref().map(Walk::position) {
            Some(position) if position != lsn.0 && !mutation::is(Mutation::AcceptAnyPosition) => {
                Err(Error::NotARecord { lsn, previous: Lsn(previous) })
            }
            _ => Ok(()),
        }
    }

    /// Walks to the first boundary at or after `lsn`; returns the last one before it.
    fn walk_to(&mut self, lsn: Lsn) -> Result<u64> {
        let after = self.pieces.iter().take_while(|p| p.start.lsn <= lsn.0).count();
        self.pieces.drain(..after.saturating_sub(1));
        let Some(piece) = self.pieces.front() else {
            return Ok(lsn.0);
        };
        let group =
            self.index(piece)?.before_lsn(lsn.0).map_or(piece.start, |e| Place { lsn: e.lsn, seq: e.first_seq });
        let mut walk = self.walk_from(if group.lsn < piece.start.lsn { piece.start } else { group })?;
        let mut previous = walk.position();
        while walk.position() < lsn.0 {
            previous = walk.position();
            match walk.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(damage) => return Err(self.damaged(walk.span.corruption(damage, None))),
            }
        }
        self.walk = Some(walk);
        Ok(previous)
    }

    /// Moves past the record that starts at `lsn`; returns where it ends. Fails unless a record starts exactly there.
    pub(crate) fn seek_past(&mut self, lsn: Lsn) -> Result<Place> {
        if lsn.0 < self.head.lsn || lsn.0 >= self.end.lsn {
            return Err(Error::OutOfRange { lsn, first: Lsn(self.head.lsn), end: Lsn(self.end.lsn) });
        }
        let previous = self.walk_to(lsn)?;
        if self.advance()?
            && let Some(record) = self.walk.as_ref().and_then(Walk::current_record)
            && record.lsn == lsn.0
        {
            return Ok(Place { lsn: record.end_lsn, seq: record.seq + 1 });
        }
        Err(Error::NotARecord { lsn, previous: Lsn(previous) })
    }

    /// Takes over what became readable since the reader was made. Fails when records that were not read yet have been dropped since.
    pub(crate) fn extend(&mut self, later: Reader) -> Result<()> {
        let Some(at) = self.pieces.front().map(|p| p.file.path.clone()) else {
            *self = later;
            return Ok(());
        };
        let from = self.place();
        let Some(known) = later.pieces.iter().position(|p| p.file.path == at && p.end_lsn >= from.lsn) else {
            // The segment was dropped: no harm when only its seal was left.
            if later.pieces.front().is_some_and(|p| p.start.seq > from.seq) {
                self.failed = true;
                return Err(self.truncated());
            }
            let first_seq = self.first_seq;
            *self = Reader { first_seq, ..later };
            return Ok(());
        };
        self.end = later.end;
        self.durable_lsn = later.durable_lsn;
        self.pieces = later.pieces;
        self.pieces.drain(..known);
        if let (Some(walk), Some(piece)) = (&mut self.walk, self.pieces.front()) {
            walk.extend_to(piece.end_lsn);
        }
        Ok(())
    }

    /// The sparse index of a piece, from memory or from the seal of its file; empty where the seal does not verify, which makes a seek slower and nothing else.
    fn index(&self, piece: &Piece) -> Result<SparseIndex> {
        match &piece.index {
            Some(index) => Ok(index.clone()),
            None => Ok(read_index(&self.open(piece)?).unwrap_or_default()),
        }
    }
}

/// Reads the index of a sealed segment, which ends where its span ends.
fn read_index(span: &Span) -> Option<SparseIndex> {
    let seal = seal_before(span)?;
    let seal_lsn = seal.lsn;
    let mut walk = Walk::new(span.clone(), seal_lsn, seal.first_seq);
    walk.next_group().ok()??;
    let (_, frame) = walk.next_frame().ok()??;
    let mut entries = (frame.kind == FrameKind::Index).then(|| decode_index(frame.payload))??;
    entries.retain(|e| e.lsn >= span.base_lsn && e.lsn < seal_lsn);
    Some(SparseIndex { entries })
}

impl Iterator for Reader {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record().map(|record| record.map(|r| r.to_record())).transpose()
    }
}
