//! guards: L64
//!
//! Age, by a clock that jumps, and segments that are ended by call and by age.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use cairn_io::{Dir, Fs, MemStore};
use cairn_log::{EndState, Floor, Inspection, Log, Lsn, Mutation, Options, Retention, Seq};
use cairn_sim::SimFs;

const DAY: i64 = 86_400;
const DIR: &str = "/log";

/// A file system with a clock that is set forward and back.
#[derive(Debug)]
struct Clocked(SimFs, AtomicI64);

impl Clocked {
    fn new() -> Arc<Self> {
        Arc::new(Clocked(SimFs::new(), AtomicI64::new(0)))
    }

    /// Sets it so many seconds after 2026, or before.
    fn set(&self, seconds: i64) {
        self.1.store(seconds, Ordering::Relaxed);
    }
}

impl Fs for Clocked {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        self.0.open_dir(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }
    fn background(&self) -> bool {
        false
    }
    fn now(&self) -> SystemTime {
        let at = 56 * 365 * DAY + self.1.load(Ordering::Relaxed);
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at).unwrap())
    }
    fn random(&self) -> io::Result<[u8; 16]> {
        self.0.random()
    }
}

fn options(fs: &Arc<Clocked>) -> Options {
    Log::options().segment_size(8 << 10).fs(fs.clone())
}

fn append(log: &Log, count: u64) {
    for _ in 0..count {
        log.append(&[7; 300]).unwrap();
        log.sync().unwrap();
    }
}

/// Number of the oldest record.
fn oldest(log: &Log) -> u64 {
    log.reader(log.head_lsn()).unwrap().next_record().unwrap().map_or(u64::MAX, |r| r.seq().0)
}

fn days(n: u64) -> Retention {
    Retention::Age(Duration::from_secs(n * DAY as u64))
}

/// The clock is a year ahead, or back, for a moment, just when old records are dropped.
fn a_clock_wrong_for_a_moment() -> Result<(), String> {
    for wrong in [365 * DAY, 10_000 * DAY, -365 * DAY] {
        let fs = Clocked::new();
        let log = options(&fs).open(DIR).unwrap();
        append(&log, 400);
        fs.set(wrong);
        log.retain(days(7)).unwrap();
        log.retain(days(7)).unwrap();
        fs.set(0);
        log.retain(days(7)).unwrap();
        if oldest(&log) != 0 {
            return Err(format!("{wrong} s: oldest is number {}", oldest(&log)));
        }
    }
    Ok(())
}

/// Segments are begun while the clock is wrong; then it is right.
fn a_clock_wrong_while_segments_are_begun() -> Result<(), String> {
    let fs = Clocked::new();
    let log = options(&fs).open(DIR).unwrap();
    append(&log, 200);
    // One segment says that it was begun in 1970, as after a start without a network.
    fs.set(-56 * 365 * DAY + 1);
    append(&log, 30);
    fs.set(100);
    append(&log, 200);
    log.retain(days(7)).unwrap();
    if oldest(&log) != 0 {
        return Err(format!("dropped up to number {} for being 56 years old", oldest(&log)));
    }
    // And others in a year that is still to come.
    fs.set(365 * DAY);
    append(&log, 30);
    fs.set(200);
    append(&log, 200);
    fs.set(30 * DAY);
    append(&log, 60);
    log.retain(days(7)).unwrap();
    let found = oldest(&log);
    if !(600..=660).contains(&found) {
        return Err(format!("30 days later the oldest is number {found}"));
    }
    Ok(())
}

#[test]
fn a_clock_that_is_wrong_for_a_moment_drops_nothing() {
    assert_eq!(a_clock_wrong_for_a_moment(), Ok(()));
    let bug = Mutation::TrustClock.during(a_clock_wrong_for_a_moment);
    println!("TrustClock: {}", bug.unwrap_err());
}

#[test]
fn segments_begun_at_a_wrong_time_are_as_old_as_their_neighbours() {
    assert_eq!(a_clock_wrong_while_segments_are_begun(), Ok(()));
    let bug = Mutation::TrustEachMoment.during(a_clock_wrong_while_segments_are_begun);
    println!("TrustEachMoment: {}", bug.unwrap_err());
}

/// Also in the next process: superblocks say when segments were begun.
#[test]
fn what_another_process_wrote_at_a_wrong_time_is_dropped_when_it_is_old() {
    let fs = Clocked::new();
    for (at, count) in [(365 * DAY, 100), (0, 200), (30 * DAY, 200)] {
        fs.set(at);
        let log = options(&fs).open(DIR).unwrap();
        append(&log, count);
        log.close().unwrap();
    }
    let log = options(&fs).open(DIR).unwrap();
    log.retain(days(7)).unwrap();
    assert!((250..=300).contains(&oldest(&log)), "{}", oldest(&log));
}

