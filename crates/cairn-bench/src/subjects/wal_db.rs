//! `wal-db`: lock-free reservation, one `pwrite` per record, leader and followers over one
//! fdatasync.

use anyhow::Result;
use wal_db::Wal;

use crate::subject::{Seen, Setup, Subject, Writer};

struct WalDb(Wal);

/// Opens it over one file, its faster layout: segments add a map look-up per write and a file
/// creation on the hot path.
pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    Ok(Box::new(WalDb(Wal::open(setup.dir.join("wal"))?)))
}

impl Subject for WalDb {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(WalDbWriter(&self.0)))
    }

    fn replay(&self, seen: &mut Seen) -> Result<()> {
        for record in self.0.iter()? {
            seen.record(record?.data());
        }
        Ok(())
    }
}

struct WalDbWriter<'a>(&'a Wal);

impl Writer for WalDbWriter<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        let _ = self.0.append_and_sync(record)?;
        Ok(())
    }

    fn append(&mut self, record: &[u8]) -> Result<()> {
        let _ = self.0.append(record)?;
        Ok(())
    }
}
