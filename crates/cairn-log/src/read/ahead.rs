//! Reading ahead: a thread that reads what comes next in a store while what came before is checked.
//!
//! Copying from the page cache takes as long as checking. So nobody waits for anybody here who
//! could read: whoever needs a chunk that the thread is still reading reads the one behind it
//! meanwhile.
//!
//! Invariants:
//! 1. Chunks follow each other without a gap and are handed out in order. Each is read once, after
//!    reading ahead was begun and before it is handed out: who takes them sees what a reader may
//!    see that reads the same pieces one after the other, only earlier.
//! 2. Nothing at or past the end that was given is read, where a writer may be at work.
//! 3. What cannot be read, or is shorter than it was to be, is no chunk, and the last thing handed
//!    out is what precedes it: who needs these bytes reads them again, and gets the error where it
//!    belongs.
//! 4. The thread is gone when its owner is, and when there is nothing left to read.

use std::collections::VecDeque;

use cairn_io::Store;

use crate::sync::{Arc, Mutex, MutexGuard, PoisonError, Word, thread};

/// A thread that reads on in a store.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Bytes of a store, behind room for some that precede them.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Where in the store the first byte behind the room belongs.
    pub(crate) start: u64,
    /// [`ROOM`] bytes of whatever, then those of the store.
    pub(crate) bytes: Vec<u8>,
}

/// Bytes before a chunk for the beginning of a record that goes on in it.
pub(crate) const ROOM: usize = 64 << 10;

/// Bytes read at once: they are to be in the second-level cache still when they are checked.
pub(crate) const CHUNK: usize = 256 << 10;

/// Chunks that wait or are being read, besides the one that is being looked at.
const CHUNKS: usize = 3;

#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    end: u64,
    state: Mutex<State>,
    changed: Word,
}

#[derive(Debug)]
struct State {
    /// Where the chunk starts that nobody reads yet.
    next: u64,
    /// What is being read, or was, in order.
    parts: VecDeque<(u64, Part)>,
    /// Memory for more.
    free: Vec<Vec<u8>>,
}

#[derive(Debug)]
enum Part {
    Reading,
    Read(Vec<u8>),
    Failed,
}

/// A chunk to be read by who took it on.
struct Task<'a> {
    shared: &'a Shared,
    start: u64,
    memory: Vec<u8>,
    /// What becomes of it: a failure, until it has been read.
    outcome: Part,
}

/// What there is to do for who needs a chunk.
enum Next<'a> {
    Take(Chunk),
    Read(Task<'a>),
    End,
}

impl ReadAhead {
    /// Begins to read `start..end`; `None` when there is no thread to be had.
    pub(crate) fn begin(store: Arc<dyn Store>, start: u64, end: u64) -> Option<Self> {
        let free = vec![Vec::new(); CHUNKS];
        let state = Mutex::new(State { next: start, parts: VecDeque::new(), free });
        let shared = Arc::new(Shared { store, end, state, changed: Word::default() });
        let reads = shared.clone();
        let run = move || {
            while let Some(task) = reads.wait_for(|state| match reads.take_on(state) {
                None if state.next >= reads.end => Some(None),
                task => task.map(Some),
            }) {
                task.read();
            }
        };
        let thread = thread::Builder::new().name("cairn-read".into()).spawn(run).ok()?;
        Some(ReadAhead { shared, thread: Some(thread) })
    }

    /// The next chunk; `None` when there is none.
    pub(crate) fn next(&self) -> Option<Chunk> {
        let shared = &*self.shared;
        loop {
            let next = shared.wait_for(|state| {
                if let Some((start, Part::Read(bytes))) = state.parts.front_mut() {
                    let chunk = Chunk { start: *start, bytes: std::mem::take(bytes) };
                    state.parts.pop_front();
                    return Some(Next::Take(chunk));
                }
                match state.parts.front() {
                    Some((_, Part::Failed)) => Some(Next::End),
                    None if state.next >= shared.end => Some(Next::End),
                    _ => shared.take_on(state).map(Next::Read),
                }
            });
            match next {
                Next::Take(chunk) => return Some(chunk),
                Next::Read(task) => task.read(),
                Next::End => return None,
            }
        }
    }

    /// Gives the memory of an earlier chunk, for one to come.
    ///
    /// Wakes the thread only when there is memory for two: it is the faster one for small records,
    /// and would fall asleep after each chunk. Who needs the next one may always read it, so nobody
    /// waits for what the thread does not know of.
    pub(crate) fn give_back(&self, memory: Vec<u8>) {
        let mut state = self.shared.lock();
        state.free.push(memory);
        let enough = state.free.len() >= 2;
        drop(state);
        if enough {
            self.shared.tell();
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.shared.change(|state| state.next = u64::MAX);
        if let Some(thread) = self.thread.take() {
            // It ends when the read that is under way returns. Whatever became of it, it is over.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.tell();
    }

    fn tell(&self) {
        self.changed.bump();
        self.changed.wake_all();
    }

    /// Looks, after every change, until there is what is looked for.
    fn wait_for<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let seen = self.changed.load();
            if let Some(found) = look(&mut self.lock()) {
                return found;
            }
            self.changed.wait(seen);
        }
    }

    /// The next chunk that nobody reads yet, for the caller to read, if there is one and memory for
    /// it.
    fn take_on(&self, state: &mut State) -> Option<Task<'_>> {
        let start = state.next;
        let len = usize::try_from(self.end.saturating_sub(start)).unwrap_or(CHUNK).min(CHUNK);
        let mut memory = (len > 0).then(|| state.free.pop())??;
        if memory.try_reserve_exact((ROOM + len).saturating_sub(memory.len())).is_err() {
            // Who needs these bytes reads them without help.
            state.next = self.end;
            state.parts.push_back((start, Part::Failed));
            return None;
        }
        memory.resize(ROOM + len, 0);
        state.next = start + len as u64;
        state.parts.push_back((start, Part::Reading));
        Some(Task { shared: self, start, memory, outcome: Part::Failed })
    }
}

impl Task<'_> {
    fn read(mut self) {
        let mut memory = std::mem::take(&mut self.memory);
        let bytes = &mut memory[ROOM..];
        if self.shared.store.read_at(self.start, bytes).is_ok_and(|read| read == bytes.len()) {
            self.outcome = Part::Read(memory);
        }
    }
}

impl Drop for Task<'_> {
    /// Also when the store panics: nobody waits for what will never be there.
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Part::Failed);
        self.shared.change(|state| {
            if let Some((_, part)) = state.parts.iter_mut().find(|(start, _)| *start == self.start)
            {
                *part = outcome;
            }
        });
    }
}
