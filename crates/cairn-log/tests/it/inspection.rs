//! guards: L11 L12
//!
//! Looking at a log that somebody writes to.

use std::sync::atomic::{AtomicBool, Ordering};

use cairn_log::{EndState, Inspection, Log, Lsn, Seq};

/// A look that meets half of what a writer does must not call it damage: the reads of a scan are not one instant.
#[test]
fn a_live_log_is_never_taken_for_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::options().segment_size(256 << 10).open(dir.path()).unwrap();
    let done = AtomicBool::new(false);
    let (mut looks, mut torn) = (0, 0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut n = 0u64;
            while !done.load(Ordering::Relaxed) {
                let lsn = log.commit(&[n as u8; 700]).unwrap();
                n += 1;
                if n.is_multiple_of(3000) {
                    log.truncate_before(lsn).unwrap();
                }
            }
            n
        });
        let mut seen = 0;
        while looks < 1500 {
            let look = Inspection::open(dir.path()).unwrap();
            assert!(look.problems().is_empty(), "look {looks}: {:?}", look.problems());
            torn += u64::from(matches!(look.end_state(), EndState::Torn { .. }));
            assert!(look.next_seq() >= Seq(seen), "the log only grows");
            seen = look.next_seq().0;
            looks += 1;
        }
        done.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() >= seen);
    });
    println!("{looks} looks, {torn} of them at a group that was half written");
    log.close().unwrap();
    let look = Inspection::open(dir.path()).unwrap();
    assert_eq!(look.end_state(), EndState::Closed);
    let read = look.reader(Lsn::START).unwrap().count() as u64;
    assert_eq!(read, look.next_seq().0 - look.head_seq().0);
}
