//! The writer: how a record gets from `append` to the disk, and who waits for whom.
//!
//! ```text
//!  append -> place -> encode -> publish                              one atomic operation each, no lock
//!  commit -> wait or lead -> close -> write -> barrier -> cover      by one thread for all who wait
//! ```
//!
//! Group commit is greedy: whoever finds nobody leading the [gate](cairn_io::gate) leads one flush in its own thread and takes
//! everything published with it; those who come meanwhile wait, and one of them leads the next. A second flush beside the first would split what one
//! can carry. Only full slots have nothing more to gather: who leads for their sake takes no others, and passes on the lead before its write.
//!
//! Invariants, besides those of the [ring](crate::ring):
//! 1. `durable <= flushed <= end`, all exclusive, each on a group boundary.
//! 2. Only who leads begins I/O or changes positions, except that appends take places in the open slot, and whoever holds the lock may
//!    close it and open the next. No lock is held during I/O. Flushes of full slots may be in flight without anybody leading; everything else that
//!    writes to the log, or decides what is in it, waits until none is.
//! 3. `frozen` keeps slots closed while positions are being decided: rotation and both truncations.
//! 4. After a failure nothing above `durable` is ever acknowledged by this handle, except what a barrier of its own
//!    can still cover when only a *write* behind it failed, and what was in flight before it. No position at or above the failure is handed out again.
//! 5. Flushes in flight are one behind the other, and take effect in that order, whichever is done first: `flushed`, `durable`, the gate, and
//!    everything that is counted. A group says of those before it what was known when its flush began, so never that something in flight is durable. What a crash
//!    leaves of two of them is at worst this: 1. *n* and *n + 1* are in flight, 2. *n + 1* is on the disk, its groups verify, and nobody was told of
//!    them, 3. power fails before *n* is. Recovery finds a hole at *n*, above every watermark: a torn tail, with groups behind it that were never
//!    acknowledged, as one write of several groups can leave it as well. It cuts at *n*, and no later generation takes what is behind for its own.

use std::path::PathBuf;

use cairn_io::gate::{Gate, Lead, Turn};
use cairn_io::{File, Fs, Store};

use crate::Lsn;
use crate::error::{Error, Failure, Result};
use crate::flush::Goal;
use crate::format::{ALIGN, FrameKind, GROUP_HEADER_LEN, HeadMark, frame_len, seal_len, write_frame};
use crate::leading::Leading;
use crate::mutation::{self, Mutation};
use crate::options::{Options, Stats};
use crate::ring::{Filled, Opening, Placed, Ring};
use crate::state::{Callback, Opened, Pending, Place, State};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use crate::sync::{Arc, Event, Listener, Mutex, MutexGuard, PoisonError, Weak, Word, thread};

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

/// Bytes of a note and a mark behind it. A segment has room for them as for its seal.
pub(crate) const NOTE_LEN: u64 = (2 * GROUP_HEADER_LEN + frame_len(HeadMark::LEN)) as u64;

/// Bytes of one group must fit its header's length field, with room to spare.
const GROUP_MAX: usize = (1 << 31) + (1 << 20);

/// A group of so many bytes waits for nobody.
const GATHERED: u64 = 256 << 10;

/// Blocks larger than this are not aligned to.
const BLOCK_MAX: u64 = 4096;

pub(crate) type Guard<'a> = MutexGuard<'a, State>;

/// One open log.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) home: Home,
    state: Mutex<State>,
    pub(crate) ring: Ring,
    pub(crate) gate: Gate,
    /// Notified when whoever led is done, and when the log is thawed.
    pub(crate) progress: Event,
    requests: Requests,
    /// Records in the open slot that came in a batch behind its first one, or are about to; about that many, because a batch may come while the slot is being closed.
    in_company: AtomicU64,
    /// Changes when there is something to prepare.
    pub(crate) wanted: Word,
    /// For threads of the log's own.
    pub(crate) myself: Weak<Core>,
}

