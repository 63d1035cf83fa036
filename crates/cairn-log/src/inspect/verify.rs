//! Reading every byte of a log: each segment by itself, as many at once as there are processors.

use std::io;

use super::{Inspection, Verification, position};

use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::DATA_OFFSET;
use crate::mutation::{self, Mutation};
use crate::read::parallel::{each, processors};
use crate::read::walk::Walk;
use crate::segment::file::SegmentFile;

/// What one segment holds.
#[derive(Debug, Default)]
struct Checked {
    records: u64,
    bytes: u64,
    problems: Vec<Error>,
    /// Why its file could not be read to the end, if it is gone: a loss, unless a writer dropped
    /// it.
    gone: Option<Error>,
}

impl Inspection {
    /// Reads everything, sealed segments too, and reports all that does not verify. `progress` is
    /// told, by the calling thread, the bytes read since it was last called.
    ///
    /// Reads as many segments at once as there are processors, where the file system allows
    /// [work in the background](cairn_io::Fs::background). The result does not depend on it.
    ///
    /// # Errors
    /// [`Error::Io`] when a segment cannot be read. Damage is no error here, and neither is a
    /// segment that a writer dropped meanwhile: the log is without it.
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Result<Verification> {
        let mut found = Verification {
            records: 0,
            bytes: 0,
            end_state: self.end_state(),
            problems: Vec::new(),
            gaps: self.gaps.clone(),
        };
        let count = self.survey.segments.len();
        let helpers =
            if self.layout.background() { processors().min(count).saturating_sub(1) } else { 0 };
        let checked = each(
            count,
            helpers,
            |i| self.check(i, helpers > 0),
            |checked| {
                if let Ok(checked) = checked {
                    progress(checked.bytes);
                }
            },
        );
        let mut later = None;
        for (i, checked) in checked.into_iter().enumerate() {
            let Checked { records, bytes, problems, gone } = checked?;
            if let Some(error) = gone
                && !self.was_dropped(&self.survey.segments[i], &mut later)
            {
                return Err(error);
            }
            found.records += records;
            found.bytes += bytes;
            found.problems.extend(problems);
        }
        // Behind what was found by reading everything, which says more of the same damage.
        found.problems.extend(self.problems.iter().cloned());
        found.problems.sort_by_key(position);
        // Damage at the end of the log was found when it was looked at, and again now.
        found.problems.dedup_by(|b, a| match (a, b) {
            (Error::Corrupt(a), Error::Corrupt(b)) => {
                let of_superblock = |c: &Corruption| c.kind == CorruptionKind::Superblock;
                (&a.path, a.lsn) == (&b.path, b.lsn) && of_superblock(a) == of_superblock(b)
            }
            _ => false,
        });
        Ok(found)
    }

    /// Whether a writer dropped the segment since the log was looked at: it is not among those that
    /// another look finds, and none of them is missing.
    ///
    /// Its file being gone is not enough. Otherwise a segment that somebody removed while the log
    /// was verified would be taken for one that a truncation dropped.
    fn was_dropped(&self, file: &SegmentFile, later: &mut Option<Inspection>) -> bool {
        if later.is_none() {
            *later = Self::look_until_settled(&self.directory).ok();
        }
        let is_without = |now: &Inspection| {
            let there = |s: &SegmentFile| s.name() == file.name();
            now.problems.is_empty() && !now.survey.segments.iter().any(there)
        };
        mutation::is(Mutation::TrustAbsence) || later.as_ref().is_some_and(is_without)
    }

    /// Walks the segment number `i`, which must verify up to where the next one starts, going on
    /// behind damage. `helped`: others are at the same, on all processors.
    fn check(&self, i: usize, helped: bool) -> Result<Checked> {
        let segments = &self.survey.segments;
        let file = &segments[i];
        let base_lsn = file.superblock.base_lsn;
        let following = segments.get(i + 1);
        let next = following.map(|next| next.superblock.base_lsn);
        let end = following.filter(|next| next.base_seq.is_some()).map(SegmentFile::base);
        let end_lsn = next.unwrap_or(self.reached());
        let mut span = match self.layout.open(file, end_lsn) {
            Err(Error::Io { op, path, source }) if source.kind() == io::ErrorKind::NotFound => {
                let gone = Some(Error::Io { op, path, source });
                return Ok(Checked { gone, ..Checked::default() });
            }
            opened => opened?,
        };
        // What lies beyond the file's end is reported as missing already. Where it ends is asked
        // now: a writer may have made it longer since the look.
        let stored = span.store.len();
        let stored = stored.map_err(|e| Error::io("measure", &span.path, e))?;
        span.end_lsn = end_lsn.min(base_lsn.saturating_add(stored.saturating_sub(DATA_OFFSET)));
        let mut walk = Walk::new(span.clone(), span.base_lsn, span.base_seq);
        if helped {
            walk.read_in_place();
        }
        let mut checked = Checked { bytes: end_lsn - base_lsn, ..Checked::default() };
        loop {
            match walk.advance_record() {
                Ok(true) => checked.records += u64::from(walk.next_seq > self.survey.head.seq),
                Ok(false) => return Ok(checked),
                Err(damage) => {
                    if let Some(refused) = walk.refused() {
                        return Err(refused);
                    }
                    // What is in its file now is another one.
                    if self.layout.has_dropped(file, span.offset(damage.lsn)) {
                        let gone = io::ErrorKind::NotFound.into();
                        checked.gone = Some(Error::io("read", &span.path, gone));
                        return Ok(checked);
                    }
                    let loss = walk.skip(damage, end);
                    checked.problems.push(Error::Corrupt(loss.corruption(&span, next)));
                }
            }
        }
    }
}
