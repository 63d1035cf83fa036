//! guards: L02 L08 L30 L34 L37 L48 L52
//!
//! Every system call of a workload fails once, in every way. If the error says that nothing was
//! changed, the operation is repeated and takes place once. If it is in doubt, reopening finds it
//! whole or not at all. A stopped handle refuses every change and still reads. The power is cut
//! around each fault.

use std::sync::Arc;

use cairn_sim::{
    Call, Chooser, CrashExplorer, Errno, FailedSync, Fault, FaultPlan, SimFs, SimOptions,
};
use cairn_stack::{Durability, Error, ErrorKind, Stack};

use crate::crash::tiny;
use crate::model::{Change, Dice, Driver, PATH, chain, check_state};
use crate::rows::Rows;

#[derive(Clone, Debug)]
enum Step {
    Open,
    Close,
    Die,
    Change(Change),
    Transaction(Vec<Change>),
}

fn steps() -> Vec<Step> {
    let mut dice = Dice(3);
    let mut bytes = |len| dice.bytes(len);
    vec![
        Step::Open,
        Step::Change(Change::Push(bytes(100))),
        Step::Change(Change::Push(bytes(3000))),
        Step::Change(Change::Set(50, bytes(700))),
        Step::Change(Change::Push(bytes(6000))),
        Step::Transaction(vec![
            Change::Set(0, bytes(10)),
            Change::Discard(500),
            Change::Push(bytes(900)),
            Change::Zero(2000..2600),
        ]),
        Step::Change(Change::Pop(4000)),
        Step::Change(Change::Extend(1500)),
        Step::Change(Change::Zero(10..3000)),
        Step::Close,
        Step::Open,
        Step::Change(Change::Set(4000, bytes(1500))),
        // A body behind the payload, and what has to make way for the next push.
        Step::Change(Change::Push(bytes(70_000))),
        Step::Change(Change::Set(1, bytes(69_000))),
        Step::Change(Change::Push(bytes(5000))),
        Step::Change(Change::Resize(2)),
        Step::Change(Change::Push(bytes(2))),
        Step::Close,
        Step::Open,
        // More old bytes behind the end than are overwritten with zeros one by one: the file is
        // cut.
        Step::Change(Change::Extend(1_200_000)),
        Step::Change(Change::Resize(5)),
        Step::Change(Change::Extend(1_100_000)),
        Step::Change(Change::Set(600_000, bytes(10))),
        // The steps after a death meet no fault.
        Step::Die,
        Step::Open,
        Step::Change(Change::Push(bytes(10))),
        Step::Close,
    ]
}

const FAULTS: &[Fault] = &[
    Fault::Fail(Errno::Eio),
    Fault::Fail(Errno::Enospc),
    Fault::Fail(Errno::Eintr),
    Fault::FailAfter(0, Errno::Eio),
    Fault::FailAfter(600, Errno::Eio),
    Fault::Short(5),
    Fault::ShortThenFail(700, Errno::Enospc),
];

/// What happened when a call failed.
#[derive(Default, Debug)]
struct Tally {
    faults: u64,
    retried: u64,
    in_doubt: u64,
    stopped: u64,
    unnoticed: u64,
    states: u64,
    rows: Rows,
}

fn attempt(driver: &mut Driver, step: &Step) -> Result<(), Error> {
    match step {
        Step::Open => driver.open(),
        Step::Close => driver.close(),
        Step::Die => {
            driver.die();
            Ok(())
        }
        Step::Change(change) => driver.change(change),
        Step::Transaction(changes) => driver.transaction(changes),
    }
}

fn after(model: &[u8], step: &Step) -> Vec<u8> {
    let mut model = model.to_vec();
    match step {
        Step::Change(change) => change.on_model(&mut model),
        Step::Transaction(changes) => changes.iter().for_each(|change| change.on_model(&mut model)),
        _ => {}
    }
    model
}

/// Runs the workload with one fault; `false` when it never came to it.
fn run(
    in_store: bool,
    direct: bool,
    (call, nth): (Call, u64),
    fault: Fault,
    mode: FailedSync,
    tally: &mut Tally,
) -> Result<bool, String> {
    let sim = SimFs::with_options(SimOptions::new().failed_sync(mode));
    let mut driver = Driver::new(sim, tiny().direct_io(direct), Durability::Operation);
    driver.in_store = in_store;
    driver.sim.set_faults(FaultPlan::new().on(call, nth..nth + 1, fault));
    let mut failed_at = None;
    for (i, step) in steps().iter().enumerate() {
        let Err(error) = attempt(&mut driver, step) else { continue };
        failed_at.get_or_insert(driver.sim.op_count());
        settle(&mut driver, step, &error, tally)
            .map_err(|why| format!("step {i} {step:?}: {}: {why}", chain(&error)))?;
    }
    if driver.sim.counters().faults == 0 {
        return Ok(false);
    }
    tally.faults += 1;
    let Some(at) = failed_at else {
        tally.unnoticed += 1;
        return Ok(true);
    };
    let explorer = CrashExplorer::new(driver.sim.trace())
        .exhaustive_limit(8)
        .samples_per_point(8)
        .points(at.saturating_sub(3)..=at + 10);
    let report = explorer.for_each(|state| check_state(&driver, state.point(), &state.fs()));
    tally.rows.absorb(&driver.rows);
    tally.states += report.map_err(|failure| failure.to_string())?.distinct;
    Ok(true)
}

