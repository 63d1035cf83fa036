//! guards: L02 L08 L30 L34 L37 L44 L48 L52
//!
//! Every system call of a workload fails once, in every way. What was acknowledged stays, what is refused did not happen, a poisoned
//! handle says so for ever and still reads, and the log opens again without help; power cuts around the fault included.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use cairn_log::{Error, ErrorKind, Lsn};
use cairn_sim::{Call, CrashExplorer, Errno, FailedSync, Fault, FaultPlan, MetadataOrder, SimFs, SimOptions, Torn};

use crate::crash::tiny;
use crate::model::{Driver, chain, check_state, contents};

/// One step of the workload; deterministic, so that the n-th call is the same in every run.
type Step = fn(&mut Driver) -> cairn_log::Result<()>;

const STEPS: &[Step] = &[
    |d| d.append(100),
    |d| d.sync(),
    |d| d.batch(&[50, 900, 10]),
    |d| d.flush(),
    |d| d.append(30),
    |d| d.sync(),
    |d| d.append(3000),
    |d| d.append(3000),
    |d| d.append(3000),
    |d| d.sync_to(6),
    |d| d.append(9000),
    |d| d.append(20),
    |d| d.sync(),
    |d| d.truncate_before(4),
    |d| d.append(40),
    |d| d.truncate_after(6),
    |d| d.append(50),
    |d| d.sync(),
    |d| d.append_before_sector_end(),
    |d| d.sync(),
    |d| {
        d.close()?;
        d.open()
    },
    |d| d.append(60),
    |d| d.sync(),
    |d| {
        d.die();
        d.open()
    },
    |d| d.append(70),
    |d| d.sync(),
    |d| d.close(),
];

const FAULTS: &[Fault] = &[
    Fault::Fail(Errno::Eio),
    Fault::Fail(Errno::Enospc),
    Fault::Fail(Errno::Eintr),
    Fault::FailAfter(0, Errno::Eio),
    Fault::Short(5),
    Fault::ShortThenFail(700, Errno::Enospc),
];

/// What happened when a call failed.
#[derive(Default)]
struct Tally {
    runs: u64,
    faults: u64,
    retried: u64,
    reopened: u64,
    unnoticed: u64,
    states: u64,
}

/// Runs the workload with one fault; `false` when it never came to it.
fn run(direct: bool, call: Call, nth: u64, fault: Fault, mode: FailedSync, tally: &mut Tally) -> Result<bool, String> {
    let sim = SimFs::with_options(SimOptions::new().failed_sync(mode));
    let mut driver = Driver::new(sim, tiny().direct_io(direct));
    driver.faults = FaultPlan::new().on(call, nth..nth + 1, fault);
    driver.once = true;
    driver.sim.set_faults(driver.faults.clone());
    let mut failed_at = None;
    let open: Step = |d| d.open();
    for (i, step) in std::iter::once(&open).chain(STEPS).enumerate() {
        // A recovery may have kept less than the workload needs for its truncations.
        let step = if driver.log.is_none() && i > 0 { &open } else { step };
        let Err(error) = attempt(step, &mut driver) else { continue };
        let at = driver.sim.op_count();
        failed_at.get_or_insert(at);
        driver.disarm();
        recover(&mut driver, &error, tally).map_err(|why| format!("step {i}: {}: {why}", chain(&error)))?;
    }
    if driver.sim.counters().faults == 0 {
        return Ok(false);
    }
    tally.faults += 1;
    let at = match failed_at {
        Some(at) => at,
        None => {
            tally.unnoticed += 1;
            return Ok(true);
        }
    };
    let explorer = CrashExplorer::new(driver.sim.trace())
        .torn(Torn::Versions)
        .metadata_order(MetadataOrder::Free)
        .exhaustive_limit(8)
        .samples_per_point(8)
        .points(at.saturating_sub(4)..=at + 12);
    let report = explorer.for_each(|state| check_state(&driver, state.point(), &state.fs()).map(drop));
    tally.states += report.map_err(|failure| failure.to_string())?.distinct;
    Ok(true)
}

