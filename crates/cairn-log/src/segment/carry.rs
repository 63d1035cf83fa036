//! Starting a generation: what stays of the one before is copied, each frame to the position it
//! had.

use std::path::Path;

use cairn_io::Store;

use crate::error::{CorruptionKind, Error, Result};
use crate::format::{
    ALIGN, Batch, CutNote, DATA_OFFSET, Frame, FrameKind, GROUP_HEADER_LEN, GapGroup, GapNote,
    GroupHeader, GroupKind, Seed, SegmentKey, Superblock, chain_of, frame_len, push_frame,
    push_record,
};
use crate::place::{Chain, Lsn, Place};
use crate::read::walk::Walk;
use crate::segment::file::SegmentFile;
use crate::segment::marks::Author;
use crate::segment::span::{Damage, Span};

/// If a cut is at most this many bytes behind the beginning of its segment, the segment moves as a
/// whole into the new generation, so that a thousand crashes or truncations do not leave a thousand
/// small files.
pub(crate) const CARRIED_WHOLE_BYTES_MAX: u64 = 256 << 10;

/// A record boundary, and the group before it, or in which it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boundary {
    pub(crate) place: Place,
    /// Where that group is; `None` if it is not of the same segment.
    pub(crate) group: Option<Lsn>,
    /// What names it.
    pub(crate) chain: Chain,
}

/// The superblock of the segment that starts a new generation, which else is `superblock`, and what
/// names the group before it. The log is cut at or after `carried`, and at `end`, in `from`, which
/// is carried whole if it begins at most so many bytes before `end`.
pub(crate) fn generation_start(
    superblock: Superblock,
    from: &SegmentFile,
    carried: Boundary,
    end: Boundary,
    whole_bytes_max: u64,
) -> (Superblock, Chain) {
    let base = from.base();
    let whole = end.place.lsn - base.lsn <= whole_bytes_max || carried.place == base;
    let (at, before, chain) = if whole {
        // What `from` says of where it belongs, its successor says again.
        let before = from.superblock.cut.and_then(|cut| cut.before);
        (base, before, from.first.map_or(end.chain, |first| first.previous))
    } else {
        (carried.place, carried.group, carried.chain)
    };
    let cut = superblock.cut.map(|cut| CutNote { before, lsn: end.place.lsn, ..cut });
    (Superblock { base_lsn: at.lsn, base_seq: at.seq, cut, ..superblock }, chain)
}

/// What was copied into a new generation.
#[derive(Debug)]
pub(crate) struct Carried {
    /// What names the mark behind it.
    pub(crate) chain: Chain,
    /// What was lost of it before, as gaps of the new segment.
    pub(crate) gaps: Vec<GapNote>,
}

/// Copies what `from` holds between the base of `superblock` and `end` into the segment `to`, which
/// messages call `path`, and puts a mark behind it. The first group follows the one named `chain`.
pub(crate) fn carry(
    from: Span,
    end: Place,
    (superblock, chain): (&Superblock, Chain),
    to: &dyn Store,
    path: &Path,
) -> Result<Carried> {
    let base = Place { lsn: superblock.base_lsn, seq: superblock.base_seq };
    let mut copy = GroupCopy::new(superblock, chain, (&from, end.lsn), (to, path));
    if base.lsn < end.lsn {
        let mut walk = Walk::new(from.clone(), base.lsn, base.seq).behind(Some(chain));
        walk.extend_to(end.lsn);
        copy.groups(walk)?;
        copy.leave_hole(end);
    }
    let Superblock { generation, epoch, .. } = *superblock;
    let author = Author { generation, epoch, previous: copy.chain };
    let mark = author.mark(end).encode(Seed::of_log(superblock.uuid));
    let offset = DATA_OFFSET + (end.lsn - base.lsn);
    to.write_at(offset, &mark).map_err(|e| Error::io("write to", path, e))?;
    Ok(Carried { chain: chain_of(&mark), gaps: copy.gaps })
}

