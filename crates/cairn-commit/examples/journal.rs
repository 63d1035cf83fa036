//! A journal in a plain file, with group commit: eight threads append, and share barriers.
//!
//! ```sh
//! cargo run --release -p cairn-commit --example journal -- /path/to/a/new/file
//! ```
//!
//! Two slots take turns. While the leader writes one of them, threads fill the other one, without a
//! lock. Then the journal is run on a disk whose barrier fails, and every thread is told.
//!
//! The format is as small as it can be (length, record, zeros up to 8 bytes), and there is no
//! recovery: a real journal also needs a checksum of each round, to tell a torn round from a whole
//! one.

#![allow(clippy::print_stdout, reason = "the numbers are what it is for")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that panics has failed"))]

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cairn_commit::gate::{Gate, Lead, Turn};
use cairn_commit::slot::{Slot, UNIT};
use cairn_commit::stop::Latch;

const THREADS: usize = 8;
const APPENDS: usize = 1000;

/// What the journal needs of a disk: one write and one barrier at a time.
trait Disk: Sync {
    fn write(&self, bytes: &[u8]) -> io::Result<()>;
    fn barrier(&self) -> io::Result<()>;
}

impl Disk for File {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self;
        file.write_all(bytes)
    }

    fn barrier(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A file whose barrier fails after some successful ones.
struct Failing {
    file: File,
    successes: AtomicU64,
}

impl Disk for Failing {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        Disk::write(&self.file, bytes)
    }

    fn barrier(&self) -> io::Result<()> {
        let one_less = |left: u64| left.checked_sub(1);
        match self.successes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
            Ok(_) => self.file.barrier(),
            Err(_) => Err(io::Error::other("the disk was pulled out")),
        }
    }
}

struct Journal<D> {
    disk: D,
    gate: Gate,
    latch: Latch<io::Error>,
    /// Round *n* is in slot *n* mod 2.
    slots: [Part; 2],
    /// The round that takes records. Only a leader changes it.
    open: AtomicU64,
}

struct Part {
    slot: Slot,
    /// The round that the slot was last opened for. Changes only while the slot is closed, so it
    /// stands still for a thread that holds a reservation.
    round: AtomicU64,
}

impl<D: Disk> Journal<D> {
    const SLOT_BYTES: usize = 64 << 10;

    fn new(disk: D) -> io::Result<Self> {
        let part = || -> io::Result<Part> {
            Ok(Part { slot: Slot::try_new(Self::SLOT_BYTES)?, round: AtomicU64::new(0) })
        };
        let slots = [part()?, part()?];
        slots[0].slot.contents().map_err(io::Error::other)?.open(0, Self::SLOT_BYTES);
        let (gate, latch) = (Gate::new(), Latch::new());
        Ok(Journal { disk, gate, latch, slots, open: AtomicU64::new(0) })
    }

    fn part(&self, round: u64) -> &Part {
        &self.slots[usize::from(round % 2 == 1)]
    }

    /// Returns once the record is durable. On an error the record is in doubt: a reader of the file
    /// may find it or not.
    fn append(&self, record: &[u8]) -> Result<(), Arc<io::Error>> {
        let len = (4 + record.len()).next_multiple_of(UNIT);
        let prefix = u32::try_from(record.len()).ok().filter(|_| len <= Self::SLOT_BYTES);
        let prefix = prefix.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        loop {
            let open = self.open.load(Ordering::Acquire);
            let part = self.part(open);
            let Some(mut place) = part.slot.reserve(len, 1) else {
                // The round is full, or is being closed.
                self.settle(open)?;
                continue;
            };
            // Not `open`: this thread may have been slow, and the slot open for a later round.
            let round = part.round.load(Ordering::Acquire);
            let (head, rest) = place.split_at_mut(4);
            head.copy_from_slice(&prefix.to_le_bytes());
            let (body, padding) = rest.split_at_mut(record.len());
            body.copy_from_slice(record);
            padding.fill(0);
            place.publish();
            return self.settle(round);
        }
    }

    /// Returns once the round is durable, or will never be called so.
    fn settle(&self, round: u64) -> Result<(), Arc<io::Error>> {
        loop {
            match self.gate.wait(round) {
                Turn::Covered => return Ok(()),
                Turn::Lead(lead) => self.flush(&lead, round),
                Turn::Ended => {
                    let stop = self.latch.stop().expect("nothing but a failure ends this gate");
                    return Err(stop.cause().clone());
                }
            }
        }
    }

    /// Makes the open round durable, for all threads that wait for it.
    fn flush(&self, lead: &Lead<'_>, wanted: u64) {
        lead.gather(|| self.open_items());
        if self.latch.stop().is_some() || self.gate.covered() > wanted {
            return;
        }
        let began = Instant::now();
        // A panic from here on loses the round, as a failed write does.
        let unwinding = Unwinding(self);
        let written = self.turn_over().and_then(|(round, bytes)| {
            self.disk.write(&bytes)?;
            self.disk.barrier().map(|()| round)
        });
        std::mem::forget(unwinding);
        match written {
            Ok(round) => {
                lead.took(began.elapsed());
                lead.cover(round + 1);
            }
            Err(error) => {
                self.gate.stop(&self.latch, error, self.gate.covered());
            }
        }
    }

    /// Records in the open round, for [`Lead::gather`].
    fn open_items(&self) -> u64 {
        let open = self.open.load(Ordering::Relaxed);
        self.part(open).slot.extent().map_or(0, |extent| extent.items)
    }

