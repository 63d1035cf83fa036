//! One thread, one direct synchronous write per record, padded to a block. With more threads: one
//! after the other.

use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

use super::file::{AlignedBuf, GROUP, Ring, Way};
use super::frame;
use crate::subject::{Setup, Subject, Writer};

/// The loop.
pub(crate) struct Alone {
    ring: Ring,
    buffer: Mutex<AlignedBuf>,
}

impl Alone {
    /// Opens it over a fresh file.
    pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
        Ok(Box::new(Alone {
            ring: Ring::create(setup, Way::Direct)?,
            buffer: Mutex::new(AlignedBuf::new(GROUP)),
        }))
    }

    fn write(&self, records: &[&[u8]]) -> Result<()> {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            frame::push(&mut buffer, crc32c::crc32c(record), record)?;
        }
        self.ring.write(&mut buffer)
    }
}

impl Subject for Alone {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(AloneWriter(self)))
    }

    fn barriers(&self) -> Option<u64> {
        Some(self.ring.barriers())
    }
}

struct AloneWriter<'a>(&'a Alone);

impl Writer for AloneWriter<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.0.write(&[record])
    }

    fn commit_many(&mut self, records: &[&[u8]]) -> Result<()> {
        self.0.write(records)
    }

    fn append(&mut self, _record: &[u8]) -> Result<()> {
        bail!("only commits")
    }
}
