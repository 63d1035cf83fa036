//! Reading a segment from group to group and frame to frame, believing nothing that does not verify.
//!
//! Recovery, readers, followers and `verify` all walk; they differ in what they make of [`Damage`].

use std::path::PathBuf;
use std::sync::Arc;

use cairn_io::Store;
use uuid::Uuid;

use crate::Lsn;
use crate::error::{Corruption, CorruptionKind};
use crate::format::{
    ALIGN, ALIGN_LEN, DATA_OFFSET, FRAME_HEADER_LEN, Frame, FrameKind, GROUP_HEADER_LEN, GroupHeader, GroupKind,
    HeadMark, SECTOR_LEN, Seed, TRAILER_LEN, decode_trailer, frame_len, peek_frame_len, read_frame, read_record,
};
use crate::state::Place;
use crate::window::Window;

/// The readable part of one segment.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) path: PathBuf,
    pub(crate) uuid: Uuid,
    /// Generation of the frames at `base_lsn`.
    pub(crate) generation: u32,
    pub(crate) base_lsn: u64,
    pub(crate) base_seq: u64,
    /// Whether something else than zeros may lie behind the last group: what the file held before it became this segment.
    pub(crate) recycled: bool,
    /// Exclusive: nothing at or after this position belongs to the log. `u64::MAX` when the end is to be found.
    pub(crate) end_lsn: u64,
    /// Whether a thread of its own may read ahead for who reads on and on.
    pub(crate) may_read_ahead: bool,
}

impl Span {
    /// File offset of the byte at `lsn`; saturates, because positions past `u64::MAX` do not exist.
    pub(crate) fn offset(&self, lsn: u64) -> u64 {
        DATA_OFFSET.saturating_add(lsn.saturating_sub(self.base_lsn))
    }

    /// In a recycled segment: one past the last byte that a write which began at `end` left in the sector in which the log ends there; `end` if there is none.
    ///
    /// Each flush fills its last sector up with zeros, and the segment began with zeros. A group that ends with a sector has none to fill: behind it nothing can be told.
    pub(crate) fn written_behind(&self, end: u64) -> u64 {
        let offset = self.offset(end);
        let sector = SECTOR_LEN as u64;
        let first = end == self.base_lsn;
        let rest = if first { sector } else { offset.next_multiple_of(sector) - offset };
        let mut bytes = [0; SECTOR_LEN];
        let bytes = &mut bytes[..usize::try_from(rest).unwrap_or(SECTOR_LEN)];
        // What cannot be read was found to be that before.
        let read = self.store.read_at(offset, bytes).unwrap_or(0);
        bytes[..read].iter().rposition(|b| *b != 0).map_or(end, |last| end + last as u64 + 1)
    }

    pub(crate) fn corruption(&self, damage: Damage, resumes: Option<u64>) -> Corruption {
        Corruption {
            path: self.path.clone(),
            lsn: Lsn(damage.lsn),
            offset: self.offset(damage.lsn),
            resumes: resumes.map(Lsn),
            kind: damage.kind,
        }
    }
}

/// The first bytes that do not verify. Whether that is the end, a torn tail or corruption is for the caller to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Start of the group or frame.
    pub(crate) lsn: u64,
    pub(crate) kind: CorruptionKind,
}

/// A cursor over the groups and frames of a [`Span`].
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) span: Span,
    window: Window,
    log: Seed,
    seed: Seed,
    pub(crate) generation: u32,
    /// Where the next frame is (inside a group) or the next group (between groups).
    pos: u64,
    /// Number of the next record.
    pub(crate) next_seq: u64,
    group: Option<GroupHeader>,
    adopt_generation: bool,
    /// Position and payload length of the record just moved over.
    record: Option<(u64, usize)>,
}

impl Walk {
    /// Starts at the group at `lsn`, whose first record has number `seq` and whose generation is the span's.
    pub(crate) fn new(span: Span, lsn: u64, seq: u64) -> Self {
        let log = Seed::of_log(span.uuid);
        let seed = Seed::of_generation(span.uuid, span.generation);
        let window = Window::new(span.store.clone(), span.offset(span.end_lsn), span.may_read_ahead);
        let generation = span.generation;
        Walk {
            span,
            window,
            log,
            seed,
            generation,
            pos: lsn,
            next_seq: seq,
            group: None,
            adopt_generation: false,
            record: None,
        }
    }

    /// Has it read nothing ahead, whatever its span allows.
    pub(crate) fn read_in_place(&mut self) {
        self.window.may_read_ahead = false;
    }

    /// Raises the end of what may be read, after the writer went on.
    pub(crate) fn extend_to(&mut self, end_lsn: u64) {
        self.span.end_lsn = end_lsn;
        self.window.limit = self.span.offset(end_lsn);
    }

