//! Where a log ends: the scan of the active segment, and the decision between a torn tail and corruption.
//!
//! Writes that no barrier covered reach the disk in any order, so neither "a later group verifies" nor "no later group verifies"
//! tells torn from corrupt. The watermark does: each group carries the durable LSN known when it was written, so the highest one
//! found anywhere, behind damage too, proves everything below it. With `P` the end of the verifying prefix and `W`
//! the highest watermark:
//!
//! | last group | bytes at `P` and after | `P` against `W` | verdict |
//! |---|---|---|---|
//! | none, or a mark | zeros or nothing | `P >= W` | [`Ending::Closed`] |
//! | any other | zeros or nothing | `P >= W` | [`Ending::Unclosed`] |
//! | any | something, readable | `P >= W` | [`Ending::Torn`] |
//! | any | something, unreadable | any | [`Ending::Corrupt`] |
//! | any | any | `P < W` | [`Ending::Corrupt`] |
//!
//! In a recycled segment the bytes at `P` and after may be those of a segment that was dropped, none of which verify here. There, only what is left of
//! `P`'s sector counts, which each flush fills up with zeros, and groups behind `P` that do verify.

use crate::error::{Corruption, CorruptionKind};
use crate::format::{
    ALIGN, FrameKind, GROUP_HEADER_LEN, GroupHeader, GroupKind, HeadMark, IndexEntry, Seed, TRAILER_LEN, decode_trailer,
};
use crate::mutation::{self, Mutation};
use crate::walk::{Damage, Span, Walk};

/// How the active segment ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// At a mark, or before the first group: everything is durable.
    Closed,
    /// At the end of some other group: what lies above the watermark may be in the page cache alone.
    Unclosed,
    /// In bytes that do not verify and were never known durable.
    Torn {
        /// How many bytes, up to the last one that is not zero.
        bytes: u64,
    },
    /// In damage below the watermark, or in a sector that cannot be read.
    Corrupt(Corruption),
}

/// What a scan of the active segment found.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    pub(crate) ending: Ending,
    /// `P`: one past the last group of the verifying prefix, a seal excluded.
    pub(crate) end_lsn: u64,
    /// Number of the next record.
    pub(crate) next_seq: u64,
    /// `W`, or `end_lsn` if that is less: everything below was durable and is there. On a group boundary.
    pub(crate) watermark: u64,
    /// `W` itself: everything below was durable. More than `end_lsn` says how far the damage reaches at least.
    pub(crate) proven_lsn: u64,
    /// Number of the first record at or after the watermark.
    pub(crate) watermark_seq: u64,
    /// Where the mark at the end starts, when the ending is `Closed` and there is one.
    pub(crate) mark: Option<GroupHeader>,
    /// Where the seal starts, when the segment is sealed.
    pub(crate) seal: Option<GroupHeader>,
    /// The newest head noted in the segment.
    pub(crate) head: Option<HeadMark>,
    /// Cuts noted in the segment, oldest first. Only stores have them.
    pub(crate) cuts: Vec<Cut>,
    pub(crate) index: SparseIndex,
    pub(crate) generation: u32,
    pub(crate) records: u64,
}

impl Tail {
    /// Whether nothing but the superblock was ever written.
    pub(crate) fn is_pristine(&self, base_lsn: u64) -> bool {
        self.ending == Ending::Closed && self.end_lsn == base_lsn
    }
}

/// A part of a store's segment that a `truncate_after` took out of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Where it starts.
    pub(crate) lsn: u64,
    /// Number of the first record in it, and of the first record behind it.
    pub(crate) seq: u64,
    /// Where the log goes on.
    pub(crate) resumes: u64,
}

/// Every n-th group of a segment with the number of its first record, so that a seek reads little.
#[derive(Clone, Debug, Default)]
pub(crate) struct SparseIndex {
    pub(crate) entries: Vec<IndexEntry>,
}

impl SparseIndex {
    /// Bytes of log between two entries, at least.
    const INTERVAL: u64 = 64 << 10;

    /// Notes a group when it is far enough from the last one noted.
    pub(crate) fn note(&mut self, lsn: u64, first_seq: u64) {
        if self.takes(lsn) {
            self.entries.push(IndexEntry { first_seq, lsn });
        }
    }

    /// Whether a group there would be noted.
    pub(crate) fn takes(&self, lsn: u64) -> bool {
        self.entries.last().is_none_or(|e| lsn - e.lsn >= Self::INTERVAL)
    }

    /// The last entry at or before a position.
    pub(crate) fn before_lsn(&self, lsn: u64) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|e| e.lsn <= lsn);
        after.checked_sub(1).map(|i| self.entries[i])
    }

    /// The last entry whose first record is at or before a number.
    pub(crate) fn before_seq(&self, seq: u64) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|e| e.first_seq <= seq);
        after.checked_sub(1).map(|i| self.entries[i])
    }
}

/// The header of the seal with which the span ends, if trailer and header verify.
pub(crate) fn seal_before(span: &Span) -> Option<GroupHeader> {
    let read = |lsn, buf: &mut [u8]| (span.store.read_at(span.offset(lsn), buf).ok()? == buf.len()).then_some(());
    let mut trailer = [0; TRAILER_LEN];
    let trailer_lsn = span.end_lsn.checked_sub(TRAILER_LEN as u64).filter(|lsn| *lsn >= span.base_lsn)?;
    read(trailer_lsn, &mut trailer)?;
    let len = u64::from(decode_trailer(&trailer)?);
    let lsn = span.end_lsn.checked_sub(len).filter(|lsn| *lsn >= span.base_lsn)?;
    let mut header = [0; GROUP_HEADER_LEN];
    read(lsn, &mut header)?;
    let header = GroupHeader::decode(&header, lsn, Seed::of_log(span.uuid))?;
    (header.kind == GroupKind::Seal && header.generation == span.generation).then_some(header)
}

