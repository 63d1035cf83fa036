//! Each system call fails in each way, one at a time.

use std::io::IoSlice;

use cairn_sim::{Call, CrashExplorer, Errno, FailedSync, Fault, FaultPlan, SimFs, SimOptions};

use crate::driver::{BLOCK, Driver, Kind, Outcome, Step};
use crate::model::Image;
use crate::power::check_state;

const FAULTS: &[Fault] = &[
    Fault::Fail(Errno::Eio),
    Fault::Fail(Errno::Enospc),
    Fault::Fail(Errno::Eintr),
    Fault::Fail(Errno::Enotsup),
    Fault::FailAfter(0, Errno::Eio),
    Fault::FailAfter(300, Errno::Eio),
    Fault::Short(7),
    Fault::ShortThenFail(600, Errno::Enospc),
];

/// How much was tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Faults that happened.
    pub faults: u64,
    /// Calls that failed because of them.
    pub failed_calls: u64,
    /// Distinct disks that were visited around the failures.
    pub states: u64,
}

/// Runs the workload with one fault; `false` when it never came to it.
fn run_with_fault(
    kind: Kind,
    call: Call,
    nth: u64,
    fault: Fault,
    failed: FailedSync,
    tally: &mut Tally,
) -> Result<bool, String> {
    let sim = SimFs::with_options(SimOptions::new().failed_sync(failed));
    let mut driver = Driver::new(kind, sim);
    let plan = FaultPlan::new().on(call, nth..nth + 1, fault);
    driver.sim.set_faults(plan);
    let mut failed_at = None;
    let first: Step = |d| d.open();
    for (i, step) in std::iter::once(&first).chain(kind.steps).enumerate() {
        // A read may have been what fails.
        let done = match driver.sim.counters().faults > 0 && driver.model.now().len() < 2000 {
            true => driver.append(3000),
            false => step(&mut driver).and_then(|()| driver.check_live()),
        };
        let Err(error) = done else { continue };
        failed_at.get_or_insert(driver.sim.op_count());
        tally.failed_calls += 1;
        if driver.sim.counters().faults == 0 {
            return Err(format!("step {i}: {error}, and nothing had failed"));
        }
        again(&mut driver, call).map_err(|e| format!("step {i}: {error}: {e}"))?;
    }
    if driver.sim.counters().faults == 0 {
        return Ok(false);
    }
    tally.faults += 1;
    if let Some(at) = failed_at {
        let explorer =
            CrashExplorer::new(driver.sim.trace()).exhaustive_limit(8).samples_per_point(8);
        let report = explorer
            .points(at.saturating_sub(3)..=at + 12)
            .for_each(|state| check_state(&driver, state.point(), &state.fs(), false));
        tally.states += report.map_err(|failure| failure.to_string())?.distinct;
    }
    Ok(true)
}

/// After a failure: no later barrier of a handle whose barrier failed says Ok (L02), reading goes
/// on, and a new handle goes on as well.
///
/// A file may be gone although its removal was reported as failed: the handle then cannot read that
/// part.
fn again(driver: &mut Driver, failed: Call) -> Outcome {
    driver.sim.set_faults(FaultPlan::new());
    if let Some(store) = &driver.store {
        match Image::of(&**store) {
            Ok(found) => {
                driver.model.accepts(&found).map_err(|e| format!("read after the failure: {e}"))?
            }
            // The store has stopped writing; what it cut off, or was about to, may be out of reach.
            Err(_) if failed == Call::Remove && store.sync().is_err() => return driver.recover(),
            Err(e) => return Err(e),
        }
        if failed == Call::WriteDirect && store.sync().is_ok() {
            return Err("a store goes on after a failed direct write".into());
        }
        let before = driver.sim.op_count();
        if store.sync().is_err() {
            let payload = vec![0; 2 * BLOCK];
            let start = payload.as_ptr().addr().next_multiple_of(BLOCK) - payload.as_ptr().addr();
            let block = [IoSlice::new(&payload[start..start + BLOCK])];
            let head = store.head();
            let latched = store.write_at(head, b"x").is_err()
                && store.truncate(0).is_err()
                && store.preallocate(head, 1).is_err()
                && store.write_durable(head, &block).is_err()
                && store.write_durable(head, &[IoSlice::new(b"x")]).is_err();
            let silent = store.sync().is_err() && driver.sim.op_count() == before;
            if !latched || !silent {
                return Err("a store whose barrier failed goes on".into());
            }
        }
    }
    driver.recover()
}

/// Calls `run` with each kind of fault of each kind of system call, for the first one, the second
/// one and so on, until `run` says that there was none.
///
/// # Panics
/// If `run` returns an error.
pub fn every_fault(
    mut run: impl FnMut(Call, u64, Fault, FailedSync, &mut Tally) -> Result<bool, String>,
) -> Tally {
    let mut tally = Tally::default();
    for call in Call::ALL {
        for &fault in FAULTS {
            for failed in [FailedSync::Old, FailedSync::Persisted] {
                if call != Call::Sync && failed != FailedSync::Old {
                    continue;
                }
                for nth in 0.. {
                    match run(call, nth, fault, failed, &mut tally) {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(why) => panic!("{call:?} number {nth}, {fault:?}, {failed:?}: {why}"),
                    }
                }
            }
        }
    }
    tally
}

/// Runs the workload of `kind` with each fault, and cuts the power around each failure. At least
/// `at_least` faults must have happened.
///
/// # Panics
/// If a promise is broken, or too few faults happened.
pub fn survives_every_failing_call(kind: Kind, at_least: u64) {
    let run = |call, nth, fault, failed, tally: &mut Tally| {
        run_with_fault(kind, call, nth, fault, failed, tally)
    };
    let Tally { faults, failed_calls, states } = every_fault(run);
    println!("{faults} faults, {failed_calls} of them reported, {states} crash states around them");
    assert!(faults > at_least && failed_calls > at_least * 2 / 5 && states > at_least * 2);
}
