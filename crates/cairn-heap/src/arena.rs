//! Allocates, frees and reallocates blocks in the runs of an arena, where the policy puts them.
//! [`place`] verifies the policy's answers before anything changes.

use crate::block::Block;
use crate::error::{Error, Result};
use crate::layout::{RUN_HEADER_LEN, Run, STACK_MAX, State, UNLISTED};
use crate::mutation::{self, Mutation};
use crate::place::{self, Spot};
use crate::policy::Policy;
use crate::runs::Runs;

/// Bytes that are copied at once when a block moves.
const COPY_LEN: u64 = 1 << 20;

/// Allocates a block of `len` zeros; `len` > 0.
pub(crate) fn alloc(
    runs: &mut Runs<'_, '_>,
    policy: &dyn Policy,
    len: u64,
    tag: u64,
) -> Result<Block> {
    let run_len = place::run_len(runs.geometry, policy, len)?;
    let run = take(runs, policy, run_len, len)?;
    settle(runs, run, len, tag)
}

/// Frees a block.
pub(crate) fn dealloc(runs: &mut Runs<'_, '_>, block: Block) -> Result<()> {
    let (run, _) = runs.live(block.to_raw(), Some(block.len()))?;
    runs.count_live(-1, -i128::from(block.len()))?;
    runs.release(run)
}

/// Reallocates a block, in place if possible; `len` > 0. Bytes beyond the old length are zeros.
pub(crate) fn realloc(
    runs: &mut Runs<'_, '_>,
    policy: &dyn Policy,
    block: Block,
    len: u64,
    tag: u64,
) -> Result<Block> {
    let (mut run, _) = runs.live(block.to_raw(), Some(block.len()))?;
    let run_len = place::run_len(runs.geometry, policy, len)?;
    if grow(runs, &mut run, run_len)? {
        runs.count_live(-1, -i128::from(block.len()))?;
        if len > block.len() {
            runs.tx.zero(block.start() + block.len()..block.start() + len)?;
        }
        let rest = cut(runs, &mut run, run_len)?;
        let new = settle(runs, run, len, tag)?;
        rest.map_or(Ok(()), |rest| runs.release(rest))?;
        return Ok(new);
    }
    let to = take(runs, policy, run_len, 0)?;
    let start = to.at + RUN_HEADER_LEN;
    copy(runs.tx, block.start(), start, block.len().min(len))?;
    if len > block.len() {
        runs.tx.zero(start + block.len()..start + len)?;
    }
    let new = settle(runs, to, len, tag)?;
    if !mutation::is(Mutation::LeaveMovedBlock) {
        dealloc(runs, block)?;
    }
    Ok(new)
}

/// Takes a run of `len` bytes where the policy puts it; it may come out longer by less than the
/// shortest run. The caller writes its header. The first `zeroed` bytes behind the header are
/// zeros.
fn take(runs: &mut Runs<'_, '_>, policy: &dyn Policy, len: u64, zeroed: u64) -> Result<Run> {
    match place::choose(runs, policy, len)? {
        Spot::Within { run, start } => {
            let taken = carve(runs, &run, start, len)?;
            if !mutation::is(Mutation::ShowOldContents) {
                let start = taken.at + RUN_HEADER_LEN;
                runs.tx.zero(start..start + zeroed)?;
            }
            Ok(taken)
        }
        Spot::AtEnd { gap } => extend(runs, gap, len),
    }
}

/// Adds a run of `len` zeros at the end of the stack, `gap` bytes behind the last run. The gap
/// becomes a free run.
fn extend(runs: &mut Runs<'_, '_>, gap: u64, len: u64) -> Result<Run> {
    let (end, last_len) = (runs.end(), runs.header.last_len());
    runs.tx.extend(gap + len)?;
    runs.header.set_last_len(len);
    if gap > 0 && !mutation::is(Mutation::LeakGap) {
        runs.link(Run { at: end, len: gap, prev_len: last_len, state: UNLISTED })?;
    }
    let prev_len = if gap > 0 { gap } else { last_len };
    Ok(Run { at: end + gap, len, prev_len, state: UNLISTED })
}

