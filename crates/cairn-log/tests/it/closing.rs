//! guards: L13 L27
//!
//! What a close leaves: so much as the next open has to look at, and no more, whatever happens on
//! the way.

use std::collections::HashSet;

use cairn_log::{EndState, Log, Options};
use cairn_sim::{Call, CrashExplorer, Errno, FaultPlan, SimFs};

use crate::model::{Driver, Medium, check_state};

fn options() -> Options {
    Log::options().segment_size(8 << 20)
}

/// A log of one segment that is not nearly full, and takes long to read.
fn long(direct: bool) -> Driver {
    let mut driver = Driver::new(SimFs::new(), options().direct_io(direct));
    driver.open().unwrap();
    for _ in 0..5 {
        driver.append(250 << 10).unwrap();
    }
    driver.append(100).unwrap();
    driver
}

#[test]
fn the_next_open_does_not_read_what_was_closed() {
    for direct in [false, true] {
        let mut driver = long(direct);
        driver.close().unwrap();
        let open = || {
            let before = driver.sim.counters().bytes_read;
            let log = Medium::Directory.open(&driver.sim, &options().direct_io(direct)).unwrap();
            let read = driver.sim.counters().bytes_read - before;
            assert!(read <= 64 << 10, "{read} bytes read");
            assert_eq!(log.open_report().end_state, EndState::Closed);
            (log.open_report().segments, log)
        };
        let (segments, log) = open();
        // A close begins nothing where there is nothing new, or little.
        log.close().unwrap();
        let (again, log) = open();
        log.commit(b"little").unwrap();
        log.close().unwrap();
        assert_eq!([segments, again, open().0], [2; 3]);
    }
}

#[test]
fn power_fails_while_a_long_segment_is_closed() {
    let mut distinct = HashSet::new();
    for direct in [false, true] {
        let mut driver = long(direct);
        let before = driver.sim.op_count();
        driver.close().unwrap();
        driver.open().unwrap();
        driver.append(100).unwrap();
        driver.sync().unwrap();
        let explorer =
            CrashExplorer::new(driver.sim.trace()).exhaustive_limit(1024).samples_per_point(256);
        let report = explorer.points(before..=driver.sim.op_count()).for_each(|state| {
            distinct.insert(state.fingerprint());
            check_state(&driver, state.point(), &state.fs()).map(drop)
        });
        report.unwrap();
    }
    println!("{} states", distinct.len());
    assert!(distinct.len() > 100);
}

/// Where no other segment can be made, the mark still says that all is durable.
#[test]
fn a_disk_that_is_full_at_the_end_is_no_obstacle() {
    let mut driver = long(false);
    driver.sync().unwrap();
    driver.sim.set_faults(FaultPlan::new().fail_from(Call::Create, 0, Errno::Enospc));
    driver.close().unwrap();
    driver.sim.set_faults(FaultPlan::new());
    driver.open().unwrap();
    let report = driver.log().open_report();
    assert_eq!(
        (report.end_state, report.segments, report.records_scanned),
        (EndState::Closed, 1, 6)
    );
}
