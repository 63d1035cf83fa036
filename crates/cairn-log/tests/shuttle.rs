//! guards: L01 L02 L09 L35 L36 L37
//!
//! The whole log under shuttle: several writers, syncers, a follower and truncations on the
//! simulated file system, in thousands of random schedules; then power cuts at points of what they
//! did. Nobody hangs, nobody is told what is not so.
//!
//! ```sh
//! RUSTFLAGS="--cfg cairn_shuttle" cargo test --release -p cairn-log --test shuttle -- --nocapture
//! ```
#![cfg(cairn_shuttle)]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test"
)]

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use cairn_io::{Backend, File, Layer, Layered, Stat, Through};
use cairn_log::{Dropped, Error, Inspection, Log, Lsn, Retention, Seq};
use cairn_sim::{Call, CrashExplorer, Errno, FaultPlan, SimFs};
use shuttle::rand::Rng as _;
use shuttle::thread;

/// Every call lets other threads run before and after it, so that barriers and writes are no single
/// steps.
#[derive(Debug)]
struct Interrupted;

#[derive(Debug)]
struct InterruptedFile(Arc<dyn File>);

fn interrupted<T>(call: impl FnOnce() -> T) -> T {
    thread::yield_now();
    let result = call();
    thread::yield_now();
    result
}

impl Interrupted {
    fn pass(&self, call: Through) {
        let changes = [Through::CreateNew, Through::Rename, Through::Remove, Through::Sync];
        if changes.contains(&call) {
            thread::yield_now();
        }
    }
}

impl Layer for Interrupted {
    fn before(&self, call: Through, _: &Path, _: Option<&Path>) -> io::Result<()> {
        self.pass(call);
        Ok(())
    }
    fn after(&self, call: Through, _: &Path, _: Option<&Path>) -> io::Result<()> {
        self.pass(call);
        Ok(())
    }
    fn file(&self, _: Through, _: &Path, file: Arc<dyn File>) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(InterruptedFile(file)))
    }
    /// There may be threads besides the test's.
    fn background(&self, _: bool) -> bool {
        true
    }
}

impl File for InterruptedFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        interrupted(|| self.0.write_at(offset, slices))
    }
    fn block_size(&self) -> usize {
        self.0.block_size()
    }
    fn backend(&self) -> Backend {
        self.0.backend()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        interrupted(|| self.0.set_len(len))
    }
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.allocate(offset, len)
    }
    fn sync_data(&self) -> io::Result<()> {
        interrupted(|| self.0.sync_data())
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.0.try_lock()
    }
    fn unlock(&self) -> io::Result<()> {
        self.0.unlock()
    }
    fn stat(&self) -> io::Result<Stat> {
        self.0.stat()
    }
    fn data_from(&self, offset: u64) -> io::Result<u64> {
        self.0.data_from(offset)
    }
}

/// What callers were told, with the number of system calls made by then.
type Told = Arc<Mutex<Vec<(usize, Seq, Vec<u8>)>>>;

/// With a thread that prepares, as `Interrupted` does not say that there must be none.
fn open(sim: &SimFs, backend: Backend) -> cairn_log::Result<Log> {
    let fs = Arc::new(Layered::new(Arc::new(sim.clone()), Interrupted));
    let options = Log::options().segment_size(8 << 10).buffer_size(4 << 10).buffers(2);
    let log = options.direct_io(backend == Backend::Direct).fs(fs).open("/log")?;
    assert_eq!(log.backend(), backend);
    Ok(log)
}

/// Every record acknowledged by `point` is in the log.
fn check(told: &Told, point: usize, sim: &SimFs, backend: Backend) -> Result<(), String> {
    let log = open(sim, backend).map_err(|e| format!("does not open: {e}"))?;
    let mut found = HashMap::new();
    for record in log.reader(Lsn::START).map_err(|e| e.to_string())? {
        let record = record.map_err(|e| e.to_string())?;
        found.insert(record.seq(), record.payload().to_vec());
    }
    for (at, seq, payload) in told.lock().unwrap().iter() {
        if *at <= point && found.get(seq) != Some(payload) {
            return Err(format!("record {seq} was acknowledged"));
        }
    }
    Ok(())
}

