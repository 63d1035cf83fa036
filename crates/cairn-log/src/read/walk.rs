//! Reading a segment from group to group and frame to frame, believing nothing that does not
//! verify.
//!
//! Recovery, readers, followers and `verify` all walk; they differ in what they make of [`Damage`].
//! Who goes on behind it calls [`skip`](Walk::skip).

use crate::error::{CorruptionKind, Error};
use crate::format::{
    FRAME_HEADER_LEN, Frame, FrameKind, GROUP_HEADER_LEN, GroupHeader, GroupKind, HeadMark, Seed,
    TRAILER_LEN, chain_of, decode_trailer, frame_len, peek_frame_len, read_frame, read_record,
};
use crate::mutation::{self, Mutation};
use crate::place::{Chain, Epoch, Lsn, Place, Seq};
use crate::read::gaps::Ahead;
pub(crate) use crate::read::link::Link;
use crate::read::stretch::Stretch;
use crate::read::window::Window;
use crate::segment::span::{Damage, Span};

/// A cursor over the groups and frames of a [`Span`].
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) span: Span,
    pub(super) window: Window,
    pub(super) log: Seed,
    pub(super) seed: Seed,
    /// The generation and the opening that the seed is of.
    seeded: Option<(u32, Epoch)>,
    pub(crate) generation: u32,
    /// Where the next frame is (inside a group) or the next group (between groups).
    pub(super) pos: Lsn,
    /// Number of the next record.
    pub(crate) next_seq: Seq,
    /// Whether that is known.
    pub(super) numbered: bool,
    pub(super) group: Option<GroupHeader>,
    pub(super) adopt_generation: bool,
    /// The group before the next one, if it was read or is known.
    pub(crate) link: Option<Link>,
    /// Position and payload length of the record just moved over.
    pub(super) record: Option<(Lsn, usize)>,
    /// The gap that comes next.
    pub(super) ahead: Ahead,
    /// What follows the damage that was skipped, up to where groups follow each other again.
    pub(super) stretch: Option<Stretch>,
}

impl Walk {
    /// Starts at the group at `lsn`, whose first record has number `seq` and whose generation is
    /// the span's.
    pub(crate) fn new(span: Span, lsn: Lsn, seq: Seq) -> Self {
        let log = Seed::of_log(span.uuid);
        let window =
            Window::new(span.store.clone(), span.offset(span.end_lsn), span.may_read_ahead);
        let generation = span.generation;
        let numbered = span.is_numbered || lsn != span.base_lsn;
        let mut walk = Walk {
            span,
            window,
            log,
            seed: log,
            seeded: None,
            generation,
            pos: lsn,
            next_seq: seq,
            numbered,
            group: None,
            adopt_generation: false,
            link: None,
            record: None,
            stretch: None,
            ahead: Ahead::default(),
        };
        walk.look_ahead();
        walk
    }

    /// Expects the first group to name this one, whoever wrote it.
    pub(crate) fn behind(mut self, chain: Option<Chain>) -> Self {
        self.link = chain.map(|chain| Link {
            lsn: self.pos,
            chain,
            epoch: Epoch::default(),
            kind: GroupKind::Mark,
        });
        self
    }

    /// Has it read nothing ahead, whatever its span allows.
    pub(crate) fn read_in_place(&mut self) {
        self.window.may_read_ahead = false;
    }

    /// Raises the end of what may be read, after the writer went on.
    pub(crate) fn extend_to(&mut self, end_lsn: Lsn) {
        self.span.end_lsn = end_lsn;
        self.window.limit = self.span.offset(end_lsn);
    }

    /// Position of the next frame, or of the next group.
    pub(crate) fn position(&self) -> Lsn {
        self.pos
    }

    /// Why what was called damaged was not looked at, if the system refused the memory for it.
    /// Then it is no damage, and nothing may be decided by it.
    pub(crate) fn refused(&self) -> Option<Error> {
        self.window.refused.map(|bytes| Error::NoMemoryToRead { lsn: self.pos, bytes })
    }

