//! What is at the end of a log: the scan of its last segment, or of its store, which fills the
//! columns of the table in [`cases`](crate::open::cases). Reads only.

use crate::error::{Corruption, CorruptionKind, Result};
use crate::format::{ALIGN, GroupHeader, GroupKind, HeadMark};
use crate::mutation::{self, Mutation};
use crate::open::cases::{
    At, Before, Behind, Device, EndCase, Ending, Head, Last, Medium, Proof, Seen, Stated, Successor,
};
use crate::place::{Chain, Cut, Epoch, Lsn, Place, Seq, SparseIndex};
use crate::read::search::{WholeGroup, read_beginning, read_group};
use crate::read::walk::{Link, Walk};
use crate::segment::carry::Boundary;
use crate::segment::span::{Damage, Span};

/// What a scan of the active segment found.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    /// The columns that the scan fills; those about what is around the segment are as if it were
    /// alone.
    pub(crate) seen: Seen,
    /// Bytes of unfinished writes, from `P` to the last one that is there.
    pub(crate) torn_bytes: u64,
    /// What did not verify at `P`, and where the log goes on behind it; `None` when the scan ended
    /// at a seal or at the end of its span.
    pub(crate) damage: Option<Corruption>,
    /// `P`: one past the last group of the verifying prefix, a seal excluded.
    pub(crate) end_lsn: Lsn,
    /// Number of the next record.
    pub(crate) next_seq: Seq,
    /// `W`, or `end_lsn` if that is less: everything below was durable and is there. On a group
    /// boundary.
    pub(crate) watermark: Lsn,
    /// `W` itself: everything below was durable. More than `end_lsn` says how far the damage
    /// reaches at least.
    pub(crate) proven_lsn: Lsn,
    /// The watermark with the number of the first record there, and the group before it.
    pub(crate) at_watermark: Boundary,
    /// Where the last group ends whose header verifies, behind damage too.
    pub(crate) reached_lsn: Lsn,
    /// `P`, and the group before it.
    pub(crate) at_end: Boundary,
    /// Whether what is of another history is so by the state beside the segments alone.
    pub(crate) contradicts_state: bool,
    /// The last group of the verifying prefix, a seal excluded.
    pub(crate) link: Option<Link>,
    /// The Mark with which the log ends, if it does.
    pub(crate) mark: Option<GroupHeader>,
    /// The Seal with which the segment ends, if it does.
    pub(crate) seal: Option<GroupHeader>,
    /// The newest head noted in the segment.
    pub(crate) head: Option<HeadMark>,
    /// Cuts noted in the segment, oldest first. Only stores have them.
    pub(crate) cuts: Vec<Cut>,
    pub(crate) index: SparseIndex,
    pub(crate) generation: u32,
    pub(crate) records: u64,
}

/// What is known of the log before its end is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expected {
    /// What names the group before the segment.
    pub(crate) previous: Option<Chain>,
    pub(crate) known: Option<Known>,
}

impl Expected {
    fn contradicts(&self, header: &GroupHeader, link: Option<Link>, next: Lsn) -> bool {
        self.known.is_some_and(|known| known.contradicts(header, link, next))
    }

    /// The same for a group as a whole. What went on behind a gap need not be the group that it was
    /// before.
    fn contradicts_group(&self, group: &WholeGroup, link: Option<Link>, span: &Span) -> bool {
        let within = group.header.lsn..group.next_lsn;
        let is_two = span.gaps.iter().any(|gap| within.contains(&gap.from));
        let newer = self.known.is_some_and(|known| group.header.lsn >= known.lsn);
        (!is_two || newer) && self.contradicts(&group.header, link, group.next_lsn)
    }

    /// Whether the group that did not verify has a header of another history.
    fn is_torn_by_another(&self, walk: &Walk) -> bool {
        walk.torn_group().is_some_and(|header| {
            self.contradicts(&header, None, header.next_lsn().unwrap_or(Lsn::MAX))
        })
    }
}

/// What the state beside the segments says of the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// The log reaches at least so far.
    pub(crate) durable_lsn: Lsn,
    /// Groups at or behind this are of one of these openings.
    pub(crate) lsn: Lsn,
    pub(crate) epochs: [Epoch; 2],
    /// Names the group that ends there, if it still does.
    pub(crate) previous: Option<Chain>,
}