fn explore(
    name: &str,
    schedules: usize,
    test: impl Fn(Backend, &AtomicU64) + Send + Sync + 'static,
) {
    let test = Arc::new(test);
    for backend in [Backend::Buffered, Backend::Direct] {
        let states = Arc::new(AtomicU64::new(0));
        let (counted, test) = (states.clone(), test.clone());
        shuttle::check_random(move || test(backend, &counted), schedules);
        let states = states.load(Ordering::Relaxed);
        println!(
            "shuttle: {name}, {backend:?}: {schedules} schedules, {states} crash states after them"
        );
    }
}

fn commit(log: &Log, sim: &SimFs, told: &Told, payload: Vec<u8>) {
    let lsn = log.append(&payload).unwrap();
    log.sync_to(lsn).unwrap();
    let at = sim.op_count();
    assert!(log.durable_lsn() > lsn);
    let seq = log.reader(lsn).unwrap().next().unwrap().unwrap().seq();
    told.lock().unwrap().push((at, seq, payload));
}

#[test]
fn writers_syncers_batches_and_a_follower() {
    explore("three writers, a syncer, a follower", 2000, |backend, states| {
        let sim = SimFs::new();
        let log = Arc::new(open(&sim, backend).unwrap());
        let told = Told::default();
        let mut follower = log.follow(Lsn::START).unwrap();
        let mut threads = Vec::new();
        for writer in 0..2u8 {
            let (log, sim, told) = (log.clone(), sim.clone(), told.clone());
            threads.push(thread::spawn(move || {
                for n in 0..3u8 {
                    commit(&log, &sim, &told, vec![writer * 16 + n; 900 + usize::from(n)]);
                }
            }));
        }
        threads.push(thread::spawn({
            let log = log.clone();
            move || {
                let range = log.append_batch([[200; 700], [201; 700], [202; 700]]).unwrap();
                log.flush().unwrap();
                log.sync_to(*range.end()).unwrap();
            }
        }));
        threads.push(thread::spawn({
            let log = log.clone();
            move || log.sync().unwrap()
        }));
        let mut seen = Vec::new();
        while seen.len() < 9 {
            let record = follower.next_blocking().unwrap().unwrap();
            assert!(record.lsn() < log.durable_lsn(), "a follower returns durable records only");
            assert_eq!(record.seq(), Seq(seen.len() as u64));
            seen.push(record.payload()[0]);
        }
        threads.into_iter().for_each(|t| t.join().unwrap());
        let batch = seen.iter().position(|b| *b == 200).unwrap();
        assert_eq!(seen[batch..batch + 3], [200, 201, 202], "a batch is in one piece");
        let explorer = CrashExplorer::new(sim.trace()).exhaustive_limit(1).samples_per_point(4);
        let report = explorer.for_each(|state| {
            // One state in eight: schedules matter more here.
            if state.fingerprint() % 8 != 0 {
                return Ok(());
            }
            states.fetch_add(1, Ordering::Relaxed);
            check(&told, state.point(), &state.fs(), backend)
        });
        report.unwrap();
        Arc::into_inner(log).unwrap().close().unwrap();
    });
}

/// A record that only the log after the cut has: whether it is followed or not, the cut is none
/// that the follower has to be told of.
#[test]
fn a_follower_made_beside_a_cut_knows_it() {
    explore("a follower made beside a cut", 2000, |backend, _| {
        let sim = SimFs::new();
        let log = Arc::new(open(&sim, backend).unwrap());
        let first = log.commit(&[0; 100]).unwrap();
        log.append_batch([[1; 100], [2; 100]]).unwrap();
        let cutter = thread::spawn({
            let log = log.clone();
            move || {
                log.truncate_after(first).unwrap();
                log.append_batch((11..16).map(|n| [n; 100])).unwrap();
                log.sync().unwrap();
            }
        });
        let mut follower = loop {
            match log.follow(Seq(4)) {
                Ok(follower) => break follower,
                Err(Error::SeqOutOfRange { .. }) => thread::yield_now(),
                Err(error) => panic!("{error:?}"),
            }
        };
        let record = follower.next_blocking().unwrap().unwrap();
        assert_eq!((record.seq(), record.payload()), (Seq(4), &[14; 100][..]));
        cutter.join().unwrap();
        Arc::into_inner(log).unwrap().close().unwrap();
    });
}