/// A hole of fewer bytes has no room for the header of a group and a gap before it.
const SMALL_HOLE: u64 = GROUP_HEADER_LEN as u64 + ALIGN;

/// Groups on their way into another generation, each to the position it had.
///
/// Positions and numbers stay, so what a caller was told stays true; checksums are bound to the new
/// generation and the opening that starts it. A group that the end cuts keeps the frames before it.
/// What a repair recorded as lost stays a hole, and lost: there a group ends and another one
/// begins, or the group goes on behind it, where the hole has no room for a header.
struct GroupCopy<'a> {
    to: &'a Superblock,
    store: &'a dyn Store,
    path: &'a Path,
    /// What was lost before.
    from: &'a Span,
    /// Where the copy is to end.
    end_lsn: Lsn,
    log: Seed,
    seed: Seed,
    /// What names the group before.
    chain: Chain,
    gaps: Vec<GapNote>,
    /// Where it ends so far, and the number of the record that would follow.
    end: Place,
    /// The group that is being copied, and its bytes so far.
    header: Option<GroupHeader>,
    bytes: Vec<u8>,
    /// So many of the gaps, the last ones, are inside of it.
    inside: usize,
}

impl<'a> GroupCopy<'a> {
    fn new(
        to: &'a Superblock,
        chain: Chain,
        (from, end_lsn): (&'a Span, Lsn),
        (store, path): (&'a dyn Store, &'a Path),
    ) -> Self {
        GroupCopy {
            to,
            store,
            path,
            from,
            end_lsn,
            log: Seed::of_log(to.uuid),
            seed: Seed::of_frames(to.uuid, to.generation, to.epoch),
            chain,
            gaps: Vec::new(),
            end: Place { lsn: to.base_lsn, seq: to.base_seq },
            header: None,
            bytes: Vec::new(),
            inside: 0,
        }
    }

    /// Copies what the walk meets up to the end of its span.
    fn groups(&mut self, mut walk: Walk) -> Result<()> {
        let corrupt = |walk: &Walk, damage| {
            walk.refused().unwrap_or_else(|| Error::Corrupt(walk.span.corruption(damage, None)))
        };
        while let Some(header) = walk.next_group().map_err(|d| corrupt(&walk, d))? {
            // One with which the log ended before its last part was lost.
            if header.kind == GroupKind::Seal {
                continue;
            }
            // Where the log goes on inside a group, its first frame begins it.
            if walk.position() > header.lsn {
                self.leave_hole(Place { lsn: header.lsn, seq: header.first_seq });
                self.begin(header);
            }
            loop {
                match walk.next_frame() {
                    Ok(Some((lsn, frame))) => self.push(lsn, frame)?,
                    Ok(None) => break,
                    Err(damage) => return Err(corrupt(&walk, damage)),
                }
            }
            let next = walk.torn_group().and_then(|group| group.next_lsn());
            let whole = next.filter(|next| *next <= walk.span.end_lsn);
            let padding = whole.map_or(0, |next| next.saturating_since(self.end.lsn));
            self.finish(u32::try_from(padding).unwrap_or(0))?;
        }
        Ok(())
    }

    fn begin(&mut self, header: GroupHeader) {
        self.header = Some(header);
        self.bytes.clear();
        self.bytes.resize(GROUP_HEADER_LEN, 0);
        self.end = Place { lsn: header.lsn + GROUP_HEADER_LEN as u64, seq: header.first_seq };
    }

    fn push(&mut self, lsn: Lsn, frame: Frame<'_>) -> Result<()> {
        let hole = lsn.saturating_since(self.end.lsn);
        if hole > 0 || self.header.is_none() {
            let resumes = self.from.gaps.iter().rfind(|gap| gap.to <= lsn);
            let seq = resumes.map_or(self.end.seq, |gap| gap.seq);
            self.skip(hole, Place { lsn, seq }, frame.kind == FrameKind::Head)?;
        }
        let (end, is_record) =
            (lsn + frame_len(frame.payload.len()) as u64, frame.kind == FrameKind::Record);
        if is_record {
            // What is cut in the middle of a batch ends it.
            let batch = if end < self.end_lsn { frame.batch } else { Batch::Ends };
            push_record(&mut self.bytes, batch, frame.payload, lsn, self.seed);
        } else {
            push_frame(&mut self.bytes, frame.kind, frame.payload, lsn, self.seed);
        }
        self.end = Place { lsn: end, seq: self.end.seq + u64::from(is_record) };
        Ok(())
    }

    /// Goes on behind a hole, in the group that is being copied or in another one.
    fn skip(&mut self, hole: u64, to: Place, is_head: bool) -> Result<()> {
        if self.header.is_some() && hole < SMALL_HOLE {
            self.note_gap(to);
            self.inside += 1;
            self.bytes.resize(self.bytes.len() + usize::try_from(hole).unwrap_or(0), 0);
            self.end = to;
            return Ok(());
        }
        self.finish(0)?;
        let header_lsn = to.lsn.checked_back(GROUP_HEADER_LEN as u64);
        let Some(lsn) = header_lsn.filter(|lsn| *lsn >= self.end.lsn) else {
            let damage = Damage { lsn: to.lsn, kind: CorruptionKind::GapList };
            return Err(Error::Corrupt(self.from.corruption(damage, None)));
        };
        self.leave_hole(Place { lsn, seq: to.seq });
        let kind = if is_head { GroupKind::Head } else { GroupKind::Records };
        self.begin(GroupHeader {
            kind,
            padding: 0,
            len: 0,
            generation: self.to.generation,
            lsn,
            durable_lsn: self.to.base_lsn,
            first_seq: to.seq,
            epoch: self.to.epoch,
            previous: self.chain,
        });
        Ok(())
    }

    /// Leaves what lies up to `to`, where a group or the end is, to a gap.
    fn leave_hole(&mut self, to: Place) {
        if to.lsn > self.end.lsn {
            self.note_gap(to);
        }
        self.end = to;
    }

    fn note_gap(&mut self, to: Place) {
        let here = |gap: &&GapNote| gap.from < to.lsn && gap.to > self.end.lsn;
        let counted = self.from.gaps.iter().filter(here).all(|gap| gap.counted);
        self.gaps.push(GapNote {
            segment: SegmentKey::of(self.to),
            from: self.end.lsn,
            to: to.lsn,
            first_seq: self.end.seq,
            seq: to.seq,
            counted,
            chain: Some(self.chain),
            group: None,
        });
    }

    /// Writes the group, if one was begun and anything is in it.
    fn finish(&mut self, padding: u32) -> Result<()> {
        let Some(header) = self.header.take() else { return Ok(()) };
        let inside = self.gaps.len() - std::mem::take(&mut self.inside);
        if self.bytes.len() == GROUP_HEADER_LEN && header.kind != GroupKind::Mark {
            self.end = Place { lsn: header.lsn, seq: header.first_seq };
            return Ok(());
        }
        let header = GroupHeader {
            generation: self.to.generation,
            len: u32::try_from(self.bytes.len()).expect("no longer than what it was read from"),
            padding,
            epoch: self.to.epoch,
            previous: self.chain,
            ..header
        };
        self.bytes[..GROUP_HEADER_LEN].copy_from_slice(&header.encode(self.log));
        self.chain = chain_of(&self.bytes);
        let (frames_end, end) = (self.end.lsn, self.end.lsn + u64::from(padding));
        for gap in &mut self.gaps[inside..] {
            let GroupHeader { generation, epoch, .. } = header;
            gap.chain = Some(self.chain);
            gap.group = Some(GapGroup { is_head: false, generation, epoch, frames_end, end });
        }
        self.end.lsn = end;
        let offset = DATA_OFFSET + (header.lsn - self.to.base_lsn);
        self.store.write_at(offset, &self.bytes).map_err(|e| Error::io("write to", self.path, e))
    }
}
