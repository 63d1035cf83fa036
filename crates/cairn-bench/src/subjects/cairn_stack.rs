//! Our stack, through its public API and nothing else.

use std::sync::Arc;

use anyhow::Result;
use cairn_stack::{Options, Stack};

use super::slow_fs::slow_fs;
use crate::structures::{self, OfStack};
use crate::subject::{Setup, Subject};

/// With defaults.
pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    OfStack::subject(options(setup).open(setup.dir.join("stack"))?, setup)
}

/// With the latency of the setup.
pub(crate) fn options(setup: &Setup) -> Options {
    let options = Stack::options();
    if setup.barrier_latency.is_zero() {
        options
    } else {
        options.fs(Arc::new(slow_fs(setup.barrier_latency)))
    }
}

impl structures::Stack for Stack {
    fn push(&self, bytes: &[u8]) -> Result<()> {
        self.push(bytes)?;
        Ok(())
    }

    fn set(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.set(offset, bytes)?)
    }

    fn get(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        Ok(self.get_into(offset, buf)?)
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len())
    }

    fn barriers(&self) -> Option<u64> {
        Some(self.stats().barriers)
    }

    fn close(self) -> Result<()> {
        Ok(self.close()?)
    }
}
