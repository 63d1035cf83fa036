//! Looking at a directory: which segments are the log, which were superseded, what is not ours.
//! Reads only.
//!
//! A segment of generation `g` that starts at `B` supersedes everything at or after `B` in lower
//! generations. What is left, ordered by position, is the log: each segment ends where the next one
//! starts.

use std::collections::BTreeMap;
use std::io;

use cairn_io::{File, read_full_at};

use crate::clock::unix_ns;
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{
    DATA_OFFSET, FORMAT_VERSION, GROUP_HEADER_LEN, GroupHeader, OPEN_SEQ, STORE_SIZE,
    SUPERBLOCK_LEN, Seed, SegmentKey, SegmentName, Superblock, SuperblockError, is_place,
};
use crate::layout::Layout;
use crate::layout::directory::{
    Directory, GAPS_NAME, GAPS_TEMP_NAME, LOCK_NAME, SPARE_NAME, STATE_NAME, Stated, TEMP_NAME,
    is_cut,
};
use crate::mutation::{self, Mutation};
use crate::open::cases::{Act, Before, Head, Successor};
use crate::open::headless::{find_headless, lacks_superblock, lost_base};
use crate::open::histories::{known, link_before, look_at_superseded, state_problem, stranger};
use crate::open::joints::{Joint, Length, Made, Proof};
use crate::open::reads::read_each;
use crate::open::survey::{End, Survey, damaged, missing};
use crate::open::tail::{Around, Expected, Known, Tail, scan};
use crate::place::{Chain, Lsn, Place};
use crate::segment::file::{First, SegmentFile};
use crate::segment::span::seal_before;

/// What is the log's in its directory, beside segments and the spare file.
const OWN_NAMES: [&str; 5] = [TEMP_NAME, LOCK_NAME, STATE_NAME, GAPS_NAME, GAPS_TEMP_NAME];

/// Looks at a directory.
pub(crate) fn survey_directory(directory: &Directory) -> Result<Survey> {
    let mut stated = directory.state()?;
    loop {
        let damaged_list = directory.learn_gaps()?;
        let mut survey = look_at(directory, stated)?;
        if damaged_list {
            survey.problems.push(directory.damaged_gap_list());
        }
        // An opening that began after the first look at the state has changed it before it changed
        // anything else.
        let again = directory.state()?;
        if again == stated {
            return Ok(survey);
        }
        stated = again;
    }
}

/// Looks at a directory as if what is assumed of it were so, however damaged it is.
pub(crate) fn survey_as_assumed(directory: &Directory) -> Result<Survey> {
    let stated = match directory.premise().stated {
        Some(stated) => stated,
        None => directory.state()?,
    };
    look_at(directory, stated)
}

fn look_at(directory: &Directory, stated: Stated) -> Result<Survey> {
    let premise = directory.premise();
    let mut names = directory.list()?;
    names.sort();
    let mut survey = Survey::default();
    let mut named = Vec::new();
    for name in names {
        let text = name.to_string_lossy();
        let own = premise.misnamed.iter().find(|(_, is)| **is == *text).map(|(own, _)| *own);
        if let Some(segment) = own.or_else(|| SegmentName::parse(&text)) {
            let is_elsewhere = premise.misnamed.contains_key(&segment);
            if own.is_none() && (is_elsewhere || premise.without.contains(&segment)) {
                continue;
            }
            named.push(segment);
            survey.generation = survey.generation.max(segment.generation);
        } else if text == SPARE_NAME {
            survey.spare = true;
        } else if !OWN_NAMES.contains(&&*text) && !is_cut(&text) {
            survey.strays.push(directory.path_of_stray(&name));
        }
    }
    let (mut found, mut headless) = (Vec::new(), Vec::new());
    let read = read_each(directory, named.len(), |i| read_superblock(directory, named[i]));
    for (name, file) in named.into_iter().zip(read) {
        match file {
            Ok(file) if file.name() == name => found.push(file),
            Ok(_) => {
                let misnamed = damaged(directory, name, name.base_lsn, CorruptionKind::Misnamed);
                survey.problems.push(Error::Corrupt(misnamed));
            }
            Err(problem) if lacks_superblock(&problem) => headless.push((name, problem)),
            Err(problem) => survey.problems.push(problem),
        }
    }
    let damages = find_headless(directory, &stated, headless, &mut found);
    survey.lost = damages.iter().filter_map(lost_base).collect();
    survey.problems.extend(damages);
    let nothing = found.is_empty() && survey.problems.is_empty();
    let mut look = Look { directory, survey, seals: BTreeMap::new() };
    look.arrange(found)?;
    look.number();
    let known = look.what_is_known(stated);
    look.find_end(known)?;
    look.find_gaps()?;
    look.survey.problems.extend(state_problem(directory, &stated, nothing));
    Ok(look.survey)
}