impl Known {
    /// Whether the state is of another history than this group, which is in the log.
    fn contradicts(&self, header: &GroupHeader, link: Option<Link>, next: Lsn) -> bool {
        if header.lsn >= self.lsn {
            return !self.epochs.contains(&header.epoch);
        }
        let Some(previous) = self.previous else { return false };
        next > self.lsn || next == self.lsn && link.is_some_and(|link| link.chain != previous)
    }
}

/// What surrounds the segment in which a log ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around {
    pub(crate) before: Before,
    pub(crate) successor: Successor,
    pub(crate) head: Head,
}

impl Tail {
    /// The row of the table, given what surrounds the segment.
    pub(crate) fn case(&self, around: Around) -> EndCase {
        let Around { before, successor, head } = around;
        EndCase::of(&Seen { before, successor, head, ..self.seen })
    }
}

/// Scans a segment from its first group to its end, wherever that is.
///
/// Fails when the system refuses the memory for what is there: then nothing is known of it, least
/// of all that it is torn.
pub(crate) fn scan(span: &Span, expected: Expected) -> Result<Tail> {
    let medium = if span.recycled { Medium::Recycled } else { Medium::Fresh };
    scan_from(span, medium, None, expected)
}

/// Scans a store from its first group; from `first` if its beginning was dropped.
pub(crate) fn scan_store(span: &Span, first: Option<GroupHeader>) -> Result<Tail> {
    let medium = if first.is_some() { Medium::Beheaded } else { Medium::Store };
    scan_from(span, medium, first, Expected::default())
}

/// A walk over the groups, and where it begins.
fn walk_from(span: &Span, first: Option<GroupHeader>, previous: Option<Chain>) -> (Walk, Boundary) {
    let place = first.map_or(Place { lsn: span.base_lsn, seq: span.base_seq }, |first| Place {
        lsn: first.lsn,
        seq: first.first_seq,
    });
    let mut walk = Walk::new(span.clone(), place.lsn, place.seq).behind(previous);
    if first.is_some() {
        walk = walk.adopting_generation();
    }
    let chain = previous.or(first.map(|first| first.previous)).unwrap_or_default();
    (walk, Boundary { place, group: None, chain })
}

fn scan_from(
    span: &Span,
    medium: Medium,
    first: Option<GroupHeader>,
    expected: Expected,
) -> Result<Tail> {
    let (mut walk, start) = walk_from(span, first, expected.previous);
    let mut tail = Tail::at(start, medium, span.generation);
    let first_link = walk.link;
    // Where groups end, for the number of the first record at the watermark; only those at or above
    // it are needed.
    let mut boundaries = vec![start];
    loop {
        tail.cross_gaps(&mut walk, &mut boundaries);
        match read_group(&mut walk) {
            Ok(Some(group)) => {
                tail.raise_watermark(group.header.durable_lsn);
                if expected.contradicts_group(&group, walk.link, span) {
                    tail.is_contradicted(group.header.lsn, span);
                    break;
                }
                tail.absorb(group, walk.link, &mut boundaries);
                // Behind a seal lies what a repair recorded as lost, or nothing.
                if tail.seal.is_none() || walk.is_before_gap() {
                    continue;
                }
            }
            Ok(None) => {}
            // Never at what two writes of one process left: each names the one before it.
            Err(damage) if damage.kind == CorruptionKind::History => {
                tail.is_of_another_history(damage.lsn, span)
            }
            // Nor is it a torn write of this log, if the header is of another one.
            Err(_) if expected.is_torn_by_another(&walk) => {
                tail.is_contradicted(tail.end_lsn, span)
            }
            Err(damage) if skips_hole(&mut walk, damage) => continue,
            Err(damage) => {
                let before = tail.clone();
                let torn_end = tail.absorb_beginning(&walk, medium, &mut boundaries);
                tail.look_behind(&mut walk, damage, span, torn_end);
                if let Some(refused) = walk.refused() {
                    return Err(refused);
                }
                // A writer may be at work: 1. this scan saw nothing at P, 2. it wrote the group at
                // P and the next one, 3. the search saw the next one, whose watermark is above P.
                // But then the group at P verifies by now.
                let (place, link) = (before.at_end.place, before.link.or(first_link));
                if !tail.ends_in_order() && walk.look_again(place.lsn, place.seq, link) {
                    tail = before;
                    tail.forget_behind();
                    continue;
                }
            }
        }
        break;
    }
    tail.conclude(&boundaries, expected.known);
    Ok(tail)
}

