//! Whether the files of a directory are of one history: the joints of segments, the state beside
//! them, and what a cut superseded. Reads only.
//!
//! A copy of a log that is written to goes its own way, and identity, generation and positions
//! repeat in it. What tells the two apart is what each opening drew: a random epoch, which is in
//! every group, and of which a checksum is in every group behind it.
//!
//! | what | is of one history if |
//! |---|---|
//! | a segment that was begun by rotation | its first group names the seal before, and is of that opening |
//! | a segment that a cut made | its first group names the group before, which its superblock finds |
//! | a group at or behind the state's `lsn`, or in a newer generation | it is of the state's opening, or of an announced cutter |
//! | a superseded segment | it does not reach further than the cut knew, and the cut knows its last opening |
//!
//! Without the last one: 1. a copy crashes, and its recovery begins generation 2, 2. that one's
//! file is put beside the segments of the original, which has grown, 3. it supersedes them, and the
//! next opening removes them. And where the copy had grown further than the original, how far it
//! was known to reach tells nothing.

use crate::error::{CorruptionKind, Error, Result};
use crate::format::{GROUP_HEADER_LEN, GroupHeader, Seed, SegmentName, StateRecord};
use crate::layout::Layout;
use crate::layout::directory::{Directory, STATE_NAME, Stated};
use crate::mutation::{self, Mutation};
use crate::open::cutters::cutter;
use crate::open::tail::{Expected, Known, scan};
use crate::place::{Epoch, FileOffset, Lsn, Seq};
use crate::read::walk::{Link, Walk};
use crate::segment::file::SegmentFile;
use crate::segment::span::{Span, seal_before};

/// Why `next`, the segment behind `segment`, does not follow it, if so. `seal` is the seal with
/// which that one ends there.
pub(crate) fn stranger(
    directory: &Directory,
    segment: &SegmentFile,
    next: &SegmentFile,
    seal: Option<&GroupHeader>,
) -> Option<Error> {
    if mutation::is(Mutation::UnchainedSegments) {
        return None;
    }
    let (older, newer) = (segment.superblock.generation, next.superblock.generation);
    let cut = next.superblock.cut;
    let follows = match (next.first, cut.is_some()) {
        // Within a generation a segment follows another one by rotation alone, and only a cut
        // begins another generation.
        (_, by_cut) if by_cut != (older != newer) => false,
        (None, _) => true,
        (Some(first), by_cut) => link_before(directory, segment, next, seal).is_none_or(|link| {
            link.chain == first.previous && (by_cut || link.epoch == first.epoch)
        }),
    };
    (!follows).then(|| Error::OtherHistory {
        path: directory.path_of(next.name()),
        other: directory.path_of(segment.name()),
        lsn: next.superblock.base_lsn,
    })
}

/// The last group of `segment` before the `next` one; `None` where damage hides it.
pub(crate) fn link_before(
    directory: &Directory,
    segment: &SegmentFile,
    next: &SegmentFile,
    seal: Option<&GroupHeader>,
) -> Option<Link> {
    let log = Seed::of_log(segment.superblock.uuid);
    let base = next.superblock.base_lsn;
    if let Some(seal) = seal {
        return Some(Link::of(seal, log));
    }
    let span = directory.open(segment, base).ok()?;
    if let Some(lsn) = next.superblock.cut.and_then(|cut| cut.before) {
        let mut header = [0; GROUP_HEADER_LEN];
        let read = span.store.read_at(span.offset(lsn).0, &mut header).unwrap_or(0);
        if let Some(header) = GroupHeader::decode(&header[..read], lsn, log) {
            return Some(Link::of(&header, log));
        }
    }
    let tail = scan(&span, Expected::default()).ok()?;
    // A seal that ends before that has a segment missing behind it. One that ends behind it is that
    // of a copy: the next segment does not name it.
    let follows = |seal: &GroupHeader| match seal.next_lsn() {
        Some(end) if end > base => !mutation::is(Mutation::SkipLongSeals),
        end => end == Some(base),
    };
    let sealed = tail.seal.filter(follows).map(|seal| Link::of(&seal, log));
    sealed.or_else(|| tail.link.filter(|_| tail.end_lsn >= base))
}

