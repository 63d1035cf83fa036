//! Group commit with one futex word per generation: the bar that the log is measured against.
//!
//! Writers copy their frames into the open generation's buffer under a short lock, or, when they
//! have much, into buffers of their own outside of it. A leader seals the generation and writes it
//! with one direct, synchronous write. Everybody else sleeps on the word of their generation. When
//! a flush ends, one sleeper of the open generation is told to go on, and then everybody of the
//! flushed generation is woken by one call. Nobody takes a lock on the way out.
//!
//! *Gather*: the writers that were just woken come back with their next record a little too late
//! for a leader that starts at once, and every flush would carry half of them. So the generation
//! stays open until they are back. The last one to come leads, at once and awake; another one
//! sleeps with a time limit of half of what a flush takes, and leads when somebody does not come.
//!
//! *Two at once* is an experiment: a second generation may be written while the first one is. Its
//! writers are told when both are on the device.

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
use super::stream::Stream;
use crate::subject::{Pipeline, Setup, Subject, Writer};

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

/// Words; a sleeper that wakes up after as many generations finds another number in its word and
/// knows.
const WORDS: usize = 8;

/// Writers are waited for at most this part of the time that a flush takes. A quarter is not worse
/// where a flush takes 25 µs or 1 ms; a half is better with 64 threads where one takes 130 µs.
const GATHER_SHARE: u32 = 2;

/// A limit shorter than this is spent in `sched_yield`: going to sleep and coming back may take as
/// long on a processor that falls idle.
const NAP: Duration = Duration::from_micros(150);

/// A group of this many bytes waits for nobody: its write takes long because of them, and the
/// writers copy their next records meanwhile.
const GATHERED: usize = 256 << 10;

/// A commit of at least this many bytes is copied outside of the lock, into a buffer of its writer,
/// and the leader writes it from there.
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
    /// It waits for a flush to end.
    Waiting,
    /// Somebody is about to flush it.
    Flushing,
}

struct State {
    generation: u32,
    phase: Phase,
    /// Writers in the open generation.
    joined: u32,
    /// Their bytes.
    bytes: usize,
    /// Writers that are expected in it: those woken by the last flush and those that were in it
    /// then.
    expected: u32,
    group: Group,
    /// What is not open and not being written.
    spare: Vec<Group>,
    /// Flushes that are running.
    flights: usize,
    /// The first generation that is not on the device, or one before it is not.
    durable: u32,
    /// Writers of the generations that are on the device, from `durable` on, by number modulo
    /// [`WORDS`].
    landed: [Option<u32>; WORDS],
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
    ring: Arc<Ring>,
    /// Flushes that may run at the same time.
    depth: usize,
    state: Mutex<State>,
    words: [Word; WORDS],
    /// The open generation, to be looked at without the lock.
    open: AtomicU32,
}

