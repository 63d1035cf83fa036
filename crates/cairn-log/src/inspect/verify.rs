//! Reading every byte of a log: each segment by itself, as many at once as there are processors.

use std::io;

use super::{Inspection, Verification, position};
use crate::error::{Error, Result};
use crate::format::DATA_OFFSET;
use crate::parallel::{each, processors};
use crate::walk::Walk;

/// What one segment holds.
#[derive(Debug, Default)]
struct Checked {
    records: u64,
    bytes: u64,
    problems: Vec<Error>,
}

impl Inspection {
    /// Reads everything, sealed segments too, and reports all that does not verify. `progress` is told, by the calling thread, the bytes read since it was
    /// last called.
    ///
    /// Reads as many segments at once as there are processors, where the file system allows [work in the background](cairn_io::Fs::background). The
    /// result does not depend on it.
    ///
    /// # Errors
    /// [`Error::Io`] when a segment cannot be opened; of kind `NotFound` also when a truncation dropped it meanwhile: look again. Damage is no error here.
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Result<Verification> {
        let mut found =
            Verification { records: 0, bytes: 0, end_state: self.end_state(), problems: self.problems.clone() };
        let count = self.survey.segments.len();
        let helpers = if self.fs.background() { processors().min(count).saturating_sub(1) } else { 0 };
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
        for checked in checked {
            let Checked { records, bytes, problems } = checked?;
            found.records += records;
            found.bytes += bytes;
            found.problems.extend(problems);
        }
        found.problems.sort_by_key(position);
        // Damage at the end of the log was found when it was looked at, and again now.
        found.problems.dedup_by(|b, a| match (a, b) {
            (Error::Corrupt(a), Error::Corrupt(b)) => (&a.path, a.lsn) == (&b.path, b.lsn),
            _ => false,
        });
        Ok(found)
    }

    /// Walks the segment number `i`, which must verify up to where the next one starts, going on behind damage. `helped`: others are at the same, on all processors.
    fn check(&self, i: usize, helped: bool) -> Result<Checked> {
        let segments = &self.survey.segments;
        let file = &segments[i];
        let base_lsn = file.superblock.base_lsn;
        let next = segments.get(i + 1).map(|next| next.superblock.base_lsn);
        let end_lsn = next.unwrap_or(self.tail.end_lsn.max(self.tail.proven_lsn));
        // What lies beyond the file's end is reported as missing already.
        let file_end = base_lsn + file.file_len.saturating_sub(DATA_OFFSET);
        let span = file.open(&*self.fs, end_lsn.min(file_end))?;
        let mut walk = Walk::new(span.clone(), span.base_lsn, span.base_seq);
        if helped {
            walk.read_in_place();
        }
        let mut checked = Checked { bytes: end_lsn - base_lsn, ..Checked::default() };
        loop {
            match walk.advance_record() {
                Ok(true) => checked.records += u64::from(walk.next_seq > self.survey.head.seq),
                Ok(false) => return Ok(checked),
                // The segment was dropped, and what is in its file now is another one.
                Err(_) if file.is_gone(&*self.fs) => {
                    return Err(Error::io("read", &file.path, io::ErrorKind::NotFound.into()));
                }
                Err(damage) => {
                    // Never at the damage itself: a group whose header verifies and whose frames do not would be found again and again.
                    // And never at a group of another generation: it is not this segment's.
                    let mut resumes = walk.find_group(damage.lsn + 1);
                    while let Some(other) = resumes.filter(|g| g.generation != span.generation) {
                        resumes = walk.find_group(other.lsn + 1);
                    }
                    let corruption = span.corruption(damage, resumes.map(|g| g.lsn).or(next));
                    checked.problems.push(Error::Corrupt(corruption));
                    match resumes {
                        Some(group) => walk.resume(&group),
                        None => return Ok(checked),
                    }
                }
            }
        }
    }
}