/// Takes `len` bytes at `start` out of a free run. The bytes before and behind them become free
/// runs. Bytes behind that are too few for a run are taken as well.
fn carve(runs: &mut Runs<'_, '_>, free: &Run, start: u64, len: u64) -> Result<Run> {
    if !mutation::is(Mutation::ReuseStaysListed) {
        runs.unlink(free)?;
    }
    let before_len = start - free.at;
    let mut behind_len = free.end() - start - len;
    if behind_len < runs.geometry.run_min() {
        behind_len = 0;
    }
    let len = free.len - before_len - behind_len;
    let last_len = if behind_len > 0 { behind_len } else { len };
    if last_len != free.len {
        runs.set_prev_len(free.end(), free.len, last_len)?;
    }
    if behind_len > 0 {
        let at = start + len;
        runs.link(Run { at, len: behind_len, prev_len: len, state: UNLISTED })?;
    }
    if before_len == 0 {
        return Ok(Run { len, state: UNLISTED, ..*free });
    }
    if !mutation::is(Mutation::LeakGap) {
        runs.link(Run { len: before_len, state: UNLISTED, ..*free })?;
    }
    Ok(Run { at: start, len, prev_len: before_len, state: UNLISTED })
}

/// Writes the header of a run as a live block of `len` bytes.
fn settle(runs: &mut Runs<'_, '_>, run: Run, len: u64, tag: u64) -> Result<Block> {
    let unused = run.len - RUN_HEADER_LEN - len;
    let unused = u32::try_from(unused).expect("the length of a run was verified");
    runs.put(&Run { state: State::Live { tag, unused }, ..run })?;
    runs.count_live(1, i128::from(len))?;
    Ok(Block::new(run.at + RUN_HEADER_LEN, len, tag))
}

/// Makes a live run at least `len` bytes long in place: at the end of the stack, or into a free run
/// behind it. Returns whether that was possible.
fn grow(runs: &mut Runs<'_, '_>, run: &mut Run, len: u64) -> Result<bool> {
    if run.len >= len {
        return Ok(true);
    }
    if run.end() == runs.end() {
        runs.verify_last_len(run.len)?;
        let more = len - run.len;
        if runs.end().saturating_add(more) > STACK_MAX {
            return Err(Error::TooLarge { len, max: STACK_MAX.saturating_sub(run.at) });
        }
        runs.tx.extend(more)?;
        runs.header.set_last_len(len);
        run.len = len;
        return Ok(true);
    }
    let Some(after) = runs.free_after(run)?.filter(|after| run.len + after.len >= len) else {
        return Ok(false);
    };
    runs.unlink(&after)?;
    runs.wipe(after.at)?;
    runs.set_prev_len(after.end(), after.len, run.len + after.len)?;
    run.len += after.len;
    Ok(true)
}

/// Cuts a live run to `len` bytes, unless the rest is too short for a run. Returns the rest; the
/// caller releases it.
fn cut(runs: &mut Runs<'_, '_>, run: &mut Run, len: u64) -> Result<Option<Run>> {
    let rest_len = run.len - len;
    if rest_len < runs.geometry.run_min() {
        return Ok(None);
    }
    runs.set_prev_len(run.end(), run.len, rest_len)?;
    run.len = len;
    Ok(Some(Run { at: run.end(), len: rest_len, prev_len: len, state: UNLISTED }))
}

fn copy(tx: &mut cairn_stack::Transaction<'_>, mut from: u64, mut to: u64, len: u64) -> Result<()> {
    let end = from + len;
    while from < end {
        let part = (end - from).min(COPY_LEN);
        let bytes = tx.get(from..from + part)?;
        tx.set(to, bytes)?;
        (from, to) = (from + part, to + part);
    }
    Ok(())
}
