//! The file beside the segments that lists what a repair found to be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use cairn_io::{Access, FileStore, Store, read_full_at};

use super::Directory;
use super::stated::Stated;
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{GAPS_LEN_MAX, GapList, GapNote, SegmentKey, SegmentName, Superblock};
use crate::gap::Gap;
use crate::place::Lsn;
use crate::segment::file::SegmentFile;
use crate::sync::PoisonError;

/// The file with the gaps.
pub(crate) const GAPS_NAME: &str = "GAPS";

/// Its name until it is whole. A left-over is overwritten.
pub(crate) const GAPS_TEMP_NAME: &str = "gaps.tmp";

/// What is taken for true of a directory beside what its segments say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Premise {
    /// What readers step over, and what stands in for damaged superblocks.
    pub(crate) gaps: GapList,
    /// Files that are none of the log's, although they have the names of segments.
    pub(crate) without: BTreeSet<SegmentName>,
    /// Segments that are not under their own name, and the name that they have.
    pub(crate) misnamed: BTreeMap<SegmentName, String>,
    /// What the state says, in place of the file with it.
    pub(crate) stated: Option<Stated>,
}

/// What the file with the gaps says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Listed {
    /// There is none.
    Missing,
    /// It does not verify.
    Damaged,
    List(GapList),
}

/// Whether the gap lies in a log of these segments: in one of them, and before the next one. A cut
/// of the end leaves the segment before its own as it is.
pub(crate) fn is_in(segments: &[SegmentFile], gap: &GapNote) -> bool {
    let at = segments.iter().position(|s| SegmentKey::of(&s.superblock) == gap.segment);
    let next = |at: usize| segments.get(at + 1).map(|next| next.superblock.base_lsn);
    at.is_some_and(|at| next(at).is_none_or(|base| gap.from < base))
}

