//! The policies that come with Cairn.

use std::sync::Arc;

use crate::error::Result;
use crate::identity::PolicyId;
use crate::layout::is_exact;
use crate::policy::{FreeRuns, Place, Policy};

/// Places for blocks of one size, for heaps whose blocks mostly have that size. A longer block
/// takes several adjacent places. Finding a free place reads one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slab {
    /// Length of a block that fits into one place, from 8 bytes to 1 GiB.
    pub block_size: u64,
}

/// Puts each block behind the last one. Freed space is reused only if everything behind it is free
/// too, or if the block before it grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Linear;

/// For blocks of all sizes: takes a free run of about the length, or splits a longer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SizeClass;

impl Policy for Slab {
    fn id(&self) -> PolicyId {
        PolicyId::Slab { block_size: self.block_size }
    }

    fn place(&self, run_len: u64, free: &mut FreeRuns<'_>) -> Result<Place> {
        first_fit(run_len, free)
    }
}

impl Policy for Linear {
    fn id(&self) -> PolicyId {
        PolicyId::Linear
    }

    fn place(&self, _: u64, _: &mut FreeRuns<'_>) -> Result<Place> {
        Ok(Place::AtEnd { gap: 0 })
    }
}

impl Policy for SizeClass {
    fn id(&self) -> PolicyId {
        PolicyId::SizeClass
    }

    fn place(&self, run_len: u64, free: &mut FreeRuns<'_>) -> Result<Place> {
        first_fit(run_len, free)
    }
}

/// Free runs of the request's own list to try before a longer one is split.
const LOOK_AT: usize = 8;

fn first_fit(run_len: u64, free: &mut FreeRuns<'_>) -> Result<Place> {
    let list = free.list_of(run_len);
    let look_at = if is_exact(list) { 1 } else { LOOK_AT };
    for run in free.runs(list).take(look_at) {
        let run = run?;
        if run.len >= run_len {
            return Ok(Place::Within { run, start: run.start });
        }
    }
    let Some(list) = free.next_list(list + 1) else { return Ok(Place::AtEnd { gap: 0 }) };
    Ok(match free.runs(list).next().transpose()? {
        Some(run) => Place::Within { run, start: run.start },
        None => Place::AtEnd { gap: 0 },
    })
}

/// The policy of this id, if it is one of Cairn's.
pub(crate) fn of(id: PolicyId) -> Option<Arc<dyn Policy>> {
    match id {
        PolicyId::Slab { block_size } => Some(Arc::new(Slab { block_size })),
        PolicyId::Linear => Some(Arc::new(Linear)),
        PolicyId::SizeClass => Some(Arc::new(SizeClass)),
        PolicyId::Custom { .. } => None,
    }
}
