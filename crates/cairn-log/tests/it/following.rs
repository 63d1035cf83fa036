//! guards: L09 L66
//!
//! What a follower is told when the log is truncated, closed or stopped between two looks. The
//! rules are those in the documentation of `Follower`.

use std::sync::Arc;
use std::thread;

use cairn_io::MemStore;
use cairn_log::{Dropped, Error, Follower, Log, Lsn, Options, Record, Seq};
use cairn_sim::{Call, Errno, FaultPlan, SimFs};

use crate::concurrency::{block_on, within};
use crate::model::Medium;

pub(crate) const MEDIA: [Medium; 2] = [Medium::Directory, Medium::File];

fn options() -> Options {
    Log::options().segment_size(8 << 10).buffer_size(4 << 10)
}

pub(crate) fn on(medium: Medium, sim: &SimFs) -> Log {
    medium.open(sim, &options()).unwrap()
}

/// Commits `a0`, `a1` and so on; returns where they start.
fn commit(log: &Log, prefix: &str, count: usize) -> Vec<Lsn> {
    (0..count).map(|n| log.commit(format!("{prefix}{n}").as_bytes()).unwrap()).collect()
}

/// Has a follower return this many records.
fn follow(log: &Log, count: usize) -> (Follower, Lsn) {
    let mut follower = log.follow(Lsn::START).unwrap();
    let mut position = Lsn::START;
    for _ in 0..count {
        position = follower.try_next().unwrap().unwrap().end_lsn();
    }
    (follower, position)
}

fn payload(found: Result<Option<Record>, Error>) -> Option<String> {
    found.unwrap().map(|record| String::from_utf8_lossy(record.payload()).into_owned())
}

/// What the error of a follower says.
fn told<T: std::fmt::Debug>(found: Result<T, Error>) -> (Lsn, Dropped) {
    match found {
        Err(Error::Truncated { lsn, dropped }) => (lsn, dropped),
        other => panic!("{other:?}"),
    }
}

/// A follower that returned `a0` to `a9`, and does not look while `a3` to `a9` are replaced and the
/// log is cut above its position. The positions of the new records depend on `width`.
fn replaced(log: &Log, width: usize) {
    let first = commit(log, "a", 10);
    let (mut follower, _) = follow(log, 10);
    log.truncate_after(first[2]).unwrap();
    let second: Vec<Lsn> =
        (0..20).map(|n| log.commit(format!("b{n:0width$}").as_bytes()).unwrap()).collect();
    log.truncate_after(second[15]).unwrap();
    let kept = log.reader(first[2]).unwrap().next().unwrap().unwrap();
    assert_eq!(told(follower.try_next()), (kept.end_lsn(), Dropped::Returned), "width {width}");
    // From there on the log has what a copy of it lacks.
    let rest: Vec<Seq> =
        log.reader(kept.end_lsn()).unwrap().map(|record| record.unwrap().seq()).collect();
    assert_eq!(rest, (3..19).map(Seq).collect::<Vec<_>>());
}

