//! Looking at a log without opening it: no lock, no change, also while another process appends.

mod verify;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::{Fs, NativeFs};
use uuid::Uuid;

use crate::clock::unix_ns;
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::gap::Gap;
use crate::layout::Layout;
use crate::layout::directory::Directory;
use crate::open::cases::{EndCase, Ending};
use crate::open::segments::survey_directory;
use crate::open::survey::{End, Survey};
use crate::open::tail::Tail;
use crate::options::EndState;
use crate::place::{Lsn, Place, Seq, Start};
use crate::read::piece::Pieces;
use crate::read::reader::Reader;
use crate::repair::files::{Settled, settle};
use crate::repair::plan::begun_end;
use crate::retain::{Choice, Retention};
use crate::segment::file::SegmentFile;

/// A log as its files show it at one moment.
///
/// Takes no lock and never writes, so it works on a log that another process is appending to, on
/// read-only media, and on a damaged log: what is wrong is listed in
/// [`problems`](Inspection::problems) instead of being an error. What it shows is what the
/// operating system has, which may be more than is durable.
#[derive(Debug)]
pub struct Inspection {
    directory: Arc<Directory>,
    layout: Arc<dyn Layout>,
    pub(crate) survey: Survey,
    pub(crate) tail: Tail,
    pub(crate) case: EndCase,
    problems: Vec<Error>,
    obsolete: Vec<PathBuf>,
    gaps: Vec<Gap>,
    /// Whether readers go on to the last record that verifies, whatever precedes it.
    is_to_the_last: bool,
}

/// One segment of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its file.
    pub path: PathBuf,
    /// Length of the file in bytes, reserved space included.
    pub file_bytes: u64,
    /// Position at which it starts.
    pub base_lsn: Lsn,
    /// Position at which it ends, exclusive.
    pub end_lsn: Lsn,
    /// Number of its first record.
    pub base_seq: Seq,
    /// Number after its last record.
    pub end_seq: Seq,
    /// Counts cuts: crash recoveries and truncations at the end.
    pub generation: u32,
    /// When its file became this segment's, in nanoseconds since 1970-01-01 UTC. That may be some
    /// time before it was begun.
    pub created_unix_ns: u64,
    /// Whether it will never change again.
    pub sealed: bool,
}

/// What a full check of a log found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verification {
    /// Records that verified.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// How the log ends.
    pub end_state: EndState,
    /// Everything that is wrong, in order of position: damaged ranges, missing segments, files that
    /// are not the log's. A torn tail is not among them, nor what a repair recorded as lost.
    pub problems: Vec<Error>,
    /// Where records are lost, by position, as a repair recorded it.
    pub gaps: Vec<Gap>,
}

impl Inspection {
    /// How often a look is repeated because a writer changed the directory meanwhile.
    const ATTEMPTS: usize = 16;