/// What the state says of where the log ends, and what in `segments`, which are all of the log,
/// says otherwise.
pub(crate) fn known(
    directory: &Directory,
    state: &StateRecord,
    segments: &[SegmentFile],
) -> (Option<Known>, Vec<Error>) {
    let Some(newest) = segments.iter().max_by_key(|s| s.superblock.generation) else {
        return (None, Vec::new());
    };
    if mutation::is(Mutation::IgnoreState) {
        return (None, Vec::new());
    }
    let path = directory.path().join(STATE_NAME);
    if state.uuid != newest.superblock.uuid {
        let (expected, found) = (newest.superblock.uuid, state.uuid);
        return (None, vec![Error::WrongLog { path, expected, found }]);
    }
    let since = |s: &SegmentFile| s.superblock.generation > state.generation;
    let cutter = cutter(state, segments);
    let epochs = [state.epoch, cutter.unwrap_or(state.epoch)];
    let is_strange = |s: &&SegmentFile| {
        let Some(epoch) = epoch_since(s, state) else { return false };
        !epochs.contains(&epoch)
    };
    let strange = segments.iter().filter(is_strange);
    let older = Some(newest).filter(|s| s.superblock.generation < state.generation);
    let problem = |s: &SegmentFile| Error::OtherHistory {
        path: directory.path_of(s.name()),
        other: path.clone(),
        lsn: s.superblock.base_lsn,
    };
    let problems = strange.chain(older).map(problem).collect();
    let mut cuts = segments.iter().filter(|s| since(s)).filter_map(|s| s.superblock.cut);
    let (durable_lsn, previous) = match segments.iter().any(since) {
        // What a cut left was durable with it.
        true => (cuts.next_back().map_or(Lsn::START, |cut| cut.lsn), None),
        false => (state.durable_lsn, Some(state.previous)),
    };
    // A generation newer than the state may end in front of the state's `lsn`. If opening checked
    // only groups behind that: 1. `truncate_after` cuts the log, 2. an operator copies the log, and
    // the copy is written to, 3. the operator puts the copy's file in the original's place,
    // 4. opening takes the copy's records for the log's.
    let begun = segments.iter().filter(|s| since(s)).map(|s| s.superblock.base_lsn).min();
    let begun = begun.filter(|_| !mutation::is(Mutation::BelieveBelowState));
    let lsn = state.lsn.min(begun.unwrap_or(state.lsn));
    (Some(Known { durable_lsn, lsn, epochs, previous }), problems)
}

/// The opening that wrote the segment, if that was after the state was written down.
fn epoch_since(segment: &SegmentFile, state: &StateRecord) -> Option<Epoch> {
    if segment.superblock.generation > state.generation {
        return Some(segment.superblock.epoch);
    }
    segment.first.filter(|_| segment.superblock.base_lsn >= state.lsn).map(|first| first.epoch)
}

/// What the state file lacks, or tells of segments that are not there.
pub(crate) fn state_problem(directory: &Directory, stated: &Stated, empty: bool) -> Option<Error> {
    let lsn = match stated {
        Stated::Nothing => return None,
        Stated::Missing | Stated::Damaged if empty => return None,
        Stated::Record(_) if !empty => return None,
        Stated::Record(state) => state.lsn,
        Stated::Missing | Stated::Damaged => Lsn::START,
    };
    let path = directory.path().join(STATE_NAME);
    let corruption = crate::error::Corruption {
        path,
        lsn,
        offset: 0,
        resumes: None,
        kind: CorruptionKind::State,
        lost: None,
    };
    Some(Error::Corrupt(corruption))
}

/// What is known of files that a higher generation took out of the log.
#[derive(Debug, Default)]
pub(crate) struct Superseded {
    /// What of them was no part of what their cut took away.
    pub(crate) strangers: Vec<Error>,
    /// Those of which no cut tells any more. They are left alone.
    pub(crate) unexplained: Vec<SegmentName>,
}

