//! `raft-engine`: one write group at a time, one `pwrite` per batch, one fdatasync per group;
//! recycled files.

use anyhow::{Context as _, Result};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::cell::Mode;
use crate::subject::{Seen, Setup, Subject, Writer};

/// Entries carry their index in their first eight bytes: raft-engine asks for it.
#[derive(Clone)]
struct Indexed;

impl MessageExt for Indexed {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

struct RaftEngine(Engine);

/// Files that are allocated as they grow: the default.
pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    open_with(setup, false)
}

/// Files prepared for recycling when it is opened.
pub(crate) fn open_prefilled(setup: &Setup) -> Result<Box<dyn Subject>> {
    open_with(setup, matches!(setup.mode, Mode::Durable | Mode::Batch(_)))
}

fn open_with(setup: &Setup, prefill: bool) -> Result<Box<dyn Subject>> {
    let config = Config {
        dir: setup
            .dir
            .join("engine")
            .to_str()
            .context("the directory's name is no text")?
            .to_owned(),
        target_file_size: ReadableSize(setup.segment_bytes),
        batch_compression_threshold: ReadableSize(0),
        prefill_for_recycle: prefill,
        prefill_limit: prefill.then_some(ReadableSize(setup.segment_bytes * 8)),
        ..Config::default()
    };
    Ok(Box::new(RaftEngine(Engine::open(config)?)))
}

impl Subject for RaftEngine {
    /// Each thread is a region of its own, with an order of its own: raft-engine has no other way
    /// for threads to write at once.
    fn writer(&self, thread: usize) -> Result<Box<dyn Writer + '_>> {
        let region = thread as u64 + 1;
        let next = self.0.last_index(region).map_or(1, |last| last + 1);
        Ok(Box::new(Region { engine: &self.0, region, next, batch: LogBatch::default() }))
    }

    fn replay(&self, seen: &mut Seen) -> Result<()> {
        const AT_ONCE: u64 = 1024;
        let Some((first, last)) = self.0.first_index(1).zip(self.0.last_index(1)) else {
            return Ok(());
        };
        let mut entries = Vec::new();
        let mut at = first;
        while at <= last {
            let end = (at + AT_ONCE).min(last + 1);
            entries.clear();
            self.0.fetch_entries_to::<Indexed>(1, at, end, None, &mut entries)?;
            for entry in &entries {
                seen.record(&entry.value[8..]);
            }
            at = end;
        }
        Ok(())
    }
}

struct Region<'a> {
    engine: &'a Engine,
    region: u64,
    next: u64,
    batch: LogBatch,
}

impl Region<'_> {
    fn write(&mut self, records: &[&[u8]], sync: bool) -> Result<()> {
        let entries: Vec<BytesValue> = (self.next..)
            .zip(records)
            .map(|(index, record)| {
                let mut value = Vec::with_capacity(8 + record.len());
                value.extend_from_slice(&index.to_le_bytes());
                value.extend_from_slice(record);
                BytesValue { value, ..BytesValue::default() }
            })
            .collect();
        self.next += records.len() as u64;
        self.batch.add_entries::<Indexed>(self.region, &entries)?;
        self.engine.write(&mut self.batch, sync)?;
        Ok(())
    }
}

impl Writer for Region<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.write(&[record], true)
    }

    fn commit_many(&mut self, records: &[&[u8]]) -> Result<()> {
        self.write(records, true)
    }

    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.write(&[record], false)
    }
}