    /// Goes to the next group, over whatever is left of the current one; `None` at the end of the
    /// span.
    pub(crate) fn next_group(&mut self) -> Result<Option<GroupHeader>, Damage> {
        if let Some(part) = self.next_part() {
            return part.map(Some);
        }
        // The rest of a group that lies beyond the end is for later: a follower's end moves on.
        if self.pos >= self.span.end_lsn {
            return Ok(None);
        }
        self.finish_group()?;
        if self.is_at_gap() {
            self.cross()?;
            return if self.group.is_some() { Ok(self.group) } else { self.next_group() };
        }
        if self.pos >= self.span.end_lsn {
            return Ok(None);
        }
        let lsn = self.pos;
        let damaged = Damage { lsn, kind: CorruptionKind::Group };
        let log = self.log;
        let bytes =
            self.window.get(self.span.offset(lsn), GROUP_HEADER_LEN).map_err(|e| e.at(lsn))?;
        let header = GroupHeader::decode(bytes, lsn, log).ok_or(damaged)?;
        let chain = chain_of(bytes);
        if header.generation != self.generation {
            // Only a store's generation rises inside a segment, and only at the mark that a
            // recovery wrote.
            let rises = header.kind == GroupKind::Mark && header.generation > self.generation;
            if !rises && !self.adopt_generation {
                return Err(damaged);
            }
        }
        if header.first_seq != self.next_seq {
            return Err(damaged);
        }
        let rises = header.generation != self.generation;
        let follows = self.link.is_none_or(|link| match rises {
            true => link.chain == header.previous,
            false => link.is_followed_by(&header),
        });
        if !follows && !mutation::is(Mutation::UnchainedGroups) {
            return Err(Damage { lsn, kind: CorruptionKind::History });
        }
        self.adopt_generation = false;
        self.generation = header.generation;
        self.set_seed(header.generation, header.epoch);
        self.link = Some(Link { lsn, chain, epoch: header.epoch, kind: header.kind });
        self.pos = lsn + GROUP_HEADER_LEN as u64;
        self.group = Some(header);
        Ok(Some(header))
    }

    /// Frames that come are of this generation and opening.
    pub(super) fn set_seed(&mut self, generation: u32, epoch: Epoch) {
        let whose = (generation, epoch);
        if self.seeded != Some(whose) {
            self.seed = Seed::of_frames(self.span.uuid, generation, epoch);
            self.seeded = Some(whose);
        }
    }

