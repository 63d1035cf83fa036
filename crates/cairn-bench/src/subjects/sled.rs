//! `sled` 0.34, the release: an insert and a flush per commit.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;

use crate::subject::{Seen, Setup, Subject, Writer};

struct Tree {
    db: sled::Db,
    next: AtomicU64,
}

/// Its own timer does not flush: the writers do.
pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    let db = sled::Config::new()
        .path(setup.dir.join("db"))
        .flush_every_ms(None)
        .mode(sled::Mode::HighThroughput)
        .open()?;
    let last =
        db.last()?.and_then(|(key, _)| key.first_chunk().map(|b| u64::from_be_bytes(*b) + 1));
    Ok(Box::new(Tree { db, next: AtomicU64::new(last.unwrap_or(0)) }))
}

impl Subject for Tree {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Inserter(self)))
    }

    fn flush(&self) -> Result<()> {
        self.db.flush()?;
        Ok(())
    }

    fn replay(&self, seen: &mut Seen) -> Result<()> {
        for entry in self.db.iter() {
            seen.record(&entry?.1);
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.flush()
    }
}

struct Inserter<'a>(&'a Tree);

impl Writer for Inserter<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.append(record)?;
        self.0.flush()
    }

    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.0.db.insert(self.0.next.fetch_add(1, Ordering::Relaxed).to_be_bytes(), record)?;
        Ok(())
    }
}
