//! What opening or inspecting a log found, and whether it may be opened.

use std::path::PathBuf;

use uuid::Uuid;

use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{SegmentName, StateRecord};
use crate::layout::Layout;
use crate::layout::directory::STATE_NAME;
use crate::mutation::{self, Mutation};
use crate::open::cases::{Act, EndCase, Loss, Stated};
use crate::open::tail::Tail;
use crate::place::{Lsn, Place};
use crate::segment::file::SegmentFile;

/// What is where a log lives.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The log, by position. Segments below the head, whose removal was interrupted, are not among
    /// them.
    pub(crate) segments: Vec<SegmentFile>,
    /// Segments that no longer belong to the log and may be removed.
    pub(crate) obsolete: Vec<SegmentName>,
    /// So many of them, the first ones, were superseded by whole segments.
    pub(crate) superseded: usize,
    /// Those after them that have no group, and are no part of the log for that reason.
    pub(crate) empty: Vec<SegmentName>,
    /// Everything else that lies around; never touched.
    pub(crate) strays: Vec<PathBuf>,
    /// Whether an earlier writer prepared a file for the next segment.
    pub(crate) spare: bool,
    /// Where segments start of whose files nothing verifies.
    pub(crate) lost: Vec<Lsn>,
    /// What keeps the log from being opened, the end of the log aside.
    pub(crate) problems: Vec<Error>,
    /// The highest generation seen, superseded ones included.
    pub(crate) generation: u32,
    /// The oldest record that still exists.
    pub(crate) head: Place,
    /// The first group that is there, in a store without its beginning.
    pub(crate) origin: Place,
    /// How the log ends; `None` when there is no log.
    pub(crate) end: Option<End>,
    pub(crate) uuid: Uuid,
    /// What is known of the log by the file beside the segments.
    pub(crate) state: Option<StateRecord>,
    /// No group of what was cut out of the log, ever, reaches further.
    pub(crate) known: Lsn,
}

/// The end of a log.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) tail: Tail,
    /// The row of the table by which opening decides.
    pub(crate) case: EndCase,
}

impl Survey {
    /// The segment with the end of the log.
    pub(crate) fn active(&self) -> Option<&SegmentFile> {
        self.segments.last()
    }

    /// Fails if something keeps the log from being opened.
    pub(crate) fn check(&self, layout: &dyn Layout) -> Result<()> {
        if let Some(problem) = self.problems.first() {
            return Err(problem.clone());
        }
        match self.end_problem(layout) {
            Some(problem) if !self.cuts_below_watermark() => Err(problem),
            _ => Ok(()),
        }
    }

    /// A deliberate bug: damage is taken for a torn tail.
    fn cuts_below_watermark(&self) -> bool {
        let damage = |end: &End| end.case.act() == Act::Refuse(Loss::Damage);
        mutation::is(Mutation::CutBelowWatermark) && self.end.as_ref().is_some_and(damage)
    }

    /// Whether the file is there that holds the end of the log, and nothing in it verifies: that
    /// was told.
    fn ends_in_lost(&self, tail: &Tail) -> bool {
        self.lost.iter().any(|base| *base >= tail.end_lsn)
    }

    /// What the end of the log lacks, if opening refuses for its sake.
    pub(crate) fn end_problem(&self, layout: &dyn Layout) -> Option<Error> {
        let (End { tail, case }, last) = (self.end.as_ref()?, self.active()?);
        let at = |lsn, resumes, kind| {
            let (path, offset) = (layout.path_of(last.name()), last.offset(lsn).0);
            Some(Error::Corrupt(Corruption { path, lsn, offset, resumes, kind, lost: None }))
        };
        match (case.act(), &tail.damage, &tail.head) {
            (Act::GoOn | Act::Carry | Act::StepBack, _, _) => None,
            (Act::Refuse(Loss::Damage), Some(damage), _) => Some(Error::Corrupt(damage.clone())),
            (Act::Refuse(Loss::Successor), _, _) => {
                let end = tail.seal.and_then(|seal| seal.next_lsn()).unwrap_or(tail.end_lsn);
                let kind = CorruptionKind::MissingSegment;
                if self.ends_in_lost(tail) {
                    return None;
                }
                let (path, resumes, lost) = (layout.path().to_path_buf(), None, None);
                Some(Error::Corrupt(Corruption { path, lsn: end, offset: 0, resumes, kind, lost }))
            }
            // What follows the newest head that is noted was dropped, and with it a newer one.
            (Act::Refuse(Loss::Head), _, Some(head)) => {
                at(head.lsn, Some(self.origin.lsn), CorruptionKind::Group)
            }
            // Where the groups follow each other, it is the state that says otherwise.
            (Act::Refuse(Loss::History), Some(damage), _) if tail.contradicts_state => {
                let other = layout.path().join(STATE_NAME);
                Some(Error::OtherHistory { path: damage.path.clone(), other, lsn: damage.lsn })
            }
            (Act::Refuse(Loss::History), Some(damage), _) => Some(Error::Corrupt(damage.clone())),
            (Act::Refuse(Loss::End), _, _) if self.ends_in_lost(tail) => None,
            (Act::Refuse(Loss::End), _, _) if tail.seen.stated == Stated::Short => {
                at(tail.end_lsn, None, CorruptionKind::End)
            }
            (Act::Refuse(_), _, _) => at(tail.end_lsn, None, CorruptionKind::Group),
        }
    }
}

/// A segment that is not there; its neighbours are as they should be.
pub(crate) fn missing(layout: &dyn Layout, lsn: Lsn, resumes: Lsn) -> Corruption {
    Corruption {
        path: layout.path().to_path_buf(),
        lsn,
        offset: 0,
        resumes: Some(resumes),
        kind: CorruptionKind::MissingSegment,
        lost: None,
    }
}

/// Damage in the segment with this name.
pub(crate) fn damaged(
    layout: &dyn Layout,
    segment: SegmentName,
    lsn: Lsn,
    kind: CorruptionKind,
) -> Corruption {
    Corruption { path: layout.path_of(segment), lsn, offset: 0, resumes: None, kind, lost: None }
}