/// Durability that somebody asked for without waiting, and the thread that sees to it.
#[derive(Debug, Default)]
struct Requests {
    /// Slots below this are asked for.
    slots: AtomicU64,
    /// Whether the thread sleeps, or is about to.
    idle: AtomicBool,
    changed: Word,
    /// Changes when a slot is full while a flush is in flight.
    full: Word,
}

/// Where a record went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) lsn: Lsn,
    pub(crate) seq: u64,
    /// The slot it is in.
    pub(crate) slot: u64,
}

/// Whether an append may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Wait,
    Refuse,
}

/// Why no slot can be opened.
pub(crate) enum Blocked {
    /// The segment is full.
    Segment,
    /// Space has to be reserved up to this position.
    Space(u64),
    /// Every slot is on its way to the disk.
    Ring,
    /// Zeros are being written where the slot would go.
    Zeros,
}

impl Core {
    pub(crate) fn new(options: Options, home: Home, at: Opened) -> Arc<Self> {
        let ring = Ring::new(options.buffers, options.buffer_size);
        let state = State::new(at);
        let gate = Gate::new();
        if let Some(lead) = gate.try_lead() {
            lead.cover(state.written);
        }
        Arc::new_cyclic(|myself| Core {
            options,
            home,
            state: Mutex::new(state),
            ring,
            gate,
            progress: Event::new(),
            requests: Requests::default(),
            in_company: AtomicU64::new(0),
            wanted: Word::default(),
            myself: myself.clone(),
        })
    }

    /// The state, also after a panic under the lock, which then counts as a failure of the writer.
    pub(crate) fn lock(&self) -> Guard<'_> {
        self.state.lock().unwrap_or_else(|poisoned: PoisonError<Guard<'_>>| {
            let mut guard = poisoned.into_inner();
            self.stop(&mut guard, Failure::Panicked, None);
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

    /// In a frozen log: waits for what is being prepared in the active segment.
    pub(crate) fn when_nothing_is_prepared<'a>(&'a self, mut guard: Guard<'a>) -> Guard<'a> {
        while guard.prepared.changes_segment() {
            guard = self.wait(guard);
        }
        guard
    }

    /// Leads as soon as nobody else does.
    pub(crate) fn claim(&self) -> Leading<'_> {
        Leading::new(self, self.gate.claim())
    }

    /// Stops the writer for good; the first cause stays. What is not written yet never will be. Slots below `syncable` may still become durable.
    pub(crate) fn stop(&self, guard: &mut Guard<'_>, failure: Failure, syncable: Option<u64>) -> Error {
        let syncable = syncable.unwrap_or(self.gate.covered());
        let stop = guard.stopped.get_or_insert_with(|| crate::state::Stop { cause: Arc::new(failure), syncable });
        // Of several flushes in flight the later one may have failed first.
        stop.syncable = stop.syncable.min(syncable);
        let error = Error::Poisoned { cause: stop.cause.clone() };
        self.close_slot(guard, false);
        self.gate.end();
        error
    }

    /// Where the next record goes, or the group that it begins.
    pub(crate) fn end(&self, guard: &Guard<'_>) -> Place {
        match self.open_slot(guard) {
            Some(open) => Place { lsn: open.end_lsn, seq: open.first_seq + open.records },
            None => guard.end,
        }
    }

    /// What the open slot holds, if it holds something.
    pub(crate) fn open_slot(&self, guard: &Guard<'_>) -> Option<Filled> {
        if guard.open { self.ring.open_slot().filter(|open| open.records > 0) } else { None }
    }

    /// Appends one record.
    pub(crate) fn append(&self, payload: &[u8], patience: Patience) -> Result<Appended> {
        let max = self.options.max_record_size;
        if payload.len() as u64 > max {
            return Err(Error::TooLarge { len: payload.len() as u64, max });
        }
        let mut placed = self.place(frame_len(payload.len()), 1, patience)?;
        if !mutation::is(Mutation::PublishBeforeCopy) {
            write_frame(&mut placed.part, FrameKind::Record, payload, placed.lsn, placed.seed);
        }
        placed.part.publish();
        Ok(Appended { lsn: Lsn(placed.lsn), seq: placed.seq, slot: placed.slot })
    }

