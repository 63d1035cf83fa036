//! `bstack`'s allocators. Without its feature `atomic` they belong to one thread at a time, take
//! other barriers, and may lose blocks in a crash.

use anyhow::{Result, anyhow};
use bstack::{
    BStack, BStackAllocator, FirstFitBStackAllocator, SegregatedBStackAllocator,
    SlabBStackAllocator,
};

use crate::structures::{Heap, OfHeap};
use crate::subject::{Setup, Subject};

/// Blocks of one size.
pub(crate) fn open_slab(setup: &Setup) -> Result<Box<dyn Subject>> {
    let stack = stack(setup)?;
    let slab = if stack.is_empty()? {
        SlabBStackAllocator::new(stack, setup.size as u64)?
    } else {
        SlabBStackAllocator::open(stack)?
    };
    OfHeap::subject(Shared::new(slab), setup)
}

/// Blocks of all sizes, in lists by size.
pub(crate) fn open_segregated(setup: &Setup) -> Result<Box<dyn Subject>> {
    OfHeap::subject(Shared::new(SegregatedBStackAllocator::new(stack(setup)?)?), setup)
}

/// Blocks of all sizes, in one list.
pub(crate) fn open_first_fit(setup: &Setup) -> Result<Box<dyn Subject>> {
    OfHeap::subject(Shared::new(FirstFitBStackAllocator::new(stack(setup)?)?), setup)
}

fn stack(setup: &Setup) -> Result<BStack> {
    Ok(BStack::open(setup.dir.join("heap"))?)
}

/// Threads take turns.
#[cfg(not(feature = "bstack-atomic"))]
struct Shared<A>(std::sync::Mutex<A>);

/// Threads may use it at once.
#[cfg(feature = "bstack-atomic")]
struct Shared<A>(A);

#[cfg(not(feature = "bstack-atomic"))]
impl<A> Shared<A> {
    fn new(allocator: A) -> Self {
        Shared(std::sync::Mutex::new(allocator))
    }

    fn with<T>(&self, act: impl FnOnce(&A) -> T) -> T {
        act(&self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

#[cfg(feature = "bstack-atomic")]
impl<A> Shared<A> {
    fn new(allocator: A) -> Self {
        Shared(allocator)
    }

    fn with<T>(&self, act: impl FnOnce(&A) -> T) -> T {
        act(&self.0)
    }
}

impl<A: BStackAllocator + Send> Heap for Shared<A>
where
    Self: Sync,
{
    fn pair(&self, len: u64) -> Result<()> {
        self.with(|heap| {
            let block = heap.alloc(len).map_err(|error| anyhow!("{error}"))?;
            heap.dealloc(block).map_err(|error| anyhow!("{}", error.source))
        })
    }

    fn fragment(&self, blocks: u64, len: u64) -> Result<()> {
        self.with(|heap| {
            let mut handles = Vec::new();
            for _ in 0..blocks * 2 {
                handles.push(heap.alloc(len).map_err(|error| anyhow!("{error}"))?);
            }
            for handle in handles.into_iter().step_by(2) {
                heap.dealloc(handle).map_err(|error| anyhow!("{}", error.source))?;
            }
            Ok(())
        })
    }

    fn len(&self) -> Result<u64> {
        self.with(|heap| Ok(heap.len()?))
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}