    /// Position of the next frame, or of the next group.
    pub(crate) fn position(&self) -> u64 {
        self.pos
    }

    /// Goes to the next group, over whatever is left of the current one; `None` at the end of the span.
    pub(crate) fn next_group(&mut self) -> Result<Option<GroupHeader>, Damage> {
        // The rest of a group that lies beyond the end is for later: a follower's end moves on.
        if self.pos >= self.span.end_lsn {
            return Ok(None);
        }
        self.finish_group()?;
        if self.pos >= self.span.end_lsn {
            return Ok(None);
        }
        let lsn = self.pos;
        let damaged = Damage { lsn, kind: CorruptionKind::Group };
        let log = self.log;
        let bytes = self.window.get(self.span.offset(lsn), GROUP_HEADER_LEN).map_err(|e| e.at(lsn))?;
        let header = GroupHeader::decode(bytes, lsn, log).ok_or(damaged)?;
        if header.generation != self.generation {
            // Only a store's generation rises inside a segment, and only at the mark that a recovery wrote.
            let rises = header.kind == GroupKind::Mark && header.generation > self.generation;
            if !rises && !self.adopt_generation {
                return Err(damaged);
            }
            self.generation = header.generation;
            self.seed = Seed::of_generation(self.span.uuid, header.generation);
        }
        self.adopt_generation = false;
        if header.first_seq != self.next_seq {
            return Err(damaged);
        }
        self.pos = lsn + GROUP_HEADER_LEN as u64;
        self.group = Some(header);
        Ok(Some(header))
    }

    /// The next frame of the current group with its position; `None` at the end of the group or of the span.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(u64, Frame<'_>)>, Damage> {
        self.record = None;
        let Some(end) = self.group.as_ref().map(frames_end) else {
            return Ok(None);
        };
        let lsn = self.pos;
        if lsn >= end || lsn >= self.span.end_lsn {
            return Ok(None);
        }
        let damaged = Damage { lsn, kind: CorruptionKind::Record };
        let expected = self.group.as_ref().and_then(|group| frame_kind(group.kind));
        let offset = self.span.offset(lsn);
        let bytes = self.window.get(offset, FRAME_HEADER_LEN).map_err(|e| e.at(lsn))?;
        // The length is not verified yet: it only decides how many bytes, of those the verified group has, are looked at.
        let len = peek_frame_len(bytes, end - lsn).ok_or(damaged)?;
        let bytes = self.window.get(offset, len).map_err(|e| e.at(lsn))?;
        let frame = read_frame(bytes, lsn, self.seed).filter(|f| Some(f.kind) == expected).ok_or(damaged)?;
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

    /// Moves over the next frame, or to the next group when the current one is over; `false` at the end of the span.
    pub(crate) fn step(&mut self) -> Result<bool, Damage> {
        if self.next_frame()?.is_some() {
            return Ok(true);
        }
        Ok(self.next_group()?.is_some())
    }

    /// Moves over the next record, whatever bookkeeping lies before it; `false` at the end of the span.
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

    /// Moves over the next frame if it lies in memory as a whole and is a record's that verifies. Otherwise `false`, and
    /// [`next_frame`](Walk::next_frame) finds out what it is. Nearly all records go this way, which is short.
    #[inline]
    pub(crate) fn next_record_in_window(&mut self) -> bool {
        let lsn = self.pos;
        let Some(group) = self.group.as_ref().filter(|group| group.kind == GroupKind::Records) else { return false };
        let end = frames_end(group).min(self.span.end_lsn);
        let bytes = self.window.held_from(self.span.offset(lsn));
        let record = end.checked_sub(lsn).and_then(|room| read_record(bytes, room, lsn, self.seed));
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
        let payload = self.window.held(self.span.offset(lsn) + FRAME_HEADER_LEN as u64, payload_len)?;
        let end_lsn = lsn + frame_len(payload_len) as u64;
        Some(CurrentRecord { lsn, seq: self.next_seq - 1, end_lsn, payload })
    }

    /// Start of the group the walk is in.
    pub(crate) fn group_place(&self) -> Option<Place> {
        self.group.map(|g| Place { lsn: g.lsn, seq: g.first_seq })
    }

    /// Accepts whatever generation the first group has: a store's may have risen before it.
    pub(crate) fn adopting_generation(mut self) -> Self {
        self.adopt_generation = true;
        self
    }

    /// Goes to the end of the current group and returns where the next one starts.
    pub(crate) fn finish_group(&mut self) -> Result<u64, Damage> {
        if let Some(group) = self.group.take() {
            self.leave(&group)?;
        }
        Ok(self.pos)
    }

