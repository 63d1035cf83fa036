//! What a repair would do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::{Fs, NativeFs};

use crate::error::{Error, Result};
use crate::format::{ALIGN, GapList, GapNote, SegmentKey, SegmentName};
use crate::gap::Gap;
use crate::layout::Layout;
use crate::layout::directory::{Directory, GAPS_NAME, Premise, STATE_NAME, Stated, is_in};
use crate::open::cases::{Act, Ending, Loss};
use crate::open::segments::survey_as_assumed;
use crate::open::survey::{End, Survey};
use crate::open::tail::Tail;
use crate::place::Lsn;
use crate::read::parallel::{each, processors};
use crate::repair::files::{Settled, settle};
use crate::repair::scan::{Scanned, scan};
use crate::segment::file::SegmentFile;

/// What is wrong with a log, and what repairing it would do. Made by [`plan`](Repair::plan), which
/// reads everything and changes nothing.
///
/// A repair changes no byte of a segment. It writes a file, `GAPS`, that lists what is lost, so
/// that the log opens again and everything else in it keeps its position and number; readers return
/// [`Error::Gap`] where something is lost. A file that is no part of the log is renamed, and kept.
///
/// ```
/// # fn main() -> cairn_log::Result<()> {
/// # let dir = tempfile::tempdir().expect("a directory");
/// # let log = cairn_log::Log::open(dir.path().join("log"))?;
/// # log.commit(b"record")?;
/// # log.close()?;
/// let repair = cairn_log::Repair::plan(dir.path().join("log"), |_| ())?;
/// for gap in repair.gaps() {
///     println!("lost: {gap}");
/// }
/// if repair.is_needed() {
///     repair.apply(|_| ())?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Repair {
    pub(super) directory: Arc<Directory>,
    pub(super) premise: Premise,
    /// Whether the list of gaps is to be written.
    pub(super) lists: bool,
    pub(super) list_was_damaged: bool,
    problems: Vec<Error>,
    gaps: Vec<Gap>,
    known_gaps: Vec<Gap>,
    records: u64,
    bytes: u64,
    pub(super) kept: Vec<Kept>,
}

/// A file that a repair renames, and keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// What it is called.
    pub path: PathBuf,
    /// What it will be called: a name that is not the log's, or the name of the segment that it
    /// is.
    pub to: PathBuf,
}

/// What reading all segments found.
struct Contents {
    gaps: Vec<GapNote>,
    records: u64,
    bytes: u64,
}

impl Repair {
    /// Reads all of the log in `dir` and says what a repair would do. Takes no lock and changes
    /// nothing. `progress` is told, by the calling thread, the bytes read since it was last called.
    ///
    /// # Errors
    /// What cannot be repaired: [`Error::UnsupportedVersion`]; [`Error::Io`] when something cannot
    /// be read for another reason than damage; the problem itself when nothing tells what the log
    /// was.
    pub fn plan(dir: impl AsRef<Path>, progress: impl FnMut(u64)) -> Result<Self> {
        Self::plan_on(Arc::new(NativeFs), dir, progress)
    }

    /// The same on another file system.
    ///
    /// # Errors
    /// As [`plan`](Repair::plan).
    pub fn plan_on(
        fs: Arc<dyn Fs>,
        dir: impl AsRef<Path>,
        progress: impl FnMut(u64),
    ) -> Result<Self> {
        let dir = dir.as_ref();
        let nothing = || Error::io("open", dir, std::io::ErrorKind::NotFound.into());
        let directory = Directory::open(fs, dir)?.ok_or_else(nothing)?;
        Self::of(Arc::new(directory), progress)
    }

    /// Plans for a directory, and leaves assumed of it what the repair would make true.
    pub(super) fn of(directory: Arc<Directory>, mut progress: impl FnMut(u64)) -> Result<Self> {
        let Settled { survey, mut problems, list_was_damaged, .. } = settle(&directory)?;
        if survey.end.is_none() {
            let nothing = std::io::ErrorKind::NotFound.into();
            return Err(Error::io("find a log in", directory.path(), nothing));
        }
        problems.extend(survey.end_problem(&*directory));
        let mut known = directory.recorded_gaps()?;
        known.gaps.retain(|gap| is_in(&survey.segments, gap));
        let contents = read_all(&directory, &survey, &known, &mut progress)?;
        let mut premise = (*directory.premise()).clone();
        premise.gaps.uuid = survey.uuid;
        premise.gaps.gaps.retain(GapNote::is_leading);
        premise.gaps.gaps.extend(contents.gaps);
        premise.gaps.sort();
        directory.assume(premise);
        settle_end(&directory)?;
        let premise = (*directory.premise()).clone();
        let lists = premise.gaps != known && !(premise.gaps.is_empty() && known.is_empty());
        let told = premise.gaps.gaps.iter().filter(|gap| gap.is_told());
        let (known_gaps, gaps): (Vec<_>, Vec<_>) = told.partition(|gap| known.gaps.contains(gap));
        let tell = |gaps: Vec<&GapNote>| gaps.into_iter().map(Gap::of).collect();
        let mut repair = Repair {
            gaps: tell(gaps),
            known_gaps: tell(known_gaps),
            directory,
            premise,
            lists,
            list_was_damaged,
            problems,
            records: contents.records,
            bytes: contents.bytes,
            kept: Vec::new(),
        };
        repair.kept = repair.renames()?;
        Ok(repair)
    }

