//! Records that somebody holds are not dropped, whoever asks for it; everything else goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_io::MemStore;
use cairn_log::{Error, Floor, Log, Lsn, Mutation, Options, Retention, Seq};
use cairn_sim::SimFs;

fn options() -> Options {
    Log::options().segment_size(8 << 10).buffer_size(4 << 10)
}

fn in_directory() -> Log {
    options().fs(Arc::new(SimFs::new())).open("/log").unwrap()
}

fn commit(log: &Log, count: usize) {
    (0..count).for_each(|_| {
        log.commit(&[7; 500]).unwrap();
    });
}

fn lsn_of(log: &Log, seq: u64) -> Lsn {
    log.reader(Seq(seq)).unwrap().next().unwrap().unwrap().lsn()
}

/// The oldest record that is there.
fn first(log: &Log) -> u64 {
    let next = log.reader(Lsn::START).unwrap().next();
    next.map_or(log.next_seq(), |record| record.unwrap().seq()).0
}

/// Each way to drop records leaves what is held, in a directory and in a store.
fn held_against_every_call() -> Result<(), String> {
    let in_store = || options().open_store(Arc::new(MemStore::new())).unwrap();
    for log in [in_directory(), in_store()] {
        commit(&log, 100);
        let low = log.hold(Seq(20)).unwrap();
        let high = log.hold(lsn_of(&log, 60)).unwrap();
        assert_eq!((low.seq(), high.seq(), high.lsn()), (Seq(20), Seq(60), lsn_of(&log, 60)));
        log.truncate_before(lsn_of(&log, 80)).unwrap();
        log.retain(Retention::From(lsn_of(&log, 90))).unwrap();
        log.retain(Retention::Bytes(0)).unwrap();
        log.retain(Retention::Age(std::time::Duration::ZERO)).unwrap();
        let floor = Floor::Records(1);
        log.retain(Retention::AgeAbove { age: std::time::Duration::ZERO, floor }).unwrap();
        if first(&log) != 20 {
            return Err(format!("record 20 is held, and {} is the first one", first(&log)));
        }
        assert!(log.stats().held_bytes >= 60 * 500, "{:?}", log.stats());
        commit(&log, 20);
        drop(low);
        assert_eq!(first(&log), 20, "no record goes because a guard does");
        // What was asked for is done by the next call, whatever that one asks for.
        log.truncate_before(lsn_of(&log, 30)).unwrap();
        assert_eq!(first(&log), 60);
        drop(high);
        log.retain(Retention::Bytes(u64::MAX)).unwrap();
        assert!(first(&log) >= 80);
        assert_eq!(log.stats().held_bytes, 0);
        assert!(matches!(log.hold(Seq(5)), Err(Error::SeqOutOfRange { .. })));
        assert!(matches!(log.hold(log.head_lsn() + 8), Err(Error::NotARecord { .. })));
        log.close().unwrap();
    }
    Ok(())
}

#[test]
fn what_is_held_is_dropped_by_no_call() {
    assert_eq!(held_against_every_call(), Ok(()));
    println!("IgnoreHolds: {}", Mutation::IgnoreHolds.during(held_against_every_call).unwrap_err());
}

/// What was to be dropped and is cut off instead is not asked for any more: other records get its
/// positions.
#[test]
fn a_cut_takes_back_what_was_asked_for() {
    let log = in_directory();
    commit(&log, 60);
    let hold = log.hold(Seq(10)).unwrap();
    log.truncate_before(lsn_of(&log, 50)).unwrap();
    log.truncate_after(lsn_of(&log, 19)).unwrap();
    commit(&log, 40);
    drop(hold);
    log.retain(Retention::Bytes(u64::MAX)).unwrap();
    assert_eq!(first(&log), 20);
    let hold = log.hold(Seq(30)).unwrap();
    log.truncate_after(lsn_of(&log, 25)).unwrap();
    log.truncate_before(log.appended_lsn()).unwrap();
    assert_eq!(log.next_seq(), Seq(26));
    drop(hold);
    log.close().unwrap();
}

/// Threads hold what they find and read it, while another one drops all that it may.
#[test]
fn what_is_held_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path().join("log")).unwrap();
    commit(&log, 20);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..300 {
                commit(&log, 3);
                log.truncate_before(lsn_of(&log, log.next_seq().0 - 2)).unwrap();
            }
            ended.store(true, Ordering::Relaxed);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut held = 0;
                while !ended.load(Ordering::Relaxed) {
                    let Ok(hold) = log.hold(Lsn::START) else { continue };
                    held += 1;
                    let record = log.reader(hold.lsn()).unwrap().next().unwrap().unwrap();
                    assert_eq!(record.seq(), hold.seq());
                }
                assert!(held > 20, "{held}");
            });
        }
    });
    log.truncate_before(lsn_of(&log, log.next_seq().0 - 1)).unwrap();
    assert!(first(&log) > 800);
}
