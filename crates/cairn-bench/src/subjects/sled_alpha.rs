//! `sled` 1.0 alpha: an insert and a flush per commit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use crate::subject::{Seen, Setup, Subject, Writer};

/// Leaves per inner node, a type parameter; this is its own default.
const FANOUT: usize = 1024;

type Db = sled_alpha::Db<FANOUT>;

/// A handle is for one thread; others get clones.
struct Tree {
    db: Mutex<Db>,
    next: AtomicU64,
}

/// With the cheapest compression there is. Its own timer does not flush: the writers do.
pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    let config = sled_alpha::Config::new()
        .path(setup.dir.join("db"))
        .flush_every_ms(None)
        .zstd_compression_level(1);
    let db: Db = config.open()?;
    let last =
        db.last()?.and_then(|(key, _)| key.first_chunk().map(|b| u64::from_be_bytes(*b) + 1));
    Ok(Box::new(Tree { db: Mutex::new(db), next: AtomicU64::new(last.unwrap_or(0)) }))
}

impl Tree {
    fn handle(&self) -> Db {
        self.db.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Subject for Tree {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Inserter { db: self.handle(), next: &self.next }))
    }

    fn flush(&self) -> Result<()> {
        self.handle().flush()?;
        Ok(())
    }

    fn replay(&self, seen: &mut Seen) -> Result<()> {
        for entry in self.handle().iter() {
            seen.record(&entry?.1);
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.flush()
    }
}

struct Inserter<'a> {
    db: Db,
    next: &'a AtomicU64,
}

impl Writer for Inserter<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.append(record)?;
        self.db.flush()?;
        Ok(())
    }

    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.db.insert(self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes(), record)?;
        Ok(())
    }
}
