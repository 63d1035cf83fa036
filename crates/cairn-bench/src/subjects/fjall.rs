//! `fjall`: inserts go to a journal that is synced on request.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::subject::{Seen, Setup, Subject, Writer};

struct Tree {
    database: Database,
    log: Keyspace,
    next: AtomicU64,
}

/// Opens the database; the journal is written when it is synced and not before.
pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    let database = Database::builder(setup.dir.join("db")).manual_journal_persist(true).open()?;
    let log = database.keyspace("log", KeyspaceCreateOptions::default)?;
    let last = log.last_key_value().map(|guard| guard.key()).transpose()?;
    let next =
        last.and_then(|key| key.first_chunk().map(|b| u64::from_be_bytes(*b) + 1)).unwrap_or(0);
    Ok(Box::new(Tree { database, log, next: AtomicU64::new(next) }))
}

impl Tree {
    fn key(&self) -> [u8; 8] {
        self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes()
    }
}

impl Subject for Tree {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Inserter(self)))
    }

    fn flush(&self) -> Result<()> {
        Ok(self.database.persist(PersistMode::Buffer)?)
    }

    fn replay(&self, seen: &mut Seen) -> Result<()> {
        for guard in self.log.iter() {
            seen.record(&guard.value()?);
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}

struct Inserter<'a>(&'a Tree);

impl Writer for Inserter<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.append(record)?;
        Ok(self.0.database.persist(PersistMode::SyncData)?)
    }

    /// One atomic batch.
    fn commit_many(&mut self, records: &[&[u8]]) -> Result<()> {
        let mut batch = self.0.database.batch().durability(Some(PersistMode::SyncData));
        for record in records {
            batch.insert(&self.0.log, self.0.key(), *record);
        }
        Ok(batch.commit()?)
    }

    fn append(&mut self, record: &[u8]) -> Result<()> {
        Ok(self.0.log.insert(self.0.key(), record)?)
    }
}
