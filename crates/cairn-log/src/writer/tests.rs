#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::mpsc;
use std::time::Duration;

use cairn_io::{MemStore, Store};

use crate::error::Error;
use crate::format::{Batch, frame_len, write_record};
use crate::open::recover::open_store;
use crate::options::Options;
use crate::place::{Lsn, Seq};
use crate::ring::Ring;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, thread};
use crate::writer::append::Patience;
use crate::writer::core::{Appended, Core};

fn core() -> Arc<Core> {
    core_with_buffers(4 << 10)
}

fn core_with_buffers(bytes: usize) -> Arc<Core> {
    let store: Arc<dyn Store> = Arc::new(MemStore::new());
    core_in(store, crate::Log::options().buffer_size(bytes))
}

fn core_in(store: Arc<dyn Store>, options: Options) -> Arc<Core> {
    let recovered = open_store(&options, store).expect("the store is empty");
    let ring = Ring::new(options.buffers, options.buffer_size).unwrap();
    Core::new(options, ring, recovered)
}

/// Whether `wait` returns: while nothing else happens, and then after `event`.
fn returns(wait: impl FnOnce() + Send, event: impl FnOnce()) -> [bool; 2] {
    let (done, heard) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            wait();
            let _ = done.send(());
        });
        let before = heard.recv_timeout(Duration::from_millis(300)).is_ok();
        event();
        [before, before || heard.recv_timeout(Duration::from_secs(60)).is_ok()]
    })
}

/// guards: L38
///
/// A record much larger than a buffer is being copied, for as long as it takes: who committed
/// before it does not wait for that, who comes behind it does.
#[test]
fn a_huge_append_keeps_nobody_waiting_who_came_before() {
    let core = core();
    let small = core.append(b"before", Patience::Wait).unwrap();
    let payload = vec![7; 1 << 20];
    let mut huge = core.place(frame_len(payload.len()), 1, Patience::Wait).unwrap();
    assert!(huge.slot > small.slot, "it has a slot of its own");
    assert_eq!(returns(|| core.settled(small).unwrap(), || ()), [true, true]);
    let behind = core.append(b"behind", Patience::Wait).unwrap();
    let publish = || {
        write_record(&mut huge.part, Batch::Ends, &payload, huge.lsn, huge.seed);
        huge.part.publish();
    };
    assert_eq!(returns(|| core.settled(behind).unwrap(), publish), [false, true]);
    let guard = core.lock();
    assert_eq!((guard.durable, guard.end.seq), (guard.end.lsn, Seq(3)));
    assert_eq!(core.reader_of(&guard).count(), 3);
}

/// guards: L01 L36
///
/// A flush waits for what has a place and is not copied yet; if that never will be, everybody hears
/// of it.
#[test]
fn a_record_that_is_never_copied_stops_the_writer() {
    let core = core();
    let placed = core.place(frame_len(10), 1, Patience::Wait).unwrap();
    let behind = core.append(b"in the same buffer", Patience::Wait).unwrap();
    let mut outcome = None;
    assert_eq!(returns(|| outcome = Some(core.settled(behind)), || drop(placed)), [false, true]);
    assert!(matches!(outcome, Some(Err(Error::InDoubt { .. }))));
    assert!(matches!(core.append(b"more", Patience::Wait), Err(Error::Poisoned { .. })));
    assert_eq!(core.lock().durable, Lsn(0));
}

/// guards: L01
///
/// The zeros ahead are never where a slot is open.
#[test]
fn slots_keep_out_of_what_is_being_zeroed() {
    let mut prepared = crate::writer::prepare::Prepared::new(Lsn(0));
    assert_eq!(prepared.room(Lsn(100), 1 << 30, 1000), Some(256 << 10), "so that zeros can follow");
    prepared.zeroing = Some(Lsn(5000)..Lsn(9000));
    assert_eq!(prepared.room(Lsn(100), 1 << 30, 1000), Some(4900));
    assert_eq!(prepared.room(Lsn(4096), 1 << 30, 1000), None);
    assert_eq!(prepared.room(Lsn(8000), 1 << 30, 8), None);
}

