//! `okaywal`: segments filled with zeros and recycled after a checkpoint, one fdatasync shared by
//! those that wait.
//!
//! A checkpoint here keeps nothing: as if another structure had taken over what the segment holds.
//! Where records are read back there is none, and the log is one file that grows.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use okaywal::{
    Configuration, Entry, EntryId, LogManager, RecoveredSegment, Recovery, SegmentReader,
    WriteAheadLog,
};

use crate::cell::Mode;
use crate::subject::{Seen, Setup, Subject, Writer};

/// Shows what is recovered to nobody, or counts it.
#[derive(Debug)]
struct Manager(Arc<Mutex<Seen>>);

impl LogManager for Manager {
    fn should_recover_segment(&mut self, _segment: &RecoveredSegment) -> io::Result<Recovery> {
        Ok(Recovery::Recover)
    }

    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let chunks = entry.read_all_chunks()?.unwrap_or_default();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in chunks {
            seen.record(&chunk);
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        _entries: &mut SegmentReader,
        _wal: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}

struct OkayWal {
    /// `None` where every replay opens it anew.
    wal: Option<WriteAheadLog>,
    dir: PathBuf,
    recovered: Arc<Mutex<Seen>>,
}

/// With segments of the harness's size.
pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    let segment =
        u32::try_from(setup.segment_bytes).context("its segments are shorter than 4 GiB")?;
    open_with(setup, Some(segment))
}

/// With its default segments of 1 MiB, which are soon all recycled ones.
pub(crate) fn open_small(setup: &Setup) -> Result<Box<dyn Subject>> {
    open_with(setup, None)
}

fn open_with(setup: &Setup, segment: Option<u32>) -> Result<Box<dyn Subject>> {
    let dir = setup.dir.join("wal");
    let recovered = Arc::new(Mutex::new(Seen::default()));
    let mut configuration = Configuration::default_for(&dir).buffer_bytes(256 << 10);
    if let Some(segment) = segment {
        configuration = configuration.preallocate_bytes(segment);
        configuration.checkpoint_after_bytes = u64::from(segment) * 3 / 4;
    }
    if setup.mode.prepared() {
        configuration.checkpoint_after_bytes = u64::MAX;
    }
    let lazily = setup.mode == Mode::Replay && !setup.fresh;
    let wal = if lazily { None } else { Some(configuration.open(Manager(recovered.clone()))?) };
    Ok(Box::new(OkayWal { wal, dir, recovered }))
}

impl Subject for OkayWal {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(OkayWriter(self.wal.as_ref().context("is only read")?)))
    }

    fn replay(&self, seen: &mut Seen) -> Result<()> {
        if self.wal.is_some() {
            // Reading is part of opening.
            let recovered = self.recovered.lock().unwrap_or_else(PoisonError::into_inner);
            seen.records += recovered.records;
            seen.bytes += recovered.bytes;
            return Ok(());
        }
        let recovered = Arc::new(Mutex::new(Seen::default()));
        let mut configuration = Configuration::default_for(&self.dir).buffer_bytes(256 << 10);
        configuration.checkpoint_after_bytes = u64::MAX;
        configuration.open(Manager(recovered.clone()))?.shutdown()?;
        let recovered = recovered.lock().unwrap_or_else(PoisonError::into_inner);
        seen.records += recovered.records;
        seen.bytes += recovered.bytes;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        if let Some(wal) = self.wal {
            wal.shutdown()?;
        }
        Ok(())
    }
}

struct OkayWriter<'a>(&'a WriteAheadLog);

impl Writer for OkayWriter<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        let mut entry = self.0.begin_entry()?;
        entry.write_chunk(record)?;
        entry.commit()?;
        Ok(())
    }

    /// One entry with a chunk per record.
    fn commit_many(&mut self, records: &[&[u8]]) -> Result<()> {
        let mut entry = self.0.begin_entry()?;
        for record in records {
            entry.write_chunk(record)?;
        }
        entry.commit()?;
        Ok(())
    }

    fn append(&mut self, _record: &[u8]) -> Result<()> {
        bail!("commits only")
    }
}
