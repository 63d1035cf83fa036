//! The arena's mechanics, for all policies: taking runs, giving them back, and the lists of free ones.
//!
//! Invariants between operations, each proven by [`check`](crate::check):
//!
//! 1. runs follow each other without a gap from the arena's beginning to the end of the stack, and each knows the length of the one before it;
//! 2. no two neighbours are free, and the last run is not: what becomes free at the end is given back;
//! 3. each free run is in the list of its length, once, and nothing else is; the header's bits say which lists are not empty;
//! 4. the header's counters, and the length of the last run, are right;
//! 5. no tag is given to two blocks, ever; a header that is not one any more is overwritten;
//! 6. a root names a live block, or none.
//!
//! An operation checks everything that it relies on before it follows it. When it finds something else halfway, it fails with
//! [`Error::Corrupt`], and its transaction with it, so that nothing of it reaches the file.

use crate::block::Block;
use crate::error::{BlockFault, Error, Result};
use crate::layout::{HEADS, Header, LAST_LEN, LIVE_BLOCKS, RUN_HEADER_LEN, RUN_PREFIX, Run, State, run_of};
use crate::mutation::{self, Mutation};
use crate::policy::Fit;

/// Bytes copied at once when a block moves.
const COPY_LEN: u64 = 1 << 20;
/// No stack is longer.
const STACK_MAX: u64 = 1 << 62;

pub(crate) struct Arena<'a, 's> {
    pub(crate) tx: &'a mut cairn_stack::Transaction<'s>,
    pub(crate) header: &'a mut Header,
    pub(crate) fit: &'a dyn Fit,
}

fn corrupt<T>(offset: u64, what: &'static str) -> Result<T> {
    Err(Error::Corrupt { offset, what })
}

/// The run of a handle, in bytes that were read where it should be.
pub(crate) fn verify_block(block: Block, bytes: &[u8; RUN_PREFIX], key: u64, granule: u64, end: u64) -> Result<Run> {
    let start = block.start();
    let invalid = |fault| Err(Error::InvalidBlock { start, fault });
    let at = run_of(start, granule, end)?;
    let Some(run) = Run::decode(key, at, bytes, granule, end) else { return invalid(BlockFault::NoBlock) };
    match run.state {
        State::Free { .. } => invalid(BlockFault::Freed),
        State::Live { .. } if mutation::is(Mutation::IgnoreTag) => Ok(run),
        State::Live { tag, .. } if tag != block.tag() || run.block_len() != block.len() => invalid(BlockFault::Reused),
        State::Live { .. } => Ok(run),
    }
}

impl Arena<'_, '_> {
    fn end(&self) -> u64 {
        self.tx.len()
    }

    /// The run at `at`, where metadata says that there is one.
    fn run(&mut self, at: u64) -> Result<Run> {
        let (granule, end) = (self.fit.granule(), self.end());
        if run_of(at.saturating_add(RUN_HEADER_LEN), granule, end).is_err() {
            return corrupt(at, "a pointer leads there, and no run can start there");
        }
        let mut bytes = [0; RUN_PREFIX];
        self.tx.get_into(at, &mut bytes)?;
        match Run::decode(self.header.key(), at, &bytes, granule, end) {
            Some(run) => Ok(run),
            None => corrupt(at, "a run's header does not match its checksum"),
        }
    }

    /// The run of a handle.
    pub(crate) fn run_of(&mut self, block: Block) -> Result<Run> {
        let (granule, end) = (self.fit.granule(), self.end());
        let at = run_of(block.start(), granule, end)?;
        let mut bytes = [0; RUN_PREFIX];
        self.tx.get_into(at, &mut bytes)?;
        verify_block(block, &bytes, self.header.key(), granule, end)
    }

    fn put(&mut self, run: &Run) -> Result<()> {
        Ok(self.tx.set(run.at, run.encode(self.header.key()))?)
    }

