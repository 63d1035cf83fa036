//! Reading records in order, from any position or number.

mod seek;

use std::sync::Arc;

use crate::error::{Corruption, CorruptionKind, Dropped, Error, Result};
use crate::gap::Gap;
use crate::layout::Layout;
use crate::place::{Chain, FileOffset, Lsn, Place, Seq, SparseIndex};
use crate::read::piece::{Piece, Pieces, read_index};
use crate::read::record::{Record, RecordRef};
use crate::read::walk::{Link, Walk};
use crate::segment::span::{Damage, Span};

/// Reads records in order, up to where the log ended when the reader was made.
///
/// An iterator over [`Record`]s; [`next_record`](Reader::next_record) reads without allocating per
/// record. Every byte returned was verified. After an error the iterator is over, with one
/// exception: where a repair recorded that records are lost, it returns [`Error::Gap`] once, in
/// their place, and goes on behind them. A reader that starts in a gap starts with that. A reader
/// holds one descriptor. One that reads on and on has a thread that reads ahead, about 1 MiB, where
/// the file system allows [work in the background](cairn_io::Fs::background); dropping it waits for
/// a read that is under way.
///
/// A reader keeps working while others append and truncate. It returns records of the log as it was
/// when the reader was made, never one that was appended later, also where `truncate_after` and new
/// records have reused its positions. If a truncation has removed the file of the next record, it
/// ends with [`Error::Truncated`] and [`Dropped::Unread`]; records of a file that is still there
/// are returned although a truncation took them out of the log. A [`Follower`](crate::Follower)
/// tells the difference.
#[derive(Debug)]
pub struct Reader {
    layout: Arc<dyn Layout>,
    /// What is still to be read; the walk is in the first piece.
    pub(crate) pieces: Pieces,
    walk: Option<Walk>,
    /// The last group of the piece before, where the next one goes on.
    before: Option<Chain>,
    head: Place,
    end: Place,
    /// Records with lower numbers are passed over.
    first_seq: Seq,
    durable_lsn: Lsn,
    may_read_ahead: bool,
    /// What precedes the first segment that is left, and is still to be told.
    leading_gap: Option<Gap>,
    past_damage: bool,
    /// Whether it is moved over damage to where it is to start.
    starts_past_damage: bool,
    /// Whether it is not to start where it does not know which number the next record has.
    needs_numbers: bool,
    failed: bool,
}

impl Reader {
    /// A reader that stands at the head.
    pub(crate) fn new(
        layout: Arc<dyn Layout>,
        pieces: Pieces,
        head: Place,
        end: Place,
        durable_lsn: Lsn,
    ) -> Self {
        Reader {
            layout,
            pieces,
            walk: None,
            before: None,
            head,
            end,
            first_seq: head.seq,
            durable_lsn,
            may_read_ahead: true,
            leading_gap: None,
            past_damage: false,
            starts_past_damage: true,
            needs_numbers: false,
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

    /// Has the reader go on behind damage: each [`Error::Corrupt`] is returned once, in order of
    /// position, and then the records behind it that verify.
    ///
    /// Where it cannot be known how many records are lost, those behind them, up to the next group,
    /// have the lowest numbers that they can have.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let log = cairn_log::Log::open(dir.path().join("log"))?;
    /// # log.commit(b"record")?;
    /// # log.close()?;
    /// use cairn_log::{Error, Inspection, Lsn};
    ///
    /// let look = Inspection::open(dir.path().join("log"))?;
    /// for record in look.reader(Lsn::START)?.past_damage() {
    ///     match record {
    ///         Ok(record) => println!("{}", record.seq()),
    ///         Err(Error::Corrupt(damage)) => eprintln!("lost: {damage}"),
    ///         Err(error) => return Err(error.into()),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn past_damage(mut self) -> Self {
        self.past_damage = true;
        self
    }

    /// Has it refuse places behind damage in a segment: it will be asked which group precedes them.
    #[must_use]
    pub(crate) fn without_gaps(mut self) -> Self {
        self.starts_past_damage = false;
        self
    }

    /// Has it refuse places of which the number is not known, behind damage: it will be written
    /// down.
    #[must_use]
    pub(crate) fn with_known_numbers(mut self) -> Self {
        self.needs_numbers = true;
        self
    }

    fn limit_to(&mut self, end_lsn: Lsn) {
        self.end.lsn = self.end.lsn.min(end_lsn);
        self.pieces.limit_to(end_lsn);
        if let (Some(walk), Some(piece)) = (&mut self.walk, self.pieces.front()) {
            walk.extend_to(piece.end_lsn);
        }
    }

    /// Reads the next record into the reader's buffer; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the position when what is there does not verify,
    /// [`Error::Truncated`] when it was removed meanwhile, [`Error::Io`] when a segment cannot be
    /// opened. The reader is then over: it returns `None`. [`Error::Gap`] where a repair recorded a
    /// loss: the next call returns what lies behind it.
    pub fn next_record(&mut self) -> Result<Option<RecordRef<'_>>> {
        Ok(if self.move_to_next()? { self.current() } else { None })
    }

