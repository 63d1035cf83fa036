//! Group commit with one futex word per generation: the bar that the log is measured against.
//!
//! Writers copy their frames into the open generation's buffer under a short lock, or, when they have much, into buffers of their own outside
//! of it. A leader seals the generation and writes it with one direct, synchronous write. Everybody else sleeps on the word of their generation.
//! When a flush ends, one sleeper of the open generation is told to go on, and then everybody of the flushed generation is woken by one call.
//! Nobody takes a lock on the way out.
//!
//! *Gather*: the writers that were just woken come back with their next record a little too late for a leader that starts at once, and
//! every flush would carry half of them. So the generation stays open until they are back. The last one to come leads, at once and awake; another
//! one sleeps with a time limit of half of what a flush takes, and leads when somebody does not come.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::io::Errno;
use rustix::thread::futex::{self, Flags};
use rustix::time::Timespec;

use super::file::{AlignedBuf, GROUP, Ring, SECTOR, Way, give_up};
use super::frame;
use crate::subject::{Setup, Subject, Writer};

/// States of a generation, in the three lowest bits of its word; the generation is above them.
const OPEN: u32 = 0;
/// One of its sleepers shall lead it.
const LEADER_WANTED: u32 = 1;
/// One of its sleepers shall watch its time limit.
const WATCHER_WANTED: u32 = 2;
/// One of them does.
const TAKEN: u32 = 3;
/// It is on the device.
const DURABLE: u32 = 4;

/// Words; a sleeper that wakes up after as many generations finds another number in its word and knows.
const WORDS: usize = 8;

/// Writers are waited for at most this part of the time that a flush takes. A quarter is not worse where a flush takes 25 µs or 1 ms;
/// a half is better with 64 threads where one takes 130 µs.
const GATHER_SHARE: u32 = 2;

/// A limit shorter than this is spent in `sched_yield`: going to sleep and coming back may take as long on a processor that falls idle.
const NAP: Duration = Duration::from_micros(150);

/// A group of this many bytes waits for nobody: its write takes long because of them, and the writers copy their next records meanwhile.
const GATHERED: usize = 256 << 10;

/// A commit of at least this many bytes is copied outside of the lock, into a buffer of its writer, and the leader writes it from there.
const OWN_BUFFER: usize = 4096;

/// A futex word on cache lines of its own.
#[repr(align(128))]
struct Word(AtomicU32);

/// What is going on with the open generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody is in it.
    Idle,
    /// Writers that were woken are waited for. Who completes it leads.
    Gathering,
    /// It waits for the flush of the one before, or somebody is about to flush it.
    Flushing,
}

struct State {
    generation: u32,
    phase: Phase,
    /// Writers in the open generation.
    joined: u32,
    /// Their bytes.
    bytes: usize,
    /// Writers that are expected in it: those woken by the last flush and those that were in it then.
    expected: u32,
    group: Group,
    /// What is not open and not being written.
    spare: Option<Group>,
    /// Moving average of what a flush takes.
    flush: Duration,
}

impl State {
    fn is_complete(&self) -> bool {
        self.joined >= self.expected || self.bytes >= GATHERED
    }
}

/// What one flush writes.
struct Group {
    buffer: AlignedBuf,
    /// Buffers of writers that had much; those are asleep until it is written.
    large: Vec<Arc<Mutex<AlignedBuf>>>,
}

impl Group {
    fn new() -> Self {
        Group { buffer: AlignedBuf::new(GROUP), large: Vec::new() }
    }
}

/// The loop.
pub(crate) struct FutexLoop {
    ring: Ring,
    state: Mutex<State>,
    words: [Word; WORDS],
    /// The open generation, to be looked at without the lock.
    open: AtomicU32,
}

