//! Which files are the log, when some of them are damaged, missing, foreign or under another's
//! name: what has to be assumed so that opening finds a log in the others.
//!
//! It is opening itself that looks, at the directory as it would be. So what is assumed here is,
//! once it is true, a log that opens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{ALIGN, GapNote, SegmentKey, SegmentName, Superblock};
use crate::layout::Layout;
use crate::layout::directory::{Directory, Premise, Stated};
use crate::open::segments::{read_superblock, survey_as_assumed};
use crate::open::survey::Survey;
use crate::place::{Lsn, Place};
use crate::repair::standin::stand_in;
use crate::segment::file::SegmentFile;

/// What is found with what has to be assumed.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) survey: Survey,
    /// What was wrong.
    pub(crate) problems: Vec<Error>,
    /// Whether the list of gaps was damaged.
    pub(crate) list_was_damaged: bool,
}

/// A log of a million segments does not need more looks than this; nor does any need as many.
const LOOKS_MAX: usize = 64;

/// Finds out what has to be assumed of `directory`, and leaves that assumed. The end of the log may
/// still be damaged.
pub(crate) fn settle(directory: &Directory) -> Result<Settled> {
    let list_was_damaged = directory.learn_gaps()?;
    assume_half_renamed(directory)?;
    let mut problems = Vec::new();
    for _ in 0..LOOKS_MAX {
        let survey = survey_as_assumed(directory)?;
        if survey.problems.is_empty() {
            return Ok(Settled { survey, problems, list_was_damaged });
        }
        let mut settling = Settling::new(directory, &survey)?;
        // What is missing shows once it is known what is there.
        let (files, others): (Vec<_>, Vec<_>) = survey.problems.iter().partition(|p| is_of_file(p));
        for problem in if files.is_empty() { others } else { files } {
            settling.settle(problem)?;
        }
        if !settling.changed {
            return Err(survey.problems[0].clone());
        }
        problems.extend(survey.problems.iter().cloned());
        let premise = settling.premise;
        directory.assume(premise);
    }
    Err(problems.swap_remove(problems.len() - 1))
}

/// What the file of a segment is called between another one's name and its own.
pub(super) fn half_renamed(own: SegmentName) -> String {
    format!("{own}{MOVING}")
}

const MOVING: &str = ".moving";

/// What an interrupted repair was about to give their own names.
fn assume_half_renamed(directory: &Directory) -> Result<()> {
    let mut misnamed = BTreeMap::new();
    let is_in_place = |own: SegmentName| own_name(directory, &own.to_string(), own) == Some(own);
    for name in directory.list()? {
        let name = name.to_string_lossy();
        let Some(own) = name.strip_suffix(MOVING).and_then(SegmentName::parse) else { continue };
        if own_name(directory, &name, own) == Some(own) && !is_in_place(own) {
            misnamed.insert(own, name.into_owned());
        }
    }
    // What still has the name of one of them has another one's.
    for taken in misnamed.keys().copied().collect::<Vec<SegmentName>>() {
        let own = own_name(directory, &taken.to_string(), taken);
        if let Some(own) = own.filter(|own| !misnamed.contains_key(own) && !is_in_place(*own)) {
            misnamed.insert(own, taken.to_string());
        }
    }
    let premise = (*directory.premise()).clone();
    directory.assume(Premise { misnamed, ..premise });
    Ok(())
}

/// Which segment is in the file with this name, if one is; it is read as if it were `segment`.
fn own_name(directory: &Directory, file: &str, segment: SegmentName) -> Option<SegmentName> {
    let before = (*directory.premise()).clone();
    let misnamed = BTreeMap::from([(segment, file.to_owned())]);
    directory.assume(Premise { misnamed, ..Premise::default() });
    let found = read_superblock(directory, segment);
    directory.assume(before);
    found.ok().map(|segment| segment.name())
}

/// Whether a problem is one of a file by itself.
fn is_of_file(problem: &Error) -> bool {
    use CorruptionKind::{Misnamed, Superblock};
    match problem {
        Error::Corrupt(corruption) => matches!(corruption.kind, Misnamed | Superblock),
        Error::Foreign { .. } | Error::WrongLog { .. } => true,
        _ => false,
    }
}

struct Settling<'a> {
    directory: &'a Directory,
    survey: &'a Survey,
    stated: Stated,
    premise: Premise,
    changed: bool,
    /// How often a file does not follow another one, or is not followed.
    strange: BTreeMap<PathBuf, usize>,
}

impl<'a> Settling<'a> {
    fn new(directory: &'a Directory, survey: &'a Survey) -> Result<Self> {
        let premise = (*directory.premise()).clone();
        let stated = match premise.stated {
            Some(stated) => stated,
            None => directory.state()?,
        };
        let mut strange = BTreeMap::new();
        for problem in &survey.problems {
            if let Error::OtherHistory { path, other, .. } = problem {
                *strange.entry(path.clone()).or_default() += 1;
                *strange.entry(other.clone()).or_default() += 1;
            }
        }
        Ok(Settling { directory, survey, stated, premise, changed: false, strange })
    }

    /// Assumes what does away with one problem.
    fn settle(&mut self, problem: &Error) -> Result<()> {
        match problem {
            Error::Foreign { path } => self.stand_in_or_aside(path),
            Error::WrongLog { path, found, .. } => self.of_another_log(path, *found),
            Error::OtherHistory { path, other, .. } => self.of_another_history(path, other),
            Error::Corrupt(corruption) => self.corrupt(corruption)?,
            _ => {}
        }
        Ok(())
    }