impl Directory {
    /// What the file with the gaps says.
    fn listed(&self) -> Result<Listed> {
        let file = match self.dir.open(GAPS_NAME.as_ref(), Access::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Listed::Missing),
            file => file.map_err(self.error("open", GAPS_NAME))?,
        };
        let len = file.len().map_err(self.error("measure", GAPS_NAME))?;
        let mut bytes = Vec::new();
        let room = usize::try_from(len).ok().filter(|_| len <= GAPS_LEN_MAX);
        let Some(room) = room.filter(|room| bytes.try_reserve_exact(*room).is_ok()) else {
            return Ok(Listed::Damaged);
        };
        bytes.resize(room, 0);
        let read = read_full_at(&*file, 0, &mut bytes).map_err(self.error("read", GAPS_NAME))?;
        Ok(GapList::decode(&bytes[..read]).map_or(Listed::Damaged, Listed::List))
    }

    /// Takes the list of gaps for true from now on, if there is one; whether one is damaged.
    pub(crate) fn learn_gaps(&self) -> Result<bool> {
        let listed = self.listed()?;
        let damaged = listed == Listed::Damaged;
        let gaps = if let Listed::List(list) = listed { list } else { GapList::default() };
        self.assume(Premise { gaps, ..Premise::default() });
        Ok(damaged)
    }

    /// That the list of gaps does not verify.
    pub(crate) fn damaged_gap_list(&self) -> Error {
        Error::Corrupt(Corruption {
            path: self.at(GAPS_NAME),
            lsn: Lsn::START,
            offset: 0,
            resumes: None,
            kind: CorruptionKind::GapList,
            lost: None,
        })
    }

    /// The list of gaps that is there; an empty one if there is none.
    pub(crate) fn recorded_gaps(&self) -> Result<GapList> {
        let listed = self.listed()?;
        Ok(if let Listed::List(list) = listed { list } else { GapList::default() })
    }

    /// Where records are lost in a log of these segments, for a person, by position.
    pub(crate) fn told_gaps(&self, segments: &[SegmentFile]) -> Vec<Gap> {
        let premise = self.premise();
        let told = premise.gaps.gaps.iter().filter(|gap| gap.is_told() && is_in(segments, gap));
        let mut gaps: Vec<Gap> = told.map(Gap::of).collect();
        gaps.sort_by_key(|gap| gap.from);
        gaps
    }

    /// Lets go of what is listed of segments, and of places, that are no longer in the log.
    pub(crate) fn forget_gaps_but_of(&self, segments: &[SegmentFile]) -> Result<()> {
        let listed = &self.premise().gaps;
        if listed.is_empty() {
            return Ok(());
        }
        let live: BTreeSet<SegmentKey> =
            segments.iter().map(|segment| SegmentKey::of(&segment.superblock)).collect();
        let mut list = listed.clone();
        list.gaps.retain(|gap| is_in(segments, gap));
        list.superblocks.retain(|superblock| live.contains(&SegmentKey::of(superblock)));
        if list == *listed { Ok(()) } else { self.write_gaps(&list) }
    }

    pub(crate) fn premise(&self) -> Arc<Premise> {
        self.premise.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes this for true from now on. Writes nothing.
    pub(crate) fn assume(&self, premise: Premise) {
        *self.premise.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(premise);
    }

    /// What is listed of the segment with this superblock.
    pub(crate) fn gaps_of(&self, superblock: &Superblock) -> Vec<GapNote> {
        self.premise().gaps.of(SegmentKey::of(superblock)).to_vec()
    }

    pub(super) fn gap_before_segment(&self, superblock: &Superblock) -> Option<Gap> {
        self.premise().gaps.before(SegmentKey::of(superblock)).map(Gap::of)
    }

    /// What stands in for the superblock of the segment with this name, if that does not verify.
    pub(crate) fn stand_in(&self, name: SegmentName) -> Option<Superblock> {
        let premise = self.premise();
        premise.gaps.superblocks.iter().find(|superblock| superblock.name() == name).copied()
    }

    /// Gives a file another name, which must be free. That is not durable yet.
    pub(crate) fn rename_file(&self, from: &str, to: &str) -> Result<()> {
        self.rename(from, to).map_err(self.error("rename", from))
    }

    /// Lists gaps of a segment that is about to get its name.
    ///
    /// Until then they say nothing. In the other order: 1. the segment has its name, 2. power
    /// fails, 3. a log that had been repaired is damaged again. What an attempt listed that failed
    /// before the name was given is replaced.
    pub(super) fn add_gaps(&self, superblock: &Superblock, gaps: Vec<GapNote>) -> Result<()> {
        if gaps.is_empty() {
            return Ok(());
        }
        let mut list = self.premise().gaps.clone();
        list.uuid = superblock.uuid;
        list.set(SegmentKey::of(superblock), gaps);
        self.write_gaps(&list)
    }

    /// Makes `list` the list of gaps, durably; an empty one is none.
    ///
    /// The file is whole before it has its name. In the other order: 1. the name reaches the disk,
    /// 2. power fails, 3. what the list says does not, and the log is damaged and its list, too.
    pub(crate) fn write_gaps(&self, list: &GapList) -> Result<()> {
        if list.is_empty() {
            self.remove_if_there(GAPS_NAME).map_err(self.error("remove", GAPS_NAME))?;
        } else {
            let error = |op| self.error(op, GAPS_TEMP_NAME);
            self.remove_if_there(GAPS_TEMP_NAME).map_err(error("remove"))?;
            let file = self.dir.create_new(GAPS_TEMP_NAME.as_ref()).map_err(error("create"))?;
            let store = FileStore::new(file);
            store.write_at(0, &list.encode()).map_err(error("write to"))?;
            store.sync().map_err(error("sync"))?;
            let named = self.dir.replace(GAPS_TEMP_NAME.as_ref(), GAPS_NAME.as_ref());
            named.map_err(self.error("rename into place", GAPS_NAME))?;
        }
        self.sync()?;
        self.assume(Premise { gaps: list.clone(), ..Premise::default() });
        Ok(())
    }
}
