//! Repairing a heap: everything but blocks is written anew from the runs whose headers verify.
//!
//! All changes are one transaction of the stack: a crash leaves the heap as it was, or repaired.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use cairn_stack::Stack;

use crate::block::start_of;
use crate::check::{inspect, prove};
use crate::error::{Error, Result};
use crate::header::{Header, ROOTS};
use crate::layout::{ARENA, Geometry, LISTS, RUN_HEADER_LEN, RUN_PREFIX, Run, State, UNLISTED};
use crate::walk::{Counted, Source, Walk};

/// Tags that are left out if the heap's header does not say which were given out. A handle of a
/// block that was freed is then not taken for that of a later block.
const TAGS_LEFT_OUT: u64 = 1 << 48;

/// What a repair of a heap would do. Its [`Display`](fmt::Display) says it in lines of text.
///
/// A repair keeps each block whose run's header verifies, at its place, with its handle. It writes
/// the lists of free runs, the recorded lengths, the counters and the checksums anew. Bytes between
/// them become free space, or are cut off at the end of the stack. Roots that name no live block
/// are cleared.
///
/// # Examples
/// ```
/// use cairn_heap::{Error, Heap, RepairPlan, SizeClass};
/// use cairn_stack::Stack;
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("heap");
/// let heap = Heap::open(Stack::open(&path)?, SizeClass)?;
/// let block = heap.alloc_with("kept")?;
/// heap.set_root(0, block)?;
/// // Another program writes to the heap's stack: over a counter of the header.
/// let stack = heap.into_stack();
/// stack.set(80, [7])?;
/// assert!(matches!(Heap::attach(stack), Err(Error::Corrupt { .. })));
///
/// let stack = Stack::open(&path)?;
/// let plan = RepairPlan::of(&stack)?;
/// assert!(plan.is_needed() && plan.lost.is_empty());
/// println!("{plan}"); // show it to somebody, then:
/// plan.apply(&stack)?;
/// let heap = Heap::open(stack, SizeClass)?;
/// assert!(heap.check()?.is_sound());
/// assert_eq!(heap.read(heap.root(0)?)?, b"kept");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairPlan {
    /// Number of live blocks, all of which are kept.
    pub live_blocks: u64,
    /// Sum of their lengths, in bytes.
    pub live_bytes: u64,
    /// Number of free runs after the repair.
    pub free_runs: u64,
    /// Ranges of the stack in which no run's header verifies: a damaged block and its header, or
    /// stray bytes. They become free, or are cut off.
    pub lost: Vec<Range<u64>>,
    /// Roots that name no live block, and the handles in them. They are cleared.
    pub cleared_roots: Vec<(usize, u128)>,
    /// Whether the heap's header is damaged. Then its roots are kept where they name live blocks,
    /// and the user area stays as it is, but nothing proves that these were the newest ones.
    pub header_damaged: bool,
    /// Length of the stack before the repair, in bytes.
    pub old_len: u64,
    /// Length of the stack after it, in bytes.
    pub len: u64,
    /// What is written where.
    writes: Vec<(u64, Vec<u8>)>,
}

impl RepairPlan {
    /// Looks at the heap in a stack, and says what a repair would do. Changes nothing.
    ///
    /// Keeps a few bytes for each run in memory.
    ///
    /// # Errors
    /// [`Error::NotAHeap`], [`Error::UnsupportedVersion`]; [`Error::Corrupt`] if the fixed part of
    /// the header is damaged, because it holds the key of all other checksums, or if forged runs
    /// leave no room for a header between them; [`Error::Stack`] if the system cannot read.
    pub fn of(stack: &Stack) -> Result<Self> {
        inspect(stack, |source| plan(source))
    }

    /// Whether there is anything to repair.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        !self.writes.is_empty() || self.len != self.old_len
    }

    /// The ranges of the stack that a repair overwrites, gives up or cuts off, by rising offset.
    /// Copy their bytes first.
    #[must_use]
    pub fn changed(&self) -> Vec<Range<u64>> {
        let written = self.writes.iter().map(|(at, bytes)| *at..at + bytes.len() as u64);
        let mut all: Vec<_> = written.chain(self.lost.iter().cloned()).collect();
        all.push(self.len.min(self.old_len)..self.old_len);
        all.retain(|range| range.start < range.end);
        all.sort_by_key(|range| range.start);
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in all {
            match joined.last_mut().filter(|last| range.start <= last.end) {
                Some(last) => last.end = last.end.max(range.end),
                None => joined.push(range),
            }
        }
        joined
    }

    /// Does what the plan says, in one transaction: all of it, or nothing. Durable on return.
    ///
    /// # Errors
    /// [`Error::Outdated`] if the stack is not what the plan was made of; errors of the stack.
    pub fn apply(&self, stack: &Stack) -> Result<()> {
        stack.transaction(|tx| {
            if plan(tx)? != *self {
                return Err(Error::Outdated);
            }
            for (at, bytes) in &self.writes {
                tx.set(*at, bytes)?;
            }
            Ok(tx.resize(self.len)?)
        })
    }
}