/// Scans the segment from its first group to its end, wherever that is. Reads only.
pub(crate) fn scan(span: &Span) -> Tail {
    scan_from(span, None)
}

/// The same from a group of a store whose beginning was dropped.
pub(crate) fn scan_from(span: &Span, first: Option<GroupHeader>) -> Tail {
    let (start_lsn, start_seq) = first.map_or((span.base_lsn, span.base_seq), |g| (g.lsn, g.first_seq));
    let mut walk = Walk::new(span.clone(), start_lsn, start_seq);
    if first.is_some() {
        walk = walk.adopting_generation();
    }
    let mut tail = Tail {
        ending: Ending::Closed,
        end_lsn: start_lsn,
        next_seq: start_seq,
        watermark: start_lsn,
        watermark_seq: start_seq,
        proven_lsn: start_lsn,
        mark: None,
        seal: None,
        head: None,
        cuts: Vec::new(),
        index: SparseIndex::default(),
        generation: span.generation,
        records: 0,
    };
    // Where groups end, for the number of the first record at the watermark; only those at or above it are needed.
    let mut boundaries = vec![(start_lsn, start_seq)];
    loop {
        match read_group(&mut walk) {
            Ok(Some(group)) => {
                tail.raise_watermark(group.header.durable_lsn);
                boundaries.retain(|(lsn, _)| *lsn >= tail.watermark);
                tail.absorb(group, &mut boundaries);
                if tail.seal.is_none() {
                    continue;
                }
                tail.ending = Ending::Unclosed;
            }
            Ok(None) => tail.ending = Ending::Unclosed,
            Err(damage) => {
                if mutation::is(Mutation::SkipHoles)
                    && let Some(group) = walk.find_group(damage.lsn + ALIGN)
                {
                    walk.resume(&group);
                    continue;
                }
                tail.ending = tail.judge(&mut walk, damage, span);
                let clean = matches!(tail.ending, Ending::Closed | Ending::Unclosed);
                // A writer may be at work: 1. this scan saw nothing at P, 2. it wrote the group at P and the next one, 3. the search saw the
                // next one, whose watermark is above P. But then the group at P verifies by now.
                if !clean && walk.look_again(tail.end_lsn, tail.next_seq) {
                    continue;
                }
            }
        }
        break;
    }
    tail.proven_lsn = tail.watermark;
    tail.watermark = tail.watermark.min(tail.end_lsn);
    let at = boundaries.iter().find(|(lsn, _)| *lsn == tail.watermark);
    tail.watermark_seq = at.map_or(tail.next_seq, |(_, seq)| *seq);
    tail
}

/// One group of which every frame verified.
pub(crate) struct WholeGroup {
    header: GroupHeader,
    records: u64,
    next_seq: u64,
    note: Option<HeadMark>,
    next_lsn: u64,
}

/// Reads one group whole. A group of which any frame fails is no group: it was one write, and batches rely on all or nothing.
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
            Err(_) if mutation::is(Mutation::KeepTornGroups) && records > 0 => {
                let (next_lsn, next_seq) = (walk.position(), walk.next_seq);
                return Ok(Some(WholeGroup { header, records, next_seq, note, next_lsn }));
            }
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

impl Tail {
    fn raise_watermark(&mut self, durable_lsn: u64) {
        self.watermark = self.watermark.max(durable_lsn);
    }

    fn absorb(&mut self, group: WholeGroup, boundaries: &mut Vec<(u64, u64)>) {
        let header = group.header;
        self.generation = header.generation;
        self.mark = None;
        match header.kind {
            GroupKind::Records => self.index.note(header.lsn, header.first_seq),
            GroupKind::Mark => self.mark = Some(header),
            GroupKind::Head => self.head = group.note,
            GroupKind::Cut => {
                if let Some(cut) = group.note {
                    self.index.entries.retain(|e| e.lsn < cut.lsn);
                    self.cuts.push(Cut { lsn: cut.lsn, seq: cut.seq, resumes: group.next_lsn });
                }
            }
            GroupKind::Seal => {
                // The records end here; the seal only says so.
                self.seal = Some(header);
                return;
            }
        }
        self.records += group.records;
        self.next_seq = group.next_seq;
        self.end_lsn = group.next_lsn;
        boundaries.push((self.end_lsn, self.next_seq));
    }

    /// Tells apart the rows of the table in the module's documentation.
    fn judge(&mut self, walk: &mut Walk, damage: Damage, span: &Span) -> Ending {
        let from = self.end_lsn;
        let (last, unreadable) = walk.last_nonzero(from);
        let mut resumes = None;
        // How far something was begun here.
        let mut begun = if span.recycled { span.written_behind(from) } else { last };
        let mut search = from;
        while search < last
            && let Some(group) = walk.find_group(search)
        {
            // A group of an older generation was dropped by a cut: it proves nothing.
            search = group.lsn + ALIGN;
            if group.generation >= self.generation {
                // The damaged group's own header may verify: what is wrong is in its frames then.
                if group.lsn > from {
                    resumes.get_or_insert(group.lsn);
                }
                self.raise_watermark(group.durable_lsn);
                search = group.next_lsn().unwrap_or(u64::MAX);
                begun = begun.max(search.min(last));
            }
        }
        if self.end_lsn < self.watermark || unreadable {
            return Ending::Corrupt(span.corruption(damage, resumes));
        }
        if begun > from {
            return Ending::Torn { bytes: begun - from };
        }
        if self.mark.is_some() || self.end_lsn == span.base_lsn { Ending::Closed } else { Ending::Unclosed }
    }
}
