//! guards: L08 L30 L34 L48
//!
//! Every system call of a program fails once, in every way, for three policies. If an error says
//! that nothing was changed, nothing was, and the step can be repeated. After `InDoubt` and
//! reopening, the step is there as a whole or not at all. The check finds no fault in any case,
//! also after a power cut around the fault.

use cairn_heap::Error;
use cairn_sim::{Call, CrashExplorer, Errno, Fault, FaultPlan, SimFs};

use crate::model::{Dice, Driver, POLICIES, State, chain, check_state};

const FAULTS: &[Fault] = &[
    Fault::Fail(Errno::Eio),
    Fault::Fail(Errno::Enospc),
    Fault::FailAfter(0, Errno::Eio),
    Fault::FailAfter(600, Errno::Eio),
    Fault::ShortThenFail(700, Errno::Enospc),
];

#[derive(Default, Debug)]
struct Tally {
    faults: u64,
    unchanged: u64,
    in_doubt: u64,
    states: u64,
}

/// After an error: reopen, and take what is there, if that is possible.
fn reopen(driver: &mut Driver, doubt: Option<State>) -> Result<(), String> {
    if let Some(heap) = driver.heap.take() {
        // Reading goes on until then.
        State::of(&heap).and_then(|found| driver.accepts(usize::MAX, &found))?;
    }
    let before = driver.state.clone();
    driver.sim = driver.sim.restart();
    driver.sim.set_faults(FaultPlan::new());
    driver.open().map_err(|e| chain(&e))?;
    let found = State::of(driver.heap())?;
    if found != before && Some(&found) != doubt.as_ref() {
        return Err("after reopening, neither before nor after".into());
    }
    driver.returned(found);
    Ok(())
}

/// Runs a program with one fault; `false` when it never came to it.
// Length: one program from its fault to its end.
fn run(
    policy: usize,
    call: Call,
    nth: u64,
    fault: Fault,
    tally: &mut Tally,
) -> Result<bool, String> {
    let sim = SimFs::new();
    let mut driver = Driver::new(sim, POLICIES[policy]);
    driver.sim.set_faults(FaultPlan::new().on(call, nth..nth + 1, fault));
    if driver.open().is_err() {
        driver.sim.set_faults(FaultPlan::new());
        driver.open().map_err(|e| format!("the second opening fails, too: {}", chain(&e)))?;
        tally.faults += 1;
        return State::of(driver.heap()).map(|_| true);
    }
    let (mut dice, mut failed_at, mut doubted) = (Dice(11), None, false);
    for _ in 0..14 {
        let steps = 1 + dice.below(5);
        let (again, mut dice_after) = (dice.clone(), dice.clone());
        let result = driver.transaction(&mut dice_after, steps, 3000);
        let Err(error) = result else {
            dice = dice_after;
            continue;
        };
        failed_at.get_or_insert(driver.sim.op_count());
        let Error::Stack(cause) = &error else { return Err(chain(&error)) };
        if matches!(cause, cairn_stack::Error::Io { .. } | cairn_stack::Error::Full { .. }) {
            tally.unchanged += 1;
            if State::of(driver.heap())? != driver.state {
                return Err("it changed something".into());
            }
            dice = again;
            let mut repeated = dice.clone();
            driver
                .transaction(&mut repeated, steps, 3000)
                .map_err(|e| format!("repeated: {}", chain(&e)))?;
            continue;
        }
        tally.in_doubt += 1;
        doubted = true;
        // What it would have led to: the same step on a heap in the same state. The states that are
        // possible are found by elimination.
        let after = twin(policy, &driver, &again, steps)?;
        driver.history.push((driver.sim.op_count(), std::rc::Rc::new(after.clone())));
        let before = std::rc::Rc::new(driver.state.clone());
        driver.history.push((driver.sim.op_count() + 1, before));
        reopen(&mut driver, Some(after))?;
    }
    if driver.sim.counters().faults == 0 && failed_at.is_none() {
        return Ok(false);
    }
    tally.faults += 1;
    let Some(at) = failed_at.filter(|_| !doubted) else { return Ok(true) };
    let explorer = CrashExplorer::new(driver.sim.trace()).exhaustive_limit(8).samples_per_point(8);
    let report = explorer
        .points(at.saturating_sub(3)..=at + 10)
        .for_each(|s| check_state(&driver, s.point(), &s.fs()));
    tally.states += report.map_err(|failure| failure.to_string())?.distinct;
    Ok(true)
}

/// The same program up to and with the step that is in doubt, on a machine without faults.
fn twin(policy: usize, failed: &Driver, step: &Dice, steps: usize) -> Result<State, String> {
    let mut twin = Driver::new(SimFs::new(), POLICIES[policy]);
    twin.open().map_err(|e| chain(&e))?;
    let mut dice = Dice(11);
    while dice.0 != step.0 {
        let steps = 1 + dice.below(5);
        if dice.0 == step.0 {
            break;
        }
        twin.transaction(&mut dice, steps, 3000).map_err(|e| chain(&e))?;
    }
    if twin.state != failed.state {
        return Err("the twin is another heap".into());
    }
    twin.transaction(&mut step.clone(), steps, 3000).map_err(|e| chain(&e))?;
    Ok(twin.state)
}

#[test]
fn every_call_fails_once_in_every_way() {
    let mut tally = Tally::default();
    for policy in [0, 3, 4] {
        for call in
            [Call::Write, Call::WriteDirect, Call::Sync, Call::SetLen, Call::Allocate, Call::Read]
        {
            for fault in FAULTS {
                for nth in 0.. {
                    match run(policy, call, nth, *fault, &mut tally) {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(e) => {
                            panic!("{:?}, {call:?} number {nth}, {fault:?}: {e}", POLICIES[policy])
                        }
                    }
                }
            }
        }
    }
    println!("{tally:?}");
    assert!(
        tally.faults > 500 && tally.unchanged > 50 && tally.in_doubt > 50 && tally.states > 1000
    );
}

#[test]
fn a_full_disk_refuses_what_grows_and_lets_free() {
    for policy in POLICIES {
        let mut driver = Driver::new(SimFs::new(), policy);
        driver.open().unwrap();
        driver.sim.set_faults(FaultPlan::new().capacity(1 << 20));
        let mut blocks = Vec::new();
        let error = loop {
            match driver.heap().alloc_with(vec![1; 20_000]) {
                Ok(block) => blocks.push(block),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(error, Error::Stack(cairn_stack::Error::Full { .. })),
            "{}",
            chain(&error)
        );
        for block in blocks.drain(..) {
            assert_eq!(driver.heap().read(block).unwrap(), [1; 20_000]);
            driver.heap().dealloc(block).unwrap();
        }
        driver.heap().alloc_with(vec![2; 20_000]).unwrap();
        State::of(driver.heap()).unwrap();
    }
}