#[test]
fn a_floor_stays_whatever_the_clock_says() {
    for floor in [Floor::Records(100), Floor::Bytes(40_000)] {
        let fs = Clocked::new();
        let log = options(&fs).open(DIR).unwrap();
        append(&log, 400);
        fs.set(365 * DAY);
        append(&log, 1);
        let age = Duration::from_secs(7 * DAY as u64);
        log.retain(Retention::AgeAbove { age, floor }).unwrap();
        let (kept, bytes) = (401 - oldest(&log), log.appended_lsn() - log.head_lsn());
        match floor {
            Floor::Records(records) => assert!((records..records + 40).contains(&kept), "{kept}"),
            Floor::Bytes(least) => assert!((least..least + 12_000).contains(&bytes), "{bytes}"),
            _ => unreachable!(),
        }
        log.retain(days(7)).unwrap();
        assert!(oldest(&log) > 370, "{}", oldest(&log));
    }
}

#[test]
fn a_quiet_log_loses_what_is_old_and_the_file_later() {
    let fs = Clocked::new();
    let log = options(&fs).segment_size(1 << 20).open(DIR).unwrap();
    for year in 0..5 {
        fs.set(year * 365 * DAY);
        append(&log, 10);
        log.retain(days(1)).unwrap();
        assert_eq!(oldest(&log), 10 * year as u64);
        let segments = Inspection::open_on(fs.clone(), DIR).unwrap().segments().len();
        assert!(segments <= 2, "{segments} segments in year {year}");
    }
    log.close().unwrap();
}

/// In a store, too, which has one segment for ever.
#[test]
fn a_quiet_log_in_a_store_loses_what_is_old() {
    let fs = Clocked::new();
    let log = options(&fs).open_store(Arc::new(MemStore::new())).unwrap();
    append(&log, 10);
    fs.set(365 * DAY);
    append(&log, 1);
    log.retain(days(1)).unwrap();
    assert_eq!(oldest(&log), 10);
}

#[test]
fn a_segment_is_ended_by_call_unless_it_holds_nothing() {
    let fs = Clocked::new();
    let log = options(&fs).open(DIR).unwrap();
    let count = || Inspection::open_on(fs.clone(), DIR).unwrap().segments().len();
    log.rotate().unwrap();
    assert_eq!(count(), 1);
    for n in 1..=5 {
        log.append(b"few").unwrap();
        log.rotate().unwrap();
        log.rotate().unwrap();
        // One without a group is no part of the log yet.
        assert_eq!((count(), log.durable_lsn()), (n, log.appended_lsn()));
    }
    log.truncate_before(log.appended_lsn()).unwrap();
    assert_eq!(count(), 1);
    log.commit(b"on").unwrap();
    log.close().unwrap();
    let found = Inspection::open_on(fs.clone(), DIR).unwrap();
    assert_eq!((found.end_state(), found.next_seq()), (EndState::Closed, Seq(6)));
    assert!(found.verify(|_| ()).unwrap().problems.is_empty());
    let store = options(&fs).open_store(Arc::new(MemStore::new())).unwrap();
    store.append(b"one segment").unwrap();
    store.rotate().unwrap();
    assert_eq!(store.durable_lsn(), store.appended_lsn());
}

/// One thread finds that another one has dropped more.
#[test]
fn retention_from_three_threads_never_fails() {
    let fs = Clocked::new();
    let log = options(&fs).open(DIR).unwrap();
    std::thread::scope(|scope| {
        for n in 0..3u64 {
            let log = &log;
            scope.spawn(move || {
                for i in 0..300 {
                    log.append(&[n as u8; 900]).unwrap();
                    let keep = match i % 3 {
                        0 => Retention::Bytes(20_000 + 5_000 * n),
                        1 => Retention::From(Lsn(log.appended_lsn().0.saturating_sub(9_000))),
                        _ => Retention::Age(Duration::ZERO),
                    };
                    log.retain(keep).unwrap_or_else(|e| panic!("{keep:?}: {e}"));
                }
            });
        }
    });
    log.close().unwrap();
}

/// What a look says would be kept is what a writer that opens the log then keeps.
#[test]
fn a_look_knows_what_would_be_kept() {
    let mut kept = std::collections::BTreeSet::new();
    for seed in 0..60u64 {
        let fs = Clocked::new();
        for opening in 0..1 + seed % 3 {
            fs.set((opening * (seed % 7)) as i64 * DAY);
            let log = options(&fs).open(DIR).unwrap();
            append(&log, 20 + 13 * (seed % 11));
            log.close().unwrap();
        }
        fs.set((seed % 20) as i64 * DAY);
        let look = Inspection::open_on(fs.clone(), DIR).unwrap();
        let keep = match seed % 4 {
            0 => Retention::Bytes(seed * 1500),
            1 => Retention::From(Lsn(look.end_lsn().0 / (1 + seed % 5))),
            2 => days(seed % 9),
            _ => {
                let (age, floor) = (Duration::from_secs(seed), Floor::Records(seed));
                Retention::AgeAbove { age, floor }
            }
        };
        let would = look.first_seq_retained(keep);
        let log = options(&fs).open(DIR).unwrap();
        log.retain(keep).unwrap();
        let first = oldest(&log).min(log.next_seq().0);
        assert_eq!(would, Seq(first), "seed {seed}: {keep:?}");
        kept.insert(first.min(2));
        log.close().unwrap();
    }
    assert!(kept.len() > 1, "nothing was ever dropped: {kept:?}");
}
