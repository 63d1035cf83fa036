//! Looking at a log without opening it: no lock, no change, also while another process appends.

mod verify;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::{Fs, NativeFs};
use uuid::Uuid;

use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::options::EndState;
use crate::reader::{Medium, Piece, Reader};
use crate::state::Place;
use crate::survey::{SegmentFile, Survey};
use crate::tail::{Ending, Tail};
use crate::{Lsn, Seq, Start};

/// A log as its files show it at one moment.
///
/// Takes no lock and never writes, so it works on a log that another process is appending to, on read-only media, and on a damaged log: what is
/// wrong is listed in [`problems`](Inspection::problems) instead of being an error. What it shows is what the operating
/// system has, which may be more than is durable.
#[derive(Debug)]
pub struct Inspection {
    fs: Arc<dyn Fs>,
    survey: Survey,
    tail: Tail,
    problems: Vec<Error>,
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
    /// When its file became this segment's, in nanoseconds since 1970-01-01 UTC. That may be some time before it was begun.
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
    /// Everything that is wrong, in order of position: damaged ranges, missing segments, files that are not the log's. A torn tail is not among them.
    pub problems: Vec<Error>,
}

impl Inspection {
    /// How often a look is repeated because a writer changed the directory meanwhile.
    const ATTEMPTS: usize = 16;

