//! Walking the arena: the proof that a heap is whole, and the list of all that is not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use crate::block::Block;
use crate::error::{Error, Result};
use crate::layout::{
    ARENA, BIN_COUNT, FREE_BYTES, FREE_RUNS, HEADS, Header, LAST_LEN, LIVE_BLOCKS, LIVE_BYTES, ROOT_TABLE, ROOTS,
    RUN_HEADER_LEN, RUN_PREFIX, Run, State,
};
use crate::mutation::{self, Mutation};
use crate::policy::{Fit, is_exact};
use crate::transaction::start_of;

/// Where a walk reads.
pub(crate) trait Source {
    fn len(&self) -> u64;
    fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<()>;
}

impl Source for cairn_stack::Transaction<'_> {
    fn len(&self) -> u64 {
        cairn_stack::Transaction::len(self)
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<()> {
        Ok(self.get_into(at, buf)?)
    }
}

impl Source for &cairn_stack::Stack {
    fn len(&self) -> u64 {
        cairn_stack::Stack::len(self)
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<()> {
        Ok(self.get_into(at, buf)?)
    }
}

/// Something in a heap that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Violation {
    /// Where in the stack, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}: {}", self.offset, self.what)
    }
}

/// What [`check`](crate::Heap::check) found. The four kinds of bytes add up to the length of the stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// All that is wrong, in no order; empty for a heap that is whole.
    pub violations: Vec<Violation>,
    /// Length of the stack, in bytes.
    pub len: u64,
    /// Bytes of the heap's header, and of those of live blocks.
    pub header_bytes: u64,
    /// Bytes of live blocks, with those that they have beyond what was asked for.
    pub allocated_bytes: u64,
    /// Bytes of free runs, their headers included.
    pub free_bytes: u64,
    /// Bytes that are none of these: only in a damaged heap.
    pub lost_bytes: u64,
    /// Blocks that live.
    pub live_blocks: u64,
    /// Bytes that were asked for them.
    pub live_bytes: u64,
    /// Free runs.
    pub free_runs: u64,
    /// Bytes of the longest of them.
    pub largest_free: u64,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.violations.is_empty()
    }

    fn expect(&mut self, holds: bool, offset: u64, what: &'static str) {
        if !holds {
            self.violations.push(Violation { offset, what });
        }
    }
}

const WINDOW: usize = 64 << 10;

/// Reads runs in order, many at once.
struct Walk<'a> {
    source: &'a mut dyn Source,
    fit: &'a dyn Fit,
    key: u64,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Walk<'a> {
    fn new(source: &'a mut dyn Source, fit: &'a dyn Fit, key: u64) -> Self {
        let end = source.len();
        Walk { source, fit, key, end, window: Vec::new(), window_at: 0 }
    }

    /// The run at `at`; `None` where none is.
    fn run(&mut self, at: u64) -> Result<Option<Run>> {
        if self.end - at < RUN_PREFIX as u64 {
            return Ok(None);
        }
        let inside = at >= self.window_at && at + RUN_PREFIX as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            let len = usize::try_from(self.end - at).unwrap_or(WINDOW).min(WINDOW);
            self.window.resize(len, 0);
            self.source.read(at, &mut self.window)?;
            self.window_at = at;
        }
        let from = usize::try_from(at - self.window_at).expect("inside the window");
        let bytes = self.window[from..from + RUN_PREFIX].try_into().expect("as long as asked for");
        Ok(Run::decode(self.key, at, bytes, self.fit.granule(), self.end))
    }

    /// The first place behind `at` where a run is.
    fn next_run(&mut self, mut at: u64) -> Result<u64> {
        loop {
            at = at.saturating_add(self.fit.granule());
            if at >= self.end {
                return Ok(self.end);
            }
            if self.run(at)?.is_some() {
                return Ok(at);
            }
        }
    }
}

pub(crate) fn check(source: &mut dyn Source, fit: &dyn Fit, key: u64) -> Result<Report> {
    let mut report = Report { len: source.len(), header_bytes: ARENA, ..Report::default() };
    if report.len < ARENA {
        report.expect(false, report.len, "the stack ends within the heap's header");
        (report.lost_bytes, report.header_bytes) = (report.len, 0);
        return Ok(report);
    }
    let mut header = Header::blank();
    source.read(0, &mut header.bytes[..])?;
    for found in [header.identify(report.len).map(drop), header.verify()] {
        match found {
            Ok(()) => {}
            Err(Error::Corrupt { offset, what }) => report.expect(false, offset, what),
            Err(_) => report.expect(false, 0, "the header is not one of a heap of this version"),
        }
    }
    let (free, live) = walk(Walk::new(source, fit, key), &header, &mut report)?;
    if !mutation::is(Mutation::CheckSkipsLists) {
        check_lists(&header, fit, &free, &mut report);
    }
    for slot in 0..ROOTS {
        let raw = header.root(slot);
        let lives = raw == 0 || live.get(&start_of(raw)) == Some(&raw) || mutation::is(Mutation::CheckSkipsRoots);
        report.expect(lives, (ROOT_TABLE + 16 * slot) as u64, "no block lives that has the handle of this root");
    }
    for (at, counted, found) in [
        (LIVE_BLOCKS, header.live_blocks(), report.live_blocks),
        (LIVE_BYTES, header.live_bytes(), report.live_bytes),
        (FREE_RUNS, header.free_runs(), report.free_runs),
        (FREE_BYTES, header.free_bytes(), report.free_bytes),
    ] {
        report.expect(counted == found || mutation::is(Mutation::CheckSkipsCounters), at as u64, "a counter is wrong");
    }
    let sum = report.header_bytes + report.allocated_bytes + report.free_bytes + report.lost_bytes;
    let len = report.len;
    report.expect(sum == len, 0, "the walk does not account for every byte once");
    Ok(report)
}

