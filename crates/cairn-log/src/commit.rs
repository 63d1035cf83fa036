//! The writer: how a record gets from `append` to the disk, and who waits for whom.
//!
//! ```text
//!  append -> reserve -> copy -> publish          under the lock, in memory
//!  sync   -> lead or wait -> seal -> write -> barrier -> durable watermark -> wake
//! ```
//!
//! Group commit is greedy: whoever finds no flush running leads one in its own thread and takes everything published with it; those
//! who come meanwhile wait, and one of them leads the next.
//!
//! Invariants:
//! 1. `durable <= flushed <= appended`, all exclusive, each on a group boundary except `appended`.
//! 2. A group is sealed, and its end taken as what the barrier covers, *before* its write begins. Were the end read after
//!    the barrier: 1. A's barrier runs, 2. B appends, 3. A reads the end and acknowledges B, 4. power fails, B is gone (L01).
//! 3. `busy` marks the one thread that does I/O; it holds no lock while it does, and clears the mark also when it panics (L36, L37).
//! 4. `frozen` keeps appends out while positions are being decided: rotation and both truncations.
//! 5. After a failure nothing above `durable` is ever acknowledged by this handle, except what a barrier of its own
//!    can still cover when only a *write* behind it failed. No position at or above the failure is handed out again.

use std::io::IoSlice;
use std::path::PathBuf;

use cairn_io::{File, Fs, Store};

use crate::Lsn;
use crate::error::{Error, Failure, Result};
use crate::format::{FrameKind, frame_len, push_frame, restamp_frame, seal_len};
use crate::mutation::{self, Mutation};
use crate::options::{Options, Stats};
use crate::state::{Callback, Opened, Sealed, State};
use crate::sync::{Arc, Event, Listener, Mutex, MutexGuard, PoisonError, thread};

/// Where the segments live.
#[derive(Clone, Debug)]
pub(crate) enum Home {
    /// One file per segment in a directory, which is locked as long as this lives.
    Directory { fs: Arc<dyn Fs>, dir: PathBuf, _lock: Arc<dyn File> },
    /// One unbounded segment in a store.
    Store { store: Arc<dyn Store> },
}

/// Space is reserved this many bytes at a time.
pub(crate) const RESERVE: u64 = 1 << 20;

/// So much of what is reserved is left for the log's own notes: on a full disk the oldest records can be dropped, and the log closed.
pub(crate) const NOTES: u64 = 4 << 10;

/// Bytes of one group must fit its header's length field, with room to spare.
const GROUP_MAX: usize = (1 << 31) + (1 << 20);

pub(crate) type Guard<'a> = MutexGuard<'a, State>;

/// One open log.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) home: Home,
    state: Mutex<State>,
    /// Notified at every change that anybody may wait for.
    pub(crate) progress: Event,
}

/// How far a flush goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    Flushed,
    Durable,
}

impl Core {
    pub(crate) fn new(options: Options, home: Home, at: Opened) -> Self {
        Core { options, home, state: Mutex::new(State::new(at)), progress: Event::new() }
    }

