//! `redb`: a transaction per commit, one writer at a time.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};
use redb::{
    Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError,
};

use crate::subject::{Seen, Setup, Subject, Writer};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

struct Table {
    database: Database,
    next: AtomicU64,
}

/// Opens one file.
pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    let database = Database::create(setup.dir.join("log.redb"))?;
    let next = match database.begin_read()?.open_table(LOG) {
        Ok(table) => table.last()?.map_or(0, |(key, _)| key.value() + 1),
        Err(TableError::TableDoesNotExist(_)) => 0,
        Err(error) => return Err(error.into()),
    };
    Ok(Box::new(Table { database, next: AtomicU64::new(next) }))
}

impl Subject for Table {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Inserter(self)))
    }

    fn replay(&self, seen: &mut Seen) -> Result<()> {
        for entry in self.database.begin_read()?.open_table(LOG)?.iter()? {
            seen.record(entry?.1.value());
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        drop(self.database);
        Ok(())
    }
}

struct Inserter<'a>(&'a Table);

impl Inserter<'_> {
    fn write(&self, records: &[&[u8]], durability: Durability) -> Result<()> {
        let mut transaction = self.0.database.begin_write()?;
        if let Err(error) = transaction.set_durability(durability) {
            bail!("durability: {error}");
        }
        {
            let mut table = transaction.open_table(LOG)?;
            for record in records {
                // Within the transaction nobody else counts.
                table.insert(self.0.next.fetch_add(1, Ordering::Relaxed), record)?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Writer for Inserter<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.write(&[record], Durability::Immediate)
    }

    fn commit_many(&mut self, records: &[&[u8]]) -> Result<()> {
        self.write(records, Durability::Immediate)
    }

    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.write(&[record], Durability::None)
    }
}