fn plan(source: &mut dyn Source) -> Result<RepairPlan> {
    let old_len = source.len();
    let mut header = Header::blank();
    let there = usize::try_from(old_len.min(ARENA)).unwrap_or_default();
    source.read(0, &mut header.bytes[..there])?;
    let (_, geometry) = header.identify(old_len)?;
    let mut plan = RepairPlan { old_len, len: old_len, ..RepairPlan::default() };
    let sound = prove(source, geometry)?.is_sound();
    let layout = Layout::of(source, geometry)?;
    plan.header_damaged = header.verify().is_err();
    plan.lost.clone_from(&layout.lost);
    plan.len = layout.len;
    let mut anew = Anew { geometry, header: header.clone(), runs: layout.runs };
    anew.number_and_link();
    anew.count();
    plan.cleared_roots = anew.clear_roots();
    anew.set_next_tag(plan.header_damaged);
    anew.header.seal();
    plan.live_blocks = anew.header.live_blocks();
    plan.live_bytes = anew.header.live_bytes();
    plan.free_runs = anew.header.free_runs();
    if sound {
        plan.len = old_len;
        return Ok(plan);
    }
    plan.writes = anew.differences(source, &header, &layout.absorbed)?;
    Ok(plan)
}

/// The runs of the repaired arena.
struct Layout {
    /// By rising offset, without gaps. Links and lengths of the runs before are not right yet.
    runs: Vec<Run>,
    /// Where no header verifies.
    lost: Vec<Range<u64>>,
    /// Offsets of headers that are no longer one.
    absorbed: Vec<u64>,
    /// Where the arena ends: behind the last live run.
    len: u64,
}

impl Layout {
    fn of(source: &mut dyn Source, geometry: Geometry) -> Result<Self> {
        let (runs, lost, absorbed) = (Vec::new(), Vec::new(), Vec::new());
        let mut layout = Layout { runs, lost, absorbed, len: ARENA };
        let mut walk = Walk::new(source, geometry);
        // Where free space began that is not in `runs` yet.
        let (mut at, mut free_from) = (ARENA, ARENA);
        while at < walk.end {
            match walk.run(at)? {
                Some(run) if run.is_free() => {
                    layout.absorbed.push(at);
                    at = run.end();
                }
                Some(run) => {
                    layout.add_free(free_from, at, geometry)?;
                    layout.runs.push(run);
                    (at, layout.len) = (run.end(), run.end());
                    free_from = at;
                }
                None => {
                    let next = walk.next_run(at)?;
                    layout.lost.push(at..next);
                    at = next;
                }
            }
        }
        layout.absorbed.retain(|at| *at < layout.len);
        Ok(layout)
    }

    /// Adds a free run, or, if there is too little space for one, makes the run before longer.
    fn add_free(&mut self, start: u64, end: u64, geometry: Geometry) -> Result<()> {
        let len = end - start;
        if len == 0 {
            return Ok(());
        }
        if len >= geometry.run_min() {
            self.runs.push(Run { at: start, len, prev_len: 0, state: UNLISTED });
            return Ok(());
        }
        let corrupt = Error::Corrupt {
            offset: start,
            what: "there are too few bytes before the run behind them for a free run",
        };
        let Some(Run { len: longer, state: State::Live { unused, .. }, .. }) = self.runs.last_mut()
        else {
            return Err(corrupt);
        };
        let more = u32::try_from(len).ok().and_then(|len| unused.checked_add(len));
        *unused = more.filter(|unused| *unused != u32::MAX).ok_or(corrupt)?;
        *longer += len;
        Ok(())
    }
}

/// What a repair writes.
struct Anew {
    geometry: Geometry,
    header: Header,
    runs: Vec<Run>,
}