impl FutexLoop {
    /// Opens it over a fresh file.
    pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
        Ok(Box::new(Self::over(Ring::create(setup, Way::Direct)?, 1)))
    }

    /// Opens it over a fresh file, to be written by two at once.
    pub(crate) fn open_two(setup: &Setup) -> Result<Box<dyn Subject>> {
        Ok(Box::new(Self::over(Ring::create(setup, Way::Direct)?, 2)))
    }

    /// Opens it over nothing: what waking alone costs.
    pub(crate) fn open_nowhere(setup: &Setup) -> Result<Box<dyn Subject>> {
        Ok(Box::new(Self::over(Ring::create(setup, Way::Nowhere)?, 1)))
    }

    fn over(ring: Ring, depth: usize) -> Self {
        let state = State {
            generation: 0,
            phase: Phase::Idle,
            joined: 0,
            bytes: 0,
            expected: 0,
            group: Group::new(),
            spare: (0..depth).map(|_| Group::new()).collect(),
            flights: 0,
            durable: 0,
            landed: [None; WORDS],
            flush: Duration::ZERO,
        };
        let words = std::array::from_fn(|_| Word(AtomicU32::new(OPEN)));
        let (ring, state) = (Arc::new(ring), Mutex::new(state));
        FutexLoop { ring, depth, state, words, open: AtomicU32::new(0) }
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

    /// Becomes a writer of the open generation, until everything up to that is durable.
    fn join(&self, state: MutexGuard<'_, State>, bytes: usize) -> Result<()> {
        let generation = state.generation;
        self.take_part(state, bytes)?;
        debug_assert!(
            self.lock().durable > generation,
            "an earlier generation is still being written"
        );
        Ok(())
    }

    /// Leads the open generation when this writer completes it.
    fn take_part(&self, mut state: MutexGuard<'_, State>, bytes: usize) -> Result<()> {
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
            Phase::Gathering | Phase::Waiting | Phase::Flushing => {
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
            let wanted = seen == value(generation, LEADER_WANTED)
                || seen == value(generation, WATCHER_WANTED);
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
        let Some(spare) = state.spare.pop() else {
            bail!("too many leaders");
        };
        let mut sealed = std::mem::replace(&mut state.group, spare);
        let writers = std::mem::take(&mut state.joined);
        state.bytes = 0;
        state.generation = generation.wrapping_add(1);
        self.word(state.generation).store(value(state.generation, OPEN), Ordering::Release);
        self.open.store(state.generation, Ordering::Release);
        state.flights += 1;
        if state.flights < self.depth {
            // Worth a flush of its own once it carries as much.
            (state.phase, state.expected) = (Phase::Idle, writers);
        } else {
            state.phase = Phase::Waiting;
        }
        drop(state);

        let begin = Instant::now();
        self.write(&mut sealed).unwrap_or_else(|error| give_up(&error));
        let took = begin.elapsed();

        let mut state = self.lock();
        state.flush = if state.flush.is_zero() { took } else { (state.flush * 7 + took) / 8 };
        state.spare.push(sealed);
        state.flights -= 1;
        state.landed[generation as usize % WORDS] = Some(writers);
        let first = state.durable;
        let (mut writers, mut others) = (0, false);
        loop {
            let durable = state.durable;
            let Some(landed) = state.landed[durable as usize % WORDS].take() else { break };
            writers += landed;
            // The leader itself is one of the writers.
            others |= landed > 1 || durable != generation;
            // Under the lock: the word is that of a later generation soon.
            self.word(durable).store(value(durable, DURABLE), Ordering::Release);
            state.durable = durable.wrapping_add(1);
        }
        let covered = first..state.durable;
        let open = state.generation;
        let mut wanted = None;
        if state.phase == Phase::Waiting {
            state.expected = writers + state.joined;
            (state.phase, wanted) = match state.joined {
                0 => (Phase::Idle, None),
                _ if state.is_complete() => (Phase::Flushing, Some(LEADER_WANTED)),
                _ => (Phase::Gathering, Some(WATCHER_WANTED)),
            };
        } else if writers > 0 {
            state.expected = writers + state.joined;
        }
        if let Some(wanted) = wanted {
            // Under the lock: who completes the generation now must not find its word changed
            // afterwards.
            self.word(open).store(value(open, wanted), Ordering::Release);
        }
        drop(state);
        if wanted.is_some() {
            wake(self.word(open), 1)?;
        }
        if others {
            covered.clone().try_for_each(|covered| wake(self.word(covered), u32::MAX >> 1))?;
        }
        // What landed before an earlier one is not acknowledged before it.
        if covered.contains(&generation) { Ok(()) } else { self.sleep(generation) }
    }

    fn write(&self, group: &mut Group) -> Result<()> {
        {
            let large: Vec<_> = group
                .large
                .iter()
                .map(|b| b.lock().unwrap_or_else(PoisonError::into_inner))
                .collect();
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
    let limit =
        limit.map(|l| Timespec { tv_sec: l.as_secs() as _, tv_nsec: l.subsec_nanos().into() });
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
        Ok(Box::new(FutexWriter {
            shared: self,
            crcs: Vec::new(),
            buffer: Arc::new(Mutex::new(AlignedBuf::new(0))),
        }))
    }

    fn pipeline(&self) -> Result<Box<dyn Pipeline + '_>> {
        Ok(Box::new(Stream::start(self.ring.clone(), self.depth)))
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cell::Mode;

    /// No wake-up is lost, no generation is forgotten, and none is acknowledged before an earlier
    /// one (`join` looks).
    #[test]
    fn all_that_was_committed_is_durable_in_order() {
        for depth in [1, 2] {
            let setup = Setup {
                dir: PathBuf::new(),
                size: 8,
                segment_bytes: 0,
                keep_bytes: 0,
                barrier_latency: Duration::ZERO,
                mode: Mode::Durable,
                expected_records: 0,
                fresh: true,
            };
            let ring = Ring::create(&setup, Way::Nowhere).unwrap();
            let shared = FutexLoop::over(ring, depth);
            let small = |thread: usize| thread.is_multiple_of(2);
            thread::scope(|scope| {
                for thread in 0..16 {
                    let shared = &shared;
                    scope.spawn(move || {
                        let mut writer = shared.writer(thread).unwrap();
                        let record = vec![0; if small(thread) { 8 } else { OWN_BUFFER }];
                        for _ in 0..2000 {
                            writer.commit(&record).unwrap();
                        }
                    });
                }
            });
            let state = shared.lock();
            assert_eq!(state.durable, state.generation);
            assert_eq!((state.flights, state.joined, state.spare.len()), (0, 0, depth));
            assert!(u64::from(state.generation) <= 16 * 2000 && state.generation >= 2000);
            assert_eq!(shared.ring.barriers(), u64::from(state.generation));
        }
    }
}