    /// Looks at the log in `dir`.
    ///
    /// # Errors
    /// [`Error::Io`] when the directory cannot be read; of kind
    /// [`NotFound`](io::ErrorKind::NotFound) also when it holds no log. Damage is no error here.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(Arc::new(NativeFs), dir)
    }

    /// The same on another file system.
    ///
    /// # Errors
    /// As [`open`](Inspection::open).
    pub fn open_on(fs: Arc<dyn Fs>, dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let nothing = || Error::io("open", dir, io::ErrorKind::NotFound.into());
        Self::look_until_settled(&Arc::new(Directory::open(fs, dir)?.ok_or_else(nothing)?))
    }

    /// Looks until what is found is what the look before found, or nothing is wrong with it.
    pub(crate) fn look_until_settled(directory: &Arc<Directory>) -> Result<Self> {
        let mut last = Self::look(directory);
        for _ in 1..Self::ATTEMPTS {
            // A file that went between the listing and its opening, or a group that was half
            // written: a writer is at work, look again.
            let busy = match &last {
                Ok(found) => found.case.ending() == Ending::Torn || !found.problems.is_empty(),
                Err(_) => true,
            };
            if !busy {
                break;
            }
            let again = Self::look(directory);
            let settled = match (&last, &again) {
                // Of other files: between the looks a truncation took some and brought others.
                (Ok(a), Ok(b)) => {
                    let texts = |look: &Self| -> Vec<String> {
                        look.problems.iter().map(ToString::to_string).collect()
                    };
                    a.tail.end_lsn == b.tail.end_lsn && texts(a) == texts(b)
                }
                // Two that are not the same are two moments of a writer that is at work.
                (Err(a), Err(b)) => a.to_string() == b.to_string(),
                _ => false,
            };
            last = again;
            if settled {
                break;
            }
        }
        last
    }

    /// Looks at the log in `dir` as a [repair](crate::Repair) would leave it, of which nothing is
    /// written. [`problems`](Inspection::problems) lists what a repair would mend. To read all that
    /// verifies, have the reader go [past damage](Reader::past_damage); it ends behind the last
    /// record that does, also where a crash left an unfinished write.
    ///
    /// # Errors
    /// As [`open`](Inspection::open), and [`Repair::plan`](crate::Repair::plan).
    pub fn salvage(dir: impl AsRef<Path>) -> Result<Self> {
        Self::salvage_on(Arc::new(NativeFs), dir)
    }

    /// The same on another file system.
    ///
    /// # Errors
    /// As [`salvage`](Inspection::salvage).
    pub fn salvage_on(fs: Arc<dyn Fs>, dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let nothing = || Error::io("open", dir, io::ErrorKind::NotFound.into());
        let directory = Arc::new(Directory::open(fs, dir)?.ok_or_else(nothing)?);
        let Settled { survey, problems, .. } = settle(&directory)?;
        let look = Self::of(&directory, survey, problems)?;
        Ok(Inspection { is_to_the_last: true, ..look })
    }

    fn look(directory: &Arc<Directory>) -> Result<Self> {
        Self::of(directory, survey_directory(directory)?, Vec::new())
    }

    fn of(directory: &Arc<Directory>, mut survey: Survey, before: Vec<Error>) -> Result<Self> {
        let mut problems = before;
        problems.append(&mut survey.problems);
        problems.extend(survey.end_problem(&**directory));
        let Some(End { tail, case }) = survey.end.clone() else {
            let nothing = io::Error::new(io::ErrorKind::NotFound, "there is no log");
            return Err(problems
                .into_iter()
                .next()
                .unwrap_or_else(|| Error::io("find a log in", directory.path(), nothing)));
        };
        problems.sort_by_key(position);
        let obsolete = survey.obsolete.iter().map(|name| directory.path_of(*name)).collect();
        let layout = directory.clone();
        let directory = directory.clone();
        Ok(Inspection {
            gaps: directory.told_gaps(&survey.segments),
            directory,
            layout,
            survey,
            tail,
            case,
            problems,
            obsolete,
            is_to_the_last: false,
        })
    }

    /// Identity of the log.
    pub fn uuid(&self) -> Uuid {
        self.survey.uuid
    }

    /// What keeps the log from being opened, in order of position: damage below the watermark,
    /// missing segments, files that bear a segment's name and are none. Found without reading
    /// sealed segments; [`verify`](Inspection::verify) reads all.
    pub fn problems(&self) -> &[Error] {
        &self.problems
    }

    /// Where records are lost, by position, as a repair recorded it.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Records from the oldest one to the last one, without those that are lost in [gaps]. Damage
    /// that no repair recorded is not known here: [`verify`](Inspection::verify) counts what is
    /// read.
    ///
    /// [gaps]: Inspection::gaps
    pub fn records(&self) -> u64 {
        let (head, next) = (self.head_seq(), self.next_seq());
        let lost = self
            .gaps
            .iter()
            .map(|gap| gap.end_seq.min(next).0.saturating_sub(gap.first_seq.max(head).0));
        next.0.saturating_sub(head.0).saturating_sub(lost.sum())
    }

    /// How the log ends.
    pub fn end_state(&self) -> EndState {
        EndState::of(self.case, self.tail.torn_bytes)
    }

    /// How the log ends, as the row of the table by which opening decides.
    pub fn end_case(&self) -> EndCase {
        self.case
    }

    /// Records before this were dropped.
    pub fn head_lsn(&self) -> Lsn {
        self.survey.head.lsn
    }

    /// Number of the oldest record.
    pub fn head_seq(&self) -> Seq {
        self.survey.head.seq
    }

    /// Exclusive end of what verifies.
    pub fn end_lsn(&self) -> Lsn {
        self.tail.end_lsn
    }

    /// Number the next record will get.
    pub fn next_seq(&self) -> Seq {
        self.tail.next_seq
    }

    /// Everything below this is known to have been durable: the watermark. More may be.
    pub fn durable_lsn(&self) -> Lsn {
        if self.case.ending() == Ending::Closed { self.tail.end_lsn } else { self.tail.watermark }
    }

    /// Files in the directory that are not the log's.
    pub fn strays(&self) -> &[PathBuf] {
        &self.survey.strays
    }

    /// Segments that no longer belong to the log, or do not yet, and that the next opening will
    /// remove: what an interrupted truncation left, or the next segment, which a writer has ready.
    pub fn obsolete(&self) -> &[PathBuf] {
        &self.obsolete
    }

    /// The segments by position.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let segments = &self.survey.segments;
        let info = |(i, file): (usize, &SegmentFile)| {
            let next = segments.get(i + 1).map(SegmentFile::base);
            SegmentInfo {
                path: self.layout.path_of(file.name()),
                file_bytes: file.file_len,
                base_lsn: file.superblock.base_lsn,
                end_lsn: next.map_or(self.tail.end_lsn, |n| n.lsn),
                base_seq: file.base().seq,
                end_seq: next.map_or(self.tail.next_seq, |n| n.seq),
                generation: file.superblock.generation,
                created_unix_ns: file.superblock.created_unix_ns,
                sealed: next.is_some(),
            }
        };
        segments.iter().enumerate().map(info).collect()
    }

    /// Reads records in order from `start` up to where the log ended when it was looked at. On a
    /// damaged log, returns what precedes the damage, then [`Error::Corrupt`], which says from
    /// where on records verify again; [`past_damage`](Reader::past_damage) goes on there.
    ///
    /// # Errors
    /// As [`Log::reader`](crate::Log::reader).
    pub fn reader(&self, start: impl Into<Start>) -> Result<Reader> {
        let start = start.into();
        self.check_start(start)?;
        // How many records damage hides need not be known.
        let is_sound = self.problems.is_empty() && !self.is_to_the_last;
        let end_seq = if is_sound { self.tail.next_seq } else { Seq(u64::MAX) };
        self.reader_to(start, Place { lsn: self.readable_end(), seq: end_seq })
    }

    fn reader_to(&self, start: Start, end: Place) -> Result<Reader> {
        let segments = self.survey.segments.iter().copied().collect();
        let index = Arc::new(self.tail.index.clone());
        let pieces = Pieces::new(segments, Place::default(), &[], end.lsn, index);
        let (layout, durable) = (self.layout.clone(), self.durable_lsn());
        let mut reader = Reader::new(layout, pieces, self.survey.head, end, durable);
        reader.seek(start)?;
        Ok(reader)
    }

    /// Reads what verifies behind [`end_lsn`](Inspection::end_lsn): records of a torn tail, which
    /// the next opening cuts. It goes [past damage](Reader::past_damage).
    ///
    /// # Errors
    /// As [`Log::reader`](crate::Log::reader).
    pub fn torn_reader(&self) -> Result<Reader> {
        let end = Place { lsn: begun_end(&self.tail), seq: Seq(u64::MAX) };
        let reader = self.reader_to(Start::Lsn(self.tail.end_lsn), end)?;
        Ok(reader.past_damage())
    }

    /// Number of the first record that [`Log::retain`](crate::Log::retain) would keep, if a writer
    /// that opened the log now called it at once. Nothing is changed.
    pub fn first_seq_retained(&self, keep: Retention) -> Seq {
        let choice = Choice {
            segments: self.survey.segments.iter().collect(),
            head: self.survey.head,
            end: Place { lsn: self.tail.end_lsn, seq: self.tail.next_seq },
            moments: Vec::new(),
            now: unix_ns(self.directory.fs()),
        };
        choice.after(keep).0.seq.max(self.survey.head.seq)
    }

    /// Fails when the segment in which `start` lies is missing and nothing precedes it that a
    /// reader would meet first.
    fn check_start(&self, start: Start) -> Result<()> {
        let Some(first) = self.survey.segments.first().map(SegmentFile::base) else {
            return Ok(());
        };
        let precedes = match start {
            Start::Lsn(lsn) => lsn < first.lsn,
            Start::Seq(seq) => seq < first.seq,
        };
        let head = self.survey.head.lsn;
        // Of a file without a superblock nothing verifies if it is not said what is lost.
        let is_missing = |damage: &Corruption| match damage.kind {
            CorruptionKind::MissingSegment => true,
            CorruptionKind::Superblock => damage.lost.is_none(),
            _ => false,
        };
        let is_gap = |p: &&Error| matches!(p, Error::Corrupt(c) if is_missing(c) && c.lsn == head);
        match self.problems.iter().find(is_gap) {
            Some(gap) if precedes && head < first.lsn => Err(gap.clone()),
            _ => Ok(()),
        }
    }

    /// Where readers end. When something is wrong that they do not meet on their way, one byte
    /// further than everything that is there, so that they meet a gap instead of an end: what is
    /// missing may have followed.
    fn readable_end(&self) -> Lsn {
        if self.is_to_the_last {
            return begun_end(&self.tail);
        }
        let end = self.reached();
        let is_met = |problem: &Error| match problem {
            Error::Corrupt(damage) => damage.kind.is_within_a_segment() && damage.lsn < end,
            _ => false,
        };
        if self.problems.iter().all(is_met) { end } else { end.saturating_add(1) }
    }

    /// How far the log is known to reach, over damage.
    fn reached(&self) -> Lsn {
        let tail = &self.tail;
        match self.case.ending() {
            Ending::Corrupt => {
                let sealed = tail.seal.and_then(|seal| seal.next_lsn()).unwrap_or(Lsn::START);
                tail.end_lsn.max(tail.proven_lsn).max(tail.reached_lsn).max(sealed)
            }
            _ => tail.end_lsn,
        }
    }
}

/// Where in the log a problem is; what is not in the log comes first.
fn position(problem: &Error) -> Lsn {
    match problem {
        Error::Corrupt(Corruption { lsn, .. }) => *lsn,
        _ => Lsn::START,
    }
}