    /// The state, also after a panic under the lock, which then counts as a failure of the writer.
    pub(crate) fn lock(&self) -> Guard<'_> {
        self.state.lock().unwrap_or_else(|poisoned: PoisonError<Guard<'_>>| {
            let mut guard = poisoned.into_inner();
            guard.stop(Failure::Panicked, None);
            guard.frozen = false;
            guard
        })
    }

    pub(crate) fn wait<'a>(&'a self, guard: Guard<'a>) -> Guard<'a> {
        let listener = self.progress.listen();
        drop(guard);
        listener.wait();
        self.lock()
    }

    /// Does I/O without the lock, as the only one who does.
    pub(crate) fn exclusive<'a, R>(&'a self, mut guard: Guard<'a>, io: impl FnOnce() -> R) -> (Guard<'a>, R) {
        assert!(!guard.busy, "only one thread does I/O at a time");
        guard.busy = true;
        drop(guard);
        let unwinding = Unwinding { core: self };
        let result = io();
        std::mem::forget(unwinding);
        let mut guard = self.lock();
        guard.busy = false;
        self.progress.notify(usize::MAX);
        (guard, result)
    }

    /// Releases the lock and tells those whose callbacks are due.
    pub(crate) fn settle(&self, mut guard: Guard<'_>) {
        let due = guard.due_callbacks();
        drop(guard);
        for (callback, result) in due {
            // A callback is the caller's code: what it breaks is not the log's, and the others are still to be called (L35).
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| callback(result)));
        }
    }

    /// Appends one record; returns its position and number, and how many cuts there had been.
    pub(crate) fn append(&self, payload: &[u8]) -> Result<(Lsn, u64, u64)> {
        let max = self.options.max_record_size;
        if payload.len() as u64 > max {
            return Err(Error::TooLarge { len: payload.len() as u64, max });
        }
        let mut guard = self.reserve(frame_len(payload.len()))?;
        let state = &mut *guard;
        let (lsn, seq) = state.begin_record();
        push_frame(&mut state.buffer.bytes, FrameKind::Record, payload, lsn, state.active.seed());
        state.publish(frame_len(payload.len()), 1, payload.len() as u64);
        Ok((Lsn(lsn), seq, state.cut_count))
    }

    /// Appends several records into one group, which recovery keeps or drops as a whole. Returns the first and last
    /// position and the first number.
    pub(crate) fn append_batch(&self, frames: &mut [u8], count: u64, payload_bytes: u64) -> Result<(Lsn, Lsn, u64)> {
        if frames.len() > GROUP_MAX {
            return Err(Error::TooLarge { len: frames.len() as u64, max: GROUP_MAX as u64 });
        }
        let mut guard = self.reserve(frames.len())?;
        let state = &mut *guard;
        let (first, seq) = state.begin_record();
        let (mut at, mut last) = (0, first);
        while at < frames.len() {
            last = first + at as u64;
            let len = restamp_frame(&mut frames[at..], last, state.active.seed());
            at += len.expect("frames were just encoded");
        }
        state.buffer.bytes.extend_from_slice(frames);
        state.publish(frames.len(), count, payload_bytes);
        Ok((Lsn(first), Lsn(last), seq))
    }

    /// Waits until `len` bytes of frames can be appended, rotating, flushing and reserving space as needed. Fails before anything is
    /// reserved, so that the caller may free space and try again.
    fn reserve(&self, len: usize) -> Result<Guard<'_>> {
        let mut guard = self.lock();
        loop {
            guard.check_writable()?;
            if guard.frozen {
                guard = self.wait(guard);
                continue;
            }
            let header = guard.buffer.overhead();
            let end = guard.appended.saturating_add((header + len) as u64);
            let buffered = guard.buffer.bytes.len() + header + len;
            if self.must_rotate(&guard, end) {
                guard = self.when_idle(guard);
                // While this thread waited, another one may have rotated.
                if !guard.busy && !guard.frozen && guard.check_writable().is_ok() && self.must_rotate(&guard, end) {
                    guard = self.rotate(guard)?;
                }
            } else if buffered > self.options.buffer_size.min(GROUP_MAX) && guard.buffer.has_data() {
                if guard.busy {
                    guard = self.wait(guard);
                } else {
                    let (relocked, result) = self.write_out(guard, Goal::Flushed);
                    result?;
                    guard = relocked;
                }
            } else if end + NOTES > guard.reserved {
                if guard.busy {
                    guard = self.wait(guard);
                } else {
                    let (relocked, result) = self.reserve_space(guard, end + NOTES);
                    result?;
                    guard = relocked;
                }
            } else {
                return Ok(guard);
            }
        }
    }

    /// Waits once if somebody does I/O.
    fn when_idle<'a>(&'a self, guard: Guard<'a>) -> Guard<'a> {
        if guard.busy || guard.frozen { self.wait(guard) } else { guard }
    }

    fn must_rotate(&self, state: &State, end: u64) -> bool {
        let Home::Directory { .. } = self.home else {
            return false;
        };
        let base = state.active.file.superblock.base_lsn;
        // An empty segment takes whatever comes: a record larger than a segment gets one of its own size.
        state.appended > base
            && state.active.offset(end) + seal_len(state.index.entries.len()) as u64 > self.options.segment_size
    }

    /// Reserves space of the active segment up to `end`, and a good piece further if there is that much.
    pub(crate) fn reserve_space<'a>(&'a self, guard: Guard<'a>, end: u64) -> (Guard<'a>, Result<()>) {
        let from = guard.reserved;
        if end <= from {
            return (guard, Ok(()));
        }
        let active = guard.active.clone();
        let step = match self.home {
            Home::Directory { .. } => RESERVE.min(self.options.segment_size),
            Home::Store { .. } => RESERVE,
        };
        let further = end.max(from.saturating_add(step));
        let (mut guard, result) = self.exclusive(guard, || {
            let reserve = |to: u64| active.store.preallocate(active.offset(from), to - from).map(|()| to);
            reserve(further).or_else(|_| reserve(end))
        });
        // The active segment has not changed: whoever changes it is busy or finds nobody busy.
        match result {
            Ok(to) => {
                guard.reserved = guard.reserved.max(to);
                (guard, Ok(()))
            }
            Err(e) => (guard, Err(Error::io("reserve space in", &active.file.path, e))),
        }
    }

    /// Leads one flush of everything published. Nobody is busy.
    pub(crate) fn write_out<'a>(&'a self, mut guard: Guard<'a>, goal: Goal) -> (Guard<'a>, Result<()>) {
        let sealed = guard.seal();
        let (flushed, durable) = (guard.flushed, guard.durable);
        let end = sealed.as_ref().map_or(flushed, |s| s.end);
        let active = guard.active.clone();
        let write = |s: &Sealed| active.store.write_at(active.offset(s.start), &s.bytes);
        let retry = mutation::is(Mutation::RetryFailedSync);
        let (mut guard, result) = self.exclusive(guard, || match (&sealed, goal) {
            (None, Goal::Flushed) => Ok(()),
            (Some(s), Goal::Flushed) if mutation::is(Mutation::IgnoreFailedWrite) => write(s).or(Ok(())),
            (Some(s), Goal::Flushed) => write(s).map_err(|e| ("write to", e)),
            (None, Goal::Durable) => active.store.sync().map_err(|e| ("sync", e)),
            // One combined call covers what it writes and nothing else: only right when all the rest is durable.
            (Some(s), Goal::Durable) if flushed == durable => {
                let slices = [IoSlice::new(&s.bytes)];
                let wrote = active.store.write_durable(active.offset(s.start), &slices);
                let wrote = if retry { Ok(()) } else { wrote };
                wrote.map_err(|e| ("write durably to", e))
            }
            (Some(s), Goal::Durable) => {
                write(s).map_err(|e| ("write to", e)).and_then(|()| active.store.sync().map_err(|e| ("sync", e)))
            }
        });
        let result = result.map_err(|(op, e)| Error::io(op, &active.file.path, e));
        if let Err(error) = &result {
            let start = sealed.as_ref().map_or(flushed, |s| s.start);
            let syncable = (goal == Goal::Flushed).then_some(start);
            let poisoned = guard.stop(Failure::from(error.clone()), syncable);
            return (guard, Err(poisoned));
        }
        guard.flushed = guard.flushed.max(end);
        if goal == Goal::Durable {
            let reserved = mutation::is(Mutation::AcknowledgeReservation).then_some(guard.appended);
            guard.durable = guard.durable.max(reserved.unwrap_or(end));
            guard.stats.barriers += 1;
        }
        if let Some(sealed) = sealed {
            guard.stats.bytes_written += sealed.bytes.len() as u64;
            guard.recycle(sealed.bytes, self.options.buffer_size);
        }
        (guard, Ok(()))
    }

    /// Leads or waits until everything below `target` has reached the goal.
    fn reach<'a>(&'a self, mut guard: Guard<'a>, target: u64, goal: Goal) -> Result<()> {
        let cut_count = guard.cut_count;
        let result = loop {
            if guard.cut_count != cut_count {
                // Everything was durable when the log was cut; what lay above the cut is gone, and its positions are used again.
                break Ok(());
            }
            let reached = match goal {
                Goal::Flushed => guard.flushed,
                Goal::Durable => guard.durable,
            };
            if reached >= target {
                break Ok(());
            }
            if let Some(stop) = guard.stopped.clone() {
                if goal == Goal::Durable && target <= stop.syncable && !guard.busy {
                    guard = self.sync_prefix(guard, stop.syncable);
                    continue;
                }
                if guard.busy && target <= stop.syncable {
                    guard = self.wait(guard);
                    continue;
                }
                break Err(Error::InDoubt { lsn: Lsn(reached), durable: Lsn(guard.durable), cause: stop.cause });
            }
            if guard.closed && !guard.busy && guard.appended < target {
                break Err(Error::Closed);
            }
            if guard.busy || guard.frozen {
                guard = self.wait(guard);
                continue;
            }
            let (relocked, result) = self.write_out(guard, goal);
            guard = relocked;
            if result.is_err() && guard.stopped.is_none() {
                break result;
            }
        };
        self.settle(guard);
        result
    }

    /// After a failed *write*: a barrier for what was written before it.
    fn sync_prefix<'a>(&'a self, guard: Guard<'a>, syncable: u64) -> Guard<'a> {
        let store = guard.active.store.clone();
        let (mut guard, result) = self.exclusive(guard, || store.sync());
        match result {
            Ok(()) => guard.durable = guard.durable.max(syncable),
            Err(_) => {
                let durable = guard.durable;
                if let Some(stop) = &mut guard.stopped {
                    stop.syncable = durable;
                }
            }
        }
        guard
    }

    /// Returns once everything appended before the call is with the operating system.
    pub(crate) fn flush(&self) -> Result<()> {
        let guard = self.lock();
        let target = guard.appended;
        self.reach(guard, target, Goal::Flushed)
    }

    /// Returns once everything appended before the call is durable.
    pub(crate) fn sync(&self) -> Result<()> {
        let guard = self.lock();
        let target = guard.appended;
        self.reach(guard, target, Goal::Durable)
    }

    /// Returns once the record at `lsn` and everything before it is durable.
    pub(crate) fn sync_to(&self, lsn: Lsn) -> Result<()> {
        let guard = self.lock();
        if lsn.0 >= guard.appended {
            if mutation::is(Mutation::SyncBeyondEnd) {
                return Ok(());
            }
            return Err(guard.out_of_range(lsn));
        }
        self.reach(guard, lsn.0 + 1, Goal::Durable).map_err(|error| match error {
            Error::InDoubt { durable, cause, .. } => Error::InDoubt { lsn, durable, cause },
            other => other,
        })
    }

    /// Whether the record at `lsn`, appended after `cut_count` cuts, is durable, or will never be.
    pub(crate) fn outcome(&self, lsn: Lsn, cut_count: u64) -> Option<Result<()>> {
        self.lock().outcome(lsn, cut_count)
    }

    /// Returns once that is known.
    pub(crate) fn settled(&self, lsn: Lsn, cut_count: u64) -> Result<()> {
        let guard = self.lock();
        match guard.outcome(lsn, cut_count) {
            Some(outcome) => outcome,
            None => self.reach(guard, lsn.0 + 1, Goal::Durable),
        }
    }

    /// Asks for durability of the record at `lsn` without waiting for it: a thread of the log's own sees to it.
    pub(crate) fn request(self: &Arc<Self>, lsn: Lsn) -> Result<()> {
        let mut guard = self.lock();
        // A cut may have taken it back already.
        let end = guard.appended;
        guard.requested = guard.requested.max(lsn.0 + 1).min(end);
        if guard.committer.is_none() {
            let core = self.clone();
            let spawned = thread::Builder::new().name("cairn-commit".into()).spawn(move || core.commit_requests());
            guard.committer = Some(spawned.map_err(|e| Error::io("start a thread for", &self.path(), e))?);
        }
        drop(guard);
        self.progress.notify(usize::MAX);
        Ok(())
    }

    /// Calls back once the record at `lsn` is durable or in doubt; at once when it is already.
    pub(crate) fn on_durable(&self, lsn: Lsn, cut_count: u64, callback: Callback) {
        let mut guard = self.lock();
        guard.callbacks.push((lsn, cut_count, callback));
        self.settle(guard);
    }

    fn commit_requests(&self) {
        loop {
            let mut guard = self.lock();
            while guard.requested <= guard.durable && !guard.closed && guard.stopped.is_none() {
                guard = self.wait(guard);
            }
            let target = guard.requested;
            let done = guard.stopped.is_some() || (guard.closed && target <= guard.durable);
            if done {
                self.settle(guard);
                return;
            }
            // An error is in the state, where every ticket finds it.
            let _ = self.reach(guard, target, Goal::Durable);
        }
    }

    /// Ends writing: everything appended becomes durable, and a mark says so on disk.
    pub(crate) fn close(&self) -> Result<()> {
        let guard = self.freeze()?;
        let (mut guard, result) = self.write_mark(guard);
        guard.frozen = false;
        guard.closed = true;
        self.progress.notify(usize::MAX);
        self.settle(guard);
        self.join_committer();
        result
    }

    /// What `Drop` does: hands what is buffered to the operating system, as well as that goes, and promises nothing.
    pub(crate) fn abandon(&self) {
        let _ = self.flush();
        self.lock().closed = true;
        self.progress.notify(usize::MAX);
        self.join_committer();
    }

    fn join_committer(&self) {
        let committer = self.lock().committer.take();
        if let Some(committer) = committer {
            // It catches what callbacks do; a panic of its own is in the state already.
            let _ = committer.join();
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let guard = self.lock();
        Stats { buffered_bytes: guard.buffer.bytes.len() as u64, ..guard.stats }
    }

    /// The directory, or the name of what stands in for it in messages.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.home {
            Home::Directory { dir, .. } => dir.clone(),
            Home::Store { .. } => STORE_NAME.into(),
        }
    }
}

/// How a store is called in messages.
pub(crate) const STORE_NAME: &str = "the store";

/// While a thread does I/O for all: if it panics, the writer stops and nobody hangs.
struct Unwinding<'a> {
    core: &'a Core,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        let mut guard = self.core.lock();
        guard.stop(Failure::Panicked, None);
        guard.busy = false;
        guard.frozen = false;
        self.core.progress.notify(usize::MAX);
        self.core.settle(guard);
    }
}
