//! SQLite through `rusqlite`: a table of blobs, WAL, `synchronous=FULL`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};
use rusqlite::Connection;

use crate::cell::Mode;
use crate::subject::{Seen, Setup, Subject, Writer};

/// One connection behind a mutex: with one each, threads wait for each other's locks in sleeps.
struct Database(Mutex<Connection>);

/// Opens the file; without barriers where none are asked for.
pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    let connection = Connection::open(setup.dir.join("log.sqlite"))?;
    let mode: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    ensure!(mode == "wal", "the journal mode is {mode}");
    let synchronous = if setup.mode == Mode::NoSync { "OFF" } else { "FULL" };
    connection.execute_batch(&format!(
        "PRAGMA synchronous={synchronous}; CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY \
         KEY, payload BLOB NOT NULL)"
    ))?;
    Ok(Box::new(Database(Mutex::new(connection))))
}

impl Database {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subject for Database {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Inserter(self)))
    }

    fn replay(&self, seen: &mut Seen) -> Result<()> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT payload FROM log ORDER BY seq")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            seen.record(row.get_ref(0)?.as_blob()?);
        }
        Ok(())
    }
}

struct Inserter<'a>(&'a Database);

const INSERT: &str = "INSERT INTO log (payload) VALUES (?1)";

impl Writer for Inserter<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.0.lock().prepare_cached(INSERT)?.execute([record])?;
        Ok(())
    }

    /// One transaction.
    fn commit_many(&mut self, records: &[&[u8]]) -> Result<()> {
        let mut connection = self.0.lock();
        let transaction = connection.transaction()?;
        for record in records {
            transaction.prepare_cached(INSERT)?.execute([record])?;
        }
        Ok(transaction.commit()?)
    }

    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.commit(record)
    }
}