    /// Closes the open round, and opens the next one in the other slot, which is free: its round is
    /// covered. Returns the closed round and its bytes, once all threads have filled their parts.
    fn turn_over(&self) -> io::Result<(u64, impl std::ops::Deref<Target = [u8]>)> {
        let round = self.open.load(Ordering::Relaxed);
        let (this, next) = (self.part(round), self.part(round + 1));
        let extent = this.slot.close();
        let free = next.slot.contents().map_err(io::Error::other)?;
        next.round.store(round + 1, Ordering::Release);
        free.open(0, Self::SLOT_BYTES);
        self.open.store(round + 1, Ordering::Release);
        let contents = this.slot.contents().map_err(io::Error::other)?;
        Ok((round, Range { contents, end: extent.end }))
    }
}

/// The filled part of a slot that the leader owns.
struct Range<'a> {
    contents: cairn_commit::slot::Contents<'a>,
    end: usize,
}

impl std::ops::Deref for Range<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.contents[..self.end]
    }
}

/// Stops the journal if the leader panics.
struct Unwinding<'a, D>(&'a Journal<D>);

impl<D> Drop for Unwinding<'_, D> {
    fn drop(&mut self) {
        let Self(journal) = self;
        let panicked = io::Error::other("the thread that was writing panicked");
        journal.gate.stop(&journal.latch, panicked, journal.gate.covered());
    }
}

/// How many appends of each thread were acknowledged, and what ended them.
type Told = Vec<(usize, Option<Arc<io::Error>>)>;

fn run<D: Disk>(journal: &Journal<D>) -> Told {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    for append in 0..APPENDS {
                        let record = format!("thread {thread}, record {append}");
                        if let Err(error) = journal.append(record.as_bytes()) {
                            return (append, Some(error));
                        }
                    }
                    (APPENDS, None)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no append panics")).collect()
    })
}

/// The records in the file, in order.
fn read(bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while let Some((head, tail)) = rest.split_first_chunk::<4>() {
        let len = u32::from_le_bytes(*head) as usize;
        let Some(record) = tail.get(..len) else { break };
        records.push(record);
        rest = rest.get((4 + len).next_multiple_of(UNIT)..).unwrap_or_default();
    }
    records
}

fn main() -> Result<(), Box<dyn Error>> {
    let temporary = std::env::temp_dir().join(format!("cairn-journal-{}", std::process::id()));
    let path = std::env::args_os().nth(1).map_or(temporary, Into::into);

    let journal = Journal::new(File::create_new(&path)?)?;
    let began = Instant::now();
    run(&journal);
    let (commits, barriers) = (THREADS * APPENDS, journal.gate.covered());
    let seconds = began.elapsed().as_secs_f64();
    println!("{commits} commits of {THREADS} threads took {barriers} barriers, {seconds:.3} s");
    let bytes = std::fs::read(&path)?;
    println!("the file holds {} records", read(&bytes).len());
    std::fs::remove_file(&path)?;

    let file = File::create_new(&path)?;
    let journal = Journal::new(Failing { file, successes: AtomicU64::new(20) })?;
    println!("\nnow the barrier after the 20th fails:");
    for (thread, (acknowledged, error)) in run(&journal).into_iter().enumerate() {
        let error = error.map_or("no failure".to_owned(), |error| error.to_string());
        println!("thread {thread}: {acknowledged} acknowledged, the next one in doubt: {error}");
    }
    std::fs::remove_file(&path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records_of(journal: &Journal<impl Disk>, path: &std::path::Path) -> (Told, Vec<String>) {
        let told = run(journal);
        let bytes = std::fs::read(path).unwrap();
        let text = |record: &[u8]| String::from_utf8(record.to_vec()).unwrap();
        (told, read(&bytes).into_iter().map(text).collect())
    }

    /// Each thread's records are in the file in its order, at least those that were acknowledged,
    /// and at most one more.
    fn check(told: &Told, records: &[String]) {
        for (thread, (acknowledged, error)) in told.iter().enumerate() {
            let prefix = format!("thread {thread},");
            let own: Vec<_> = records.iter().filter(|record| record.starts_with(&prefix)).collect();
            let expected = (0..own.len()).map(|n| format!("thread {thread}, record {n}"));
            assert!(own.iter().copied().eq(expected.collect::<Vec<_>>().iter()), "thread {thread}");
            let in_doubt = usize::from(error.is_some());
            assert!((*acknowledged..=acknowledged + in_doubt).contains(&own.len()));
        }
    }

    #[test]
    fn every_record_is_there_once_and_threads_share_barriers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::new(File::create_new(&path).unwrap()).unwrap();
        let (told, records) = records_of(&journal, &path);
        check(&told, &records);
        assert_eq!(records.len(), THREADS * APPENDS);
        assert!(
            told.iter().all(|(acknowledged, error)| *acknowledged == APPENDS && error.is_none())
        );
        assert!(journal.gate.covered() <= records.len() as u64);
    }

    /// guards: L02
    #[test]
    fn a_failed_barrier_reaches_every_thread_with_one_cause() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let file = File::create_new(&path).unwrap();
        let journal = Journal::new(Failing { file, successes: AtomicU64::new(20) }).unwrap();
        let (told, records) = records_of(&journal, &path);
        check(&told, &records);
        let causes: Vec<_> = told.iter().map(|(_, error)| error.as_ref().unwrap()).collect();
        assert!(causes.iter().all(|cause| Arc::ptr_eq(cause, causes[0])));
        assert_eq!(journal.gate.covered(), 20);
        assert!(journal.append(b"later").is_err());
    }
}