impl Anew {
    /// Gives each run the length of the one before, and links the free ones.
    fn number_and_link(&mut self) {
        (0..LISTS).for_each(|list| self.header.set_head(list, 0));
        let mut before = 0;
        for run in &mut self.runs {
            (run.prev_len, before) = (before, run.len);
        }
        self.header.set_last_len(before);
        // The last free run of a list comes first, so that the lowest one is at its front.
        let mut firsts: HashMap<usize, usize> = HashMap::new();
        for nth in
            (0..self.runs.len()).rev().filter(|nth| self.runs[*nth].is_free()).collect::<Vec<_>>()
        {
            let (at, list) = (self.runs[nth].at, self.geometry.list_of(self.runs[nth].len));
            let next = firsts.insert(list, nth).map_or(0, |next| {
                let run = &mut self.runs[next];
                if let State::Free { back, .. } = &mut run.state {
                    *back = at;
                }
                run.at
            });
            self.runs[nth].state = State::Free { next, back: 0 };
            self.header.set_head(list, at);
        }
    }

    fn count(&mut self) {
        let mut counted = Counted::default();
        self.runs.iter().for_each(|run| counted.add(run));
        self.header.set_live_blocks(counted.live_blocks);
        self.header.set_live_bytes(counted.live_bytes);
        self.header.set_free_runs(counted.free_runs);
        self.header.set_free_bytes(counted.free_bytes);
    }

    fn clear_roots(&mut self) -> Vec<(usize, u128)> {
        let blocks = self.runs.iter().filter_map(Run::block);
        let live: HashMap<u64, u128> =
            blocks.map(|block| (block.start(), block.to_raw())).collect();
        let mut cleared = Vec::new();
        for slot in 0..ROOTS {
            let raw = self.header.root(slot);
            if raw != 0 && live.get(&start_of(raw)) != Some(&raw) {
                cleared.push((slot, raw));
                self.header.set_root(slot, 0);
            }
        }
        cleared
    }

    /// Above all tags that are there, and if the header says so, above all that were.
    fn set_next_tag(&mut self, header_damaged: bool) {
        let tags = self.runs.iter().filter_map(|run| match run.state {
            State::Live { tag, .. } => Some(tag),
            State::Free { .. } => None,
        });
        let above = tags.max().unwrap_or(0).max(self.header.key() - 1).saturating_add(1);
        let next_tag = match header_damaged {
            true => above.saturating_add(TAGS_LEFT_OUT),
            false => self.header.next_tag().max(above),
        };
        self.header.set_next_tag(next_tag);
    }

    /// What differs from the bytes that are there.
    fn differences(
        &self,
        source: &mut dyn Source,
        header: &Header,
        absorbed: &[u64],
    ) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut writes = Vec::new();
        if self.header.bytes != header.bytes {
            writes.push((0, self.header.bytes.to_vec()));
        }
        let mut absorbed = absorbed.iter().copied().peekable();
        for run in &self.runs {
            // A header within a longer run must not be found by an old handle or list. It is
            // overwritten first, because the run's own header and links may reach over it.
            while let Some(at) = absorbed.next_if(|at| *at < run.end()) {
                if at > run.at {
                    writes.push((at, vec![0; usize::try_from(RUN_HEADER_LEN).unwrap_or(0)]));
                }
            }
            let bytes = self.geometry.encode(run);
            let mut there = [0; RUN_PREFIX];
            source.read(run.at, &mut there[..bytes.len()])?;
            if there[..bytes.len()] != bytes {
                writes.push((run.at, bytes));
            }
        }
        Ok(writes)
    }
}

impl fmt::Display for RepairPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_needed() {
            return writeln!(f, "nothing to repair: {} live blocks", self.live_blocks);
        }
        let RepairPlan { live_blocks, live_bytes, free_runs, .. } = self;
        writeln!(f, "keep      {live_blocks} live blocks of {live_bytes} bytes")?;
        if self.header_damaged {
            writeln!(f, "unproven  roots and user area: the heap's header is damaged")?;
        }
        for Range { start, end } in &self.lost {
            let now = if *end > self.len { "cut off" } else { "becomes free" };
            writeln!(f, "lost      {start}..{end}, {now}")?;
        }
        for (slot, raw) in &self.cleared_roots {
            writeln!(f, "clear     root {slot}, which names no live block at {}", start_of(*raw))?;
        }
        let writes = self.writes.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        writeln!(f, "rewrite   {writes} bytes of headers; {free_runs} free runs, in new lists")?;
        match self.len < self.old_len {
            true => writeln!(f, "length    {} bytes, {} before", self.len, self.old_len),
            false => writeln!(f, "length    {} bytes", self.len),
        }
    }
}