/// A look under way.
struct Look<'a> {
    directory: &'a Directory,
    survey: Survey,
    /// The seals of segments that end where the next one starts, by that place.
    seals: BTreeMap<Lsn, GroupHeader>,
}

impl Look<'_> {
    fn arrange(&mut self, mut found: Vec<SegmentFile>) -> Result<()> {
        found.sort_by_key(|s| (s.superblock.base_lsn, s.superblock.generation));
        if let Some(expected) = found.first().map(|s| s.superblock.uuid) {
            self.survey.uuid = expected;
            found.retain(|s| {
                let ours = s.superblock.uuid == expected;
                if !ours {
                    let (path, found) = (self.directory.path_of(s.name()), s.superblock.uuid);
                    self.survey.problems.push(Error::WrongLog { path, expected, found });
                }
                ours
            });
        }
        let bounds: Vec<(Lsn, u32)> =
            found.iter().map(|s| (s.superblock.base_lsn, s.superblock.generation)).collect();
        let superseded = |s: &Superblock| {
            bounds.iter().any(|(base, g)| *g > s.generation && *base <= s.base_lsn)
        };
        let (obsolete, live): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|s| superseded(&s.superblock));
        let looked = look_at_superseded(self.directory, &obsolete, &live)?;
        self.survey.problems.extend(looked.strangers);
        let left = looked.unexplained;
        self.survey.strays.extend(left.iter().map(|name| self.directory.path_of(*name)));
        let names = obsolete.iter().map(SegmentFile::name);
        self.survey.obsolete = names.filter(|name| !left.contains(name)).collect();
        self.survey.superseded = self.survey.obsolete.len();
        let known = live.iter().filter_map(|s| s.superblock.cut).map(|cut| cut.known).max();
        self.survey.known = known.unwrap_or_default();
        self.leave_out_passed_over(live);
        Ok(())
    }

    /// A segment that was made ahead may have been moved away, so that the writer made another one,
    /// and come back when the log had passed its place. The seal of the segment before leads over
    /// it to the next one: it was never part of the log. It is left alone.
    fn leave_out_passed_over(&mut self, live: Vec<SegmentFile>) {
        for (i, segment) in live.iter().enumerate() {
            let behind = live[i + 1..].iter().find(|next| next.first.is_some());
            let is_empty = segment.first.is_none() && segment.superblock.cut.is_none();
            if let (Some(before), Some(behind)) = (self.survey.segments.last(), behind)
                && is_empty
                && !segment.is_headless
                && seal_of(self.directory, before, behind.superblock.base_lsn).is_some()
            {
                self.survey.strays.push(self.directory.path_of(segment.name()));
            } else {
                self.survey.segments.push(*segment);
            }
        }
    }

    /// What the state beside the segments says of the log's end.
    fn what_is_known(&mut self, stated: Stated) -> Option<Known> {
        let Stated::Record(state) = stated else { return None };
        self.survey.state = Some(state);
        let (known, problems) = known(self.directory, &state, &self.survey.segments);
        self.survey.problems.extend(problems);
        known
    }

    /// Reads the seals before segments that were begun by rotation, and finds out what superblocks
    /// that were made ahead leave open: the number of the first record, and when they were begun.
    fn number(&mut self) {
        let count = self.survey.segments.len();
        let seals = read_each(self.directory, count, |i| self.seal_before(i).ok_or(()));
        for (i, seal) in seals.into_iter().enumerate() {
            let Superblock { base_lsn, base_seq, .. } = self.survey.segments[i].superblock;
            self.seals.extend(seal.ok().map(|seal| (base_lsn, seal)));
            if base_seq == OPEN_SEQ {
                self.number_segment(i, seal.ok());
            }
        }
    }

    /// The seal of the segment before this one.
    fn seal_before(&self, i: usize) -> Option<GroupHeader> {
        let before = i.checked_sub(1).map(|before| &self.survey.segments[before])?;
        let within = self.survey.segments[i].superblock.cut.and_then(|cut| cut.before);
        if within.is_some() {
            return None;
        }
        seal_of(self.directory, before, self.survey.segments[i].superblock.base_lsn)
    }

    /// The seal of the segment before was durable before the first group was written, and both name
    /// that number. A segment of which both are damaged is as lost as one without a superblock.
    /// That they name two numbers is a sign of a file that is not the one it was.
    fn number_segment(&mut self, i: usize, seal: Option<GroupHeader>) {
        let segment = &self.survey.segments[i];
        let base = segment.superblock.base_lsn;
        let before = i.checked_sub(1).map(|before| &self.survey.segments[before]);
        let before = before.filter(|before| !before.is_headless && !segment.is_headless);
        if before.is_some_and(|s| stranger(self.directory, s, segment, seal.as_ref()).is_some()) {
            // That is told of the joint.
            return;
        }
        let sealed = seal.map(|seal| seal.first_seq);
        if let (Some(_), Some(by_seal)) = (segment.base_seq, sealed)
            && segment.base_seq != Some(by_seal)
        {
            let damage = damaged(self.directory, segment.name(), base, CorruptionKind::Group);
            self.survey.problems.push(Error::Corrupt(damage));
        }
        let sealed = sealed.filter(|seq| is_place(base, *seq));
        // The next one was made while this one was written to.
        let next = self.survey.segments.get(i + 1).map(|next| next.superblock.created_unix_ns);
        let begun = next.unwrap_or_else(|| unix_ns(self.directory.fs()));
        let segment = &mut self.survey.segments[i];
        segment.base_seq = segment.base_seq.or(sealed);
        segment.begun_unix_ns = begun;
    }

    /// Whether the last segment's number is known now, and was not before: a writer began the
    /// segment meanwhile.
    fn was_begun(&mut self) -> bool {
        match (self.survey.segments.len().checked_sub(1), self.survey.segments.last()) {
            (Some(last), Some(segment)) if segment.base_seq.is_none() => {
                if let Ok(again) = read_superblock(self.directory, segment.name()) {
                    self.survey.segments[last] = again;
                }
                let seal = self.seal_before(last);
                self.number_segment(last, seal);
                self.survey.segments[last].base_seq.is_some()
            }
            _ => false,
        }
    }

    /// Scans the last segment, and those before it as long as the table says so.
    fn find_end(&mut self, known: Option<Known>) -> Result<()> {
        let mut successor = None;
        while let Some(last) = self.survey.segments.last() {
            let superblock = last.superblock;
            let previous = self.previous_of(last);
            let span = self.directory.open(last, Lsn::MAX)?;
            let tail = scan(&span, Expected { previous, known })?;
            self.survey.head =
                self.survey.head.max(Place { lsn: superblock.head_lsn, seq: superblock.head_seq });
            if let Some(head) = tail.head {
                self.survey.head = self.survey.head.max(Place { lsn: head.lsn, seq: head.seq });
            }
            let case = tail.case(self.around(&tail, successor));
            if case.act() == Act::StepBack {
                successor = Some(superblock.base_lsn);
                let empty = self.survey.segments.pop().map(|s| s.name());
                self.survey.obsolete.extend(empty);
                self.survey.empty.extend(empty);
                case.note(tail.seen.medium);
            } else if !self.was_begun() {
                case.note(tail.seen.medium);
                self.survey.end = Some(End { tail, case });
                break;
            }
        }
        self.find_strangers();
        // What an interrupted `truncate_before` left.
        let below = self
            .survey
            .segments
            .windows(2)
            .take_while(|pair| pair[1].superblock.base_lsn <= self.survey.head.lsn)
            .count();
        self.survey.obsolete.extend(self.survey.segments.drain(..below).map(|s| s.name()));
        Ok(())
    }

    /// What surrounds the last segment, which ends in `tail`. `successor` is the base of the first
    /// segment without a group that followed it.
    fn around(&self, tail: &Tail, successor: Option<Lsn>) -> Around {
        let next = tail.seal.as_ref().and_then(GroupHeader::next_lsn);
        // A writer may have rotated after the directory was listed; the segments listed before that
        // are still a complete log. Under the lock the list is complete.
        let generation = self.survey.active().map_or(0, |last| last.superblock.generation);
        let came = |base_lsn| self.directory.read(SegmentName { base_lsn, generation }).is_ok();
        let trusted = || successor.is_some() && mutation::is(Mutation::TrustEmptySuccessor);
        let follows = next.is_some_and(|next| successor == Some(next) || came(next) || trusted());
        let before = self.survey.segments.len() > 1;
        Around {
            before: if before { Before::Segment } else { Before::Nothing },
            successor: match successor {
                _ if follows => Successor::Next,
                Some(_) => Successor::Other,
                None => Successor::Nothing,
            },
            head: if self.survey.head.lsn > tail.end_lsn { Head::Beyond } else { Head::Within },
        }
    }

    /// What names the group before the segment, if that is known without reading it.
    fn previous_of(&self, segment: &SegmentFile) -> Option<Chain> {
        let base = segment.superblock.base_lsn;
        if let Some(seal) = self.seals.get(&base) {
            return Some(seal.chain(Seed::of_log(self.survey.uuid)));
        }
        // If nothing in it verifies, recovery begins a segment in its place, which has to name the
        // same group.
        let before = self.survey.segments.iter().rfind(|s| s.superblock.base_lsn < base);
        let before = before.filter(|_| segment.first.is_none() && !segment.is_headless);
        Some(link_before(self.directory, before?, segment, None)?.chain)
    }

    /// Whether each segment follows the one before it, those included that are to be removed.
    fn find_strangers(&mut self) {
        let mut strangers = Vec::new();
        for pair in self.survey.segments.windows(2) {
            let base = pair[1].superblock.base_lsn;
            let seal = self.seals.get(&base);
            // Of segments before the head others may have gone from between these.
            let joined = base > self.survey.head.lsn || seal.is_some();
            let judged = !pair[0].is_headless && !pair[1].is_headless;
            if judged && joined && pair[0].file_end_lsn() >= base {
                strangers.extend(stranger(self.directory, &pair[0], &pair[1], seal));
            }
        }
        self.survey.problems.extend(strangers);
    }

    fn find_gaps(&mut self) -> Result<()> {
        let mut gaps = Vec::new();
        let recorded = self.directory.premise();
        let head = self.survey.head.lsn;
        if let Some(first) = self.survey.segments.first()
            && first.superblock.base_lsn > head
            && recorded.gaps.before(SegmentKey::of(&first.superblock)).is_some()
        {
            self.survey.head = first.base();
        } else if let Some(first) = self.survey.segments.first()
            && first.superblock.base_lsn > head
            && !self.is_explained(head, first)
        {
            gaps.push(missing(self.directory, head, first.superblock.base_lsn));
        }
        for segment in self.survey.segments.iter().filter(|s| s.base_seq.is_none()) {
            let base = segment.superblock.base_lsn;
            gaps.push(damaged(self.directory, segment.name(), base, CorruptionKind::Group));
        }
        for pair in self.survey.segments.windows(2) {
            let (joint, end) = look_at_joint(self.directory, &pair[0], &pair[1])?;
            let key = SegmentKey::of(&pair[0].superblock);
            let next = pair[1].superblock.base_lsn;
            if joint.holds()
                || recorded.gaps.reach(key, end, next)
                || self.is_explained(end, &pair[1])
            {
                continue;
            }
            gaps.push(match seal_of(self.directory, &pair[0], end).is_some() {
                true => missing(self.directory, end, next),
                false => Corruption {
                    resumes: Some(next),
                    ..damaged(self.directory, pair[0].name(), end, CorruptionKind::ShortSegment)
                },
            });
        }
        // A file of which nothing verifies hides what lies before the next segment.
        let bases = self.survey.segments.iter().map(|s| s.superblock.base_lsn);
        for problem in &mut self.survey.problems {
            if let Error::Corrupt(damage) = problem
                && damage.kind == CorruptionKind::Superblock
                && damage.lost.is_none()
            {
                damage.resumes = bases.clone().find(|base| *base > damage.lsn);
            }
        }
        self.survey.problems.extend(gaps.into_iter().map(Error::Corrupt));
        Ok(())
    }
}