/// Checks what the error of a step claims, and continues the workload.
fn settle(
    driver: &mut Driver,
    step: &Step,
    error: &Error,
    tally: &mut Tally,
) -> Result<(), String> {
    match (error, step) {
        (Error::Io { .. } | Error::Full { .. }, Step::Open) => {
            tally.retried += 1;
            return driver.open_whatever_is_there();
        }
        // The handle is closed even if `close` fails, and durable bytes stay durable.
        (_, Step::Close) => {
            driver.stack = None;
            return Ok(());
        }
        (Error::Io { .. } | Error::Full { .. }, _) => {
            tally.retried += 1;
            let found = driver.stack().peek(0).map_err(|e| chain(&e))?;
            if found != driver.model {
                return Err("something has changed".into());
            }
            return attempt(driver, step).map_err(|e| format!("does not go on: {}", chain(&e)));
        }
        (Error::InDoubt { .. }, _) => {
            tally.in_doubt += 1;
            driver.doubt(after(&driver.model, step));
        }
        (Error::Poisoned { .. }, _) => tally.stopped += 1,
        _ => return Err("another error".into()),
    }
    for _ in 0..3 {
        match driver.stack().push(b"refused") {
            Err(error @ Error::Poisoned { .. }) if error.kind() == ErrorKind::Reopen => {}
            other => return Err(format!("a stopped stack answers {other:?}")),
        }
    }
    let found = driver.stack().peek(0).map_err(|e| chain(&e))?;
    if found != driver.model {
        return Err("what is durable is no longer read".into());
    }
    driver.die();
    driver.open_whatever_is_there()?;
    // Reopening has decided: an operation that did not take place is repeated.
    if driver.model != after(&found, step) {
        attempt(driver, step).map_err(|e| format!("does not go on: {}", chain(&e)))?;
    }
    Ok(())
}

#[test]
fn every_call_fails_once_in_every_way() {
    [(false, false), (false, true), (true, false)].into_iter().for_each(every_call_fails_once);
}

fn every_call_fails_once((in_store, direct): (bool, bool)) {
    let mut tally = Tally::default();
    for call in Call::ALL {
        for &fault in FAULTS {
            for mode in [FailedSync::Old, FailedSync::Persisted] {
                if !matches!(call, Call::Sync | Call::WriteDirect) && mode != FailedSync::Old {
                    continue;
                }
                for nth in 0.. {
                    match run(in_store, direct, (call, nth), fault, mode, &mut tally) {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(why) => {
                            panic!(
                                "store {in_store}, direct {direct}, \
                                 {call:?} {nth} {fault:?} {mode:?}: {why}"
                            )
                        }
                    }
                }
            }
        }
    }
    println!("store {in_store}, direct {direct}: {tally:?}");
    tally.rows.print();
    if in_store {
        tally.rows.check()
    } else {
        tally.rows.check_all_of_a_file()
    }
    assert!(
        tally.faults > 500 && tally.in_doubt > 100 && tally.retried > 300 && tally.stopped > 10
    );
}

/// guards: L34
///
/// A disk that fills up: growing is refused and changes nothing. Shrinking and changes in place
/// succeed, and so does growing once there is space.
#[test]
fn a_full_disk_refuses_growth_and_nothing_else() {
    for capacity in [150_000, 160_000, 200_000, 300_000] {
        let sim = SimFs::new();
        let open =
            |sim: &SimFs| Stack::options().reserve(4096).fs(Arc::new(sim.clone())).open(PATH);
        let stack = open(&sim).unwrap();
        sim.set_faults(FaultPlan::new().capacity(capacity));
        let mut model = Vec::new();
        let mut dice = Dice(capacity);
        loop {
            let bytes = dice.bytes(3000);
            match stack.push(&bytes) {
                Ok(_) => model.extend(bytes),
                Err(error @ Error::Full { .. }) => {
                    assert_eq!(error.kind(), ErrorKind::Space);
                    break;
                }
                Err(other) => panic!("{}", chain(&other)),
            }
        }
        assert!(stack.peek(0).unwrap() == model);
        assert!(matches!(stack.extend(200_000), Err(Error::Full { .. })));
        let large = stack.transaction(|tx| {
            tx.set(0, [1; 100])?;
            tx.push(vec![1; 100_000])
        });
        assert!(matches!(large, Err(Error::Full { .. })));
        // None of these needs space.
        stack.set(5, [7; 500]).unwrap();
        model[5..505].fill(7);
        stack.zero(600..900).unwrap();
        model[600..900].fill(0);
        assert_eq!(stack.pop(1000).unwrap(), model.split_off(model.len() - 1000));
        stack.push([8; 900]).unwrap();
        model.extend([8; 900]);
        stack.discard(2000).unwrap();
        model.truncate(model.len() - 2000);
        assert!(stack.peek(0).unwrap() == model);
        sim.set_faults(FaultPlan::new());
        stack.push(vec![9; 50_000]).unwrap();
        model.extend(vec![9; 50_000]);
        drop(stack);
        assert!(open(&sim).unwrap().peek(0).unwrap() == model);
    }
}