    /// The next frame of the current group with its position; `None` at the end of the group or of
    /// the span.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(Lsn, Frame<'_>)>, Damage> {
        self.record = None;
        let within = self.group.as_ref().is_some_and(|group| self.pos < frames_end(group));
        if within && self.is_at_gap() {
            self.cross()?;
        }
        let Some(end) = self.group.as_ref().map(frames_end) else {
            return Ok(None);
        };
        let lsn = self.pos;
        if lsn >= end || lsn >= self.span.end_lsn {
            return Ok(None);
        }
        let of = self.group.as_ref().map(|group| group.kind);
        let damaged = Damage { lsn, kind: of.map_or(CorruptionKind::Record, damaged_kind) };
        let expected = of.and_then(frame_kind);
        let offset = self.span.offset(lsn);
        let bytes = self.window.get(offset, FRAME_HEADER_LEN).map_err(|e| e.at(lsn))?;
        // The length is not verified yet: it only decides how many bytes, of those the verified
        // group has, are looked at.
        let len = peek_frame_len(bytes, end - lsn).ok_or(damaged)?;
        let bytes = self.window.get(offset, len).map_err(|e| e.at(lsn))?;
        let frame = read_frame(bytes, lsn, self.seed)
            .filter(|f| Some(f.kind) == expected)
            .ok_or(damaged)?;
        self.pos = lsn + len as u64;
        match frame.kind {
            FrameKind::Record => {
                self.next_seq += 1;
                self.record = Some((lsn, frame.payload.len()));
            }
            FrameKind::Cut => self.next_seq = HeadMark::decode(frame.payload).ok_or(damaged)?.seq,
            FrameKind::Index | FrameKind::Head => {}
        }
        Ok(Some((lsn, frame)))
    }

    /// Moves over the next frame, or to the next group when the current one is over; `false` at the
    /// end of the span.
    pub(crate) fn step(&mut self) -> Result<bool, Damage> {
        if self.next_frame()?.is_some() {
            return Ok(true);
        }
        Ok(self.next_group()?.is_some())
    }

    /// Moves over the next record, whatever bookkeeping lies before it; `false` at the end of the
    /// span.
    pub(crate) fn advance_record(&mut self) -> Result<bool, Damage> {
        if self.next_record_in_window() {
            return Ok(true);
        }
        loop {
            match self.next_frame()? {
                Some((_, frame)) if frame.kind == FrameKind::Record => return Ok(true),
                Some(_) => {}
                None => {
                    if self.next_group()?.is_none() {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Moves over the next frame if it lies in memory as a whole and is a record's that verifies.
    /// Otherwise `false`, and [`next_frame`](Walk::next_frame) finds out what it is. Nearly all
    /// records go this way, which is short.
    #[inline]
    pub(crate) fn next_record_in_window(&mut self) -> bool {
        let lsn = self.pos;
        let Some(group) = self.group.as_ref().filter(|group| group.kind == GroupKind::Records)
        else {
            return false;
        };
        let end = frames_end(group).min(self.span.end_lsn).min(self.ahead.from);
        let bytes = self.window.held_from(self.span.offset(lsn));
        let record =
            end.checked_since(lsn).and_then(|room| read_record(bytes, room, lsn, self.seed));
        let Some(payload_len) = record else { return false };
        self.record = Some((lsn, payload_len));
        self.pos = lsn + frame_len(payload_len) as u64;
        self.next_seq += 1;
        true
    }

    /// The record that [`advance_record`](Walk::advance_record) just moved over.
    #[inline]
    pub(crate) fn current_record(&self) -> Option<CurrentRecord<'_>> {
        let (lsn, payload_len) = self.record?;
        let payload =
            self.window.held(self.span.offset(lsn) + FRAME_HEADER_LEN as u64, payload_len)?;
        let end_lsn = lsn + frame_len(payload_len) as u64;
        Some(CurrentRecord { lsn, seq: Seq(self.next_seq.0 - 1), end_lsn, payload })
    }

    /// Start of the group the walk is in.
    pub(crate) fn group_place(&self) -> Option<Place> {
        self.group.map(|g| Place { lsn: g.lsn, seq: g.first_seq })
    }

    /// Goes back to before the group that was just entered.
    pub(crate) fn stand_before_group(&mut self) {
        if let Some(group) = self.group.take() {
            (self.pos, self.next_seq, self.link) = (group.lsn, group.first_seq, None);
        }
    }

    /// What the checksums of group headers start from.
    pub(crate) fn log(&self) -> Seed {
        self.log
    }

    /// The header of the group that did not verify, if it was not the header itself.
    pub(crate) fn torn_group(&self) -> Option<GroupHeader> {
        self.group
    }

    /// Accepts whatever generation the first group has: a store's may have risen before it.
    pub(crate) fn adopting_generation(mut self) -> Self {
        self.adopt_generation = true;
        self
    }

    /// Goes to the end of the current group and returns where the next one starts; or to the next
    /// gap, if that begins before.
    pub(crate) fn finish_group(&mut self) -> Result<Lsn, Damage> {
        if let Some(group) = self.group.take() {
            if self.is_cut_by_gap(&group) {
                self.pos = self.ahead.from;
            } else {
                self.leave(&group)?;
            }
        }
        Ok(self.pos)
    }

    /// Skips to the end of `group`. Padding is zero and a trailer is what it must be, so that no
    /// byte of a segment can change unnoticed.
    fn leave(&mut self, group: &GroupHeader) -> Result<(), Damage> {
        let end = frames_end(group);
        let next = group.next_lsn().unwrap_or(Lsn::MAX);
        self.pos = next;
        if end >= self.span.end_lsn {
            return Ok(());
        }
        let tail_lsn = end;
        let tail_len = usize::try_from(next - end).unwrap_or(usize::MAX);
        if tail_len == 0 {
            return Ok(());
        }
        let kind = if group.kind == GroupKind::Seal {
            CorruptionKind::Index
        } else {
            CorruptionKind::Padding
        };
        let damaged = Damage { lsn: tail_lsn, kind };
        let bytes =
            self.window.get(self.span.offset(tail_lsn), tail_len).map_err(|e| e.at(tail_lsn))?;
        let sound = bytes.len() == tail_len
            && match (group.kind, bytes.first_chunk::<TRAILER_LEN>()) {
                (GroupKind::Seal, trailer) => trailer.and_then(decode_trailer) == Some(group.len),
                _ => bytes.iter().all(|b| *b == 0),
            };
        if sound { Ok(()) } else { Err(damaged) }
    }
}

/// A record in the walk's window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CurrentRecord<'a> {
    pub(crate) lsn: Lsn,
    pub(crate) seq: Seq,
    pub(crate) end_lsn: Lsn,
    pub(crate) payload: &'a [u8],
}

/// The kind of the frames in a group of this kind.
fn frame_kind(kind: GroupKind) -> Option<FrameKind> {
    match kind {
        GroupKind::Records => Some(FrameKind::Record),
        GroupKind::Mark => None,
        GroupKind::Seal => Some(FrameKind::Index),
        GroupKind::Head => Some(FrameKind::Head),
        GroupKind::Cut => Some(FrameKind::Cut),
    }
}

/// What is damaged when a frame of such a group is.
fn damaged_kind(kind: GroupKind) -> CorruptionKind {
    match kind {
        GroupKind::Records | GroupKind::Mark => CorruptionKind::Record,
        GroupKind::Seal => CorruptionKind::Index,
        GroupKind::Head | GroupKind::Cut => CorruptionKind::Note,
    }
}

/// Where the frames of a group end: a seal's trailer is not one of them.
pub(super) fn frames_end(group: &GroupHeader) -> Lsn {
    let end = group.frames_end().unwrap_or(Lsn::MAX);
    if group.kind == GroupKind::Seal { Lsn(end.0.saturating_sub(TRAILER_LEN as u64)) } else { end }
}
