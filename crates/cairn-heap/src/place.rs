//! Asks the policy, and verifies its answers.
//!
//! All of it happens before an operation makes its first change. So a wrong answer fails the
//! operation alone, and the transaction may continue.

use std::result;

use crate::error::{Error, PolicyFault, Result};
use crate::layout::{Geometry, RUN_HEADER_LEN, RUN_MAX, Run, STACK_MAX};
use crate::mutation::{self, Mutation};
use crate::policy::{FreeRun, FreeRuns, Place, Policy};
use crate::runs::Runs;
use crate::walk;

/// A verified place for a run.
pub(crate) enum Spot {
    /// In a free run, from `start` on.
    Within { run: Run, start: u64 },
    /// At the end, `gap` bytes behind the last run.
    AtEnd { gap: u64 },
}

/// The length of the run for a block of `len` bytes, `len` > 0.
pub(crate) fn run_len(geometry: Geometry, policy: &dyn Policy, len: u64) -> Result<u64> {
    let shortest = geometry.shortest_run(len)?;
    let run_len = policy.run_len(shortest);
    // Upper bound of the field `unused`: the run may absorb a rest that is too short for a run.
    let unused = run_len.saturating_sub(RUN_HEADER_LEN + len).saturating_add(geometry.run_min());
    let right = run_len >= shortest
        && run_len.is_multiple_of(geometry.granule)
        && run_len <= RUN_MAX.max(shortest)
        && unused < u64::from(u32::MAX);
    if right || mutation::is(Mutation::BelieveRunLength) {
        return Ok(run_len);
    }
    Err(Error::Policy { fault: PolicyFault::RunLength { len, run_len } })
}

/// Where the policy puts a run of `len` bytes.
pub(crate) fn choose(runs: &mut Runs<'_, '_>, policy: &dyn Policy, len: u64) -> Result<Spot> {
    let mut free = FreeRuns::new(runs.tx, runs.header, runs.geometry);
    let place = policy.place(len, &mut free);
    let (error, seen) = free.finish();
    if let Some(error) = error {
        return Err(error);
    }
    match place? {
        Place::Within { run, start } => {
            // Usually this is the run that the policy read last: it need not be read again.
            let seen = seen.filter(|seen| (seen.at, seen.len) == (run.start, run.len));
            let found = if seen.is_some() { seen } else { free_now(runs, run)? };
            let found = found.ok_or(PolicyFault::NotFree { start: run.start });
            let spot = found.and_then(|run| within(runs.geometry, run, start, len));
            spot.map_err(|fault| Error::Policy { fault })
        }
        Place::AtEnd { gap } => {
            // Comes first: with stray bytes at the end, a right policy answers wrongly.
            runs.verify_end()?;
            let start = runs.end().saturating_add(gap);
            if start.saturating_add(len) > STACK_MAX {
                return Err(Error::TooLarge { len, max: STACK_MAX.saturating_sub(start) });
            }
            let spot = leaves_a_run(runs.geometry, gap, start).map(|()| Spot::AtEnd { gap });
            spot.map_err(|fault| Error::Policy { fault })
        }
    }
}

/// The run that the policy named, if it is free now. A policy may keep one from an earlier call.
fn free_now(runs: &mut Runs<'_, '_>, free: FreeRun) -> Result<Option<Run>> {
    let (geometry, end) = (runs.geometry, runs.end());
    if geometry.run_of(free.start.saturating_add(RUN_HEADER_LEN), end).is_err() {
        return Ok(None);
    }
    let found = walk::decode_at(runs.tx, geometry, free.start)?;
    let right = |run: &Run| run.is_free() && run.len == free.len;
    Ok(found.filter(|run| right(run) || mutation::is(Mutation::BelieveFree)))
}

/// Verifies a place within a free run.
fn within(geometry: Geometry, run: Run, start: u64, len: u64) -> result::Result<Spot, PolicyFault> {
    let end = start.checked_add(len);
    let inside = start >= run.at && end.is_some_and(|end| end <= run.end());
    if !inside && !mutation::is(Mutation::BelieveRange) {
        return Err(PolicyFault::OutOfRun { start, run_len: len });
    }
    leaves_a_run(geometry, start.wrapping_sub(run.at), start)?;
    Ok(Spot::Within { run, start })
}

/// Verifies that a run can start at `start`, and that the `gap` bytes before it are none or enough
/// for a free run.
fn leaves_a_run(geometry: Geometry, gap: u64, start: u64) -> result::Result<(), PolicyFault> {
    if !gap.is_multiple_of(geometry.granule) && !mutation::is(Mutation::BelieveAlignment) {
        return Err(PolicyFault::Misaligned { start });
    }
    if gap > 0 && gap < geometry.run_min() && !mutation::is(Mutation::BelieveGap) {
        return Err(PolicyFault::Gap { start });
    }
    Ok(())
}