/// Otherwise the next zeros begin behind the slot, and records between here and there are written
/// where there are none.
#[test]
fn slots_end_where_the_zeros_do() {
    let prepared = crate::writer::prepare::Prepared::new(Lsn(100_000));
    assert_eq!(prepared.room(Lsn(1000), 1 << 30, 1000), Some(99_000));
    assert_eq!(prepared.room(Lsn(1000), 50_000, 1000), Some(50_000));
    assert_eq!(prepared.room(Lsn(99_000), 1 << 30, 1000), Some(256 << 10), "too few");
    assert_eq!(prepared.room(Lsn(1000), 1 << 30, 99_500), Some(256 << 10), "for this one");
}

/// A leader waits for those who are about to come back, whatever they bring.
#[test]
fn who_brings_a_batch_has_arrived_once() {
    let core = core();
    assert_eq!(core.arrived(), 0);
    core.append(b"alone", Patience::Wait).unwrap();
    core.append_batch(&[&b"in a batch"[..]; 10]).unwrap();
    assert_eq!(core.arrived(), 2);
    core.sync().unwrap();
    assert_eq!(core.arrived(), 0);
    core.append_batch(&[&b"in a batch"[..]; 10]).unwrap();
    assert_eq!(core.arrived(), 1);
}

/// Also while it is being placed. Otherwise a leader that looks just then flushes without those who
/// are about to come.
#[test]
fn a_batch_is_never_taken_for_many() {
    const BATCHES: u64 = 100;
    for _ in 0..100 {
        let (core, begun) = (core_with_buffers(1 << 20), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..BATCHES {
                    begun.fetch_add(1, Ordering::SeqCst);
                    core.append_batch(&[&b"in a batch"[..]; 64]).unwrap();
                }
            });
            loop {
                let arrived = core.arrived();
                let begun = begun.load(Ordering::SeqCst);
                assert!(arrived <= begun, "{arrived} of {begun} have arrived");
                if arrived == BATCHES {
                    break;
                }
            }
        });
    }
}

#[test]
fn a_writer_that_waited_for_zeros_does_without_for_a_while() {
    let mut prepared = crate::writer::prepare::Prepared::new(Lsn(0));
    assert_eq!(prepared.room(Lsn(0), 1 << 30, 1000), Some(256 << 10), "so that zeros can follow");
    prepared.note_wait();
    for _ in 0..64 {
        assert_eq!(prepared.room(Lsn(0), 1 << 30, 1000), Some(1 << 30));
        prepared.note_flush(4096, true);
    }
    assert_eq!(prepared.room(Lsn(0), 1 << 30, 1000), Some(256 << 10));
}

/// A store in blocks, whose first durable write is held up, and whose second one ends as it is told
/// to.
#[derive(Debug)]
struct Devious {
    memory: MemStore,
    second: Ending,
    /// Durable writes that were begun, and whether the first one may go on.
    state: std::sync::Mutex<(u64, bool)>,
    changed: std::sync::Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Success,
    Failure,
    Panic,
}

impl Devious {
    fn new(second: Ending) -> Arc<Self> {
        let (memory, state) = (MemStore::new(), std::sync::Mutex::default());
        Arc::new(Devious { memory, second, state, changed: std::sync::Condvar::new() })
    }

    fn begun(&self) -> u64 {
        self.state.lock().unwrap().0
    }

    fn when_begun(&self, writes: u64) {
        drop(
            self.changed
                .wait_while(self.state.lock().unwrap(), |(begun, _)| *begun < writes)
                .unwrap(),
        );
    }