/// Truncations name records that a recovery after a fault may have dropped: those steps are then over.
fn attempt(step: &Step, driver: &mut Driver) -> cairn_log::Result<()> {
    if driver.log.is_some() && driver.end() < 8 && driver.sim.counters().faults > 0 {
        return driver.append(25);
    }
    step(driver)
}

fn recover(driver: &mut Driver, error: &Error, tally: &mut Tally) -> Result<(), String> {
    let poisoned = matches!(error, Error::Poisoned { .. } | Error::InDoubt { .. });
    // A truncation that failed half-way leaves two possibilities, and more appends would double them.
    if driver.other.is_none()
        && let Some(log) = &driver.log
    {
        let refused = log.append(b"refused");
        match (poisoned, refused) {
            (true, Err(Error::Poisoned { .. })) => {}
            (true, other) => return Err(format!("a poisoned log answers {other:?}")),
            (false, Err(error)) if error.kind() == ErrorKind::Reopen => {
                return Err(format!("said nothing of being poisoned: {}", chain(&error)));
            }
            (false, Err(error)) => return Err(format!("does not go on: {}", chain(&error))),
            (false, Ok(lsn)) => {
                tally.retried += 1;
                driver.adopt(b"refused", lsn);
                return reopen_with_one_more(driver);
            }
        }
        if log.sync().is_ok() && log.durable_lsn() < log.appended_lsn() {
            return Err("a later barrier says Ok".into());
        }
        // What is durable can still be read.
        let durable = log.reader(Lsn::START).map_err(|e| chain(&e))?.durable();
        let read = durable.collect::<Result<Vec<_>, _>>().map_err(|e| chain(&e))?;
        let head = driver.model.head;
        if (read.len() as u64) + head < driver.model.acknowledged {
            return Err(format!("{} acknowledged, {} readable", driver.model.acknowledged - head, read.len()));
        }
    }
    tally.reopened += 1;
    driver.die();
    driver.open().map_err(|e| format!("does not open again: {}", chain(&e)))
}

/// The log refused a call and is whole: it takes the next one. Then the process dies, and what is there is what was known, plus that one.
fn reopen_with_one_more(driver: &mut Driver) -> Result<(), String> {
    driver.sync().map_err(|e| format!("does not sync: {}", chain(&e)))?;
    driver.die();
    driver.open().map_err(|e| format!("does not open again: {}", chain(&e)))?;
    let (first, found) = contents(driver.log())?;
    driver.model.accepts(first, &found)
}

#[test]
fn every_call_fails_once_in_every_way() {
    let mut tally = Tally::default();
    let backends = [false, true];
    for (direct, call) in backends.into_iter().flat_map(|direct| Call::ALL.into_iter().map(move |call| (direct, call)))
    {
        for &fault in FAULTS {
            for mode in [FailedSync::Old, FailedSync::Persisted] {
                if call != Call::Sync && mode != FailedSync::Old {
                    continue;
                }
                for nth in 0.. {
                    tally.runs += 1;
                    let came = catch_unwind(AssertUnwindSafe(|| run(direct, call, nth, fault, mode, &mut tally)));
                    match came {
                        Ok(Ok(true)) => {}
                        Ok(Ok(false)) => break,
                        Ok(Err(why)) => panic!("{call:?} number {nth}, {fault:?}, {mode:?}, direct {direct}: {why}"),
                        Err(panic) => {
                            println!("{call:?} number {nth}, {fault:?}, {mode:?}, direct {direct}");
                            resume_unwind(panic);
                        }
                    }
                }
            }
        }
    }
    let Tally { runs, faults, retried, reopened, unnoticed, states } = tally;
    println!(
        "{faults} faults in {runs} runs: {retried} refused and gone on, {reopened} reopened, {unnoticed} made no difference; \
         {states} crash states around them"
    );
    assert!(faults > 500 && retried > 0 && reopened > 100);
}
