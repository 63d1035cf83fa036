//! Append without a barrier: a buffer behind a mutex, written into the page cache when it is full.

use std::fs::File;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};

use super::file::{AlignedBuf, write_all_at};
use super::frame;
use crate::subject::{Setup, Subject, Writer};

/// Larger than any record and still in the second-level cache.
const CAPACITY: usize = 256 << 10;

struct State {
    buffer: AlignedBuf,
    position: u64,
}

/// The loop.
pub(crate) struct MutexBuffer {
    file: File,
    state: Mutex<State>,
}

impl MutexBuffer {
    /// Opens it over a fresh file.
    pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
        let file = File::create_new(setup.dir.join("buffer")).context("creating the file")?;
        let capacity = CAPACITY.max(frame::frame_len(setup.size));
        Ok(Box::new(MutexBuffer {
            file,
            state: Mutex::new(State { buffer: AlignedBuf::new(capacity), position: 0 }),
        }))
    }

    fn write_out(&self, state: &mut State) -> Result<()> {
        write_all_at(&self.file, state.buffer.filled(), state.position)?;
        state.position += state.buffer.filled().len() as u64;
        state.buffer.clear();
        Ok(())
    }
}

impl Subject for MutexBuffer {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(BufferWriter(self)))
    }

    fn flush(&self) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.buffer.is_empty() { Ok(()) } else { self.write_out(&mut state) }
    }
}

struct BufferWriter<'a>(&'a MutexBuffer);

impl Writer for BufferWriter<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.append(record)?;
        self.0.flush()?;
        rustix::fs::fdatasync(&self.0.file).context("fdatasync")
    }

    fn append(&mut self, record: &[u8]) -> Result<()> {
        let crc = crc32c::crc32c(record);
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.buffer.room() < frame::frame_len(record.len()) {
            self.0.write_out(&mut state)?;
        }
        frame::push(&mut state.buffer, crc, record)
    }
}
