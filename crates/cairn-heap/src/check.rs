//! The check: walks the arena, and proves that a heap is sound or lists every violation.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use cairn_stack::Stack;

use crate::block::{Block, start_of};
use crate::error::{Error, Result};
use crate::header::{
    ENDS_IN_HEADER, FREE_BYTES, FREE_RUNS, HEADS, Header, LAST_LEN, LIVE_BLOCKS, LIVE_BYTES,
    ROOT_TABLE, ROOTS,
};
use crate::layout::{ARENA, Geometry, LISTS, RUN_HEADER_LEN, Run, State, is_exact};
use crate::mutation::{self, Mutation};
use crate::policy::FreeRuns;
use crate::walk::{Counted, Source, Walk};

/// One fault that the check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Violation {
    /// Its offset in the stack, in bytes.
    pub offset: u64,
    /// The fault, in words.
    pub what: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}: {}", self.offset, self.what)
    }
}

/// Result of [`check`](crate::Heap::check). The four kinds of bytes add up to the length of the
/// stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Every fault, in no order; empty for a sound heap.
    pub violations: Vec<Violation>,
    /// Length of the stack, in bytes.
    pub len: u64,
    /// Bytes of the heap's header, and of the headers of live runs.
    pub header_bytes: u64,
    /// Bytes of live blocks, and unused bytes behind them.
    pub allocated_bytes: u64,
    /// Bytes of free runs, headers included.
    pub free_bytes: u64,
    /// Bytes of no run; 0 unless the heap is damaged.
    pub lost_bytes: u64,
    /// Number of live blocks.
    pub live_blocks: u64,
    /// Sum of their lengths, as requested, in bytes.
    pub live_bytes: u64,
    /// Number of free runs.
    pub free_runs: u64,
    /// Bytes of the longest free run, header included; 0 if there is none.
    pub largest_free: u64,
}

impl Report {
    /// Whether the check found no fault.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.violations.is_empty()
    }

    /// For a stack of `len` bytes that ends within the heap's header.
    fn of_part(len: u64) -> Self {
        let mut report = Report { len, lost_bytes: len, ..Report::default() };
        report.expect(false, len, ENDS_IN_HEADER);
        report
    }

    fn expect(&mut self, holds: bool, offset: u64, what: &'static str) {
        if !holds {
            self.violations.push(Violation { offset, what });
        }
    }
}

/// Checks the heap in a stack, also one that is too damaged to open. Proves that every byte is
/// exactly one of header, free, and allocated, and that all metadata agree; otherwise lists every
/// violation. [`Heap::check`](crate::Heap::check) does the same for an open heap.
///
/// Needs no policy. Reads all headers. Changes of the stack wait for it.
///
/// # Errors
/// [`Error::NotAHeap`], [`Error::UnsupportedVersion`]; [`Error::Corrupt`] if the fixed part of the
/// header is damaged, because it holds the key of all other checksums; [`Error::Stack`] if the
/// system cannot read. All other damage is in the report, not an error.
///
/// # Examples
/// ```
/// # use cairn_heap::{Error, Heap, SizeClass};
/// # use cairn_stack::Stack;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("heap");
/// let heap = Heap::open(Stack::open(&path)?, SizeClass)?;
/// let block = heap.alloc_with("kept")?;
/// heap.set_root(0, block)?;
/// // Another program writes to the heap's stack.
/// let stack = heap.into_stack();
/// stack.push("stray")?;
///
/// let report = cairn_heap::check(&stack)?;
/// assert!(!report.is_sound());
/// let Err(Error::StrayBytes { offset, len }) = Heap::attach(stack) else { panic!() };
/// assert_eq!((offset, len), (report.violations[0].offset, 5));
///
/// // Without those bytes, the heap is as it was.
/// Stack::open(&path)?.discard(len)?;
/// let heap = Heap::open(Stack::open(&path)?, SizeClass)?;
/// assert_eq!(heap.read(heap.root(0)?)?, b"kept");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn check(stack: &Stack) -> Result<Report> {
    inspect(stack, |source| {
        let mut header = Header::blank();
        let there = source.len().min(ARENA);
        source.read(0, &mut header.bytes[..usize::try_from(there).expect("a header at most")])?;
        match header.identify(source.len()) {
            Ok((_, geometry)) => prove(source, geometry),
            // The checksum of a header that is cut short cannot match.
            Err(Error::Corrupt { .. }) if there < ARENA => Ok(Report::of_part(there)),
            Err(error) => Err(error),
        }
    })
}