impl Look<'_> {
    /// Whether it is told already why nothing is known between `from` and the `next` segment: a
    /// file is there of which nothing verifies.
    fn is_explained(&self, from: Lsn, next: &SegmentFile) -> bool {
        let between = from..next.superblock.base_lsn;
        self.survey.lost.iter().any(|base| between.contains(base))
    }
}

/// Looks at where `segment` meets the `next` one: at its length, and at more only where the table
/// asks for it. Returns also where it ends if that is before the next one.
fn look_at_joint(
    directory: &Directory,
    segment: &SegmentFile,
    next: &SegmentFile,
) -> Result<(Joint, Lsn)> {
    let base = next.superblock.base_lsn;
    let mut end = segment.file_end_lsn();
    if end < base {
        // A writer may have made the file longer since.
        end = read_superblock(directory, segment.name()).map_or(end, |again| again.file_end_lsn());
    }
    if end < base && seal_of(directory, segment, end).is_none() {
        // Space that was reserved may lie behind its seal.
        let span = directory.open(segment, end).ok();
        let tail = span.and_then(|span| scan(&span, Expected::default()).ok());
        end = tail.and_then(|tail| tail.seal?.next_lsn()).unwrap_or(end);
    }
    let rotated = segment.superblock.generation == next.superblock.generation;
    let mut joint = Joint {
        length: Length::of(end, base),
        made: if rotated { Made::ByRotation } else { Made::ByCut },
        proof: Proof::Unread,
    };
    if joint.needs_proof() && !mutation::is(Mutation::TrustLength) {
        joint.proof = if seal_of(directory, segment, base).is_some() {
            Proof::Seal
        } else {
            let held = scan(&directory.open(segment, base)?, Expected::default())?;
            end = held.seal.and_then(|seal| seal.next_lsn()).unwrap_or(held.end_lsn);
            if end < base { Proof::Short } else { Proof::Groups }
        };
    }
    Ok((joint, end))
}