    /// Whether there is anything to repair.
    pub fn is_needed(&self) -> bool {
        self.lists
            || self.list_was_damaged
            || !self.kept.is_empty()
            || self.premise.stated.is_some()
    }

    /// What is wrong with the files, and with the end of the log. Damage inside of segments is told
    /// by [`gaps`](Repair::gaps).
    pub fn problems(&self) -> &[Error] {
        &self.problems
    }

    /// Where records are lost, by position. Damage that costs no record is not among them.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Where records were lost before: what earlier repairs recorded.
    pub fn known_gaps(&self) -> &[Gap] {
        &self.known_gaps
    }

    /// Records that verify, all of which stay where they are.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of log that were read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Files that are renamed.
    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// Which files get another name: those that are none of the log's, and segments that have
    /// another one's.
    fn renames(&self) -> Result<Vec<Kept>> {
        let path = self.directory.path();
        let names: Vec<_> =
            self.directory.list()?.iter().map(|n| n.to_string_lossy().into_owned()).collect();
        let Premise { without, misnamed, .. } = &self.premise;
        // Whatever has the name of a segment that is elsewhere is not it.
        let taken = misnamed.keys().filter(|own| !without.contains(own));
        let taken = taken
            .map(SegmentName::to_string)
            .filter(|name| names.contains(name) && !misnamed.values().any(|other| other == name));
        let aside = without.iter().map(SegmentName::to_string).chain(taken);
        let has_state = self.directory.state()? != Stated::Missing;
        let state = (self.premise.stated.is_some() && has_state).then(|| STATE_NAME.to_owned());
        let list = self.list_was_damaged.then(|| GAPS_NAME.to_owned());
        let mut kept = Vec::new();
        for name in aside.chain(state).chain(list) {
            let free = |n: &u32| !names.contains(&format!("{name}.kept-{n}"));
            let to = format!("{name}.kept-{}", (1..).find(free).unwrap_or(u32::MAX));
            kept.push(Kept { path: path.join(&name), to: path.join(to) });
        }
        let misnamed = self.premise.misnamed.iter();
        kept.extend(
            misnamed.map(|(own, name)| Kept {
                path: path.join(name),
                to: self.directory.path_of(*own),
            }),
        );
        Ok(kept)
    }
}

/// Reads all segments, several at a time.
fn read_all(
    directory: &Directory,
    survey: &Survey,
    known: &GapList,
    progress: &mut dyn FnMut(u64),
) -> Result<Contents> {
    let count = survey.segments.len();
    let helpers =
        if directory.background() { processors().min(count).saturating_sub(1) } else { 0 };
    let read = each(
        count,
        helpers,
        |i| read_segment(directory, survey, known, (i, helpers > 0)),
        |read| {
            if let Ok((_, bytes)) = read {
                progress(*bytes);
            }
        },
    );
    let mut contents = Contents { gaps: Vec::new(), records: 0, bytes: 0 };
    for segment in read {
        let (Scanned { gaps, records, .. }, bytes) = segment?;
        contents.gaps.extend(gaps);
        contents.records += records;
        contents.bytes += bytes;
    }
    Ok(contents)
}