#[test]
fn a_later_cut_does_not_hide_a_lower_one() {
    for medium in MEDIA {
        for width in 1..60 {
            replaced(&on(medium, &SimFs::new()), width);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    for width in [1, 33, 40, 48] {
        replaced(&Log::open(dir.path().join(width.to_string())).unwrap(), width);
    }
}

#[test]
fn a_follower_below_all_cuts_misses_nothing() {
    for medium in MEDIA {
        let log = on(medium, &SimFs::new());
        let first = commit(&log, "a", 10);
        let (mut follower, _) = follow(&log, 4);
        for round in 0..3 {
            log.truncate_after(first[3]).unwrap();
            commit(&log, &format!("b{round}-"), 9);
        }
        for n in 0..9 {
            let expected = Some(format!("b2-{n}"));
            assert_eq!(payload(follower.next_blocking()), expected, "{medium:?}");
        }
        assert!(follower.try_next().unwrap().is_none());
    }
}

/// Each cut is higher than the one before: the log keeps a bounded number of them.
#[test]
fn a_follower_that_misses_a_hundred_cuts_is_never_told_too_high() {
    for medium in MEDIA {
        let log = on(medium, &SimFs::new());
        let first = commit(&log, "a", 3);
        let (mut below, _) = follow(&log, 2);
        let (mut above, position) = follow(&log, 3);
        log.truncate_after(first[1]).unwrap();
        let cut = log.reader(first[1]).unwrap().next().unwrap().unwrap().end_lsn();
        assert!(cut < position);
        let mut late = None;
        for n in 0..100 {
            let lsn = commit(&log, &format!("b{n}-"), 2)[0];
            if n == 90 {
                late = Some(follow(&log, log.next_seq().0 as usize));
            }
            log.truncate_after(lsn).unwrap();
        }
        assert_eq!(told(above.try_next()), (cut, Dropped::Returned));
        assert_eq!(payload(below.next_blocking()).as_deref(), Some("b0-0"));
        let (mut late, position) = late.unwrap();
        let lowest = log.reader(Seq(2 + 90)).unwrap().next().unwrap().unwrap().end_lsn();
        assert!(lowest < position);
        assert_eq!(told(late.try_next()), (lowest, Dropped::Returned));
    }
}

#[test]
fn a_follower_behind_the_head_is_told_where_it_stands() {
    for medium in MEDIA {
        for cut in [false, true] {
            let log = on(medium, &SimFs::new());
            let first = commit(&log, "a", 10);
            let (mut behind, position) = follow(&log, 1);
            let (mut at_head, _) = follow(&log, 5);
            if cut {
                log.truncate_after(first[8]).unwrap();
            }
            // In the same file: nothing of it disappears from a directory.
            log.truncate_before(first[5]).unwrap();
            assert_eq!(told(behind.try_next()), (position, Dropped::Unread), "{medium:?}");
            assert_eq!(payload(at_head.next_blocking()).as_deref(), Some("a5"));
        }
    }
}

/// What it has returned is gone, and what it would return next as well: the worse of the two.
#[test]
fn a_follower_above_a_cut_and_behind_the_head_is_told_of_the_cut() {
    for medium in MEDIA {
        let log = on(medium, &SimFs::new());
        let first = commit(&log, "a", 4);
        let (mut follower, _) = follow(&log, 3);
        log.truncate_after(first[1]).unwrap();
        let cut = log.reader(first[1]).unwrap().next().unwrap().unwrap().end_lsn();
        let second = commit(&log, "b", 9);
        log.truncate_before(second[5]).unwrap();
        assert_eq!(told(follower.try_next()), (cut, Dropped::Returned), "{medium:?}");
    }
}

#[test]
fn a_follower_that_was_told_says_so_again() {
    for medium in MEDIA {
        let log = on(medium, &SimFs::new());
        let first = commit(&log, "a", 10);
        let (mut withdrawn, _) = follow(&log, 10);
        let (mut overtaken, position) = follow(&log, 1);
        log.truncate_after(first[5]).unwrap();
        let cut = log.reader(first[5]).unwrap().next().unwrap().unwrap().end_lsn();
        log.truncate_before(first[2]).unwrap();
        for round in 0..8 {
            assert_eq!(told(withdrawn.try_next()), (cut, Dropped::Returned), "{medium:?}");
            assert_eq!(told(withdrawn.next_blocking()), (cut, Dropped::Returned));
            assert_eq!(told(block_on(withdrawn.next_record())), (cut, Dropped::Returned));
            assert_eq!(told(overtaken.try_next()), (position, Dropped::Unread), "{medium:?}");
            assert_eq!(told(overtaken.next_blocking()), (position, Dropped::Unread));
            commit(&log, &format!("b{round}-"), 5);
        }
        log.close().unwrap();
        assert_eq!(told(withdrawn.next_blocking()), (cut, Dropped::Returned));
        assert_eq!(told(overtaken.next_blocking()), (position, Dropped::Unread));
    }
}

/// The log is cut again, lower, after a follower was told and before it is resumed: a new follower
/// from the position of the first cut would begin in the middle of another history.
#[test]
fn a_follower_that_is_resumed_hears_of_a_cut_in_between() {
    for medium in MEDIA {
        let log = on(medium, &SimFs::new());
        let first = commit(&log, "a", 10);
        let (mut follower, _) = follow(&log, 10);
        let end = |lsn| log.reader(lsn).unwrap().next().unwrap().unwrap().end_lsn();
        follower.resume().unwrap();
        log.truncate_after(first[6]).unwrap();
        assert_eq!(told(follower.try_next()), (end(first[6]), Dropped::Returned));
        log.truncate_after(first[2]).unwrap();
        commit(&log, "b", 10);
        assert_eq!(told(follower.try_next()).1, Dropped::Returned);
        follower.resume().unwrap();
        assert_eq!(told(follower.try_next()), (end(first[2]), Dropped::Returned), "{medium:?}");
        follower.resume().unwrap();
        for n in 0..10 {
            assert_eq!(payload(follower.next_blocking()), Some(format!("b{n}")), "{medium:?}");
        }
        // What is not there cannot be resumed.
        log.truncate_before(first[2]).unwrap();
        let (mut behind, position) = follow(&log, 1);
        commit(&log, "c", 1);
        log.truncate_before(log.head_lsn()).unwrap();
        log.truncate_before(log.appended_lsn()).unwrap();
        assert_eq!(told(behind.try_next()), (position, Dropped::Unread), "{medium:?}");
        assert_eq!(told(behind.resume()), (position, Dropped::Unread));
        assert_eq!(told(behind.try_next()), (position, Dropped::Unread));
    }
}

/// The log is closed, or dropped, before a follower looks again.
#[test]
fn a_cut_is_told_after_the_log_has_ended() {
    for (medium, close) in MEDIA.into_iter().flat_map(|medium| [(medium, false), (medium, true)]) {
        let log = on(medium, &SimFs::new());
        let first = commit(&log, "a", 10);
        let (mut above, _) = follow(&log, 10);
        let (mut below, _) = follow(&log, 5);
        log.truncate_after(first[5]).unwrap();
        let cut = log.reader(first[5]).unwrap().next().unwrap().unwrap().end_lsn();
        match close {
            true => log.close().unwrap(),
            false => drop(log),
        }
        assert_eq!(told(above.next_blocking()), (cut, Dropped::Returned), "{medium:?}");
        assert_eq!(payload(below.next_blocking()).as_deref(), Some("a5"));
        for _ in 0..3 {
            assert_eq!(payload(below.next_blocking()), None);
            assert!(below.try_next().unwrap().is_none());
            assert_eq!(payload(block_on(below.next_record())), None);
        }
    }
}

#[test]
fn a_follower_of_a_stopped_log_returns_what_is_durable_and_then_why() {
    let sim = SimFs::new();
    let log = options().direct_io(false).fs(Arc::new(sim.clone())).open("/log").unwrap();
    commit(&log, "a", 3);
    let (mut follower, _) = follow(&log, 1);
    sim.set_faults(FaultPlan::new().fail(Call::Sync, 0, Errno::Eio));
    log.commit(b"in doubt").unwrap_err();
    for expected in ["a1", "a2"] {
        assert_eq!(payload(follower.next_blocking()).as_deref(), Some(expected));
    }
    for _ in 0..3 {
        assert!(matches!(follower.next_blocking(), Err(Error::Poisoned { .. })));
        assert!(matches!(block_on(follower.next_record()), Err(Error::Poisoned { .. })));
        assert!(follower.try_next().unwrap().is_none());
    }
}

/// They wait for more while the log is cut, which wakes them.
#[test]
fn followers_that_wait_are_told() {
    for medium in MEDIA {
        let log = on(medium, &SimFs::new());
        let first = commit(&log, "a", 10);
        let (mut blocked, _) = follow(&log, 10);
        let (mut polled, _) = follow(&log, 10);
        let blocked = thread::spawn(move || told(blocked.next_blocking()));
        let polled = thread::spawn(move || told(block_on(polled.next_record())));
        thread::yield_now();
        log.truncate_after(first[3]).unwrap();
        let cut = log.reader(first[3]).unwrap().next().unwrap().unwrap().end_lsn();
        for waiter in [blocked, polled] {
            let told = within("a follower", || waiter.join().unwrap());
            assert_eq!(told, (cut, Dropped::Returned), "{medium:?}");
        }
        // A cut above the position of one that waits makes durable what it waits for.
        let (mut waits, _) = follow(&log, 4);
        let waits = thread::spawn(move || payload(waits.next_blocking()));
        let kept = log.append(b"kept").unwrap();
        log.append(b"cut").unwrap();
        log.truncate_after(kept).unwrap();
        let found = within("a follower", || waits.join().unwrap());
        assert_eq!(found.as_deref(), Some("kept"));
    }
}

/// Another thread cuts the log after a follower has looked, and before it opens the next file: that
/// file is gone then, and the next look says what it means.
#[test]
fn a_file_that_disappears_under_a_follower_is_no_error_by_itself() {
    for below in [false, true] {
        let sim = SimFs::new();
        let log = on(Medium::Directory, &sim);
        let mut records = Vec::new();
        for n in 0..30 {
            let lsn = log.commit(&[n; 1000]).unwrap();
            records.push((log.stats().rotations, lsn));
        }
        // The first record of the second segment is what it returns next.
        let next = records.iter().position(|(rotations, _)| *rotations == 1).unwrap();
        let (mut follower, _) = follow(&log, next);
        let hold = sim.hold_next(Call::Open);
        let looks = thread::spawn(move || {
            let found = follower.try_next().map(|record| record.map(|r| r.payload().to_vec()));
            (found, follower)
        });
        hold.wait_for(1);
        let at = if below { next - 2 } else { next + 1 };
        log.truncate_after(records[at].1).unwrap();
        let cut = log.reader(records[at].1).unwrap().next().unwrap().unwrap().end_lsn();
        drop(hold);
        let (found, mut follower) = within("a follower", || looks.join().unwrap());
        if below {
            assert_eq!(told(found), (cut, Dropped::Returned));
            continue;
        }
        assert_eq!(found.unwrap().unwrap(), [next as u8; 1000]);
        assert_eq!(payload(follower.next_blocking()).unwrap().as_bytes(), [next as u8 + 1; 1000]);
        assert!(follower.try_next().unwrap().is_none());
    }
}

/// The follower waits at a cut in a store, and the head moves to the record behind it: what was cut
/// lies between the two, in the same file.
#[test]
fn a_follower_never_walks_into_what_was_cut() {
    for medium in MEDIA {
        let log = on(medium, &SimFs::new());
        let first = commit(&log, "a", 5);
        log.truncate_after(first[2]).unwrap();
        let (mut follower, _) = follow(&log, 3);
        assert!(follower.try_next().unwrap().is_none());
        let second = commit(&log, "b", 3);
        log.truncate_before(second[0]).unwrap();
        for expected in ["b0", "b1", "b2"] {
            assert_eq!(payload(follower.next_blocking()).as_deref(), Some(expected), "{medium:?}");
        }
    }
}

/// A store gives the beginning back that the log no longer needs: that is no damage.
#[test]
fn a_reader_of_a_store_without_its_beginning_is_told_so() {
    let log = options().open_store(Arc::new(MemStore::new())).unwrap();
    let lsns: Vec<Lsn> = (0..60).map(|n| log.commit(&[n; 1000]).unwrap()).collect();
    let mut reader = log.reader(Lsn::START).unwrap();
    let (mut follower, position) = follow(&log, 1);
    assert_eq!(reader.next_record().unwrap().unwrap().payload(), [0; 1000]);
    log.truncate_before(lsns[50]).unwrap();
    // What is in memory still comes.
    let found: Vec<_> = std::iter::from_fn(|| reader.next()).collect();
    let (last, read) = found.split_last().unwrap();
    for (n, record) in read.iter().enumerate() {
        assert_eq!(record.as_ref().unwrap().payload(), [n as u8 + 1; 1000]);
    }
    assert_eq!(told(last.clone()).1, Dropped::Unread);
    assert_eq!(told(follower.try_next()), (position, Dropped::Unread));
}

/// A ticket that outlives its log was settled by then, and keeps nothing that a later handle needs
/// once it is gone.
#[test]
fn a_ticket_may_outlive_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path().join("log")).unwrap();
    let ticket = log.submit(b"x").unwrap();
    let lsn = ticket.lsn();
    drop(log);
    match Log::open(dir.path().join("log")) {
        Ok(_) | Err(Error::Locked { .. }) => {}
        Err(error) => panic!("{error:?}"),
    }
    ticket.wait().unwrap();
    let log = Log::open(dir.path().join("log")).unwrap();
    assert_eq!(log.reader(lsn).unwrap().next().unwrap().unwrap().payload(), b"x");
}
