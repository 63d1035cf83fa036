//! What lies between damage and the place from which groups follow each other again, and which
//! numbers the records in it have.

use std::collections::VecDeque;

use crate::error::{Corruption, CorruptionKind, Lost};
use crate::format::{GROUP_HEADER_LEN, GroupHeader, GroupKind, frame_len};
use crate::place::{Epoch, Lsn, Place, Seq};
use crate::read::link::Link;
use crate::segment::span::{Damage, Span};

/// Bytes of the shortest record in a log.
const RECORD_LEN_MIN: u64 = frame_len(0) as u64;

/// What lies between damage and the place from which groups follow each other again.
#[derive(Debug, Default)]
pub(crate) struct Stretch {
    pub(super) parts: VecDeque<Part>,
    /// What [`Walk::skip`] is to say of the damage that was met last.
    pub(super) loss: Option<Loss>,
    pub(super) goes_on: Option<GoesOn>,
    /// Number of the first record behind it.
    pub(super) next_seq: Option<Seq>,
}

/// Where a group header verifies.
#[derive(Clone, Copy, Debug)]
pub(super) struct GoesOn {
    pub(super) at: Place,
    pub(super) generation: u32,
    /// The group before it, if that one's header verified.
    pub(super) link: Option<Link>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Lost(Loss),
    Frames(Run),
}

/// What is lost with one damage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loss {
    pub(crate) kind: CorruptionKind,
    pub(crate) lost: Lost,
    /// Where the log goes on in this segment.
    pub(crate) resumes: Option<Lsn>,
    /// How many records it may have held.
    pub(super) least: u64,
    pub(super) most: u64,
    /// Nothing but zeros, in a group whose header is lost: its padding, perhaps.
    pub(super) zeros: bool,
}

/// Frames that verify, one behind the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Of groups of this kind.
    pub(super) kind: GroupKind,
    pub(super) start: Lsn,
    /// A seal's trailer is before it.
    pub(super) end: Lsn,
    pub(super) whose: Whose,
    pub(super) records: u64,
    pub(super) first_seq: Seq,
    /// Whether that is known; otherwise it is the lowest one that is possible.
    pub(super) numbered: bool,
}

/// Of which generation frames are, and of which opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whose {
    pub(super) generation: u32,
    pub(super) epoch: Epoch,
}

/// Where frames are looked for.
pub(super) struct Region {
    /// What is there does not verify.
    pub(super) from: Lsn,
    pub(super) to: Lsn,
    pub(super) kind: CorruptionKind,
    /// Whether all of it are frames: then whatever is lost held a record at least.
    pub(super) frames_only: bool,
}

impl Region {
    /// What is lost from `from` to `to`. Where the header is lost as well, it takes room in the
    /// first one.
    pub(super) fn loss(&self, from: Lsn, to: Lsn, first: bool, zeros: bool) -> Loss {
        let header = if first && !self.frames_only { GROUP_HEADER_LEN as u64 } else { 0 };
        let most = (to - from).saturating_sub(header) / RECORD_LEN_MIN;
        let least = if self.frames_only { most.min(1) } else { 0 };
        let kind = match (first, self.frames_only) {
            (true, _) => self.kind,
            (false, true) => CorruptionKind::Record,
            (false, false) => CorruptionKind::Group,
        };
        let zeros = zeros && !first && !self.frames_only;
        Loss { zeros, ..Loss::of(kind, from, to, least, most) }
    }
}

impl Run {
    /// Whether this frame goes on with it. What a group holds fits in 32 bits.
    pub(super) fn takes(&self, frame: &Run) -> bool {
        const LEN_MAX: u64 = 1 << 31;
        (self.kind, self.whose, self.end) == (GroupKind::Records, frame.whose, frame.start)
            && frame.kind == self.kind
            && frame.end.saturating_since(self.start) <= LEN_MAX
    }
}

impl Loss {
    /// The same as an error. Where nothing verifies behind it in this segment, records do from
    /// `next` on.
    pub(crate) fn corruption(&self, span: &Span, next: Option<Lsn>) -> Corruption {
        let damage = Damage { lsn: self.lost.from, kind: self.kind };
        let corruption = span.corruption(damage, self.resumes.or(next));
        Corruption { lost: Some(self.lost), ..corruption }
    }

    pub(super) fn of(kind: CorruptionKind, from: Lsn, to: Lsn, least: u64, most: u64) -> Self {
        let lost = Lost { from, to, records: None, first_seq: None };
        Loss { kind, lost, resumes: None, least, most, zeros: false }
    }
}

impl GoesOn {
    pub(super) fn at(header: &GroupHeader, link: Option<Link>) -> Self {
        let at = Place { lsn: header.lsn, seq: header.first_seq };
        GoesOn { at, generation: header.generation, link }
    }
}

impl Part {
    /// At least and at most so many records.
    pub(super) fn records(&self) -> (u64, u64) {
        match self {
            Part::Lost(loss) => (loss.least, loss.most),
            Part::Frames(run) => (run.records, run.records),
        }
    }
}

/// Makes one of pieces that are lost one behind the other.
fn join(parts: &mut VecDeque<Part>) {
    let mut joined: VecDeque<Part> = VecDeque::with_capacity(parts.len());
    for part in parts.drain(..) {
        match (joined.back_mut(), part) {
            (Some(Part::Lost(before)), Part::Lost(loss)) if before.lost.to == loss.lost.from => {
                before.lost.to = loss.lost.to;
                before.least = before.least.saturating_add(loss.least);
                before.most = before.most.saturating_add(loss.most);
                before.zeros &= loss.zeros;
            }
            _ => joined.push_back(part),
        }
    }
    *parts = joined;
}

/// Finds out which numbers the records of `parts` have, between the number before the first and
/// that behind the last one, as far as they are known.
pub(super) fn number(parts: &mut VecDeque<Part>, before: Option<Seq>, behind: Option<Seq>) {
    join(parts);
    // Between which numbers each part begins.
    let mut bounds = vec![before.map_or((0, u64::MAX), |seq| (seq.0, seq.0))];
    let (mut least, mut most) = bounds[0];
    for (min, max) in parts.iter().map(Part::records) {
        (least, most) = (least.saturating_add(min), most.saturating_add(max));
        bounds.push((least, most));
    }
    let possible = behind.filter(|seq| (least..=most).contains(&seq.0));
    if let Some(Seq(seq)) = possible {
        let (mut least, mut most) = (seq, seq);
        bounds[parts.len()] = (seq, seq);
        for (at, (min, max)) in parts.iter().map(Part::records).enumerate().rev() {
            (least, most) = (least.saturating_sub(max), most.saturating_sub(min));
            let bound = &mut bounds[at];
            *bound = (bound.0.max(least), bound.1.min(most));
        }
    }
    let known = |(least, most): (u64, u64)| (least == most).then_some(least);
    for (part, pair) in parts.iter_mut().zip(bounds.windows(2)) {
        match part {
            Part::Frames(run) => {
                (run.first_seq, run.numbered) = (Seq(pair[0].0), known(pair[0]).is_some());
            }
            Part::Lost(loss) => {
                let (from, to) = (known(pair[0]), known(pair[1]));
                let between = from.zip(to).map(|(from, to)| to.saturating_sub(from));
                loss.lost.first_seq = from.map(Seq);
                loss.lost.records = between.or(known((loss.least, loss.most)));
            }
        }
    }
    parts.retain(|part| match part {
        Part::Lost(loss) => !(loss.zeros && loss.lost.records == Some(0)),
        Part::Frames(_) => true,
    });
}