/// Looks at one moment of a stack, in a transaction, so that changes wait. A poisoned stack runs no
/// transactions; it does not change either, so it is read directly.
pub(crate) fn inspect<T>(stack: &Stack, look: impl Fn(&mut dyn Source) -> Result<T>) -> Result<T> {
    match stack.transaction(|tx| look(tx)) {
        Err(Error::Stack(cairn_stack::Error::Poisoned { .. })) => look(&mut &*stack),
        result => result,
    }
}

pub(crate) fn prove(source: &mut dyn Source, geometry: Geometry) -> Result<Report> {
    let len = source.len();
    if len < ARENA {
        return Ok(Report::of_part(len));
    }
    let mut header = Header::blank();
    source.read(0, &mut header.bytes[..])?;
    let mut report = Report { len, header_bytes: ARENA, ..Report::default() };
    for found in [header.identify(len).map(drop), header.verify()] {
        match found {
            Ok(()) => {}
            Err(Error::Corrupt { offset, what }) => report.expect(false, offset, what),
            Err(_) => {
                report.expect(false, 0, "this is not the header of a heap of this format version")
            }
        }
    }
    let mut proof = Proof::new(&header, geometry, report);
    proof.walk(Walk::new(source, geometry))?;
    if !mutation::is(Mutation::CheckSkipsLists) {
        proof.check_lists();
    }
    proof.check_roots();
    proof.check_counters();
    Ok(proof.report)
}

/// The state of a check.
struct Proof<'a> {
    header: &'a Header,
    geometry: Geometry,
    report: Report,
    counted: Counted,
    /// The previous run; `None` if its header does not verify.
    before: Option<Run>,
    /// Length of the previous run; `None` if it is unknown.
    prev_len: Option<u64>,
    /// Free runs, by offset.
    free: BTreeMap<u64, Run>,
    /// Stored handles of live blocks, by the blocks' offsets.
    live: HashMap<u64, u128>,
    /// Tags of live blocks.
    tags: HashSet<u64>,
}

impl<'a> Proof<'a> {
    fn new(header: &'a Header, geometry: Geometry, report: Report) -> Self {
        Proof {
            header,
            geometry,
            report,
            counted: Counted::default(),
            before: None,
            prev_len: Some(0),
            free: BTreeMap::new(),
            live: HashMap::new(),
            tags: HashSet::new(),
        }
    }

    /// Reads all runs, from the start of the arena to the end of the stack.
    fn walk(&mut self, mut walk: Walk<'_>) -> Result<()> {
        let (mut at, mut ended) = (ARENA, false);
        while at < walk.end {
            let ends = self.counted.is_all(self.header)
                && !ended
                && !mutation::is(Mutation::CheckBelievesTheEnd);
            self.report.expect(!ends, at, "the heap ends here, but the stack is longer");
            ended |= ends;
            let Some(run) = walk.run(at)? else {
                let what = walk.why_no_run(at)?;
                self.report.expect(ends, at, what);
                let next = walk.next_run(at)?;
                self.report.lost_bytes += next - at;
                (at, self.before, self.prev_len) = (next, None, None);
                continue;
            };
            self.meet(&run, walk.end);
            at = run.end();
        }
        self.report.expect(
            self.prev_len.is_none_or(|len| len == self.header.last_len()),
            LAST_LEN as u64,
            "the length of the last run is wrong",
        );
        Ok(())
    }

    fn meet(&mut self, run: &Run, end: u64) {
        if mutation::is(Mutation::CheckSkipsNeighbours) {
            (self.before, self.prev_len) = (None, None);
        }
        let (at, report) = (run.at, &mut self.report);
        report.expect(
            self.prev_len.is_none_or(|len| len == run.prev_len),
            at,
            "the recorded length of the previous run is wrong",
        );
        match run.state {
            State::Free { .. } => {
                let apart = !self.before.is_some_and(|run| run.is_free());
                report.expect(apart, at, "two adjacent runs are free");
                report.expect(run.end() < end, at, "the last run is free");
                report.largest_free = report.largest_free.max(run.len);
                self.free.insert(at, *run);
            }
            State::Live { tag, .. } => {
                let trusted = mutation::is(Mutation::CheckSkipsTags);
                let given_out = (self.geometry.key..self.header.next_tag()).contains(&tag);
                report.expect(given_out || trusted, at, "a block's tag was never given out");
                let once = self.tags.insert(tag) || trusted;
                report.expect(once, at, "two blocks have the same tag");
                report.header_bytes += RUN_HEADER_LEN;
                report.allocated_bytes += run.len - RUN_HEADER_LEN;
            }
        }
        if let Some(block) = run.block() {
            self.live.insert(block.start(), block.to_raw());
        }
        self.counted.add(run);
        (self.prev_len, self.before) = (Some(run.len), Some(*run));
    }

