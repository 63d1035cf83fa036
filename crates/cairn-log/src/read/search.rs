//! Reading behind damage: the next group that verifies, and groups as a whole.

use crate::error::CorruptionKind;
use crate::format::{
    ALIGN, ALIGN_LEN, Batch, FrameKind, GROUP_HEADER_LEN, GroupHeader, GroupKind, HeadMark,
};
use crate::mutation::{self, Mutation};
use crate::place::{Lsn, Place, Seq};
use crate::read::walk::{Link, Walk};
use crate::read::window::NO_END;
use crate::segment::span::Damage;

impl Walk {
    /// The first group at or after `from` that verifies, whatever lies between; its watermark
    /// proves what lies below it.
    pub(crate) fn find_group(&mut self, from: Lsn) -> Option<GroupHeader> {
        const STEP: usize = 64 << 10;
        let mut lsn = Lsn(from.0.next_multiple_of(ALIGN));
        let mut step = STEP;
        while lsn < self.span.end_lsn {
            let offset = self.span.offset(lsn);
            let bytes = match self.window.get_some(offset, GROUP_HEADER_LEN, step) {
                Ok(bytes) => bytes,
                // Nothing verifies across a sector that cannot be read: look at what precedes it,
                // then go on behind it.
                Err(bad) if bad.readable >= GROUP_HEADER_LEN => {
                    step = bad.readable;
                    continue;
                }
                Err(bad) if bad.sector_end == NO_END => return None,
                Err(bad) => {
                    let skipped = (bad.sector_end - offset)
                        .checked_next_multiple_of(ALIGN)
                        .unwrap_or(u64::MAX);
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
            // A header may begin with zeros: from where one would reach out of the hole.
            let offset = self.span.offset(lsn);
            let hole = self.window.behind_hole(offset, GROUP_HEADER_LEN).saturating_since(offset);
            lsn += hole.saturating_sub(GROUP_HEADER_LEN as u64) / ALIGN * ALIGN;
        }
        None
    }

    /// Forgets what was read and goes back to the group boundary `lsn`; whether a group header
    /// verifies there now.
    pub(crate) fn look_again(&mut self, lsn: Lsn, seq: Seq, link: Option<Link>) -> bool {
        let back = |walk: &mut Self| {
            walk.window.forget();
            (walk.group, walk.record, walk.pos, walk.next_seq) = (None, None, lsn, seq);
            walk.link = link;
            walk.look_ahead();
        };
        let generation = self.generation;
        back(self);
        let whole = read_group(self).is_ok_and(|group| group.is_some());
        back(self);
        self.generation = generation;
        whole
    }

    /// Goes on at a group that [`find_group`](Walk::find_group) found behind damage.
    pub(crate) fn resume(&mut self, group: &GroupHeader) {
        self.group = None;
        self.pos = group.lsn;
        self.next_seq = group.first_seq;
        self.generation = group.generation;
        // What lies between is not known.
        self.link = None;
        self.look_ahead();
    }

    /// One past the last byte at or after `from` that is not zero, and whether a sector could not
    /// be read; `from` when all are zero.
    pub(crate) fn last_nonzero(&mut self, from: Lsn) -> (Lsn, bool) {
        const STEP: usize = 256 << 10;
        let (mut lsn, mut last, mut unreadable) = (from, from, false);
        loop {
            let offset = self.span.offset(lsn);
            match self.window.get(offset, STEP) {
                Ok([]) => return (last, unreadable),
                Ok(bytes) => {
                    if let Some(at) = rposition_of_nonzero(bytes) {
                        last = lsn + at as u64 + 1;
                    }
                    lsn += bytes.len() as u64;
                    let offset = self.span.offset(lsn);
                    lsn += self.window.behind_hole(offset, 1).saturating_since(offset);
                }
                Err(error) => {
                    unreadable = true;
                    lsn = lsn.saturating_add(error.sector_end - offset);
                    last = lsn;
                    if error.sector_end == NO_END {
                        return (last, unreadable);
                    }
                }
            }
        }
    }
}

/// Position of the last byte that is not zero. Most are zeros, and many at a time are no slower to
/// look at than one.
fn rposition_of_nonzero(bytes: &[u8]) -> Option<usize> {
    let mut start = bytes.len();
    for chunk in bytes.rchunks(64) {
        start -= chunk.len();
        if chunk.iter().fold(0, |all, byte| all | byte) != 0 {
            return chunk.iter().rposition(|byte| *byte != 0).map(|at| start + at);
        }
    }
    None
}

/// One group of which every frame verified.
pub(crate) struct WholeGroup {
    pub(crate) header: GroupHeader,
    pub(crate) records: u64,
    pub(crate) next_seq: Seq,
    pub(crate) note: Option<HeadMark>,
    pub(crate) next_lsn: Lsn,
}

/// Reads one group whole. A group of which any frame fails is no group.
pub(crate) fn read_group(walk: &mut Walk) -> Result<Option<WholeGroup>, Damage> {
    let Some(header) = walk.next_group()? else {
        return Ok(None);
    };
    let (mut note, mut records) = (None, 0);
    loop {
        while walk.next_record_in_window() {
            records += 1;
        }
        let (lsn, frame) = match walk.next_frame() {
            Ok(Some(next)) => next,
            Ok(None) => break,
            Err(damage) => return Err(damage),
        };
        if matches!(frame.kind, FrameKind::Head | FrameKind::Cut) {
            let damaged = Damage { lsn, kind: CorruptionKind::Record };
            note = Some(HeadMark::decode(frame.payload).ok_or(damaged)?);
        }
        records += u64::from(frame.kind == FrameKind::Record);
    }
    let next_lsn = walk.finish_group()?;
    Ok(Some(WholeGroup { header, records, next_seq: walk.next_seq, note, next_lsn }))
}

/// What of the group that did not verify as a whole does: the records before the first one that
/// does not, and no batch that goes on behind that. `None` if that is no record.
///
/// Any of them may have been acknowledged: damage to the last group of a log whose writer ended
/// without closing it is not told from a write that was torn.
pub(crate) fn read_beginning(walk: &Walk) -> Option<WholeGroup> {
    let header = walk.torn_group().filter(|header| header.kind == GroupKind::Records)?;
    let mut again = Walk::new(walk.span.clone(), header.lsn, header.first_seq);
    again.read_in_place();
    again = again.adopting_generation();
    again.next_group().ok()??;
    let (mut records, mut read) = (0, 0);
    let mut end = Place { lsn: header.lsn, seq: header.first_seq };
    while let Ok(Some((_, frame))) = again.next_frame() {
        let ends = frame.batch == Batch::Ends || mutation::is(Mutation::KeepTornGroups);
        read += 1;
        if ends {
            records = read;
            end = Place { lsn: again.position(), seq: again.next_seq };
        }
    }
    let (next_lsn, next_seq) = (end.lsn, end.seq);
    (records > 0).then_some(WholeGroup { header, records, next_seq, note: None, next_lsn })
}
