//! Reads runs, singly and in order, and verifies that the stack ends where the arena does.
//!
//! Without that verification a block is lost as follows:
//!
//! 1. A program pushes one byte onto the heap's stack.
//! 2. The heap opens.
//! 3. An allocation puts its run behind that byte, at an offset where a run cannot start. It
//!    returns `Ok` with a handle, and the run is durable.
//! 4. Every use of the handle fails, because its offset is not aligned. The block is lost.

use crate::error::{Error, Result};
use crate::header::Header;
use crate::layout::{ARENA, Geometry, RUN_HEADER_LEN, RUN_PREFIX, Run, State};
use crate::mutation::{self, Mutation};

/// A stack, or a transaction of one, to read from.
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

/// The run at `at`, to which metadata point.
pub(crate) fn run_at(source: &mut dyn Source, geometry: Geometry, at: u64) -> Result<Run> {
    let corrupt = |what| Err(Error::Corrupt { offset: at, what });
    let end = source.len();
    if geometry.run_of(at.saturating_add(RUN_HEADER_LEN), end).is_err() {
        return corrupt("metadata point here, but no run can start here");
    }
    match decode_at(source, geometry, at)? {
        Some(run) => Ok(run),
        None => corrupt("a run's header does not match its checksum"),
    }
}

/// The run at `at`; `None` if there is no valid header.
pub(crate) fn decode_at(
    source: &mut dyn Source,
    geometry: Geometry,
    at: u64,
) -> Result<Option<Run>> {
    let mut bytes = [0; RUN_PREFIX];
    source.read(at, &mut bytes)?;
    Ok(geometry.decode(at, &bytes, source.len()))
}

/// The free run at `at`, to which a list points, and its neighbours in the list: next, and back.
pub(crate) fn free_at(
    source: &mut dyn Source,
    geometry: Geometry,
    at: u64,
) -> Result<(Run, u64, u64)> {
    let run = run_at(source, geometry, at)?;
    match run.state {
        State::Free { next, back } => Ok((run, next, back)),
        State::Live { .. } => {
            let what = "a list of free runs points to a live block";
            Err(Error::Corrupt { offset: at, what })
        }
    }
}

const WINDOW: usize = 64 << 10;

/// Reads runs in order, from a window of 64 KiB.
pub(crate) struct Walk<'a> {
    source: &'a mut dyn Source,
    geometry: Geometry,
    pub(crate) end: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(source: &'a mut dyn Source, geometry: Geometry) -> Self {
        let end = source.len();
        Walk { source, geometry, end, window: Vec::new(), window_at: 0 }
    }

    /// The run at `at`; `None` if there is no valid header.
    pub(crate) fn run(&mut self, at: u64) -> Result<Option<Run>> {
        if self.end - at < RUN_PREFIX as u64 {
            return Ok(None);
        }
        let inside = at >= self.window_at
            && at + RUN_PREFIX as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            let len = usize::try_from(self.end - at).unwrap_or(WINDOW).min(WINDOW);
            self.window.resize(len, 0);
            self.source.read(at, &mut self.window)?;
            self.window_at = at;
        }
        let from = usize::try_from(at - self.window_at).expect("inside the window");
        let bytes = self.window[from..from + RUN_PREFIX].try_into().expect("as long as asked for");
        Ok(self.geometry.decode(at, bytes, self.end))
    }

    /// Offset of the first run behind `at`; the end if there is none.
    pub(crate) fn next_run(&mut self, mut at: u64) -> Result<u64> {
        loop {
            at = at.saturating_add(self.geometry.granule);
            if at >= self.end {
                return Ok(self.end);
            }
            if self.run(at)?.is_some() {
                return Ok(at);
            }
        }
    }

    /// The reason why there is no run at `at`, where one should start.
    pub(crate) fn why_no_run(&mut self, at: u64) -> Result<&'static str> {
        let mut bytes = [0; RUN_PREFIX];
        let there = (self.end - at).min(RUN_PREFIX as u64);
        let there = usize::try_from(there).expect("no more than a header and links");
        self.source.read(at, &mut bytes[..there])?;
        let whole = there as u64 >= RUN_HEADER_LEN;
        Ok(match self.geometry.decode(at, &bytes, u64::MAX).filter(|_| whole) {
            Some(_) => "the stack ends within this run",
            None => "a run should start here, but there is no valid run header",
        })
    }
}

/// Counts of the runs that a walk has read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) live_blocks: u64,
    pub(crate) live_bytes: u64,
    pub(crate) free_runs: u64,
    pub(crate) free_bytes: u64,
    /// Length of the run that was read last; 0 before the first.
    pub(crate) last_len: u64,
}

impl Counted {
    pub(crate) fn add(&mut self, run: &Run) {
        if run.is_free() {
            self.free_runs += 1;
            self.free_bytes += run.len;
        } else {
            self.live_blocks += 1;
            self.live_bytes += run.block().map_or(0, |block| block.len());
        }
        self.last_len = run.len;
    }

    /// Whether these are all runs that the header counts. Then the arena ends behind them.
    pub(crate) fn is_all(&self, header: &Header) -> bool {
        self.live_blocks == header.live_blocks()
            && self.live_bytes == header.live_bytes()
            && self.free_runs == header.free_runs()
            && self.free_bytes == header.free_bytes()
            && self.last_len == header.last_len()
    }
}

/// Refuses a stack that does not end where the arena does. Reads the last run; walks the arena only
/// to find the fault.
///
/// One case is not detected: a cut between two runs of equal length, if no counter, root or list of
/// the header reaches beyond it. [`check`](crate::check()) detects it.
///
/// # Errors
/// [`Error::StrayBytes`], [`Error::Corrupt`]; [`Error::Stack`] if the system cannot read.
pub(crate) fn verify_end(
    source: &mut dyn Source,
    header: &Header,
    geometry: Geometry,
) -> Result<()> {
    if mutation::is(Mutation::OpenBelievesTheEnd) {
        return Ok(());
    }
    let end = source.len();
    let header_fits = header.least_len() <= u128::from(end - ARENA) && header.reach() < end;
    if header_fits && last_run_ends(source, header, geometry)? {
        return Ok(());
    }
    Err(blame(Walk::new(source, geometry), header)?)
}

/// Whether a live run of the length in the header ends where the stack does.
pub(crate) fn last_run_ends(
    source: &mut dyn Source,
    header: &Header,
    geometry: Geometry,
) -> Result<bool> {
    let (end, len) = (source.len(), header.last_len());
    let Some(at) = end.checked_sub(len).filter(|at| *at >= ARENA) else { return Ok(false) };
    if len == 0 {
        return Ok(end == ARENA);
    }
    if len < RUN_PREFIX as u64 || !(at - ARENA).is_multiple_of(geometry.granule) {
        return Ok(false);
    }
    let run = decode_at(source, geometry, at)?;
    Ok(run.is_some_and(|run| run.len == len && !run.is_free()))
}

/// Finds the fault in a stack that does not end where the arena does. Walks the arena.
pub(crate) fn blame(mut walk: Walk<'_>, header: &Header) -> Result<Error> {
    let (mut at, mut counted) = (ARENA, Counted::default());
    while at < walk.end {
        if counted.is_all(header) {
            return Ok(Error::StrayBytes { offset: at, len: walk.end - at });
        }
        let Some(run) = walk.run(at)? else {
            return Ok(Error::Corrupt { offset: at, what: walk.why_no_run(at)? });
        };
        counted.add(&run);
        at = run.end();
    }
    Ok(Error::Corrupt {
        offset: at,
        what: "the stack ends here, but the heap's header counts or names more",
    })
}
