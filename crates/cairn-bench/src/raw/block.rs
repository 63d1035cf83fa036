//! One write of 4 KiB, or as many as the change needs, and one barrier per change: what a stack
//! that keeps all its promises with one barrier is measured against.

use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

use super::file::{AlignedBuf, BLOCK, GROUP, Ring, Way};
use crate::structures::{OfStack, Stack};
use crate::subject::{Setup, Subject};

/// The loop. Threads take turns.
pub(crate) struct Block {
    ring: Ring,
    buffer: Mutex<AlignedBuf>,
}

impl Block {
    /// Writes that are barriers.
    pub(crate) fn open_direct(setup: &Setup) -> Result<Box<dyn Subject>> {
        OfStack::subject(Block::over(Ring::create(setup, Way::Direct)?), setup)
    }

    /// Writes into the page cache, and barriers.
    pub(crate) fn open_buffered(setup: &Setup) -> Result<Box<dyn Subject>> {
        OfStack::subject(Block::over(Ring::create(setup, Way::Buffered)?), setup)
    }

    fn over(ring: Ring) -> Self {
        Block { ring, buffer: Mutex::new(AlignedBuf::new(GROUP)) }
    }
}

impl Stack for Block {
    fn push(&self, bytes: &[u8]) -> Result<()> {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.push(bytes)?;
        buffer.pad(BLOCK);
        self.ring.write(&mut buffer)
    }

    fn set(&self, _offset: u64, bytes: &[u8]) -> Result<()> {
        self.push(bytes)
    }

    fn get(&self, _offset: u64, _buf: &mut [u8]) -> Result<()> {
        bail!("keeps nothing to be read")
    }

    fn len(&self) -> Result<u64> {
        bail!("keeps nothing to be read")
    }

    fn barriers(&self) -> Option<u64> {
        Some(self.ring.barriers())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}