/// Reads one segment. Where an earlier repair recorded all that does not verify, that stays;
/// otherwise all of it is found again.
fn read_segment(
    directory: &Directory,
    survey: &Survey,
    known: &GapList,
    (i, in_place): (usize, bool),
) -> Result<(Scanned, u64)> {
    let segment = &survey.segments[i];
    let key = SegmentKey::of(&segment.superblock);
    let following = survey.segments.get(i + 1);
    let end_lsn = match (following, &survey.end) {
        (Some(next), _) => next.superblock.base_lsn,
        (None, Some(end)) => begun_end(&end.tail),
        (None, None) => segment.superblock.base_lsn,
    };
    let mut span = directory.open(segment, end_lsn)?;
    let bytes = end_lsn.saturating_since(span.base_lsn);
    let next = following.map(SegmentFile::base);
    let recorded: Vec<_> = known.of(key).iter().filter(|gap| !gap.is_leading()).copied().collect();
    if !recorded.is_empty() {
        span.gaps.clone_from(&recorded);
        let stepping = scan(span.clone(), key, next, in_place)?;
        if stepping.gaps.is_empty() {
            return Ok((Scanned { gaps: recorded, ..stepping }, bytes));
        }
    }
    span.gaps.clear();
    let mut scanned = scan(span, key, next, in_place)?;
    if let (None, Some(end)) = (following, &survey.end) {
        end_in_order(&mut scanned, end);
    } else if let (Some(next), Some(last)) = (following, scanned.gaps.last_mut())
        && last.to == end_lsn
        && last.group.is_none()
    {
        last.chain = next.first.map(|first| first.previous);
    }
    Ok((scanned, bytes))
}

/// Up to where something was begun in the last segment, which ends in `tail`.
pub(crate) fn begun_end(tail: &Tail) -> Lsn {
    let begun = tail.end_lsn.saturating_add(tail.torn_bytes.next_multiple_of(ALIGN));
    let sealed = tail.seal.and_then(|seal| seal.next_lsn()).unwrap_or(Lsn::START);
    begun.max(tail.proven_lsn).max(tail.reached_lsn).max(sealed)
}

/// What verifies nowhere up to the end is a gap only as far as it is known that something had been
/// durable there. The rest is a torn tail, for opening to cut.
fn end_in_order(scanned: &mut Scanned, End { tail, case }: &End) {
    let Some(last) = scanned.gaps.last_mut().filter(|gap| gap.from >= scanned.end.lsn) else {
        return;
    };
    // In a group the frames before it stay.
    let kept = if scanned.ends_in_group { last.from.saturating_add(ALIGN) } else { Lsn::START };
    let lost = tail.proven_lsn.max(kept);
    if lost <= last.from || case.ending() != Ending::Corrupt {
        scanned.gaps.pop();
    } else {
        last.to = last.to.min(lost);
        last.seq = last.seq.max(last.first_seq);
    }
}

/// Assumes what the end of the log lacks, until it is in order.
fn settle_end(directory: &Directory) -> Result<()> {
    const LOOKS_MAX: usize = 4;
    for _ in 0..LOOKS_MAX {
        let survey = survey_as_assumed(directory)?;
        if let Some(problem) = survey.problems.first() {
            return Err(problem.clone());
        }
        let Some(problem) = survey.end_problem(directory) else { return Ok(()) };
        let Some(gap) = gap_at_end(&survey) else { return Err(problem) };
        let mut premise = (*directory.premise()).clone();
        let list = &mut premise.gaps;
        match list.gaps.iter_mut().find(|g| g.segment == gap.segment && g.to == gap.from) {
            Some(before) => {
                (before.to, before.seq, before.group) = (gap.to, gap.seq, None);
                before.counted &= gap.counted;
            }
            None => list.gaps.push(gap),
        }
        list.sort();
        directory.assume(premise);
    }
    match survey_as_assumed(directory)?.end_problem(directory) {
        Some(problem) => Err(problem),
        None => Ok(()),
    }
}

/// What is lost at the end of the log, as far as that is known.
fn gap_at_end(survey: &Survey) -> Option<GapNote> {
    let (End { tail, case }, last) = (survey.end.as_ref()?, survey.active()?);
    let sealed = tail.seal.and_then(|seal| seal.next_lsn());
    let from = sealed.unwrap_or(tail.end_lsn);
    let state = survey.state.filter(|_| !matches!(case.act(), Act::Refuse(Loss::History)))?;
    let begun = tail.end_lsn.saturating_add(tail.torn_bytes.next_multiple_of(ALIGN));
    let known = [state.lsn, state.durable_lsn, tail.proven_lsn, survey.head.lsn, begun];
    let reached = known.into_iter().fold(from, Lsn::max);
    // Of a segment that is missing nothing may be known but that.
    let to = if reached > from { reached } else { from.saturating_add(ALIGN) };
    let to = Lsn(to.0.next_multiple_of(ALIGN));
    let counted = state.closed && to == state.lsn;
    let seq = if to == state.lsn { state.seq } else { tail.next_seq };
    Some(GapNote {
        segment: SegmentKey::of(&last.superblock),
        from,
        to,
        first_seq: tail.next_seq,
        seq: seq.max(tail.next_seq),
        counted,
        chain: None,
        group: None,
    })
}