    /// Each free run is in the list of its length, exactly once.
    fn check_lists(&mut self) {
        let (free, header, report) = (&self.free, self.header, &mut self.report);
        let mut listed = HashSet::new();
        for list in 0..LISTS {
            let (mut at, mut from) = (header.head(list), 0);
            let head = (HEADS + 8 * list) as u64;
            let bit = (at != 0) == header.has(list);
            report.expect(bit, head, "the bit of this list of free runs is wrong");
            while at != 0 {
                let Some(Run { len, state: State::Free { next, back }, .. }) =
                    free.get(&at).copied()
                else {
                    report.expect(false, at, LEADS_NOWHERE);
                    break;
                };
                if !listed.insert(at) {
                    report.expect(false, at, "a free run is in a list twice, or in two lists");
                    break;
                }
                let right = self.geometry.list_of(len) == list;
                report.expect(right, at, "a free run is in the list of another length");
                report.expect(back == from, at, "links of free runs do not match");
                (at, from) = (next, at);
            }
        }
        for at in free.keys().filter(|at| !listed.contains(at)) {
            report.expect(false, *at, "a free run is in no list");
        }
    }

    fn check_roots(&mut self) {
        for slot in 0..ROOTS {
            let raw = self.header.root(slot);
            let lives = raw == 0
                || self.live.get(&start_of(raw)) == Some(&raw)
                || mutation::is(Mutation::CheckSkipsRoots);
            let at = (ROOT_TABLE + 16 * slot) as u64;
            self.report.expect(lives, at, "this root names no live block");
        }
    }

    /// Puts the counts into the report, and compares them with the header's.
    fn check_counters(&mut self) {
        let Counted { live_blocks, live_bytes, free_runs, free_bytes, .. } = self.counted;
        let (header, report) = (self.header, &mut self.report);
        for (at, said, found) in [
            (LIVE_BLOCKS, header.live_blocks(), live_blocks),
            (LIVE_BYTES, header.live_bytes(), live_bytes),
            (FREE_RUNS, header.free_runs(), free_runs),
            (FREE_BYTES, header.free_bytes(), free_bytes),
        ] {
            let right = said == found || mutation::is(Mutation::CheckSkipsCounters);
            report.expect(right, at as u64, "a counter is wrong");
        }
        (report.live_blocks, report.live_bytes) = (live_blocks, live_bytes);
        (report.free_runs, report.free_bytes) = (free_runs, free_bytes);
        let parts = report.header_bytes + report.allocated_bytes + free_bytes + report.lost_bytes;
        let len = report.len;
        report.expect(parts == len, 0, "the check did not account for every byte once");
    }
}

const LEADS_NOWHERE: &str = "a list of free runs points here, but no free run starts here";

pub(crate) fn blocks(source: &mut dyn Source, geometry: Geometry) -> Result<Vec<Block>> {
    let mut walk = Walk::new(source, geometry);
    let (mut at, mut found) = (ARENA, Vec::new());
    while at < walk.end {
        let Some(run) = walk.run(at)? else {
            return Err(Error::Corrupt { offset: at, what: walk.why_no_run(at)? });
        };
        found.extend(run.block());
        at = run.end();
    }
    Ok(found)
}

/// Length of the longest free run. It is in the last list that is not empty.
pub(crate) fn largest_free(
    source: &mut dyn Source,
    header: &Header,
    geometry: Geometry,
) -> Result<u64> {
    let Some(list) = (0..LISTS).rev().find(|list| header.has(*list)) else { return Ok(0) };
    let look_at = if is_exact(list) { 1 } else { usize::MAX };
    let mut free = FreeRuns::new(source, header, geometry);
    free.runs(list).take(look_at).try_fold(0, |longest, run| Ok(run?.len.max(longest)))
}
