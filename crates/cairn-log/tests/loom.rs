//! guards: L01 L02 L36 L37
//!
//! The commit gate under loom: every interleaving of a few threads, up to a bound on preemptions.
//! Nobody is acknowledged who is not durable, nobody waits for ever, a failure reaches everybody.
//!
//! ```sh
//! RUSTFLAGS="--cfg cairn_loom" cargo test --release -p cairn-log --test loom -- --nocapture
//! ```
#![cfg(cairn_loom)]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test"
)]

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cairn_io::Store;
use cairn_log::{Error, Log, Lsn};
use loom::thread;

/// Memory with a barrier that covers what had been written when it was called, and that loom may
/// interrupt.
#[derive(Debug, Default)]
struct Device {
    live: Mutex<Vec<u8>>,
    durable_len: AtomicU64,
    fail: AtomicBool,
    /// More than 1 for durable writes in one piece, each of which makes durable what it writes.
    block: Option<usize>,
    direct: Mutex<Vec<Range<u64>>>,
    direct_begun: AtomicU64,
}

impl Store for Device {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        thread::yield_now();
        let mut live = self.live.lock().unwrap();
        let end = offset as usize + bytes.len();
        if live.len() < end {
            live.resize(end, 0);
        }
        live[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let live = self.live.lock().unwrap();
        let rest = live.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.live.lock().unwrap().truncate(len as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let len = self.live.lock().unwrap().len() as u64;
        thread::yield_now();
        if self.fail.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("told to fail"));
        }
        self.durable_len.fetch_max(len, Ordering::SeqCst);
        Ok(())
    }

    fn write_durable(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let mut end = offset;
        for slice in slices {
            self.write_at(end, slice)?;
            end += slice.len() as u64;
        }
        if self.block.is_none() {
            return self.sync();
        }
        // The first one takes so long that others pass it by.
        let first = self.direct_begun.fetch_add(1, Ordering::SeqCst) == 0;
        (0..if first { 8 } else { 1 }).for_each(|_| thread::yield_now());
        self.direct.lock().unwrap().push(offset..end);
        Ok(())
    }

    fn block_size(&self) -> usize {
        self.block.unwrap_or(1)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.live.lock().unwrap().len() as u64)
    }
}

/// The superblock precedes position zero.
fn is_durable(device: &Device, lsn: Lsn) -> bool {
    let mut durable = device.durable_len.load(Ordering::SeqCst);
    let direct = device.direct.lock().unwrap();
    while let Some(range) = direct.iter().find(|range| range.contains(&durable)) {
        durable = range.end;
    }
    durable > 4096 + lsn.0
}

fn explore(name: &str, preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        test();
    });
    println!("loom: {name}: {} interleavings", count.load(Ordering::Relaxed));
}

fn opened() -> (Arc<Device>, Arc<Log>) {
    let device = Arc::new(Device::default());
    let log = Log::with_store(device.clone(), Log::options()).unwrap();
    (device, Arc::new(log))
}

#[test]
fn a_commit_is_durable_when_it_returns() {
    explore("two commits", 3, || {
        let (device, log) = opened();
        let other = thread::spawn({
            let (device, log) = (device.clone(), log.clone());
            move || {
                let lsn = log.commit(b"b").unwrap();
                assert!(is_durable(&device, lsn) && log.durable_lsn() > lsn);
            }
        });
        let lsn = log.commit(b"a").unwrap();
        assert!(is_durable(&device, lsn));
        other.join().unwrap();
        assert_eq!(log.durable_lsn(), log.appended_lsn());
    });
}

#[test]
fn three_waiters_are_all_woken() {
    explore("an append and three syncs", 2, || {
        let (device, log) = opened();
        let lsn = log.append(b"a").unwrap();
        let sync = |log: Arc<Log>, device: Arc<Device>| {
            move || {
                log.sync_to(lsn).unwrap();
                assert!(is_durable(&device, lsn));
            }
        };
        let threads = [(); 2].map(|()| thread::spawn(sync(log.clone(), device.clone())));
        sync(log, device)();
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
}

#[test]
fn a_failed_barrier_reaches_everybody() {
    explore("two commits and a failed barrier", 3, || {
        let (device, log) = opened();
        device.fail.store(true, Ordering::SeqCst);
        let commit = |log: Arc<Log>, device: Arc<Device>| {
            move || match log.commit(b"x") {
                Ok(lsn) => assert!(is_durable(&device, lsn)),
                Err(Error::InDoubt { .. } | Error::Poisoned { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        };
        let other = thread::spawn(commit(log.clone(), device.clone()));
        commit(log.clone(), device)();
        other.join().unwrap();
        assert!(matches!(log.append(b"y"), Err(Error::Poisoned { .. })));
    });
}

#[test]
fn a_truncation_waits_for_commits_and_they_for_it() {
    explore("a commit and a truncation", 3, || {
        let (device, log) = opened();
        let first = log.commit(b"a").unwrap();
        let other = thread::spawn({
            let (device, log) = (device.clone(), log.clone());
            move || {
                let lsn = log.commit(b"b").unwrap();
                assert!(is_durable(&device, lsn));
            }
        });
        log.truncate_before(first).unwrap();
        other.join().unwrap();
        assert_eq!(log.reader(Lsn::START).unwrap().count(), 2);
    });
}

/// Full buffers, so that there may be two flushes in flight.
#[test]
fn of_two_flushes_in_flight_the_later_one_is_not_durable_before_the_other() {
    let beside = Arc::new(AtomicU64::new(0));
    let counted = beside.clone();
    explore("a sync of a full buffer, and one who fills and syncs the next", 2, move || {
        let device = Arc::new(Device { block: Some(512), ..Device::default() });
        let log =
            Arc::new(Log::with_store(device.clone(), Log::options().buffer_size(4 << 10)).unwrap());
        let first = log.append(&[1; 3000]).unwrap();
        let second = log.append(&[2; 3000]).unwrap();
        let other = thread::spawn({
            let (device, log) = (device.clone(), log.clone());
            move || {
                log.append(&[3; 3000]).unwrap();
                log.sync_to(second).unwrap();
                assert!(is_durable(&device, second) && log.durable_lsn() > second);
            }
        });
        log.sync_to(first).unwrap();
        assert!(is_durable(&device, first) && log.durable_lsn() > first);
        other.join().unwrap();
        log.sync().unwrap();
        assert_eq!(log.durable_lsn(), log.appended_lsn());
        counted.fetch_add(log.stats().flushes_beside, Ordering::Relaxed);
    });
    assert!(beside.load(Ordering::Relaxed) > 0);
}
