//! `fsys` journals: buffered or direct, with and without the window in which a leader waits for
//! followers.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use fsys::{JournalHandle, JournalOptions, JournalReader};

use crate::cell::Mode;
use crate::subject::{Seen, Setup, Subject, Writer};

/// Space reserved ahead, which the crate offers against growing file by file system block.
const RESERVED: u64 = 1 << 30;

struct Journal {
    journal: JournalHandle,
    path: PathBuf,
    wants_direct: bool,
}

/// Buffered, no window.
pub(crate) fn open_buffered(setup: &Setup) -> Result<Box<dyn Subject>> {
    open(setup, JournalOptions::new().group_commit_window(None), false)
}

/// Buffered, the default window of 500 µs.
pub(crate) fn open_buffered_window(setup: &Setup) -> Result<Box<dyn Subject>> {
    open(setup, JournalOptions::new(), false)
}

/// Direct, no window.
pub(crate) fn open_direct(setup: &Setup) -> Result<Box<dyn Subject>> {
    open(
        setup,
        JournalOptions::new().direct(true).log_buffer_kib(1024).group_commit_window(None),
        true,
    )
}

/// Direct, the default window of 500 µs.
pub(crate) fn open_direct_window(setup: &Setup) -> Result<Box<dyn Subject>> {
    open(setup, JournalOptions::new().direct(true).log_buffer_kib(1024), true)
}

fn open(setup: &Setup, options: JournalOptions, wants_direct: bool) -> Result<Box<dyn Subject>> {
    let path = setup.dir.join("journal");
    let fs = fsys::builder().build().context("building the handle")?;
    let journal = fs.journal_with(&path, options)?;
    if matches!(setup.mode, Mode::Durable | Mode::Batch(_)) {
        journal.preallocate(0, RESERVED)?;
    }
    Ok(Box::new(Journal { journal, path, wants_direct }))
}

impl Subject for Journal {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(JournalWriter(&self.journal)))
    }

    fn replay(&self, seen: &mut Seen) -> Result<()> {
        let mut reader = JournalReader::open(&self.path)?;
        for record in reader.iter() {
            seen.record(&record?.payload);
        }
        Ok(())
    }

    fn note(&self) -> Option<String> {
        (self.wants_direct && !self.journal.is_direct_active())
            .then(|| "not direct after all".to_owned())
    }

    fn flush(&self) -> Result<()> {
        if self.journal.is_direct_active() {
            // Its buffer has no other way out.
            self.journal.sync_through(self.journal.next_lsn())?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.journal.close()?)
    }
}

struct JournalWriter<'a>(&'a JournalHandle);

impl Writer for JournalWriter<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        let lsn = self.0.append(record)?;
        Ok(self.0.sync_through(lsn)?)
    }

    fn commit_many(&mut self, records: &[&[u8]]) -> Result<()> {
        if records.is_empty() {
            bail!("an empty batch");
        }
        let lsn = self.0.append_batch(records)?;
        Ok(self.0.sync_through(lsn)?)
    }

    fn append(&mut self, record: &[u8]) -> Result<()> {
        let _ = self.0.append(record)?;
        Ok(())
    }
}
