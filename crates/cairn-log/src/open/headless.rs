//! Segments without a superblock: what it says is in the name, in the state and in the groups, as
//! far as reading needs it. Reads only.
//!
//! A file with a segment's name in a log's directory is that log's, whatever is in it. Taken for
//! another one's: 1. the first sector of the only segment is lost, 2. the file is moved away, as
//! the message says, 3. the next opening makes a new, empty log.

use cairn_io::read_full_at;
use uuid::Uuid;

use crate::error::{Corruption, CorruptionKind, Error, Lost};
use crate::format::{
    CutNote, OPEN_SEQ, Openings, STORE_SIZE, SUPERBLOCK_LEN, SegmentName, StateRecord, Superblock,
    is_place,
};
use crate::layout::Layout;
use crate::layout::directory::{Directory, Stated};
use crate::open::survey::damaged;
use crate::place::{Epoch, Lsn, Place, Seq};
use crate::read::walk::Walk;
use crate::segment::file::{First, SegmentFile};

/// Whether it is the superblock that keeps a file from being a segment.
pub(crate) fn lacks_superblock(problem: &Error) -> bool {
    matches!(problem, Error::Foreign { .. })
        || matches!(problem, Error::Corrupt(damage) if damage.kind == CorruptionKind::Superblock)
}

/// Where the segment starts of whose file nothing verifies.
pub(crate) fn lost_base(problem: &Error) -> Option<Lsn> {
    match problem {
        Error::Corrupt(damage) if damage.lost.is_none() => Some(damage.lsn),
        _ => None,
    }
}

/// What is wrong with files that have a segment's name and no superblock. Those that hold a group
/// of the log are added to those `found`.
pub(crate) fn find_headless(
    directory: &Directory,
    stated: &Stated,
    headless: Vec<(SegmentName, Error)>,
    found: &mut Vec<SegmentFile>,
) -> Vec<Error> {
    let state = match stated {
        Stated::Record(state) => Some(state),
        _ => None,
    };
    let known = state.map(|state| state.uuid);
    let first = found.iter().min_by_key(|s| (s.superblock.base_lsn, s.superblock.generation));
    let Some(uuid) = known.or(first.map(|first| first.superblock.uuid)) else {
        // Nothing says that there is a log.
        return headless.into_iter().map(|(_, problem)| problem).collect();
    };
    let mut damages = Vec::new();
    for (name, problem) in headless {
        if let Error::Foreign { .. } = problem
            && is_store(directory, name)
        {
            damages.push(problem);
            continue;
        }
        let mut damage = damaged(directory, name, name.base_lsn, CorruptionKind::Superblock);
        if let Some((segment, begins)) = rebuild(directory, name, uuid, state) {
            let from = name.base_lsn;
            let lost = Lost { from, to: from, records: Some(0), first_seq: None };
            let resumes = Some(begins).filter(|begins| *begins > from);
            damage = Corruption { resumes, lost: Some(lost), ..damage };
            found.push(segment);
        }
        damages.push(Error::Corrupt(damage));
    }
    damages
}

/// Whether the file is a whole log in a store, which somebody put here.
fn is_store(directory: &Directory, name: SegmentName) -> bool {
    let mut block = [0; SUPERBLOCK_LEN];
    let read = directory.read(name).and_then(|file| read_full_at(&*file, 0, &mut block));
    let superblock = read.ok().and_then(|read| Superblock::decode(&block[..read]).ok());
    superblock.is_some_and(|found| found.segment_size == STORE_SIZE)
}

/// The segment that the file with this name holds, and where its first group is that verifies.
fn rebuild(
    directory: &Directory,
    name: SegmentName,
    uuid: Uuid,
    state: Option<&StateRecord>,
) -> Option<(SegmentFile, Lsn)> {
    if !is_place(name.base_lsn, Seq::default()) {
        return None;
    }
    let file = directory.read(name).ok()?;
    let first = Superblock::first([0; 16], Epoch::default(), Place::default(), 0);
    let superblock = Superblock {
        uuid,
        generation: name.generation,
        base_lsn: name.base_lsn,
        base_seq: OPEN_SEQ,
        // What lies behind the last group is not judged.
        recycled_len: 1,
        // Only a cut begins a generation, and the state is written behind it.
        cut: state.filter(|state| state.generation < name.generation).map(|state| CutNote {
            before: None,
            epoch: state.epoch,
            lsn: name.base_lsn,
            known: Lsn::MAX,
            openings: Openings::default(),
        }),
        ..first
    };
    let mut segment = SegmentFile::new(superblock, file.len().ok()?);
    segment.id = file.stat().ok().map(|found| found.id);
    segment.is_headless = true;
    let span = directory.open(&segment, Lsn::MAX).ok()?;
    let mut walk = Walk::new(span, name.base_lsn, Seq::default());
    let group = walk.next_header(name.base_lsn)?;
    segment.superblock.epoch = group.epoch;
    if group.lsn == name.base_lsn {
        segment.base_seq = Some(group.first_seq);
        segment.first = Some(First { previous: group.previous, epoch: group.epoch });
    }
    Some((segment, group.lsn))
}
