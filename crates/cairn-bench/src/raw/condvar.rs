//! Group commit with a mutex and a condition variable: what is usually written.

use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::{Result, bail};

use super::file::{AlignedBuf, GROUP, Ring, Way, give_up};
use super::frame;
use crate::subject::{Setup, Subject, Writer};

struct State {
    generation: u64,
    durable: u64,
    leading: bool,
    buffer: AlignedBuf,
    spare: Option<AlignedBuf>,
}

/// The loop, over buffered or direct writes.
pub(crate) struct CondvarLoop {
    ring: Ring,
    state: Mutex<State>,
    progress: Condvar,
}

impl CondvarLoop {
    /// `pwrite` and `fdatasync`.
    pub(crate) fn open_buffered(setup: &Setup) -> Result<Box<dyn Subject>> {
        Self::open(setup, Way::Buffered)
    }

    /// `pwrite` with O_DIRECT|O_DSYNC.
    pub(crate) fn open_direct(setup: &Setup) -> Result<Box<dyn Subject>> {
        Self::open(setup, Way::Direct)
    }

    fn open(setup: &Setup, way: Way) -> Result<Box<dyn Subject>> {
        let state = State {
            generation: 1,
            durable: 0,
            leading: false,
            buffer: AlignedBuf::new(GROUP),
            spare: Some(AlignedBuf::new(GROUP)),
        };
        Ok(Box::new(CondvarLoop {
            ring: Ring::create(setup, way)?,
            state: Mutex::new(state),
            progress: Condvar::new(),
        }))
    }

    fn commit(&self, crcs: &[u32], records: &[&[u8]]) -> Result<()> {
        let room = records.iter().map(|r| frame::frame_len(r.len())).sum::<usize>();
        if room > GROUP {
            bail!("{room} bytes do not fit into a group");
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.buffer.room() < room {
            state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        for (crc, record) in crcs.iter().zip(records) {
            frame::push(&mut state.buffer, *crc, record)?;
        }
        let generation = state.generation;
        loop {
            if state.durable >= generation {
                return Ok(());
            }
            if !state.leading {
                break;
            }
            state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let Some(spare) = state.spare.take() else {
            bail!("two leaders");
        };
        state.leading = true;
        state.generation += 1;
        let mut sealed = std::mem::replace(&mut state.buffer, spare);
        drop(state);
        self.ring.write(&mut sealed).unwrap_or_else(|error| give_up(&error));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.leading = false;
        state.spare = Some(sealed);
        state.durable = generation;
        drop(state);
        self.progress.notify_all();
        Ok(())
    }
}

impl Subject for CondvarLoop {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(CondvarWriter { shared: self, crcs: Vec::new() }))
    }

    fn barriers(&self) -> Option<u64> {
        Some(self.ring.barriers())
    }
}

struct CondvarWriter<'a> {
    shared: &'a CondvarLoop,
    crcs: Vec<u32>,
}

impl Writer for CondvarWriter<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.shared.commit(&[crc32c::crc32c(record)], &[record])
    }

    fn commit_many(&mut self, records: &[&[u8]]) -> Result<()> {
        self.crcs.clear();
        self.crcs.extend(records.iter().map(|r| crc32c::crc32c(r)));
        self.shared.commit(&self.crcs, records)
    }

    fn append(&mut self, _record: &[u8]) -> Result<()> {
        bail!("only commits")
    }
}