    /// Appends several records into one group, which recovery keeps or drops as a whole. Returns where the first one went, and where the last one starts.
    pub(crate) fn append_batch(&self, payloads: &[&[u8]]) -> Result<(Appended, Lsn)> {
        let max = self.options.max_record_size;
        let mut len = 0usize;
        for payload in payloads {
            if payload.len() as u64 > max {
                return Err(Error::TooLarge { len: payload.len() as u64, max });
            }
            len = len.saturating_add(frame_len(payload.len()));
        }
        if len > GROUP_MAX {
            return Err(Error::TooLarge { len: len as u64, max: GROUP_MAX as u64 });
        }
        let count = payloads.len() as u64;
        // Before the records are there to be counted: a leader that took each of them for somebody who came would flush without those who do come.
        self.in_company.fetch_add(count.saturating_sub(1), Ordering::AcqRel);
        let mut placed = self.place(len, count, Patience::Wait)?;
        let mut rest = &mut placed.part[..];
        let (mut next, mut last) = (placed.lsn, placed.lsn);
        for payload in payloads {
            let (frame, behind) = rest.split_at_mut(frame_len(payload.len()));
            write_frame(frame, FrameKind::Record, payload, next, placed.seed);
            (last, next, rest) = (next, next + frame.len() as u64, behind);
        }
        placed.part.publish();
        Ok((Appended { lsn: Lsn(placed.lsn), seq: placed.seq, slot: placed.slot }, Lsn(last)))
    }