    fn release(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

impl Store for Devious {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.memory.write_at(offset, bytes)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        self.memory.read_at(offset, buf)
    }
    fn truncate(&self, len: u64) -> std::io::Result<()> {
        self.memory.truncate(len)
    }
    fn sync(&self) -> std::io::Result<()> {
        self.memory.sync()
    }
    fn len(&self) -> std::io::Result<u64> {
        self.memory.len()
    }
    fn block_size(&self) -> usize {
        512
    }
    fn write_durable(&self, offset: u64, slices: &[std::io::IoSlice<'_>]) -> std::io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        self.changed.notify_all();
        match state.0 {
            1 => drop(self.changed.wait_while(state, |(_, released)| !*released).unwrap()),
            2 if self.second == Ending::Failure => return Err(std::io::ErrorKind::Other.into()),
            2 if self.second == Ending::Panic => {
                drop(state);
                std::panic::resume_unwind(Box::new("told to"));
            }
            _ => drop(state),
        }
        self.memory.write_durable(offset, slices)
    }
}

/// Two full slots and one more record, while `first` waits for what is in the first slot, and
/// `second` for what is in the second.
fn with_two_full_slots(
    store: &Arc<Devious>,
    flushes_in_flight: usize,
    first: impl FnOnce(&Core, Appended) + Send,
    second: impl FnOnce(&Core, Appended),
) -> Arc<Core> {
    let options = crate::Log::options().buffer_size(4 << 10).flushes_in_flight(flushes_in_flight);
    let core = core_in(store.clone(), options);
    let append = || core.append(&[7; 3000], Patience::Wait).unwrap();
    let (one, two) = (append(), append());
    thread::scope(|scope| {
        let core = &core;
        scope.spawn(move || first(core, one));
        store.when_begun(1);
        let three = append();
        assert!(one.slot < two.slot && two.slot < three.slot);
        second(core, two);
    });
    core
}

/// guards: L38
#[test]
fn full_slots_are_in_flight_beside_each_other_if_they_may() {
    for (flushes_in_flight, beside) in [(1, 0), (2, 1)] {
        let store = Devious::new(Ending::Success);
        let core = with_two_full_slots(
            &store,
            flushes_in_flight,
            |core, one| core.settled(one).unwrap(),
            |core, two| {
                if beside > 0 {
                    thread::scope(|scope| {
                        scope.spawn(|| core.settled(two).unwrap());
                        store.when_begun(2);
                        store.release();
                    });
                } else {
                    let release = || {
                        assert_eq!(store.begun(), 1);
                        store.release();
                    };
                    assert_eq!(returns(|| core.sync().unwrap(), release), [false, true]);
                }
            },
        );
        assert_eq!((store.begun(), core.stats().flushes_beside), (2, beside));
    }
}

/// guards: L02 L36 L37
///
/// The second of two in flight fails first. What the first one brought is durable all the same;
/// what it did not is never said to be; and nobody waits for ever.
#[test]
fn a_flush_in_flight_outlives_the_failure_of_one_behind_it() {
    for second in [Ending::Failure, Ending::Panic] {
        let store = Devious::new(second);
        let core = with_two_full_slots(
            &store,
            2,
            |core, one| {
                let outcome = core.settled(one);
                assert!(outcome.is_ok() || second == Ending::Panic, "{outcome:?}");
            },
            |core, two| {
                let settled =
                    || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| core.settled(two)));
                let outcome = settled().unwrap_or_else(|_| settled().unwrap());
                assert!(matches!(outcome, Err(Error::InDoubt { .. })), "{outcome:?}");
                store.release();
            },
        );
        assert!(core.close().is_err());
        let guard = core.lock();
        assert_eq!((guard.in_air(), core.reader_of(&guard).durable().count()), (0, 1));
    }
}

/// guards: L11 L36 L37
///
/// Who closes waits until nothing is in flight: the mark says that everything is durable.
#[test]
fn a_log_is_closed_when_everything_has_landed() {
    let closed = |close: &(dyn Fn(&Core) + Sync)| {
        let (store, mut seen) = (Devious::new(Ending::Success), [false; 2]);
        let first = |core: &Core, one| core.settled(one).unwrap();
        let core = with_two_full_slots(&store, 2, first, |core, _| {
            seen = returns(|| close(core), || store.release())
        });
        let guard = core.lock();
        (seen, guard.marked && guard.durable == guard.end.lsn && guard.end.seq == Seq(3))
    };
    assert_eq!(closed(&|core| core.close().unwrap()), ([false, true], true));
    // Part of the mutation catalogue: the store that shows it is here.
    #[cfg(feature = "mutations")]
    {
        let (seen, _) = closed(&|core| {
            crate::mutation::Mutation::DecideInFlight.during(|| core.close().unwrap())
        });
        assert_eq!(seen, [true, true], "a log is closed while a flush is in flight");
    }
}
