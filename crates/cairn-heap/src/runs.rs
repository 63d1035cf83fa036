//! Runs and the lists of free runs: reads and changes within one transaction.
//!
//! Invariants between operations, each proven by [`check`](crate::check()):
//!
//! 1. Runs follow each other without a gap from the arena's start to the end of the stack. Each
//!    records the length of the previous run.
//! 2. No two adjacent runs are free, and the last run is live: the stack is cut when its last run
//!    becomes free.
//! 3. Each free run is in the list of its length, once. The lists hold nothing else. The header's
//!    bitmap tells which lists are not empty.
//! 4. The header's counters and its length of the last run are right.
//! 5. No two blocks ever get the same tag. A header that a joined run absorbs is overwritten.
//! 6. A root names a live block, or none.
//!
//! An operation verifies metadata before it follows them. If it finds damage halfway, it fails with
//! [`Error::Corrupt`], and its transaction fails too, so that none of it reaches the file.

use crate::block::Block;
use crate::error::{Error, Result};
use crate::header::{Header, LAST_LEN, LIVE_BLOCKS};
use crate::layout::{Geometry, RUN_HEADER_LEN, RUN_PREFIX, Run, State, UNLISTED};
use crate::mutation::{self, Mutation};
use crate::walk::{self, Walk};

/// The runs and the header of one heap, in a transaction of its stack.
pub(crate) struct Runs<'a, 's> {
    pub(crate) tx: &'a mut cairn_stack::Transaction<'s>,
    pub(crate) header: &'a mut Header,
    pub(crate) geometry: Geometry,
}

pub(crate) fn corrupt<T>(offset: u64, what: &'static str) -> Result<T> {
    Err(Error::Corrupt { offset, what })
}

impl Runs<'_, '_> {
    pub(crate) fn end(&self) -> u64 {
        self.tx.len()
    }

    /// The run at `at`, to which metadata point.
    pub(crate) fn run(&mut self, at: u64) -> Result<Run> {
        walk::run_at(self.tx, self.geometry, at)
    }

    fn free_at(&mut self, at: u64) -> Result<(Run, u64, u64)> {
        walk::free_at(self.tx, self.geometry, at)
    }

    /// The run of a stored handle, and its block. `len` is the block's length, if the handle has
    /// it.
    pub(crate) fn live(&mut self, raw: u128, len: Option<u64>) -> Result<(Run, Block)> {
        live(self.tx, self.geometry, raw, len)
    }

    pub(crate) fn put(&mut self, run: &Run) -> Result<()> {
        Ok(self.tx.set(run.at, self.geometry.encode(run))?)
    }

    /// Overwrites the header of a run that another run absorbs.
    pub(crate) fn wipe(&mut self, at: u64) -> Result<()> {
        if mutation::is(Mutation::KeepAbsorbedHeader) {
            return Ok(());
        }
        Ok(self.tx.zero(at..at + RUN_HEADER_LEN)?)
    }

    /// Puts a free run at the front of its list, and writes its header.
    pub(crate) fn link(&mut self, run: Run) -> Result<()> {
        let list = self.geometry.list_of(run.len);
        let head = self.header.head(list);
        if head != 0 {
            let (mut first, next, back) = self.free_at(head)?;
            if back != 0 {
                return corrupt(head, "the first run of a list has a predecessor");
            }
            first.state = State::Free { next, back: run.at };
            self.put(&first)?;
        }
        self.put(&Run { state: State::Free { next: head, back: 0 }, ..run })?;
        self.header.set_head(list, run.at);
        self.count_free(1, i128::from(run.len))
    }

    /// Takes a free run out of its list. Its header stays as it is.
    pub(crate) fn unlink(&mut self, run: &Run) -> Result<()> {
        let State::Free { next, back } = run.state else {
            return corrupt(run.at, "a live block was taken for a free run");
        };
        let list = self.geometry.list_of(run.len);
        if next == run.at || back == run.at || (next == back && next != 0) {
            return corrupt(run.at, "a list of free runs is a circle");
        }
        let before = if back == 0 { None } else { Some(self.free_at(back)?) };
        let after = if next == 0 { None } else { Some(self.free_at(next)?) };
        let trusted = mutation::is(Mutation::TrustLinks);
        match before {
            None if self.header.head(list) != run.at && !trusted => {
                return corrupt(run.at, "a free run is not in its list");
            }
            None => self.header.set_head(list, next),
            Some((_, to, _)) if to != run.at && !trusted => {
                return corrupt(back, "links of free runs do not match");
            }
            Some((before, _, back)) => {
                self.put(&Run { state: State::Free { next, back }, ..before })?;
            }
        }
        if let Some((after, next, from)) = after {
            if from != run.at && !trusted {
                return corrupt(after.at, "links of free runs do not match");
            }
            self.put(&Run { state: State::Free { next, back }, ..after })?;
        }
        self.count_free(-1, -i128::from(run.len))
    }