    /// Skips to the end of `group`. Padding is zero and a trailer is what it must be, so that no byte of a segment can change unnoticed.
    fn leave(&mut self, group: &GroupHeader) -> Result<(), Damage> {
        let end = frames_end(group);
        let next = group.next_lsn().unwrap_or(u64::MAX);
        self.pos = next;
        if end >= self.span.end_lsn {
            return Ok(());
        }
        let tail_lsn = end;
        let tail_len = usize::try_from(next - end).unwrap_or(usize::MAX);
        if tail_len == 0 {
            return Ok(());
        }
        let kind = if group.kind == GroupKind::Seal { CorruptionKind::Index } else { CorruptionKind::Record };
        let damaged = Damage { lsn: tail_lsn, kind };
        let bytes = self.window.get(self.span.offset(tail_lsn), tail_len).map_err(|e| e.at(tail_lsn))?;
        let sound = bytes.len() == tail_len
            && match (group.kind, bytes.first_chunk::<TRAILER_LEN>()) {
                (GroupKind::Seal, trailer) => trailer.and_then(decode_trailer) == Some(group.len),
                _ => bytes.iter().all(|b| *b == 0),
            };
        if sound { Ok(()) } else { Err(damaged) }
    }

    /// The first group at or after `from` that verifies, whatever lies between; its watermark proves what lies below it.
    pub(crate) fn find_group(&mut self, from: u64) -> Option<GroupHeader> {
        const STEP: usize = 64 << 10;
        let mut lsn = from.next_multiple_of(ALIGN);
        let mut step = STEP;
        while lsn < self.span.end_lsn {
            let offset = self.span.offset(lsn);
            let bytes = match self.window.get_some(offset, GROUP_HEADER_LEN, step) {
                Ok(bytes) => bytes,
                // Nothing verifies across a sector that cannot be read: look at what precedes it, then go on behind it.
                Err(bad) if bad.readable >= GROUP_HEADER_LEN => {
                    step = bad.readable;
                    continue;
                }
                Err(bad) => {
                    let skipped = (bad.sector_end - offset).checked_next_multiple_of(ALIGN).unwrap_or(u64::MAX);
                    lsn = lsn.saturating_add(skipped);
                    step = STEP;
                    continue;
                }
            };
            if bytes.len() < GROUP_HEADER_LEN {
                return None;
            }
            let candidates = bytes.len() - GROUP_HEADER_LEN + 1;
            for at in (0..candidates).step_by(ALIGN_LEN) {
                if let Some(header) = GroupHeader::decode(&bytes[at..], lsn + at as u64, self.log) {
                    return Some(header);
                }
            }
            lsn += candidates.next_multiple_of(ALIGN_LEN) as u64;
        }
        None
    }

    /// Forgets what was read and goes back to the group boundary `lsn`; whether a group header verifies there now.
    pub(crate) fn look_again(&mut self, lsn: u64, seq: u64) -> bool {
        let back = |walk: &mut Self| {
            walk.window.forget();
            (walk.group, walk.record, walk.pos, walk.next_seq) = (None, None, lsn, seq);
        };
        let generation = (self.generation, self.seed);
        back(self);
        let whole = crate::tail::read_group(self).is_ok_and(|group| group.is_some());
        back(self);
        (self.generation, self.seed) = generation;
        whole
    }

    /// Goes on at a group that [`find_group`](Walk::find_group) found behind damage.
    pub(crate) fn resume(&mut self, group: &GroupHeader) {
        self.group = None;
        self.pos = group.lsn;
        self.next_seq = group.first_seq;
        self.generation = group.generation;
        self.seed = Seed::of_generation(self.span.uuid, group.generation);
    }

    /// One past the last byte at or after `from` that is not zero, and whether a sector could not be read; `from` when all are zero.
    pub(crate) fn last_nonzero(&mut self, from: u64) -> (u64, bool) {
        const STEP: usize = 256 << 10;
        let (mut lsn, mut last, mut unreadable) = (from, from, false);
        loop {
            let offset = self.span.offset(lsn);
            match self.window.get(offset, STEP) {
                Ok([]) => return (last, unreadable),
                Ok(bytes) => {
                    if let Some(at) = bytes.iter().rposition(|b| *b != 0) {
                        last = lsn + at as u64 + 1;
                    }
                    lsn += bytes.len() as u64;
                }
                Err(error) => {
                    unreadable = true;
                    lsn = lsn.saturating_add(error.sector_end - offset);
                    last = lsn;
                }
            }
        }
    }
}

/// A record in the walk's window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CurrentRecord<'a> {
    pub(crate) lsn: u64,
    pub(crate) seq: u64,
    pub(crate) end_lsn: u64,
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

/// Where the frames of a group end: a seal's trailer is not one of them.
fn frames_end(group: &GroupHeader) -> u64 {
    let end = group.frames_end().unwrap_or(u64::MAX);
    if group.kind == GroupKind::Seal { end.saturating_sub(TRAILER_LEN as u64) } else { end }
}
