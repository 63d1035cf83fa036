//! `walrus-rust`: topics in blocks of preallocated files. One topic is one log; `SyncEach` is its
//! durable schedule.

use anyhow::Result;
use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use crate::cell::Mode;
use crate::subject::{Seen, Setup, Subject, Writer};

const TOPIC: &str = "log";

/// More is refused in one batch.
const BATCH_AT_MOST: usize = 2000;

struct Topic(Walrus);

/// Opens it in the cell's directory, which it takes from the environment: the parent sees to that.
pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    // Preparing durably would take minutes: every entry of a batch is a synchronous write of its
    // own.
    let lax = setup.mode == Mode::NoSync || setup.mode.prepared();
    let schedule = if lax { FsyncSchedule::NoFsync } else { FsyncSchedule::SyncEach };
    let consistency = ReadConsistency::AtLeastOnce { persist_every: u32::MAX };
    Ok(Box::new(Topic(Walrus::with_consistency_and_schedule(consistency, schedule)?)))
}

impl Subject for Topic {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(TopicWriter(&self.0)))
    }

    /// Reading consumes: only the first replay shows anything.
    fn replay(&self, seen: &mut Seen) -> Result<()> {
        loop {
            let entries = self.0.batch_read_for_topic(TOPIC, 1 << 20, true)?;
            if entries.is_empty() {
                return Ok(());
            }
            for entry in entries {
                seen.record(&entry.data);
            }
        }
    }
}

struct TopicWriter<'a>(&'a Walrus);

impl Writer for TopicWriter<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        Ok(self.0.append_for_topic(TOPIC, record)?)
    }

    /// It refuses a second batch while one is under way; then this waits and tries again.
    fn commit_many(&mut self, records: &[&[u8]]) -> Result<()> {
        for batch in records.chunks(BATCH_AT_MOST) {
            while let Err(error) = self.0.batch_append_for_topic(TOPIC, batch) {
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    return Err(error.into());
                }
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    fn append(&mut self, record: &[u8]) -> Result<()> {
        Ok(self.0.append_for_topic(TOPIC, record)?)
    }
}