/// A deliberate bug: the scan goes on behind what does not verify.
fn skips_hole(walk: &mut Walk, damage: Damage) -> bool {
    let group = mutation::is(Mutation::SkipHoles).then(|| walk.find_group(damage.lsn + ALIGN));
    group.flatten().map(|group| walk.resume(&group)).is_some()
}

impl Tail {
    /// Before the first group.
    fn at(at: Boundary, medium: Medium, generation: u32) -> Self {
        let start = at.place;
        Tail {
            seen: Seen::nothing(medium),
            torn_bytes: 0,
            damage: None,
            end_lsn: start.lsn,
            next_seq: start.seq,
            watermark: start.lsn,
            at_watermark: at,
            at_end: at,
            proven_lsn: start.lsn,
            reached_lsn: start.lsn,
            contradicts_state: false,
            link: None,
            mark: None,
            seal: None,
            head: None,
            cuts: Vec::new(),
            index: SparseIndex::default(),
            generation,
            records: 0,
        }
    }

    /// All was scanned: where the watermark is among the ends of groups, and whether the log is as
    /// long as the state says.
    fn conclude(&mut self, boundaries: &[Boundary], known: Option<Known>) {
        self.proven_lsn = self.watermark;
        self.watermark = self.watermark.min(self.end_lsn);
        let at = boundaries.iter().rfind(|boundary| boundary.place.lsn <= self.watermark);
        self.at_watermark = at.copied().unwrap_or(self.at_end);
        // A seal behind the last record is there as well.
        let sealed = self.seal.filter(|_| !mutation::is(Mutation::EndBeforeSeal));
        let reached = sealed.and_then(|seal| seal.next_lsn()).unwrap_or(self.end_lsn);
        let reaches = known.map(|known| reached >= known.durable_lsn);
        self.seen.stated = match (self.seen.stated, reaches) {
            (Stated::Other, _) => Stated::Other,
            (_, Some(false)) if !mutation::is(Mutation::IgnoreState) => Stated::Short,
            (_, Some(_)) => Stated::Held,
            (_, None) => Stated::Nothing,
        };
    }

    fn raise_watermark(&mut self, durable_lsn: Lsn) {
        self.watermark = self.watermark.max(durable_lsn);
    }

    fn absorb(&mut self, group: WholeGroup, link: Option<Link>, boundaries: &mut Vec<Boundary>) {
        self.forget_before_watermark(boundaries);
        let header = group.header;
        self.generation = header.generation;
        self.mark = None;
        self.seen.last = Last::Other;
        match header.kind {
            GroupKind::Records => self.index.note(header.lsn, header.first_seq),
            GroupKind::Mark => {
                self.mark = Some(header);
                self.seen.last = Last::Mark;
            }
            GroupKind::Head => self.head = group.note.or(self.head),
            GroupKind::Cut => {
                if let Some(cut) = group.note {
                    self.index.entries.retain(|e| e.lsn < cut.lsn);
                    self.cuts.push(Cut { lsn: cut.lsn, seq: cut.seq, resumes: group.next_lsn });
                }
            }
            GroupKind::Seal => {
                // The records end here; the seal only says so.
                self.seal = Some(header);
                self.seen.last = Last::Seal;
                return;
            }
        }
        self.records += group.records;
        self.next_seq = group.next_seq;
        self.end_lsn = group.next_lsn;
        self.link = link;
        self.at_end = Boundary {
            place: Place { lsn: self.end_lsn, seq: self.next_seq },
            group: link.map(|link| link.lsn),
            chain: link.map_or(self.at_end.chain, |link| link.chain),
        };
        boundaries.push(self.at_end);
    }

    /// Only what is needed to write again what lies above the watermark. That is the end of a
    /// group, unless it lies in a gap.
    fn forget_before_watermark(&self, boundaries: &mut Vec<Boundary>) {
        let below = boundaries.partition_point(|boundary| boundary.place.lsn <= self.watermark);
        boundaries.drain(..below.saturating_sub(1));
    }

