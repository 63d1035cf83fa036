//! Our log, through its public API and nothing else.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use cairn_log::{Log, Lsn, Options, Ticket};

use super::slow_fs::SlowFs;
use crate::subject::{Pipeline, Seen, Setup, Subject, Writer};

/// An open log.
struct Cairn {
    log: Log,
    batches: Batches,
}

/// How several records become one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Batches {
    /// One `append_batch`.
    Whole,
    /// One `append` each.
    Singly,
}

/// With defaults.
pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    open_with(setup, options(setup), Batches::Whole)
}

/// Batches as single appends, which may come apart in a crash.
pub(crate) fn open_singly(setup: &Setup) -> Result<Box<dyn Subject>> {
    open_with(setup, options(setup), Batches::Singly)
}

/// Without direct I/O.
pub(crate) fn open_buffered(setup: &Setup) -> Result<Box<dyn Subject>> {
    open_with(setup, options(setup).direct_io(false), Batches::Whole)
}

fn options(setup: &Setup) -> Options {
    let options = Log::options().segment_size(setup.segment_bytes);
    if setup.barrier_latency.is_zero() { options } else { options.fs(Arc::new(SlowFs::new(setup.barrier_latency))) }
}

fn open_with(setup: &Setup, options: Options, batches: Batches) -> Result<Box<dyn Subject>> {
    Ok(Box::new(Cairn { log: options.open(setup.dir.join("log"))?, batches }))
}

impl Subject for Cairn {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(CairnWriter { log: &self.log, batches: self.batches }))
    }

    fn flush(&self) -> Result<()> {
        Ok(self.log.flush()?)
    }

    fn replay(&self, seen: &mut Seen) -> Result<()> {
        let mut reader = self.log.reader(Lsn::START)?;
        while let Some(record) = reader.next_record()? {
            seen.record(record.payload());
        }
        Ok(())
    }

    fn pipeline(&self) -> Result<Box<dyn Pipeline + '_>> {
        Ok(Box::new(Tickets { log: &self.log, in_flight: VecDeque::new() }))
    }

    fn barriers(&self) -> Option<u64> {
        Some(self.log.stats().barriers)
    }

    fn note(&self) -> Option<String> {
        Some(format!("{}, {} rotations", self.log.backend(), self.log.stats().rotations))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.log.close()?)
    }
}

struct CairnWriter<'a> {
    log: &'a Log,
    batches: Batches,
}

impl Writer for CairnWriter<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.log.commit(record)?;
        Ok(())
    }

    fn commit_many(&mut self, records: &[&[u8]]) -> Result<()> {
        let mut last = None;
        match self.batches {
            Batches::Whole => last = Some(*self.log.append_batch(records)?.end()),
            Batches::Singly => {
                for record in records {
                    last = Some(self.log.append(record)?);
                }
            }
        }
        Ok(self.log.sync_to(last.context("an empty batch")?)?)
    }

    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.log.append(record)?;
        Ok(())
    }
}

struct Tickets<'a> {
    log: &'a Log,
    in_flight: VecDeque<Ticket>,
}

impl Pipeline for Tickets<'_> {
    fn submit(&mut self, record: &[u8]) -> Result<()> {
        self.in_flight.push_back(self.log.submit(record)?);
        Ok(())
    }

    fn wait_oldest(&mut self) -> Result<()> {
        Ok(self.in_flight.pop_front().context("no ticket in flight")?.wait()?)
    }
}