impl FutexLoop {
    /// Opens it over a fresh file.
    pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
        Self::over(Ring::create(setup, Way::Direct)?)
    }

    /// Opens it over nothing: what waking alone costs.
    pub(crate) fn open_nowhere(setup: &Setup) -> Result<Box<dyn Subject>> {
        Self::over(Ring::create(setup, Way::Nowhere)?)
    }

    fn over(ring: Ring) -> Result<Box<dyn Subject>> {
        let state = State {
            generation: 0,
            phase: Phase::Idle,
            joined: 0,
            bytes: 0,
            expected: 0,
            group: Group::new(),
            spare: Some(Group::new()),
            flush: Duration::ZERO,
        };
        let words = std::array::from_fn(|_| Word(AtomicU32::new(OPEN)));
        Ok(Box::new(FutexLoop { ring, state: Mutex::new(state), words, open: AtomicU32::new(0) }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn word(&self, generation: u32) -> &AtomicU32 {
        &self.words[generation as usize % WORDS].0
    }

    /// Copies small commits under the lock.
    fn commit_small(&self, crcs: &[u32], records: &[&[u8]], room: usize) -> Result<()> {
        let mut state = self.lock();
        while state.group.buffer.room() < room {
            drop(state);
            thread::yield_now();
            state = self.lock();
        }
        for (crc, record) in crcs.iter().zip(records) {
            frame::push(&mut state.group.buffer, *crc, record)?;
        }
        self.join(state, room)
    }

    /// Takes note of where large ones are.
    fn commit_large(&self, buffer: &Arc<Mutex<AlignedBuf>>, room: usize) -> Result<()> {
        let mut state = self.lock();
        state.group.large.push(buffer.clone());
        self.join(state, room)
    }

    /// Becomes a writer of the open generation; leads it when that completes it.
    fn join(&self, mut state: MutexGuard<'_, State>, bytes: usize) -> Result<()> {
        let generation = state.generation;
        state.joined += 1;
        state.bytes += bytes;
        match state.phase {
            Phase::Idle | Phase::Gathering if state.is_complete() => {
                state.phase = Phase::Flushing;
                drop(state);
                self.lead(generation)
            }
            Phase::Idle => {
                state.phase = Phase::Gathering;
                let limit = state.flush / GATHER_SHARE;
                drop(state);
                self.watch(generation, limit)
            }
            Phase::Gathering | Phase::Flushing => {
                drop(state);
                self.sleep(generation)
            }
        }
    }

    /// Sleeps until the generation is durable, unless wanted.
    fn sleep(&self, generation: u32) -> Result<()> {
        let word = self.word(generation);
        loop {
            let seen = word.load(Ordering::Acquire);
            if is_durable(seen, generation) {
                return Ok(());
            }
            let wanted = seen == value(generation, LEADER_WANTED) || seen == value(generation, WATCHER_WANTED);
            if !wanted {
                wait(word, seen, None)?;
                continue;
            }
            let taken = value(generation, TAKEN);
            if word.compare_exchange(seen, taken, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                if seen == value(generation, LEADER_WANTED) {
                    return self.lead(generation);
                }
                let limit = self.lock().flush / GATHER_SHARE;
                return self.watch(generation, limit);
            }
        }
    }

    /// Sleeps until the generation is durable; leads it when it is not complete within the limit.
    fn watch(&self, generation: u32, limit: Duration) -> Result<()> {
        let word = self.word(generation);
        let begin = Instant::now();
        loop {
            let seen = word.load(Ordering::Acquire);
            if is_durable(seen, generation) {
                return Ok(());
            }
            let left = limit.saturating_sub(begin.elapsed());
            if !left.is_zero() {
                if limit >= NAP {
                    wait(word, seen, Some(left))?;
                    continue;
                }
                if self.open.load(Ordering::Acquire) == generation {
                    thread::yield_now();
                    continue;
                }
            }
            let mut state = self.lock();
            if state.generation != generation || state.phase != Phase::Gathering {
                drop(state);
                return self.sleep(generation);
            }
            state.phase = Phase::Flushing;
            drop(state);
            return self.lead(generation);
        }
    }
    /// Writes the open generation, which is this thread's to flush, and has the next one go on.
    fn lead(&self, generation: u32) -> Result<()> {
        let mut state = self.lock();
        let Some(spare) = state.spare.take() else {
            bail!("two leaders");
        };
        let mut sealed = std::mem::replace(&mut state.group, spare);
        let writers = std::mem::take(&mut state.joined);
        state.bytes = 0;
        let next = self.word(generation.wrapping_add(1));
        next.store(value(generation.wrapping_add(1), OPEN), Ordering::Release);
        state.generation = generation.wrapping_add(1);
        self.open.store(generation.wrapping_add(1), Ordering::Release);
        drop(state);

        let begin = Instant::now();
        self.write(&mut sealed).unwrap_or_else(|error| give_up(&error));
        let took = begin.elapsed();

        let mut state = self.lock();
        state.flush = if state.flush.is_zero() { took } else { (state.flush * 7 + took) / 8 };
        state.spare = Some(sealed);
        state.expected = writers + state.joined;
        let (phase, wanted) = match state.joined {
            0 => (Phase::Idle, None),
            _ if state.is_complete() => (Phase::Flushing, Some(LEADER_WANTED)),
            _ => (Phase::Gathering, Some(WATCHER_WANTED)),
        };
        state.phase = phase;
        if let Some(wanted) = wanted {
            // Under the lock: who completes the generation now must not find its word changed afterwards.
            next.store(value(generation.wrapping_add(1), wanted), Ordering::Release);
        }
        drop(state);
        if wanted.is_some() {
            wake(next, 1)?;
        }
        let word = self.word(generation);
        word.store(value(generation, DURABLE), Ordering::Release);
        // The leader itself is one of the writers.
        if writers > 1 {
            wake(word, u32::MAX >> 1)?;
        }
        Ok(())
    }

    fn write(&self, group: &mut Group) -> Result<()> {
        {
            let large: Vec<_> = group.large.iter().map(|b| b.lock().unwrap_or_else(PoisonError::into_inner)).collect();
            self.ring.write_all(&mut group.buffer, &large)?;
        }
        group.large.clear();
        group.buffer.clear();
        Ok(())
    }
}

fn value(generation: u32, state: u32) -> u32 {
    generation << 3 | state
}

/// Whether a word that was read says so, or belongs to a later generation already.
fn is_durable(seen: u32, generation: u32) -> bool {
    seen == value(generation, DURABLE) || seen >> 3 != value(generation, OPEN) >> 3
}

/// Sleeps while the word is `seen`, at most as long as given; may return early.
fn wait(word: &AtomicU32, seen: u32, limit: Option<Duration>) -> Result<()> {
    let limit = limit.map(|l| Timespec { tv_sec: l.as_secs() as _, tv_nsec: l.subsec_nanos().into() });
    match futex::wait(word, Flags::PRIVATE, seen, limit.as_ref()) {
        Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn wake(word: &AtomicU32, sleepers: u32) -> Result<()> {
    futex::wake(word, Flags::PRIVATE, sleepers)?;
    Ok(())
}

impl Subject for FutexLoop {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(FutexWriter { shared: self, crcs: Vec::new(), buffer: Arc::new(Mutex::new(AlignedBuf::new(0))) }))
    }

    fn barriers(&self) -> Option<u64> {
        Some(self.ring.barriers())
    }

    fn keeps_nothing(&self) -> bool {
        self.ring.is_nowhere()
    }
}

struct FutexWriter<'a> {
    shared: &'a FutexLoop,
    crcs: Vec<u32>,
    /// For commits of much. The leader reads it while this writer sleeps.
    buffer: Arc<Mutex<AlignedBuf>>,
}

impl Writer for FutexWriter<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.commit_many(&[record])
    }

    fn commit_many(&mut self, records: &[&[u8]]) -> Result<()> {
        let room = records.iter().map(|r| frame::frame_len(r.len())).sum::<usize>();
        if room >= OWN_BUFFER {
            let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
            buffer.clear();
            if buffer.room() < room {
                *buffer = AlignedBuf::new(room);
            }
            for record in records {
                frame::push(&mut buffer, crc32c::crc32c(record), record)?;
            }
            buffer.pad(SECTOR);
            drop(buffer);
            return self.shared.commit_large(&self.buffer, room);
        }
        self.crcs.clear();
        self.crcs.extend(records.iter().map(|r| crc32c::crc32c(r)));
        self.shared.commit_small(&self.crcs, records, room)
    }

    fn append(&mut self, _record: &[u8]) -> Result<()> {
        bail!("only commits")
    }
}