    fn place(&self, len: usize, records: u64, patience: Patience) -> Result<Placed<'_>> {
        match self.ring.place(len, records) {
            Some(placed) => Ok(placed),
            None => loop {
                match self.make_room(len, records, patience) {
                    // What is kept of dropped segments is space, too.
                    Err(Error::Full { .. }) if self.remove_dropped() => {}
                    made => return made,
                }
            },
        }
    }

    /// Opens a slot that has room, after rotating, reserving space and writing as needed. Fails before anything is
    /// placed, so that the caller may free space and try again.
    #[cold]
    fn make_room(&self, len: usize, records: u64, patience: Patience) -> Result<Placed<'_>> {
        let mut guard = self.lock();
        loop {
            guard.check_writable()?;
            if guard.frozen {
                if patience == Patience::Refuse {
                    return Err(Error::WouldBlock);
                }
                guard = self.wait(guard);
                continue;
            }
            if let Some(placed) = self.ring.place(len, records) {
                self.write_behind(guard);
                return Ok(placed);
            }
            let blocked = match self.turn_over(&mut guard, len) {
                Ok(()) => continue,
                Err(_) if patience == Patience::Refuse => return Err(Error::WouldBlock),
                Err(blocked) => blocked,
            };
            if let Blocked::Zeros = blocked {
                guard.prepared.note_wait();
                guard = self.wait(guard);
                continue;
            }
            let oldest = guard.written;
            match blocked {
                Blocked::Ring => self.write_behind(guard),
                Blocked::Segment | Blocked::Space(_) | Blocked::Zeros => drop(guard),
            }
            let leading = match blocked {
                Blocked::Ring => match self.gate.wait(oldest) {
                    Turn::Lead(lead) => Leading::new(self, lead),
                    Turn::Covered | Turn::Ended => {
                        guard = self.lock();
                        continue;
                    }
                },
                Blocked::Segment | Blocked::Space(_) | Blocked::Zeros => self.claim(),
            };
            guard = self.lock();
            guard.check_writable()?;
            // While this thread waited, another one may have seen to it.
            guard = match self.turn_over(&mut guard, len) {
                Ok(()) | Err(Blocked::Zeros) => guard,
                Err(Blocked::Segment) => leading.rotate(guard)?,
                Err(Blocked::Space(end)) => {
                    let (guard, result) = leading.reserve_space(guard, end);
                    result?;
                    guard
                }
                Err(Blocked::Ring) => {
                    let asked = self.requests.slots.load(Ordering::Acquire) > self.gate.covered();
                    let goal = if asked || self.block(&guard) > 1 { Goal::Durable } else { Goal::Flushed };
                    let (guard, result) = leading.flush_out(guard, goal, oldest);
                    result?;
                    guard
                }
            };
            leading.finish(guard);
            guard = self.lock();
        }
    }

    /// Has the full slots written by threads of the log's own, as soon as they are full, where that takes no detour through the page cache: copying
    /// there costs more than encoding the records did. Without the threads, whoever finds no slot free writes them.
    fn write_behind(&self, mut guard: Guard<'_>) {
        let Some(full) = guard.pending.back().map(|full| full.filled.number) else { return };
        let in_air = guard.in_air();
        if in_air > 0 {
            // Who leads may be waiting until nothing is in flight, or until what it waits for is full.
            self.progress.notify(usize::MAX);
        }
        if self.block(&guard) == 1 || !self.works_in_background() {
            return;
        }
        let helpers = guard.helpers.len();
        if helpers < in_air && helpers + 1 < self.options.flushes_in_flight && !guard.closed {
            let core = self.myself.upgrade();
            let spawned = core
                .map(|core| thread::Builder::new().name("cairn-flush".into()).spawn(move || core.flush_full_slots()));
            guard.helpers.extend(spawned.and_then(std::io::Result::ok));
        }
        drop(guard);
        let _ = self.request(full);
        if in_air > 0 && helpers > 0 {
            self.requests.full.bump();
            self.requests.full.wake_one();
        }
    }

    /// Leads whenever there are full slots while a flush is in flight.
    fn flush_full_slots(&self) {
        loop {
            let seen = self.requests.full.load();
            let guard = self.lock();
            if guard.closed || guard.stopped.is_some() {
                return;
            }
            let full = guard.pending.back().filter(|_| guard.in_air() > 0).map(|full| full.filled.number);
            drop(guard);
            match full {
                Some(slot) => {
                    if let Turn::Lead(lead) = self.gate.wait(slot) {
                        self.lead_through(lead, slot);
                    }
                }
                None => self.requests.full.wait(seen),
            }
        }
    }

    /// How many slots can be written beside other flushes; they hold what is waited for, and are complete or will soon be.
    ///
    /// They end at a block boundary, as full ones do: what follows shares no block with them. What comes before them is durable, or in flight in the same
    /// way: otherwise the barrier of this flush would have to cover that as well.
    pub(crate) fn full_slots(&self, guard: &Guard<'_>, through: u64) -> usize {
        let block = self.block(guard);
        let alone = block == 1 || self.options.flushes_in_flight == 1;
        if alone || !guard.mark.is_empty() || guard.flushed.lsn > guard.durable {
            return 0;
        }
        let ready = |pending: &&Pending| pending.filled.number <= through || self.is_complete(pending.filled.number);
        let ready = guard.pending.iter().take_while(ready);
        let last = ready.enumerate().last().filter(|(_, last)| {
            last.filled.number >= through && guard.active.offset(last.end().lsn).is_multiple_of(block)
        });
        last.map_or(0, |(index, _)| index + 1)
    }

    /// Whether a closed slot has everything that was reserved in it, or never will.
    pub(crate) fn is_complete(&self, slot: u64) -> bool {
        self.ring.slot(slot).is_complete() != Ok(false)
    }

    /// Closes the open slot as full, unless it has room for `len` bytes of frames, and opens one that has.
    fn turn_over(&self, guard: &mut Guard<'_>, len: usize) -> std::result::Result<(), Blocked> {
        if guard.open && self.ring.has_room(len) {
            return Ok(());
        }
        self.close_slot(guard, true);
        self.try_open(guard, len)
    }

    /// Closes the open slot, if there is one. A full one ends at a block boundary, so that the next one can be written at the same time.
    pub(crate) fn close_slot(&self, guard: &mut Guard<'_>, full: bool) {
        if !std::mem::take(&mut guard.open) {
            return;
        }
        let filled = self.ring.close();
        self.in_company.store(0, Ordering::Relaxed);
        if filled.records == 0 {
            guard.next_slot = filled.number;
            return;
        }
        let end = guard.active.offset(filled.end_lsn);
        let full = full && !mutation::is(Mutation::SharedBlockInFlight);
        let padding = if full { end.next_multiple_of(self.block(guard)) - end } else { 0 };
        let pending = Pending { filled, padding };
        guard.end = pending.end();
        if mutation::is(Mutation::OverlapOversize) {
            guard.end.lsn = guard.end.lsn.min(filled.lsn + self.options.buffer_size as u64);
        }
        guard.index.note(filled.lsn, filled.first_seq);
        guard.marked = false;
        guard.stats.records += filled.records;
        guard.stats.frame_bytes += filled.end_lsn - filled.lsn - GROUP_HEADER_LEN as u64;
        guard.stats.groups += 1;
        guard.pending.push_back(pending);
    }

    fn works_in_background(&self) -> bool {
        matches!(&self.home, Home::Directory { fs, .. } if fs.background())
    }

    /// The unit in which the active segment is best written.
    pub(crate) fn block(&self, state: &State) -> u64 {
        let block = state.active.store.block_size() as u64;
        if block.is_power_of_two() && block <= BLOCK_MAX { block } else { 1 }
    }

    /// Opens a slot with room for `len` bytes of frames. None is open.
    pub(crate) fn try_open(&self, guard: &mut Guard<'_>, len: usize) -> std::result::Result<(), Blocked> {
        let wanted = GROUP_HEADER_LEN + len;
        if guard.pending.len() + guard.writing() >= self.ring.len() {
            return Err(Blocked::Ring);
        }
        let block = self.block(guard);
        let (start, base) = (guard.end.lsn, guard.active.file.superblock.base_lsn);
        let offset = guard.active.offset(start);
        let whole_blocks = |end: u64| end - end % block.max(ALIGN);
        let mut room = match self.home {
            Home::Directory { .. } => {
                let entries = guard.index.entries.len() + usize::from(guard.index.takes(start));
                let seal = seal_len(entries) as u64 + NOTE_LEN;
                let room = whole_blocks(self.options.segment_size.saturating_sub(seal)).saturating_sub(offset);
                // An empty segment takes whatever comes: a record larger than a segment gets one of its own size.
                if room < wanted as u64 && start > base {
                    return Err(Blocked::Segment);
                }
                room.max(wanted as u64)
            }
            Home::Store { .. } => u64::MAX,
        };
        // Where the whole segment is reserved, the room for a seal is there for notes, too.
        let notes = match self.home {
            Home::Directory { .. } if guard.reserved - base >= self.options.segment_room() => 0,
            _ => NOTES,
        };
        let space = whole_blocks(guard.active.offset(guard.reserved).saturating_sub(notes)).saturating_sub(offset);
        if space < wanted as u64 {
            return Err(Blocked::Space(start.saturating_add(wanted as u64 + NOTES + block)));
        }
        room = guard.prepared.room(start, room.min(space), wanted as u64).ok_or(Blocked::Zeros)?;
        room -= room % ALIGN;
        self.ring.open(Opening {
            number: guard.next_slot,
            lsn: start,
            shared: usize::try_from(offset % block).expect("less than a block"),
            room,
            wanted,
            first_seq: guard.end.seq,
            seed: guard.active.seed(),
        });
        guard.next_slot += 1;
        guard.open_end = start.saturating_add(room);
        guard.open = true;
        Ok(())
    }

    /// The slot that holds the last record appended, or the last one there was.
    fn last_slot(&self, guard: &Guard<'_>) -> u64 {
        let open = self.open_slot(guard).map(|open| open.number);
        let last = open.or(guard.pending.back().map(|pending| pending.filled.number));
        last.unwrap_or(guard.taken().saturating_sub(1))
    }

    /// The slot that holds the record at `lsn`, which is not durable.
    fn slot_of(&self, guard: &Guard<'_>, lsn: Lsn) -> u64 {
        if lsn.0 >= guard.end.lsn {
            return self.last_slot(guard);
        }
        let pending = guard.pending.iter().find(|pending| lsn.0 < pending.end().lsn);
        let first = guard.pending.front().map_or(guard.end.lsn, |first| first.filled.lsn);
        let written = match pending {
            Some(pending) if lsn.0 >= first => return pending.filled.number,
            _ if lsn.0 < guard.flushed.lsn => guard.written,
            // Being written: the gate is passed when all of that flush is durable.
            _ => {
                let flight = guard.flights.iter().find(|flight| lsn.0 < flight.end.lsn);
                flight.map_or(guard.taken(), |flight| flight.written)
            }
        };
        written.saturating_sub(1)
    }

    /// How many have appended to the open slot, as a leader sees it who waits for others to come.
    fn arrived(&self) -> u64 {
        let Some(open) = self.ring.open_slot() else { return 0 };
        // Much to write takes long by itself, and the others encode meanwhile.
        if open.end_lsn - open.lsn >= GATHERED {
            return u64::MAX;
        }
        // Who brings many records is still one.
        open.records.saturating_sub(self.in_company.load(Ordering::Acquire))
    }

    /// Returns once the slot, and everything before it, is durable. Leads when nobody else does.
    fn make_durable(&self, slot: u64, lsn: Option<Lsn>) -> Result<()> {
        loop {
            match self.gate.wait(slot) {
                Turn::Covered => return Ok(()),
                Turn::Lead(lead) => self.lead_through(lead, slot),
                Turn::Ended => {
                    let guard = self.lock();
                    let lsn = lsn.unwrap_or(Lsn(guard.durable));
                    if let Some(outcome) = self.outcome_of(&guard, slot, lsn) {
                        return outcome;
                    }
                    drop(guard);
                    self.sync_prefix();
                }
            }
        }
    }

    /// Flushes what has to be for this slot to become durable, unless somebody else does already.
    fn lead_through(&self, lead: Lead<'_>, slot: u64) {
        // What is full gathers nothing more.
        if self.full_slots(&self.lock(), slot) == 0 {
            lead.gather(|| self.arrived());
        }
        let leading = Leading::new(self, lead);
        let mut guard = self.lock();
        // Leading is not needed for what is in flight.
        let in_flight = (guard.written..guard.taken()).contains(&slot);
        if self.gate.covered() <= slot && !in_flight && guard.stopped.is_none() {
            // An error is in the state, where everybody finds it.
            guard = leading.flush_out(guard, Goal::Durable, slot).0;
        }
        leading.finish(guard);
    }

    /// Returns once everything appended before the call is with the operating system.
    pub(crate) fn flush(&self) -> Result<()> {
        let guard = self.lock();
        let (target, cut_count) = (self.end(&guard).lsn, guard.cut_count);
        let reached = |guard: &Guard<'_>| guard.flushed.lsn >= target || guard.cut_count != cut_count;
        let in_doubt = |guard: &Guard<'_>, cause| {
            let (lsn, durable) = (Lsn(guard.flushed.lsn), Lsn(guard.durable));
            Err(Error::InDoubt { lsn, durable, cause })
        };
        if reached(&guard) {
            return Ok(());
        }
        drop(guard);
        let leading = self.claim();
        let mut guard = self.lock();
        if !reached(&guard) && guard.stopped.is_none() {
            guard = leading.flush_out(guard, Goal::Flushed, u64::MAX).0;
        }
        let result = match &guard.stopped {
            Some(stop) if !reached(&guard) => in_doubt(&guard, stop.cause.clone()),
            _ => Ok(()),
        };
        leading.finish(guard);
        result
    }

    /// Returns once everything appended before the call is durable.
    pub(crate) fn sync(&self) -> Result<()> {
        let slot = self.last_slot(&self.lock());
        self.make_durable(slot, None)
    }

    /// Returns once the record at `lsn` and everything before it is durable.
    pub(crate) fn sync_to(&self, lsn: Lsn) -> Result<()> {
        let guard = self.lock();
        let end = self.end(&guard).lsn;
        if lsn.0 >= end {
            if mutation::is(Mutation::SyncBeyondEnd) {
                return Ok(());
            }
            return Err(Error::OutOfRange { lsn, first: Lsn(guard.head.lsn), end: Lsn(end) });
        }
        if lsn.0 < guard.durable {
            return Ok(());
        }
        let slot = self.slot_of(&guard, lsn);
        drop(guard);
        self.make_durable(slot, Some(lsn))
    }

    /// Returns once the record just appended is durable.
    pub(crate) fn settled(&self, appended: Appended) -> Result<()> {
        self.make_durable(appended.slot, Some(appended.lsn))
    }

    /// Whether the record is durable, or will never be; `None` while that is open.
    pub(crate) fn outcome(&self, appended: Appended) -> Option<Result<()>> {
        if self.gate.covered() > appended.slot {
            return Some(Ok(()));
        }
        self.outcome_of(&self.lock(), appended.slot, appended.lsn)
    }

    fn outcome_of(&self, guard: &State, slot: u64, lsn: Lsn) -> Option<Result<()>> {
        // Also for what a cut took back later: everything was durable when the log was cut.
        if self.gate.covered() > slot {
            return Some(Ok(()));
        }
        match &guard.stopped {
            Some(stop) if slot >= stop.syncable => {
                let (durable, cause) = (Lsn(guard.durable), stop.cause.clone());
                Some(Err(Error::InDoubt { lsn, durable, cause }))
            }
            _ => None,
        }
    }

    /// Asks for durability of a record without waiting for it: a thread of the log's own sees to it.
    pub(crate) fn request(&self, slot: u64) -> Result<()> {
        // Whoever asked for so much first has woken the thread, or will.
        if self.requests.slots.load(Ordering::Acquire) > slot {
            return Ok(());
        }
        if self.requests.slots.fetch_max(slot + 1, Ordering::AcqRel) == 0 {
            let mut guard = self.lock();
            if guard.committer.is_none() {
                let core = self.myself.upgrade().ok_or(Error::Closed)?;
                let spawned = thread::Builder::new().name("cairn-commit".into()).spawn(move || core.commit_requests());
                guard.committer = Some(spawned.map_err(|e| Error::io("start a thread for", &self.path(), e))?);
            }
        }
        fence(Ordering::SeqCst);
        if self.requests.idle.load(Ordering::Acquire) {
            self.wake_committer();
        }
        Ok(())
    }

    fn wake_committer(&self) {
        self.requests.changed.bump();
        self.requests.changed.wake_all();
    }

    fn commit_requests(&self) {
        let asked = || self.requests.slots.load(Ordering::Acquire);
        loop {
            let seen = self.requests.changed.load();
            if asked() > self.gate.covered() {
                let failed = self.make_durable(asked() - 1, None).is_err();
                if failed {
                    // What was written before the failure may have been asked for, too.
                    self.sync_prefix();
                }
                self.settle();
                if failed {
                    return;
                }
                continue;
            }
            if self.lock().closed {
                return;
            }
            self.requests.idle.store(true, Ordering::Release);
            fence(Ordering::SeqCst);
            if asked() <= self.gate.covered() {
                self.requests.changed.wait(seen);
            }
            self.requests.idle.store(false, Ordering::Release);
        }
    }

    /// Calls back once the record is durable or in doubt; at once when it is already.
    pub(crate) fn on_durable(&self, appended: Appended, callback: Callback) {
        self.lock().callbacks.push((appended.lsn, appended.slot, callback));
        self.settle();
    }

    /// Tells those whose callbacks are due, with no lock held.
    pub(crate) fn settle(&self) {
        let mut guard = self.lock();
        let mut due = Vec::new();
        for (lsn, slot, callback) in std::mem::take(&mut guard.callbacks) {
            match self.outcome_of(&guard, slot, lsn) {
                Some(outcome) => due.push((callback, outcome)),
                None => guard.callbacks.push((lsn, slot, callback)),
            }
        }
        drop(guard);
        for (callback, result) in due {
            // A callback is the caller's code: what it breaks is not the log's, and the others are still to be called (L35).
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| callback(result)));
        }
    }

    /// Ends writing: everything appended becomes durable, and a mark says so on disk.
    pub(crate) fn close(&self) -> Result<()> {
        let (leading, guard) = self.freeze()?;
        let (mut guard, result) = leading.write_end(guard);
        guard.frozen = false;
        guard.closed = true;
        leading.finish(guard);
        self.end_threads();
        result
    }

    /// What `Drop` does: hands what is buffered to the operating system, as well as that goes, and promises nothing.
    pub(crate) fn abandon(&self) {
        let _ = self.flush();
        let mut guard = self.lock();
        guard.closed = true;
        self.close_slot(&mut guard, false);
        drop(guard);
        self.end_threads();
    }

    fn end_threads(&self) {
        self.wake_committer();
        for word in [&self.wanted, &self.requests.full] {
            word.bump();
            word.wake_all();
        }
        let mut guard = self.lock();
        let threads = [guard.committer.take(), guard.preparer.take()];
        let helpers = std::mem::take(&mut guard.helpers);
        drop(guard);
        for thread in threads.into_iter().flatten().chain(helpers) {
            // The committer catches what callbacks do; a panic of its own is in the state already.
            let _ = thread.join();
        }
        self.drop_spares();
        self.lock().ended = true;
        self.progress.notify(usize::MAX);
    }

    pub(crate) fn stats(&self) -> Stats {
        let guard = self.lock();
        let mut stats = Stats { buffered_bytes: self.end(&guard).lsn - guard.flushed.lsn, ..guard.stats };
        if let Some(open) = self.open_slot(&guard) {
            stats.records += open.records;
            stats.frame_bytes += open.end_lsn - open.lsn - GROUP_HEADER_LEN as u64;
        }
        stats
    }

    /// The directory, or the name of what stands in for it in messages.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.home {
            Home::Directory { dir, .. } => dir.clone(),
            Home::Store { .. } => STORE_NAME.into(),
        }
    }

    /// After a failed *write*: a barrier for what was written before it.
    fn sync_prefix(&self) {
        let leading = self.claim();
        let mut guard = self.lock();
        while guard.in_air() > 0 {
            guard = self.wait(guard);
        }
        let Some(stop) = guard.stopped.clone().filter(|stop| stop.syncable > self.gate.covered()) else {
            return;
        };
        let store = guard.active.store.clone();
        let (mut guard, result) = leading.unlocked(guard, || store.sync());
        match result {
            Ok(()) => {
                guard.durable = guard.flushed.lsn;
                leading.cover(stop.syncable);
            }
            Err(_) => {
                let covered = self.gate.covered();
                if let Some(stop) = &mut guard.stopped {
                    stop.syncable = covered;
                }
            }
        }
        leading.finish(guard);
    }
}

/// How a store is called in messages.
pub(crate) const STORE_NAME: &str = "the store";

#[cfg(all(test, not(any(cairn_loom, cairn_shuttle))))]
mod tests;