    /// Looks at the log in `dir`.
    ///
    /// # Errors
    /// [`Error::Io`] when the directory cannot be read; of kind [`NotFound`](io::ErrorKind::NotFound) also when it holds no log. Damage is no
    /// error here.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(Arc::new(NativeFs), dir)
    }

    /// The same on another file system.
    ///
    /// # Errors
    /// As [`open`](Inspection::open).
    pub fn open_on(fs: Arc<dyn Fs>, dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let mut last = Self::look(&fs, dir);
        for _ in 1..Self::ATTEMPTS {
            // A file that went between the listing and its opening, or a group that was half written: a writer is at work, look again.
            let busy = match &last {
                Ok(found) => {
                    found.tail.ending != Ending::Closed && found.tail.ending != Ending::Unclosed
                        || !found.problems.is_empty()
                }
                Err(_) => true,
            };
            if !busy {
                break;
            }
            let again = Self::look(&fs, dir);
            let settled = match (&last, &again) {
                (Ok(a), Ok(b)) => a.tail.end_lsn == b.tail.end_lsn && a.problems.len() == b.problems.len(),
                (Err(_), Err(_)) => true,
                _ => false,
            };
            last = again;
            if settled {
                break;
            }
        }
        last
    }

    fn look(fs: &Arc<dyn Fs>, dir: &Path) -> Result<Self> {
        let mut survey = Survey::take(&**fs, dir)?;
        let mut problems = std::mem::take(&mut survey.problems);
        let Some(tail) = survey.tail.clone() else {
            let nothing = io::Error::new(io::ErrorKind::NotFound, "there is no log");
            return Err(problems.into_iter().next().unwrap_or_else(|| Error::io("find a log in", dir, nothing)));
        };
        if let Ending::Corrupt(corruption) = &tail.ending {
            problems.push(Error::Corrupt(corruption.clone()));
        }
        problems.sort_by_key(position);
        Ok(Inspection { fs: fs.clone(), survey, tail, problems })
    }

    /// Identity of the log.
    pub fn uuid(&self) -> Uuid {
        self.survey.uuid
    }

    /// What keeps the log from being opened, in order of position: damage below the watermark, missing segments, files that
    /// bear a segment's name and are none. Found without reading sealed segments; [`verify`](Inspection::verify) reads all.
    pub fn problems(&self) -> &[Error] {
        &self.problems
    }

    /// How the log ends.
    pub fn end_state(&self) -> EndState {
        match self.tail.ending {
            Ending::Closed => EndState::Closed,
            Ending::Torn { bytes } => EndState::Torn { bytes },
            Ending::Unclosed | Ending::Corrupt(_) => EndState::Unclosed,
        }
    }

    /// Records before this were dropped.
    pub fn head_lsn(&self) -> Lsn {
        Lsn(self.survey.head.lsn)
    }

    /// Number of the oldest record.
    pub fn head_seq(&self) -> Seq {
        Seq(self.survey.head.seq)
    }

    /// Exclusive end of what verifies.
    pub fn end_lsn(&self) -> Lsn {
        Lsn(self.tail.end_lsn)
    }

    /// Number the next record will get.
    pub fn next_seq(&self) -> Seq {
        Seq(self.tail.next_seq)
    }

    /// Everything below this is known to have been durable: the watermark. More may be.
    pub fn durable_lsn(&self) -> Lsn {
        Lsn(if self.tail.ending == Ending::Closed { self.tail.end_lsn } else { self.tail.watermark })
    }

    /// Files in the directory that are not the log's.
    pub fn strays(&self) -> &[PathBuf] {
        &self.survey.strays
    }

    /// Segments that no longer belong to the log, or do not yet, and that the next opening will remove: what an interrupted truncation left, or the next
    /// segment, which a writer has ready.
    pub fn obsolete(&self) -> &[PathBuf] {
        &self.survey.obsolete
    }

    /// The segments by position.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let segments = &self.survey.segments;
        let info = |(i, file): (usize, &SegmentFile)| {
            let next = segments.get(i + 1).map(SegmentFile::base);
            SegmentInfo {
                path: file.path.clone(),
                file_bytes: file.file_len,
                base_lsn: Lsn(file.superblock.base_lsn),
                end_lsn: Lsn(next.map_or(self.tail.end_lsn, |n| n.lsn)),
                base_seq: Seq(file.base().seq),
                end_seq: Seq(next.map_or(self.tail.next_seq, |n| n.seq)),
                generation: file.superblock.generation,
                created_unix_ns: file.superblock.created_unix_ns,
                sealed: next.is_some(),
            }
        };
        segments.iter().enumerate().map(info).collect()
    }

    /// Reads records in order from `start` up to where the log ended when it was looked at. On a damaged log, returns what precedes
    /// the damage, then [`Error::Corrupt`].
    ///
    /// # Errors
    /// As [`Log::reader`](crate::Log::reader).
    pub fn reader(&self, start: impl Into<Start>) -> Result<Reader> {
        let start = start.into();
        self.check_start(start)?;
        let mut pieces = Vec::new();
        let segments = &self.survey.segments;
        for (i, file) in segments.iter().enumerate() {
            let next = segments.get(i + 1).map(|s| s.superblock.base_lsn);
            let mut piece = Piece::whole(file.clone(), next.unwrap_or(self.readable_end()));
            if next.is_none() {
                piece.index = Some(self.tail.index.clone());
            }
            pieces.push(piece);
        }
        let end = Place { lsn: self.readable_end(), seq: self.tail.next_seq };
        let medium = Medium::Files(self.fs.clone());
        let mut reader = Reader::new(medium, pieces, self.survey.head, end, self.durable_lsn().0);
        reader.seek(start)?;
        Ok(reader)
    }

    /// Fails when the segment in which `start` lies is missing and nothing precedes it that a reader would meet first.
    fn check_start(&self, start: Start) -> Result<()> {
        let Some(first) = self.survey.segments.first().map(SegmentFile::base) else {
            return Ok(());
        };
        let precedes = match start {
            Start::Lsn(lsn) => lsn.0 < first.lsn,
            Start::Seq(seq) => seq.0 < first.seq,
        };
        let head = self.survey.head.lsn;
        let is_gap =
            |p: &&Error| matches!(p, Error::Corrupt(c) if c.kind == CorruptionKind::MissingSegment && c.lsn.0 == head);
        match self.problems.iter().find(is_gap) {
            Some(gap) if precedes && head < first.lsn => Err(gap.clone()),
            _ => Ok(()),
        }
    }

    /// Where readers end. When something is wrong, one byte further than everything that is there, so that they meet a gap
    /// instead of an end: what is missing may have followed.
    fn readable_end(&self) -> u64 {
        if self.problems.is_empty() {
            return self.tail.end_lsn;
        }
        let sealed = self.tail.seal.and_then(|seal| seal.next_lsn()).unwrap_or(0);
        self.tail.end_lsn.max(self.tail.proven_lsn).max(sealed).saturating_add(1)
    }
}

/// Where in the log a problem is; what is not in the log comes first.
fn position(problem: &Error) -> u64 {
    match problem {
        Error::Corrupt(Corruption { lsn, .. }) => lsn.0,
        _ => 0,
    }
}
