//! A custom policy in the manner of buddy allocators: lengths of runs are powers of two, and each
//! run starts at a multiple of its length. So a freed run fits the next request of its class
//! exactly, and a small run never straddles two places for larger ones.
//!
//! The heap keeps the lists, joins adjacent free runs, commits and checks. So this policy does not
//! split in halves and does not join buddies.

use cairn_heap::{FreeRuns, Place, Policy, PolicyId, Result};

/// Lengths are powers of two from 64 bytes to 1 GiB. Longer runs are multiples of 64 bytes, at
/// multiples of 1 GiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buddy;

/// In bytes; the granule is 16, so both are multiples of it.
const SHORTEST: u64 = 64;
const LARGEST: u64 = 1 << 30;

/// Free runs of one list to try. Some have no aligned place that is long enough.
const LOOK_AT: usize = 8;

impl Buddy {
    /// Every heap of this policy stores it. The number was drawn at random.
    pub(crate) const ID: PolicyId = PolicyId::Custom { number: 0xc1a6_9b2f, parameter: 0 };
}

impl Policy for Buddy {
    fn id(&self) -> PolicyId {
        Self::ID
    }

    fn run_len(&self, shortest: u64) -> u64 {
        if shortest > LARGEST {
            return shortest.next_multiple_of(SHORTEST);
        }
        shortest.max(SHORTEST).next_power_of_two()
    }

    fn place(&self, run_len: u64, free: &mut FreeRuns<'_>) -> Result<Place> {
        let arena = free.arena();
        let align = run_len.min(LARGEST);
        let aligned = |offset: u64| arena.start + (offset - arena.start).next_multiple_of(align);
        let mut list = free.next_list(free.list_of(run_len));
        while let Some(nth) = list {
            for run in free.runs(nth).take(LOOK_AT) {
                let run = run?;
                let start = aligned(run.start);
                if start + run_len <= run.end() {
                    return Ok(Place::Within { run, start });
                }
            }
            list = free.next_list(nth + 1);
        }
        Ok(Place::AtEnd { gap: aligned(arena.end) - arena.end })
    }
}