    /// Moves onto the next record; `false` at the end, and for good after an error.
    #[inline]
    pub(crate) fn move_to_next(&mut self) -> Result<bool> {
        let moved = match &mut self.walk {
            Some(walk) if !self.failed => {
                walk.next_record_in_window() && walk.next_seq > self.first_seq
            }
            _ => false,
        };
        if moved { Ok(true) } else { self.move_on() }
    }

    /// The record that [`move_to_next`](Reader::move_to_next) moved onto.
    #[inline]
    pub(crate) fn current(&self) -> Option<RecordRef<'_>> {
        let current = self.walk.as_ref()?.current_record()?;
        Some(RecordRef {
            lsn: current.lsn,
            seq: current.seq,
            end_lsn: current.end_lsn,
            payload: current.payload,
        })
    }

    /// The same where the next record is not in memory.
    #[cold]
    fn move_on(&mut self) -> Result<bool> {
        if self.failed {
            return Ok(false);
        }
        let moved = self.advance();
        self.failed = match &moved {
            Ok(_) | Err(Error::Gap(_)) => false,
            Err(Error::Corrupt(_)) => !self.past_damage,
            Err(_) => true,
        };
        moved
    }

    /// Moves onto the next record; `false` at the end.
    fn advance(&mut self) -> Result<bool> {
        if let Some(gap) = self.leading_gap.take() {
            return Err(Error::Gap(gap));
        }
        loop {
            if self.walk.is_none() {
                let Some(piece) = self.pieces.front() else {
                    return Ok(false);
                };
                let start = piece.start;
                self.walk = Some(self.walk_from(start)?.behind(self.before.take()));
            }
            let Some(walk) = &mut self.walk else {
                return Ok(false);
            };
            match walk.advance_record() {
                Ok(true) if walk.next_seq <= self.first_seq => {}
                Ok(true) => return Ok(true),
                // The last piece stays: a follower goes on in it.
                Ok(false) if !self.pieces.go_on() => return Ok(false),
                Ok(false) => {
                    // In a store what was cut lies between two pieces.
                    let last = walk.link.filter(|_| self.layout.rotates());
                    self.before = last.map(|link| link.chain);
                    self.walk = None;
                }
                Err(damage) if damage.kind == CorruptionKind::Gap => {
                    let told = walk.told_gap().map(|gap| Error::Gap(Gap::of(gap)));
                    return Err(told.unwrap_or_else(|| self.truncated()));
                }
                Err(damage) => {
                    let end = self.pieces.end_of_front();
                    let skipped = skip(walk, damage, end)?;
                    return Err(self.damaged(skipped));
                }
            }
        }
    }

    /// What it means that something does not verify.
    ///
    /// The file of a dropped segment may be another segment by now, under another name: what it
    /// holds then is no damage. It has lost its name before anything in it changed. A store has no
    /// bytes below its head.
    fn damaged(&self, corruption: Corruption) -> Error {
        let dropped =
            |piece: Piece| self.layout.has_dropped(&piece.segment, FileOffset(corruption.offset));
        let dropped = self.pieces.front().is_some_and(dropped);
        if dropped { self.truncated() } else { Error::Corrupt(corruption) }
    }

    /// Starts walking at a group of the first piece.
    fn walk_from(&self, group: Place) -> Result<Walk> {
        let Some(piece) = self.pieces.front() else {
            return Err(self.truncated());
        };
        let span = self.open(&piece)?;
        let mut walk = Walk::new(span, group.lsn, group.seq);
        walk.tell_gaps();
        if !self.may_read_ahead {
            walk.read_in_place();
        }
        // Where segments do not come and go, a generation may begin inside of one.
        Ok(if self.layout.rotates() { walk } else { walk.adopting_generation() })
    }

    fn open(&self, piece: &Piece) -> Result<Span> {
        self.layout.open(&piece.segment, piece.end_lsn).map_err(|error| match error {
            // Files only go when a truncation made them superfluous.
            Error::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                self.truncated()
            }
            error => error,
        })
    }

    fn truncated(&self) -> Error {
        Error::Truncated { lsn: self.place().lsn, dropped: Dropped::Unread }
    }

    /// The boundary at which the reader stands.
    pub(crate) fn place(&self) -> Place {
        match (&self.walk, self.pieces.front()) {
            (Some(walk), _) => Place { lsn: walk.position(), seq: walk.next_seq },
            (None, Some(piece)) => piece.start,
            (None, None) => self.end,
        }
    }

    pub(crate) fn end_lsn(&self) -> Lsn {
        self.end.lsn
    }

    /// Start of the group in which the reader stands.
    pub(crate) fn group_place(&self) -> Place {
        self.walk.as_ref().and_then(Walk::group_place).unwrap_or(self.place())
    }

    /// The group in which the reader stands, or behind which.
    pub(crate) fn link(&self) -> Option<Link> {
        self.walk.as_ref().and_then(|walk| walk.link)
    }

    /// Takes over what became readable since the reader was made, in a log that was not cut
    /// meanwhile. Gives `later` back, and changes nothing, if the piece in which the reader stands
    /// is no longer in the log: behind it may lie what an earlier cut took out.
    pub(crate) fn extend(&mut self, mut later: Reader) -> Option<Reader> {
        let from = self.place().lsn;
        let here = self.pieces.front().is_some_and(|p| later.pieces.go_to(&p.segment, from));
        if !here {
            return Some(later);
        }
        self.end = later.end;
        self.durable_lsn = later.durable_lsn;
        self.pieces = later.pieces;
        if let (Some(walk), Some(piece)) = (&mut self.walk, self.pieces.front()) {
            walk.extend_to(piece.end_lsn);
        }
        None
    }

    /// The sparse index of a piece, from memory or from the seal of its file; empty where the seal
    /// does not verify, which makes a seek slower and nothing else.
    fn index(&self, piece: &Piece) -> Result<Arc<SparseIndex>> {
        match self.pieces.index() {
            Some(index) => Ok(index.clone()),
            None => Ok(read_index(&self.open(piece)?).unwrap_or_default().into()),
        }
    }
}

/// Has the walk go on behind damage, and says what is lost with it.
fn skip(walk: &mut Walk, damage: Damage, end: Option<Place>) -> Result<Corruption> {
    if let Some(refused) = walk.refused() {
        return Err(refused);
    }
    let loss = walk.skip(damage, end);
    Ok(loss.corruption(&walk.span, end.map(|end| end.lsn)))
}

impl Iterator for Reader {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let copied = |record: Option<RecordRef<'_>>| record.map(|r| r.try_to_record()).transpose();
        self.next_record().and_then(copied).transpose()
    }
}