    /// What was a header is none any more.
    fn wipe(&mut self, at: u64) -> Result<()> {
        if mutation::is(Mutation::KeepAbsorbedHeader) {
            return Ok(());
        }
        Ok(self.tx.zero(at..at + RUN_HEADER_LEN)?)
    }

    fn free_at(&mut self, at: u64) -> Result<(Run, u64, u64)> {
        let run = self.run(at)?;
        match run.state {
            State::Free { next, back } => Ok((run, next, back)),
            State::Live { .. } => corrupt(at, "a list of free runs leads to a live block"),
        }
    }

    /// Puts a free run at the front of its list, and writes it.
    fn link(&mut self, mut run: Run) -> Result<()> {
        let bin = self.fit.bin(run.len);
        let head = self.header.head(bin);
        if head != 0 {
            let (mut first, next, back) = self.free_at(head)?;
            if back != 0 {
                return corrupt(head, "the first run of a list has one before it");
            }
            first.state = State::Free { next, back: run.at };
            self.put(&first)?;
        }
        run.state = State::Free { next: head, back: 0 };
        self.put(&run)?;
        self.header.set_head(bin, run.at);
        self.count_free(1, i128::from(run.len))
    }

    /// Takes a free run out of its list. Its header stays.
    fn unlink(&mut self, run: &Run) -> Result<()> {
        let State::Free { next, back } = run.state else {
            return corrupt(run.at, "a live block was taken for a free run");
        };
        let bin = self.fit.bin(run.len);
        if next == run.at || back == run.at || (next == back && next != 0) {
            return corrupt(run.at, "a list of free runs is a circle");
        }
        let before = if back == 0 { None } else { Some(self.free_at(back)?) };
        let after = if next == 0 { None } else { Some(self.free_at(next)?) };
        let trusted = mutation::is(Mutation::TrustLinks);
        match before {
            None if self.header.head(bin) != run.at && !trusted => {
                return corrupt(run.at, "a free run is not in its list");
            }
            None => self.header.set_head(bin, next),
            Some((_, to, _)) if to != run.at && !trusted => return corrupt(back, "links of free runs do not match"),
            Some((mut before, _, back)) => {
                before.state = State::Free { next, back };
                self.put(&before)?;
            }
        }
        if let Some((mut after, next, from)) = after {
            if from != run.at && !trusted {
                return corrupt(after.at, "links of free runs do not match");
            }
            after.state = State::Free { next, back };
            self.put(&after)?;
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

    fn count_live(&mut self, blocks: i128, bytes: i128) -> Result<()> {
        let blocks = count(self.header.live_blocks(), blocks)?;
        let bytes = count(self.header.live_bytes(), bytes)?;
        self.header.set_live_blocks(blocks);
        self.header.set_live_bytes(bytes);
        Ok(())
    }

    /// A free run of at least `len` bytes, if the policy finds one.
    fn find(&mut self, len: u64) -> Result<Option<Run>> {
        let Some(search) = self.fit.search(len) else { return Ok(None) };
        let mut at = self.header.head(search.bin);
        for _ in 0..search.look_at {
            if at == 0 {
                break;
            }
            let (run, next, _) = self.free_at(at)?;
            if run.len >= len {
                return Ok(Some(run));
            }
            at = next;
        }
        let Some(bin) = self.header.first_bin(search.bin + 1) else { return Ok(None) };
        let head = self.header.head(bin);
        if head == 0 {
            return corrupt((HEADS + 8 * bin) as u64, "a list that is said to hold a run is empty");
        }
        let (run, ..) = self.free_at(head)?;
        if run.len < len {
            return corrupt(head, "a free run is in the list of longer ones");
        }
        Ok(Some(run))
    }

    /// Tells the run at `at`, or the header when it is the end, how long the run before it is now.
    fn set_prev_len(&mut self, at: u64, before: u64, prev_len: u64) -> Result<()> {
        if at == self.end() {
            if self.header.last_len() != before {
                return corrupt(LAST_LEN as u64, "the length of the last run is wrong");
            }
            self.header.set_last_len(prev_len);
            return Ok(());
        }
        if mutation::is(Mutation::LeavePrevLen) {
            return Ok(());
        }
        let mut run = self.run(at)?;
        if run.prev_len != before {
            return corrupt(at, "the length of the run before is wrong");
        }
        run.prev_len = prev_len;
        self.put(&run)
    }

    /// Takes a run of `len` bytes, or a little more, out of the free ones, or from the end; its header is still to be written. All of its bytes
    /// behind the header, up to `zeroed`, are zeros.
    fn take(&mut self, len: u64, zeroed: u64) -> Result<Run> {
        let Some(mut run) = self.find(len)? else {
            let (at, prev_len) = (self.end(), self.header.last_len());
            if at.saturating_add(len) > STACK_MAX {
                return Err(Error::TooLarge { len, max: STACK_MAX.saturating_sub(at) });
            }
            self.tx.extend(len)?;
            self.header.set_last_len(len);
            return Ok(Run { at, len, prev_len, state: State::Free { next: 0, back: 0 } });
        };
        if !mutation::is(Mutation::ReuseStaysListed) {
            self.unlink(&run)?;
        }
        self.split(&mut run, len)?;
        if !mutation::is(Mutation::ShowOldContents) {
            self.tx.zero(run.at + RUN_HEADER_LEN..run.at + RUN_HEADER_LEN + zeroed)?;
        }
        Ok(run)
    }

    /// Cuts a run that is in no list to `len` bytes, if what is left makes a free run; that one's neighbour is not free.
    fn split(&mut self, run: &mut Run, len: u64) -> Result<()> {
        let rest_len = run.len - len;
        if rest_len < self.fit.run_min() {
            return Ok(());
        }
        self.set_prev_len(run.end(), run.len, rest_len)?;
        let state = State::Free { next: 0, back: 0 };
        self.link(Run { at: run.at + len, len: rest_len, prev_len: len, state })?;
        run.len = len;
        Ok(())
    }

    /// Makes a run free that is in no list, together with free neighbours; at the end, it is given back.
    fn release(&mut self, run: Run) -> Result<()> {
        let mut free = run;
        let end = self.end();
        if run.prev_len != 0 {
            let before = self.run(run.at - run.prev_len)?;
            if before.len != run.prev_len {
                return corrupt(run.at, "the length of the run before is wrong");
            }
            if before.is_free() && !mutation::is(Mutation::LeaveNeighboursApart) {
                self.unlink(&before)?;
                self.wipe(run.at)?;
                free = Run { len: before.len + run.len, ..before };
            }
        }
        if run.end() < end {
            let after = self.run(run.end())?;
            if after.is_free() || mutation::is(Mutation::JoinLiveNeighbour) {
                if after.prev_len != run.len || after.end() >= end {
                    return corrupt(after.at, "a free run is the last one, or its neighbour's length is wrong");
                }
                self.unlink(&after)?;
                self.wipe(after.at)?;
                free.len += after.len;
                // The next one tells the length of this one, not of what was freed.
                self.set_prev_len(free.end(), after.len, free.len)?;
                return self.link(free);
            }
        }
        if run.end() == end && !mutation::is(Mutation::KeepTail) {
            if self.header.last_len() != run.len {
                return corrupt(LAST_LEN as u64, "the length of the last run is wrong");
            }
            self.tx.resize(free.at)?;
            self.header.set_last_len(free.prev_len);
            return Ok(());
        }
        self.set_prev_len(run.end(), run.len, free.len)?;
        self.link(free)
    }

    /// Writes the header of a run as a live block of `len` bytes.
    fn settle(&mut self, run: Run, len: u64, tag: u64) -> Result<Block> {
        let unused = run.len - RUN_HEADER_LEN - len;
        let unused = u32::try_from(unused).expect("less than a granule and the shortest run");
        let run = Run { state: State::Live { tag, unused }, ..run };
        self.put(&run)?;
        self.count_live(1, i128::from(len))?;
        Ok(Block::new(run.at + RUN_HEADER_LEN, len, tag))
    }

    /// A new block of zeros; `len` > 0.
    pub(crate) fn alloc(&mut self, len: u64, tag: u64) -> Result<Block> {
        let run_len = self.fit.run_len(len)?;
        let run = self.take(run_len, len)?;
        self.settle(run, len, tag)
    }

    pub(crate) fn dealloc(&mut self, block: Block) -> Result<()> {
        let run = self.run_of(block)?;
        self.count_live(-1, -i128::from(block.len()))?;
        self.release(run)
    }

    /// A block with another length, > 0, where the old one was if possible; what is new is zeros.
    pub(crate) fn realloc(&mut self, block: Block, len: u64, tag: u64) -> Result<Block> {
        let mut run = self.run_of(block)?;
        let run_len = self.fit.run_len(len)?;
        if self.grow(&mut run, run_len)? {
            self.count_live(-1, -i128::from(block.len()))?;
            if len > block.len() {
                self.tx.zero(block.start() + block.len()..block.start() + len)?;
            }
            let rest = self.cut(&mut run, run_len)?;
            let new = self.settle(run, len, tag)?;
            rest.map_or(Ok(()), |rest| self.release(rest))?;
            return Ok(new);
        }
        let to = self.take(run_len, 0)?;
        self.copy(block.start(), to.at + RUN_HEADER_LEN, block.len().min(len))?;
        if len > block.len() {
            let start = to.at + RUN_HEADER_LEN;
            self.tx.zero(start + block.len()..start + len)?;
        }
        let new = self.settle(to, len, tag)?;
        if !mutation::is(Mutation::LeaveMovedBlock) {
            self.dealloc(block)?;
        }
        Ok(new)
    }

    /// Makes a live run at least `len` bytes long where it is, if what follows it allows.
    fn grow(&mut self, run: &mut Run, len: u64) -> Result<bool> {
        if run.len >= len {
            return Ok(true);
        }
        if run.end() == self.end() {
            if self.header.last_len() != run.len {
                return corrupt(LAST_LEN as u64, "the length of the last run is wrong");
            }
            let more = len - run.len;
            if self.end().saturating_add(more) > STACK_MAX {
                return Err(Error::TooLarge { len, max: STACK_MAX.saturating_sub(run.at) });
            }
            self.tx.extend(more)?;
            self.header.set_last_len(len);
            run.len = len;
            return Ok(true);
        }
        let after = self.run(run.end())?;
        if !after.is_free() || run.len + after.len < len {
            return Ok(false);
        }
        self.unlink(&after)?;
        self.wipe(after.at)?;
        self.set_prev_len(after.end(), after.len, run.len + after.len)?;
        run.len += after.len;
        Ok(true)
    }

    /// Cuts a live run to `len` bytes, if what is left makes a run, and returns that; it is to be released.
    fn cut(&mut self, run: &mut Run, len: u64) -> Result<Option<Run>> {
        let rest_len = run.len - len;
        if rest_len < self.fit.run_min() {
            return Ok(None);
        }
        self.set_prev_len(run.end(), run.len, rest_len)?;
        let rest = Run { at: run.at + len, len: rest_len, prev_len: len, state: State::Free { next: 0, back: 0 } };
        run.len = len;
        Ok(Some(rest))
    }

    fn copy(&mut self, mut from: u64, mut to: u64, len: u64) -> Result<()> {
        let end = from + len;
        while from < end {
            let part = (end - from).min(COPY_LEN);
            let bytes = self.tx.get(from..from + part)?;
            self.tx.set(to, bytes)?;
            (from, to) = (from + part, to + part);
        }
        Ok(())
    }
}

fn count(counter: u64, by: i128) -> Result<u64> {
    match u64::try_from(i128::from(counter) + by) {
        Ok(counter) => Ok(counter),
        Err(_) => corrupt(LIVE_BLOCKS as u64, "the heap's counters are wrong"),
    }
}