    fn count_free(&mut self, runs: i128, bytes: i128) -> Result<()> {
        let runs = count(self.header.free_runs(), runs)?;
        let bytes = count(self.header.free_bytes(), bytes)?;
        self.header.set_free_runs(runs);
        self.header.set_free_bytes(bytes);
        Ok(())
    }

    pub(crate) fn count_live(&mut self, blocks: i128, bytes: i128) -> Result<()> {
        let blocks = count(self.header.live_blocks(), blocks)?;
        let bytes = count(self.header.live_bytes(), bytes)?;
        self.header.set_live_blocks(blocks);
        self.header.set_live_bytes(bytes);
        Ok(())
    }

    /// Records that the run that ends at `at` has another length: in the run at `at`, or in the
    /// heap's header if `at` is the end.
    pub(crate) fn set_prev_len(&mut self, at: u64, before: u64, prev_len: u64) -> Result<()> {
        if at == self.end() {
            self.verify_last_len(before)?;
            self.header.set_last_len(prev_len);
            return Ok(());
        }
        if mutation::is(Mutation::LeavePrevLen) {
            return Ok(());
        }
        let run = self.run(at)?;
        if run.prev_len != before {
            return corrupt(at, "the recorded length of the previous run is wrong");
        }
        self.put(&Run { prev_len, ..run })
    }

    /// Verifies the header's length of the last run.
    pub(crate) fn verify_last_len(&self, len: u64) -> Result<()> {
        if self.header.last_len() == len {
            return Ok(());
        }
        corrupt(LAST_LEN as u64, "the length of the last run is wrong")
    }

    /// Verifies that the stack ends where the last run does. The end may have moved since the heap
    /// was opened: a program may write to the heap's stack.
    pub(crate) fn verify_end(&mut self) -> Result<()> {
        let (header, geometry) = (&*self.header, self.geometry);
        if mutation::is(Mutation::GrowBelievesTheEnd)
            || walk::last_run_ends(self.tx, header, geometry)?
        {
            return Ok(());
        }
        Err(walk::blame(Walk::new(self.tx, geometry), header)?)
    }

    /// Frees a run, and joins it with free neighbours. If it is the last run, cuts the stack
    /// instead.
    pub(crate) fn release(&mut self, run: Run) -> Result<()> {
        let mut free = Run { state: UNLISTED, ..run };
        if let Some(before) = self.free_before(&run)? {
            self.unlink(&before)?;
            self.wipe(run.at)?;
            free = Run { len: before.len + run.len, ..before };
        }
        let end = self.end();
        if run.end() == end && !mutation::is(Mutation::KeepTail) {
            self.verify_last_len(run.len)?;
            self.tx.resize(free.at)?;
            self.header.set_last_len(free.prev_len);
            return Ok(());
        }
        let Some(after) = self.free_after(&run)? else {
            self.set_prev_len(run.end(), run.len, free.len)?;
            return self.link(free);
        };
        self.unlink(&after)?;
        self.wipe(after.at)?;
        free.len += after.len;
        // The run behind records the length of the joined run.
        self.set_prev_len(free.end(), after.len, free.len)?;
        self.link(free)
    }

    /// The previous run, if it is free.
    fn free_before(&mut self, run: &Run) -> Result<Option<Run>> {
        if run.prev_len == 0 {
            return Ok(None);
        }
        let before = self.run(run.at - run.prev_len)?;
        if before.len != run.prev_len {
            return corrupt(run.at, "the recorded length of the previous run is wrong");
        }
        let joins = before.is_free() && !mutation::is(Mutation::LeaveNeighboursApart);
        Ok(Some(before).filter(|_| joins))
    }

    /// The next run, if it is free.
    pub(crate) fn free_after(&mut self, run: &Run) -> Result<Option<Run>> {
        if run.end() >= self.end() {
            return Ok(None);
        }
        let after = self.run(run.end())?;
        if !after.is_free() && !mutation::is(Mutation::JoinLiveNeighbour) {
            return Ok(None);
        }
        if after.prev_len != run.len || after.end() >= self.end() {
            let what =
                "a free run is the last one, or the recorded length of the previous run is wrong";
            return corrupt(after.at, what);
        }
        Ok(Some(after))
    }
}

/// The live run of a stored handle, and its block. `len` is the block's length, if the handle has
/// it.
pub(crate) fn live(
    tx: &mut cairn_stack::Transaction<'_>,
    geometry: Geometry,
    raw: u128,
    len: Option<u64>,
) -> Result<(Run, Block)> {
    let end = tx.len();
    let mut bytes = [0; RUN_PREFIX];
    tx.get_into(geometry.run_of(crate::block::start_of(raw), end)?, &mut bytes)?;
    geometry.live_run(raw, len, &bytes, end)
}

fn count(counter: u64, by: i128) -> Result<u64> {
    match u64::try_from(i128::from(counter) + by) {
        Ok(counter) => Ok(counter),
        Err(_) => corrupt(LIVE_BLOCKS as u64, "the heap's counters are wrong"),
    }
}