type Free = BTreeMap<u64, Run>;

/// From one end of the arena to the other. Returns the free runs, and handles of live blocks by their starts.
fn walk(mut walk: Walk<'_>, header: &Header, report: &mut Report) -> Result<(Free, HashMap<u64, u128>)> {
    let (mut free, mut live, mut tags) = (Free::new(), HashMap::new(), HashSet::new());
    let mut at = ARENA;
    let mut before: Option<Run> = None;
    let mut prev_len = Some(0);
    while at < walk.end {
        let Some(run) = walk.run(at)? else {
            let next = walk.next_run(at)?;
            report.expect(false, at, "a run should start here, and its header is none");
            report.lost_bytes += next - at;
            (at, before, prev_len) = (next, None, None);
            continue;
        };
        if mutation::is(Mutation::CheckSkipsNeighbours) {
            (before, prev_len) = (None, None);
        }
        report.expect(prev_len.is_none_or(|len| len == run.prev_len), at, "the length of the run before is wrong");
        match run.state {
            State::Free { .. } => {
                report.expect(!before.is_some_and(|run| run.is_free()), at, "two neighbours are free");
                report.expect(run.end() < walk.end, at, "the last run is free");
                report.free_runs += 1;
                report.free_bytes += run.len;
                report.largest_free = report.largest_free.max(run.len);
                free.insert(at, run);
            }
            State::Live { tag, .. } => {
                let block = Block::new(at + RUN_HEADER_LEN, run.block_len(), tag);
                let trusted = mutation::is(Mutation::CheckSkipsTags);
                let given_out = (walk.key..header.next_tag()).contains(&tag);
                report.expect(given_out || trusted, at, "a block's tag was never given out");
                report.expect(tags.insert(tag) || trusted, at, "two blocks have the same tag");
                report.live_blocks += 1;
                report.live_bytes += block.len();
                report.header_bytes += RUN_HEADER_LEN;
                report.allocated_bytes += run.len - RUN_HEADER_LEN;
                live.insert(block.start(), block.to_raw());
            }
        }
        (at, prev_len, before) = (run.end(), Some(run.len), Some(run));
    }
    report.expect(
        prev_len.is_none_or(|len| len == header.last_len()),
        LAST_LEN as u64,
        "the length of the last run is wrong",
    );
    Ok((free, live))
}

/// Each free run is in its list, once.
fn check_lists(header: &Header, fit: &dyn Fit, free: &Free, report: &mut Report) {
    let mut listed = HashSet::new();
    for bin in 0..BIN_COUNT {
        let (mut at, mut from) = (header.head(bin), 0);
        let head = (HEADS + 8 * bin) as u64;
        report.expect((at != 0) == header.has(bin), head, "the bit of this list of free runs is wrong");
        while at != 0 {
            let Some(Run { len, state: State::Free { next, back }, .. }) = free.get(&at).copied() else {
                report.expect(false, at, "a list of free runs leads here, and no free run starts here");
                break;
            };
            if !listed.insert(at) {
                report.expect(false, at, "a free run is in a list twice, or in two");
                break;
            }
            report.expect(fit.bin(len) == bin, at, "a free run is in the list of another length");
            report.expect(back == from, at, "links of free runs do not match");
            (at, from) = (next, at);
        }
    }
    for at in free.keys().filter(|at| !listed.contains(at)) {
        report.expect(false, *at, "a free run is in no list");
    }
}

pub(crate) fn blocks(source: &mut dyn Source, fit: &dyn Fit, key: u64) -> Result<Vec<Block>> {
    let mut walk = Walk::new(source, fit, key);
    let (mut at, mut found) = (ARENA, Vec::new());
    while at < walk.end {
        let run = walk.run(at)?;
        let run = run.ok_or(Error::Corrupt { offset: at, what: "a run should start here, and its header is none" })?;
        if let State::Live { tag, .. } = run.state {
            found.push(Block::new(at + RUN_HEADER_LEN, run.block_len(), tag));
        }
        at = run.end();
    }
    Ok(found)
}

/// Length of the longest free run: the longest in the last list that has one.
pub(crate) fn largest_free(source: &mut dyn Source, header: &Header, fit: &dyn Fit) -> Result<u64> {
    let Some(bin) = (0..BIN_COUNT).rev().find(|bin| header.has(*bin)) else { return Ok(0) };
    let corrupt =
        |offset| Error::Corrupt { offset, what: "a list of free runs leads here, and no free run starts here" };
    let end = source.len();
    let (mut at, mut longest) = (header.head(bin), 0);
    let look_at = if is_exact(bin) { 1 } else { header.free_runs() };
    for _ in 0..look_at {
        if at == 0 {
            break;
        }
        let mut bytes = [0; RUN_PREFIX];
        if at < ARENA || at.checked_add(RUN_PREFIX as u64).is_none_or(|to| to > end) {
            return Err(corrupt(at));
        }
        source.read(at, &mut bytes)?;
        match Run::decode(header.key(), at, &bytes, fit.granule(), end) {
            Some(Run { len, state: State::Free { next, .. }, .. }) => (at, longest) = (next, longest.max(len)),
            _ => return Err(corrupt(at)),
        }
    }
    Ok(longest)
}