/// A follower feeds a copy while the log is cut twice, at either end of what it may have returned.
#[test]
fn a_copy_of_a_log_that_is_cut_is_the_log() {
    explore("a copy beside two cuts", 2000, |backend, _| {
        let sim = SimFs::new();
        let log = Arc::new(open(&sim, backend).unwrap());
        let first = log.commit(&[0; 100]).unwrap();
        log.append_batch([[1; 100], [2; 100], [3; 100]]).unwrap();
        log.sync().unwrap();
        let mut follower = log.follow(Lsn::START).unwrap();
        let copier = thread::spawn(move || {
            let mut copy: Vec<(Lsn, Vec<u8>)> = Vec::new();
            loop {
                match follower.next_blocking() {
                    Ok(None) => return copy,
                    Ok(Some(record)) => copy.push((record.lsn(), record.payload().to_vec())),
                    Err(Error::Truncated { lsn, dropped: Dropped::Returned }) => {
                        assert!(copy.last().is_some_and(|last| last.0 >= lsn));
                        copy.retain(|(at, _)| *at < lsn);
                        follower.resume().unwrap();
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
        log.truncate_after(first).unwrap();
        let second = log.append_batch((11..17).map(|n| [n; 100])).unwrap();
        log.sync().unwrap();
        // Above all that the copy can have if it has not looked since the first cut.
        let last = log.reader(Seq(5)).unwrap().next().unwrap().unwrap();
        assert!(last.lsn() > *second.start());
        log.truncate_after(last.lsn()).unwrap();
        log.commit(&[21; 100]).unwrap();
        let expected: Vec<_> = log
            .reader(Lsn::START)
            .unwrap()
            .map(|record| record.map(|record| (record.lsn(), record.payload().to_vec())).unwrap())
            .collect();
        Arc::into_inner(log).unwrap().close().unwrap();
        assert_eq!(copier.join().unwrap(), expected);
    });
}

#[test]
fn tickets_are_settled_by_the_time_a_log_is_closed() {
    explore("tickets and a close", 2000, |backend, _| {
        let sim = SimFs::new();
        let log = open(&sim, backend).unwrap();
        let tickets: Vec<_> = (0..3u8).map(|n| log.submit(&[n; 100]).unwrap()).collect();
        let heard = Arc::new(AtomicU64::new(0));
        let hears = heard.clone();
        log.submit(b"called back").unwrap().on_durable(move |result| {
            assert!(result.is_ok());
            hears.fetch_add(1, Ordering::SeqCst);
        });
        let waiter = thread::spawn(move || {
            tickets.into_iter().for_each(|t| shuttle::future::block_on(t).unwrap())
        });
        log.close().unwrap();
        waiter.join().unwrap();
        assert_eq!(heard.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_failed_barrier_leaves_nobody_waiting_and_nobody_believing() {
    for nth in 0..3 {
        fail_a_barrier(nth);
    }
}

fn fail_a_barrier(nth: u64) {
    explore(&format!("three writers, barrier {nth} fails"), 1000, move |backend, states| {
        let sim = SimFs::new();
        let log = Arc::new(open(&sim, backend).unwrap());
        let told = Told::default();
        let call = if backend == Backend::Direct { Call::WriteDirect } else { Call::Sync };
        sim.set_faults(FaultPlan::new().fail(call, nth, Errno::Eio));
        let writers: Vec<_> = (0..3u8)
            .map(|writer| {
                let (log, sim, told) = (log.clone(), sim.clone(), told.clone());
                thread::spawn(move || {
                    for n in 0..3u8 {
                        let payload = vec![writer * 16 + n; 200];
                        match log.append(&payload) {
                            Ok(lsn) => match log.sync_to(lsn) {
                                Ok(()) => {
                                    let at = sim.op_count();
                                    let seq = log
                                        .reader(lsn)
                                        .unwrap()
                                        .durable()
                                        .next()
                                        .unwrap()
                                        .unwrap()
                                        .seq();
                                    told.lock().unwrap().push((at, seq, payload));
                                }
                                Err(Error::InDoubt { .. }) => {}
                                Err(other) => panic!("{other:?}"),
                            },
                            Err(Error::Poisoned { .. }) => {}
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|t| t.join().unwrap());
        drop(log);
        let explorer = CrashExplorer::new(sim.trace()).exhaustive_limit(1).samples_per_point(4);
        let report = explorer.for_each(|state| check(&told, state.point(), &state.fs(), backend));
        states.fetch_add(report.unwrap().distinct, Ordering::Relaxed);
    });
}

#[test]
fn truncations_exclude_appends() {
    explore("two writers, both truncations", 2000, |backend, _| {
        let sim = SimFs::new();
        let log = Arc::new(open(&sim, backend).unwrap());
        let first = log.commit(&[1; 100]).unwrap();
        let second = log.commit(&[2; 100]).unwrap();
        let writers: Vec<_> = (0..2u8)
            .map(|writer| {
                let log = log.clone();
                thread::spawn(move || {
                    for n in 0..2u8 {
                        log.append_batch([[writer * 16 + n; 300], [writer * 16 + n; 300]]).unwrap();
                    }
                    // A cut may have taken the records: then nothing is left to be durable.
                    log.sync().unwrap();
                })
            })
            .collect();
        let cutter = thread::spawn({
            let log = log.clone();
            move || log.truncate_after(second).unwrap()
        });
        log.truncate_before(second).unwrap();
        cutter.join().unwrap();
        writers.into_iter().for_each(|t| t.join().unwrap());
        let records: Vec<_> = log.reader(Lsn::START).unwrap().map(|r| r.unwrap()).collect();
        assert_eq!(records[0].payload(), [2; 100]);
        assert!(matches!(log.reader(first), Err(Error::OutOfRange { .. })));
        for (n, record) in records.iter().enumerate() {
            assert_eq!(record.seq(), Seq(1 + n as u64));
        }
        for pair in records[1..].chunks(2) {
            assert!(
                pair.len() == 2 && pair[0].payload() == pair[1].payload(),
                "a batch is cut as a whole"
            );
        }
    });
}

/// One thread finds that another one has dropped more, or is about to.
#[test]
fn retention_from_three_threads_never_fails() {
    explore("three threads append and retain", 2000, |backend, _| {
        let sim = SimFs::new();
        let log = Arc::new(open(&sim, backend).unwrap());
        for _ in 0..20 {
            log.append(&[0; 900]).unwrap();
        }
        let others: Vec<_> = (1..4u64)
            .map(|n| {
                let log = log.clone();
                thread::spawn(move || {
                    for _ in 0..2 {
                        log.append(&[n as u8; 900]).unwrap();
                        log.retain(Retention::Bytes(8_000 * n)).unwrap();
                        let end = log.appended_lsn().0;
                        log.retain(Retention::From(Lsn(end.saturating_sub(9_000)))).unwrap();
                    }
                })
            })
            .collect();
        others.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(log.next_seq(), Seq(26));
    });
}

/// Nobody waits for a chunk that nobody reads, each is handed out once and in order, and a reader
/// can stop at any time.
#[test]
fn a_reader_and_the_thread_that_reads_ahead() {
    const RECORDS: usize = 50;
    const SCHEDULES: usize = 3000;
    let written = OnceLock::new();
    let test = move || {
        let sim = written.get_or_init(|| {
            let sim = SimFs::new();
            let options = Log::options()
                .direct_io(false)
                .fs(Arc::new(Layered::new(Arc::new(sim.clone()), Interrupted)));
            let log = options.open("/log").unwrap();
            // Together more than reading ahead is begun for; each may begin in one chunk and end in
            // the next.
            for n in 0..RECORDS {
                log.append(&vec![n as u8; 60_000 + n]).unwrap();
            }
            log.close().unwrap();
            sim
        });
        let look =
            Inspection::open_on(Arc::new(Layered::new(Arc::new(sim.clone()), Interrupted)), "/log")
                .unwrap();
        assert_eq!(look.next_seq(), Seq(RECORDS as u64));
        let read = shuttle::rand::thread_rng().gen_range(RECORDS / 2..=RECORDS);
        for (n, record) in look.reader(Lsn::START).unwrap().take(read).enumerate() {
            assert_eq!(record.unwrap().payload(), vec![n as u8; 60_000 + n]);
        }
    };
    shuttle::check_random(test, SCHEDULES);
    println!("shuttle: a reader that reads ahead: {SCHEDULES} schedules");
}

#[test]
fn a_panicking_writer_disturbs_nobody() {
    explore("a writer that panics in its own iterator", 1500, |backend, _| {
        let sim = SimFs::new();
        let log = Arc::new(open(&sim, backend).unwrap());
        let panicking = thread::spawn({
            let log = log.clone();
            move || {
                let batch = (0..2u8).map(|n| {
                    if n == 1 { std::panic::resume_unwind(Box::new("told to")) } else { [n; 10] }
                });
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    log.append_batch(batch).map(drop)
                }));
                assert!(outcome.is_err());
            }
        });
        log.commit(b"undisturbed").unwrap();
        panicking.join().unwrap();
        assert_eq!(log.reader(Lsn::START).unwrap().count(), 1);
    });
}

/// Two threads of the log's own write full buffers beside each other; one barrier fails in every
/// other schedule. Callbacks are called in any order, and never too early.
#[test]
fn tickets_that_fill_buffers_are_durable_in_order() {
    let beside = Arc::new(AtomicU64::new(0));
    let counted = beside.clone();
    explore(
        "two who submit what fills buffers, and two flushes in flight",
        1000,
        move |backend, states| {
            let sim = SimFs::new();
            let fs = Arc::new(Layered::new(Arc::new(sim.clone()), Interrupted));
            let in_flight = 2 + usize::from(states.load(Ordering::Relaxed) % 3 == 1);
            let options = Log::options()
                .segment_size(64 << 10)
                .buffer_size(4 << 10)
                .buffers(4)
                .flushes_in_flight(in_flight);
            let log = Arc::new(
                options.direct_io(backend == Backend::Direct).fs(fs).open("/log").unwrap(),
            );
            let failing = states.load(Ordering::Relaxed) % 2 == 1;
            if failing {
                sim.set_faults(FaultPlan::new().fail(Call::WriteDirect, 3, Errno::Eio));
            }
            let told = Told::default();
            let writers: Vec<_> = (0..2u8)
                .map(|writer| {
                    let (log, sim, told) = (log.clone(), sim.clone(), told.clone());
                    thread::spawn(move || {
                        for n in 0..8u8 {
                            let payload = vec![writer * 16 + n; 1800];
                            let Ok(ticket) = log.submit(&payload) else { break };
                            let (sim, told, seq) = (sim.clone(), told.clone(), ticket.seq());
                            ticket.on_durable(move |result| {
                                if result.is_ok() {
                                    told.lock().unwrap().push((sim.op_count(), seq, payload));
                                }
                            });
                        }
                    })
                })
                .collect();
            writers.into_iter().for_each(|t| t.join().unwrap());
            assert!(log.sync().is_ok() || failing);
            counted.fetch_add(log.stats().flushes_beside, Ordering::Relaxed);
            drop(log);
            assert!(failing || told.lock().unwrap().len() == 16, "everybody is called");
            let explorer = CrashExplorer::new(sim.trace()).exhaustive_limit(1).samples_per_point(2);
            let report = explorer.for_each(|state| {
                if state.fingerprint() % 4 != 0 {
                    return Ok(());
                }
                states.fetch_add(1, Ordering::Relaxed);
                check(&told, state.point(), &state.fs(), backend)
            });
            report.unwrap();
        },
    );
    let beside = beside.load(Ordering::Relaxed);
    println!("shuttle: {beside} flushes beside another one");
    assert!(beside > 0);
}