/// The header of the seal with which the segment ends at `end_lsn`, if it verifies.
fn seal_of(directory: &Directory, segment: &SegmentFile, end_lsn: Lsn) -> Option<GroupHeader> {
    seal_before(&directory.open(segment, end_lsn).ok()?)
}

/// Reads who a segment is. The descriptor is closed again: a log has more segments than a process
/// has descriptors.
pub(crate) fn read_superblock(directory: &Directory, name: SegmentName) -> Result<SegmentFile> {
    let path = || directory.path_of(name);
    let file = directory.read(name).map_err(|e| Error::io("open", &path(), e))?;
    let mut block = [0; SUPERBLOCK_LEN];
    let (read, file_len) =
        read_block(&*file, &mut block).map_err(|e| Error::io("read", &path(), e))?;
    let found = Superblock::decode(&block[..read]);
    let found = found.or_else(|e| match e {
        SuperblockError::Version(_) => Err(e),
        SuperblockError::Foreign | SuperblockError::Damaged => directory.stand_in(name).ok_or(e),
    });
    let superblock = found.map_err(|e| match e {
        SuperblockError::Foreign => Error::Foreign { path: path() },
        SuperblockError::Version(found) => {
            Error::UnsupportedVersion { path: path(), found, supported: FORMAT_VERSION }
        }
        SuperblockError::Damaged => {
            Error::Corrupt(damaged(directory, name, name.base_lsn, CorruptionKind::Superblock))
        }
    })?;
    if superblock.segment_size == STORE_SIZE {
        // A whole log in a store, which cuts differently.
        return Err(Error::Foreign { path: path() });
    }
    let mut segment = SegmentFile::new(superblock, file_len);
    segment.id = Some(file.stat().map_err(|e| Error::io("look at", &path(), e))?.id);
    {
        let Superblock { uuid, generation, base_lsn, .. } = superblock;
        let mut header = [0; GROUP_HEADER_LEN];
        // What cannot be read says nothing, and is met again by whoever reads the group.
        let read = read_full_at(&*file, DATA_OFFSET, &mut header).unwrap_or(0);
        let first = GroupHeader::decode(&header[..read], base_lsn, Seed::of_log(uuid));
        let first = first
            .filter(|group| group.generation == generation && is_place(base_lsn, group.first_seq));
        segment.base_seq = segment.base_seq.or(first.map(|group| group.first_seq));
        if segment.base_seq.is_none() {
            let stand_in = directory.stand_in(name).map(|superblock| superblock.base_seq);
            segment.base_seq = stand_in.filter(|seq| *seq != OPEN_SEQ);
        }
        let first = first.map(|GroupHeader { previous, epoch, .. }| First { previous, epoch });
        segment.first = first;
    }
    Ok(segment)
}

fn read_block(file: &dyn File, block: &mut [u8]) -> io::Result<(usize, u64)> {
    Ok((read_full_at(file, 0, block)?, file.len()?))
}