/// Looks at segments that a cut superseded, and at what the newest one left behind its place in the
/// segment before. `live` are the segments of the log.
pub(crate) fn look_at_superseded(
    directory: &Directory,
    superseded: &[SegmentFile],
    live: &[SegmentFile],
) -> Result<Superseded> {
    let mut found = Superseded::default();
    for segment in superseded {
        let by = |s: &&SegmentFile| {
            s.superblock.generation > segment.superblock.generation
                && s.superblock.base_lsn <= segment.superblock.base_lsn
        };
        let cuts = live.iter().filter(by).filter(|s| s.superblock.cut.is_some());
        match Explained::by(cuts) {
            Some(cut) => found.strangers.extend(cut.stranger(directory, segment, Lsn::START)?),
            None if last_group(directory, segment, Lsn::START)?.is_none() => {}
            None => found.unexplained.push(segment.name()),
        }
    }
    let newest = live.windows(2).filter(|pair| pair[1].superblock.cut.is_some());
    if let Some([before, by]) = newest.max_by_key(|pair| pair[1].superblock.generation)
        && let Some(cut) = Explained::by([by])
    {
        found.strangers.extend(cut.stranger(directory, before, by.superblock.base_lsn)?);
    }
    Ok(found)
}

/// What cuts say of what they took away.
struct Explained<'a> {
    /// The one that knew furthest.
    by: &'a SegmentFile,
    known: Lsn,
    /// `None` where one of them does not say.
    epochs: Option<Vec<Epoch>>,
}

impl<'a> Explained<'a> {
    fn by(cuts: impl IntoIterator<Item = &'a SegmentFile>) -> Option<Self> {
        let cuts: Vec<_> =
            cuts.into_iter().filter_map(|by| Some((by, by.superblock.cut?))).collect();
        let (by, furthest) = cuts.iter().max_by_key(|(_, cut)| cut.known)?;
        let listed = cuts.iter().all(|(_, cut)| cut.openings.are_listed());
        let listed = listed && !mutation::is(Mutation::ForgetCutOpenings);
        let epochs = cuts.iter().flat_map(|(_, cut)| cut.openings.iter());
        Some(Explained { by, known: furthest.known, epochs: listed.then(|| epochs.collect()) })
    }

    /// Why `segment` was no part of what was cut at or behind `from`, if so.
    fn stranger(
        &self,
        directory: &Directory,
        segment: &SegmentFile,
        from: Lsn,
    ) -> Result<Option<Error>> {
        let reaches = segment.file_end_lsn() > from.max(segment.superblock.base_lsn);
        if !reaches || mutation::is(Mutation::RemoveStrangers) {
            return Ok(None);
        }
        let Some((lsn, end, epoch)) = last_group(directory, segment, from)? else {
            return Ok(None);
        };
        let strange = self.epochs.as_ref().is_some_and(|epochs| !epochs.contains(&epoch));
        let lsn = if strange { lsn } else { self.known };
        Ok((strange || end > self.known).then(|| Error::OtherHistory {
            path: directory.path_of(self.by.name()),
            other: directory.path_of(segment.name()),
            lsn,
        }))
    }
}

/// The headers that verify at or behind `from`, each behind the group before.
pub(crate) fn groups_from(span: Span, from: Lsn) -> impl Iterator<Item = GroupHeader> {
    let (end, mut at) = (span.end_lsn, from);
    let mut walk = Walk::new(span, from, Seq(0));
    std::iter::from_fn(move || {
        let header = walk.find_group(at).filter(|header| header.lsn < end)?;
        at = header.next_lsn().unwrap_or(Lsn::MAX);
        Some(header)
    })
}

/// The last group of a segment at or behind `from`: where it is, where it ends, who wrote it.
/// `None` if there is none, and if a writer removed the file meanwhile.
fn last_group(
    directory: &Directory,
    segment: &SegmentFile,
    from: Lsn,
) -> Result<Option<(Lsn, Lsn, Epoch)>> {
    let end_lsn = segment.file_end_lsn();
    let span = match directory.open(segment, end_lsn) {
        Err(_) if directory.has_dropped(segment, FileOffset(0)) => return Ok(None),
        span => span?,
    };
    let place = |header: &GroupHeader| {
        let next = header.next_lsn().unwrap_or(Lsn::MAX);
        (header.lsn >= from).then_some((header.lsn, next, header.epoch))
    };
    if let Some(seal) = seal_before(&span) {
        return Ok(place(&seal));
    }
    if from > segment.superblock.base_lsn {
        return Ok(groups_from(span, from).last().as_ref().and_then(place));
    }
    let tail = scan(&span, Expected::default())?;
    let sealed = tail.seal.as_ref().and_then(place);
    Ok(sealed.or_else(|| tail.link.map(|link| (link.lsn, tail.end_lsn, link.epoch))))
}
