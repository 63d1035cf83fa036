//! What `cairn cat --follow` has printed, to notice when a truncation takes it back.
//!
//! The files of a log do not name its cuts. But each cut, by `truncate_after` or by recovery after
//! a crash, begins a segment of a new generation, which takes the place of everything from its
//! base on. Records that it keeps, it keeps at the same positions; behind the cut it writes a mark
//! first, so the records that follow get other positions than those before. So if such a segment
//! begins below the end of what was printed, the records printed from there on are compared with
//! those in the log now.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use cairnlog::{Dropped, Error, Inspection, Lsn, RecordRef, Seq};

/// Bytes of the log whose records are remembered, at least, if so much was printed.
const REMEMBERED_BYTES: u64 = 512 << 10;

/// The newest records that were printed, and the segments that they came from.
#[derive(Debug, Default)]
pub(super) struct Printed {
    records: VecDeque<Fingerprint>,
    /// Base and generation of each segment, as of the last look.
    segments: Vec<(Lsn, u32)>,
}

/// A record that was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    lsn: Lsn,
    seq: Seq,
    end_lsn: Lsn,
    payload: u64,
}

impl Fingerprint {
    fn of(record: &RecordRef<'_>) -> Self {
        let mut hasher = DefaultHasher::new();
        record.payload().hash(&mut hasher);
        let (lsn, seq, end_lsn) = (record.lsn(), record.seq(), record.end_lsn());
        Fingerprint { lsn, seq, end_lsn, payload: hasher.finish() }
    }
}

impl Printed {
    /// Remembers a record that is printed.
    pub(super) fn note(&mut self, record: &RecordRef<'_>) {
        self.records.push_back(Fingerprint::of(record));
        while let Some(second) = self.records.get(1)
            && record.end_lsn().0 - second.lsn.0 >= REMEMBERED_BYTES
        {
            self.records.pop_front();
        }
    }

    /// Compares what was printed with the log as it is now.
    ///
    /// # Errors
    /// [`Error::Truncated`] if records that were printed are no longer in the log, with a position
    /// from which on all that was printed may be printed again; errors of the reader.
    pub(super) fn check(&mut self, log: &Inspection) -> Result<(), Error> {
        let segments: Vec<_> = log.segments().iter().map(|s| (s.base_lsn, s.generation)).collect();
        if let Some(last) = self.records.back() {
            let new = |segment: &&(Lsn, u32)| {
                segment.0 < last.end_lsn && !self.segments.contains(segment)
            };
            if let Some((base, _)) = segments.iter().find(new) {
                self.compare(log, *base)?;
            }
        }
        self.segments = segments;
        Ok(())
    }

    /// Compares the records that were printed from `base` on, where a new generation begins.
    fn compare(&self, log: &Inspection, base: Lsn) -> Result<(), Error> {
        let from = base.max(log.head_lsn());
        let mut printed = self.records.iter().skip_while(|record| record.lsn < from).peekable();
        let Some(first) = printed.peek().map(|first| first.lsn) else { return Ok(()) };
        let mut now = log.reader(from)?;
        let mut same = from;
        for printed in printed {
            let found = loop {
                match now.next_record()? {
                    // Not printed, or not remembered.
                    Some(record) if record.end_lsn() <= first => {}
                    found => break found,
                }
            };
            if found.map(|record| Fingerprint::of(&record)) != Some(*printed) {
                return Err(Error::Truncated { lsn: same, dropped: Dropped::Returned });
            }
            same = printed.end_lsn;
        }
        Ok(())
    }
}
