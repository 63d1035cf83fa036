//! guards: L01 L02 L09 L35 L36 L37 L49
//!
//! Many threads on one log: who shares a barrier, who is told of a failure, and that nobody waits
//! for ever.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use cairn_io::{MemStore, Store};
use cairn_log::{Error, Failure, Log, Lsn, Seq};
use cairn_sim::{Call, Errno, FaultPlan, SimFs};

fn on(sim: &SimFs) -> Log {
    Log::options()
        .segment_size(64 << 10)
        .buffer_size(4 << 10)
        .direct_io(false)
        .fs(Arc::new(sim.clone()))
        .open("/log")
        .unwrap()
}

/// Ends the test with a message instead of a hang.
pub(crate) fn within<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, waiting) = mpsc::channel();
    let worker = thread::spawn(move || {
        let result = work();
        let _ = done.send(());
        result
    });
    match waiting.recv_timeout(Duration::from_secs(60)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        _ => worker.join().unwrap(),
    }
}

/// Runs a future on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn every_thread_finds_its_commits_in_its_own_order() {
    let sim = SimFs::new();
    let log = on(&sim);
    let (threads, each) = (8u64, 300u64);
    thread::scope(|scope| {
        for t in 0..threads {
            let log = &log;
            scope.spawn(move || {
                let mut last = Lsn::START;
                for n in 0..each {
                    let record = [t.to_le_bytes(), n.to_le_bytes()].concat();
                    let lsn = match n % 3 {
                        0 => log.commit(&record).unwrap(),
                        1 => {
                            let lsn = log.append(&record).unwrap();
                            log.sync_to(lsn).unwrap();
                            lsn
                        }
                        _ => {
                            let ticket = log.submit(&record).unwrap();
                            let lsn = ticket.lsn();
                            ticket.wait().unwrap();
                            lsn
                        }
                    };
                    assert!(lsn > last && log.durable_lsn() > lsn);
                    last = lsn;
                }
            });
        }
    });
    let stats = log.stats();
    assert_eq!(stats.records, threads * each);
    let mut next = vec![0; threads as usize];
    for (i, record) in log.reader(Lsn::START).unwrap().enumerate() {
        let record = record.unwrap();
        assert_eq!(record.seq(), Seq(i as u64));
        let (t, n) = record.payload().split_at(8);
        let t = u64::from_le_bytes(t.try_into().unwrap()) as usize;
        assert_eq!(u64::from_le_bytes(n.try_into().unwrap()), next[t]);
        next[t] += 1;
    }
    assert_eq!(next, vec![each; threads as usize]);
    log.close().unwrap();
}

#[test]
fn those_who_wait_during_a_barrier_share_the_next_one() {
    let sim = SimFs::new();
    let log = Arc::new(on(&sim));
    let before = sim.counters().calls(Call::Sync);
    let hold = sim.hold(Call::Sync);
    let first = thread::spawn({
        let log = log.clone();
        move || log.commit(b"first").unwrap()
    });
    hold.wait_for(1);
    let appended = Arc::new(Barrier::new(9));
    let others: Vec<_> = (0..8u8)
        .map(|n| {
            let (log, appended) = (log.clone(), appended.clone());
            thread::spawn(move || {
                let lsn = log.append(&[n]).unwrap();
                appended.wait();
                log.sync_to(lsn).unwrap();
            })
        })
        .collect();
    appended.wait();
    drop(hold);
    first.join().unwrap();
    within("a waiter", move || others.into_iter().for_each(|t| t.join().unwrap()));
    // Counted at the system calls, not at a counter of the log's own.
    assert_eq!(sim.counters().calls(Call::Sync) - before, 2);
}

