//! Our heap, through its public API and nothing else.

use anyhow::Result;
use cairn_heap::{Error, Heap, Policy, SizeClass, Slab};

use super::cairn_stack;
use crate::structures::{self, OfHeap};
use crate::subject::{Setup, Subject};

/// Blocks that one transaction allocates or frees while a heap is prepared.
const AT_ONCE: u64 = 1000;

/// Blocks of one size.
pub(crate) fn open_slab(setup: &Setup) -> Result<Box<dyn Subject>> {
    open(setup, Slab { block_size: setup.size as u64 })
}

/// Blocks of all sizes.
pub(crate) fn open_size_class(setup: &Setup) -> Result<Box<dyn Subject>> {
    open(setup, SizeClass)
}

fn open(setup: &Setup, policy: impl Policy + 'static) -> Result<Box<dyn Subject>> {
    let stack = cairn_stack::options(setup).open(setup.dir.join("heap"))?;
    OfHeap::subject(Heap::open(stack, policy)?, setup)
}

impl structures::Heap for Heap {
    fn pair(&self, len: u64) -> Result<()> {
        let block = self.alloc(len)?;
        Ok(self.dealloc(block)?)
    }

    fn fragment(&self, free: u64, len: u64) -> Result<()> {
        let mut blocks = Vec::new();
        while (blocks.len() as u64) < free * 2 {
            let more = AT_ONCE.min(free * 2 - blocks.len() as u64);
            let more = self.transaction(|tx| {
                (0..more).map(|_| tx.alloc(len)).collect::<Result<Vec<_>, Error>>()
            })?;
            blocks.extend(more);
        }
        // Blocks need not lie in the order in which they were given out.
        blocks.sort_by_key(|block| block.start());
        let every_other: Vec<_> = blocks.into_iter().step_by(2).collect();
        for some in every_other.chunks(AT_ONCE as usize) {
            self.transaction(|tx| some.iter().try_for_each(|block| tx.dealloc(*block)))?;
        }
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.stack().len())
    }

    fn barriers(&self) -> Option<u64> {
        Some(self.stack().stats().barriers)
    }

    fn close(self) -> Result<()> {
        Ok(self.close()?)
    }
}
