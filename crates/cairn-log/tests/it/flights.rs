//! guards: L01 L02 L11 L38
//!
//! Two flushes in flight: the later one is done first. What it brought is nobody's before the
//! earlier one is done, whatever the disk holds then.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use cairn_log::{Error, Log, Lsn, Mutation};
use cairn_sim::{Call, Errno, FaultPlan, Hold, MetadataOrder, SimFs, Torn, Visited};

use crate::concurrency::within;
use crate::crash::{explore, tiny};
use crate::model::Driver;

/// Records that fill a buffer.
const FULL: u64 = 3;

/// Two full buffers, each in flight on behalf of a thread that wants its first record durable, and
/// one begun behind them. The first write is stuck, and the second one passes it by.
struct TwoInFlight {
    driver: Driver,
    log: Arc<Log>,
    hold: Hold,
    first: mpsc::Receiver<cairn_log::Result<()>>,
    second: mpsc::Receiver<cairn_log::Result<()>>,
}

impl TwoInFlight {
    /// With one record acknowledged before; `nth` of the two writes fails. The bug is that of both
    /// threads.
    fn begin(bug: Option<Mutation>, nth: Option<u64>) -> Self {
        let mut driver = Driver::new(SimFs::new(), tiny().segment_size(64 << 10));
        driver.open().unwrap();
        driver.append(100).unwrap();
        driver.sync().unwrap();
        let log = Arc::new(driver.log.take().unwrap());
        let append = |driver: &mut Driver, count: u64| {
            let lsns = (0..count).map(|_| {
                let payload = [driver.model.records.len() as u8; 1200];
                let lsn = log.append(&payload).unwrap();
                driver.adopt(&payload, lsn);
                lsn
            });
            lsns.collect::<Vec<_>>()
        };
        let sync_to = |lsn: Lsn| {
            let (done, result) = mpsc::channel();
            let log = log.clone();
            thread::spawn(move || {
                let sync = || log.sync_to(lsn);
                let outcome = bug.map_or_else(sync, |bug| bug.during(sync));
                drop(log);
                let _ = done.send(outcome);
            });
            result
        };
        if let Some(nth) = nth {
            driver.sim.set_faults(FaultPlan::new().fail(Call::WriteDirect, nth, Errno::Eio));
        }
        // One more than there is room for.
        let lsns = append(&mut driver, FULL + 1);
        let hold = driver.sim.hold_next(Call::WriteDirect);
        let first = sync_to(lsns[0]);
        hold.wait_for(1);
        append(&mut driver, FULL);
        let (sim, before) = (driver.sim.clone(), driver.sim.counters().calls(Call::WriteDirect));
        let second = sync_to(lsns[FULL as usize]);
        within("a flush beside another one", move || {
            while sim.counters().calls(Call::WriteDirect) == before {
                thread::yield_now();
            }
        });
        TwoInFlight { driver, log, hold, first, second }
    }
}

/// The second flush is done, and then the first one.
pub(crate) fn out_of_order(bug: Option<Mutation>) -> Driver {
    let TwoInFlight { mut driver, log, hold, first, second } = TwoInFlight::begin(bug, None);
    let mut acknowledge = |records: u64| {
        driver.model.acknowledged = driver.model.acknowledged.max(1 + records);
        driver.noted();
    };
    // Who is told now is told too early.
    let early = second.recv_timeout(Duration::from_millis(500)).is_ok();
    if early {
        acknowledge(2 * FULL);
    }
    if bug.is_none() {
        assert!(
            !early && log.stats().flushes_beside == 1 && log.durable_lsn() == log.flushed_lsn()
        );
    }
    drop(hold);
    first.recv().unwrap().unwrap();
    acknowledge(FULL);
    if !early {
        second.recv().unwrap().unwrap();
        acknowledge(2 * FULL);
    }
    driver.log = Some(Arc::into_inner(log).unwrap());
    driver
}

#[test]
fn what_is_done_sooner_is_durable_in_order() {
    let driver = out_of_order(None);
    let stats = driver.log().stats();
    assert_eq!((stats.barriers, stats.flushes_beside), (3, 1));
    let mut visited = Visited::default();
    explore(&driver, "out of order".into(), Torn::Versions, MetadataOrder::Free, &mut visited)
        .unwrap();
    assert!(visited.states() > 0);
}

/// Nobody is told that what failed, or what comes behind it, is durable; and the log opens again.
#[test]
fn a_failure_reaches_everything_in_flight_behind_it() {
    for nth in [0, 1] {
        let TwoInFlight { mut driver, log, hold, first, second } =
            TwoInFlight::begin(None, Some(nth));
        let later = if nth == 1 { second.recv().unwrap() } else { Ok(()) };
        drop(hold);
        let outcomes =
            [first.recv().unwrap(), if nth == 1 { later } else { second.recv().unwrap() }];
        for outcome in outcomes {
            // A direct store says no Ok behind a failure, not even one that would be true.
            assert!(
                matches!(outcome, Err(Error::InDoubt { .. })),
                "write {nth} fails: {outcome:?}"
            );
        }
        assert!(matches!(log.append(b"more"), Err(Error::Poisoned { .. })));
        assert_eq!(log.reader(Lsn::START).unwrap().durable().count(), 1);
        driver.noted();
        driver.log = Some(Arc::into_inner(log).unwrap());
        driver.die();
        let mut visited = Visited::default();
        explore(
            &driver,
            format!("write {nth} fails"),
            Torn::Versions,
            MetadataOrder::Free,
            &mut visited,
        )
        .unwrap();
    }
}