    /// Goes on behind gaps at which the walk stands. What is known of the number of records, they
    /// say.
    fn cross_gaps(&mut self, walk: &mut Walk, boundaries: &mut Vec<Boundary>) {
        if !walk.cross_to_boundary() {
            return;
        }
        (self.mark, self.seal, self.link) = (None, None, None);
        self.seen.last = Last::Other;
        self.next_seq = walk.next_seq;
        self.end_lsn = walk.position();
        self.at_end = Boundary {
            place: Place { lsn: self.end_lsn, seq: self.next_seq },
            group: None,
            chain: walk.link.map_or(self.at_end.chain, |link| link.chain),
        };
        boundaries.push(self.at_end);
        self.forget_before_watermark(boundaries);
    }

    /// Takes what verifies of the group that does not as a whole; returns where that group ends.
    ///
    /// Not in a store, where what is there stays as it is: a group cannot be made shorter.
    fn absorb_beginning(
        &mut self,
        walk: &Walk,
        medium: Medium,
        boundaries: &mut Vec<Boundary>,
    ) -> Option<Lsn> {
        let in_file = matches!(medium, Medium::Fresh | Medium::Recycled);
        let group = in_file.then(|| read_beginning(walk)).flatten()?;
        let torn_end = group.header.next_lsn().unwrap_or(Lsn::MAX);
        let link = Link::of(&group.header, walk.log());
        self.raise_watermark(group.header.durable_lsn);
        self.absorb(group, Some(link), boundaries);
        Some(torn_end)
    }

    /// The state is of another history than what is at `lsn`.
    fn is_contradicted(&mut self, lsn: Lsn, span: &Span) {
        self.is_of_another_history(lsn, span);
        self.contradicts_state = true;
    }

    /// The group at `lsn` verifies, and is none of this log as it went on here. What follows is not
    /// looked at.
    fn is_of_another_history(&mut self, lsn: Lsn, span: &Span) {
        self.seen.stated = Stated::Other;
        let damage = Damage { lsn, kind: CorruptionKind::History };
        self.damage = Some(span.corruption(damage, None));
    }

    /// Fills the columns about what is at `P` and behind it, where `damage` ended the prefix.
    /// `torn_end` is where the group ends of which `P` is the end of what verifies.
    fn look_behind(&mut self, walk: &mut Walk, damage: Damage, span: &Span, torn_end: Option<Lsn>) {
        let from = self.end_lsn;
        let (last, unreadable) = walk.last_nonzero(from);
        let in_sector = span.written_behind(from);
        let sector_end = from.saturating_add(span.rest_of_sector(from));
        let bytes_in_sector = in_sector > from || (last > from && last <= sector_end);
        // How far something was begun here.
        let mut begun = if span.recycled { in_sector } else { in_sector.max(last) };
        begun = begun.max(torn_end.unwrap_or(from));
        let (mut header_at, mut resumes, mut search) = (torn_end.is_some(), None, from);
        while search < last
            && let Some(group) = walk.find_group(search)
        {
            // A group of an older generation was dropped by a cut: it proves nothing.
            search = group.lsn + ALIGN;
            if group.generation >= self.generation {
                if group.lsn == from {
                    header_at = true;
                } else {
                    resumes.get_or_insert(group.lsn);
                }
                self.raise_watermark(group.durable_lsn);
                search = group.next_lsn().unwrap_or(Lsn::MAX);
                begun = begun.max(search.min(last));
                self.reached_lsn = self.reached_lsn.max(search);
            }
        }
        self.seen.at = match (header_at, bytes_in_sector) {
            (true, _) => At::Header,
            (false, true) => At::Bytes,
            (false, false) => At::Zeros,
        };
        self.seen.behind = match (resumes, last > sector_end) {
            (Some(_), _) => Behind::Groups,
            (None, true) => Behind::Bytes,
            (None, false) => Behind::Zeros,
        };
        self.seen.device = if unreadable { Device::Fails } else { Device::Reads };
        self.seen.proof = if from < self.watermark { Proof::Broken } else { Proof::Held };
        self.torn_bytes = begun - from;
        self.damage = Some(span.corruption(damage, resumes));
    }

    /// Forgets what was seen behind `P`, which moves on.
    fn forget_behind(&mut self) {
        self.seen = Seen { last: self.seen.last, ..Seen::nothing(self.seen.medium) };
        self.torn_bytes = 0;
        self.damage = None;
    }

    /// Whether the segment, by itself, ends at the end of a group with nothing behind it.
    fn ends_in_order(&self) -> bool {
        matches!(EndCase::of(&self.seen).ending(), Ending::Closed | Ending::Unclosed)
    }
}