#[test]
fn a_failed_barrier_reaches_every_waiter_and_every_later_call() {
    for threads in [1usize, 8] {
        let sim = SimFs::new();
        let log = Arc::new(on(&sim));
        let durable = log.commit(b"durable").unwrap();
        sim.set_faults(FaultPlan::new().fail(Call::Sync, 0, Errno::Eio));
        let hold = sim.hold(Call::Sync);
        let appended = Arc::new(Barrier::new(threads + 1));
        let waiters: Vec<_> = (0..threads)
            .map(|n| {
                let (log, appended) = (log.clone(), appended.clone());
                thread::spawn(move || {
                    let lsn = log.append(&[n as u8; 100]).unwrap();
                    appended.wait();
                    (lsn, log.sync_to(lsn))
                })
            })
            .collect();
        let ticket = log.submit(b"ticket").unwrap();
        let (told, heard) = mpsc::channel();
        log.submit(b"callback").unwrap().on_durable(move |result| told.send(result).unwrap());
        appended.wait();
        hold.wait_for(1);
        drop(hold);
        let results = within("a waiter", move || {
            waiters.into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>()
        });
        for (lsn, result) in results {
            match result {
                Err(Error::InDoubt { lsn: doubted, durable: end, .. }) => {
                    assert!(doubted == lsn && end > durable && end <= lsn)
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(block_on(ticket), Err(Error::InDoubt { .. })));
        assert!(matches!(heard.recv().unwrap(), Err(Error::InDoubt { .. })));
        // The system would say Ok now. The log does not ask.
        assert!(matches!(log.append(b"more"), Err(Error::Poisoned { .. })));
        assert!(matches!(log.sync(), Err(Error::InDoubt { .. })));
        assert!(matches!(log.truncate_after(durable), Err(Error::Poisoned { .. })));
        log.sync_to(durable).unwrap();
        let read: Vec<_> =
            log.reader(Lsn::START).unwrap().durable().map(|r| r.unwrap().into_payload()).collect();
        assert_eq!(read, [&b"durable"[..]]);
        let log = Arc::into_inner(log).unwrap();
        match log.close() {
            Err(Error::Poisoned { cause }) => assert!(matches!(*cause, Failure::Io { .. })),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_was_written_before_a_failed_write_can_still_be_made_durable() {
    let sim = SimFs::new();
    let log = on(&sim);
    let kept = log.append(b"kept").unwrap();
    log.flush().unwrap();
    let lost = log.append(b"lost").unwrap();
    sim.set_faults(FaultPlan::new().fail(Call::Write, 0, Errno::Enospc));
    assert!(log.flush().is_err());
    log.sync_to(kept).unwrap();
    assert!(matches!(log.sync_to(lost), Err(Error::InDoubt { .. })));
    drop(log);
    let log = on(&sim.restart());
    assert_eq!(log.next_seq(), Seq(1));
}

/// A store that panics when told to.
#[derive(Debug, Default)]
struct Panicking {
    store: MemStore,
    panic: AtomicBool,
}

impl Store for Panicking {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.store.write_at(offset, bytes)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.store.read_at(offset, buf)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.store.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        assert!(!self.panic.load(Ordering::Relaxed), "told to panic");
        self.store.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.store.len()
    }
}

#[test]
fn a_store_that_panics_stops_the_log_and_hangs_nobody() {
    let store = Arc::new(Panicking::default());
    let log = Arc::new(Log::with_store(store.clone(), Log::options()).unwrap());
    log.commit(b"durable").unwrap();
    store.panic.store(true, Ordering::Relaxed);
    let committers: Vec<_> = (0..4u8)
        .map(|n| {
            let log = log.clone();
            thread::spawn(move || log.commit(&[n]))
        })
        .collect();
    let panicked = within("a committer", move || {
        committers.into_iter().filter_map(|t| t.join().err()).count()
    });
    assert_eq!(panicked, 1, "the leader's own thread, and no other");
    store.panic.store(false, Ordering::Relaxed);
    match log.append(b"more") {
        Err(Error::Poisoned { cause }) => assert!(matches!(*cause, Failure::Panicked)),
        other => panic!("{other:?}"),
    }
    assert_eq!(log.reader(Lsn::START).unwrap().durable().count(), 1);
}

#[test]
fn a_callers_panic_is_no_business_of_the_logs() {
    let log = Log::with_store(Arc::new(MemStore::new()), Log::options()).unwrap();
    let batch = (0..3).map(|n| if n == 2 { panic!("in the caller's iterator") } else { [n] });
    assert!(
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| log.append_batch(batch))).is_err()
    );
    log.submit(b"a").unwrap().on_durable(|_| panic!("in a callback"));
    let (told, heard) = mpsc::channel();
    log.submit(b"b").unwrap().on_durable(move |result| told.send(result.is_ok()).unwrap());
    assert!(heard.recv().unwrap());
    assert_eq!(log.reader(Lsn::START).unwrap().count(), 2);
    log.close().unwrap();
}

#[test]
fn callbacks_may_use_the_log() {
    let log = Arc::new(Log::with_store(Arc::new(MemStore::new()), Log::options()).unwrap());
    let (told, heard) = mpsc::channel();
    let again = log.clone();
    log.submit(b"a")
        .unwrap()
        .on_durable(move |_| told.send(again.append(b"from the callback")).unwrap());
    within("a callback", move || heard.recv().unwrap().unwrap());
    log.sync().unwrap();
    assert_eq!(log.next_seq(), Seq(2));
}

#[test]
fn a_dropped_ticket_cancels_nothing() {
    let sim = SimFs::new();
    let log = on(&sim);
    let lsn = {
        let ticket = log.submit(b"dropped").unwrap();
        ticket.lsn()
    };
    let last = log.submit(b"last").unwrap();
    block_on(last).unwrap();
    assert!(log.durable_lsn() > lsn);
}

#[test]
fn closing_settles_tickets_and_ends_followers() {
    let sim = SimFs::new();
    let log = on(&sim);
    let mut blocking = log.follow(Lsn::START).unwrap();
    let mut waiting = log.follow(Lsn::START).unwrap();
    let tickets: Vec<_> = (0..100u8).map(|n| log.submit(&[n]).unwrap()).collect();
    let blocked = thread::spawn(move || {
        let mut seen = Vec::new();
        while let Some(record) = blocking.next_blocking().unwrap() {
            seen.push(record.payload()[0]);
        }
        seen
    });
    let polled = thread::spawn(move || {
        let mut seen = Vec::new();
        block_on(async {
            while let Some(record) = waiting.next_record().await.unwrap() {
                seen.push(record.payload()[0]);
            }
        });
        seen
    });
    log.close().unwrap();
    tickets.into_iter().for_each(|ticket| block_on(ticket).unwrap());
    let expected: Vec<u8> = (0..100).collect();
    assert_eq!(within("a follower", move || blocked.join().unwrap()), expected);
    assert_eq!(within("a follower", move || polled.join().unwrap()), expected);
}

#[test]
fn followers_return_nothing_that_is_not_durable() {
    let sim = SimFs::new();
    let log = on(&sim);
    let mut follower = log.follow(Lsn::START).unwrap();
    for n in 0..2000u32 {
        let lsn = log.append(&n.to_le_bytes()).unwrap();
        if n % 7 == 3 {
            log.sync_to(lsn).unwrap();
        } else if n % 7 == 5 {
            log.flush().unwrap();
        }
        while let Some(record) = follower.try_next().unwrap() {
            assert!(record.lsn() < log.durable_lsn());
        }
    }
    log.sync().unwrap();
    let mut rest = 0;
    while follower.try_next().unwrap().is_some() {
        rest += 1;
    }
    assert!(rest < 7);
}

#[test]
fn truncations_and_appends_of_other_threads_exclude_each_other() {
    let sim = SimFs::new();
    let log = Arc::new(on(&sim));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3u64)
        .map(|t| {
            let (log, stop) = (log.clone(), stop.clone());
            thread::spawn(move || {
                let mut n = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    log.append_batch([[t.to_le_bytes(), n.to_le_bytes()].concat(), vec![0; 40]])
                        .unwrap();
                    if n.is_multiple_of(5) {
                        log.sync().unwrap();
                    }
                    n += 1;
                }
            })
        })
        .collect();
    for round in 0..60 {
        let records: Vec<_> =
            log.reader(Lsn::START).unwrap().durable().map(|r| r.unwrap().lsn()).collect();
        if let Some(lsn) = records.get(records.len() / 2) {
            if round % 2 == 0 {
                log.truncate_before(*lsn).unwrap()
            } else {
                log.truncate_after(*lsn).unwrap()
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|t| t.join().unwrap());
    let mut expected =
        log.reader(Lsn::START).unwrap().next().map(|r| r.unwrap().seq().0).unwrap_or(0);
    for record in log.reader(Lsn::START).unwrap() {
        assert_eq!(record.unwrap().seq(), Seq(expected));
        expected += 1;
    }
    assert_eq!(log.next_seq(), Seq(expected));
}

/// A cut takes back records that somebody waits for: they were durable, and nobody goes on waiting
/// for positions that are gone.
#[test]
fn a_cut_settles_whoever_waits_above_it() {
    within("somebody above a cut", || {
        let sim = SimFs::new();
        let log = on(&sim);
        let first = log.commit(b"kept").unwrap();
        let [waited, awaited, called] = [1u8, 2, 3].map(|n| log.submit(&[n; 3000]).unwrap());
        let (told, heard) = mpsc::channel();
        called.on_durable(move |result| told.send(result.is_ok()).unwrap());
        log.truncate_after(first).unwrap();
        assert!(heard.recv().unwrap());
        waited.wait().unwrap();
        block_on(awaited).unwrap();
        let before = sim.counters().calls(Call::Sync);
        log.sync().unwrap();
        assert!(sim.counters().calls(Call::Sync) - before <= 1, "nobody syncs for nothing");
        log.close().unwrap();
    });
}

#[test]
fn waiters_and_followers_live_with_cuts() {
    within("a waiter or a follower", || {
        let sim = SimFs::new();
        let log = Arc::new(on(&sim));
        let stop = Arc::new(AtomicBool::new(false));
        let start = log.commit(b"start").unwrap();
        let workers: Vec<_> = (0..4u8)
            .map(|n| {
                let (log, stop) = (log.clone(), stop.clone());
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        match n {
                            0 => drop(log.submit(&[n; 300]).unwrap()),
                            1 => log.append(&[n; 700]).map(drop).unwrap(),
                            2 => log.sync().unwrap(),
                            _ => {
                                let mut follower = log.follow(log.head_lsn()).unwrap();
                                for _ in 0..20 {
                                    match follower.try_next() {
                                        Ok(_) | Err(Error::Truncated { .. }) => {}
                                        Err(error) => panic!("{error:?}"),
                                    }
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        for _ in 0..40 {
            log.truncate_after(start).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().for_each(|t| t.join().unwrap());
        Arc::into_inner(log).unwrap().close().unwrap();
    });
}
