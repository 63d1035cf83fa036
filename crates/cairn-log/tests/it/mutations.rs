//! guards: L01 L02 L03 L05 L07 L10 L16 L17 L47 L50
//!
//! Deliberate bugs, one at a time: the crash exploration must catch each. A test that cannot fail proves nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cairn_log::{Log, Mutation, Options};
use cairn_sim::{Call, Errno, FailedSync, FaultPlan, MetadataOrder, SimFs, SimOptions, Torn};

use crate::crash::{Visited, explore, killed, run, tiny, workload};
use crate::model::{DIR, Driver, contents};

/// Explores workloads until a violation is found; says after how many states.
fn caught(name: &str, mut make: impl FnMut(u64) -> Driver) {
    let mut visited = Visited::default();
    for seed in 1..40 {
        // A bug can show while the workload runs, too.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let driver = make(seed);
            explore(&driver, name.to_owned(), Torn::Versions, MetadataOrder::Free, &mut visited)
        }));
        let violation = match outcome {
            Ok(Ok(())) => continue,
            Ok(Err(violation)) => violation,
            Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "panicked".into()),
        };
        let first = violation.lines().next().unwrap_or_default();
        println!("{name}: caught after {} states of {seed} workloads: {first}", visited.states);
        return;
    }
    panic!("{name} was not caught in {} states", visited.states);
}

fn mutated(mutation: Mutation) -> Options {
    tiny().mutation(mutation)
}

#[test]
fn a_skipped_barrier_is_caught() {
    caught("skipped barrier", |seed| {
        let mut driver = Driver::new(SimFs::with_options(SimOptions::new().seed(seed)), tiny());
        driver.faults = FaultPlan::new().ignore_barriers();
        driver.sim.set_faults(driver.faults.clone());
        workload(&mut driver, seed, 60).unwrap();
        driver
    });
}

#[test]
fn a_skipped_directory_sync_is_caught() {
    caught("skipped directory sync", |seed| {
        let mut driver = Driver::new(SimFs::with_options(SimOptions::new().seed(seed)), tiny());
        driver.faults = FaultPlan::new().ignore_dir_syncs();
        driver.sim.set_faults(driver.faults.clone());
        workload(&mut driver, seed, 60).unwrap();
        driver
    });
}

#[test]
fn cutting_below_the_watermark_is_caught() {
    caught("cutting below the watermark", |seed| run(seed, mutated(Mutation::DropAboveWatermark), 60));
}

#[test]
fn trusting_what_is_readable_is_caught() {
    caught("trusting what is readable", |seed| run(seed, mutated(Mutation::TrustWhatIsReadable), 60));
}

#[test]
fn keeping_the_generation_is_caught() {
    caught("keeping the generation", |seed| run(seed, mutated(Mutation::KeepGeneration), 60));
}

#[test]
fn skipping_the_seal_barrier_is_caught() {
    caught("skipping the barrier of a seal", |seed| run(seed, mutated(Mutation::SkipSealBarrier), 60));
}

#[test]
fn trusting_listed_names_is_caught() {
    let mut at = 0;
    caught("trusting listed names", |_| {
        at += 1;
        killed(1, at, mutated(Mutation::TrustListedNames)).expect("the workload is longer").0
    });
}

/// Appends while another thread's barrier is under way, then asks for durability of what was appended.
fn append_during_a_barrier(options: Options) -> Driver {
    let mut driver = Driver::new(SimFs::new(), options);
    driver.open().unwrap();
    driver.append(100).unwrap();
    let log = Arc::new(driver.log.take().unwrap());
    let hold = driver.sim.hold(Call::Sync);
    let leader = std::thread::spawn({
        let log = log.clone();
        move || log.sync()
    });
    hold.wait_for(1);
    let lsn = log.append(&2u64.to_le_bytes()).unwrap();
    drop(hold);
    leader.join().unwrap().unwrap();
    driver.adopt(&2u64.to_le_bytes(), lsn);
    log.sync_to(lsn).unwrap();
    driver.model.acknowledged = 2;
    driver.noted();
    driver.log = Some(Arc::try_unwrap(log).unwrap());
    driver
}

#[test]
fn acknowledging_the_reservation_is_caught() {
    let mut visited = Visited::default();
    let right = append_during_a_barrier(tiny());
    explore(&right, "reservation".into(), Torn::Versions, MetadataOrder::Free, &mut visited).unwrap();
    caught("acknowledging the reservation", |_| append_during_a_barrier(mutated(Mutation::AcknowledgeReservation)));
}

/// The third barrier of the log fails; what is said after that is believed.
fn fail_a_barrier(options: Options) -> Driver {
    let sim = SimFs::with_options(SimOptions::new().failed_sync(FailedSync::Old));
    let mut driver = Driver::new(sim, options);
    driver.open().unwrap();
    driver.append(100).unwrap();
    driver.sync().unwrap();
    driver.append(700).unwrap();
    driver.sim.set_faults(FaultPlan::new().fail(Call::Sync, 0, Errno::Eio));
    let _ = driver.sync();
    driver
}

#[test]
fn retrying_a_failed_barrier_is_caught() {
    let mut visited = Visited::default();
    let right = fail_a_barrier(tiny());
    explore(&right, "failed barrier".into(), Torn::Versions, MetadataOrder::Free, &mut visited).unwrap();
    caught("retrying a failed barrier", |_| fail_a_barrier(mutated(Mutation::RetryFailedSync)));
}

#[test]
fn a_torn_tail_verdict_below_the_watermark_is_caught() {
    let mut driver = run(3, tiny(), 60);
    if driver.log.is_some() {
        driver.close().unwrap();
    }
    let sim = &driver.sim;
    let (path, len) =
        sim.files().into_iter().rfind(|(path, _)| path.extension().is_some_and(|e| e == "cairn")).unwrap();
    // In the first record after the superblock: far below the watermark of a closed log.
    assert!(len > 4096 + 60);
    sim.flip_bit(&path, 4096 + 50, 3).unwrap();
    let open = |options: Options| options.fs(Arc::new(sim.clone())).open(DIR);
    let refused = open(tiny()).map(|log: Log| log.open_report().clone());
    assert!(matches!(refused, Err(cairn_log::Error::Corrupt(_))), "{refused:?}");
    let accepted = open(mutated(Mutation::CutBelowWatermark)).unwrap();
    assert!(contents(&accepted).unwrap().1.len() < driver.end() as usize);
}

#[test]
fn accepting_a_position_beyond_the_end_is_caught() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::options().open(dir.path()).unwrap();
    log.append(b"x").unwrap();
    let end = log.appended_lsn();
    assert!(matches!(log.sync_to(end), Err(cairn_log::Error::OutOfRange { .. })));
    log.close().unwrap();
    let log = Log::options().mutation(Mutation::SyncBeyondEnd).open(dir.path()).unwrap();
    assert!(log.sync_to(end).is_ok(), "the check above sees the bug when it is there");
}
