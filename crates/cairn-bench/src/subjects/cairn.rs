//! Our log, through its public API and nothing else.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use cairn_log::{Inspection, Log, Lsn, Options, Retention, Ticket};

use super::slow_fs::slow_fs;
use crate::subject::{Pipeline, Seen, Setup, Space, Subject, Writer};

/// How often it is looked whether there are segments to be dropped. A commit that is measured never
/// drops any.
const RETAIN_EVERY: Duration = Duration::from_millis(2);

/// An open log.
struct Cairn {
    dir: PathBuf,
    log: Arc<Log>,
    batches: Batches,
    retainer: Option<Retainer>,
}

/// The thread that drops segments.
struct Retainer {
    thread: JoinHandle<cairn_log::Result<()>>,
    stop: Arc<AtomicBool>,
}

impl Retainer {
    fn start(log: Arc<Log>, keep: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                log.retain(Retention::Bytes(keep))?;
                thread::sleep(RETAIN_EVERY);
            }
            Ok(())
        });
        Retainer { thread, stop }
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.thread.join().map_err(|_| anyhow!("the thread that drops segments panicked"))??)
    }
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

/// Keeps the last segments only.
pub(crate) fn open_retaining(setup: &Setup) -> Result<Box<dyn Subject>> {
    let mut cairn = Cairn::open(setup, options(setup), Batches::Whole)?;
    cairn.retainer = Some(Retainer::start(cairn.log.clone(), setup.keep_bytes));
    Ok(Box::new(cairn))
}

fn options(setup: &Setup) -> Options {
    let options = Log::options().segment_size(setup.segment_bytes);
    if setup.barrier_latency.is_zero() {
        options
    } else {
        options.fs(Arc::new(slow_fs(setup.barrier_latency)))
    }
}

fn open_with(setup: &Setup, options: Options, batches: Batches) -> Result<Box<dyn Subject>> {
    Ok(Box::new(Cairn::open(setup, options, batches)?))
}

impl Cairn {
    fn open(setup: &Setup, options: Options, batches: Batches) -> Result<Self> {
        let dir = setup.dir.join("log");
        let log = Arc::new(options.open(&dir)?);
        Ok(Cairn { dir, log, batches, retainer: None })
    }
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

    fn rotations(&self) -> Option<u64> {
        Some(self.log.stats().rotations)
    }

    fn space(&self) -> Result<Option<Space>> {
        let mut space = Space { records: 0, disk_bytes: 0 };
        for segment in
            Inspection::open(&self.dir)?.segments().iter().filter(|segment| segment.sealed)
        {
            // One that was dropped meanwhile does not count.
            if let Ok(metadata) = fs::metadata(&segment.path) {
                space.records += segment.end_seq.0 - segment.base_seq.0;
                space.disk_bytes += metadata.blocks() * 512;
            }
        }
        Ok((space.records > 0).then_some(space))
    }

    fn note(&self) -> Option<String> {
        Some(self.log.backend().to_string())
    }

    fn close(self: Box<Self>) -> Result<()> {
        if let Some(retainer) = self.retainer {
            retainer.stop()?;
        }
        Ok(Arc::into_inner(self.log).context("somebody still has the log")?.close()?)
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