    fn corrupt(&mut self, corruption: &Corruption) -> Result<()> {
        match corruption.kind {
            CorruptionKind::Superblock => self.stand_in_or_aside(&corruption.path),
            CorruptionKind::Misnamed => self.misnamed(&corruption.path),
            CorruptionKind::State => self.forget_state(),
            CorruptionKind::MissingSegment | CorruptionKind::ShortSegment => {
                self.missing(corruption);
            }
            // Nothing tells the number of its first record.
            CorruptionKind::Group => self.number(&corruption.path)?,
            _ => {}
        }
        Ok(())
    }

    fn forget_state(&mut self) {
        self.changed |= self.premise.stated.is_none();
        self.premise.stated = Some(Stated::Nothing);
    }

    fn put_aside(&mut self, name: SegmentName) {
        self.changed |= self.premise.without.insert(name);
    }

    fn stand_in_or_aside(&mut self, path: &Path) {
        let Some(name) = name_of(path) else { return };
        match stand_in(self.directory, name, self.survey, &self.stated) {
            Some(superblock) if self.directory.stand_in(name).is_none() => {
                self.replace_superblock(superblock);
            }
            _ => self.put_aside(name),
        }
    }

    fn replace_superblock(&mut self, superblock: Superblock) {
        let list = &mut self.premise.gaps;
        if list.superblocks.contains(&superblock) {
            return;
        }
        list.uuid = superblock.uuid;
        list.superblocks.retain(|other| other.name() != superblock.name());
        list.superblocks.push(superblock);
        list.sort();
        self.changed = true;
    }

    /// A file under another segment's name gets its own one, if nothing else has that.
    fn misnamed(&mut self, path: &Path) {
        let Some(name) = name_of(path) else { return };
        let own = read_superblock(self.directory, name).map(|segment| segment.name());
        let Ok(own) = own else { return self.put_aside(name) };
        let is_misnamed = |problem: &Error| match problem {
            Error::Corrupt(c) => {
                c.kind == CorruptionKind::Misnamed && name_of(&c.path) == Some(own)
            }
            _ => false,
        };
        let is_free = self.directory.read(own).is_err()
            || self.premise.without.contains(&own)
            || self.survey.problems.iter().any(is_misnamed);
        if is_free && !self.premise.misnamed.contains_key(&own) {
            self.premise.misnamed.insert(own, name.to_string());
            self.changed = true;
        } else {
            self.put_aside(name);
        }
    }

    /// The state knows whose log it is, if it verifies; otherwise the oldest segment does.
    fn of_another_log(&mut self, path: &Path, found: uuid::Uuid) {
        let ours = match self.stated {
            Stated::Record(state) => Some(state.uuid),
            _ => None,
        };
        match name_of(path) {
            None => self.forget_state(),
            Some(_) if ours == Some(found) => {
                let others = self.survey.segments.iter().map(SegmentFile::name);
                others.for_each(|name| self.put_aside(name));
            }
            Some(name) => self.put_aside(name),
        }
    }

    /// Of two files that are not of one history, the one that fits less goes; if none does, the
    /// older one, because the newer one is what the state knows.
    fn of_another_history(&mut self, path: &Path, other: &Path) {
        let count = |path: &Path| self.strange.get(path).copied().unwrap_or(0);
        let (newer, older) = (name_of(path), name_of(other));
        let goes = match (newer, older) {
            (Some(newer), None) => newer,
            (None, Some(older)) => older,
            (None, None) => return,
            (Some(newer), Some(_)) if count(path) > count(other) => newer,
            (Some(_), Some(older)) => older,
        };
        self.put_aside(goes);
    }

    fn missing(&mut self, corruption: &Corruption) {
        let Some(resumes) = corruption.resumes else { return };
        let segments = &self.survey.segments;
        let Some(next) = segments.iter().find(|s| s.superblock.base_lsn == resumes) else {
            return;
        };
        let before = segments.iter().rfind(|s| s.superblock.base_lsn < resumes);
        let bound = before.unwrap_or(next);
        let first_seq = match bound.superblock.base_lsn == resumes {
            true => self.survey.head.seq,
            // Whoever reads the segment finds out more.
            false => bound.base().seq,
        };
        self.note_gap(GapNote {
            segment: SegmentKey::of(&bound.superblock),
            from: Lsn(corruption.lsn.0 - corruption.lsn.0 % ALIGN),
            to: resumes,
            first_seq: first_seq.min(next.base().seq),
            seq: next.base().seq,
            counted: bound.superblock.base_lsn == resumes,
            chain: next.first.map(|first| first.previous),
            group: None,
        });
    }

    fn note_gap(&mut self, gap: GapNote) {
        if gap.from < gap.to {
            self.premise.gaps.uuid = self.survey.uuid;
            self.premise.gaps.gaps.push(gap);
            self.premise.gaps.sort();
            self.changed = true;
        }
    }

    /// The number of the first record of a segment is the one at which the segment before ends.
    fn number(&mut self, path: &Path) -> Result<()> {
        let segments = &self.survey.segments;
        let Some(at) = segments.iter().position(|s| Some(s.name()) == name_of(path)) else {
            return Ok(());
        };
        let superblock = segments[at].superblock;
        let before = at.checked_sub(1).map(|before| &segments[before]);
        let seq = match before.filter(|before| before.base_seq.is_some()) {
            Some(before) => {
                let end = superblock.base_lsn;
                let span = self.directory.open(before, end)?;
                super::scan::scan(span, SegmentKey::of(&before.superblock), None, false)?.end.seq
            }
            None => Place::default().seq,
        };
        self.replace_superblock(Superblock { base_seq: seq, ..superblock });
        Ok(())
    }
}

/// The segment that a path names.
fn name_of(path: &Path) -> Option<SegmentName> {
    SegmentName::parse(&path.file_name()?.to_string_lossy())
}