/// The call that cuts the file returns an error although it cut it. The next commits need no cut,
/// and must not rely on the bytes that were cut off.
#[test]
fn a_cut_that_is_said_to_have_failed() {
    for direct in [false, true] {
        let sim = SimFs::new();
        let open = |sim: &SimFs| tiny().direct_io(direct).fs(Arc::new(sim.clone())).open(PATH);
        let stack = open(&sim).unwrap();
        stack.push(vec![1; 1_200_000]).unwrap();
        stack.discard(1_199_995).unwrap();
        let plan = FaultPlan::new().on(Call::SetLen, 0..1, Fault::FailAfter(0, Errno::Eio));
        // Reserving space makes the file longer, where that can be done.
        sim.set_faults(plan.on(Call::Allocate, 0..u64::MAX, Fault::Fail(Errno::Enotsup)));
        assert!(matches!(stack.extend(1_100_000), Err(Error::Io { .. })));
        for n in 2..5 {
            stack.push([n; 10]).unwrap();
        }
        let after = sim.power_cut(&mut Chooser::nothing());
        let found = open(&after).unwrap().peek(0).unwrap();
        assert_eq!(found, [&[1; 5][..], &[2; 10], &[3; 10], &[4; 10]].concat());
    }
}

/// An unreadable sector is an error. It is never taken for a torn commit.
#[test]
fn a_device_that_cannot_read_is_told_and_nothing_is_dropped() {
    let sim = SimFs::new();
    let open = |sim: &SimFs| Stack::options().fs(Arc::new(sim.clone())).open(PATH);
    let stack = open(&sim).unwrap();
    stack.push(vec![1; 3000]).unwrap();
    stack.push(vec![2; 3000]).unwrap();
    sim.set_faults(FaultPlan::new().unreadable(PATH, 131_072 + 1024..131_072 + 1025));
    let error = stack.get(0..3000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::System);
    assert_eq!(stack.get(3000..6000).unwrap(), [2; 3000]);
    stack.push(vec![3; 6000]).unwrap();
    drop(stack);
    for sector in [0, 65_536, 131_072 + 9000] {
        let before = sim.fingerprint();
        sim.set_faults(FaultPlan::new().unreadable(PATH, sector..sector + 1));
        let error = open(&sim).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::System, "{}", chain(&error));
        assert_eq!(sim.fingerprint(), before);
    }
    sim.set_faults(FaultPlan::new());
    assert_eq!(open(&sim).unwrap().len(), 12_000);
}

/// With explicit durability what has returned stays until a barrier covers it, whoever asks for
/// that: the `sync` of another thread that fails takes nothing of it away.
pub(crate) fn a_barrier_that_cannot_be_had() -> Result<(), String> {
    for displaced in [false, true] {
        let sim = SimFs::new();
        let open = |sim: &SimFs| {
            let options = tiny().durability(Durability::Explicit).direct_io(false);
            let options = options.buffer_size(2_000_000);
            options.fs(Arc::new(sim.clone())).open(PATH)
        };
        let stack = open(&sim).unwrap();
        stack.push([1; 100]).unwrap();
        stack.sync().unwrap();
        stack.push(vec![2; 1_200_000]).unwrap();
        match displaced {
            true => sim.move_to(PATH, "/aside").unwrap(),
            // Before anything of the round is written.
            false => sim.set_faults(FaultPlan::new().fail_from(Call::Write, 0, Errno::Enospc)),
        }
        std::thread::scope(|scope| scope.spawn(|| stack.sync()).join().unwrap()).unwrap_err();
        stack.set(50, [3; 10]).unwrap();
        let len = 100 + 1_200_000;
        if stack.sync().is_ok() || stack.len() != len {
            return Err(format!("{} bytes are left", stack.len()));
        }
        // What exceeds the memory is there, and nothing more until a barrier covers it.
        stack.push(vec![4; 1_000_000]).unwrap();
        stack.push([5; 1]).unwrap_err();
        match displaced {
            true => sim.move_to("/aside", PATH).unwrap(),
            false => sim.set_faults(FaultPlan::new()),
        }
        sim.settle("/").unwrap();
        stack.push([6; 1]).unwrap();
        stack.sync().unwrap();
        let after = sim.power_cut(&mut Chooser::nothing());
        let content = open(&after).unwrap().peek(0).unwrap();
        let mut expected = [vec![1; 100], vec![2; 1_200_000], vec![4; 1_000_000]].concat();
        expected[50..60].fill(3);
        expected.push(6);
        if content != expected {
            return Err(format!("{} of {} bytes", content.len(), expected.len()));
        }
    }
    Ok(())
}

#[test]
fn what_returned_is_pending_until_a_barrier_covers_it() {
    a_barrier_that_cannot_be_had().unwrap();
}
